"""Workers that are played: the code of a real one, in a thread of this process instead of one of its own.

To start a process, and to import into it what a worker needs, takes longer than what most tests measure. A
played worker takes the same task and commands, and sends the same events. It cannot crash, be killed, or have
variables of its own: tests of these have real processes.
"""

import os
import queue
import threading
import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import pytest

from bench.measuring.process import Outcome, Task
from bench.worker.__main__ import do
from bench.worker.failures import in_a_line, status_of
from bench.worker.protocol import AnyCommand, Done, Event, Failed, Started

USERS = ("bench.measuring.block.Worker", "bench.measuring.parity.Worker")
"""Where the harness takes workers from."""

_END = None
_LATE_S = 60.0
"""No played worker is silent for so long, however busy the machine is: it hangs."""


def play(patch: pytest.MonkeyPatch) -> None:
    """Let the harness start played workers."""
    for user in USERS:
        patch.setattr(user, PlayedWorker)


class PlayedWorker:
    """Has the interface of `bench.measuring.process.Worker`."""

    def __init__(
        self,
        task: Task,
        *,
        python: Path,
        device: str,
        time_limit_s: float,
        on_event: Callable[[Event], None] = lambda _: None,
        hash_seed: int | None = None,
        compiled: Path | None = None,
        deadline: float = inf,
    ) -> None:
        self._task, self._on_event = task, on_event
        self._limit_s, self._deadline = time_limit_s, deadline
        self._commands: queue.SimpleQueue[AnyCommand | None] = queue.SimpleQueue()
        self._sent: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._events: list[Event] = []
        self._wall_s = 0.0
        self._timed_out = False
        self.over = False
        self.pid = os.getpid()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._commands.put(_END)
        self._thread.join(_LATE_S)
        assert not self._thread.is_alive(), "a played worker does not end"

    def _work(self) -> None:
        self._sent.put(Started())
        try:
            do(msgspec.json.encode(self._task), iter(self._commands.get, _END), self._sent.put)
            self._sent.put(Done())
        except Exception as error:
            self._sent.put(Failed(status=status_of(error), error=in_a_line(error)))
        self._sent.put(_END)

    def ask(self, command: AnyCommand) -> None:
        self._commands.put(command)

    def wait_for(self, kind: type[Event]) -> Any:
        while (event := self._next()) is not None:
            if isinstance(event, kind):
                return event
        return None

    def finish(self) -> Outcome:
        self._commands.put(_END)
        while self._next() is not None:
            pass
        last = self._events[-1] if self._events else None
        failed = isinstance(last, Failed)
        return Outcome(
            events=tuple(self._events),
            status="timeout" if self._timed_out else last.status if failed else "ok",
            error="it was stopped at its limit" if self._timed_out else last.error if failed else None,
            exit_signal=None,
            stderr_tail=(),
            wall_s=self._wall_s,
            start_s=0.001,
        )

    def _next(self) -> Event | None:
        """Return the next event; None where there is none before the worker is over, or has no time left."""
        if self.over:
            return None
        began = time.monotonic()
        left_s = min(self._limit_s - self._wall_s, self._deadline - began, _LATE_S)
        try:
            event = self._sent.get(timeout=max(0.0, left_s))
        except queue.Empty:
            event, self._timed_out = None, True
        self._wall_s += time.monotonic() - began
        if event is None:
            self.over = True
            return None
        self._events.append(event)
        self._on_event(event)
        return event
