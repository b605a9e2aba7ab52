"""Played workers: the code of a real worker, in a thread of this process, by a clock that nobody waits for.

Starting a process, importing what a worker needs and waiting for the clock take longer than what most tests
look at. A played worker takes the same task and commands as a real one and sends the same events. It can
exit or hang, but it cannot be killed, and it has no variables of its own: tests of these need real processes.
"""

import importlib.util
import os
import queue
import random
import threading
import time
from collections.abc import Callable, Collection, Iterator
from functools import partial
from math import inf
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self
from unittest import mock

import msgspec
import pytest

from backends.base import Backend
from backends.info import BackendInfo
from bench.machine.conditions import Conditions, Taken
from bench.machine.monitor import Stretch, Watch
from bench.measuring.process import Outcome, Task
from bench.records.schema import Status
from bench.worker.__main__ import do
from bench.worker.failures import in_a_line, status_of
from bench.worker.loading import load_backend
from bench.worker.protocol import AnyCommand, Done, Event, Failed, Started

USERS = ("bench.measuring.block.Worker", "bench.measuring.parity.Worker", "bench.measuring.process.Worker")
"""The names by which the harness starts workers."""

MEMORY_BYTES = 2**28
"""The peak memory of every played worker."""

_END = None
_LATE_S = 300.0
"""A played worker that is silent for so long, by the real clock, hangs, however busy the machine is."""
_THREAD = "played worker"


def play(patch: pytest.MonkeyPatch) -> None:
    """Let the harness start played workers, and let this process read their clock instead of the real one."""
    clock = PlayedClock()
    for name in ("monotonic", "perf_counter", "perf_counter_ns", "sleep"):
        patch.setattr(time, name, getattr(clock, name))
    patch.setattr(os, "_exit", partial(_leave, os._exit))
    patch.setattr("bench.worker.failures.traceback", mock.Mock())  # no output of the harness
    # The memory of this process is no worker's: it grows from test to test, and by what threads do when.
    patch.setattr("bench.worker.measure.peak_rss_bytes", lambda: (MEMORY_BYTES, "VmHWM - RssFile"))
    patch.setattr("bench.measuring.block.Stretch", QuietStretch)
    for user in USERS:
        patch.setattr(user, partial(PlayedWorker, clock))


def play_sides(patch: pytest.MonkeyPatch) -> None:
    """Play both sides of a comparison: a worker has its side's backend, and all else from this code."""
    play(patch)
    patch.setattr("bench.worker.__main__.load_backend", _load_from_its_side)


def undisturbed(patch: pytest.MonkeyPatch) -> None:
    """Let every rate count as steady and no block as disturbed, so that the machine decides no test."""
    patch.setattr("bench.measuring.block.Watch", QuietWatch)
    patch.setattr("bench.measuring.block.Stretch", QuietStretch)
    patch.setattr("bench.measuring.block.settled", lambda *_, **__: True)


def command() -> None:
    """Run the command `bench` with played workers, for a test that starts it as a process."""
    patch = pytest.MonkeyPatch()
    play_sides(patch)
    undisturbed(patch)
    from bench.cli.main import main

    main()


class _OutOfTime(BaseException):  # a backend that handles exceptions must not handle this one
    """The played worker has reached its limit."""


class _Left(BaseException):
    """The played worker has called `os._exit`, or nobody listens to it any more."""


class PlayedClock:
    """Passes when somebody sleeps, and by about 10 µs when somebody looks; computing takes no time.

    The looks scatter, so that no two windows take exactly the same time, as no two real ones do.
    """

    def __init__(self) -> None:
        self._now_ns = time.perf_counter_ns()
        self._lock = threading.Lock()
        self._chance = random.Random(0)  # noqa: S311
        self._of_thread = threading.local()

    def set_alarm(self, end: float) -> None:
        """Let a sleep of this thread end at that time at the latest, and then raise `_OutOfTime`."""
        self._of_thread.alarm_ns = end * 1e9

    def perf_counter_ns(self) -> int:
        with self._lock:
            self._now_ns += self._chance.randrange(5_000, 15_000)
            return self._now_ns

    def perf_counter(self) -> float:
        return self.perf_counter_ns() / 1e9

    monotonic = perf_counter

    def sleep(self, seconds: float) -> None:
        alarm_ns = getattr(self._of_thread, "alarm_ns", inf)
        with self._lock:
            end_ns = self._now_ns + round(max(0.0, seconds) * 1e9)
            late = end_ns > alarm_ns
            self._now_ns = max(self._now_ns, int(alarm_ns)) if late else end_ns
        if late:
            raise _OutOfTime


class PlayedWorker:
    """Has the interface of `bench.measuring.process.Worker`."""

    def __init__(
        self,
        clock: PlayedClock,
        task: Task,
        *,
        python: Path,
        device: str,
        time_limit_s: float,
        on_event: Callable[[Event], None] = lambda _: None,
        hash_seed: int | None = None,
        compiled: Path | None = None,
        deadline: float = inf,
        events: Any = None,
    ) -> None:
        self._clock, self._task, self._on_event = clock, task, on_event
        self._limit_s, self._deadline = time_limit_s, deadline
        self._commands: queue.SimpleQueue[AnyCommand | None] = queue.SimpleQueue()
        self._sent: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._events: list[Event] = []
        self._wall_s = 0.0
        self._ended: tuple[Status, str | None] = ("ok", None)
        self._forsaken = False
        self.over = False
        self.pids = (os.getpid(),)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._work, name=_THREAD, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._forsaken = True
        self._commands.put(_END)
        self._thread.join(_LATE_S)
        assert not self._thread.is_alive(), "a played worker does not end"

    # In the harness's thread

    def ask(self, said: AnyCommand) -> None:
        self._commands.put(said)

    def wait_for(self, kind: type[Event]) -> Any:
        while (event := self._next()) is not None:
            if isinstance(event, kind):
                return event
        return None

    def finish(self) -> Outcome:
        self._commands.put(_END)
        while self._next() is not None:
            pass
        status, error = self._ended
        return Outcome(
            events=tuple(self._events),
            status=status,
            error=error,
            exit_signal=None,
            stderr_tail=(),
            wall_s=self._wall_s,
            start_s=0.001,
        )

    def _next(self) -> Event | None:
        """Return the next event; None where the worker is over before there is one."""
        event = None if self.over else self._sent.get(timeout=_LATE_S)
        if event is None:
            self.over = True
            return None
        self._events.append(event)
        self._on_event(event)
        return event

    # In the worker's thread

    def _work(self) -> None:
        self._count()
        try:
            self._send(Started())
            do(msgspec.json.encode(self._task), self._heard(), self._send)
            self._send(Done())
        except Exception as error:
            failed = Failed(status=status_of(error), error=in_a_line(error))
            self._ended = (failed.status, failed.error)
            self._sent.put(failed)
        except _OutOfTime:
            said = f"it was stopped at its limit of {self._limit_s:.0f} s, or when all time was spent"
            self._ended = ("timeout", said)
        except _Left as left:
            self._ended = ("crashed", f"the process ended with status {left} and without a message")
        self._pause()
        self._sent.put(_END)

    def _send(self, event: Event) -> None:
        if self._forsaken:
            raise _Left
        if time.monotonic() > self._alarm:
            raise _OutOfTime
        self._sent.put(event)

    def _heard(self) -> Iterator[AnyCommand]:
        """Yield the commands as they come; the time until one comes is not the worker's."""
        while True:
            self._pause()
            said = self._commands.get()
            self._count()
            if said is _END:
                return
            yield said

    def _count(self) -> None:
        self._begun = time.monotonic()
        self._alarm = min(self._deadline, self._begun + self._limit_s - self._wall_s)
        self._clock.set_alarm(self._alarm)

    def _pause(self) -> None:
        self._wall_s += time.monotonic() - self._begun


def _leave(really: Callable[[int], NoReturn], status: int) -> NoReturn:
    if threading.current_thread().name == _THREAD:
        raise _Left(status)
    really(status)


def _load_from_its_side(info: BackendInfo) -> type[Backend]:
    """Return the class of a backend as the code in the first folder of its PYTHONPATH has it."""
    if "PYTHONPATH" not in info.environment:
        return load_backend(info)
    source = Path(info.environment["PYTHONPATH"].partition(os.pathsep)[0])
    name, _, kind = info.target.partition(":")
    spec = importlib.util.spec_from_file_location(
        f"{name} of {source.name}", source / f"{name.replace('.', '/')}.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: type[Backend] = getattr(module, kind)
    return found


class QuietWatch(Watch):
    """Sees a machine that does nothing else, whatever it does."""

    def __init__(self, own_pids: Collection[int], *, gpu: bool) -> None:
        super().__init__(own_pids, gpu=gpu)
        self._canary = _EvenCanary()

    def round_over(self) -> Taken:
        self._taken.append(Taken(steal=0.0, foreign=0.0))
        return self._taken[-1]

    def finish(self, own_pids: Collection[int]) -> Conditions:
        seen = super().finish(own_pids)
        return msgspec.structs.replace(seen, steal_share=0.0, throttled_share=0.0, foreign_share=0.0)


class QuietStretch(Stretch):
    """A stretch of time in which nothing else happens, whatever does."""

    def __init__(self, _: object) -> None:
        """Read nothing."""

    def taken(self) -> Taken:
        return Taken(steal=0.0, foreign=0.0)


class _EvenCanary:
    def seconds(self) -> float:
        return 0.03
