"""What a backend can measure of itself: where a step's time goes, and the machine's peak."""

import msgspec


class StepSplit(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time of a training step goes, in seconds a step, each part waited for before the next begins.

    So the sum is more than a step takes when the parts overlap, as they do between the clocks.
    """

    steps: int
    """Steps that were looked at; the figures are means over them."""
    data_s: float
    """Getting the batch: gathering it on the device, or waiting for the input pipeline."""
    transfer_s: float
    """Bringing what the step needs from the host to the device."""
    dispatch_s: float
    """The call of the step until it returns. Where calls are synchronous, as on CPUs, it holds the work."""
    device_s: float
    """From there until the device has finished."""


class Peak(msgspec.Struct, frozen=True, kw_only=True):
    """What this machine reaches at best: the best of several tries of a product and of a copy."""

    flops_per_s: float
    """Of a square matrix product in the job's precision."""
    bytes_per_s: float
    """Read and written by copying an array far larger than the caches."""
    product_error: float | None = None
    """Of that product against float64, relative to its largest element: see `bench.workloads.precision`."""
