"""A training's folder: what was trained, on what, and the figures along the way, raw.

The folder holds `train.json` (a `TrainingHeader`), `figures.jsonl` (a `Figure` a line, appended and
fsynced as it comes), `checkpoints/`, and in the end the model, named by its step.
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
from bench.recipes.catalog import Measure
from bench.recipes.metrics import BINS, QUANTILES, Distribution, Figure
from bench.records.schema import BackendHere
from bench.workloads.specs import Cell, Workload

SCHEMA = 1
HEADER = "train.json"
FIGURES = "figures.jsonl"
CHECKPOINTS = "checkpoints"
EVENTS = "events"


FIELDS: Mapping[Measure, str] = MappingProxyType(
    {"test accuracy": "test_accuracy", "test loss": "test_loss", "train accuracy": "train_accuracy"}
)
"""Where a figure has what a notebook publishes."""


class TakenUp(msgspec.Struct, frozen=True, kw_only=True):
    """When a training went on, or began again, and by which commit."""

    at: str
    """UTC, ISO 8601."""
    step: int
    commit: str | None


class TrainingHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked, of what, on which machine."""

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
    """Whether it trains on the shipped sample of the data set."""
    backend: BackendHere
    environment: Environment
    taken_up: tuple[TakenUp, ...] = ()
    """Every time that it was not trained in one go."""


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """A training as read from its folder; `rejected` names every line that could not be read, and why."""

    folder: Path
    header: TrainingHeader
    figures: tuple[Figure, ...]
    rejected: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        """The step of the last figure, -1 where there is none."""
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
    """Return how the values of one parameter are spread."""
    wide = values.astype(np.float64).ravel()
    counts, _ = np.histogram(wide, BINS, (float(wide.min()), float(wide.max())))
    return Distribution(
        quantiles=tuple(float(value) for value in np.quantile(wide, QUANTILES)),
        counts=tuple(int(count) for count in counts),
        total=float(wide.sum()),
        total_of_squares=float((wide * wide).sum()),
    )


def read_training(folder: Path) -> Training:
    """Read a training; a line that is cut off or is no figure is left out and named in `rejected`."""
    missing = f"{folder} is no training: it has no {HEADER}. (bench train makes one)"
    header = store.read_header(folder / HEADER, TrainingHeader, SCHEMA, missing=missing)
    figures, rejected = store.read_records(folder / FIGURES, Figure)
    return Training(folder=folder, header=header, figures=figures, rejected=rejected)


def steps_reached(folder: Path) -> int:
    """Return the step of the last figure in a folder, -1 where there is no training that can be read."""
    try:
        return read_training(folder).steps
    except (RecordError, UsageError):
        return -1


def keep_figures(folder: Path, until: int) -> None:
    """Leave only the figures up to a step; what came after is trained again."""
    kept = [figure for figure in read_training(folder).figures if figure.step <= until]
    content = b"".join(msgspec.json.encode(figure) + b"\n" for figure in kept)
    store.write_durably(folder / FIGURES, content)
