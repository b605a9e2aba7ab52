"""What the tests share: how a framework is reached from a process that must never import one."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import settings
from played import undisturbed

from backends import catalog
from backends.info import BackendInfo
from bench.cli import main as cli
from bench.machine.git import REDIRECTING
from bench.measuring.backends import installed_versions
from bench.measuring.variables import worker_environment

for name in REDIRECTING:  # a git hook sets some, and the tests' commits would go into its repository
    os.environ.pop(name, None)

TESTS = Path(__file__).parent
KERAS = (catalog.KERAS_TENSORFLOW, catalog.KERAS_TORCH, catalog.KERAS_JAX)
INFOS = {info.name: info for info in (catalog.NUMPY, catalog.TENSORFLOW, catalog.TORCH, catalog.JAX, *KERAS)}
FRAMEWORKS = ("tensorflow", "torch", "jax", "keras", "flax", "optax")
REQUIRED = "SAMEWORK_REQUIRE_FRAMEWORKS"
"""Where this variable is 1, a framework that is not installed fails the tests that need it."""

FULL = "SAMEWORK_FULL"
"""Where this variable is 1, as in `nox -s nightly`, simulations take all their draws."""

settings.register_profile("samework", deadline=None, print_blob=True)  # a busy machine is no failure
settings.load_profile("samework")

_CHILD = """
import importlib, json, sys
target, argument, result = sys.argv[1:]
module, _, name = target.partition(":")
found = getattr(importlib.import_module(module), name)(json.loads(argument))
with open(result, "w") as file:
    json.dump(found, file)
"""


def draws(full: int, few: int) -> int:
    """Return how many draws a simulation takes: `few` on every change, `full` every night.

    The bounds of a test have to follow from the number, so that a right program fails it as seldom with few.
    """
    return full if os.environ.get(FULL) == "1" else few


def every_backend() -> list[Any]:
    """Return the names of all backends as parameters, each but the reference marked with its framework."""
    return [
        pytest.param(name, marks=[] if info.reference else [pytest.mark.framework(name)])
        for name, info in INFOS.items()
    ]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the modules that take long, so that at the end no core waits for one of them."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("framework"):
        demand(INFOS[mark.args[0]])


def demand(info: BackendInfo) -> None:
    """Skip, or fail where frameworks are required, if what the backend needs is not installed."""
    _, missing = installed_versions([info], {})[info.name]
    if missing:
        reason = f"{info.title} cannot be tested: {', '.join(missing)} not installed in {sys.prefix}"
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(f"{reason}, and {REQUIRED} is 1", pytrace=False)
        pytest.skip(reason)


@pytest.fixture(autouse=True)
def no_framework_here() -> Iterator[None]:
    """Fail the test that made pytest's own process import a framework: two of them must never meet."""
    before = set(sys.modules)
    yield
    imported = {name for name in set(sys.modules) - before if name.partition(".")[0] in FRAMEWORKS}
    assert not imported, f"pytest's own process has imported {sorted(imported)[0]}"


def kept_compiled(config: pytest.Config) -> Path | None:
    """Return the folder in pytest's cache for compiled programs, which the next run in this checkout finds.

    Frameworks look for a program by what it computes, how it is compiled and their own version.
    """
    cache = getattr(config, "cache", None)  # which -p no:cacheprovider takes away
    return cache.mkdir("compiled") if cache else None


def in_process(
    info: BackendInfo, target: str, argument: Any, *, limit_s: float = 300.0, compiled: Path | None = None
) -> Any:
    """Return what `module:function` of tests/ makes of `argument` in a fresh process; both ways as JSON.

    The process is started with the variables that a worker of that backend gets for a job on the CPU.
    Compiled programs are kept in a folder of `compiled` for each backend; without it, none is there before.
    """
    with tempfile.TemporaryDirectory(prefix="samework-test-") as scratch:
        result = Path(scratch) / "result.json"
        command, environment = child(info, target, argument, result, compiled=compiled)
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=limit_s, env=environment
        )
        tail = "\n".join(done.stderr.splitlines()[-30:])
        assert done.returncode == 0, f"{target} ended with status {done.returncode}:\n{tail}"
        return json.loads(result.read_text())


def child(
    info: BackendInfo, target: str, argument: Any, result: Path, *, compiled: Path | None = None
) -> tuple[list[str], dict[str, str]]:
    """Return the command of such a process, which writes to `result`, and its environment variables.

    The folder of `result` is its scratch folder.
    """
    scratch = result.parent
    # Checks build the same small networks over and over: each is compiled once.
    kept = (compiled or scratch / "compiled") / info.name
    environment = worker_environment(info, "cpu", scratch, compiled=kept)
    asked = [TESTS, TESTS / "backends", TESTS / "workloads", TESTS.parent]
    environment["PYTHONPATH"] = os.pathsep.join(map(str, asked))
    return [sys.executable, "-c", _CHILD, target, json.dumps(argument), str(result)], environment


# The command line


class Said(NamedTuple):
    status: int
    out: str
    err: str

    def refused(self, status: int, *words: str) -> None:
        """Check that the command refused, in two lines at most, with these words and without a traceback."""
        assert self.status == status, self
        assert 1 <= len(self.err.splitlines()) <= 2, self.err
        assert self.err.startswith("bench: ")
        assert "Traceback" not in self.err + self.out
        for word in words:
            assert word in self.err, self.err


Call = Callable[..., Said]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Return a function that runs the command in this process, in an empty folder, and says how it ended."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), str(TESTS.parent)]))
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("bench.measuring.selection.nvidia_driver_present", lambda: False)
    undisturbed(monkeypatch)

    def run(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["bench", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return Said(int(ended.value.code or 0), out, err)

    return run
