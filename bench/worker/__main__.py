"""The worker: one fresh process that does one task with one framework and reports events.

Started as `python -m bench.worker FD`, with the task as a line of JSON on standard input, and after it, where
the task is to measure, a line for every command; events are JSON lines on the file descriptor FD, because
frameworks print to standard output and standard error as they please.

The backend is imported first, into a process in which nothing else has brought NumPy: that is a part of what
importing a framework takes. What the task needs besides comes after.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import NamedTuple

import msgspec

from bench.errors import UnavailableError
from bench.worker.failures import in_a_line, print_if_unforeseen, status_of
from bench.worker.loading import load_backend
from bench.worker.protocol import AnyCommand, AnyTask, Done, Emit, Event, Failed, Imported, Started
from bench.worker.stopwatch import Stopwatch


class Handler(NamedTuple):
    """What does a kind of task: the module, which is imported after the backend, and two names in it."""

    module: str
    task: str
    function: str
    commanded: bool = False
    """Whether it takes commands while it works."""


HANDLERS = {
    "measure": Handler("bench.worker.measure", "MeasureTask", "measure", commanded=True),
    "verify": Handler("bench.worker.prove", "VerifyTask", "verify"),
    "probe": Handler("bench.worker.prove", "ProbeTask", "probe"),
    "train": Handler("bench.recipes.worker", "TrainTask", "follow"),
    "evaluate": Handler("bench.recipes.worker", "EvaluateTask", "evaluate_model"),
}
"""The handler of every task, by its tag. They are named as text, as the worker knows no feature."""


def main() -> None:
    """Do the task on standard input; exit 0 whatever happened, as the events say it."""
    events = os.fdopen(int(sys.argv[1]), "wb", buffering=0)

    def emit(event: Event) -> None:
        events.write(msgspec.json.encode(event) + b"\n")

    emit(Started())
    lines = sys.stdin.buffer
    task = lines.readline()
    try:
        do(task, read_commands(lines), emit)
        emit(Done())
    except Exception as error:  # the process ends here: whatever was raised becomes the job's status
        print_if_unforeseen(error)
        emit(Failed(status=status_of(error), error=in_a_line(error)))


def do(line: bytes, commands: Iterator[AnyCommand], emit: Emit) -> None:
    """Import the backend of a task, which is a line of JSON, and do the task with it."""
    about = msgspec.json.decode(line, type=AnyTask)
    clock = Stopwatch()
    try:
        backend_class = load_backend(about.backend)
    except ImportError as error:  # the framework's, or a library's that it needs
        print_if_unforeseen(error)
        raise UnavailableError(f"{type(error).__name__}: {error}") from error
    emit(Imported(import_s=clock.seconds()))
    clock = Stopwatch()
    handler = HANDLERS[about.task]
    module = import_module(handler.module)
    task = msgspec.json.decode(line, type=getattr(module, handler.task))
    more = {"commands": commands, "clock": clock} if handler.commanded else {}
    getattr(module, handler.function)(task, backend_class, emit, **more)


def read_commands(lines: Iterable[bytes]) -> Iterator[AnyCommand]:
    """Yield the commands as they come, until there are no more."""
    for line in lines:
        command: AnyCommand = msgspec.json.decode(line, type=AnyCommand)
        yield command


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    sys.stderr.flush()
    # The task is done and said to be. What a framework tears down at exit takes up to 0.7 s, for which the
    # next job waits, and nothing of it outlives the process anyway.
    os._exit(0)
