"""The rules that hold for the project as a whole, each with a broken twin that shows the check can fail."""

import ast
import importlib
import itertools
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import bench
from backends.info import BackendInfo

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FRAMEWORKS = ("tensorflow", "torch", "jax", "keras", "flax", "optax")
NOT_NAMED = {*FRAMEWORKS, "tensorflow-cpu", "tf", "pytorch"}
ENTRY_POINTS: dict[str, str] = PYPROJECT["project"]["entry-points"]["bench.backends"]
LARGEST_SOURCE_BYTES = 24 * 1024
"""A module that is larger should be split."""

IMPORT_ALL = """
import importlib, pkgutil, sys
def fail(name):
    raise ImportError(f"cannot look into {name}") from sys.exception()
for name in sys.argv[1:]:
    module = importlib.import_module(name)
    for found in pkgutil.walk_packages(getattr(module, "__path__", []), name + ".", onerror=fail):
        importlib.import_module(found.name)
print(*sorted(sys.modules), sep="\\n")
"""


def frameworks_imported_by(*modules: str, fakes: Path) -> set[str]:
    """Return the frameworks that a new interpreter imports with the modules and all below them.

    Empty modules stand in for the frameworks, so an import whose failure the code ignores is also seen.
    """
    for name in FRAMEWORKS:
        (fakes / f"{name}.py").touch()
    path = f"import sys; sys.path[:0] = {[str(fakes), str(ROOT)]}"
    command = [sys.executable, "-P", "-c", path + IMPORT_ALL, *modules]  # -P: no folder precedes the fakes
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    imported = set(done.stdout.split())
    assert imported.issuperset(modules), "the script did not get to its end"
    return imported & set(FRAMEWORKS)


def test_the_harness_imports_no_framework(tmp_path: Path) -> None:
    modules = ("bench", "bench.cli.main", "backends.base", "backends.catalog")
    assert frameworks_imported_by(*modules, fakes=tmp_path) == set()


@pytest.mark.parametrize(
    ("command", "heavy"),
    [
        ("--help", {"msgspec", "numpy", "scipy", "matplotlib", "rich", "psutil", "pyarrow", "ruptures"}),
        ("list", {"numpy"}),
    ],
)
def test_a_quick_command_does_not_wait_for_large_libraries(command: str, heavy: set[str]) -> None:
    script = """
import sys
from bench.cli.main import main
try:
    main()
finally:
    print("modules:", *sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, command], check=True, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    imported = {name.partition(".")[0] for name in done.stdout.partition("modules:")[2].split()}
    assert "click" in imported
    assert not imported & heavy, f"bench {command} imports {sorted(imported & heavy)}"


@pytest.mark.parametrize(
    "line", ["import jax", "from torch import *", "try:\n import keras\nexcept ImportError: 1"]
)
def test_an_import_of_a_framework_would_be_seen(line: str, tmp_path: Path) -> None:
    package = tmp_path / "offender"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "below.py").write_text(line)
    assert len(frameworks_imported_by("offender", fakes=tmp_path)) == 1


def framework_mentions(source: str) -> list[str]:
    """Return each place where the source imports a framework, names one, or branches on a backend's name."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names) if any(map(_is_framework, (alias.name for alias in names))):
                found.append(f"line {node.lineno}: imports a framework")
            case ast.ImportFrom(module=str(module)) if _is_framework(module):
                found.append(f"line {node.lineno}: imports a framework")
            case ast.Constant(value=str(text)) if text in NOT_NAMED:
                found.append(f"line {node.lineno}: names {text!r}")
            case ast.Compare(left=left, comparators=others):
                sides = [left, *others]
                if any(map(_is_backend, sides)) and any(map(_is_text, sides)):
                    found.append(f"line {node.lineno}: branches on a backend's name")
            case ast.Match(subject=subject) if _is_backend(subject):
                found.append(f"line {node.lineno}: branches on a backend's name")
    return found


def _is_framework(module: str) -> bool:
    return module.partition(".")[0] in FRAMEWORKS


def _is_backend(node: ast.expr) -> bool:
    """Whether this is `backend`, `cell.backend`, `backend_name`, `backend.name`, `backend.name.lower()` …"""
    match node:
        case ast.Name(id=name):
            return name in {"backend", "backend_name", "framework", "framework_name"}
        case ast.Attribute(value=value, attr=name):
            return name in {"backend", "backend_name", "framework", "framework_name"} or _is_backend(value)
        case ast.Call(func=function):
            return _is_backend(function)
    return False


def _is_text(node: ast.expr) -> bool:
    """Whether this is a literal string or a collection of them; comparing two variables is allowed."""
    match node:
        case ast.Constant(value=str()):
            return True
        case ast.Tuple(elts=items) | ast.List(elts=items) | ast.Set(elts=items):
            return any(map(_is_text, items))
    return False


def test_the_harness_knows_no_framework() -> None:
    sources = sorted((ROOT / "bench").rglob("*.py"))
    found = {str(path): framework_mentions(path.read_text(encoding="utf-8")) for path in sources}
    assert len(sources) > 50
    assert {path: mentions for path, mentions in found.items() if mentions} == {}


@pytest.mark.parametrize(
    "offence",
    [
        "import torch.nn as nn",
        "def f():\n    from jax import numpy",
        "if backend == 'x': pass",
        "if 'x' != cell.backend: pass",
        "y = 1 if backend.name.lower() in ('x', 'y') else 2",
        "if job.cell.backend not in {'x'}: pass",
        "match backend:\n    case 'x': pass",
        "colours = {'tensorflow': 'orange'}",
    ],
)
def test_an_offence_against_neutrality_is_seen(offence: str) -> None:
    assert len(framework_mentions(offence)) == 1


@pytest.mark.parametrize(
    "innocent",
    [
        "same = cell.backend == other.backend",
        "if backend.reference: pass",
        "'the torch of liberty'",
        "from backends import base",
        "if device == 'gpu': pass",
    ],
)
def test_neutral_code_is_left_alone(innocent: str) -> None:
    assert framework_mentions(innocent) == []


def sessions_of(source: str) -> dict[str, str | None]:
    """Return the first line of the docstring of every nox session in the source."""
    return {
        node.name: (ast.get_docstring(node) or "").partition("\n")[0].strip()
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef)
        and any("nox.session" in ast.unparse(decorator) for decorator in node.decorator_list)
    }


def test_every_nox_session_has_a_docstring() -> None:
    sessions = sessions_of((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    expected = "tests lint verify benchmarks bench regression notebooks campaign dev nightly clean"
    assert set(expected.split()) <= sessions.keys()
    assert [name for name, summary in sessions.items() if not summary] == []


@pytest.mark.parametrize(
    ("arguments", "gpu", "wanted"),
    [
        ([], False, ["tensorflow", "torch", "jax"]),
        (["--budget", "5m"], True, ["tensorflow", "torch", "jax"]),
        (["--backend", "jax", "--workload", "mnist-mlp"], False, ["jax"]),
        (["--backend=torch", "--backend", "tensorflow"], True, ["tensorflow", "torch"]),
        (["--backend", "keras-jax", "--backend", "jax"], False, ["jax", "keras-jax"]),
        (["--backend", "numpy"], False, ["tensorflow", "torch", "jax"]),
        (["--backend", "jxa"], False, ["tensorflow", "torch", "jax"]),  # which `bench` will refuse by name
    ],
)
def test_only_named_frameworks_are_installed(arguments: list[str], gpu: bool, wanted: list[str]) -> None:
    """Nox is not installed where the tests run, so only the function and what it needs are executed."""
    nodes = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8")).body
    needed = [
        node
        for node in nodes
        if (isinstance(node, ast.FunctionDef) and node.name in {"wanted_backends", "values_of"})
        or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in {"FRAMEWORKS", "ON_REQUEST"})
    ]
    names: dict[str, Any] = {"Sequence": Sequence, "itertools": itertools}
    exec(compile(ast.Module(needed, []), "noxfile.py", "exec"), names)  # noqa: S102
    assert names["wanted_backends"](arguments, gpu=gpu) == wanted


def test_a_session_without_a_docstring_is_seen() -> None:
    source = "import nox\n@nox.session(python=False)\ndef mute(session): pass\ndef helper(): pass\n"
    assert sessions_of(source) == {"mute": ""}


PYTHONS = ("3.11", "3.12", "3.13")


def unpinned(pyproject: dict[str, Any], constraints: str) -> list[str]:
    """Return the direct dependencies that are not pinned to one allowed version, on some Python."""
    return sorted({name for python in PYTHONS for name in unpinned_on(python, pyproject, constraints)})


def pins_on(python: str, constraints: str) -> dict[str, SpecifierSet]:
    """Return the pin of each distribution on a version of Python."""
    pins = {}
    for line in constraints.splitlines():
        if line.strip() and not line.startswith("#"):
            pin = Requirement(line)
            if pin.marker is None or pin.marker.evaluate({"python_version": python}):
                pins[str(canonicalize_name(pin.name))] = pin.specifier
    return pins


def unpinned_on(python: str, pyproject: dict[str, Any], constraints: str) -> list[str]:
    pins = pins_on(python, constraints)
    project = pyproject["project"]
    wanted = [*project["dependencies"]]
    wanted += [item for extra in project["optional-dependencies"].values() for item in extra]
    wanted += [
        item for group in pyproject["dependency-groups"].values() for item in group if isinstance(item, str)
    ]
    missing = set()
    for requirement in map(Requirement, wanted):
        exact = [part for part in pins.get(canonicalize_name(requirement.name), []) if part.operator == "=="]
        if len(exact) != 1 or not requirement.specifier.contains(exact[0].version):
            missing.add(str(requirement))
    return sorted(missing)


def test_every_direct_dependency_is_pinned() -> None:
    assert unpinned(PYPROJECT, (ROOT / "constraints.txt").read_text(encoding="utf-8")) == []


def test_a_dependency_that_is_not_pinned_is_seen() -> None:
    pyproject = {
        "project": {
            "dependencies": ["a>=1", "b>=2", "not-there"],
            "optional-dependencies": {"x": ["c_c[more]>=3; python_version > '3'"]},
        },
        "dependency-groups": {"test": ["d", {"include-group": "lint"}], "lint": ["e"]},
    }
    constraints = "# a comment\na==1.5\nb==1.9\nC-C==3.0\nd>=4\n"
    assert unpinned(pyproject, constraints) == ["b>=2", "d", "e", "not-there"]
    only_old = constraints + "d==4.0\ne==1.0; python_version < '3.12'\nnot-there==1\nb==2.0\n"
    assert unpinned(pyproject, only_old) == ["e"]


def test_the_constraints_are_sorted_and_exact() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    for python in PYTHONS:
        names = [
            pin.name
            for pin in map(Requirement, pins)
            if pin.marker is None or pin.marker.evaluate({"python_version": python})
        ]
        assert names == sorted(set(names), key=str.lower)
    assert [pin for pin in pins if "==" not in pin or "*" in pin] == []


def versions_on_the_page(page: str, python: str) -> dict[str, str]:
    """Return the version of each distribution from the page's table, whose columns are versions of Python."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if "|" in line]
    (column,) = (number for number, head in enumerate(rows[0]) if python in head)
    names = {"PyTorch": "torch", "TensorFlow": "tensorflow", "JAX": "jax"}
    return {names.get(row[0], row[0]): row[column] for row in rows[2:]}


@pytest.mark.parametrize("python", PYTHONS)
def test_the_page_about_installing_names_the_pinned_versions(python: str) -> None:
    found = versions_on_the_page((ROOT / "docs/guide/install.md").read_text(encoding="utf-8"), python)
    assert set(found) == {"torch", "torchvision", "tensorflow", "jax", "flax"}
    pins = pins_on(python, (ROOT / "constraints.txt").read_text(encoding="utf-8"))
    assert found == {name: str(pins[name]).removeprefix("==") for name in found}


def broken_contracts(root: Path) -> str:
    """Return what import-linter prints of a tree whose imports break the rule; nothing if none does."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    return done.stdout if done.returncode else ""


def test_imports_go_one_way() -> None:
    assert broken_contracts(ROOT) == ""


def test_an_import_that_climbs_is_seen(tmp_path: Path) -> None:
    for name in ("samework", "bench", "backends", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    for module, imported in (
        ("bench/text.py", "bench.run.runner"),
        ("bench/gate/judge.py", "bench.history.time_series"),
        ("backends/base.py", "bench.records.schema"),
    ):
        with (tmp_path / module).open("a", encoding="utf-8") as file:
            file.write(f"\nimport {imported}\n")
    found = broken_contracts(tmp_path)
    assert "bench.text is not allowed to import bench.run" in found
    assert "bench.gate is not allowed to import bench.history" in found
    assert "backends is not allowed to import bench.records" in found


def too_large(root: Path) -> list[str]:
    """Return the text files that are larger than a source may be; samples of data are not text."""
    large = []
    for path in sorted(
        path for folder in ("samework", "bench", "backends", "tests") for path in (root / folder).rglob("*")
    ):
        if path.is_file() and "__pycache__" not in path.parts and path.stat().st_size > LARGEST_SOURCE_BYTES:
            try:
                path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue
            large.append(str(path.relative_to(root)))
    return large


def test_no_source_is_too_large_to_read() -> None:
    assert too_large(ROOT) == []


def test_a_source_that_is_too_large_is_seen(tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench/fits.py").write_text("#" * LARGEST_SOURCE_BYTES)
    (tmp_path / "bench/large.py").write_text("#" * (LARGEST_SOURCE_BYTES + 1))
    (tmp_path / "bench/sample.gz").write_bytes(b"\x1f\x8b\xff" * LARGEST_SOURCE_BYTES)
    assert too_large(tmp_path) == ["bench/large.py"]


def resolve(target: str) -> object:
    """Return the object that an entry point names as `module:NAME`."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_an_entry_point_names_a_backend(name: str) -> None:
    info = resolve(ENTRY_POINTS[name])
    assert isinstance(info, BackendInfo)
    assert info.name == name
    assert [mode.name for mode in info.modes if mode.default] == [info.default_mode], (
        "one mode is the default"
    )


@pytest.mark.parametrize("target", ["backends.nowhere:TORCH", "backends.base:NOTHING"])
def test_an_entry_point_to_nowhere_is_seen(target: str) -> None:
    with pytest.raises((ImportError, AttributeError)):
        resolve(target)


BYTES_THAT_COUNT = (
    ".ci/run",
    "scripts/gpu_check.sh",
    "tests/golden/own-defaults.json",
    "bench/datasets/samples/mnist/test_images.png",
)


def cloned_with_carriage_returns(folder: Path, names: Sequence[str]) -> list[str]:
    """Return the files that differ in a clone that was made as Git for Windows makes it."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    for name in names:
        (folder / "origin" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "origin" / name)
    for command in (
        ("-C", str(folder / "origin"), "init", "--quiet"),
        ("-C", str(folder / "origin"), "add", "--all"),
        ("-C", str(folder / "origin"), "commit", "--quiet", "--message=all"),
        ("clone", "--quiet", "-c", "core.autocrlf=true", str(folder / "origin"), str(folder / "clone")),
    ):
        subprocess.run([*git, *command], check=True, env=variables, capture_output=True)
    return [name for name in names if (folder / "clone" / name).read_bytes() != (ROOT / name).read_bytes()]


def test_a_clone_has_the_same_bytes_whatever_its_line_endings(tmp_path: Path) -> None:
    assert cloned_with_carriage_returns(tmp_path, [".gitattributes", *BYTES_THAT_COUNT]) == []


def test_without_attributes_a_clone_would_have_other_bytes(tmp_path: Path) -> None:
    assert cloned_with_carriage_returns(tmp_path, BYTES_THAT_COUNT) == list(BYTES_THAT_COUNT[:3])


def test_the_command_is_there() -> None:
    assert callable(resolve(PYPROJECT["project"]["scripts"]["bench"]))


def test_the_version_is_the_same_everywhere() -> None:
    assert PYPROJECT["project"]["version"] == bench.__version__


FOLDERS = {
    ".ci",
    ".github",
    "backends",
    "bench",
    "docs",
    "examples",
    "results",
    "samework",
    "scripts",
    "tests",
}
FILES = {
    ".gitattributes", ".gitignore", "CHANGELOG.md", "CITATION.cff", "LICENSE", "README.md", "constraints.txt",
    "noxfile.py", "pyproject.toml",
}  # fmt: skip


def test_nothing_lies_at_the_top_that_does_not_belong_there() -> None:
    """A report or a folder that a test has left there would be committed with the rest."""
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout: what is committed cannot be told from what was made here")
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    assert {name.partition("/")[0] for name in done.stdout.split("\0")[:-1]} <= FOLDERS | FILES
