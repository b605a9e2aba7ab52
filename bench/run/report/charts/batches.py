"""The charts of batch sizes: where the overhead of a step no longer matters."""

import math
from collections.abc import Sequence

from bench.analysis.summary import Summary
from bench.analysis.sweep import Sweep, read_sweeps
from bench.records.runs import Run
from bench.report.blocks import Chart, number_table
from bench.report.chart import Axis, Lines, Point, Series
from bench.report.format import NOTHING, cell_name, rate_text, short_time
from bench.report.names import chart_name
from bench.run.report.charts.rows import Looks, looks_of, place_tags
from bench.run.report.costs import overhead_ends

_SWEEP_ABOUT = (
    "A marker is a measurement. The curve is fitted: the time of a step is an overhead plus a time for each "
    "image. Where the curve levels off, the overhead no longer matters."
)
_MOST_SIZES = 8
"""Largest number of batch sizes named on the axis of a sweep."""
_WIDE = 20.0
"""The axis of a sweep is logarithmic if the fastest is this many times the slowest; else it begins at 0."""
_STEPS = 40
"""Points of a fitted curve."""


def sweep(run: Run, summary: Summary) -> list[Chart]:
    """Return a chart for every workload that was trained with several batch sizes."""
    looks = looks_of(run, summary)
    places: dict[tuple[str, str, str], list[Sweep]] = {}
    for one in read_sweeps(summary):
        cell = one.cell
        places.setdefault((cell.workload, cell.device, cell.precision), []).append(one)
    return [
        _sweep(place, sorted(found, key=lambda one: looks.order(one.cell)), looks, summary)
        for place, found in places.items()
    ]


def _sweep(place: tuple[str, str, str], found: Sequence[Sweep], looks: Looks, summary: Summary) -> Chart:
    points = [point for one in found for point in one.points]
    rates = [point.samples_per_s for point in points]
    sizes = sorted({point.batch_size for point in points})
    named = sizes[:: math.ceil(len(sizes) / _MOST_SIZES)]
    wide = max(rates) > _WIDE * min(rates)
    return Chart(
        name=chart_name("sweep", *place),
        title=f"{place[0]}: {_ends(found, summary)}",
        about=_SWEEP_ABOUT,
        drawn=Lines(
            x=Axis(
                title="batch size (logarithmic)",
                log=True,
                ticks=tuple(map(float, named)),
                labels=tuple(f"{size:,}" for size in named),
            ),
            y=Axis(title="samples/s", log=wide, low=None if wide else 0.0),
            series=tuple(series for one in found for series in _swept(one, looks, summary)),
        ),
        table=number_table(
            ("framework", "batch sizes", "overhead a step", "an image", "overhead ends at"),
            (
                (
                    cell_name(one.cell, summary.titles),
                    f"{one.points[0].batch_size:,} to {one.points[-1].batch_size:,}",
                    NOTHING if one.line is None else short_time(one.line.overhead_s),
                    NOTHING if one.line is None else short_time(one.line.per_image_s),
                    overhead_ends(one),
                )
                for one in found
            ),
        ),
        tags=place_tags(*place),
    )


def _swept(one: Sweep, looks: Looks, summary: Summary) -> list[Series]:
    """Return the measurements, joined if no line fits them, and the curve of the fitted line."""
    fitted = one.line if one.line is not None and one.line.good else None
    name = cell_name(one.cell, summary.titles)
    measured = Series(
        name="" if fitted else name,
        points=tuple(
            Point(
                x=point.batch_size,
                y=point.samples_per_s,
                text=f"{name}, batch size {point.batch_size:,}: {rate_text(point.samples_per_s)} samples/s",
            )
            for point in one.points
        ),
        hue=looks.hue(one.cell),
        shape=looks.shape(one.cell),
        joined=fitted is None,
        tags=looks.tags(one.cell),
    )
    if fitted is None:
        return [measured]
    first, last = one.points[0].batch_size, one.points[-1].batch_size
    sizes = [first * (last / first) ** (step / _STEPS) for step in range(_STEPS + 1)]
    curve = Series(
        name=name,
        points=tuple(
            Point(x=size, y=size / (fitted.overhead_s + fitted.per_image_s * size)) for size in sizes
        ),
        hue=looks.hue(one.cell),
        shape=looks.shape(one.cell),
        marked=False,
        tags=looks.tags(one.cell),
    )
    return [curve, measured]


def _ends(found: Sequence[Sweep], summary: Summary) -> str:
    """Say for each row at which batch size its overhead ends, as far as the sweep supports it."""
    if not any(one.line is not None and one.line.good for one in found):
        return "no fitted line says where the overhead of a step ends"
    said = [f"{cell_name(one.cell, summary.titles)} {overhead_ends(one)}" for one in found]
    return f"overhead is half of a step at batch size: {'; '.join(said)}"
