"""The charts of the time to a first result, part by part."""

from collections.abc import Sequence
from statistics import median

from bench.analysis.costs import CellCosts, read_costs
from bench.analysis.summary import Summary
from bench.analysis.sweep import leave_out_sweep
from bench.records.runs import Run
from bench.report.blocks import Chart, Table
from bench.report.chart import Axis, Bar, Bars
from bench.report.format import DASH, cell_name, seconds_text
from bench.run.report.charts.rows import Group, Looks, groups_of, looks_of
from bench.run.report.costs import ABOUT

_PARTS = ("start Python", "import", "open the data", "build", "first step", "first epoch")
_LONGEST_BAR = 4.0
"""A bar is cut at this many times the length of the middle one."""
_FIRST_ABOUT = (
    "From the start of a process to the end of its first epoch: medians over the processes, and a line from "
    f"the fastest to the slowest. {ABOUT} marks an epoch whose time follows from the steady pace."
)


def first_result(run: Run, summary: Summary) -> list[Chart]:
    """Return a chart for every group of rows of which a part of the start was measured."""
    costs = {one.cell: one for one in read_costs(run, summary).cells}
    looks = looks_of(run, summary)
    charts = []
    for group in groups_of(summary, leave_out_sweep(summary)):
        found = [costs[row.cell] for row in group.rows if any(_known(costs[row.cell]))]
        if found:
            charts.append(_first_result(group, sorted(found, key=_whole), looks, summary))
    return charts


def _known(one: CellCosts) -> list[float]:
    return [part for part in one.start_up.parts if part is not None]


def _whole(one: CellCosts) -> float:
    """Return what sorts rows by their time to a first result: those with unknown parts come last."""
    whole = one.start_up.first_result_s
    return float("inf") if whole is None else whole


def _first_result(group: Group, found: Sequence[CellCosts], looks: Looks, summary: Summary) -> Chart:
    sums = [sum(_known(one)) for one in found]
    longest, usual = max(sums), _LONGEST_BAR * median(sums)
    return Chart(
        name=group.name("first-result"),
        title=f"{group.title}: {_first_finding(found, summary)}",
        about=_FIRST_ABOUT,
        drawn=Bars(
            axis=Axis(
                title="time since the start, less is better",
                unit="seconds",
                high=usual if longest > usual > 0 else None,
            ),
            parts=_PARTS,
            bars=tuple(
                Bar(
                    name=cell_name(one.cell, summary.titles),
                    parts=one.start_up.parts,
                    text=_first_text(one),
                    low=one.start_up.bounds[0] if one.start_up.bounds else None,
                    high=one.start_up.bounds[1] if one.start_up.bounds else None,
                    hue=looks.hue(one.cell),
                    shape=looks.hatch(one.cell),
                    tags=looks.tags(one.cell),
                )
                for one in found
            ),
        ),
        table=Table(
            heads=("framework", *_PARTS, "first result"),
            rows=tuple(
                (
                    cell_name(one.cell, summary.titles),
                    *(seconds_text(part) for part in one.start_up.parts),
                    _first_text(one),
                )
                for one in found
            ),
            numbers=frozenset(range(1, len(_PARTS) + 2)),
            tags=tuple(looks.tags(one.cell) for one in found),
        ),
        tags=group.tags,
    )


def _first_text(one: CellCosts) -> str:
    whole = one.start_up.first_result_s
    if whole is None:
        return "not all parts known"
    return seconds_text(whole) if one.start_up.epoch_measured else f"{ABOUT} {seconds_text(whole)}"


def _first_finding(found: Sequence[CellCosts], summary: Summary) -> str:
    whole = [one for one in found if one.start_up.first_result_s is not None]
    if not whole:
        return "no row has all parts of the time to a first result"
    first, last = whole[0], whole[-1]
    said = f"the first result comes after {_with_bounds(first)} with {cell_name(first.cell, summary.titles)}"
    if len(whole) == 1:
        return said
    return f"{said}, and after {_with_bounds(last)} with {cell_name(last.cell, summary.titles)}"


def _with_bounds(one: CellCosts) -> str:
    """Return the median, and the lowest and the highest of the processes."""
    bounds = one.start_up.bounds
    if bounds is None or seconds_text(bounds[0]) == seconds_text(bounds[1]):
        return _first_text(one)
    low, high = map(seconds_text, bounds)
    return f"{_first_text(one)} ({low.removesuffix(' s')}{DASH}{high})"
