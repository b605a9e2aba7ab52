"""What a training notes of itself along its way; readable without NumPy."""

import msgspec

LATEST = 10
BINS = 30
QUANTILES = (0.0, 0.0228, 0.1587, 0.5, 0.8413, 0.9772, 1.0)
"""The ends, the median, and where a normal distribution has one and two standard deviations."""


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """How the values of a parameter are spread."""

    quantiles: tuple[float, ...]
    """At `QUANTILES`."""
    counts: tuple[int, ...]
    """Values in each of `BINS` bins of equal width between the ends."""
    total: float
    total_of_squares: float


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """Where a training stood after so many updates; losses are nats an image, accuracies shares."""

    step: int
    train_s: float
    """Seconds of training up to here, of all attempts that led here, evaluation excluded."""
    train_loss: float
    train_accuracy: float
    """On the images of the latest `LATEST` batches, or of the first before any step, evaluated as test images
    are, which is what the notebooks do: not augmented, and by the running statistics."""
    test_loss: float
    test_accuracy: float
    losses: bytes
    """The loss of every step since the figure before, as `train_steps` returned it: float32, little-endian
    (base64 in the file)."""
    distributions: dict[str, Distribution]
    """Of every parameter, by its canonical name."""
