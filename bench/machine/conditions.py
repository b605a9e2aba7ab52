"""What a block records about the machine."""

import msgspec

from bench.machine.gpu import GpuReading


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
    load_average: float | None
    """Of the last minute, at the first turn; None if the system does not report it."""
    canary_s: tuple[float, ...]
    """Seconds of a fixed NumPy matrix product, before every round and after the last one."""
    gpu_before: GpuReading | None = None
    gpu_after: GpuReading | None = None
