"""The series of a history: a figure of a row over time."""

import math
from collections.abc import Callable, Mapping
from itertools import groupby
from types import MappingProxyType

import msgspec
import numpy as np

from bench.history.change_points import ChangePoint, change_points
from bench.history.entries import Entry, Figures, History, Machine, Measure
from bench.report.format import bytes_text, cell_name, percent, rate_text, seconds_text
from bench.workloads.specs import Cell


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A value of a series."""

    entry: Entry
    figures: Figures
    value: float
    low: float | None = None
    """Where its 95 % interval begins; None where it has none."""
    high: float | None = None


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """The values of one cell on one machine, in order of time."""

    machine: Machine
    cell: Cell
    mark: str | None
    epochs: float | None
    """Of an accuracy: the epochs after which it was taken; None for every other measure."""
    points: tuple[Point, ...]
    """Those that count."""
    apart: tuple[Point, ...]
    """Those of rows that lack what a ranking needs: shown, and no more."""

    @property
    def change(self) -> float | None:
        """Return the latest value over the median of all before it; None where there is none before it."""
        if len(self.points) < 2:
            return None
        *earlier, latest = (math.log(point.value) for point in self.points)
        return math.exp(latest - float(np.median(earlier)))

    def change_points(self) -> tuple[ChangePoint, ...]:
        return change_points([math.log(point.value) for point in self.points])


class Words(msgspec.Struct, frozen=True, kw_only=True):
    """What a measure is called, and how its figures are written."""

    title: str
    figure: str
    """As in `FIGURE fell by 6 %`."""
    meaning: str
    text: Callable[[float], str]
    unit: str = ""
    """What stands behind the text; in the table it stands in the heading."""

    def full(self, value: float) -> str:
        return f"{self.text(value)} {self.unit}".strip()


WORDS: Mapping[Measure, Words] = MappingProxyType(
    {
        "speed": Words(
            title="Speed",
            figure="speed",
            meaning="training images a second in steady state, the mean of the run's blocks",
            text=rate_text,
            unit="samples/s",
        ),
        "first-step": Words(
            title="First step",
            figure="the first step",
            meaning="the first call of a training step, the median of the run's processes: tracing and "
            "compilation, then one step",
            text=lambda value: seconds_text(value) if value >= 1 else f"{1000 * value:.3g} ms",
        ),
        "accuracy": Words(
            title="Accuracy",
            figure="accuracy",
            meaning="test accuracy after the epochs named beside the workload, the mean over the run's seeds",
            text=lambda value: percent(value, 2),
        ),
        "memory": Words(
            title="Memory",
            figure="peak memory",
            meaning="largest resident memory of the run's processes; on a GPU, what the framework's own "
            "allocator held there",
            text=lambda value: bytes_text(round(value)),
        ),
    }
)


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """A series with its change points."""

    series: Series
    name: str
    """What its cell is called inside its workload."""
    changes: tuple[ChangePoint, ...]


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """The series of one machine and one mark."""

    machine: Machine
    mark: str | None
    shown: tuple[Shown, ...]

    @property
    def one_kind(self) -> bool:
        """Whether all ran on one kind of device in one precision, which then need not stand in every row."""
        return len({(one.series.cell.device, one.series.cell.precision) for one in self.shown}) == 1


def groups_of(history: History, measure: Measure) -> list[Group]:
    """Return every series of a measure with its change points, by machine and mark."""
    titles = titles_of(history)
    return [
        Group(
            machine=found[0].machine,
            mark=mark,
            shown=tuple(
                Shown(series=one, name=cell_name(one.cell, titles), changes=one.change_points())
                for one in found
            ),
        )
        for (_, mark), members in groupby(
            series(history, measure), key=lambda one: (one.machine.key, one.mark)
        )
        if (found := list(members))
    ]


def place_of(one: Series, *, kind: bool = True) -> str:
    """Return the workload of a series with all else that sets its rows apart; without `kind`, no device."""
    said = [f"{one.cell.device} {one.cell.precision}"] if kind else []
    if one.epochs is not None:
        said.append(f"after {one.epochs:g} epoch{'' if one.epochs == 1 else 's'}")
    return f"{one.cell.workload} ({', '.join(said)})" if said else one.cell.workload


def series(history: History, measure: Measure) -> tuple[Series, ...]:
    """Return every series of a measure that has a value: machine by machine, and workload by workload.

    Machines and workloads stand in the order in which they first came, cells in that of their first run's
    report. Runs on limited data make series of their own, and so do accuracies after other epochs.
    """
    found: dict[tuple[str, str | None, float | None, Cell], list[Point]] = {}
    machines: dict[str, Machine] = {}
    workloads: dict[str, int] = {}
    for entry in history.entries:
        machines.setdefault(entry.machine.key, entry.machine)
        for figures in entry.cells:
            workloads.setdefault(figures.cell.workload, len(workloads))
            point = _point(entry, figures, measure)
            if point is not None:
                epochs = figures.epochs if measure == "accuracy" else None
                key = (entry.machine.key, entry.mark, epochs, figures.cell)
                found.setdefault(key, []).append(point)
    places = {key: place for place, key in enumerate(machines)}
    made = [
        Series(
            machine=machines[machine],
            cell=cell,
            mark=mark,
            epochs=epochs,
            points=tuple(point for point in points if point.figures.counts),
            apart=tuple(point for point in points if not point.figures.counts),
        )
        for (machine, mark, epochs, cell), points in found.items()
    ]
    # The sort is stable: what stands in one place stays in the order in which it came.
    made.sort(
        key=lambda one: (
            places[one.machine.key],
            one.mark or "",
            workloads[one.cell.workload],
            one.cell.device,
            one.cell.precision,
            one.epochs or 0.0,
        )
    )
    return tuple(made)


def titles_of(history: History) -> Mapping[str, str]:
    """Return a backend's title by its name, as the latest run has it."""
    return MappingProxyType({one.name: one.title for entry in history.entries for one in entry.frameworks})


def _point(entry: Entry, figures: Figures, measure: Measure) -> Point | None:
    """Return the value that a run has of a measure, None where it has none or one without a logarithm."""
    low = high = None
    value: float | None
    match measure:
        case "speed":
            value, low, high = figures.samples_per_s, figures.samples_per_s_low, figures.samples_per_s_high
        case "first-step":
            value = figures.first_step_s
        case "accuracy":
            value = figures.test_accuracy
        case "memory":
            on_gpu = figures.cell.device == "gpu"
            value = figures.peak_device_bytes if on_gpu else figures.peak_rss_bytes
    if not value:
        return None
    return Point(entry=entry, figures=figures, value=float(value), low=low, high=high)
