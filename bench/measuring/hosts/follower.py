"""What a rank above 0 does: it goes to rank 0, says who it is, and starts workers until it is dismissed."""

import contextlib
import selectors
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import msgspec

from backends.info import BackendInfo
from bench.errors import BenchError, UnavailableError
from bench.measuring.backends import interpreter
from bench.measuring.hosts.channel import LOST, Channel, ports_of, reach
from bench.measuring.hosts.files import command_here, task_here
from bench.measuring.hosts.gathering import WAIT, WAIT_S, here
from bench.measuring.hosts.identity import Identity
from bench.measuring.hosts.launchers import Launched
from bench.measuring.hosts.messages import (
    Attached,
    End,
    Ended,
    Events,
    Farewell,
    FindPort,
    HangUp,
    Hello,
    Keep,
    Kept,
    Line,
    NoMore,
    Port,
    Prepare,
    Prepared,
    Request,
    Start,
    ToWorker,
    Unable,
)
from bench.measuring.link import Launch, LocalLink
from bench.measuring.ranks.slots import free_port
from bench.paths import to_text
from bench.text import duration
from bench.worker.protocol import DataSource

_POLL_S = 0.2
"""How often the end of a worker is looked for that does not close its channel."""
_PAUSE_S = 0.5
"""Between two looks for rank 0, which may start later."""

PrepareData = Callable[[tuple[DataSource, ...]], Mapping[str, str]]
"""Prepares data sets and returns a digest of each."""


class Follower(msgspec.Struct, frozen=True, kw_only=True):
    """What this host has, which rank 0 cannot know."""

    identity: Identity
    infos: Mapping[str, BackendInfo]
    pythons: Mapping[str, Path]
    cache: Path
    """The folder of its data sets."""
    prepare: PrepareData
    say: Callable[[str], None]
    """Tells the user what happens."""


def follow(
    follower: Follower,
    launched: Launched,
    key: bytes,
    variables: Mapping[str, str],
    *,
    limit_s: float = WAIT_S,
) -> None:
    """Go to rank 0 and work for it until it dismisses this rank.

    No worker is left running. Raises UnavailableError if rank 0 is not found in time, is lost, or ends with
    an error.
    """
    channel = _find_first(follower, launched, key, limit_s)
    try:
        channel.send(Hello(identity=here(follower.identity, channel.own[0], variables)))
        with (
            tempfile.TemporaryDirectory(prefix="samework-rank-") as folder,
            _Work(follower, key, channel, Path(folder)) as work,
        ):
            farewell = work.serve()
    except LOST as error:
        raise UnavailableError(
            f"{follower.identity.name()} has lost rank 0 on {launched.host}: "
            f"{str(error) or 'it has ended without a word'}. All workers here were ended."
        ) from error
    finally:
        channel.close()
    if farewell.error is not None:
        raise UnavailableError(f"rank 0 has ended the run: {farewell.error}")


def _find_first(follower: Follower, launched: Launched, key: bytes, limit_s: float) -> Channel:
    """Return a channel to rank 0; look for it until it is there or the time is over."""
    until = time.monotonic() + limit_s
    ports = ports_of(launched)
    host = "localhost" if launched.one_host else launched.host
    follower.say(f"{follower.identity.name()} looks for rank 0 at {host}, ports {ports[0]} to {ports[-1]}")
    while True:
        channel, why = reach(host, ports, key)
        if channel is not None:
            return channel
        if time.monotonic() > until:
            raise UnavailableError(
                f"{follower.identity.name()} found no rank 0 within {duration(limit_s)}: {why}. See the "
                f"output of rank 0. {WAIT}=SECONDS sets how long to wait, SAMEWORK_HOST and SAMEWORK_PORT "
                "where to look."
            )
        time.sleep(min(_PAUSE_S, limit_s))


class _Work:
    """The workers of this rank, and what rank 0 asks; a context, which leaves no worker running."""

    def __init__(self, follower: Follower, key: bytes, channel: Channel, folder: Path) -> None:
        """Take the channel to rank 0, and a folder for files of its own."""
        self._follower, self._key = follower, key
        self._channel, self._folder = channel, folder
        self._kept: dict[str, Path] = {}
        self._relays: list[_Relay] = []
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for relay in self._relays:
            relay.close()
        self._selector.close()

    def serve(self) -> Farewell:
        """Do what rank 0 asks until it says farewell, and return that. Raises one of `LOST` if it is lost."""
        self._selector.register(self._channel, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select(_POLL_S if self._relays else None):
                if key.fileobj is not self._channel:
                    key.data()
                elif isinstance(request := self._channel.receive(Request), Farewell):
                    return request
                else:
                    self._answer(request)
            for relay in self._relays:
                relay.look_for_end()
            self._relays = [relay for relay in self._relays if not relay.gone]

    def _answer(self, request: Any) -> None:
        try:
            answer = self._do(request)
        except (BenchError, OSError, KeyError) as error:
            answer = Unable(error=str(error) or type(error).__name__)
        if answer is not None:
            self._channel.send(answer)

    def _do(self, request: Request) -> msgspec.Struct | None:
        """Return the answer to a request; None if there is another answer than a message on this channel."""
        match request:
            case Prepare(sources=sources):
                cache = to_text(self._follower.cache)
                own = (
                    source if source.cache is None else msgspec.structs.replace(source, cache=cache)
                    for source in sources
                )
                return Prepared(data=self._follower.prepare(tuple(own)))
            case FindPort(address=address):
                return Port(port=free_port(address))
            case Keep():
                return self._keep(request)
            case Start(job=job, launch=launch):
                self._start(job, self._launch_here(launch))
        return None

    def _keep(self, part: Keep) -> Kept | None:
        file = self._kept.setdefault(part.path, self._folder / f"{len(self._kept)}{Path(part.path).suffix}")
        with file.open("wb" if part.first else "ab") as content:
            content.write(part.content)
        return Kept() if part.last else None

    def _launch_here(self, launch: Launch) -> Launch:
        """Return a launch of rank 0 with the interpreter and the folders of this host.

        The backend must be one that this host knows: nobody may name a module or a variable of his own.
        """
        info = self._follower.infos.get(launch.backend.name)
        if info != launch.backend:
            raise UnavailableError(f"backend {launch.backend.name!r} is not the same here as on rank 0")
        kept = {path: to_text(file) for path, file in self._kept.items()}
        compiled = None if launch.compiled is None else self._compiled(launch.compiled)
        return msgspec.structs.replace(
            launch,
            task=task_here(launch.task, info, kept=kept, cache=to_text(self._follower.cache)),
            python=to_text(interpreter(info, self._follower.pythons)),
            compiled=compiled,
        )

    def _compiled(self, path: str) -> str:
        """Return the folder of this host for programs that rank 0 keeps in the folder `path`."""
        return to_text(self._folder / "compiled" / sha256(path.encode()).hexdigest()[:16])

    def _start(self, job: int, launch: Launch) -> None:
        with contextlib.ExitStack() as stack:
            link = stack.enter_context(LocalLink(launch))
            host, port = self._channel.peer
            channel, why = reach(host, [port], self._key)
            if channel is None:
                raise OSError(f"no second connection to rank 0: {why}")
            channel.send(Attached(rank=self._follower.identity.rank, job=job))
            self._relays.append(_Relay(link, channel, self._selector, self._line_here))
            stack.pop_all()

    def _line_here(self, line: str) -> str:
        return command_here(line, kept={path: to_text(file) for path, file in self._kept.items()})


class _Relay:
    """A worker and the channel that relays its lines. It stays until rank 0 closes the channel."""

    def __init__(
        self,
        link: LocalLink,
        channel: Channel,
        selector: selectors.BaseSelector,
        line_here: Callable[[str], str],
    ) -> None:
        self._link, self._channel, self._selector, self._line_here = link, channel, selector, line_here
        self._listening = True
        self._ended = False
        self.gone = False
        selector.register(link, selectors.EVENT_READ, self._hear)
        selector.register(channel, selectors.EVENT_READ, self._obey)

    def look_for_end(self) -> None:
        """Tell rank 0 that the worker has ended, if it has, after all that it has said."""
        if self._ended or self.gone or (status := self._link.poll()) is None:
            return
        with self._noticing():
            while self._listening and _has_said(self._link):
                self._hear()
            self._unlisten()
            self._channel.send(Ended(status=status, tail=self._link.tail()))
        self._ended = True

    def close(self) -> None:
        """Kill the worker, if it still runs, and close the channel."""
        if not self.gone:
            self.gone = True
            self._unlisten()
            self._selector.unregister(self._channel)
            self._link.close()
            self._channel.close()

    def _hear(self) -> None:
        """Pass on what the worker says."""
        if self.gone:  # it was closed by what came together with this
            return
        content = self._link.read()
        with self._noticing():
            if not content:
                self._unlisten()
            self._channel.send(Events(content=content) if content else NoMore())

    def _obey(self) -> None:
        """Pass on what rank 0 says."""
        if self.gone:
            return
        with self._noticing():
            match self._channel.receive(ToWorker):
                case Line(line=line):
                    self._link.send(self._line_here(line).encode())
                case HangUp():
                    self._link.hang_up()
                case End():
                    self._link.end()

    def _unlisten(self) -> None:
        if self._listening:
            self._listening = False
            self._selector.unregister(self._link)

    @contextlib.contextmanager
    def _noticing(self) -> Iterator[None]:
        """End the worker if rank 0 no longer listens to it."""
        try:
            yield
        except LOST:
            self.close()


def _has_said(link: LocalLink) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(link, selectors.EVENT_READ)
        return bool(selector.select(0))
