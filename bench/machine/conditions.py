"""What a block records of the machine while its jobs took turns."""

import msgspec

from bench.machine.gpu import GpuReading


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """What else the machine did while the jobs of a block took their turns.

    Shares are of all usable CPUs' time, but for `pressure_share`, which is of the time; a field is None
    where the system does not tell.
    """

    seconds: float
    steal_share: float | None
    """What the hypervisor gave to somebody else, over all rounds."""
    round_steal: tuple[float | None, ...] = ()
    """The same in each round."""
    throttled_share: float | None
    """Of the time, that the control group was kept from running for having used up its quota."""
    pressure_share: float | None
    """Of the time, that some task waited for a CPU (pressure stall information)."""
    foreign_share: float | None
    """CPU time used by processes that are not of this run; under a quota, beyond what it leaves to them."""
    load_average: float
    """Of the last minute, when the turns began."""
    canary_s: tuple[float, ...]
    """Seconds of a fixed NumPy matrix product before every round of turns and after the last."""
    gpu_before: GpuReading | None = None
    gpu_after: GpuReading | None = None
