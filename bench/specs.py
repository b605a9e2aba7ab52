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


class ConvBlock(msgspec.Struct, frozen=True, kw_only=True):
    """SAME convolution of stride 1 with an odd kernel, ReLU, then max-pooling of size and stride `pool`."""

    filters: int
    kernel: int = 5
    pool: int = 2

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel {self.kernel} is even: SAME padding would differ between frameworks")


class Architecture(msgspec.Struct, frozen=True, kw_only=True):
    """Zero or more convolution blocks, zero or more hidden dense layers with ReLU, then the classifier.

    With neither it is softmax regression; with hidden layers alone, a multi-layer perceptron.
    """

    convs: tuple[ConvBlock, ...] = ()
    hidden: tuple[int, ...] = ()

    def parameter_shapes(self, info: DatasetInfo) -> dict[str, Shape]:
        """Return the canonical shape of every parameter, in network order."""
        shapes: dict[str, Shape] = {}
        height, width, channels = info.image_shape
        for number, block in enumerate(self.convs, start=1):
            shapes[f"conv{number}/kernel"] = (block.kernel, block.kernel, channels, block.filters)
            shapes[f"conv{number}/bias"] = (block.filters,)
            height, width, channels = height // block.pool, width // block.pool, block.filters
        features = height * width * channels
        for number, units in enumerate(self.hidden, start=1):
            shapes[f"dense{number}/kernel"] = (features, units)
            shapes[f"dense{number}/bias"] = (units,)
            features = units
        shapes["logits/kernel"] = (features, info.classes)
        shapes["logits/bias"] = (info.classes,)
        return shapes


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
    decay_rate: float = 1.0
    decay_steps: int = 1


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """What is trained: a data set, an architecture, an optimizer, a batch size and a target.

    The loss is the mean softmax cross-entropy of the batch.
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


class Cell(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """What a row of the report is about: one workload, backend, mode, device and precision."""

    workload: str
    backend: str
    mode: str
    device: Device
    precision: Precision

    def __str__(self) -> str:
        return f"{self.workload} {self.backend}/{self.mode} {self.device} {self.precision}"
