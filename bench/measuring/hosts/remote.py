"""The other ranks as rank 0 sees them: where each is, and a link to every worker that it runs."""

import contextlib
import selectors
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Self, TypeVar

import msgspec

from bench.errors import UnavailableError
from bench.measuring.hosts.channel import HANDSHAKE_S, LOST, Channel, Meeting
from bench.measuring.hosts.files import files_of_command, files_of_task
from bench.measuring.hosts.identity import Identity, assign_devices, refuse_differences
from bench.measuring.hosts.messages import (
    Answer,
    Arrival,
    Attached,
    End,
    Ended,
    Events,
    Farewell,
    FindPort,
    FromWorker,
    HangUp,
    Keep,
    Kept,
    Line,
    NoMore,
    Port,
    Prepare,
    Prepared,
    Start,
    ToWorker,
    Unable,
)
from bench.measuring.link import LOST_STATUS, Launch
from bench.measuring.ranks.slots import LocalSlot, Slot
from bench.paths import from_text
from bench.progress import Teller
from bench.text import duration
from bench.worker.protocol import DataSource

START_S = 60.0
"""Starting a process takes a moment; a host that does not in this time hangs."""
END_S = 15.0
"""The same for killing one."""
_CHUNK_BYTES = 2**23

_Found = TypeVar("_Found")


class HostLostError(UnavailableError):
    """A rank that a launcher has started on this or another host is gone."""


class RemoteLink:
    """A worker that another rank has started and whose lines it relays: a `Link`."""

    def __init__(self, channel: Channel, followers: "Followers", rank: int) -> None:
        self._channel, self._followers, self._rank = channel, followers, rank
        self._status: int | None = None
        self._tail: tuple[str, ...] = ()
        self._closed = False
        """No more events will come."""

    @property
    def pid(self) -> None:
        """None: the number would mean another process on this host."""

    def fileno(self) -> int:
        return self._channel.fileno()

    def read(self) -> bytes:
        while self._status is None:
            match self._receive():
                case Events(content=content) if content and not self._closed:
                    return content
                case NoMore():
                    self._closed = True
                    break
        return b""

    def send(self, line: bytes) -> None:
        # If another rank is lost, this worker gets no file and waits, until whoever listens to all ends it.
        with contextlib.suppress(UnavailableError), self._noticing():
            self._followers.keep(self._rank, files_of_command(line))
            self._channel.send(Line(line=line.decode()))

    def poll(self) -> int | None:
        # While events may come, only `read` takes messages: it must not miss any.
        while self._status is None and self._closed and self._ready():
            self._receive()
        return self._status

    def hang_up(self) -> None:
        self._tell(HangUp())

    def end(self) -> None:
        self._tell(End())
        until = time.monotonic() + END_S
        while self._status is None:
            if not self._ready(max(0.0, until - time.monotonic())):
                self._lose("it did not end a worker in time")
                break
            self._receive()

    def tail(self) -> tuple[str, ...]:
        return self._tail

    def close(self) -> None:
        self.end()
        self._channel.close()

    def _tell(self, message: ToWorker) -> None:
        if self._status is None:
            with self._noticing():
                self._channel.send(message)

    def _ready(self, timeout_s: float = 0.0) -> bool:
        with self._noticing():
            return self._channel.ready(timeout_s)
        return True

    def _receive(self) -> FromWorker | None:
        """Take the next message; None if the host is lost."""
        with self._noticing():
            message: FromWorker = self._channel.receive(FromWorker)
            if isinstance(message, Ended):
                self._status, self._tail = message.status, message.tail
            return message
        return None

    @contextlib.contextmanager
    def _noticing(self) -> Iterator[None]:
        """Take the worker as ended if the connection to its host is."""
        try:
            yield
        except LOST as error:
            self._lose(str(error) or "it closed the connection")

    def _lose(self, why: str) -> None:
        if self._status is None:
            self._status, self._tail = LOST_STATUS, (self._followers.lose(self._rank, why),)


class Followers:
    """The ranks that follow this one, which is rank 0; a context that dismisses them in the end."""

    def __init__(
        self, meeting: Meeting, own: Identity, others: Mapping[int, tuple[Identity, Channel]]
    ) -> None:
        """Take the identity of rank 0, and by their rank those of the others, each with its channel."""
        self._meeting = meeting
        self._channels = {rank: channel for rank, (_, channel) in others.items()}
        self.ranks = (own, *(others[rank][0] for rank in sorted(others)))
        """Who the ranks are, rank 0 first, each with the address of its host."""
        self._jobs = count()
        self._kept: set[tuple[int, str, int, int]] = set()
        self._lost: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self.finish(error)

    def finish(self, error: BaseException | None) -> None:
        """Dismiss all ranks; `error` is what has ended the run before its time."""
        self.dismiss(self._lost or (None if error is None else str(error) or type(error).__name__))

    def dismiss(self, error: str | None) -> None:
        """Tell all ranks that the run is over, and why if it did not come to its end."""
        for channel in self._channels.values():
            with contextlib.suppress(*LOST):
                channel.send(Farewell(error=error))
            channel.close()
        self._meeting.close()

    def prepare(self, sources: Sequence[DataSource], data: Mapping[str, str], display: Teller) -> None:
        """Let all ranks prepare their data. Raises UnavailableError if those of a rank are others.

        `data` has the digests of rank 0.
        """
        for rank in self._channels:
            self._ask(rank, Prepare(sources=tuple(sources)))
        found = [msgspec.structs.replace(self.ranks[0], data=data)]
        for rank in self._channels:
            display.job(f"{self.ranks[rank].name()} prepares its data", rank / len(self.ranks))
            prepared = self._answer(rank, Prepared)
            found.append(msgspec.structs.replace(self.ranks[rank], data=prepared.data))
        refuse_differences(found)

    def slots(self, ranks: int, *, shared: bool = False) -> tuple[Slot, ...]:
        """Return a slot for each of the first so many ranks.

        Raises UnavailableError if there are fewer, or fewer devices than ranks. With `shared`, several ranks
        of a host may have the same CPU.
        """
        if ranks > len(self.ranks):
            raise UnavailableError(
                f"--ranks {ranks}: the launcher has started {len(self.ranks)}. Start more, or ask for fewer."
            )
        those = self.ranks[:ranks]
        devices = assign_devices(those, shared=shared)
        on_cpu = those[0].device.startswith("cpu")
        cpus = [(int(device),) if on_cpu else () for device in devices]
        gpus = [None if on_cpu else device for device in devices]
        first, *rest = zip(those, cpus, gpus, strict=True)
        return (
            _local(*first),
            *(
                RemoteSlot(self, one.rank, host=one.host, cpus=cpu, gpu=gpu, interface=one.interface)
                for one, cpu, gpu in rest
            ),
        )

    def start(self, rank: int, launch: Launch) -> RemoteLink:
        """Let a rank start a worker, and return the link to it.

        Raises UnavailableError if the rank cannot start it, or if any rank is lost.
        """
        self.keep(rank, files_of_task(launch.task))
        job = next(self._jobs)
        self._ask(rank, Start(job=job, launch=launch))
        until = time.monotonic() + START_S
        channel = self._channels[rank]
        with selectors.DefaultSelector() as selector:
            selector.register(channel, selectors.EVENT_READ)
            selector.register(self._meeting, selectors.EVENT_READ)
            while time.monotonic() < until:
                for key, _ in selector.select(max(0.0, until - time.monotonic())):
                    if key.fileobj is channel:
                        unable = self._answer(rank, Unable)
                        raise UnavailableError(f"{self.ranks[rank].name()}: {unable.error}")
                    if (come := self._meeting.accept()) is not None:
                        if first_word(come) == Attached(rank=rank, job=job):
                            return RemoteLink(come, self, rank)
                        come.close()
        raise self._given_up(rank, f"it did not start a worker within {duration(START_S)}")

    def keep(self, rank: int, paths: Sequence[str]) -> None:
        """Send files to a rank, each once unless it has changed. Raises as `start` does."""
        for path in paths:
            file = from_text(path)
            about = file.stat()
            key = rank, path, about.st_mtime_ns, about.st_size
            if key not in self._kept:
                for part in _parts(file, path):
                    self._ask(rank, part)
                self._answer(rank, Kept)
                self._kept.add(key)

    def lose(self, rank: int, why: str) -> str:
        """Note that a rank is lost, and return that in words. No rank can train with others from now on."""
        said = f"{self.ranks[rank].name()} was lost: {why}"
        self._lost = self._lost or said
        return said

    def check(self) -> None:
        """Raise UnavailableError if a rank was lost."""
        if self._lost is not None:
            raise self._without(self._lost)

    def address(self, rank: int) -> str:
        """Return `HOST:PORT` at which nothing listens at the moment on the host of a rank.

        Raises as `start` does.
        """
        at = self.ranks[rank].address
        self._ask(rank, FindPort(address=at))
        return f"{at}:{self._answer(rank, Port).port}"

    def _ask(self, rank: int, request: msgspec.Struct) -> None:
        self.check()
        try:
            self._channels[rank].send(request)
        except LOST as error:
            raise self._given_up(rank, str(error)) from error

    def _answer(self, rank: int, kind: type[_Found]) -> _Found:
        """Wait for the answer of a rank to a request."""
        try:
            answer: Answer = self._channels[rank].receive(Answer)
        except LOST as error:
            raise self._given_up(rank, str(error) or "it closed the connection") from error
        if isinstance(answer, kind):
            return answer
        if isinstance(answer, Unable):
            raise UnavailableError(f"{self.ranks[rank].name()}: {answer.error}")
        raise self._given_up(rank, f"it answered {type(answer).__name__}")

    def _given_up(self, rank: int, why: str) -> UnavailableError:
        """Take a rank as lost that does not do its part, and return the error."""
        return self._without(self.lose(rank, why))

    @staticmethod
    def _without(lost: str) -> HostLostError:
        return HostLostError(f"{lost}. The others cannot train without it; its own output may tell more.")


class RemoteSlot(msgspec.Struct, frozen=True):
    """A slot of another rank: a `Slot`."""

    followers: Followers
    rank: int
    host: str = ""
    cpus: tuple[int, ...] = ()
    gpu: str | None = None
    interface: str | None = None

    def address(self) -> str:
        """Return a free port of the rank's host; raise UnavailableError if the rank is lost."""
        return self.followers.address(self.rank)

    def start(self, launch: Launch) -> RemoteLink:
        """Start a worker there; raise UnavailableError if the rank cannot, or is lost."""
        return self.followers.start(self.rank, launch)


def _local(one: Identity, cpus: tuple[int, ...], gpu: str | None) -> LocalSlot:
    return LocalSlot(host=one.host, cpus=cpus, gpu=gpu, interface=one.interface, at=one.address)


def _parts(file: Path, path: str) -> Iterator[Keep]:
    with file.open("rb") as content:
        first, part = True, content.read(_CHUNK_BYTES)
        while first or part:
            following = content.read(_CHUNK_BYTES)
            yield Keep(path=path, content=part, first=first, last=not following)
            first, part = False, following


def first_word(come: Channel) -> Arrival | None:
    """Return what whoever has come says first; None if that is nothing, or no such message."""
    with contextlib.suppress(*LOST):
        if come.ready(HANDSHAKE_S):
            said: Arrival = come.receive(Arrival)
            return said
    return None
