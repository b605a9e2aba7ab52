"""The ranks of a distributed job: processes that train one network together, each on its part of a batch."""

from typing import Literal, TypeAlias

import msgspec

Scaling: TypeAlias = Literal["strong", "weak"]
"""`strong`: the batch is the workload's, whatever the number of ranks. `weak`: it grows with that number, so
that a rank always trains on the workload's batch size."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A process's place among the ranks of its job, and where these find each other.

    It holds what every launcher knows in some form. Each backend translates it into its framework's terms.
    """

    rank: int = 0
    ranks: int = 1
    local_rank: int = 0
    """The number of the rank among those on its host."""
    addresses: tuple[str, ...] = ()
    """`HOST:PORT` of every rank, by its number, at which it may listen. At the first all of them meet."""
    interface: str | None = None
    """The network interface that connects the hosts, such as `eth0`; None: the framework's choice."""
    cpus: tuple[int, ...] = ()
    """The CPUs that the process is pinned to; empty: it is not pinned."""


def part(batch: int, place: Place) -> slice:
    """Return the part of a batch that a rank trains on: the ranks cut it in order, into equal parts.

    Raises ValueError if the number of ranks does not divide the batch.
    """
    if batch % place.ranks:
        raise ValueError(f"a batch of {batch} images cannot be cut into {place.ranks} equal parts")
    size = batch // place.ranks
    return slice(place.rank * size, (place.rank + 1) * size)
