"""The ranks of a job: workers that train one network together, started, heard and ended as one.

A group has the interface of a `Worker`. A command goes to all ranks, and an event counts when all of them
have sent it. The ranks wait for each other in every step, so the end of one is the end of all: the others
would hang, or report that they have lost it. The group hears all of them at once, says which of them was the
first to go, and ends the rest.
"""

import math
import re
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from bench.measuring.link import LOST_STATUS
from bench.measuring.process import Outcome, launch_of, verdict
from bench.measuring.ranks.merging import RanksDifferError, merged
from bench.measuring.ranks.slots import Slot, device_of
from bench.measuring.ranks.stuck import print_stacks, stuck_rank
from bench.measuring.stream import EventStream, listen
from bench.records.schema import RankRecord, Status, fault_in_words
from bench.worker.protocol import (
    AnyCommand,
    DataLoaded,
    Digested,
    Done,
    Event,
    Failed,
    Imported,
    MeasureTask,
    Memory,
    Started,
    Verified,
    VerifyTask,
)  # fmt: skip
from bench.workloads.ranks import Place
from bench.workloads.specs import Device

Heard = TypeVar("Heard", bound=Event)

GRACE_S = 3.0
"""For so long the other ranks are heard after one has gone. One that has gone without a word may be noticed a
moment after another that complains of it."""
TRIES = 3
"""How often a job is started at most, each time with other ports, while another program takes one of them."""

_IN_USE = re.compile(r"address (is )?already in use|EADDRINUSE|port .{0,40}already in use", re.IGNORECASE)
_OWN_CAUSE: frozenset[Status] = frozenset(
    {"out_of_memory", "nan_loss", "not_comparable", "wrong_device", "unavailable"}
)
"""What a rank never reports because it has lost another."""
_FROM_OUTSIDE = frozenset(
    {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP, -signal.SIGXCPU, LOST_STATUS}
)
"""Exit statuses of a process that something else has ended: not its own code, when it had lost a rank."""


class _Rank:
    """One rank, as the group hears it."""

    def __init__(self, slot: Slot, stream: EventStream) -> None:
        self.slot, self.stream, self.link = slot, stream, stream.link
        self.sent: deque[Event] = deque()
        """The events that the others have not all sent yet."""
        self.gone: int | None = None
        """The number of the reading in which it was found to have ended or failed; None: it goes on."""
        self.failure: tuple[Status, str] | None = None
        """What it has reported."""
        self.killed = False
        """Whether this process has ended it while it still ran."""

    @property
    def done(self) -> bool:
        return bool(self.stream.taken) and isinstance(self.stream.taken[-1], Done)

    @property
    def settled(self) -> bool:
        """Whether nothing more is to be learned about it: it has ended, or has said why it fails."""
        return self.stream.over or self.failure is not None

    @property
    def ended_from_outside(self) -> bool:
        """Whether something else has ended it, such as the system for want of memory."""
        return self.gone is not None and self.failure is None and self.link.poll() in _FROM_OUTSIDE

    @property
    def lacks_a_port(self) -> bool:
        """Whether it has failed because another program listens at its address."""
        said = [self.failure[1]] if self.failure else []
        return self.gone is not None and any(map(_IN_USE.search, (*said, *self.link.tail())))

    def last(self, kind: type[Heard]) -> Heard | None:
        """Return the last event of that kind; None if it has sent none."""
        return next((event for event in reversed(self.stream.taken) if isinstance(event, kind)), None)


class Group:
    """The workers of one job, each with a place among them. A context, which leaves none of them behind."""

    def __init__(
        self,
        task: MeasureTask | VerifyTask,
        *,
        slots: Sequence[Slot],
        python: Path,
        device: Device,
        time_limit_s: float,
        on_event: Callable[[Event], None] = lambda _: None,
        hash_seed: int | None = None,
        compiled: Path | None = None,
        deadline: float = math.inf,
    ) -> None:
        """Rank r runs in slot r. The other arguments are those of `Worker`; `on_event` gets merged events."""
        self._task, self._slots = task, tuple(slots)
        self._launch = launch_of(task, python=python, device=device, hash_seed=hash_seed, compiled=compiled)
        self._time_limit_s, self._deadline, self._on_event = time_limit_s, deadline, on_event
        hosts = [slot.host for slot in self._slots]
        first_of_host = [rank for rank, host in enumerate(hosts) if host not in hosts[:rank]]
        self._meters = first_of_host if device == "cpu" else range(len(hosts))
        self._wall_s = 0.0
        self._tries = 0
        self._over = False

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._links.close()

    @property
    def pids(self) -> tuple[int, ...]:
        """The workers on this host."""
        return tuple(rank.link.pid for rank in self._ranks if rank.link.pid is not None)

    @property
    def over(self) -> bool:
        """Whether no further event will come."""
        return self._over

    def ask(self, command: AnyCommand) -> None:
        """Send a command to all ranks."""
        line = msgspec.json.encode(command)
        for rank in self._ranks:
            rank.link.send(line)

    def wait_for(self, kind: type[Heard]) -> Heard | None:
        """Listen until all ranks have sent an event of that kind, and return one event for all of them.

        None if the job is over first.
        """
        while (event := self._next()) is not None:
            if isinstance(event, kind):
                return event
        return None

    def finish(self) -> Outcome:
        """Close the channels of commands, listen until the job is over, and return how it ended."""
        for rank in self._ranks:
            rank.link.hang_up()
        while self._next() is not None:
            pass
        for rank in self._ranks:
            rank.link.end()
        status, error, exit_signal = self._judged or ("ok", None, None)
        culprit = None if self._culprit is None else self._ranks[self._culprit]
        return Outcome(
            events=tuple(self._events),
            status=status,
            error=error,
            exit_signal=exit_signal,
            stderr_tail=culprit.link.tail() if culprit else (),
            wall_s=self._wall_s,
            start_s=max((rank.stream.start_s or 0.0) for rank in self._ranks) or None,
            ranks=tuple(self._record(number) for number in range(len(self._ranks))),
        )

    # Starting

    def _start(self) -> None:
        """Start a worker for each rank, with ports that are free now."""
        self._tries += 1
        self._events: list[Event] = []
        self._ranks: list[_Rank] = []
        self._reading = 0
        self._grace_until: float | None = None
        self._judged: tuple[Status, str | None, str | None] | None = None
        self._culprit: int | None = None
        addresses = _distinct(self._slots)
        with ExitStack() as stack:
            for number, slot in enumerate(self._slots):
                task = msgspec.structs.replace(self._task, place=self._place(number, addresses))
                launch = msgspec.structs.replace(
                    self._launch,
                    task=msgspec.json.encode(task).decode(),
                    threads=1 if slot.cpus else None,
                    gpu=slot.gpu,
                )
                link = slot.start(launch)
                stack.callback(link.close)
                self._ranks.append(_Rank(slot, EventStream(link)))
            self._links = stack.pop_all()

    def _place(self, number: int, addresses: tuple[str, ...]) -> Place:
        slot = self._slots[number]
        before = self._slots[:number]
        return Place(
            rank=number,
            ranks=len(self._slots),
            local_rank=sum(one.host == slot.host for one in before),
            addresses=addresses,
            interface=slot.interface,
            cpus=slot.cpus,
        )

    # Listening

    def _next(self) -> Event | None:
        """Return the next event that all ranks have sent, as one; None if the job is over before."""
        began = time.monotonic()
        self._own_limit = began + self._time_limit_s - self._wall_s
        limit = min(self._own_limit, self._deadline)
        event = None
        try:
            while event is None and not self._over:
                if all(rank.sent for rank in self._ranks):
                    event = self._merge()
                else:
                    self._hear(limit)
            if event is not None:
                self._events.append(event)
                self._on_event(event)
        finally:
            self._wall_s += time.monotonic() - began
        return event

    def _merge(self) -> Event | None:
        """Return the next event of all ranks as one; None, and the job is judged, if they disagree."""
        try:
            return merged([rank.sent.popleft() for rank in self._ranks], self._meters)
        except RanksDifferError as error:
            self._ranks[error.rank].failure = error.status, str(error)
            self._judge(error.rank)
            return None

    def _hear(self, limit: float) -> None:
        """Listen until a rank says something or ends, and see whether the job can go on."""
        on = [rank for rank in self._ranks if not rank.stream.over]
        until = limit if self._grace_until is None else min(limit, self._grace_until)
        if on:
            listen([rank.stream for rank in on], until)
        self._reading += 1
        for rank in on:
            self._take(rank)
        if any(rank.gone is not None for rank in self._ranks):
            self._look_for_the_dead()
        now = time.monotonic()
        if self._grace_until is None and any(rank.gone is not None for rank in self._ranks):
            self._grace_until = now + GRACE_S
        if all(rank.sent for rank in self._ranks):
            return
        heard = self._grace_until is not None and now > self._grace_until
        if now > limit:
            self._time_is_up()
        elif heard or self._decided or all(rank.settled for rank in self._ranks):
            self._end()

    def _take(self, rank: _Rank) -> None:
        """Take what a rank has sent, and note whether it has ended or failed."""
        while (event := rank.stream.take()) is not None:
            if isinstance(event, Failed | Verified) and event.status != "ok":
                rank.failure = rank.failure or (event.status, event.error or "")
                rank.gone = self._reading if rank.gone is None else rank.gone
            else:
                rank.sent.append(event)
        if rank.gone is None and not rank.done and (rank.stream.closed or rank.stream.over):
            rank.gone = self._reading

    def _look_for_the_dead(self) -> None:
        """Note the ranks that have ended without closing their channel, which a helper process may hold."""
        for rank in self._ranks:
            if rank.gone is None and not rank.done and rank.link.poll() is not None:
                rank.gone = self._reading

    # Ending

    def _end(self) -> None:
        """All that was to be heard was heard: if a rank has gone, judge the job, or start it once more."""
        gone = [number for number, rank in enumerate(self._ranks) if rank.gone is not None]
        if not gone:
            self._over = True
            return
        if self._lacks_a_port:
            self._links.close()
            self._start()
            return
        self._judge(min(gone, key=self._how_late))

    @property
    def _decided(self) -> bool:
        """Whether nothing that other ranks could still say matters."""
        return any(rank.ended_from_outside for rank in self._ranks) or self._lacks_a_port

    @property
    def _lacks_a_port(self) -> bool:
        """Whether the job can be started once more, as another program has taken one of its ports."""
        started = all(isinstance(event, Started | Imported | DataLoaded) for event in self._events)
        return self._tries < TRIES and started and any(rank.lacks_a_port for rank in self._ranks)

    def _how_late(self, number: int) -> tuple[bool, int, bool, bool, int]:
        """Return a key by which the rank comes first that did not merely lose another.

        First what something else has ended, such as the system for want of memory. Then the first to go; of
        those found gone in one reading, one with a cause of its own, then one that went without a word.
        """
        rank = self._ranks[number]
        cause = rank.failure is not None and rank.failure[0] in _OWN_CAUSE
        return not rank.ended_from_outside, rank.gone or 0, not cause, rank.failure is not None, number

    def _time_is_up(self) -> None:
        """Wait for nobody any longer: find the rank that hangs, unless one has gone already."""
        for rank in self._ranks:
            rank.stream.give_up()
        left = [rank for rank in self._ranks if not rank.done]
        if not left or any(rank.gone is not None for rank in left):
            self._end()
            return
        said = f"it was stopped at its limit of {self._time_limit_s:.0f} s, or when all time was spent"
        if len(self._ranks) == 1 or time.monotonic() < self._own_limit:  # no rank is to blame
            for rank in left:
                rank.failure = "timeout", said
            self._judge(self._ranks.index(left[0]), named=False)
            return
        pids = [rank.link.pid for rank in left]
        place, why = stuck_rank(pids, [len(rank.stream.taken) for rank in left])
        print_stacks([rank.link.pid for rank in left if rank.last(Started)])
        left[place].failure = "timeout", f"{said}; {why}"
        self._judge(self._ranks.index(left[place]))

    def _judge(self, number: int, *, named: bool = True) -> None:
        """End all ranks because of this one, which the record of the job will name."""
        for rank in self._ranks:
            rank.killed = rank.link.poll() is None and not rank.done
        for rank in self._ranks:
            rank.link.end()
        self._over, self._culprit = True, number
        status, error, exit_signal = self._verdict(number)
        if len(self._ranks) > 1 and named:
            error = f"rank {number} of {len(self._ranks)}: {fault_in_words(status, error)}"
        self._judged = status, error, exit_signal
        self._events.append(Failed(status=status, error=error or ""))

    def _verdict(self, number: int) -> tuple[Status, str | None, str | None]:
        """Return status, error and signal of a rank that has ended."""
        rank = self._ranks[number]
        if rank.failure is not None:
            return *rank.failure, None
        if not rank.killed:
            return verdict(rank.stream, self._time_limit_s, rank.link.tail())
        if rank.gone is None:
            return "failed", f"it was ended because of rank {self._culprit}", None
        return "crashed", "it closed its channel of events, and went on", None

    def _record(self, number: int) -> RankRecord:
        rank = self._ranks[number]
        status, error, _ = self._verdict(number)
        memory, digest = rank.last(Memory), rank.last(Digested)
        return RankRecord(
            rank=number,
            host=rank.slot.host,
            device=device_of(rank.slot),
            status=status,
            error=error,
            peak_rss_bytes=memory.peak_rss_bytes if memory else None,
            digest=digest.sha256 if digest else None,
        )


def _distinct(slots: Sequence[Slot]) -> tuple[str, ...]:
    """Return an address for each slot, no two of them the same."""
    found: list[str] = []
    for slot in slots:
        while (address := slot.address()) in found:
            pass
        found.append(address)
    return tuple(found)
