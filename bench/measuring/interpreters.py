"""Whether an interpreter that was named can run this program's workers, and what to install if it cannot."""

import json
import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

import bench
from bench.errors import UsageError
from bench.worker.protocol import VERSION

_LIMIT_S = 60.0
_PROJECT = Path(bench.__file__).resolve().parent.parent
"""The root of the checkout, or the folder in which the package is installed."""
_IMPORT_WORKER = """
import json
from importlib import import_module
try:
    from bench.worker.__main__ import HANDLERS
    from bench.worker.protocol import VERSION
    for handler in HANDLERS.values():
        import_module(handler.module)
    print(json.dumps({"protocol": VERSION}))
except Exception as error:
    print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
"""


def program_fault(
    python: Path, *, variables: Mapping[str, str] | None = None, source: Path = _PROJECT
) -> str | None:
    """Return why an interpreter cannot run workers, and what to install; None if it can.

    `variables` are set for it beside those of this process, and `source` is the code that it should run.
    Raises UsageError if the interpreter does not answer.
    """
    try:
        said = subprocess.run(
            [str(python), "-c", _IMPORT_WORKER],
            # The current folder must not stand in for what is not installed.
            env={**os.environ, **(variables or {}), "PYTHONSAFEPATH": "1"},
            capture_output=True, timeout=_LIMIT_S, check=True,
        ).stdout  # fmt: skip
        answer = json.loads(said)
        error, protocol = answer.get("error"), answer.get("protocol", VERSION)
    except (OSError, subprocess.SubprocessError, ValueError, AttributeError) as error:
        raise UsageError(f"--python: {python} does not run as a Python interpreter: {error}") from error
    if error is None and protocol == VERSION:
        return None
    why = error or f"it has another version of it, with protocol {protocol} and not {VERSION}"
    return f"{python} cannot run samework: {why}. {_remedy(python, source)}"


def _remedy(python: Path, source: Path) -> str:
    if (source / "pyproject.toml").is_file():
        return f"Install it there: {shlex.quote(str(python))} -m pip install {shlex.quote(str(source))}"
    return f"Install samework {bench.__version__} there, beside the framework."
