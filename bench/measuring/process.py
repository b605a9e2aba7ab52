"""Talk to a worker: take in its events, keep its time limit, and judge how it ended.

What runs and where is the business of its link (`bench.measuring.link`).
"""

import math
import re
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Protocol, Self, TypeVar

import msgspec

from backends.info import BackendInfo
from bench.measuring.link import LOST_STATUS, Launch, LocalLink
from bench.measuring.stream import EventStream, listen
from bench.paths import to_text
from bench.records.schema import RankRecord, Status
from bench.worker.protocol import AnyCommand, AnyEvent, Done, Event, Failed, MeasureTask
from bench.workloads.specs import Device

Heard = TypeVar("Heard", bound=Event)


class Task(Protocol):
    """Every task names the backend whose worker does it. It is a struct, sent to the worker as JSON."""

    @property
    def backend(self) -> BackendInfo: ...


_NO_PROGRAM = re.compile(r"(No module named|module specification for) '?bench\.worker\b")
"""What an interpreter says that does not find this program, or finds another package of that name first."""
_HINTS: Mapping[int, str] = MappingProxyType(
    {
        signal.SIGKILL: "; most often the system ran out of memory",
        signal.SIGBUS: "; most often a disk, such as that of the temporary folder, is full",
    }
)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker ended, and all its events; or how the ranks of a job did, together."""

    events: tuple[Event, ...]
    status: Status
    error: str | None
    exit_signal: str | None
    stderr_tail: tuple[str, ...]
    wall_s: float
    """Time of starting and working, without the time in which it waited for its turn."""
    start_s: float | None = None
    """From its start to its first event."""
    ranks: tuple[RankRecord, ...] = ()
    """How each rank ended; empty for a worker that is no rank."""


def launch_of(
    task: Task, *, python: Path, device: Device, hash_seed: int | None = None, compiled: Path | None = None
) -> Launch:
    """Return what it takes to start the worker of a task.

    A task that measures finds no compiled programs but those in `compiled`. Other tasks may build a network
    more than once, and keep what they compile for as long as they run.
    """
    return Launch(
        task=msgspec.json.encode(task).decode(),
        backend=task.backend,
        python=to_text(python),
        device=device,
        hash_seed=hash_seed,
        compiled=None if compiled is None else to_text(compiled),
        compiles_once=not isinstance(task, MeasureTask),
    )


def run_worker(
    task: Task,
    *,
    python: Path,
    device: Device,
    time_limit_s: float,
    on_event: Callable[[Event], None] = lambda _: None,
    events: Any = AnyEvent,
) -> Outcome:
    """Run a task that needs no commands in a fresh process; KeyboardInterrupt leaves no process running.

    `events` is the union of the events that the worker may send.
    """
    with Worker(
        task, python=python, device=device, time_limit_s=time_limit_s, on_event=on_event, events=events
    ) as worker:
        return worker.finish()


class AnyWorker(Protocol):
    """What a `Worker`, and the ranks of a job together, offer to whoever gives them their turns."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes on this host, each the leader of its session."""

    @property
    def over(self) -> bool:
        """Whether no further event will come."""

    def ask(self, command: AnyCommand) -> None:
        """Send a command. If it can no longer be read, waiting for the answer will show that."""

    def wait_for(self, kind: type[Heard]) -> Heard | None:
        """Listen until an event of that kind has come and return it; None where the worker is over first."""

    def finish(self) -> Outcome:
        """Say that no more commands come, listen until the worker is over, and return how it ended."""


class Worker:
    """A worker process. Used as a context, it leaves neither the process nor its scratch folder behind.

    Its time limit does not count the time in which it waits for its turn.
    """

    def __init__(
        self,
        task: Task,
        *,
        python: Path,
        device: Device,
        time_limit_s: float,
        on_event: Callable[[Event], None] = lambda _: None,
        hash_seed: int | None = None,
        compiled: Path | None = None,
        deadline: float = math.inf,
        events: Any = AnyEvent,
    ) -> None:
        """`events` is the union of the events that the worker may send.

        At `deadline`, a time of the monotonic clock, it is ended whatever is left of its time limit.
        """
        self._launch = launch_of(task, python=python, device=device, hash_seed=hash_seed, compiled=compiled)
        self._time_limit_s, self._deadline, self._on_event = time_limit_s, deadline, on_event
        self._kinds = events
        self._wall_s = 0.0

    def __enter__(self) -> Self:
        self._link = LocalLink(self._launch)
        self._stream = EventStream(self._link, self._kinds)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._link.close()

    @property
    def pids(self) -> tuple[int, ...]:
        return (self._link.pid,)

    @property
    def over(self) -> bool:
        """Whether no further event will come."""
        return self._stream.over

    def ask(self, command: AnyCommand) -> None:
        """Send a command. If the worker can no longer read it, waiting for the answer will show that."""
        self._link.send(msgspec.json.encode(command))

    def wait_for(self, kind: type[Heard]) -> Heard | None:
        """Listen until an event of that kind has come and return it; None where the worker is over first."""
        while (event := self._next()) is not None:
            if isinstance(event, kind):
                return event
        return None

    def finish(self) -> Outcome:
        """Close the channel of commands, listen until the worker is over, and return how it ended."""
        self._link.hang_up()
        while self._next() is not None:
            pass
        self._link.end()
        tail = self._link.tail()
        status, error, exit_signal = verdict(self._stream, self._time_limit_s, tail)
        return Outcome(
            events=tuple(self._stream.taken),
            status=status,
            error=error,
            exit_signal=exit_signal,
            stderr_tail=tail if status != "ok" else (),
            wall_s=self._wall_s,
            start_s=self._stream.start_s,
        )

    def _next(self) -> Event | None:
        """Return the next event; None if the worker is over before there is one.

        Events after it stay where they are: `on_event` hears of them when somebody waits for them.
        """
        began = time.monotonic()
        limit = min(began + self._time_limit_s - self._wall_s, self._deadline)
        try:
            while (event := self._stream.take()) is None and not self._stream.over:
                listen([self._stream], limit)
                if time.monotonic() > limit:
                    self._stream.give_up()
            if event is not None:
                self._on_event(event)
        finally:
            self._wall_s += time.monotonic() - began
        return event


def verdict(
    stream: EventStream, time_limit_s: float, tail: Sequence[str]
) -> tuple[Status, str | None, str | None]:
    """Return status, error and signal of a worker that has ended.

    A worker whose last event is not `Done` has failed.
    """
    last = stream.taken[-1] if stream.taken else None
    returncode = stream.link.poll() or 0
    if isinstance(last, Failed):
        return last.status, last.error, None
    # Killed by this process, if it hung after it was done.
    if isinstance(last, Done) and returncode in (0, -signal.SIGKILL):
        return "ok", None, None
    if stream.timed_out:
        error = f"it was stopped at its limit of {time_limit_s:.0f} s, or when all time was spent"
        return "timeout", error, None
    if returncode < 0:
        name = signal.Signals(-returncode).name
        hint = _HINTS.get(-returncode, "")
        return "crashed", f"the process was ended by {name}{hint}", name
    if returncode == LOST_STATUS and tail:
        return "crashed", tail[-1], None
    said = f": {tail[-1]}" if tail else ""
    if _NO_PROGRAM.search(said):
        said += (
            ". Install samework into the environment of this interpreter. If it is there, another package "
            "'bench' hides it: uninstall that one"
        )
    return "crashed", f"the process ended with status {returncode} and without a message{said}", None
