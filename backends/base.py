"""The contract of a backend: what the harness may ask of a framework, and what it is owed.

Only `numpy.ndarray` crosses this boundary. Canonical layouts: images (n, height, width, channels),
convolution kernels (height, width, in, out), dense kernels (in, out), and the last feature map is flattened
in (height, width, channel) order. A backend converts to and from its framework's own layouts in
`load_params` and `export_params` alone.
"""

from typing import Any, Protocol, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from bench.workloads.instruments import Peak, StepSplit
from bench.workloads.parameters import Params
from bench.workloads.specs import DatasetInfo, Device, Precision, Workload

State: TypeAlias = dict[str, npt.NDArray[Any]]
"""A snapshot of training, opaque to the harness: parameters, optimizer state and step count."""


class TrainingData(msgspec.Struct, frozen=True, kw_only=True):
    """The training split as it lies on disk: images uint8 (n, h, w, c), labels uint8 (n,).

    Both are mapped into memory, where all workers share them: on a CPU a backend trains from the images where
    they lie, as a copy would take memory that others, whose framework makes none, do not need. They can be
    written, as some frameworks take no other arrays, and never are.
    """

    info: DatasetInfo
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]


class Backend(Protocol):
    """One network of one workload, trained by one framework in one mode on one device.

    A pixel `p` of a uint8 image enters the network as `p / 255`. The loss is the softmax cross-entropy, its
    mean or its sum over the batch. The network's input is of the shape `workload.seen(data.info)`. Batch
    normalisation is as `ConvBlock` says; `train_steps` normalises by the batch, and `predict` by the running
    statistics. The optimizer's formulas are those of `backends.numpy_backend`. `precision` says how
    matrix products are computed: `fp32` in full float32, `tf32` with TensorFloat-32 inputs, `bf16` with
    bfloat16 activations and products over float32 parameters; parameters and loss stay float32 in all three.
    """

    call_steps: int
    """Steps to a call of the program that trains, where their number is fixed; else 1. What is left over is
    trained by another program, so a window that is timed holds whole calls."""

    def __init__(
        self, workload: Workload, data: TrainingData, *, mode: str, device: Device, precision: Precision
    ) -> None:
        """Build the network and put the training split on the device; raise if the device is not there."""

    def load_params(self, params: Params) -> None:
        """Set every parameter, and reset the optimizer's state and its step count."""

    def train_steps(
        self, order: npt.NDArray[np.int32], draws: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.float32]:
        """Train one step a row of `order` and return the loss of each step, taken before its update.

        `order` is int32 (steps, batch): indices into the training split. `draws`, float32 (steps, batch,
        `augmentation.COLUMNS`), is given where the workload augments its images, and else left out.

        This is what is timed, so nothing else may happen in it; it returns only after the last update has
        landed on the device. Any number of steps from 1 on must work, and a step may compile only once
        however many rows come.
        """

    def predict(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return the logits, float32 (n, classes), of uint8 images (n, h, w, c), cropped where trained so."""

    def export_params(self) -> Params:
        """Return the parameters in canonical layout."""

    def save_state(self) -> State:
        """Return all that training needs to go on from here as if it had not stopped."""

    def restore_state(self, state: State) -> None:
        """Take up what `save_state` returned."""

    def describe(self) -> dict[str, str | int | float | bool | None]:
        """Say what really runs: versions, the actual device and dtype, threads, and what else matters.

        The keys `device` (`cpu` or `gpu`), `device_name` and `peak_device_bytes` (allocator peak, None on
        the CPU) are owed; the others are the framework's own.
        """


class Instrumented(Protocol):
    """What a backend may offer beside `Backend`, so that a run can say where its time goes."""

    def split_steps(self, order: npt.NDArray[np.int32]) -> StepSplit:
        """Train one step a row of `order` as `train_steps` does, but wait after each part and time it."""

    def count_flops(self) -> float | None:
        """Return the floating-point operations of one training step, forward, backward and update.

        They are those that the framework's own counter or its compiler counts, a multiplication and an
        addition being two; None where it has none for this mode. Training is left as it was.
        """

    def peak(self) -> Peak:
        """Return the best of several tries of a matrix product, in the job's precision, and of a copy.

        The matrices are square, large enough for the framework's best, and what is copied is too large for
        caches.
        """


class Augmenting(Protocol):
    """What a backend offers beside `Backend` in its modes that augment images."""

    def augmented(
        self, batch: npt.NDArray[np.int32], draws: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """Return what enters the network of a batch: float32 (batch, crop, crop, c).

        `batch` is int32 (batch,), `draws` float32 (batch, `augmentation.COLUMNS`); the formulas are those of
        `bench.workloads.augmentation`.
        """


class OwnDefaults(Protocol):
    """What a backend offers beside `Backend` to train a workload that is not `matched`.

    For such a workload `__init__` makes the optimizer that is named with the framework's own constants, and
    the network with its own initialisers.
    """

    def initialise(self, seed: int) -> None:
        """Draw every parameter anew as the framework does by default, and reset the optimizer."""

    def permutation(self, seed: int, epoch: int) -> npt.NDArray[np.int32]:
        """Return the order of all training images in an epoch, as the framework's own shuffling draws it."""
