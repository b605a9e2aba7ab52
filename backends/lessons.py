"""The lessons of a course: ways to train that are slow, the quick way beside each, and common mistakes.

A backend gives them if its `BackendInfo` names a class that keeps the contract `Lessons`. Its module is plain
code as a user of the framework writes it. It is measured within one framework only: no lesson compares two.
To read this module imports neither NumPy nor a framework.
"""

from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from bench.workloads.specs import Device

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from backends.base import TrainingData

WORKLOAD = "mnist-mlp"
"""The workload whose network the lessons train: it is small, so that what surrounds a step can be seen."""
BATCH_SIZE = 100
SMALL_BATCH_SIZE = 10


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """A way to train."""

    method: str
    """The method of `Lessons` that trains so."""
    said: str
    """The way in a few words, with no full stop."""
    batch_size: int = BATCH_SIZE


class Lesson(msgspec.Struct, frozen=True, kw_only=True):
    """A reason why training is slow: a slow way to train, and a quick one that differs in this alone."""

    name: str
    title: str
    slow: Way
    quick: Way
    about: str
    """What happens, and what to do, in two or three sentences."""
    compiles: bool = False
    """Whether the quick way compiles. Only then its first step is worth showing, and no lesson before may
    have compiled the same step."""


LESSONS = (
    Lesson(
        name="compiling",
        title="Not compiled",
        slow=Way(method="not_compiled", said="Python calls each operation"),
        quick=Way(method="compiled", said="the framework compiles the step, or the network"),
        about="Without compiling, Python calls each operation of a step, one after another. Compiling takes "
        "time once, at the first step. JAX compiles each operation by itself if it is called from Python, so "
        "its first step can take longer without compiling the step than with it.",
        compiles=True,
    ),
    Lesson(
        name="loading",
        title="Loading sample by sample",
        slow=Way(method="sample_by_sample", said="every image is prepared by a call of its own"),
        quick=Way(method="batch_by_batch", said="a whole batch is prepared by one call"),
        about="A call costs about the same for one image as for a hundred. Cut out and scale a whole batch "
        "with one call.",
    ),
    Lesson(
        name="reading",
        title="Reading the loss at every step",
        slow=Way(method="loss_every_step", said="Python reads the loss after every step"),
        quick=Way(method="batch_by_batch", said="Python reads all losses at the end"),
        about="Reading a value waits until the device has computed it, and only then Python prepares the "
        "next step. Keep the losses on the device and read them together.",
    ),
    Lesson(
        name="batch",
        title="Batches too small",
        slow=Way(
            method="batch_by_batch",
            said=f"{SMALL_BATCH_SIZE} images in a batch",
            batch_size=SMALL_BATCH_SIZE,
        ),
        quick=Way(method="batch_by_batch", said=f"{BATCH_SIZE} images in a batch"),
        about="Every step has a cost that does not depend on the images in it. With small batches an epoch "
        "has more steps. Another batch size is another training: it may need another learning rate.",
    ),
)
"""The four reasons that users report most. The factor is the time for an image in the slow way, divided by
that in the quick way."""


class Mistake(msgspec.Struct, frozen=True, kw_only=True):
    """A batch that is wrong in one thing; `bench.worker.lessons` makes it in NumPy, alike for all."""

    name: str
    title: str
    about: str
    """What is wrong with the batch."""
    checked: bool = False
    """Whether the framework's own check for values that are not numbers is switched on."""


MISTAKES = (
    Mistake(name="shape", title="wrong shape", about="images of 27 columns where the network expects 28"),
    Mistake(name="dtype", title="wrong dtype", about="images as bytes (uint8), not scaled to float32"),
    Mistake(name="nan", title="NaN in the input", about="one pixel of one image is NaN"),
    Mistake(
        name="nan_checked",
        title="NaN, with the framework's check",
        about="the same, with the framework's own check for NaN switched on",
        checked=True,
    ),
    # The last one: on a GPU an assertion on the device can end the use of the device in this process.
    Mistake(name="label", title="label out of range", about="one label is 10, and the classes are 0 to 9"),
)


class Lessons(Protocol):
    """What a framework's module of lessons offers; the network is that of `WORKLOAD`.

    A method that trains takes a number of steps and of images in a batch. It goes on from where the call
    before stopped, and returns only after the last update has finished on the device. Its first call may
    take longer. All methods but `loss_every_step` read the losses of a call together, at its end.
    """

    def __init__(self, data: "TrainingData", *, device: Device) -> None:
        """Build the network. Raise UnavailableError if the device is missing."""

    def device(self) -> str:
        """Return where the parameters of the network are: `cpu` or `gpu`."""

    def sample_by_sample(self, steps: int, batch_size: int) -> Any:
        """Train as `batch_by_batch` does, on batches that are made sample by sample."""

    def batch_by_batch(self, steps: int, batch_size: int) -> Any:
        """Train with the framework's usual step, on batches that one call makes."""

    def not_compiled(self, steps: int, batch_size: int) -> Any:
        """Train as `compiled` does, but each operation is called from Python."""

    def compiled(self, steps: int, batch_size: int) -> Any:
        """Train with what the framework's documentation names first for compiling."""

    def loss_every_step(self, steps: int, batch_size: int) -> Any:
        """Train as `batch_by_batch` does, but read the loss after every step."""

    def step_on(self, images: "npt.NDArray[Any]", labels: "npt.NDArray[np.uint8]") -> float:
        """Train a new network for one step on a batch as it is; return the loss.

        Images are float32 (n, h, w, c), scaled, and labels uint8 (n,), unless the batch is wrong.
        """

    def checked_step_on(self, images: "npt.NDArray[Any]", labels: "npt.NDArray[np.uint8]") -> float:
        """Do what `step_on` does, with the framework's own check for NaN; switch it off at the end."""
