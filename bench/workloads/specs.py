"""The records of what is trained: data set, architecture, optimizer, workload, row."""

from typing import Literal, TypeAlias

import msgspec

from bench.workloads.ranks import Scaling

Shape: TypeAlias = tuple[int, ...]
Device: TypeAlias = Literal["cpu", "gpu"]
Precision: TypeAlias = Literal["fp32", "tf32", "bf16"]


class DatasetInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A data set as the network sees it."""

    name: str
    image_shape: tuple[int, int, int]
    """Height, width, channels."""
    classes: int


NORM_EPSILON = 1e-3
"""Added to the variance under the root of a batch normalisation."""
NORM_DECAY = 0.99
"""The share of a running statistic that a training step keeps."""


class ConvBlock(msgspec.Struct, frozen=True, kw_only=True):
    """SAME convolution of stride 1 with an odd kernel, ReLU, then max-pooling of size and stride `pool`.

    With `normalise`, batch normalisation follows the convolution, and its offset replaces the convolution's
    bias (Ioffe and Szegedy, 2015, algorithm 1): over the images, rows and columns of a batch, y = scale (x -
    mean) / sqrt(variance + NORM_EPSILON) + offset with the biased variance. Every training step updates the
    running mean and variance, s <- NORM_DECAY s + (1 - NORM_DECAY) b, where b is the batch's mean or biased
    variance. Evaluation uses the running statistics.
    """

    filters: int
    kernel: int = 5
    pool: int = 2
    normalise: bool = False

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel {self.kernel} is even: SAME padding would differ between frameworks")


class Architecture(msgspec.Struct, frozen=True, kw_only=True):
    """Zero or more convolution blocks, zero or more hidden dense layers with ReLU, then the classifier.

    Without either it is softmax regression; with hidden layers only, a multi-layer perceptron.
    """

    convs: tuple[ConvBlock, ...] = ()
    hidden: tuple[int, ...] = ()

    @property
    def normalises(self) -> bool:
        """Whether any block has batch normalisation."""
        return any(block.normalise for block in self.convs)

    def parameter_shapes(self, info: DatasetInfo) -> dict[str, Shape]:
        """Return the canonical shape of every parameter, in network order.

        `info` describes the images as the network sees them: see `Workload.seen`. The parameters include the
        running statistics of batch normalisation, which `is_statistic` recognizes.
        """
        shapes: dict[str, Shape] = {}
        height, width, channels = info.image_shape
        for number, block in enumerate(self.convs, start=1):
            shapes[f"conv{number}/kernel"] = (block.kernel, block.kernel, channels, block.filters)
            of_block = ("scale", "offset", "mean", "variance") if block.normalise else ("bias",)
            shapes |= {f"conv{number}/{kind}": (block.filters,) for kind in of_block}
            height, width, channels = height // block.pool, width // block.pool, block.filters
        features = height * width * channels
        for number, units in enumerate(self.hidden, start=1):
            shapes[f"dense{number}/kernel"] = (features, units)
            shapes[f"dense{number}/bias"] = (units,)
            features = units
        shapes["logits/kernel"] = (features, info.classes)
        shapes["logits/bias"] = (info.classes,)
        return shapes


def is_statistic(name: str) -> bool:
    """Whether a parameter is a running statistic, which training updates without a gradient."""
    return name.endswith(("/mean", "/variance"))


class OptimizerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """An optimizer with all its constants; `backends.numpy_backend` defines the formulas.

    The learning rate of step t, from 0, is learning_rate * decay_rate ** (t / decay_steps).
    """

    name: Literal["sgd", "momentum", "adam", "rmsprop"]
    learning_rate: float
    momentum: float = 0.9
    beta1: float = 0.9
    beta2: float = 0.999
    rho: float = 0.9
    epsilon: float = 1e-8
    epsilon_hat: bool = False
    """Adam: whether epsilon is added to the root of the uncorrected second moment, as in TensorFlow 1 (the
    "epsilon hat" at the end of section 2 of Kingma and Ba)."""
    initial_square: float = 0.0
    """RMSProp: initial mean of squares; 1 in TensorFlow 1."""
    decay_rate: float = 1.0
    decay_steps: int = 1


class Initialiser(msgspec.Struct, frozen=True, kw_only=True):
    """The distribution of initial kernels; biases and offsets start at zero, scales at one."""

    name: Literal["glorot_uniform", "zeros", "normal", "truncated_normal"] = "glorot_uniform"
    stddev: float = 0.0
    """Standard deviation of the normal distributions, before truncation at two standard deviations."""


class Augmentation(msgspec.Struct, frozen=True, kw_only=True):
    """Random changes of training images, in this order; `bench.workloads.augmentation` defines each.

    Crop to `crop` rows and columns, flip, rotate the hue, and change contrast, brightness and saturation;
    then clip to [0, 1]. In evaluation, images are cropped around their centre.
    """

    crop: int
    hue: float
    """The largest rotation in either direction, in turns of the circle of colours."""
    contrast: tuple[float, float]
    brightness: float
    """The largest shift in either direction."""
    saturation: tuple[float, float]


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """What is trained: a data set, an architecture, an optimizer, a batch size and, for some, a target.

    The loss is the mean or the sum of the softmax cross-entropy over the batch.
    """

    name: str
    dataset: str
    architecture: Architecture
    optimizer: OptimizerSpec
    batch_size: int = 100
    target_accuracy: float | None = None
    """The test accuracy at which the time to target ends; None without a target."""
    matched: bool = True
    """Whether every backend starts from the same weights and computes the same formula with the same batches.

    If not, each backend uses its framework's own default initialisation, order of the data and constants of
    the optimizer. Only the results can then be compared.
    """
    loss: Literal["mean", "sum"] = "mean"
    initialiser: Initialiser = Initialiser()
    held_out: int = 0
    """Images at the beginning of the training split that are not used for training."""
    drawing: Literal["epochs", "steps"] = "epochs"
    """`epochs`: every image is used once in an epoch. `steps`: every batch is drawn from all images."""
    augmentation: Augmentation | None = None

    def seen(self, info: DatasetInfo) -> DatasetInfo:
        """Return the data set as the network sees it: cropped, if images are augmented."""
        if self.augmentation is None:
            return info
        size = (self.augmentation.crop, self.augmentation.crop, info.image_shape[2])
        return msgspec.structs.replace(info, image_shape=size)


class Cell(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """A row of the report: one workload, backend, mode, device, precision and number of ranks."""

    workload: str
    backend: str
    mode: str
    device: Device
    precision: Precision
    ranks: int = 1
    """The processes that train together, one device or one core each."""
    scaling: Scaling = "strong"

    @property
    def batches(self) -> int:
        """How many times the workload's batch a step trains: in weak scaling, the number of ranks."""
        return self.ranks if self.scaling == "weak" else 1

    def __str__(self) -> str:
        ranks = f" {self.ranks} ranks" if self.ranks > 1 else ""
        weak = " weak" if self.scaling == "weak" else ""
        return f"{self.workload} {self.backend}/{self.mode} {self.device} {self.precision}{ranks}{weak}"
