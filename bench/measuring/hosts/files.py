"""The files that tasks and commands name: which they are, and how their paths change on another host."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from backends.info import BackendInfo
from bench.worker.protocol import AnyCommand, Begin, MeasureTask, VerifyTask

_ANY_TASK = MeasureTask | VerifyTask


def files_of_task(task: bytes | str) -> list[str]:
    """Return the paths of the reference traces that a task names. Data sets are not among them."""
    decoded = msgspec.json.decode(task, type=_ANY_TASK)
    return [] if isinstance(decoded, MeasureTask) else list(dict.fromkeys(c.trace for c in decoded.cases))


def files_of_command(line: bytes | str) -> list[str]:
    """Return the paths of the reference traces that a command names."""
    command = msgspec.json.decode(line, type=AnyCommand)
    return [command.proof] if isinstance(command, Begin) and command.proof is not None else []


def task_here(task: str, backend: BackendInfo, *, kept: Mapping[str, str], cache: str) -> str:
    """Return a task of another host with the backend and the paths of this one.

    `kept` has the paths of its traces, by those on the other host; `cache` is the folder of the data sets.
    Raises KeyError for a file that is not kept.
    """
    decoded = _changed(msgspec.json.decode(task, type=_ANY_TASK), backend=backend)
    if isinstance(decoded, VerifyTask):
        return _text(_changed(decoded, cases=tuple(_changed(c, trace=kept[c.trace]) for c in decoded.cases)))
    source = decoded.data if decoded.data.cache is None else _changed(decoded.data, cache=cache)
    return _text(_changed(decoded, data=source))


def command_here(line: str, *, kept: Mapping[str, str]) -> str:
    """Return a command of another host with the path that its trace has on this one."""
    command = msgspec.json.decode(line, type=AnyCommand)
    if isinstance(command, Begin) and command.proof is not None:
        return _text(_changed(command, proof=kept[command.proof]))
    return line


_changed: Callable[..., Any] = msgspec.structs.replace


def _text(message: msgspec.Struct) -> str:
    return msgspec.json.encode(message).decode()
