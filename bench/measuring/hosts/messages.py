"""What rank 0 and the others say to each other. Every message is JSON.

Each rank keeps one channel to rank 0 for as long as the run lasts. On it, rank 0 asks and the rank answers.
For every worker that it is asked to start, a rank opens one more channel, which relays that worker's lines.
"""

from collections.abc import Mapping
from typing import TypeAlias

import msgspec

from bench.measuring.hosts.identity import Identity
from bench.measuring.link import Launch
from bench.worker.protocol import DataSource


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="message"):
    pass


class Hello(_Message, frozen=True, kw_only=True, tag="hello"):
    """The first message of a rank."""

    identity: Identity


class Attached(_Message, frozen=True, kw_only=True, tag="attached"):
    """The first message of a worker's channel: the worker has been started."""

    rank: int
    job: int


Arrival: TypeAlias = Hello | Attached
"""What whoever comes to rank 0 says first."""


class Prepare(_Message, frozen=True, kw_only=True, tag="prepare"):
    """Prepare data sets, in a cache of this host's own; `Prepared` answers it.

    `cache` of a source says only whether it is the data set or its sample.
    """

    sources: tuple[DataSource, ...]


class Prepared(_Message, frozen=True, kw_only=True, tag="prepared"):
    data: Mapping[str, str]
    """A digest of each data set."""


class FindPort(_Message, frozen=True, kw_only=True, tag="find_port"):
    """Find a free port at this address; `Port` answers it."""

    address: str


class Port(_Message, frozen=True, kw_only=True, tag="port"):
    port: int


class Keep(_Message, frozen=True, kw_only=True, tag="keep"):
    """Keep a part of a file that tasks will name by this path; after the last part, `Kept` answers."""

    path: str
    content: bytes
    first: bool
    last: bool


class Kept(_Message, frozen=True, kw_only=True, tag="kept"):
    pass


class Start(_Message, frozen=True, kw_only=True, tag="start"):
    """Start a worker. A channel of its own that begins with `Attached` answers it."""

    job: int
    launch: Launch


class Unable(_Message, frozen=True, kw_only=True, tag="unable"):
    """An answer to any request: it could not be done."""

    error: str


class Farewell(_Message, frozen=True, kw_only=True, tag="farewell"):
    """The run is over for this rank."""

    error: str | None = None
    """Why, if it did not come to its end."""


Request: TypeAlias = Prepare | FindPort | Keep | Start | Farewell
Answer: TypeAlias = Prepared | Port | Kept | Unable


class Line(_Message, frozen=True, kw_only=True, tag="line"):
    """A command for the worker."""

    line: str


class HangUp(_Message, frozen=True, kw_only=True, tag="hang_up"):
    """No more commands will come."""


class End(_Message, frozen=True, kw_only=True, tag="end"):
    """Kill the worker; `Ended` answers it."""


ToWorker: TypeAlias = Line | HangUp | End


class Events(_Message, frozen=True, kw_only=True, tag="events"):
    """Some bytes of the worker's events."""

    content: bytes


class NoMore(_Message, frozen=True, kw_only=True, tag="no_more"):
    """The worker has closed its channel of events. It may still run."""


class Ended(_Message, frozen=True, kw_only=True, tag="ended"):
    """The last message of a worker's channel."""

    status: int
    """Exit status, or the negative number of a signal."""
    tail: tuple[str, ...]


FromWorker: TypeAlias = Events | NoMore | Ended
