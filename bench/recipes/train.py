"""Follow a recipe in a framework: a worker trains, the folder keeps the results, the terminal shows them."""

import contextlib
import fcntl
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from backends.info import BackendInfo
from bench import store
from bench.errors import RecordError, UsageError, WriteError
from bench.machine.environment import capture_environment, commit_notes
from bench.measuring.backends import interpreter
from bench.measuring.process import Outcome, run_worker
from bench.measuring.selection import Available, backend_here
from bench.paths import refusal, to_text
from bench.progress import Teller
from bench.recipes import checkpoints
from bench.recipes.catalog import Recipe, figure_steps
from bench.recipes.metrics import Figure
from bench.recipes.protocol import AnyRecipeEvent, CheckpointSaved, FigureMade, Trained, TrainTask
from bench.recipes.records import (
    FIGURES,
    HEADER,
    TakenUp,
    Training,
    TrainingHeader,
    keep_figures,
    read_training,
)
from bench.recipes.setup import Place
from bench.recipes.tensorboard import EventFiles
from bench.records.schema import fault_in_words
from bench.text import duration
from bench.worker.protocol import DataSource, Event
from bench.worker.timed_loop import load_data
from bench.workloads.specs import Cell

TIME_LIMIT_S = 7 * 24 * 3600.0
LOG = "worker.log"
"""The last lines on standard error of a worker that failed."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to train, and where to keep it."""

    recipe: Recipe
    steps: int
    cell: Cell
    seed: int
    source: DataSource
    folder: Path
    anew: bool = False
    """Whether to delete what the folder holds."""


def folder_name(recipe: str, backend: str, seed: int) -> str:
    """Return the name of a training run's folder, the same for `bench train` and `bench notebooks`."""
    return f"{recipe}-{backend}-seed-{seed}"


class TrainingFailedError(RecordError):
    """A worker ended before the last step."""


def train(order: Order, place: Place, display: Teller, *, time_limit_s: float | None = None) -> Training:
    """Train to the last step, from the newest checkpoint if there is one, and return the training run.

    Raises TrainingFailedError if the worker fails or reaches its time limit. What it has done is kept, and
    the next call continues it. Raises UsageError if the folder holds something else, or another command works
    in it, and RecordError if the folder cannot be written.
    """
    try:
        with _lock(order):
            return _train(order, place, display, time_limit_s or TIME_LIMIT_S)
    except OSError as error:
        if error.filename2:  # of standard output
            raise
        raise WriteError(f"cannot write to {order.folder}: {refusal(error, order.folder)}.") from error


def _train(order: Order, place: Place, display: Teller, time_limit_s: float) -> Training:
    training = _open(order, _header(order, place.available), display)
    begin = _newest(order, training, display)
    if _is_done(order, training) and (begin is None or model_path(order).is_file()):
        display.say(f"{order.folder} is trained already, {order.steps:,} steps. (--anew trains it again)")
        return training
    training = _taken_up(order, training, begin, display)
    for note in commit_notes(training.header.environment):
        display.say(note)
    info = place.available.infos[order.cell.backend]
    with _keeping(order, training, display) as keep:
        outcome = run_worker(
            _task(order, info, begin),
            python=interpreter(info, place.pythons),
            device=order.cell.device,
            time_limit_s=time_limit_s,
            on_event=keep,
            events=AnyRecipeEvent,
        )
    if outcome.status != "ok":
        raise _failure(order, outcome)
    return read_training(order.folder)


@contextmanager
def _keeping(order: Order, training: Training, display: Teller) -> Iterator[Callable[[Event], None]]:
    """Return what keeps and shows the events of a worker; the figures there are already are shown first."""
    shown = Shown(order, display)
    images = load_data(order.source).train_images[order.recipe.workload.held_out :]
    with EventFiles(training, images) as events:

        def keep(event: Event) -> None:
            match event:
                case FigureMade(figure=figure):
                    store.append(order.folder / FIGURES, figure)
                    events.add(figure)
                    shown.figure(figure)
                case Trained(step=step):
                    shown.step(step)
                case CheckpointSaved(step=step):
                    shown.checkpoint = step

        display.overall(f"{order.cell.backend} starts", 0.0, None)
        for figure in training.figures:
            shown.figure(figure)
        yield keep


def _failure(order: Order, outcome: Outcome) -> TrainingFailedError:
    """Return the error for a worker that failed; the end of its standard error is kept in a file."""
    message = f"{order.cell}: {fault_in_words(outcome.status, outcome.error)}"
    if outcome.stderr_tail:
        log = order.folder / LOG
        with contextlib.suppress(OSError):  # a full disk may be why it failed
            store.write_text(log, "\n".join(outcome.stderr_tail) + "\n")
            message += f" (its standard error: {log})"
    return TrainingFailedError(f"{message.rstrip('.')}. The same command continues.")


def model_path(order: Order) -> Path:
    """Return where the model is written at the end of a training run."""
    return order.folder / checkpoints.model_name(order.recipe.name, order.steps)


@contextmanager
def _lock(order: Order) -> Iterator[None]:
    """Hold the lock of a training run's folder, a file beside it; raise UsageError if another holds it."""
    order.folder.parent.mkdir(parents=True, exist_ok=True)
    path = order.folder.with_name(f".{order.folder.name}.lock")
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"another command trains in {order.folder}. Wait for it, or name another --folder."
            ) from error
        yield


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
        backend=backend_here(available.infos[order.cell.backend], available.versions[order.cell.backend]),
        environment=capture_environment(order.cell.device),
    )


def _open(order: Order, header: TrainingHeader, display: Teller) -> Training:
    """Return the training run in the folder, created if needed; raise UsageError if it is another one."""
    begun = (order.folder / HEADER).is_file()
    if not begun and order.folder.exists() and any(order.folder.iterdir()):
        raise UsageError(f"{order.folder} holds something other than a training run. Name another --folder.")
    if order.folder.exists() and (order.anew or not begun):
        shutil.rmtree(order.folder)
        begun = False
    if not begun:
        store.create(order.folder, HEADER, header)
        return read_training(order.folder)
    found = read_training(order.folder)
    if different := _differences(found, header):
        raise UsageError(
            f"{order.folder} holds another training run: {'; '.join(different)}. "
            "Name another --folder, or delete it with --anew."
        )
    for line in found.rejected:
        display.say(f"{order.folder}: left out, as it cannot be read: {line}")
    return found


def _differences(found: Training, header: TrainingHeader) -> list[str]:
    """Return how a training run differs from what is asked for; a finished one may be of any machine."""
    different = [
        f"{name} {_name_of(getattr(found.header, name))}, not {_name_of(getattr(header, name))}"
        for name in ("recipe", "cell", "seed", "limit", "sample")
        if getattr(found.header, name) != getattr(header, name)
    ]
    if found.header.workload != header.workload:
        different.append(f"another definition of {found.header.workload.name}")
    if found.header.backend.versions != header.backend.versions:
        different.append(f"{found.header.backend.versions}, not {header.backend.versions}")
    if not found.finished and not found.header.environment.same_machine(header.environment):
        different.append(f"the machine {found.header.environment.in_words()}")
    if not found.finished:
        different += found.header.environment.changed_variables(header.environment)
    if header.steps < found.header.steps:
        different.append(f"{found.header.steps:,} steps, more than {header.steps:,}")
    return different


def _name_of(value: object) -> str:
    return str(value.name if hasattr(value, "name") else value)


def _missing(order: Order, training: Training) -> list[int]:
    """Return the steps whose figures are due and missing."""
    made = {figure.step for figure in training.figures}
    return [step for step in figure_steps(order.recipe, order.steps) if step not in made]


def _is_done(order: Order, training: Training) -> bool:
    return not training.rejected and not _missing(order, training)


def _newest(order: Order, training: Training, display: Teller) -> checkpoints.Checkpoint | None:
    """Return the newest readable checkpoint that is not beyond a missing figure."""
    missing = _missing(order, training)
    before = missing[0] if missing else order.steps + 1
    found, faults = checkpoints.newest_checkpoint(order.folder, before)
    for fault in faults:
        display.say(f"{fault} An older checkpoint is taken.")
    return found


def _taken_up(
    order: Order, training: Training, begin: checkpoints.Checkpoint | None, display: Teller
) -> Training:
    """Cut a training run back to a checkpoint, or to nothing; note the continuation, and return the run.

    Newer checkpoints are deleted: they would count as the newest two, and the coming ones would not be kept.
    """
    step = -1 if begin is None else begin.about.step
    for path in checkpoints.checkpoint_files(order.folder):
        if checkpoints.step_of(path) > step:
            path.unlink()
    keep_figures(order.folder, step)
    header = msgspec.structs.replace(training.header, steps=order.steps)
    if begin is not None:
        display.say(f"Continues from step {step:,}. (--anew starts again)")
    elif training.figures:
        display.say("Starts again, as there is no checkpoint to continue from.")
    if begin is not None or training.figures:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        taken_up = TakenUp(at=now, step=max(step, 0), commit=capture_environment().commit)
        header = msgspec.structs.replace(header, taken_up=(*header.taken_up, taken_up))
    content = msgspec.json.format(msgspec.json.encode(header)) + b"\n"
    store.write_durably(order.folder / HEADER, content)
    return read_training(order.folder)


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
        folder=to_text(order.folder.absolute()),
        checkpoint=None if begin is None else to_text(begin.path.absolute()),
    )


class Shown:
    """Shows a training run on the terminal: a line for each figure, and the progress."""

    def __init__(self, order: Order, display: Teller, clock: Callable[[], float] = time.monotonic) -> None:
        self._order, self._display, self._clock = order, display, clock
        self._begun: tuple[int, float] | None = None
        self.checkpoint: int | None = None
        """The step of the newest checkpoint."""
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
        kept = f", checkpoint at {self.checkpoint:,}" if self.checkpoint else ""
        text = f"{self._order.cell.backend}: step {step:,} of {steps:,}{kept}"
        self._display.overall(text, step / steps, left)
