"""Follow one recipe in one framework: a worker trains, the folder keeps it, the terminal shows it."""

import shutil
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import msgspec

from backends.base import BackendInfo
from bench import checkpoints, folders
from bench.datasets import cache_dir
from bench.durations import duration
from bench.errors import RecordError, UsageError, unknown
from bench.events import EventFiles
from bench.launch import run_worker
from bench.machine import capture_environment
from bench.prepare import (
    Asked,
    Available,
    backend_here,
    choose_backends,
    choose_device,
    prepare_data,
)
from bench.progress import Display, Teller
from bench.protocol import AnyEvent, DataSource, FigureMade, Trained, TrainTask
from bench.recipes import Recipe, figure_steps
from bench.registry import find_backends, interpreter
from bench.specs import Cell, Precision, Workload
from bench.training import load_data
from bench.trainings import (
    FIGURES,
    HEADER,
    Figure,
    Training,
    TrainingHeader,
    keep_figures,
    read_training,
)

TIME_LIMIT_S = 7 * 24 * 3600.0


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be trained, and where it is kept."""

    recipe: Recipe
    steps: int
    cell: Cell
    seed: int
    source: DataSource
    folder: Path
    anew: bool = False
    """Whether to throw away what the folder holds."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a recipe can be followed: backends that are here, in a mode each, and the data on disk."""

    available: Available
    cells: tuple[Cell, ...]
    """One a backend, in the order in which they were named."""
    source: DataSource
    pythons: Mapping[str, Path]

    @classmethod
    def find(
        cls,
        workload: Workload,
        *,
        backends: tuple[str, ...],
        mode: str | None,
        device: str,
        precision: Precision,
        pythons: Mapping[str, Path],
        sample: bool,
        limit: int | None,
        data: Path | None,
        offline: bool,
        display: Display,
    ) -> Self:
        """Raise UsageError or UnavailableError where a backend, a mode or the device is not to be had."""
        asked = Asked(backends=backends, device=device, precision=precision, pythons=pythons)
        found = choose_device(device)
        available = choose_backends(find_backends(), asked, found)
        splits = prepare_data(
            [workload], cache=cache_dir(data), sample=sample, limit=limit, offline=offline, display=display
        )
        return cls(
            available=available,
            cells=tuple(
                Cell(
                    workload=workload.name,
                    backend=name,
                    mode=_mode(available.infos[name], mode, workload),
                    device=found,
                    precision=precision,
                )
                for name in available.infos
            ),
            source=splits[workload.name].source,
            pythons=pythons,
        )


def _mode(info: BackendInfo, asked: str | None, workload: Workload) -> str:
    modes = {mode.name: mode for mode in info.modes}
    name = asked or info.taught_mode
    if name not in modes:
        raise unknown(f"mode of {info.name}", name, list(modes), "bench list shows all")
    if workload.augmentation is not None and not modes[name].augments:
        able = ", ".join(mode.name for mode in info.modes if mode.augments) or "none"
        raise UsageError(
            f"{info.name} {name} does not augment images, as {workload.name} does; these do: {able}."
        )
    return name


def folder_name(recipe: str, backend: str, seed: int) -> str:
    """Return the name of a training's folder, the same for `bench train` and `bench notebooks`."""
    return f"{recipe}-{backend}-seed-{seed}"


class TrainingFailedError(RecordError):
    """A worker did not come to the end of its training."""


def train(order: Order, place: Place, display: Teller, *, time_limit_s: float | None = None) -> Training:
    """Train to the last step, from the newest checkpoint where there is one, and return what came of it.

    Raises TrainingFailedError where the worker ends before, or at its time limit; what it has done by then is
    kept, and calling this again goes on.
    """
    header = _header(order, place.available)
    training = _open(order, header, display)
    if training.finished and not _lacks_its_model(order):
        display.say(f"{order.folder} is trained already, {order.steps:,} steps. (--anew trains it again)")
        return training
    training, begin = _newest(order, training, display)
    dataset = load_data(order.source)
    shown = Shown(order, display)
    with EventFiles(training, dataset.train_images[order.recipe.workload.held_out :]) as events:

        def note(event: AnyEvent) -> None:
            match event:
                case FigureMade(figure=figure):
                    folders.append(order.folder / FIGURES, figure)
                    events.add(figure)
                    shown.figure(figure)
                case Trained(step=step):
                    shown.step(step)

        display.overall(f"{order.cell.backend} starts", 0.0, None)
        for figure in training.figures:
            shown.figure(figure)
        info = place.available.infos[order.cell.backend]
        outcome = run_worker(
            _task(order, info, begin),
            python=interpreter(info, place.pythons),
            device=order.cell.device,
            time_limit_s=time_limit_s or TIME_LIMIT_S,
            on_event=note,
        )
    if outcome.status != "ok":
        raise TrainingFailedError(f"{header.cell}: {outcome.status}: {outcome.error}")
    return read_training(order.folder)


def _is_wanted(order: Order, header: TrainingHeader) -> bool:
    """Whether a training with all its figures lacks only its model, which its last checkpoint still gives."""
    model = order.folder / checkpoints.model_name(header.workload.name, order.steps)
    return not model.is_file() and bool(checkpoints.checkpoint_files(order.folder))


def _lacks_its_model(order: Order) -> bool:
    """Whether a training that has all its figures lacks the model, which its last checkpoint still gives."""
    model = order.folder / checkpoints.model_name(order.recipe.name, order.steps)
    return not model.is_file() and bool(checkpoints.checkpoint_files(order.folder))


def _header(order: Order, available: Available) -> TrainingHeader:
    return TrainingHeader(
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        command=("bench", *sys.argv[1:]),
        recipe=order.recipe.name,
        steps=order.steps,
        cell=order.cell,
        workload=order.recipe.workload,
        seed=order.seed,
        limit=order.source.limit,
        sample=order.source.cache is None,
        backend=backend_here(available.infos[order.cell.backend], available, None),
        environment=capture_environment(),
    )


def _open(order: Order, header: TrainingHeader, display: Teller) -> Training:
    """Return the training in the folder, begun now or before; raise UsageError where it is another one."""
    if order.anew:
        shutil.rmtree(order.folder, ignore_errors=True)
    if not (order.folder / HEADER).is_file():
        if order.folder.exists() and any(order.folder.iterdir()):
            raise UsageError(f"{order.folder} holds something else than a training. Name another --folder.")
        order.folder.parent.mkdir(parents=True, exist_ok=True)
        if order.folder.exists():
            order.folder.rmdir()
        folders.create(order.folder, HEADER, header)
        return read_training(order.folder)
    found = read_training(order.folder)
    different = [
        f"{name} {_said(getattr(found.header, name))}, not {_said(getattr(header, name))}"
        for name in ("recipe", "cell", "workload", "seed", "limit", "sample")
        if getattr(found.header, name) != getattr(header, name)
    ]
    if found.header.backend.versions != header.backend.versions:
        different.append(f"{found.header.backend.versions}, not {header.backend.versions}")
    if not found.finished and not found.header.environment.same_machine(header.environment):
        different.append(f"the machine {found.header.environment.in_words()}")
    if different:
        raise UsageError(
            f"{order.folder} holds another training: {'; '.join(different)}. "
            "Name another --folder, or throw it away with --anew."
        )
    for line in found.rejected:
        display.say(f"{order.folder}: left out, as it cannot be read: {line}")
    if order.steps < found.header.steps:
        raise UsageError(
            f"{order.folder} is a training of {found.header.steps:,} steps, more than {order.steps:,}. "
            "Name another --folder, or throw it away with --anew."
        )
    if order.steps > found.header.steps:
        longer = msgspec.structs.replace(found.header, steps=order.steps)
        content = msgspec.json.format(msgspec.json.encode(longer)) + b"\n"
        folders.write_durably(order.folder / HEADER, content)
        found = msgspec.structs.replace(found, header=longer)
    return found


def _said(value: object) -> str:
    return str(value.name if hasattr(value, "name") else value)


def _newest(
    order: Order, training: Training, display: Teller
) -> tuple[Training, checkpoints.Checkpoint | None]:
    """Return where to take training up, and the training with the figures up to there."""
    made = {figure.step for figure in training.figures}
    due = [step for step in figure_steps(order.recipe, order.steps) if step not in made]
    begin, faults = checkpoints.newest_checkpoint(order.folder, due[0] if due else order.steps + 1)
    for fault in faults:
        display.say(f"{fault} An older checkpoint is taken.")
    if begin is not None:
        display.say(f"Goes on from step {begin.about.step:,}. (--anew begins again)")
    elif training.figures:
        display.say("Begins again, as there is no checkpoint to go on from.")
    keep_figures(order.folder, -1 if begin is None else begin.about.step)
    return read_training(order.folder), begin


def _task(order: Order, info: BackendInfo, begin: checkpoints.Checkpoint | None) -> TrainTask:
    return TrainTask(
        backend=info,
        data=order.source,
        cell=order.cell,
        workload=order.recipe.workload,
        seed=order.seed,
        steps=order.steps,
        figures=figure_steps(order.recipe, order.steps),
        checkpoint_every=order.recipe.checkpoint_every,
        folder=str(order.folder.absolute()),
        checkpoint=None if begin is None else str(begin.path.absolute()),
    )


class Shown:
    """What the terminal shows of a training: a line a figure, and how far it is."""

    def __init__(self, order: Order, display: Teller, clock: Callable[[], float] = time.monotonic) -> None:
        self._order, self._display, self._clock = order, display, clock
        self._begun: tuple[int, float] | None = None
        self._headed = False

    def figure(self, figure: Figure) -> None:
        if not self._headed:
            self._headed = True
            self._display.say(f"The loss is in {self._order.recipe.loss_unit}.")
            self._display.say("  step  test accuracy  train accuracy   test loss  training")
        loss = figure.test_loss * self._order.recipe.loss_scale
        self._display.say(
            f"{figure.step:>6}  {figure.test_accuracy:>13.4f}  {figure.train_accuracy:>14.4f}  "
            f"{loss:>10.5g}  {duration(figure.train_s):>8}"
        )

    def step(self, step: int) -> None:
        now = self._clock()
        if self._begun is None:
            self._begun = (step, now)
        first, began = self._begun
        steps = self._order.steps
        left = (now - began) / (step - first) * (steps - step) if step > first else None
        self._display.overall(f"{self._order.cell.backend}: step {step:,} of {steps:,}", step / steps, left)
