"""The worker: one fresh process that does one task with one framework and reports events.

It is started as `python -m bench.worker FD`. The task is a line of JSON on standard input. If the task is to
measure, a line for every command follows. Events are JSON lines on the file descriptor FD, because frameworks
print to standard output and standard error as they please.

The backend is imported first, before anything else imports NumPy, as NumPy is a part of what importing a
framework takes. Whatever else the task needs is imported after it.
"""

import contextlib
import faulthandler
import os
import signal
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
    """The function that does a kind of task, and its module, which is imported after the backend."""

    module: str
    task: str
    function: str
    commanded: bool = False
    """Whether the function takes commands."""


HANDLERS = {
    "measure": Handler("bench.worker.measure", "MeasureTask", "measure", commanded=True),
    "verify": Handler("bench.worker.prove", "VerifyTask", "verify"),
    "probe": Handler("bench.worker.prove", "ProbeTask", "probe"),
    "teach": Handler("bench.worker.lessons", "TeachTask", "teach"),
    "train": Handler("bench.recipes.worker", "TrainTask", "follow"),
    "evaluate": Handler("bench.recipes.worker", "EvaluateTask", "evaluate_model"),
}
"""The handler of every task, by the task's tag. Names are text, so that the worker imports no feature."""


def main() -> None:
    """Do the task on standard input. The exit status is always 0: the events report failures.

    At SIGUSR1 it prints where it is, so that the harness can tell where a worker hangs.
    """
    faulthandler.register(signal.SIGUSR1, all_threads=False)
    events = os.fdopen(int(sys.argv[1]), "wb", buffering=0)

    def emit(event: Event) -> None:
        events.write(msgspec.json.encode(event) + b"\n")

    emit(Started())
    lines = sys.stdin.buffer
    task = lines.readline()
    try:
        do(task, read_commands(lines), emit)
        emit(Done())
    except Exception as error:  # any exception becomes the status of the job
        print_if_unforeseen(error)
        emit(Failed(status=status_of(error), error=in_a_line(error)))


def do(line: bytes, commands: Iterator[AnyCommand], emit: Emit) -> None:
    """Import the backend of a task, given as a line of JSON, and do the task with it."""
    about = msgspec.json.decode(line, type=AnyTask)
    if about.place is not None and about.place.cpus:  # frameworks count the CPUs when they are imported
        os.sched_setaffinity(0, about.place.cpus)
    clock = Stopwatch()
    try:
        backend_class = load_backend(about.backend)
    except ImportError as error:  # of the framework, or of a library that it needs
        print_if_unforeseen(error)
        raise UnavailableError(f"{type(error).__name__}: {error}") from error
    emit(Imported(import_s=clock.seconds()))
    clock = Stopwatch()
    handler = HANDLERS[about.task]
    module = import_module(handler.module)
    task = msgspec.json.decode(line, type=getattr(module, handler.task))
    more = {"commands": commands, "clock": clock} if handler.commanded else {}
    getattr(module, handler.function)(task, backend_class, emit, **more)
    if about.place is not None and hasattr(backend_class, "leave"):
        backend_class.leave()


def read_commands(lines: Iterable[bytes]) -> Iterator[AnyCommand]:
    """Yield the commands as they come."""
    for line in lines:
        command: AnyCommand = msgspec.json.decode(line, type=AnyCommand)
        yield command


if __name__ == "__main__":
    main()
    with contextlib.suppress(OSError):  # the events have said what is to say
        sys.stdout.flush()
        sys.stderr.flush()
    # The last event has been sent. What a framework tears down now ends with the process anyway, but it takes
    # up to 0.7 s, for which the next job would wait.
    os._exit(0)
