"""The charts of the time until a target accuracy was reached."""

from collections.abc import Sequence

from bench.analysis.accuracy import (
    WorkloadConvergence,
    converge,
)
from bench.analysis.convergence import CellConvergence
from bench.analysis.summary import Summary
from bench.records.runs import Run
from bench.report.blocks import Chart, Table
from bench.report.chart import Axis, Bar, Bars
from bench.report.format import NOTHING, cell_name, seconds_text
from bench.report.names import chart_name
from bench.run.report.charts.learning import target_text
from bench.run.report.charts.rows import Looks, looks_of, place_tags
from bench.workloads.specs import Cell

_TARGET_ABOUT = (
    "Seconds of training until the target was reached. A bar is the median over the seeds, a dot is one "
    "seed, and the line reaches from the lowest seed to the highest."
)


def to_target(run: Run, summary: Summary) -> list[Chart]:
    """Return a chart for every workload with a target for which a row was trained."""
    looks = looks_of(run, summary)
    return [
        _to_target(one, summary, looks)
        for one in converge(run).workloads
        if any(cell.crossings and (cell.curve or cell.successes) for cell in one.cells.values())
    ]


def _to_target(one: WorkloadConvergence, summary: Summary, looks: Looks) -> Chart:
    cells = sorted(one.cells, key=lambda cell: (_rank(one.cells[cell]), looks.order(cell)))
    target = target_text(one.target or 0.0)
    return Chart(
        name=chart_name("to-target", one.workload, one.device, one.precision),
        title=f"{one.workload}: {_first_there(one, cells, target, summary)}",
        about=_TARGET_ABOUT,
        drawn=Bars(
            axis=Axis(title=f"seconds of training to {target}, less is better", low=0.0),
            bars=tuple(_target_bar(cell, one.cells[cell], looks, summary) for cell in cells),
        ),
        table=Table(
            heads=("framework", "seconds to target", "epochs to target", "reached it"),
            rows=tuple(_target_row(cell, one.cells[cell], summary) for cell in cells),
            numbers=frozenset({1, 2, 3}),
            tags=tuple(looks.tags(cell) for cell in cells),
        ),
        tags=place_tags(one.workload, one.device, one.precision),
    )


def _rank(learned: CellConvergence) -> float:
    return float("inf") if learned.seconds_to_target is None else learned.seconds_to_target


def _target_bar(cell: Cell, learned: CellConvergence, looks: Looks, summary: Summary) -> Bar:
    seconds = _seed_seconds(learned)
    reached = f"{learned.successes} of {len(learned.crossings)} seeds"
    median = learned.seconds_to_target
    several = len(seconds) > 1 and median is not None
    return Bar(
        name=cell_name(cell, summary.titles),
        parts=(median,),
        text=f"{seconds_text(median)}, {reached}" if median is not None else f"not reached, {reached}",
        low=min(seconds) if several else None,
        high=max(seconds) if several else None,
        points=tuple(seconds),
        hue=looks.hue(cell),
        shape=looks.hatch(cell),
        tags=looks.tags(cell),
    )


def _seed_seconds(learned: CellConvergence) -> list[float]:
    return [one.seconds for one in learned.crossings.values() if one is not None]


def _target_row(cell: Cell, learned: CellConvergence, summary: Summary) -> tuple[str, ...]:
    missed = "not reached" if learned.crossings else NOTHING
    return (
        cell_name(cell, summary.titles),
        missed if learned.seconds_to_target is None else seconds_text(learned.seconds_to_target),
        missed if learned.epochs_to_target is None else f"{learned.epochs_to_target:.2f}",
        f"{learned.successes} of {len(learned.crossings)}" if learned.crossings else NOTHING,
    )


def _first_there(one: WorkloadConvergence, cells: Sequence[Cell], target: str, summary: Summary) -> str:
    """Say which framework reaches the target first, and whether the seeds of the next are all later."""
    there = [cell for cell in cells if one.cells[cell].seconds_to_target is not None]
    if not there:
        return f"no row reaches {target} in the median"
    first = there[0]
    name, median = cell_name(first, summary.titles), seconds_text(one.cells[first].seconds_to_target)
    others = [cell for cell in there if cell.backend != first.backend]
    if not others:
        return f"{name} reaches {target} after {median}" + (
            " (median)" if one.cells[first].successes > 1 else ""
        )
    said = f"{name} reaches {target} first, after {median}"
    other = others[0]
    later = f"{cell_name(other, summary.titles)} after {seconds_text(one.cells[other].seconds_to_target)}"
    mine, theirs = _seed_seconds(one.cells[first]), _seed_seconds(one.cells[other])
    if min(len(mine), len(theirs)) < 2:
        return f"{said}, {later} (one seed: no difference is proven)"
    # A seed that never got there is later than all others.
    overlap = max(mine) >= min(theirs) or one.cells[first].successes < len(one.cells[first].crossings)
    return f"{said}, {later}" + (
        "; their seeds overlap, so no difference is proven" if overlap else " (medians)"
    )
