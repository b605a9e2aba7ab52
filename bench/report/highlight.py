"""Colours for Python source, by the tokenizer of the standard library."""

import builtins
import io
import itertools
import keyword
import tokenize
from collections.abc import Iterator
from typing import Literal, NamedTuple, TypeAlias

Kind: TypeAlias = Literal["", "keyword", "string", "comment", "number", "defined", "builtin"]
"""What a piece of source is; empty if it has no colour of its own."""

_BUILTINS = frozenset(name for name in dir(builtins) if not name.startswith("_"))
_STRINGS = frozenset({"STRING", "FSTRING_START", "FSTRING_MIDDLE", "FSTRING_END"})
"""Names of tokens. Python 3.12 and newer split f-strings; older versions do not know the last three."""

_KINDS: dict[int, Kind] = {tokenize.COMMENT: "comment", tokenize.NUMBER: "number"}


class Piece(NamedTuple):
    """A piece of source, in its order; all pieces together are the source."""

    kind: Kind
    text: str


def python_pieces(source: str) -> list[Piece]:
    """Return the source in pieces; all of it as one piece if it is not Python."""
    try:
        return list(_pieces(source))
    except (tokenize.TokenError, SyntaxError):  # an IndentationError is a SyntaxError
        return [Piece("", source)]


def _pieces(source: str) -> Iterator[Piece]:
    # Lines as the tokenizer counts them: str.splitlines would also end one at a form feed.
    lines = io.StringIO(source, newline="").readlines()
    starts = [0, *itertools.accumulate(map(len, lines))]
    done, before = 0, ""
    for token in tokenize.generate_tokens(iter([*lines, ""]).__next__):
        kind = _kind(token, before)
        if token.string.strip():
            before = token.string
        if not kind:
            continue
        start, end = (starts[line - 1] + column for line, column in (token.start, token.end))
        if start > done:
            yield Piece("", source[done:start])
        yield Piece(kind, source[max(start, done) : end])
        done = end
    if done < len(source):
        yield Piece("", source[done:])


def _kind(token: tokenize.TokenInfo, before: str) -> Kind:
    """Return what a token is, by itself and the token before it."""
    if tokenize.tok_name[token.type] in _STRINGS:
        return "string"
    if token.type != tokenize.NAME:
        return _KINDS.get(token.type, "")
    if before == ".":
        return ""
    if before in ("def", "class"):
        return "defined"
    if keyword.iskeyword(token.string):
        return "keyword"
    return "builtin" if token.string in _BUILTINS else ""
