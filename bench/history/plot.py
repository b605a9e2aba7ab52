"""The charts of runs over time: one chart for each workload, with a strip for each time series.

Strips of one machine, device and precision share their axis of runs. Each has its own axis of values, because
a series with a large change would flatten all others.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from statistics import median

import msgspec
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.history.entries import Entry, MetricName
from bench.history.time_series import WORDS, MachineHistory, Point, RowHistory, Words, place_of
from bench.report.charts import COLOURS, GREY, ON_LINES, RED, label, settings, svg
from bench.report.format import TIMES, width_text

_WIDTH_IN = 8.0
_STRIP_IN = 0.85
_BETWEEN_IN = 0.95
"""Room for the labels below the last strip of a panel, and the heading above its first."""
_HEADING_IN = 0.45
_MOST_LABELS = 7
_STEPS = (0.02, 0.05, 0.1, 0.2, 0.5)
"""Distances of the ticks on either side of 1 while no value is twice as large; the largest that fits is
used."""
_LEAST_SPAN = math.log1p(0.03)
"""A strip shows at least this much on either side, so that noise does not look like a change."""


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """The picture of a workload."""

    name: str
    """Name of its file without ending; safe for any name of a workload."""
    workload: str
    content: bytes


class _Panel(msgspec.Struct, frozen=True, kw_only=True):
    """The strips that share an axis of runs."""

    title: str
    entries: tuple[Entry, ...]
    rows: tuple[RowHistory, ...]


def draw(machines: Sequence[MachineHistory], metric: MetricName) -> list[Chart]:
    """Return a chart for every workload that has a value, in the order of the workloads."""
    with settings():
        return [
            Chart(name=name, workload=workload, content=svg(figure))
            for name, workload, figure in figures(machines, metric)
        ]


def figures(machines: Sequence[MachineHistory], metric: MetricName) -> Iterator[tuple[str, str, Figure]]:
    """Yield name, workload and chart; call this inside `settings`."""
    rows = [row for machine in machines for row in machine.rows]
    backends = dict.fromkeys(row.series.cell.backend for row in rows)
    colours = {backend: COLOURS[place % len(COLOURS)] for place, backend in enumerate(backends)}
    names: set[str] = set()
    for workload in dict.fromkeys(row.series.cell.workload for row in rows):
        slug = re.sub(r"[^a-z0-9]+", "-", workload.lower()).strip("-")[:40] or "workload"
        name = f"history-{metric}-{slug}"
        while name in names:  # two workloads whose names differ only in characters that a slug drops
            name += "-"
        names.add(name)
        yield name, workload, _figure(list(_panels(machines, workload)), WORDS[metric], colours)


def _panels(machines: Sequence[MachineHistory], workload: str) -> Iterator[_Panel]:
    for machine in machines:
        here = [row for row in machine.rows if row.series.cell.workload == workload]
        for place, members in groupby(here, key=lambda row: place_of(row.series)):
            rows = tuple(members)
            by_run = {point.entry.run_id: point.entry for row in rows for point in _all_points(row)}
            entries = sorted(by_run.values(), key=lambda entry: (entry.created_at, entry.run_id))
            where = f"{label(machine.machine.words, 60)} ({label(machine.machine.hostname, 20)})"
            mark = f"\n{label(machine.mark, 100)}" if machine.mark else ""
            yield _Panel(title=f"{label(place, 60)}\n{where}{mark}", entries=tuple(entries), rows=rows)


def _all_points(row: RowHistory) -> tuple[Point, ...]:
    return (*row.series.points, *row.series.excluded)


def _figure(panels: Sequence[_Panel], words: Words, colours: Mapping[str, str]) -> Figure:
    height = _STRIP_IN * sum(len(panel.rows) for panel in panels) + _BETWEEN_IN * len(panels)
    figure = Figure(figsize=(_WIDTH_IN, height))
    top = height
    for panel in panels:
        top -= _HEADING_IN
        for row in panel.rows:
            top -= _STRIP_IN
            axes = figure.add_axes((0.09, (top + 0.1) / height, 0.76, (_STRIP_IN - 0.28) / height))
            _Strip(axes, row, panel.entries).draw(words, colours[row.series.cell.backend])
            if row is panel.rows[0]:
                axes.annotate(
                    panel.title,
                    (0, 1),
                    xytext=(0, 18),
                    xycoords="axes fraction",
                    textcoords="offset points",
                    fontweight="bold",
                    va="bottom",
                )
            _name_runs(axes, panel.entries, labelled=row is panel.rows[-1])
        top -= _BETWEEN_IN - _HEADING_IN
    return figure


class _Strip:
    """A time series on its own axes: runs to the right, logarithms relative to their median upwards."""

    def __init__(self, axes: Axes, row: RowHistory, entries: Sequence[Entry]) -> None:
        self._axes, self._row = axes, row
        self._positions = {entry.run_id: place for place, entry in enumerate(entries)}
        counted = row.series.points or row.series.excluded
        self._level = median(math.log(point.value) for point in counted)

    def draw(self, words: Words, colour: str) -> None:
        self._draw_points(colour)
        self._draw_changes()
        self._scale()
        middle = f"1{TIMES} = {words.full(math.exp(self._level))}"
        self._axes.set_title(
            f"{label(self._row.name)}   {middle}", loc="left", fontweight="normal", fontsize=8.5, pad=3
        )
        if points := self._row.series.points:
            self._axes.annotate(
                words.full(points[-1].value),
                (1, self._spot(points[-1])[1]),
                xytext=(6, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                va="center",
                color=colour,
            )

    def _spot(self, point: Point) -> tuple[int, float]:
        return self._positions[point.entry.run_id], math.log(point.value) - self._level

    def _draw_points(self, colour: str) -> None:
        points, excluded = self._row.series.points, self._row.series.excluded
        for point in points:
            if point.low is not None and point.high is not None:
                x, _ = self._spot(point)
                ends = [math.log(end) - self._level for end in (point.low, point.high)]
                self._axes.plot([x, x], ends, color=colour, linewidth=1, alpha=0.5)
        if points:
            spots = zip(*map(self._spot, points), strict=True)
            self._axes.plot(*spots, color=colour, marker="o", markersize=4, linewidth=0.8)
        if excluded:
            spots = zip(*map(self._spot, excluded), strict=True)
            self._axes.plot(*spots, color=GREY, marker="x", markersize=5, linestyle="none")

    def _draw_changes(self) -> None:
        points, changes = self._row.series.points, self._row.changes
        at = [self._positions[point.entry.run_id] for point in points]
        for change in changes:
            x = (at[change.index - 1] + at[change.index]) / 2
            self._axes.axvline(x, color=RED, linewidth=1, linestyle=(0, (3, 2)))
            sign = "\N{MINUS SIGN}" if change.ratio < 1 else "+"
            self._axes.annotate(
                f"{sign}{width_text(abs(change.ratio - 1))}",
                (x, 1),
                xytext=(2, -1),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                va="top",
                color=RED,
                bbox=ON_LINES,
            )
        if changes:
            edges = [0, *(change.index for change in changes), len(points)]
            levels = [changes[0].before, *(change.after for change in changes)]
            for start, end, level in zip(edges, edges[1:], levels, strict=False):
                self._axes.plot([at[start], at[end - 1]], [level - self._level] * 2, color=RED, linewidth=1)

    def _scale(self) -> None:
        span = max([_LEAST_SPAN, *(abs(self._spot(point)[1]) for point in _all_points(self._row))])
        self._axes.set_ylim(-1.25 * span, 1.25 * span)
        ratios = _ticks(span)
        self._axes.set_yticks(
            [math.log(ratio) for ratio in ratios], [f"{ratio:.3g}{TIMES}" for ratio in ratios]
        )


def _ticks(span: float) -> tuple[float, float, float]:
    """Return three ratios for an axis that extends by `span`, a logarithm, on either side of 1."""
    if span < math.log(2):
        step = max(step for step in _STEPS if math.log1p(step) <= span)
        return 1 - step, 1, 1 + step
    power = 10 ** math.floor(span / math.log(10))
    factor = max(factor * power for factor in (1, 2, 5) if math.log(factor * power) <= span)
    return 1 / factor, 1, factor


def _name_runs(axes: Axes, entries: Sequence[Entry], *, labelled: bool) -> None:
    """Give the axis the dates and commits of the runs, as many as fit."""
    count = len(entries)
    every = max(1, math.ceil(count / _MOST_LABELS))
    # Counted from the latest, so that the latest always has a label.
    places = list(range(count - 1, -1, -every))[::-1]
    axes.set_xlim(-0.5, count - 0.5)
    axes.set_xticks(
        places, [_run_label(entries[place]) for place in places] if labelled else [""] * len(places)
    )
    axes.tick_params(axis="x", length=2 if labelled else 0)


def _run_label(entry: Entry) -> str:
    commit = label(f"{entry.commit[:7]}{'+' if entry.dirty else ''}", 8) if entry.commit else ""
    return f"{entry.created_at:%Y-%m-%d}\n{commit}"
