"""How rank 0 waits for the other ranks, and whom it refuses before anything trains."""

import contextlib
import selectors
import time
from collections.abc import Mapping, Sequence

import msgspec

from bench.errors import UnavailableError
from bench.measuring.hosts.channel import LOST, Channel, Meeting, is_loopback
from bench.measuring.hosts.identity import Identity, refuse_differences
from bench.measuring.hosts.messages import Farewell, Hello
from bench.measuring.hosts.remote import Followers, first_word
from bench.measuring.ranks.slots import LOOPBACK, interface_of
from bench.progress import Teller
from bench.text import duration, listed

WAIT, WAIT_S = "SAMEWORK_WAIT", 300.0
INTERFACE = "SAMEWORK_INTERFACE"
_TOLD_EVERY_S = 20.0
_MOST_NAMED = 8

_Others = dict[int, tuple[Identity, Channel]]


def gather(
    own: Identity,
    meeting: Meeting,
    display: Teller,
    variables: Mapping[str, str],
    *,
    one_host: bool,
    limit_s: float = WAIT_S,
) -> Followers:
    """Wait until all other ranks have come, and return them. `own` is the identity of rank 0.

    Raises UnavailableError, after telling those who have come, if some have not come in time, which it names,
    or if any differs from this rank.
    """
    others: _Others = {}
    try:
        _wait(own, others, meeting, display, limit_s)
        at = LOOPBACK if one_host else _reached([channel for _, channel in others.values()])
        first = here(own, at, variables)
        first, *rest = told_apart([first, *(_placed(others[rank][0], first) for rank in sorted(others))])
        refuse_differences([first, *rest])
        found = {one.rank: (one, others[one.rank][1]) for one in rest}
    except BaseException as error:
        Followers(meeting, own, others).dismiss(str(error) or type(error).__name__)
        raise
    return Followers(meeting, first, found)


def _wait(own: Identity, others: _Others, meeting: Meeting, display: Teller, limit_s: float) -> None:
    began = told = time.monotonic()
    display.say(f"Waiting for {_names(_absent(own, others))} at port {meeting.port}")
    with selectors.DefaultSelector() as selector:
        selector.register(meeting, selectors.EVENT_READ)
        while len(others) < own.ranks - 1:
            now = time.monotonic()
            absent = _names(_absent(own, others))
            if now > began + limit_s:
                raise UnavailableError(_missing(absent, meeting, limit_s))
            if now > told + _TOLD_EVERY_S:
                told = now
                display.say(f"Still waiting for {absent} of {own.ranks}")
            display.job(f"waiting for {absent} of {own.ranks}", len(others) / own.ranks)
            selector.select(min(1.0, limit_s))
            if (come := meeting.accept()) is not None:
                _admit(come, own, others)


def _admit(come: Channel, own: Identity, others: _Others) -> None:
    """Take in a rank that has come. Raises UnavailableError if it cannot be one of this job's."""
    said = first_word(come)
    if not isinstance(said, Hello):
        come.close()
        return
    one = said.identity
    why = None
    if one.ranks != own.ranks or not 0 < one.rank < own.ranks:
        why = f"it is rank {one.rank} of {one.ranks}, and rank 0 on {own.host} is one of {own.ranks}"
    elif one.rank in others:
        why = f"{others[one.rank][0].host} has sent a rank {one.rank} too"
    if why is None:
        others[one.rank] = one, come
        return
    error = f"{one.name()} does not fit: {why}. Each rank must be started once, by one launcher."
    with contextlib.suppress(*LOST):
        come.send(Farewell(error=error))
    come.close()
    raise UnavailableError(error)


def here(own: Identity, address: str, variables: Mapping[str, str]) -> Identity:
    """Return a rank with the address by which others reach it, and with the interface that has it.

    SAMEWORK_INTERFACE, among the environment variables `variables`, names another interface.
    """
    interface = variables.get(INTERFACE) or interface_of(address)
    return msgspec.structs.replace(own, address=address, interface=interface)


def _placed(one: Identity, first: Identity) -> Identity:
    """Return a rank with the address of rank 0 if it came to it by the loopback of their host."""
    if not is_loopback(one.address):
        return one
    return msgspec.structs.replace(one, address=first.address, interface=one.interface or first.interface)


def told_apart(ranks: Sequence[Identity]) -> list[Identity]:
    """Return the ranks with the address in the name of a host if another host has the same name."""
    addresses: dict[str, set[str]] = {}
    for one in ranks:
        addresses.setdefault(one.host, set()).add(one.address)
    return [
        msgspec.structs.replace(one, host=f"{one.host} ({one.address})")
        if len(addresses[one.host]) > 1
        else one
        for one in ranks
    ]


def _reached(channels: Sequence[Channel]) -> str:
    """Return the address by which ranks of other hosts have reached this one."""
    addresses = [channel.own[0] for channel in channels]
    return next((one for one in addresses if not is_loopback(one)), addresses[0])


def _absent(own: Identity, others: Mapping[int, object]) -> list[int]:
    return [rank for rank in range(1, own.ranks) if rank not in others]


def _names(ranks: Sequence[int]) -> str:
    """Return `rank 1`, `ranks 1 and 3`, or the first of many and their number."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    if len(ranks) <= _MOST_NAMED:
        return f"ranks {listed([str(rank) for rank in ranks])}"
    return f"ranks {', '.join(map(str, ranks[:_MOST_NAMED]))} and {len(ranks) - _MOST_NAMED} more"


def _missing(absent: str, meeting: Meeting, limit_s: float) -> str:
    said = f"{absent} did not come to port {meeting.port} of this host within {duration(limit_s)}"
    if meeting.rejected:
        who = listed(sorted(set(meeting.rejected)))
        said += f". From {who} came somebody with another key: SAMEWORK_KEY must be the same for all ranks"
    return f"{said}. See their own output. {WAIT}=SECONDS sets how long to wait."
