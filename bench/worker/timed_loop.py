"""What all trainings of a worker share: the data, the batches, timed steps and evaluation."""

from typing import cast

import numpy as np
import numpy.typing as npt

from backends.base import Backend, Distributed, TrainingData
from backends.info import BackendInfo
from bench.datasets import cache as datasets
from bench.errors import NanLossError, UnavailableError, WrongDeviceError
from bench.machine.energy import Meter
from bench.paths import from_text
from bench.records.schema import Window
from bench.worker.protocol import DataSource
from bench.worker.stopwatch import Stopwatch
from bench.workloads.augmentation import Draws, draws_of
from bench.workloads.batches import BatchOrder, Permutation, StepOrder
from bench.workloads.ranks import Place
from bench.workloads.specs import Cell, Workload


def place_in(info: BackendInfo, cell: Cell, place: Place | None) -> Place | None:
    """Return the place of a worker as its backend gets it: None in modes that are not distributed."""
    return place if info.distributes(cell.mode) else None


def construct(
    backend_class: type[Backend],
    workload: Workload,
    data: TrainingData,
    cell: Cell,
    place: Place | None = None,
) -> Backend:
    """Return a new backend. `place` is that of `place_in`."""
    more = {} if place is None else {"place": place}
    return backend_class(workload, data, mode=cell.mode, device=cell.device, precision=cell.precision, **more)


def build(
    backend_class: type[Backend],
    workload: Workload,
    data: TrainingData,
    cell: Cell,
    place: Place | None = None,
) -> Backend:
    """Do what `construct` does; raise WrongDeviceError if it runs on another device than the cell's."""
    backend = construct(backend_class, workload, data, cell, place)
    check_device(backend, cell)
    return backend


def check_device(backend: Backend, cell: Cell) -> None:
    """Raise WrongDeviceError if a backend describes another device than the cell's."""
    actual = backend.describe().get("device")
    if actual != cell.device:
        raise WrongDeviceError(f"asked to run on {cell.device}, it runs on {actual}")


def load_data(source: DataSource) -> datasets.Dataset:
    """Return the data set, memory-mapped from the cache or from the sample data set."""
    if source.cache is None:
        return datasets.load_sample(source.name, source.limit)
    return datasets.load(source.name, cache=from_text(source.cache), limit=source.limit)


def training_data(workload: Workload, dataset: datasets.Dataset) -> TrainingData:
    """Return the training split without the images that the workload holds out.

    Raise UnavailableError if no whole batch is left.
    """
    images, labels = (part[workload.held_out :] for part in (dataset.train_images, dataset.train_labels))
    if len(images) < workload.batch_size:
        raise UnavailableError(
            f"{workload.name} holds out {workload.held_out} of {len(dataset.train_images)} training images, "
            f"which leaves no batch of {workload.batch_size}"
        )
    return TrainingData(info=dataset.info, images=images, labels=labels)


class Batches:
    """The images of every step, and the draws by which they are augmented."""

    def __init__(
        self, workload: Workload, data: TrainingData, *, seed: int, permute: Permutation | None = None
    ) -> None:
        self._workload, self._info, self._seed = workload, data.info, seed
        kind = BatchOrder if workload.drawing == "epochs" else StepOrder
        self._order = kind(
            images=len(data.images), batch_size=workload.batch_size, seed=seed, permute=permute
        )
        self.steps_per_epoch = self._order.steps_per_epoch

    def order(self, start: int, steps: int) -> npt.NDArray[np.int32]:
        """Return the images of `steps` steps from step `start` on: int32 (steps, batch)."""
        return self._order.steps(start, steps)

    def draws(self, start: int, steps: int) -> tuple[Draws, ...]:
        """Return what `train_steps` is given beside the order: how images are changed, or nothing."""
        return draws_of(self._workload, self._info, seed=self._seed, start=start, steps=steps)


class Trainer:
    """Trains a backend batch by batch and times each stretch of steps."""

    def __init__(
        self,
        backend: Backend,
        batches: Batches,
        meter: Meter | None = None,
        *,
        plain: Backend | None = None,
        distributed: bool = False,
        steps: int = 0,
        train_s: float = 0.0,
    ) -> None:
        """`plain` trains the steps that do not count, if `backend` is a slowed one.

        If the backend is `distributed`, a stretch takes as long as in the slowest rank. Whatever is decided
        by time is therefore decided alike in all ranks.

        `steps` and `train_s` were trained before, if `backend` goes on from a saved state.
        """
        self._backend, self._batches, self._meter = backend, batches, meter
        self._plain = plain or backend
        self._distributed = distributed
        self.steps = steps
        self.train_s = train_s
        self.losses: npt.NDArray[np.float32] = np.empty(0, np.float32)
        """The losses of the latest stretch."""

    def lead(self, steps: int) -> float:
        """Train steps that do not count; return their seconds."""
        return self._advance(self._plain, steps).seconds

    def train(self, steps: int) -> Window:
        """Train `steps` steps; nothing else happens between the two clock readings."""
        return self._advance(self._backend, steps)

    def _advance(self, backend: Backend, steps: int) -> Window:
        order, draws = self.next_batches(steps), self._batches.draws(self.steps, steps)
        before_j = self._meter.read_j() if self._meter else None
        clock = Stopwatch()
        losses = backend.train_steps(order, *draws)
        seconds = clock.seconds()
        energy_j = self._meter.since(before_j) if self._meter else None
        if self._distributed:
            seconds = cast(Distributed, backend).longest(seconds)
        if not np.isfinite(losses).all():
            first = self.steps + int(np.argmin(np.isfinite(losses)))
            raise NanLossError(f"the loss of step {first} is not finite; a smaller learning rate may help")
        self.steps += steps
        self.train_s += seconds
        self.losses = losses
        return Window(steps=steps, samples=order.size, seconds=seconds, energy_j=energy_j)

    def next_batches(self, steps: int) -> npt.NDArray[np.int32]:
        """Return the images of the next steps, int32 (steps, batch), without training on them."""
        return self._batches.order(self.steps, steps)


def evaluate(
    backend: Backend, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]
) -> tuple[float, float]:
    """Return mean cross-entropy and accuracy on a split, computed in float64 from the backend's logits."""
    return score(backend.predict(images), labels)


def score(logits: npt.NDArray[np.floating], labels: npt.NDArray[np.uint8]) -> tuple[float, float]:
    """Return mean cross-entropy, computed in float64, and accuracy of logits (n, classes)."""
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    loss = -log_probabilities[np.arange(len(labels)), labels].mean()
    if not np.isfinite(loss):
        raise NanLossError("the loss on the test images is not finite; a smaller learning rate may help")
    return float(loss), float((logits.argmax(axis=1) == labels).mean())
