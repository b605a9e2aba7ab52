"""Make one event of a job from the same event of each of its ranks.

The ranks work in step, so a time is that of the slowest, and memory is the sum. They must agree on the rest,
such as the steps of a window.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import msgspec

from bench.records.schema import EpochPoint, ParityCheck, Proof, Status, Window
from bench.worker.protocol import (
    Built,
    DataLoaded,
    Described,
    DeviceMemory,
    Digested,
    Evaluated,
    Event,
    FirstStep,
    Imported,
    Learned,
    Memory,
    Proven,
    Ready,
    Timed,
    Verified,
    WarmedUp,
)  # fmt: skip

_Rule = Callable[[Sequence[Any]], Any]

_SUMMED_FACT = "peak_device_bytes"


class RanksDifferError(Exception):
    """A rank does not agree with rank 0; the message says on what."""

    def __init__(self, rank: int, message: str, *, status: Status = "failed") -> None:
        """`status` is what becomes of the job."""
        super().__init__(message)
        self.rank, self.status = rank, status


def merged(events: Sequence[Event], meters: Sequence[int]) -> Event:
    """Return the event of a job whose ranks have sent these, in the order of the ranks.

    `meters` are the ranks whose energy is added up: a meter of a CPU counts its whole host, so only one rank
    of each host does. What has no rule is taken from rank 0. Raises RanksDifferError if the ranks have sent
    different kinds of events, or do not agree on what must be equal.
    """
    first = events[0]
    for rank, event in enumerate(events):
        if type(event) is not type(first):
            raise RanksDifferError(rank, f"it sent {type(event).__name__}, and rank 0 {type(first).__name__}")
    if len(events) == 1:
        return first
    rules = _RULES.get(type(first), {})
    if isinstance(first, WarmedUp | Timed):
        rules = {**rules, "window": partial(_window, meters=meters)}
    found = {name: rule([getattr(event, name) for event in events]) for name, rule in rules.items()}
    return msgspec.structs.replace(first, **found)


def _longest(seconds: Sequence[float | None]) -> float | None:
    """Return the longest of the times; None if one is not known."""
    known = [one for one in seconds if one is not None]
    return max(known) if len(known) == len(seconds) else None


def _total(amounts: Sequence[Any]) -> Any:
    """Return the sum; None if one of the amounts is not known."""
    known = [one for one in amounts if one is not None]
    return sum(known) if len(known) == len(amounts) else None


def _same(what: str, values: Sequence[Any]) -> Any:
    """Return what all values are; raise RanksDifferError if one differs from the first."""
    for rank, value in enumerate(values):
        if value != values[0]:
            raise RanksDifferError(rank, f"its {what} are {value}, and {values[0]} in rank 0")
    return values[0]


def _window(windows: Sequence[Window], *, meters: Sequence[int]) -> Window:
    return Window(
        steps=_same("steps", [one.steps for one in windows]),
        samples=_same("samples", [one.samples for one in windows]),
        seconds=max(one.seconds for one in windows),
        energy_j=_total([windows[rank].energy_j for rank in meters]),
    )


def _point(points: Sequence[EpochPoint]) -> EpochPoint:
    _same("steps", [one.steps for one in points])
    return msgspec.structs.replace(points[0], train_s=max(one.train_s for one in points))


def _facts(facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the facts of rank 0, but the memory of all."""
    peak = _total([one.get(_SUMMED_FACT) for one in facts])
    return {**facts[0], **({_SUMMED_FACT: peak} if _SUMMED_FACT in facts[0] else {})}


def _proof(proofs: Sequence[Proof]) -> Proof:
    """Return one proof in which every error is the largest of the ranks."""
    return msgspec.structs.replace(
        proofs[0],
        checks=_worst([one.checks for one in proofs]),
        seconds=max(one.seconds for one in proofs),
        loss_errors=tuple(map(max, zip(*(one.loss_errors for one in proofs), strict=True))),
    )


def _worst(checks: Sequence[Sequence[ParityCheck]]) -> tuple[ParityCheck, ...]:
    """Return, for each kind of check, that of the rank with the largest error."""
    _same("checks", [[one.kind for one in made] for made in checks])
    return tuple(max(same, key=_size) for same in zip(*checks, strict=True))


def _size(check: ParityCheck) -> float:
    return math.inf if math.isnan(check.error) else check.error


def _digest(digests: Sequence[str]) -> str:
    for rank, digest in enumerate(digests):
        if digest != digests[0]:
            raise RanksDifferError(
                rank, "its parameters differ from those of rank 0", status="not_comparable"
            )
    return digests[0]


_RULES: Mapping[type[Event], Mapping[str, _Rule]] = MappingProxyType({
    Imported: {"import_s": _longest},
    DataLoaded: {"data_s": _longest},
    Built: {"build_s": _longest, "call_steps": partial(_same, "steps of a call")},
    FirstStep: {"first_step_s": _longest},
    Ready: {"step_s": _longest, "call_steps": partial(_same, "steps of a call")},
    Timed: {"lead_s": _longest},
    Evaluated: {"point": _point},
    Learned: {"learn_s": _longest},
    Memory: {"peak_rss_bytes": _total},
    DeviceMemory: {"process_device_bytes": _total},
    Described: {"facts": _facts},
    Proven: {"proof": _proof},
    Verified: {"checks": _worst},
    Digested: {"sha256": _digest},
})  # fmt: skip
"""By event, how each of its fields follows from those of the ranks. Windows have a rule of their own."""
