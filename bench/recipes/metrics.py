"""The figures of a training run; this module needs no NumPy."""

import msgspec

LATEST = 10
BINS = 30
QUANTILES = (0.0, 0.0228, 0.1587, 0.5, 0.8413, 0.9772, 1.0)
"""Minimum, median, maximum, and where a normal distribution has one and two standard deviations."""


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """The distribution of the values of one parameter."""

    quantiles: tuple[float, ...]
    """The quantiles at `QUANTILES`."""
    counts: tuple[int, ...]
    """How many values lie in each of `BINS` bins of equal width from minimum to maximum."""
    total: float
    total_of_squares: float


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a training run after a number of steps; losses are nats per image, accuracies shares."""

    step: int
    train_s: float
    """Seconds of training so far, without evaluation, over all attempts that this run continues."""
    train_loss: float
    train_accuracy: float
    """On the images of the latest `LATEST` batches, or of the first batch before any step. They are evaluated
    as test images are, as in the notebooks: without augmentation, and with the running statistics."""
    test_loss: float
    test_accuracy: float
    losses: bytes
    """The loss of every step since the previous figure, as `train_steps` returned it: float32, little-endian
    (base64 in the file)."""
    distributions: dict[str, Distribution]
    """The distribution of every parameter, by its canonical name."""
