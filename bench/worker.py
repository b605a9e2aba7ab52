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

import msgspec

from bench.errors import UnavailableError
from bench.failures import in_a_line, print_if_unforeseen, status_of
from bench.protocol import (
    AnyCommand,
    AnyEvent,
    Done,
    Emit,
    EvaluateTask,
    Failed,
    Imported,
    MeasureTask,
    ProbeTask,
    Started,
    Task,
    TrainTask,
    VerifyTask,
)
from bench.registry import load_backend
from bench.stopwatch import Stopwatch


def main() -> None:
    """Do the task on standard input; exit 0 whatever happened, as the events say it."""
    events = os.fdopen(int(sys.argv[1]), "wb", buffering=0)

    def emit(event: AnyEvent) -> None:
        events.write(msgspec.json.encode(event) + b"\n")

    emit(Started())
    lines = sys.stdin.buffer
    task: Task = msgspec.json.decode(lines.readline(), type=Task)
    try:
        do(task, read_commands(lines), emit)
        emit(Done())
    except Exception as error:  # the process ends here: whatever was raised becomes the job's status
        print_if_unforeseen(error)
        emit(Failed(status=status_of(error), error=in_a_line(error)))


def do(task: Task, commands: Iterator[AnyCommand], emit: Emit) -> None:
    """Import the backend, and do the task with it."""
    clock = Stopwatch()
    try:
        backend_class = load_backend(task.backend)
    except ImportError as error:  # the framework's, or a library's that it needs
        print_if_unforeseen(error)
        raise UnavailableError(f"{type(error).__name__}: {error}") from error
    emit(Imported(import_s=clock.seconds()))
    clock = Stopwatch()
    from bench import tasks

    match task:
        case MeasureTask():
            tasks.measure(task, backend_class, commands, emit, clock)
        case VerifyTask():
            tasks.verify(task, backend_class, emit)
        case ProbeTask():
            tasks.probe(task, backend_class, emit)
        case TrainTask():
            from bench.follow import follow  # with libraries that no measuring needs

            follow(task, backend_class, emit)
        case EvaluateTask():
            from bench.follow import evaluate_model

            evaluate_model(task, backend_class, emit)


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
