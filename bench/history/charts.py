"""The charts of runs over time: one for each workload on each machine, with a line for each row.

Every line is drawn relative to its own median, so that rows of any speed share an axis.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from statistics import median

from bench.history.change_points import SEGMENT
from bench.history.entries import Entry, MetricName
from bench.history.time_series import WORDS, MachineHistory, Point, RowHistory, Words, place_of
from bench.report import chart as charting
from bench.report.blocks import Chart, Table
from bench.report.chart import Axis, Lines, Mark, Series
from bench.report.format import NOTHING, TIMES, width_text
from bench.report.names import chart_name
from bench.workloads.specs import Cell

_MOST_LABELS = 6
_LEAST_SPAN = 1.03
"""The axis shows at least this factor on either side, so that noise does not look like a change."""
_ABOUT = (
    f"The runs stand side by side in order of time; 1{TIMES} is the median of each row over all of them. A "
    "dashed line up is a change of level. A diamond in black is a run that does not count."
)
_DIAMOND = 3
"""The shape of a run that does not count."""


def charts(machines: Sequence[MachineHistory], metric: MetricName) -> list[Chart]:
    """Return a chart for every machine and workload that has a value, in their order."""
    looks = _looks([row.series.cell for machine in machines for row in machine.rows])
    return [
        _chart(machine, list(members), metric, looks)
        for machine in machines
        for _, members in groupby(machine.rows, key=lambda row: place_of(row.series))
    ]


def _looks(cells: Sequence[Cell]) -> dict[tuple[str, str], tuple[int, int]]:
    """Return the hue and the shape of each backend and mode, by their order."""
    modes: dict[str, list[str]] = {}
    for cell in cells:
        known = modes.setdefault(cell.backend, [])
        if cell.mode not in known:
            known.append(cell.mode)
    return {
        (backend, mode): (hue, hue + place)
        for hue, (backend, known) in enumerate(modes.items())
        for place, mode in enumerate(known)
    }


def _chart(
    machine: MachineHistory,
    rows: Sequence[RowHistory],
    metric: MetricName,
    looks: Mapping[tuple[str, str], tuple[int, int]],
) -> Chart:
    by_run = {point.entry.run_id: point.entry for row in rows for point in _points_of(row)}
    entries = sorted(by_run.values(), key=lambda entry: (entry.created_at, entry.run_id))
    positions = {entry.run_id: number for number, entry in enumerate(entries)}
    words = WORDS[metric]
    series = [
        one
        for row in rows
        for one in _lines(row, positions, words, looks[row.series.cell.backend, row.series.cell.mode])
    ]
    span = max([_LEAST_SPAN, *(_span(one) for one in series)])
    cell = rows[0].series.cell
    ticks = _ticks(len(entries))
    return Chart(
        name=chart_name(f"history-{metric}", *_place(machine, rows[0])),
        title=f"{place_of(rows[0].series)}: {_finding(rows, words)}",
        about=_ABOUT,
        drawn=Lines(
            x=Axis(
                title=f"run, on {machine.machine.words}",
                low=-0.5,
                high=len(entries) - 0.5,
                ticks=tuple(map(float, ticks)),
                labels=tuple(f"{entries[tick].created_at:%Y-%m-%d}" for tick in ticks),
            ),
            y=Axis(
                title=f"{words.subject} relative to the row's median (logarithmic)",
                unit="factor",
                log=True,
                low=1 / span**1.25,
                high=span**1.25,
            ),
            series=tuple(series),
            x_marks=tuple(_changes(rows, positions)),
        ),
        table=_table(rows, entries, words),
        tags={"workload": cell.workload, "device": cell.device, "precision": cell.precision},
    )  # fmt: skip


def _place(machine: MachineHistory, row: RowHistory) -> list[str]:
    """Return what tells a chart from others of its metric."""
    cell, epochs = row.series.cell, row.series.epochs
    place = [cell.workload, cell.device, cell.precision, machine.machine.key]
    return [
        *place,
        *([machine.mark] if machine.mark else []),
        *([f"{epochs:g}"] if epochs is not None else []),
    ]


def _points_of(row: RowHistory) -> tuple[Point, ...]:
    return (*row.series.points, *row.series.excluded)


def _lines(
    row: RowHistory, positions: Mapping[str, int], words: Words, look: tuple[int, int]
) -> Iterator[Series]:
    """Yield the values that count, those that do not, and the medians on either side of each change."""
    hue, shape = look
    counted, excluded = row.series.points, row.series.excluded
    level = median(point.value for point in counted or excluded)
    tags = {"backend": row.series.cell.backend, "mode": row.series.cell.mode}

    def point(one: Point) -> charting.Point:
        ends = one.low is not None and one.high is not None
        return charting.Point(
            x=positions[one.entry.run_id],
            y=one.value / level,
            low=one.low / level if ends and one.low else None,
            high=one.high / level if ends and one.high else None,
            text=f"{words.full(one.value)} in {one.entry.run_id}, {_when(one.entry)}",
        )

    if counted:
        yield Series(
            name=f"{row.name}: {words.full(counted[-1].value)}", points=tuple(map(point, counted)), hue=hue,
            shape=shape, tags=tags,
        )  # fmt: skip
    if excluded:
        yield Series(
            name=f"{row.name}, does not count", points=tuple(map(point, excluded)), hue=6, shape=_DIAMOND,
            joined=False, tags=tags,
        )  # fmt: skip
    if row.changes:
        edges = [0, *(change.index for change in row.changes), len(counted)]
        levels = [row.changes[0].before, *(change.after for change in row.changes)]
        for start, end, log in zip(edges, edges[1:], levels, strict=False):
            y = math.exp(log) / level
            ends = (positions[counted[start].entry.run_id], positions[counted[end - 1].entry.run_id])
            yield Series(
                name="",
                points=tuple(charting.Point(x=x, y=y) for x in ends),
                hue=hue,
                marked=False,
                tags=tags,
            )


def _when(entry: Entry) -> str:
    day = f"{entry.created_at:%Y-%m-%d}"
    if not entry.commit:
        return day
    return f"{day}, commit {entry.commit[:7]}{' with changes' if entry.dirty else ''}"


def _span(series: Series) -> float:
    """Return the largest factor by which a value lies above or below 1."""
    values = [value for point in series.points for value in (point.y, point.low, point.high) if value]
    return max(max(value, 1 / value) for value in values)


def _changes(rows: Sequence[RowHistory], positions: Mapping[str, int]) -> Iterator[Mark]:
    for row in rows:
        points = row.series.points
        for change in row.changes:
            before, after = (
                positions[points[place].entry.run_id] for place in (change.index - 1, change.index)
            )
            sign = "\N{MINUS SIGN}" if change.ratio < 1 else "+"
            yield Mark(
                value=(before + after) / 2, text=f"{row.name} {sign}{width_text(abs(change.ratio - 1))}"
            )


def _ticks(count: int) -> list[int]:
    """Return the runs that get a label, counted from the latest, so that the latest always has one."""
    every = max(1, math.ceil(count / _MOST_LABELS))
    return list(range(count - 1, -1, -every))[::-1]


def _finding(rows: Sequence[RowHistory], words: Words) -> str:
    """Say which changes of level there are; they are advice, since some come by chance."""
    found = [(row, change) for row in rows for change in row.changes]
    if not found:
        long_enough = sum(len(row.series.points) >= 2 * SEGMENT for row in rows)
        if not long_enough:
            return "too few runs to tell a change from noise"
        return f"no change of level in {long_enough} row{'' if long_enough == 1 else 's'}"
    row, change = max(found, key=lambda pair: abs(math.log(pair[1].ratio)))
    moved = "fell" if change.ratio < 1 else "rose"
    day = row.series.points[change.index].entry.created_at
    said = f"{words.subject} of {row.name} {moved} by {width_text(abs(change.ratio - 1))} by {day:%Y-%m-%d}"
    others = len(found) - 1
    return f"{said}, and there {'is' if others == 1 else 'are'} {others} more" if others else said


def _table(rows: Sequence[RowHistory], entries: Sequence[Entry], words: Words) -> Table:
    """Return a table with the values of all rows, run by run."""
    values = {(point.entry.run_id, row.name): point.value for row in rows for point in _points_of(row)}
    names = [row.name for row in rows]
    return Table(
        heads=("run", "begun", *(f"{name} ({words.unit})" if words.unit else name for name in names)),
        rows=tuple(
            (
                entry.run_id,
                f"{entry.created_at:%Y-%m-%d}",
                *(
                    words.text(values[entry.run_id, name]) if (entry.run_id, name) in values else NOTHING
                    for name in names
                ),
            )
            for entry in entries
        ),
        numbers=frozenset(range(2, 2 + len(names))),
    )
