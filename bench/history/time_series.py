"""The time series of a history: the values of one metric of one row, run after run."""

import math
from collections.abc import Callable, Mapping
from itertools import groupby
from types import MappingProxyType

import msgspec
import numpy as np

from bench.history.change_points import ChangePoint, change_points
from bench.history.entries import Entry, Figures, History, Machine, MetricName
from bench.report.format import bytes_text, cell_name, percent, rate_text, seconds_text
from bench.workloads.specs import Cell


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A value of a time series."""

    entry: Entry
    figures: Figures
    value: float
    low: float | None = None
    """Lower end of its 95 % interval; None if the metric has no interval."""
    high: float | None = None


class TimeSeries(msgspec.Struct, frozen=True, kw_only=True):
    """The values of one metric of one row on one machine, in order of time."""

    machine: Machine
    cell: Cell
    mark: str | None
    epochs: float | None
    """The epochs after which an accuracy was taken; None for every other metric."""
    points: tuple[Point, ...]
    """The values that count."""
    excluded: tuple[Point, ...]
    """Values of runs in which the row lacks what a ranking needs. They are shown, and enter no statistic."""

    @property
    def change(self) -> float | None:
        """The latest value over the median of all values before it; None if there are none before it."""
        if len(self.points) < 2:
            return None
        *earlier, latest = (math.log(point.value) for point in self.points)
        return math.exp(latest - float(np.median(earlier)))

    def change_points(self) -> tuple[ChangePoint, ...]:
        return change_points([math.log(point.value) for point in self.points])


class Words(msgspec.Struct, frozen=True, kw_only=True):
    """The name of a metric, and how its values are written."""

    title: str
    subject: str
    """The start of a sentence such as `SUBJECT fell by 6 %`."""
    meaning: str
    text: Callable[[float], str]
    unit: str = ""
    """Follows the text of a value; in the table it stands in the heading."""

    def full(self, value: float) -> str:
        return f"{self.text(value)} {self.unit}".strip()


WORDS: Mapping[MetricName, Words] = MappingProxyType(
    {
        "speed": Words(
            title="Speed",
            subject="speed",
            meaning="training images per second in steady state, the mean over the run's blocks",
            text=rate_text,
            unit="samples/s",
        ),
        "first-step": Words(
            title="First step",
            subject="the first step",
            meaning="the first call of a training step, the median over the run's processes: tracing and "
            "compilation, then one step",
            text=lambda value: seconds_text(value) if value >= 1 else f"{1000 * value:.3g} ms",
        ),
        "accuracy": Words(
            title="Accuracy",
            subject="accuracy",
            meaning="test accuracy after the epochs named beside the workload, the mean over the run's seeds",
            text=lambda value: percent(value, 2),
        ),
        "memory": Words(
            title="Memory",
            subject="peak memory",
            meaning="the largest resident memory of the run's processes; on a GPU, the largest amount that "
            "the framework's own allocator held there",
            text=lambda value: bytes_text(round(value)),
        ),
    }
)


class RowHistory(msgspec.Struct, frozen=True, kw_only=True):
    """The time series of a row with its change points."""

    series: TimeSeries
    name: str
    """The row's name inside its workload: the backend's title and the mode."""
    changes: tuple[ChangePoint, ...]


class MachineHistory(msgspec.Struct, frozen=True, kw_only=True):
    """All rows of one machine and one mark."""

    machine: Machine
    mark: str | None
    rows: tuple[RowHistory, ...]

    @property
    def one_kind(self) -> bool:
        """Whether all rows have the same device and precision, so that the heading can name them."""
        return len({(row.series.cell.device, row.series.cell.precision) for row in self.rows}) == 1


def by_machine(history: History, metric: MetricName) -> list[MachineHistory]:
    """Return every time series of a metric with its change points, grouped by machine and mark."""
    titles = {one.name: one.title for entry in history.entries for one in entry.frameworks}
    return [
        MachineHistory(
            machine=members[0].machine,
            mark=mark,
            rows=tuple(
                RowHistory(series=one, name=cell_name(one.cell, titles), changes=one.change_points())
                for one in members
            ),
        )
        for (_, mark), found in groupby(
            time_series(history, metric), key=lambda one: (one.machine.key, one.mark)
        )
        if (members := list(found))
    ]


def place_of(series: TimeSeries, *, kind: bool = True) -> str:
    """Return the workload of a series, with the epochs and, if `kind`, the device and precision."""
    details = [f"{series.cell.device} {series.cell.precision}"] if kind else []
    if series.epochs is not None:
        details.append(f"after {series.epochs:g} epoch{'' if series.epochs == 1 else 's'}")
    return f"{series.cell.workload} ({', '.join(details)})" if details else series.cell.workload


def time_series(history: History, metric: MetricName) -> tuple[TimeSeries, ...]:
    """Return every time series of a metric that has a value: machine by machine, and workload by workload.

    Machines and workloads stand in the order in which they first appeared, rows in that of their first run's
    report. Runs on limited data have time series of their own, and so do accuracies after other epochs.
    """
    machines = {entry.machine.key: entry.machine for entry in reversed(history.entries)}
    found: dict[tuple[str, str | None, float | None, Cell], list[Point]] = {}
    for entry in history.entries:
        for figures in entry.cells:
            point = _point(entry, figures, metric)
            if point is not None:
                epochs = figures.epochs if metric == "accuracy" else None
                key = (entry.machine.key, entry.mark, epochs, figures.cell)
                found.setdefault(key, []).append(point)
    return _in_order(
        history,
        [
            TimeSeries(
                machine=machines[machine],
                cell=cell,
                mark=mark,
                epochs=epochs,
                points=tuple(point for point in points if point.figures.counts),
                excluded=tuple(point for point in points if not point.figures.counts),
            )
            for (machine, mark, epochs, cell), points in found.items()
        ],
    )


def _in_order(history: History, unordered: list[TimeSeries]) -> tuple[TimeSeries, ...]:
    machines = list(dict.fromkeys(entry.machine.key for entry in history.entries))
    workloads = list(dict.fromkeys(row.cell.workload for entry in history.entries for row in entry.cells))
    # The sort is stable, so series with equal keys stay in the order in which they appeared.
    return tuple(
        sorted(
            unordered,
            key=lambda one: (
                machines.index(one.machine.key),
                one.mark or "",
                workloads.index(one.cell.workload),
                one.cell.device,
                one.cell.precision,
                one.epochs or 0.0,
            ),
        )
    )


def _point(entry: Entry, figures: Figures, metric: MetricName) -> Point | None:
    """Return a run's value of a metric; None if it has none, or one without a logarithm."""
    low = high = None
    value: float | None
    match metric:
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
