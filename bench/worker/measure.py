"""What a worker does to measure a backend: build it, prove its program, warm up, take turns, then learn."""

import math
import os
from collections.abc import Callable, Iterator
from typing import cast

import msgspec
import numpy as np

from backends.base import Backend, Instrumented, OwnDefaults
from bench.datasets import cache
from bench.errors import UnavailableError
from bench.machine.energy import Meter
from bench.machine.environment import peak_rss_bytes
from bench.machine.gpu import GpuMonitor
from bench.records.schema import LEAD_S, EpochPoint, JobSpec
from bench.worker.digest import digest
from bench.worker.protocol import (
    AnyCommand,
    Begin,
    Built,
    DataLoaded,
    Described,
    DeviceMemory,
    Digested,
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
    WarmUp,
)
from bench.worker.prove_measured import Prover
from bench.worker.slowed import Slowed
from bench.worker.stopwatch import Stopwatch
from bench.worker.timed_loop import (
    Batches,
    Trainer,
    check_device,
    construct,
    evaluate,
    load_data,
    place_in,
    training_data,
)
from bench.workloads.augmentation import seen_images
from bench.workloads.parameters import initial_params
from bench.workloads.schedule import evaluation_steps, whole_calls
from bench.workloads.specs import Device, Workload

WARMUP_S = 0.5
"""The least seconds of training before the first window, however short a window is."""
_CLOSER_STEPS = 20
"""The most steps that `look_closer` splits; it takes as many as fit into `WARMUP_S`."""


def measure(
    task: MeasureTask,
    backend_class: type[Backend],
    emit: Emit,
    *,
    commands: Iterator[AnyCommand],
    clock: Stopwatch,
) -> None:
    """Build, take the first step, warm up, take turns, then learn; each part is timed separately.

    The program that is timed is compared with the reference before the warm-up and after the windows.

    `clock` runs since the backend was imported: what the task imports of the harness counts with the data.
    """
    spec, workload = task.spec, task.spec.workload
    dataset = load_data(task.data)
    training = training_data(workload, dataset)
    start = starter(spec, dataset)
    emit(DataLoaded(data_s=clock.seconds()))

    clock = Stopwatch()
    cell = spec.cell
    place = place_in(task.backend, cell, task.place)
    backend = construct(backend_class, workload, training, cell, place)
    start(backend)
    emit(Built(build_s=clock.seconds(), call_steps=backend.call_steps))
    check_device(backend, cell)

    permute = None if workload.matched else own_defaults(backend).permutation
    batches = Batches(workload, training, seed=spec.seed, permute=permute)
    trained = backend if task.slowdown is None else cast(Backend, Slowed(backend, task.slowdown))
    begin = next(commands, None)  # the first step must have the machine for itself
    proof = Prover(backend, workload, training, begin if isinstance(begin, Begin) else Begin())
    with Meter.open(cell.device) as meter:
        trainer = Trainer(trained, batches, meter, plain=backend, distributed=place is not None)
        emit(FirstStep(first_step_s=trainer.train(1).seconds))
        proof.before_windows(emit)
        if place is not None:
            emit(Digested(sha256=digest(backend.export_params())))
        start(backend)
        if spec.windows:
            step_s = warm_up(trainer, spec.window_s, emit, call_steps=backend.call_steps)
            take_turns(
                trainer, spec.window_s, commands, emit,
                lead_s=spec.lead_s, step_s=step_s, call_steps=backend.call_steps,
            )  # fmt: skip
    emit_memory(cell.device, emit)
    facts = {"energy_meter": meter.method, "call_steps": backend.call_steps}
    emit(Described(facts={**backend.describe(), **facts}))
    if place is not None:
        emit(Digested(sha256=digest(backend.export_params())))
    proof.after_windows(dataset.test_images, emit)
    if task.look_closer and place is None:  # it times the parts of one process's step
        emit(look_closer(backend, workload, trainer))
    if spec.epochs:
        start(backend)
        clock = Stopwatch()
        learn(
            backend, batches, workload, dataset,
            epochs=spec.epochs, only_last=spec.only_last, test_samples=spec.test_samples,
            distributed=place is not None, emit=emit,
        )  # fmt: skip
        emit(Learned(learn_s=clock.seconds()))


def starter(spec: JobSpec, dataset: cache.Dataset) -> Callable[[Backend], None]:
    """Return what sets a backend to its start: the job's initial parameters, or its framework's own."""
    workload = spec.workload
    params = initial_params(
        workload.architecture,
        workload.seen(dataset.info),
        seed=spec.seed,
        initialiser=workload.initialiser,
    )

    def start(backend: Backend) -> None:
        if workload.matched:
            backend.load_params(params)
        else:
            own_defaults(backend).initialise(spec.seed)

    return start


def own_defaults(backend: Backend) -> OwnDefaults:
    """Return a backend that offers its framework's own defaults, or raise UnavailableError."""
    if not (hasattr(backend, "initialise") and hasattr(backend, "permutation")):
        raise UnavailableError(
            f"{type(backend).__name__} lacks its framework's own defaults (initialise and permutation); "
            "leave out the workloads that end in -defaults"
        )
    return cast(OwnDefaults, backend)


def emit_memory(device: Device, emit: Emit) -> None:
    """Report the largest resident memory of this process, and on a GPU its memory there."""
    peak, method = peak_rss_bytes()
    emit(Memory(peak_rss_bytes=peak, peak_rss_method=method))
    if device == "gpu":
        with GpuMonitor.open() as monitor:
            emit(DeviceMemory(process_device_bytes=monitor.process_bytes(os.getpid())))


def warm_up(
    trainer: Trainer, window_s: float, emit: Emit, *, call_steps: int = 1, step_s: float = math.inf
) -> float:
    """Train ever longer windows until one lasts about `window_s`, then report that the job is ready.

    Returns the seconds of a step in the quickest of them, or `step_s`, which a warm-up before has found, if
    that is less.
    """
    steps = call_steps
    if call_steps > 1:  # the first call of several steps compiles, as the first step did
        emit(WarmedUp(window=trainer.train(call_steps)))
    before_s = trainer.train_s  # compiling is not warming up
    while True:
        window = trainer.train(steps)
        emit(WarmedUp(window=window))
        step_s = min(step_s, window.seconds / steps)
        if window.seconds >= window_s / 2 and trainer.train_s - before_s >= WARMUP_S:
            break
        # At most eight times as many: the first steps are slow, and a guess from them would overshoot.
        steps = whole_calls(min(window_s / step_s, steps * 8), call_steps)
    emit(Ready(step_s=step_s, call_steps=call_steps, again=True))
    return step_s


def take_turns(
    trainer: Trainer,
    window_s: float,
    commands: Iterator[AnyCommand],
    emit: Emit,
    *,
    lead_s: float = LEAD_S,
    step_s: float = 0.0,
    call_steps: int = 1,
) -> None:
    """Train a window at every `Turn`, after a lead that does not count, until there is another command.

    `WarmUp` alone does not end the turns.

    A lead takes about `lead_s`, and has one step at least. `step_s` is about the seconds of a step: a window
    of steps that are longer than `window_s` is longer, too.
    """
    for command in commands:
        if isinstance(command, WarmUp):
            step_s = warm_up(trainer, window_s, emit, call_steps=call_steps, step_s=step_s or math.inf)
            continue
        if not isinstance(command, Turn):
            return
        steps = math.ceil(command.steps * lead_s / max(window_s, command.steps * step_s))
        led_s = trainer.lead(steps)
        emit(Timed(window=trainer.train(command.steps), lead_s=led_s))


def look_closer(backend: Backend, workload: Workload, trainer: Trainer) -> LookedCloser:
    """Return the parts of a step, its operations and the machine's peak, where the backend offers them.

    A step that augments its images has further parts and is not split.
    """
    if not hasattr(backend, "split_steps") or workload.augmentation is not None:
        return LookedCloser(split=None, counted_flops=None, peak=None)
    instrumented = cast(Instrumented, backend)
    step_s = trainer.train_s / trainer.steps
    steps = max(1, min(_CLOSER_STEPS, int(WARMUP_S / step_s)))
    clock = Stopwatch()
    instrumented.split_steps(trainer.next_batches(1))  # it compiles and allocates, which is no part of a step
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
    distributed: bool = False,
    emit: Emit,
) -> None:
    """Train for `epochs` and evaluate on the test split, several times or once at the end; training is timed.

    `test_samples`: how many test images are evaluated, from the first on; None for all.
    """
    trainer = Trainer(backend, batches, distributed=distributed)
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
