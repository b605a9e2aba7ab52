"""The charts of several devices: how many times as fast several ranks are as one plain process."""

from collections.abc import Sequence

from bench.analysis.scaling import ScalingPoint, ScalingSeries, read_scaling
from bench.analysis.summary import Summary
from bench.records.runs import Run
from bench.report.blocks import Chart
from bench.report.chart import Axis, Lines, Point, Series
from bench.report.format import rate_text, ratio_text
from bench.report.names import chart_name
from bench.run.report.charts.rows import Looks, looks_of
from bench.run.report.scaling import Place, by_place, table_of, tags_of
from bench.run.report.scaling_words import percent_range, ranks_words, speed_up_text
from bench.text import listed

_ABOUT = (
    "A marker is the throughput of the distributed mode over that of the plain mode at one rank, and the "
    "line through it is the 95 % interval. On the ideal line, N ranks are N times as fast."
)
_BLACK, _LONG_DASHES = 6, 5
_MOST_LINEAR = 8
"""Both axes are logarithmic beyond so many ranks; else the low numbers would lie on each other."""
_ROOM = 0.08
"""How far the axis of ranks goes on beyond its first and last number, relative to its length."""


def speed_ups(run: Run, summary: Summary) -> list[Chart]:
    """Return a chart for every workload and scaling in which some speed-up is known."""
    looks = looks_of(run, summary)
    return [
        _speed_ups(place, series, looks, summary)
        for place, series in by_place(read_scaling(run, summary)).items()
        if any(one.measured for one in series)
    ]


def _speed_ups(place: Place, series: Sequence[ScalingSeries], looks: Looks, summary: Summary) -> Chart:
    counts = sorted({point.ranks for one in series for point in one.measured} | {1})
    most = counts[-1]
    log = most > _MOST_LINEAR
    ideal = Series(
        name="ideal",
        points=tuple(Point(x=count, y=count) for count in (1.0, float(max(most, 2)))),
        hue=_BLACK,
        shape=_LONG_DASHES,
        marked=False,
    )
    lines = [_line(one, shape, looks, summary) for shape, one in enumerate(series) if one.measured]
    low, high = _ends(max(most, 2), log=log)
    return Chart(
        name=chart_name("scaling", *place),
        title=f"{place[0]}, {place[3]} scaling: {finding(series, summary)}",
        about=_ABOUT,
        drawn=Lines(
            x=Axis(
                title="ranks (logarithmic)" if log else "ranks",
                log=log,
                low=low,
                high=high,
                ticks=tuple(map(float, counts)),
                labels=tuple(f"{count:,}" for count in counts),
            ),
            y=Axis(
                title=f"speed-up over one plain process{' (logarithmic)' if log else ''}",
                unit="factor",
                log=log,
                low=None if log else 0.0,
            ),
            series=(*lines, ideal),
        ),
        table=table_of(series, summary.titles),
        tags=tags_of(place),
    )


def _ends(most: int, *, log: bool) -> tuple[float, float]:
    if log:
        room = most**_ROOM
        return 1 / room, most * room
    room = _ROOM * (most - 1)
    return 1 - room, most + room


def _line(one: ScalingSeries, shape: int, looks: Looks, summary: Summary) -> Series:
    first = one.measured[0].cell
    return Series(
        name=_name(one.measured[0], summary),
        points=tuple(_point(point) for point in one.measured),
        hue=looks.hue(first),
        shape=shape,
        tags={"backend": one.backend, "mode": one.mode},
    )


def _point(point: ScalingPoint) -> Point:
    speed_up, efficiency = point.speed_up, point.efficiency
    if speed_up is None or efficiency is None:
        raise ValueError(f"{point.cell} has no speed-up")
    return Point(
        x=point.ranks,
        y=speed_up.value,
        low=speed_up.low,
        high=speed_up.high,
        text=f"{ranks_words(point.ranks)}, {rate_text(point.samples_per_s)} samples/s, speed-up "
        f"{ratio_text(speed_up.low, speed_up.high)}, efficiency {percent_range(efficiency)}",
    )


def finding(series: Sequence[ScalingSeries], summary: Summary) -> str:
    """Return in one sentence how much faster each framework is with the most ranks that were measured."""
    if any(one.disturbed for one in series):
        return "nothing is claimed, because the machine was disturbed"
    last = [one.measured[-1] for one in series if one.measured and one.measured[-1].ranks > 1]
    if not last:
        return "no row of several ranks has a figure"
    ahead = sorted((point for point in last if point.proven), key=_speed_up, reverse=True)
    others = [
        f"{_name(point, summary)} ({speed_up_text(point)} with {point.ranks})"
        for point in last
        if not point.proven
    ]
    if not ahead:
        return f"no framework is proven faster with several ranks than in one plain process: {listed(others)}"
    first, *following = ahead
    ranks = ranks_words(first.ranks)
    said = [
        f"{_name(first, summary)} is {speed_up_text(first)} as fast with {ranks} as one plain process",
        *(f"{_name(point, summary)} {speed_up_text(point)} with {point.ranks}" for point in following),
    ]
    return ", ".join(said) + (f"; not proven faster: {listed(others)}" if others else "")


def _name(one: ScalingPoint, summary: Summary) -> str:
    return f"{summary.titles.get(one.cell.backend, one.cell.backend)} {one.cell.mode}"


def _speed_up(point: ScalingPoint) -> float:
    return 0.0 if point.speed_up is None else point.speed_up.value
