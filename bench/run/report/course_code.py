"""Cut definitions out of the source of a module, which is read and never imported."""

import ast
import io
import textwrap
import tokenize
from importlib.machinery import PathFinder

_NO_CODE = frozenset(
    {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
)


def source_of(module: str) -> str | None:
    """Return the source of a module on the path of this interpreter; None if there is none to be read.

    Importing a package could import its framework, so each package is looked for in the folder of the one
    above it.
    """
    path = None
    spec = None
    parts = module.split(".")
    try:
        for place in range(len(parts)):
            spec = PathFinder.find_spec(".".join(parts[: place + 1]), path)
            if spec is None:
                return None
            path = list(spec.submodule_search_locations or [])
        if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            return None
        with tokenize.open(spec.origin) as file:
            return file.read()
    except (OSError, SyntaxError, ValueError, ImportError):
        return None


def cut(source: str, name: str) -> str | None:
    """Return a function, a class or a method (`Class.method`) with its decorators; None if it is not there.

    A name that is only another name of a function, as after `compiled = plain`, gives that function.
    """
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError):
        return None
    node: ast.stmt | None = None
    for part in name.split("."):
        node = _find(body, part)
        body = node.body if isinstance(node, ast.ClassDef) else []
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return None
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return textwrap.dedent("\n".join(source.splitlines()[first - 1 : node.end_lineno]))


def _find(body: list[ast.stmt], name: str, depth: int = 3) -> ast.stmt | None:
    """Return the definition of a name, by way of at most `depth` other names."""
    for node in body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef() if node.name == name:
                return node
            case ast.Assign(targets=[ast.Name(id=found)], value=ast.Name(id=other)) if found == name:
                return _find(body, other, depth - 1) if depth else None
    return None


def code_lines(source: str) -> int:
    """Return how many lines hold code: no blank lines, no comments, no docstrings.

    Raise ValueError for text that is not Python.
    """
    try:
        tree = ast.parse(source)
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (SyntaxError, tokenize.TokenError) as error:
        raise ValueError(f"not Python: {error}") from error
    lines = {
        number
        for token in tokens
        if token.type not in _NO_CODE
        for number in range(token.start[0], token.end[0] + 1)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            match node.body:
                case [ast.Expr(value=ast.Constant(value=str())) as doc, *_]:
                    lines -= set(range(doc.lineno, (doc.end_lineno or doc.lineno) + 1))
    return len(lines)
