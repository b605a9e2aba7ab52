"""What a backend can measure itself: the parts of a step, and the peak of the machine."""

import msgspec


class StepSplit(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a training step, in seconds per step, each waited for before the next begins.

    In a timed window the parts overlap, so their sum is larger than the time of a step.
    """

    steps: int
    """Number of steps that were measured; the values are means over them."""
    data_s: float
    """Getting the batch: gathering it on the device, or waiting for the input pipeline."""
    transfer_s: float
    """Copying what the step needs from the host to the device."""
    dispatch_s: float
    """The call of the step until it returns. If calls are synchronous, as on CPUs, this includes the work."""
    device_s: float
    """From there until the device has finished."""


class Peak(msgspec.Struct, frozen=True, kw_only=True):
    """The peak of this machine: the best of several tries of a product and of a copy."""

    flops_per_s: float
    """Operations per second of a square matrix product in the job's precision."""
    bytes_per_s: float
    """Bytes read and written per second in copying an array far larger than the caches."""
    product_error: float | None = None
    """Largest error of that product against float64, relative to its largest element; see
    `bench.workloads.precision`."""
