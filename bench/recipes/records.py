"""The folder of a training run: what was trained, and its figures.

The folder holds `train.json` (a `TrainingHeader`), `figures.jsonl` (one `Figure` per line, synced to disk as
it is made), `checkpoints/`, `events/` for TensorBoard, and at the end the model, named by its step.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec
import numpy as np
import numpy.typing as npt

from bench import store
from bench.errors import RecordError, UsageError
from bench.machine.environment import Environment
from bench.recipes.catalog import NotebookMetric
from bench.recipes.metrics import BINS, QUANTILES, Distribution, Figure
from bench.records.schema import BackendHere
from bench.workloads.specs import Cell, Workload

SCHEMA = 1
HEADER = "train.json"
FIGURES = "figures.jsonl"
CHECKPOINTS = "checkpoints"
EVENTS = "events"


FIELDS: Mapping[NotebookMetric, str] = MappingProxyType(
    {"test accuracy": "test_accuracy", "test loss": "test_loss", "train accuracy": "train_accuracy"}
)
"""The field of a `Figure` that holds each published metric."""


class TakenUp(msgspec.Struct, frozen=True, kw_only=True):
    """One continuation or restart of a training run, and the commit of the program that did it."""

    at: str
    """UTC, ISO 8601."""
    step: int
    commit: str | None


class TrainingHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What was trained, in which framework and on which machine."""

    schema: int = SCHEMA
    created_at: str
    command: tuple[str, ...]
    recipe: str
    steps: int
    cell: Cell
    workload: Workload
    seed: int
    limit: int | None
    """How many images of each split are used; None: all."""
    sample: bool
    """Whether it trains on the sample data set."""
    backend: BackendHere
    environment: Environment
    taken_up: tuple[TakenUp, ...] = ()
    """Every continuation and restart, in order; empty if it was trained without a break."""


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """A training run, as read from its folder."""

    folder: Path
    header: TrainingHeader
    figures: tuple[Figure, ...]
    rejected: tuple[str, ...] = ()
    """Every line of `figures.jsonl` that cannot be read, and why."""

    @property
    def steps(self) -> int:
        """The step of the last figure, -1 if there is none."""
        return self.figures[-1].step if self.figures else -1

    @property
    def finished(self) -> bool:
        return self.steps >= self.header.steps

    @property
    def losses(self) -> npt.NDArray[np.float32]:
        """The loss of every step: float32 (steps,)."""
        return np.frombuffer(b"".join(figure.losses for figure in self.figures), "<f4")

    def at(self, step: int) -> Figure | None:
        return next((figure for figure in self.figures if figure.step == step), None)


def distribution(values: npt.NDArray[np.float32]) -> Distribution:
    """Return the distribution of the values of one parameter, of any shape."""
    wide = values.astype(np.float64).ravel()
    counts, _ = np.histogram(wide, BINS, (float(wide.min()), float(wide.max())))
    return Distribution(
        quantiles=tuple(float(value) for value in np.quantile(wide, QUANTILES)),
        counts=tuple(int(count) for count in counts),
        total=float(wide.sum()),
        total_of_squares=float((wide * wide).sum()),
    )


def read_training(folder: Path) -> Training:
    """Read a training run; a line that is not a figure is left out and named in `rejected`.

    Raises UsageError if there is no header, RecordError if it cannot be read.
    """
    missing = f"{folder} is not a training run: it has no {HEADER}. (bench train makes one)"
    header = store.read_header(folder / HEADER, TrainingHeader, SCHEMA, missing=missing)
    figures, rejected = store.read_records(folder / FIGURES, Figure)
    return Training(folder=folder, header=header, figures=figures, rejected=rejected)


def steps_reached(folder: Path) -> int:
    """Return the step of the last figure in a folder, -1 if there is no readable training run."""
    try:
        return read_training(folder).steps
    except (RecordError, UsageError):
        return -1


def keep_figures(folder: Path, until: int) -> None:
    """Delete the figures after a step, as that part is trained again."""
    kept = [figure for figure in read_training(folder).figures if figure.step <= until]
    content = b"".join(msgspec.json.encode(figure) + b"\n" for figure in kept)
    store.write_durably(folder / FIGURES, content)
