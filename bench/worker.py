"""The worker: one fresh process that does one task with one framework and reports events.

Started as `python -m bench.worker FD`, with the task as a line of JSON on standard input, and after it, where
the task is to measure, a line for every command; events are JSON lines on the file descriptor FD, because
frameworks print to standard output and standard error as they please.
"""

import math
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import cast

import msgspec
import numpy as np
import numpy.typing as npt

from backends.base import Backend, BackendInfo, Instrumented, OwnDefaults, TrainingData
from bench import datasets, parity
from bench.augmentation import Draws, draws_of, seen_images
from bench.energy import Meter
from bench.errors import BenchError, UnavailableError
from bench.gpu import GpuMonitor
from bench.initial import initial_params
from bench.machine import peak_rss_bytes
from bench.order import BatchOrder, Permutation, StepOrder
from bench.protocol import (
    AnyCommand,
    AnyEvent,
    Built,
    DataLoaded,
    DataSource,
    Described,
    DeviceMemory,
    Done,
    Evaluated,
    Failed,
    FirstStep,
    Imported,
    Learned,
    LookedCloser,
    MeasureTask,
    Memory,
    Probed,
    ProbeTask,
    Ready,
    Started,
    Task,
    Timed,
    Turn,
    Verified,
    VerifyTask,
    WarmedUp,
)  # fmt: skip
from bench.records import EpochPoint, ParityCheck, Status, Window
from bench.registry import load_backend
from bench.schedule import evaluation_steps
from bench.slowed import Slowed
from bench.specs import Cell, Workload

Emit = Callable[[AnyEvent], None]

WARMUP_S = 0.5
"""Training for at least so long comes before the first window, however short a window is."""
LEAD_S = 0.01
"""Training before every window that does not count, a step at least: while a job waited, others had the
caches, and its threads slept."""
_CLOSER_STEPS = 20
"""Steps that are looked at to split one, at most; as many as take `WARMUP_S`."""
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

    emit(Started())
    lines = sys.stdin.buffer
    task: Task = msgspec.json.decode(lines.readline(), type=Task)
    try:
        match task:
            case MeasureTask():
                measure(task, read_commands(lines), emit)
            case VerifyTask():
                verify(task, emit)
            case ProbeTask():
                probe(task, emit)
        emit(Done())
    except Exception as error:  # the process ends here: whatever was raised becomes the job's status
        print_if_unforeseen(error)
        emit(Failed(status=status_of(error), error=in_a_line(error)))


def read_commands(lines: Iterable[bytes]) -> Iterator[AnyCommand]:
    """Yield the commands as they come, until there are no more."""
    for line in lines:
        command: AnyCommand = msgspec.json.decode(line, type=AnyCommand)
        yield command


def measure(task: MeasureTask, commands: Iterator[AnyCommand], emit: Emit) -> None:
    """Import, build, take the first step, warm up, take turns, then learn; each is timed apart."""
    spec, workload = task.spec, task.spec.workload
    backend_class = _import(task.backend, emit)
    clock = Stopwatch()
    dataset = load_data(task.data)
    training = training_data(workload, dataset)
    params = initial_params(
        workload.architecture,
        workload.seen(dataset.info),
        seed=spec.seed,
        initialiser=workload.initialiser,
    )
    emit(DataLoaded(data_s=clock.seconds()))

    clock = Stopwatch()
    cell = spec.cell
    backend = backend_class(workload, training, mode=cell.mode, device=cell.device, precision=cell.precision)

    def start() -> None:
        if workload.matched:
            backend.load_params(params)
        else:
            own_defaults(backend).initialise(spec.seed)

    start()
    emit(Built(build_s=clock.seconds()))
    check_device(backend, cell)

    permute = None if workload.matched else own_defaults(backend).permutation
    batches = Batches(workload, training, seed=spec.seed, permute=permute)
    trained = backend if task.slowdown is None else cast(Backend, Slowed(backend, task.slowdown))
    next(commands, None)  # to begin: the first step is to have the machine for itself
    with Meter.open(cell.device) as meter:
        trainer = Trainer(trained, batches, meter, plain=backend)
        emit(FirstStep(first_step_s=trainer.train(1).seconds))
        if spec.windows:
            warm_up(trainer, spec.window_s, emit)
            take_turns(trainer, spec.window_s, commands, emit)
    peak, method = peak_rss_bytes()
    emit(Memory(peak_rss_bytes=peak, peak_rss_method=method))
    if cell.device == "gpu":
        with GpuMonitor.open() as monitor:
            emit(DeviceMemory(process_device_bytes=monitor.process_bytes(os.getpid())))
    emit(Described(facts={**backend.describe(), "energy_meter": meter.method}))
    if task.look_closer:
        emit(look_closer(backend, workload, trainer))
    if spec.epochs:
        start()
        clock = Stopwatch()
        learn(backend, batches, workload, dataset, epochs=spec.epochs, emit=emit)
        emit(Learned(learn_s=clock.seconds()))


def training_data(workload: Workload, dataset: datasets.Dataset) -> TrainingData:
    """Return what the workload trains on: the training split without what it holds out."""
    images, labels = (part[workload.held_out :] for part in (dataset.train_images, dataset.train_labels))
    if len(images) < workload.batch_size:
        raise UnavailableError(
            f"{workload.name} holds out {workload.held_out} of {len(dataset.train_images)} training images, "
            f"which leaves no batch of {workload.batch_size}"
        )
    return TrainingData(info=dataset.info, images=images, labels=labels)


class Batches:
    """What a training takes from step to step: the order of its images, and how each is changed."""

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


def own_defaults(backend: Backend) -> OwnDefaults:
    """Return the backend as one that knows its framework's defaults, or raise UnavailableError."""
    if not (hasattr(backend, "initialise") and hasattr(backend, "permutation")):
        raise UnavailableError(
            f"{type(backend).__name__} lacks its framework's own defaults (initialise and permutation); "
            "leave out the workloads that end in -defaults"
        )
    return cast(OwnDefaults, backend)


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter_ns()

    def seconds(self) -> float:
        return (time.perf_counter_ns() - self._start) / 1e9


class Trainer:
    """Walks a backend along its batch order and reads the clock around each stretch."""

    def __init__(
        self,
        backend: Backend,
        batches: Batches,
        meter: Meter | None = None,
        *,
        plain: Backend | None = None,
    ) -> None:
        """`plain` trains what does not count, where `backend` is slowed."""
        self._backend, self._batches, self._meter = backend, batches, meter
        self._plain = plain or backend
        self.steps = 0
        self.train_s = 0.0
        self.losses: npt.NDArray[np.float32] = np.empty(0, np.float32)
        """The losses of the latest stretch."""

    def lead(self, steps: int) -> None:
        """Train steps that do not count."""
        self._advance(self._plain, steps)

    def train(self, steps: int) -> Window:
        """Train so many steps; between the two clock readings there is training and nothing else."""
        return self._advance(self._backend, steps)

    def _advance(self, backend: Backend, steps: int) -> Window:
        order, draws = self.next_batches(steps), self._batches.draws(self.steps, steps)
        before_j = self._meter.read_j() if self._meter else None
        clock = Stopwatch()
        losses = backend.train_steps(order, *draws)
        seconds = clock.seconds()
        energy_j = self._meter.since(before_j) if self._meter else None
        if not np.isfinite(losses).all():
            first = self.steps + int(np.argmin(np.isfinite(losses)))
            raise NanLossError(f"the loss of step {first} is not finite; a smaller learning rate may help")
        self.steps += steps
        self.train_s += seconds
        self.losses = losses
        return Window(steps=steps, samples=order.size, seconds=seconds, energy_j=energy_j)

    def next_batches(self, steps: int) -> npt.NDArray[np.int32]:
        """Return the order of the next steps, int32 (steps, batch), without training them."""
        return self._batches.order(self.steps, steps)


def warm_up(trainer: Trainer, window_s: float, emit: Emit) -> None:
    """Train ever longer windows until one lasts about `window_s`, and say that all is ready."""
    steps, step_s = 1, math.inf
    before_s = trainer.train_s  # the first step compiles, and warms nothing up
    while True:
        window = trainer.train(steps)
        emit(WarmedUp(window=window))
        step_s = min(step_s, window.seconds / steps)
        if window.seconds >= window_s / 2 and trainer.train_s - before_s >= WARMUP_S:
            break
        # At most eightfold: the first steps are slow, and one guess from them would overshoot.
        steps = max(1, min(round(window_s / step_s), steps * 8))
    emit(Ready(step_s=step_s))


def take_turns(trainer: Trainer, window_s: float, commands: Iterator[AnyCommand], emit: Emit) -> None:
    """Train a window at every `Turn`, after a lead that does not count."""
    for command in commands:
        if not isinstance(command, Turn):
            return
        trainer.lead(math.ceil(command.steps * min(1.0, LEAD_S / window_s)))
        emit(Timed(window=trainer.train(command.steps)))


def look_closer(backend: Backend, workload: Workload, trainer: Trainer) -> LookedCloser:
    """Return where a step's time goes, what it computes, and the machine's peak, as far as known.

    A step that augments its images has more parts than these, and is not taken apart.
    """
    if not hasattr(backend, "split_steps") or workload.augmentation is not None:
        return LookedCloser(split=None, counted_flops=None, peak=None)
    instrumented = cast(Instrumented, backend)
    step_s = trainer.train_s / trainer.steps
    steps = max(1, min(_CLOSER_STEPS, int(WARMUP_S / step_s)))
    instrumented.split_steps(trainer.next_batches(1))  # what it compiles and allocates is not a step's time
    return LookedCloser(
        split=instrumented.split_steps(trainer.next_batches(steps)),
        counted_flops=instrumented.count_flops(),
        peak=instrumented.peak(),
    )


def learn(
    backend: Backend,
    batches: Batches,
    workload: Workload,
    dataset: datasets.Dataset,
    *,
    epochs: float,
    emit: Emit,
) -> None:
    """Train so many epochs; evaluate on the whole test split along the way, untimed."""
    trainer = Trainer(backend, batches)
    per_epoch = batches.steps_per_epoch
    test_images = seen_images(workload, dataset.test_images)
    last = max(1, round(epochs * per_epoch))
    for steps in evaluation_steps(last, per_epoch):
        if steps:
            trainer.train(steps - trainer.steps)
        test_loss, accuracy = evaluate(backend, test_images, dataset.test_labels)
        point = EpochPoint(
            epoch=trainer.steps / per_epoch,
            steps=trainer.steps,
            train_s=trainer.train_s,
            train_loss=float(np.mean(trainer.losses)) if trainer.steps else None,
            test_loss=test_loss,
            test_accuracy=accuracy,
        )
        emit(Evaluated(point=point, of_epochs=last / per_epoch))


def evaluate(
    backend: Backend, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]
) -> tuple[float, float]:
    """Return mean cross-entropy and accuracy on a split, computed in float64 from the backend's logits."""
    logits = backend.predict(images).astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    loss = -log_probabilities[np.arange(len(labels)), labels].mean()
    if not np.isfinite(loss):
        raise NanLossError("the loss on the test images is not finite; a smaller learning rate may help")
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
    error = parity.relative_error(backend.predict(parity.evaluated_images(workload, data)), trace.logits)
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
    sys.stdout.flush()
    sys.stderr.flush()
    # The task is done and said to be. What a framework tears down at exit takes up to 0.7 s, for which the
    # next job waits, and nothing of it outlives the process anyway.
    os._exit(0)
