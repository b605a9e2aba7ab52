"""The worker: one fresh process that does one task with one framework and reports events.

Started as `python -m bench.worker FD`, with the task as JSON on standard input; events are JSON lines on the
file descriptor FD, because frameworks print to standard output and standard error as they please.
"""

import os
import sys
import time
import traceback
from collections.abc import Callable
from math import ceil
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from backends.base import Backend, BackendInfo, TrainingData
from bench import datasets, parity
from bench.errors import BenchError, UnavailableError
from bench.initial import initial_params
from bench.machine import peak_rss_bytes
from bench.order import BatchOrder
from bench.protocol import (
    AnyEvent,
    Built,
    DataLoaded,
    DataSource,
    Described,
    Done,
    Evaluated,
    Failed,
    FirstStep,
    Imported,
    Learned,
    MeasureTask,
    Memory,
    Probed,
    ProbeTask,
    Task,
    Timed,
    Verified,
    VerifyTask,
    WarmedUp,
)  # fmt: skip
from bench.records import EpochPoint, ParityCheck, Status, Window
from bench.registry import load_backend
from bench.specs import Cell, Workload
from bench.statistics import settled

Emit = Callable[[AnyEvent], None]

_OUT_OF_MEMORY_SIGNS = ("out of memory", "resource_exhausted", "cannot allocate memory")


class NanLossError(BenchError):
    """Training lost its numbers."""


class WrongDeviceError(BenchError):
    """A backend ran somewhere else than it was asked to."""


def main() -> None:
    """Do the task on standard input; exit 0 whatever happened, as the events say it."""
    events = os.fdopen(int(sys.argv[1]), "wb", buffering=0)

    def emit(event: AnyEvent) -> None:
        events.write(msgspec.json.encode(event) + b"\n")

    task: Task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    try:
        match task:
            case MeasureTask():
                measure(task, emit)
            case VerifyTask():
                verify(task, emit)
            case ProbeTask():
                probe(task, emit)
        emit(Done())
    except Exception as error:  # the process ends here: whatever was raised becomes the job's status
        print_if_unforeseen(error)
        emit(Failed(status=status_of(error), error=in_a_line(error)))


def measure(task: MeasureTask, emit: Emit) -> None:
    """Import, build, take the first step, find the steady state, then learn; each is timed apart."""
    spec, workload = task.spec, task.spec.workload
    backend_class = _import(task.backend, emit)
    clock = Stopwatch()
    dataset = load_data(task.data)
    training = TrainingData(info=dataset.info, images=dataset.train_images, labels=dataset.train_labels)
    order = BatchOrder(images=len(training.images), batch_size=workload.batch_size, seed=spec.seed)
    start = initial_params(workload.architecture, dataset.info, seed=spec.seed)
    emit(DataLoaded(data_s=clock.seconds()))

    clock = Stopwatch()
    cell = spec.cell
    backend = backend_class(workload, training, mode=cell.mode, device=cell.device, precision=cell.precision)
    backend.load_params(start)
    emit(Built(build_s=clock.seconds()))
    check_device(backend, cell)

    drift = None
    trainer = Trainer(backend, order)
    emit(FirstStep(first_step_s=trainer.train(1).seconds))
    if spec.windows:
        drift = find_steady_state(trainer, spec.windows, spec.window_s, emit)
    peak, method = peak_rss_bytes()
    emit(Memory(peak_rss_bytes=peak, method=method))
    emit(Described(facts=backend.describe()))
    if spec.epochs:
        backend.load_params(start)
        clock = Stopwatch()
        learn(backend, order, dataset, epochs=spec.epochs, emit=emit)
        emit(Learned(learn_s=clock.seconds()))
    if drift is not None:  # said last: what it learns is no worse for an uneven pace
        raise drift


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter_ns()

    def seconds(self) -> float:
        return (time.perf_counter_ns() - self._start) / 1e9


class Trainer:
    """Walks a backend along its batch order and reads the clock around each stretch."""

    def __init__(self, backend: Backend, order: BatchOrder) -> None:
        self._backend, self._order = backend, order
        self.steps = 0
        self.train_s = 0.0
        self.losses: npt.NDArray[np.float32] = np.empty(0, np.float32)
        """The losses of the latest stretch."""

    def train(self, steps: int) -> Window:
        """Train so many steps; between the two clock readings there is training and nothing else."""
        batches = self._order.steps(self.steps, steps)
        clock = Stopwatch()
        losses = self._backend.train_steps(batches)
        seconds = clock.seconds()
        if not np.isfinite(losses).all():
            first = self.steps + int(np.argmin(np.isfinite(losses)))
            raise NanLossError(f"the loss of step {first} is not finite; a smaller learning rate may help")
        self.steps += steps
        self.train_s += seconds
        self.losses = losses
        return Window(steps=steps, samples=batches.size, seconds=seconds)


def find_steady_state(
    trainer: Trainer, windows: int, window_s: float, emit: Emit
) -> "NoSteadyStateError | None":
    """Grow the window until it lasts `window_s`, then time windows until their rate has settled.

    Returns what is wrong where it does not settle.
    """
    steps = 1
    while True:
        window = trainer.train(steps)
        emit(WarmedUp(window=window))
        if window.seconds >= window_s:
            break
        # At most eightfold: the first steps are slow, and one guess from them would overshoot.
        steps = min(ceil(steps * 1.2 * window_s / window.seconds), steps * 8)
    rates: list[float] = []
    while len(rates) < windows or not settled(rates):
        if len(rates) >= 2 * windows:
            return NoSteadyStateError(f"the rate still drifts after {len(rates)} windows of {window_s:g} s")
        window = trainer.train(steps)
        emit(Timed(window=window))
        rates.append(window.samples / window.seconds)
    return None


class NoSteadyStateError(BenchError):
    """The rate did not settle."""


def learn(
    backend: Backend,
    order: BatchOrder,
    dataset: datasets.Dataset,
    *,
    epochs: float,
    emit: Emit,
) -> None:
    """Train so many epochs; evaluate on the whole test split before, after each and at the end, untimed."""
    trainer = Trainer(backend, order)
    last = max(1, round(epochs * order.steps_per_epoch))
    while True:
        test_loss, accuracy = evaluate(backend, dataset.test_images, dataset.test_labels)
        point = EpochPoint(
            epoch=trainer.steps / order.steps_per_epoch,
            steps=trainer.steps,
            train_s=trainer.train_s,
            train_loss=float(np.mean(trainer.losses)) if trainer.steps else None,
            test_loss=test_loss,
            test_accuracy=accuracy,
        )
        emit(Evaluated(point=point, of_epochs=last / order.steps_per_epoch))
        if trainer.steps >= last:
            return
        trainer.train(min(order.steps_per_epoch, last - trainer.steps))


def evaluate(
    backend: Backend, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]
) -> tuple[float, float]:
    """Return mean cross-entropy and accuracy on a split, computed in float64 from the backend's logits."""
    logits = backend.predict(images).astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    loss = -log_probabilities[np.arange(len(labels)), labels].mean()
    if not np.isfinite(loss):
        raise NanLossError("the loss on the test images is not finite")
    return float(loss), float((logits.argmax(axis=1) == labels).mean())


def verify(task: VerifyTask, emit: Emit) -> None:
    """Hold every case against its reference trace; one that fails does not keep the others from a try."""
    backend_class = _import(task.backend, emit)
    for case in task.cases:
        cell = case.cell
        status: Status = "ok"
        error: str | None = None
        checks: tuple[ParityCheck, ...] = ()
        try:
            data, trace = parity.load_trace(Path(case.trace))

            def make(workload: Workload, data: TrainingData, cell: Cell = cell) -> Backend:
                backend = backend_class(
                    workload, data, mode=cell.mode, device=cell.device, precision=cell.precision
                )
                check_device(backend, cell)
                return backend

            checks = parity.check_parity(make, case.workload, data, trace, cell.precision)
        except Exception as raised:
            print_if_unforeseen(raised)
            status, error = status_of(raised), in_a_line(raised)
        emit(
            Verified(
                cell=cell, optimizer=case.workload.optimizer.name, status=status, error=error, checks=checks
            )
        )


def probe(task: ProbeTask, emit: Emit) -> None:
    """Compute the logits of a convolutional network and compare them with the reference's."""
    backend_class = _import(task.backend, emit)
    cell, workload = task.case.cell, parity.parity_workload(task.case.workload)
    data, trace = parity.load_trace(Path(task.case.trace))
    backend = backend_class(workload, data, mode=cell.mode, device=cell.device, precision=cell.precision)
    check_device(backend, cell)
    backend.load_params(parity.start_params(workload, data))
    error = parity.relative_error(backend.predict(data.images[: parity.TEST_IMAGES]), trace.logits)
    if not np.isfinite(error):
        raise parity.NotComparableError("its logits are not finite, or not of the reference's shape")
    emit(Probed(error=error))
    emit(Described(facts=backend.describe()))


def load_data(source: DataSource) -> datasets.Dataset:
    """Return the data set, memory-mapped from the cache or from the shipped sample."""
    if source.cache is None:
        return datasets.load_sample(source.name, source.limit)
    return datasets.load(source.name, cache=Path(source.cache), limit=source.limit)


def check_device(backend: Backend, cell: Cell) -> None:
    """Raise WrongDeviceError where a backend says that it runs on another device than the cell's."""
    actual = backend.describe().get("device")
    if actual != cell.device:
        raise WrongDeviceError(f"asked to run on {cell.device}, it runs on {actual}")


def status_of(error: Exception) -> Status:
    """Return the status that an exception means."""
    text = f"{type(error).__name__}: {error}".lower()
    match error:
        case NanLossError():
            return "nan_loss"
        case NoSteadyStateError():
            return "no_steady_state"
        case WrongDeviceError():
            return "wrong_device"
        case UnavailableError() | ImportError():
            return "unavailable"
        case _ if isinstance(error, MemoryError) or any(sign in text for sign in _OUT_OF_MEMORY_SIGNS):
            return "out_of_memory"
    return "failed"


def print_if_unforeseen(error: Exception) -> None:
    """Print the traceback, which the job's record keeps, of what is none of our own errors."""
    if not isinstance(error, BenchError):
        traceback.print_exception(error)


def in_a_line(error: Exception) -> str:
    """Return what an exception says, in one line of at most 300 characters."""
    text = str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:300]


def _import(info: BackendInfo, emit: Emit) -> type[Backend]:
    clock = Stopwatch()
    backend_class = load_backend(info)
    emit(Imported(import_s=clock.seconds()))
    return backend_class


if __name__ == "__main__":
    main()
