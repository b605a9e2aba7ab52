"""The charts of runs over time: one for each workload, in which each series is a strip of its own.

Series of one machine, device and precision share their axis of runs; each has its own axis of values, since
one that jumped would flatten all others.
"""

import math
import re
from collections.abc import Iterator, Sequence
from itertools import groupby

import msgspec
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.history.entries import Entry, Measure
from bench.history.series import WORDS, Group, Point, Shown, place_of
from bench.report.charts import COLOURS, GREY, ON_LINES, RED, label, settings, svg
from bench.report.format import TIMES, width_text

_WIDTH_IN = 8.0
_STRIP_IN = 0.85
_BETWEEN_IN = 0.95
"""Room for the labels below the last strip of a machine, and the heading above its first."""
_FEWEST_LABELS, _MOST_LABELS = 2, 7
_STEPS = (0.02, 0.05, 0.1, 0.2, 0.5)
"""Of the ticks to either side of 1, where no value is twice as large: the largest they reach to is taken."""
_LEAST_SPAN = math.log1p(0.03)
"""A strip shows at least this much to either side, so that noise does not look like a change."""


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """The picture of a workload."""

    name: str
    """Of its file, without ending: safe whatever the workload is called."""
    workload: str
    content: bytes


def draw(groups: Sequence[Group], measure: Measure) -> list[Chart]:
    """Return a chart for every workload that has a value, in the order in which workloads come."""
    with settings():
        return [
            Chart(name=name, workload=workload, content=svg(figure))
            for name, workload, figure in figures(groups, measure)
        ]


def figures(groups: Sequence[Group], measure: Measure) -> Iterator[tuple[str, str, Figure]]:
    """Yield name, workload and chart; to be called inside `settings`."""
    workloads = dict.fromkeys(one.series.cell.workload for group in groups for one in group.shown)
    colours = _colours(groups)
    names: set[str] = set()
    for workload in workloads:
        blocks = list(_blocks(groups, workload))
        slug = re.sub(r"[^a-z0-9]+", "-", workload.lower()).strip("-")[:40] or "workload"
        name = f"history-{measure}-{slug}"
        while name in names:  # two names that differ in what no file's name should hold
            name += "-"
        names.add(name)
        yield name, workload, _figure(blocks, measure, colours)


class _Block(msgspec.Struct, frozen=True, kw_only=True):
    """The strips that share an axis of runs."""

    title: str
    entries: tuple[Entry, ...]
    shown: tuple[Shown, ...]


def _blocks(groups: Sequence[Group], workload: str) -> Iterator[_Block]:
    for group in groups:
        here = [one for one in group.shown if one.series.cell.workload == workload]
        for place, members in groupby(here, key=lambda one: place_of(one.series)):
            shown = tuple(members)
            by_run = {point.entry.run_id: point.entry for one in shown for point in _all_points(one)}
            entries = sorted(by_run.values(), key=lambda entry: (entry.created_at, entry.run_id))
            machine = f"{label(group.machine.words, 60)} ({label(group.machine.hostname, 20)})"
            mark = f"\n{label(group.mark, 100)}" if group.mark else ""
            yield _Block(title=f"{label(place, 60)}\n{machine}{mark}", entries=tuple(entries), shown=shown)


def _all_points(one: Shown) -> tuple[Point, ...]:
    return (*one.series.points, *one.series.apart)


def _colours(groups: Sequence[Group]) -> dict[str, str]:
    backends = dict.fromkeys(one.series.cell.backend for group in groups for one in group.shown)
    return {backend: COLOURS[place % len(COLOURS)] for place, backend in enumerate(backends)}


def _figure(blocks: Sequence[_Block], measure: Measure, colours: dict[str, str]) -> Figure:
    strips = sum(len(block.shown) for block in blocks)
    height = _STRIP_IN * strips + _BETWEEN_IN * len(blocks)
    figure = Figure(figsize=(_WIDTH_IN, height))
    top = height
    for block in blocks:
        top -= 0.45  # the heading
        positions = {entry.run_id: place for place, entry in enumerate(block.entries)}
        for place, one in enumerate(block.shown):
            top -= _STRIP_IN
            strip = figure.add_axes((0.09, (top + 0.1) / height, 0.76, (_STRIP_IN - 0.28) / height))
            _draw(strip, one, positions, measure, colours[one.series.cell.backend])
            if place == 0:
                strip.annotate(
                    block.title,
                    (0, 1),
                    xytext=(0, 18),
                    xycoords="axes fraction",
                    textcoords="offset points",
                    fontweight="bold",
                    va="bottom",
                )
            _name_runs(strip, block.entries, labelled=one is block.shown[-1])
        top -= _BETWEEN_IN - 0.45
    return figure


def _draw(strip: Axes, one: Shown, positions: dict[str, int], measure: Measure, colour: str) -> None:
    points, apart = one.series.points, one.series.apart
    level = _median([math.log(point.value) for point in points or apart])

    def spot(point: Point) -> tuple[int, float]:
        return positions[point.entry.run_id], math.log(point.value) - level

    for point in points:
        if point.low is not None and point.high is not None:
            x, _ = spot(point)
            ends = [math.log(end) - level for end in (point.low, point.high)]
            strip.plot([x, x], ends, color=colour, linewidth=1, alpha=0.5)
    if points:
        strip.plot(
            *zip(*map(spot, points), strict=True), color=colour, marker="o", markersize=4, linewidth=0.8
        )
    if apart:
        strip.plot(
            *zip(*map(spot, apart), strict=True), color=GREY, marker="x", markersize=5, linestyle="none"
        )
    _draw_changes(strip, one, positions, level)
    span = max([_LEAST_SPAN, *(abs(spot(point)[1]) for point in _all_points(one))])
    strip.set_ylim(-1.25 * span, 1.25 * span)
    ratios = _ticks(span)
    strip.set_yticks([math.log(ratio) for ratio in ratios], [f"{ratio:.3g}{TIMES}" for ratio in ratios])
    words = WORDS[measure]
    median = f"1{TIMES} = {words.full(math.exp(level))}"
    strip.set_title(f"{label(one.name)}   {median}", loc="left", fontweight="normal", fontsize=8.5, pad=3)
    if points:
        strip.annotate(
            words.full(points[-1].value),
            (1, spot(points[-1])[1]),
            xytext=(6, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            color=colour,
        )


def _ticks(span: float) -> tuple[float, float, float]:
    """Return three ratios for an axis that reaches so far, in logarithms, to either side of 1."""
    if span < math.log(2):
        step = max((step for step in _STEPS if math.log1p(step) <= span), default=_STEPS[0])
        return 1 - step, 1, 1 + step
    power = 10 ** math.floor(span / math.log(10))
    factor = max(factor * power for factor in (1, 2, 5) if math.log(factor * power) <= span)
    return 1 / factor, 1, factor


def _draw_changes(strip: Axes, one: Shown, positions: dict[str, int], level: float) -> None:
    points = one.series.points
    at = [positions[point.entry.run_id] for point in points]
    for change in one.changes:
        x = (at[change.index - 1] + at[change.index]) / 2
        strip.axvline(x, color=RED, linewidth=1, linestyle=(0, (3, 2)))
        sign = "\N{MINUS SIGN}" if change.ratio < 1 else "+"
        strip.annotate(
            f"{sign}{width_text(abs(change.ratio - 1))}",
            (x, 1),
            xytext=(2, -1),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            va="top",
            color=RED,
            bbox=ON_LINES,
        )
    if one.changes:
        edges = [0, *(change.index for change in one.changes), len(points)]
        medians = [one.changes[0].before, *(change.after for change in one.changes)]
        for start, end, median in zip(edges, edges[1:], medians, strict=False):
            strip.plot([at[start], at[end - 1]], [median - level] * 2, color=RED, linewidth=1)


def _name_runs(strip: Axes, entries: Sequence[Entry], *, labelled: bool) -> None:
    """Give the axis the runs' dates and commits, as many as fit."""
    count = len(entries)
    every = max(1, math.ceil(count / _MOST_LABELS))
    # Counted from the latest, which is the one that is asked for.
    places = list(range(count - 1, -1, -every))[::-1]
    strip.set_xlim(-0.5, count - 0.5)
    strip.set_xticks(
        places, [_run_label(entries[place]) for place in places] if labelled else [""] * len(places)
    )
    strip.tick_params(axis="x", length=2 if labelled else 0)


def _run_label(entry: Entry) -> str:
    commit = label(f"{entry.commit[:7]}{'+' if entry.dirty else ''}", 8) if entry.commit else ""
    return f"{entry.created_at:%Y-%m-%d}\n{commit}"


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
