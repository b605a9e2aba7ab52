"""What a block records about the machine."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from bench.machine.gpu import GpuReading

MOST_CPUS = 5
"""What other programs use in a round is related to this number of CPUs at most. The threads of a framework
wait for the slowest, so a program that takes half a core disturbs them however many cores there are."""


class Taken(NamedTuple):
    """The shares of the CPU time of a round that others took; None if the system does not report one."""

    steal: float | None
    """Taken by the hypervisor for other machines."""
    foreign: float | None
    """Used by other programs: see `Conditions.round_foreign`."""


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """What else the machine did while the trials of a block took their turns.

    Shares are of the time of all usable CPUs, except `pressure_share`, which is of the time. A field is None
    if the system does not report it.
    """

    seconds: float
    steal_share: float | None
    """Taken by the hypervisor for other machines, over all rounds."""
    round_steal: tuple[float | None, ...] = ()
    """The same for each round."""
    throttled_share: float | None
    """Time in which the control group could not run because it had used up its quota."""
    pressure_share: float | None
    """Time in which a task waited for a CPU (pressure stall information)."""
    foreign_share: float | None
    """Used by processes that are not part of this run; under a quota, beyond what it leaves to them."""
    round_foreign: tuple[float | None, ...] = ()
    """The same for each round, less the error of the reading, so at least so much; none in older records.
    With more than `MOST_CPUS` CPUs, it is a share of the time of that number."""
    load_average: float | None
    """Of the last minute, at the first turn; None if the system does not report it."""
    canary_s: tuple[float, ...]
    """Seconds of a fixed NumPy matrix product, before every round and after the last one."""
    gpu_before: GpuReading | None = None
    gpu_after: GpuReading | None = None

    @property
    def taken(self) -> tuple[Taken, ...]:
        """What others took in each round."""
        foreign = self.round_foreign or (None,) * len(self.round_steal)
        return tuple(map(Taken, self.round_steal, foreign))


def joined(parts: Sequence[Conditions]) -> Conditions:
    """Return the conditions of stretches of time that followed one another, as those of one; at least one.

    A share is the mean of the parts, weighted with their seconds, and None if a part has none. The load is
    that of the first part. The GPU's state before is that of the first part, and its state after has the
    values of the last part with the clock events and other processes of all parts.
    """
    seconds = math.fsum(part.seconds for part in parts)

    def share(values: Iterable[float | None]) -> float | None:
        known = [
            (value, part.seconds) for value, part in zip(values, parts, strict=True) if value is not None
        ]
        if len(known) < len(parts) or not seconds:
            return None
        return math.fsum(value * weight for value, weight in known) / seconds

    return Conditions(
        seconds=seconds,
        steal_share=share(part.steal_share for part in parts),
        round_steal=tuple(one for part in parts for one in part.round_steal),
        throttled_share=share(part.throttled_share for part in parts),
        pressure_share=share(part.pressure_share for part in parts),
        foreign_share=share(part.foreign_share for part in parts),
        round_foreign=tuple(one for part in parts for one in part.round_foreign),
        load_average=parts[0].load_average,
        canary_s=tuple(one for part in parts for one in part.canary_s),
        gpu_before=parts[0].gpu_before,
        gpu_after=_worst_gpu(parts),
    )


def _worst_gpu(parts: Sequence[Conditions]) -> GpuReading | None:
    last = parts[-1].gpu_after
    readings = [one for part in parts for one in (part.gpu_before, part.gpu_after) if one is not None]
    if last is None:
        return None
    foreign = [one.foreign_processes for one in readings if one.foreign_processes is not None]
    return msgspec.structs.replace(
        last,
        clock_events=tuple(dict.fromkeys(event for one in readings for event in one.clock_events)),
        foreign_processes=max(foreign, default=None),
    )
