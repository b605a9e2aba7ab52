"""The contract of a backend: what the harness asks of a framework, and in which form it gets it.

Only `numpy.ndarray` crosses this boundary. Canonical layouts: images (n, height, width, channels),
convolution kernels (height, width, in, out), dense kernels (in, out), and the last feature map is flattened
in (height, width, channel) order. A backend converts to and from its framework's layouts in `load_params` and
`export_params`, and nowhere else.
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
    """The training split: images uint8 (n, h, w, c), labels uint8 (n,).

    Both are files mapped into memory, which all workers share. On a CPU a backend trains from these images
    without a copy: a copy would take memory that a framework without one does not need. Only a taught mode
    may make one, as its tutorial does. The arrays are writable, because some frameworks accept no others, but
    a backend never writes to them.
    """

    info: DatasetInfo
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]


class Backend(Protocol):
    """One network of one workload, trained by one framework in one mode on one device.

    A pixel `p` of a uint8 image enters the network as `p / 255`. The loss is the softmax cross-entropy, its
    mean or its sum over the batch. The network's input has the shape `workload.seen(data.info)`. `ConvBlock`
    defines batch normalisation; `train_steps` normalises by the batch, and `predict` by the running
    statistics. `backends.numpy_backend` has the formulas of the optimizers. `precision` names how matrix
    products are computed: `fp32` in full float32, `tf32` with TensorFloat-32 inputs, `bf16` with bfloat16
    activations and products over float32 parameters. Parameters and loss are float32 in all three.
    """

    call_steps: int
    """The steps that one call of the training program takes, if that number is fixed; else 1. Another program
    trains the remaining steps, so a timed window holds whole calls."""

    def __init__(
        self, workload: Workload, data: TrainingData, *, mode: str, device: Device, precision: Precision
    ) -> None:
        """Build the network and put the training split on the device.

        Raise UnavailableError if the device is missing, or if the mode cannot train this workload.
        """

    def load_params(self, params: Params) -> None:
        """Set every parameter, and reset the optimizer's state and its step count."""

    def train_steps(
        self, order: npt.NDArray[np.int32], draws: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.float32]:
        """Train one step for each row of `order` and return the loss of each step, taken before its update.

        `order` is int32 (steps, batch): indices into the training split. `draws`, float32 (steps, batch,
        `augmentation.COLUMNS`), is given only if the workload augments its images.

        This call is timed, so it does nothing else, and it returns only after the last update has finished on
        the device. Any number of steps from 1 on must work. A step may compile only once, however many rows
        later calls have.
        """

    def predict(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return the logits, float32 (n, classes), of uint8 images (n, h, w, c).

        If the workload trains on crops, these images are cropped already.
        """

    def export_params(self) -> Params:
        """Return the parameters in canonical layout."""

    def save_state(self) -> State:
        """Return all that training needs to go on from here as if it had not stopped."""

    def restore_state(self, state: State) -> None:
        """Go on from what `save_state` returned."""

    def describe(self) -> dict[str, str | int | float | bool | None]:
        """Return what really runs: versions, the actual device and dtype, threads, and what else matters.

        The keys `device` (`cpu` or `gpu`), `device_name` and `peak_device_bytes` (the allocator's peak, None
        on the CPU) are required. `build` is what the framework was built for, such as `CPU` or `CUDA 13.0`.
        Under `warning` there may be a sentence that the report shows at its top. Each framework adds further
        keys.
        """


class Instrumented(Protocol):
    """What a backend may offer beside `Backend`, so that a run can show where its time goes."""

    def split_steps(self, order: npt.NDArray[np.int32]) -> StepSplit:
        """Train as `train_steps` does, but wait for the device after each part of a step and time it."""

    def count_flops(self) -> float | None:
        """Return the floating-point operations of one training step: forward, backward and update.

        The framework's own counter or compiler counts them; a multiplication and an addition are two. None if
        the framework counts none in this mode. Training is not changed.
        """

    def peak(self) -> Peak:
        """Return the best of several tries of a matrix product, in the job's precision, and of a copy.

        The matrices are square and large enough for the framework's best rate; the copy is too large for
        caches.
        """


class Distributed(Protocol):
    """What a backend offers beside `Backend` in its distributed modes.

    Such a mode is built with one more argument, `place: Place`: the process is one of `place.ranks` that
    train one network together, and every rank makes the same calls in the same order. `train_steps` gets the
    order of the whole batch in every rank, trains on `part(batch, place)` of each row, and returns the losses
    of the whole batch. Gradients are combined by the framework's own engine, so that all ranks hold the same
    parameters after each step, and batch statistics are those of the whole batch. `predict` computes all the
    images in every rank, and exports and states are the same in all.

    A process builds several such backends one after another, all with the same place. The first one starts
    the engine, before the framework computes anything.
    """

    def longest(self, seconds: float) -> float:
        """Return the largest of the values that the ranks pass, after all of them have passed one."""

    @staticmethod
    def leave() -> None:
        """Part from the other ranks, so that the end of this process disturbs none of them.

        Every rank calls it once, after all else; it may wait for the others. If no engine runs, it does
        nothing.
        """


class Augmenting(Protocol):
    """What a backend offers beside `Backend` in its modes that augment images."""

    def augmented(
        self, batch: npt.NDArray[np.int32], draws: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """Return the augmented images of a batch as they enter the network: float32 (batch, crop, crop, c).

        `batch` is int32 (batch,), `draws` float32 (batch, `augmentation.COLUMNS`); the formulas are those of
        `bench.workloads.augmentation`.
        """


class OwnDefaults(Protocol):
    """What a backend offers beside `Backend` to train a workload that is not `matched`.

    For such a workload `__init__` makes the named optimizer with the framework's own constants, and the
    network with its own initialisers.
    """

    def initialise(self, seed: int) -> None:
        """Draw every parameter as the framework does by default, and reset the optimizer."""

    def permutation(self, seed: int, epoch: int) -> npt.NDArray[np.int32]:
        """Return the order of all training images in an epoch, as the framework's own shuffling draws it."""
