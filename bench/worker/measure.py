"""What a worker does with a backend: measure it, hold it to the reference, or see whether it runs at all."""

import math
import os
from collections.abc import Iterator
from typing import cast

import msgspec
import numpy as np

from backends.base import Backend, Instrumented, OwnDefaults
from bench.datasets import cache
from bench.errors import UnavailableError
from bench.machine.energy import Meter
from bench.machine.environment import peak_rss_bytes
from bench.machine.gpu import GpuMonitor
from bench.records.schema import EpochPoint
from bench.worker.protocol import (
    AnyCommand,
    Built,
    DataLoaded,
    Described,
    DeviceMemory,
    Emit,
    Evaluated,
    FirstStep,
    Learned,
    LookedCloser,
    MeasureTask,
    Memory,
    Ready,
    Timed,
    Turn,
    WarmedUp,
)
from bench.worker.slowed import Slowed
from bench.worker.stopwatch import Stopwatch
from bench.worker.training import Batches, Trainer, check_device, evaluate, load_data, training_data
from bench.workloads.augmentation import seen_images
from bench.workloads.parameters import initial_params
from bench.workloads.schedule import evaluation_steps, whole_calls
from bench.workloads.specs import Workload

WARMUP_S = 0.5
"""Training for at least so long comes before the first window, however short a window is."""
LEAD_S = 0.01
"""Training before every window that does not count, a step at least: while a job waited, others had the
caches, and its threads slept."""
_CLOSER_STEPS = 20
"""Steps that are looked at to split one, at most; as many as take `WARMUP_S`."""


def measure(
    task: MeasureTask,
    backend_class: type[Backend],
    emit: Emit,
    *,
    commands: Iterator[AnyCommand],
    clock: Stopwatch,
) -> None:
    """Build, take the first step, warm up, take turns, then learn; each is timed apart.

    `clock` runs since the backend has been imported: what a task needs of the harness counts with the data.
    """
    spec, workload = task.spec, task.spec.workload
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
            warm_up(trainer, spec.window_s, emit, call_steps=backend.call_steps)
            take_turns(trainer, spec.window_s, commands, emit)
    peak, method = peak_rss_bytes()
    emit(Memory(peak_rss_bytes=peak, peak_rss_method=method))
    if cell.device == "gpu":
        with GpuMonitor.open() as monitor:
            emit(DeviceMemory(process_device_bytes=monitor.process_bytes(os.getpid())))
    facts = {"energy_meter": meter.method, "call_steps": backend.call_steps}
    emit(Described(facts={**backend.describe(), **facts}))
    if task.look_closer:
        emit(look_closer(backend, workload, trainer))
    if spec.epochs:
        start()
        clock = Stopwatch()
        learn(
            backend, batches, workload, dataset,
            epochs=spec.epochs, only_last=spec.only_last, test_samples=spec.test_samples, emit=emit,
        )  # fmt: skip
        emit(Learned(learn_s=clock.seconds()))


def own_defaults(backend: Backend) -> OwnDefaults:
    """Return the backend as one that knows its framework's defaults, or raise UnavailableError."""
    if not (hasattr(backend, "initialise") and hasattr(backend, "permutation")):
        raise UnavailableError(
            f"{type(backend).__name__} lacks its framework's own defaults (initialise and permutation); "
            "leave out the workloads that end in -defaults"
        )
    return cast(OwnDefaults, backend)


def warm_up(trainer: Trainer, window_s: float, emit: Emit, *, call_steps: int = 1) -> None:
    """Train ever longer windows until one lasts about `window_s`, and say that all is ready."""
    steps, step_s = call_steps, math.inf
    if call_steps > 1:  # compiled when it is first called, as the first step was
        emit(WarmedUp(window=trainer.train(call_steps)))
    before_s = trainer.train_s  # what compiles warms nothing up
    while True:
        window = trainer.train(steps)
        emit(WarmedUp(window=window))
        step_s = min(step_s, window.seconds / steps)
        if window.seconds >= window_s / 2 and trainer.train_s - before_s >= WARMUP_S:
            break
        # At most eightfold: the first steps are slow, and one guess from them would overshoot.
        steps = whole_calls(min(window_s / step_s, steps * 8), call_steps)
    emit(Ready(step_s=step_s, call_steps=call_steps))


def take_turns(trainer: Trainer, window_s: float, commands: Iterator[AnyCommand], emit: Emit) -> None:
    """Train a window at every `Turn`, after a lead that does not count."""
    for command in commands:
        if not isinstance(command, Turn):
            return
        lead_s = trainer.lead(math.ceil(command.steps * min(1.0, LEAD_S / window_s)))
        emit(Timed(window=trainer.train(command.steps), lead_s=lead_s))


def look_closer(backend: Backend, workload: Workload, trainer: Trainer) -> LookedCloser:
    """Return where a step's time goes, what it computes, and the machine's peak, as far as known.

    A step that augments its images has more parts than these, and is not taken apart.
    """
    if not hasattr(backend, "split_steps") or workload.augmentation is not None:
        return LookedCloser(split=None, counted_flops=None, peak=None)
    instrumented = cast(Instrumented, backend)
    step_s = trainer.train_s / trainer.steps
    steps = max(1, min(_CLOSER_STEPS, int(WARMUP_S / step_s)))
    clock = Stopwatch()
    instrumented.split_steps(trainer.next_batches(1))  # what it compiles and allocates is not a step's time
    found = LookedCloser(
        split=instrumented.split_steps(trainer.next_batches(steps)),
        counted_flops=instrumented.count_flops(),
        peak=instrumented.peak(),
    )
    return msgspec.structs.replace(found, closer_s=clock.seconds())


def learn(
    backend: Backend,
    batches: Batches,
    workload: Workload,
    dataset: cache.Dataset,
    *,
    epochs: float,
    only_last: bool,
    test_samples: int | None,
    emit: Emit,
) -> None:
    """Train so many epochs; evaluate on the test split along the way, or at the end alone, untimed.

    `test_samples`: on the first so many of it, where not on all.
    """
    trainer = Trainer(backend, batches)
    per_epoch = batches.steps_per_epoch
    test_images = seen_images(workload, dataset.test_images[:test_samples])
    test_labels = dataset.test_labels[:test_samples]
    last = max(1, round(epochs * per_epoch))
    for steps in [last] if only_last else evaluation_steps(last, per_epoch):
        if steps:
            trainer.train(steps - trainer.steps)
        test_loss, accuracy = evaluate(backend, test_images, test_labels)
        point = EpochPoint(
            epoch=trainer.steps / per_epoch,
            steps=trainer.steps,
            train_s=trainer.train_s,
            train_loss=float(np.mean(trainer.losses)) if trainer.steps else None,
            test_loss=test_loss,
            test_accuracy=accuracy,
        )
        emit(Evaluated(point=point, of_epochs=last / per_epoch))
