"""The records that say what is to be trained: data set, architecture, optimizer, workload, cell."""

from typing import Literal, TypeAlias

import msgspec

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
"""Share of a running statistic that a training step keeps."""


class ConvBlock(msgspec.Struct, frozen=True, kw_only=True):
    """SAME convolution of stride 1 with an odd kernel, ReLU, then max-pooling of size and stride `pool`.

    With `normalise`, batch normalisation stands between convolution and ReLU, and its offset takes the place
    of the convolution's bias (Ioffe and Szegedy, 2015, algorithm 1): over the images, rows and columns of a
    batch, y = scale (x - mean) / sqrt(variance + NORM_EPSILON) + offset with the biased variance. Every
    training step moves the running statistics, s <- NORM_DECAY s + (1 - NORM_DECAY) batch's, the biased
    variance here too; evaluation uses these in place of the batch's.
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

    With neither it is softmax regression; with hidden layers alone, a multi-layer perceptron.
    """

    convs: tuple[ConvBlock, ...] = ()
    hidden: tuple[int, ...] = ()

    @property
    def normalises(self) -> bool:
        """Whether any block has batch normalisation."""
        return any(block.normalise for block in self.convs)

    def parameter_shapes(self, info: DatasetInfo) -> dict[str, Shape]:
        """Return the canonical shape of every parameter, in network order.

        `info` tells the images as the network sees them: see `Workload.seen`. Running statistics of batch
        normalisation are among them; `is_statistic` tells them from what is trained.
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
    """Whether a parameter is a running statistic, which training moves but no gradient does."""
    return name.endswith(("/mean", "/variance"))


class OptimizerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """An optimizer with every constant stated; `backends.numpy_backend` defines what each means.

    The learning rate of step t (from 0) is learning_rate * decay_rate ** (t / decay_steps).
    """

    name: Literal["sgd", "momentum", "adam", "rmsprop"]
    learning_rate: float
    momentum: float = 0.9
    beta1: float = 0.9
    beta2: float = 0.999
    rho: float = 0.9
    epsilon: float = 1e-8
    epsilon_hat: bool = False
    """Adam: whether epsilon is added to the root of the uncorrected second moment, as TensorFlow 1 does (the
    "epsilon hat" at the end of section 2 of Kingma and Ba)."""
    initial_square: float = 0.0
    """RMSProp: what the mean of squares starts from; 1 in TensorFlow 1."""
    decay_rate: float = 1.0
    decay_steps: int = 1


class Initialiser(msgspec.Struct, frozen=True, kw_only=True):
    """How kernels are drawn; everything else starts at zero, or at one where it scales."""

    name: Literal["glorot_uniform", "zeros", "normal", "truncated_normal"] = "glorot_uniform"
    stddev: float = 0.0
    """Of the normal distributions, before it is cut at two of them."""


class Augmentation(msgspec.Struct, frozen=True, kw_only=True):
    """Random changes of training images, in this order; `bench.workloads.augmentation` defines each.

    Crop to `crop` rows and columns, flip, turn the hue, and change contrast, brightness and saturation; then
    clip to [0, 1]. For evaluation images are cropped around their centre.
    """

    crop: int
    hue: float
    """The largest turn, in turns of the whole circle of colours, either way."""
    contrast: tuple[float, float]
    brightness: float
    """The largest shift either way."""
    saturation: tuple[float, float]


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """What is trained: a data set, an architecture, an optimizer, a batch size and a target.

    The loss is the softmax cross-entropy, its mean or its sum over the batch.
    """

    name: str
    dataset: str
    architecture: Architecture
    optimizer: OptimizerSpec
    batch_size: int = 100
    target_accuracy: float | None = None
    """The test accuracy that time-to-accuracy counts to; None where no target is set."""
    matched: bool = True
    """Whether every backend starts from the same weights and computes the same formula of the same batches.

    Where not, each uses its framework's own default initialisation, order of the data and constants of the
    optimizer that is named: nothing is then comparable but what comes of it.
    """
    loss: Literal["mean", "sum"] = "mean"
    initialiser: Initialiser = Initialiser()
    held_out: int = 0
    """Images at the beginning of the training split that are not trained on."""
    drawing: Literal["epochs", "steps"] = "epochs"
    """Whether every image comes once an epoch, or every batch is drawn by itself from all images."""
    augmentation: Augmentation | None = None

    def seen(self, info: DatasetInfo) -> DatasetInfo:
        """Return the data set as the network sees it: cropped, where images are augmented."""
        if self.augmentation is None:
            return info
        size = (self.augmentation.crop, self.augmentation.crop, info.image_shape[2])
        return msgspec.structs.replace(info, image_shape=size)


class Cell(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """What a row of the report is about: one workload, backend, mode, device and precision."""

    workload: str
    backend: str
    mode: str
    device: Device
    precision: Precision

    def __str__(self) -> str:
        return f"{self.workload} {self.backend}/{self.mode} {self.device} {self.precision}"
