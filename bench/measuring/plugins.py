"""Read the descriptions of other distributions' backends, each in a child process.

To read one, its module is imported, and that code can do anything: end the process, hang, print, crash or
import a framework. None of this may reach the harness or hide the other backends.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import metadata

import msgspec

from backends.info import BackendInfo
from bench.text import clean

LIMIT_S = 30.0
"""The module must not import a framework, so it takes a fraction of a second even on a slow disk."""
_LEAST_S = 1.0
"""An answer that is already there is read even if the time is over."""
_PROGRAM = "import sys; sys.path[:] = {path!r}; from bench.measuring.plugins import answer; answer()"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a child process found: a description, or the reason why there is none."""

    info: BackendInfo | None = None
    error: str | None = None


def read_infos(values: Sequence[str]) -> list[BackendInfo | str]:
    """Return the description behind each entry point, given as `module:NAME`, or why it cannot be used.

    All are read at the same time. One that takes longer than `LIMIT_S` cannot be used.
    """
    deadline = time.monotonic() + LIMIT_S
    children: list[subprocess.Popen[bytes]] = []
    try:
        for value in values:
            children.append(_start(value))
        return [_read(child, deadline) for child in children]
    finally:
        for child in children:
            child.kill()
            with child:  # closes its pipes and waits for it
                pass


def load_info(value: str) -> BackendInfo | str:
    """Import the module of an entry point here, and return the description or why it cannot be used."""
    if metadata.EntryPoint.pattern.match(value) is None:
        return "its entry point is not module:NAME."
    try:
        info = metadata.EntryPoint(name="", value=value, group="").load()
    except Exception as error:
        return _in_words(error)
    if not isinstance(info, BackendInfo):
        return f"its entry point must name a BackendInfo, not a {type(info).__name__}."
    return info


def answer() -> None:
    """Load the entry point that the first argument names, and write an `Answer` to standard output."""
    with os.fdopen(os.dup(1), "wb") as output:
        os.dup2(2, 1)  # what the module prints does not come between
        try:
            found = load_info(sys.argv[1])
        except BaseException as error:  # SystemExit and KeyboardInterrupt too, as a module may raise them
            found = _in_words(error)
        output.write(_encoded(found))
    os._exit(0)  # a thread or an exit handler of the module does not hold the process


def _encoded(found: BackendInfo | str) -> bytes:
    try:
        return msgspec.json.encode(Answer(error=found) if isinstance(found, str) else Answer(info=found))
    except (TypeError, ValueError) as error:  # the types of a struct's fields are not checked before
        return msgspec.json.encode(Answer(error=f"its BackendInfo has a wrong value: {error}."))


def _in_words(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"its module calls sys.exit({error.code!r}) when it is imported."
    return clean(f"{type(error).__name__}: {error}").removesuffix(":")


def _start(value: str) -> subprocess.Popen[bytes]:
    # It gets the path of this process, so that both find the same modules.
    program = _PROGRAM.format(path=sys.path)
    return subprocess.Popen(
        [sys.executable, "-P", "-c", program, value],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _read(child: subprocess.Popen[bytes], deadline: float) -> BackendInfo | str:
    try:
        output, said = child.communicate(timeout=max(_LEAST_S, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return f"its module was not imported within {LIMIT_S:g} s."
    try:
        found = msgspec.json.decode(output, type=Answer)
    except msgspec.ValidationError as error:
        return f"its BackendInfo has a wrong value: {error}."
    except msgspec.DecodeError:
        last = (said.decode(errors="replace").strip().splitlines() or ["it printed nothing"])[-1]
        return f"its module ended the process with status {child.returncode}: {clean(last)}"
    return found.info or found.error or "it gave no answer."
