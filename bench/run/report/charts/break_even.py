"""The charts of when a mode that starts later has paid off, such as one that compiles."""

import math
from collections.abc import Sequence

from bench.analysis.costs import BreakEven, CellCosts, read_costs
from bench.analysis.summary import Summary
from bench.analysis.sweep import leave_out_sweep
from bench.records.runs import Run
from bench.report.blocks import Chart, Table, number_table
from bench.report.chart import Axis, Lines, Point, Series
from bench.report.format import DASH, NOTHING, cell_name, mode_name, rate_text, short_time
from bench.report.names import chart_name
from bench.run.report.charts.rows import Looks, looks_of, place_tags
from bench.text import listed
from bench.workloads.specs import Cell

_PAYS_ABOUT = (
    "The time for building, the first step and so many epochs, from medians. A diamond is where a mode "
    "overtakes another of its framework. The title compares with the mode that starts soonest; the range in "
    "brackets is that over the blocks."
)
_LEAST_EPOCHS, _MOST_EPOCHS = 0.01, 1000.0
"""The epochs that the axis can show."""
_STEPS = 24
"""Points of a curve on the logarithmic axis."""


def pays_off(run: Run, summary: Summary) -> list[Chart]:
    """Return a chart for every workload on which modes of one framework start at different times."""
    costs = read_costs(run, summary)
    kept = leave_out_sweep(summary)
    by_cell = {one.cell: one for one in costs.cells}
    looks = looks_of(run, summary)
    places: dict[tuple[str, str, str], list[BreakEven]] = {}
    for one in costs.break_evens:
        if one.later in kept:
            cell = one.later
            places.setdefault((cell.workload, cell.device, cell.precision), []).append(one)
    return [_pays_off(place, pairs, by_cell, looks, summary) for place, pairs in places.items()]


def _pays_off(
    place: tuple[str, str, str],
    pairs: Sequence[BreakEven],
    costs: dict[Cell, CellCosts],
    looks: Looks,
    summary: Summary,
) -> Chart:
    cells = sorted({cell for pair in pairs for cell in (pair.later, pair.sooner)}, key=looks.order)
    crossings = [pair for pair in pairs if pair.epochs]
    at = [pair.epochs or 1.0 for pair in crossings]
    low = max(_LEAST_EPOCHS, min([0.1, *(epochs / 3 for epochs in at)]))
    high = min(_MOST_EPOCHS, max([10.0, *(epochs * 3 for epochs in at)]))
    epochs = [low * (high / low) ** (step / _STEPS) for step in range(_STEPS + 1)]
    lines = [
        Series(
            name=cell_name(cell, summary.titles),
            points=tuple(Point(x=count, y=_seconds(costs[cell], count)) for count in epochs),
            hue=looks.hue(cell),
            shape=looks.shape(cell),
            marked=False,
            tags=looks.tags(cell),
        )
        for cell in cells
    ]
    overtaken = [
        _overtaking(pair, pair.epochs, costs, looks, summary)
        for pair in crossings
        if pair.epochs and low <= pair.epochs <= high
    ]
    return Chart(
        name=chart_name("pays-off", *place),
        title=f"{place[0]}: {_pays_finding(pairs, costs, summary)}",
        about=_PAYS_ABOUT,
        drawn=Lines(
            x=Axis(title="epochs of training (logarithmic)", log=True, low=low, high=high),
            y=Axis(title="time until then (logarithmic)", unit="seconds", log=True),
            series=(*lines, *overtaken),
        ),
        table=_table(pairs, summary),
        tags=place_tags(*place) | {"level": "tuned"},
    )


def _overtaking(
    pair: BreakEven, epochs: float, costs: dict[Cell, CellCosts], looks: Looks, summary: Summary
) -> Series:
    """Return the point at which the mode that starts later is ahead."""
    return Series(
        name="",
        points=(Point(x=epochs, y=_seconds(costs[pair.later], epochs), text=_pays(pair, summary)),),
        hue=looks.hue(pair.later),
        shape=3,
        joined=False,
        tags=looks.tags(pair.later),
    )


def _table(pairs: Sequence[BreakEven], summary: Summary) -> Table:
    return number_table(
        ("mode", "against", "starts later by", "saves in an epoch", "pays off after"),
        (
            (
                cell_name(pair.later, summary.titles),
                mode_name(pair.sooner),
                short_time(pair.extra_s),
                short_time(pair.saved_s) if pair.saved_s > 0 else NOTHING,
                _after(pair),
            )
            for pair in pairs
        ),
    )


def _seconds(one: CellCosts, epochs: float) -> float:
    """Return the time that a row takes for its start, without what all modes share, and so many epochs."""
    start_up = one.start_up
    return (start_up.build_s or 0.0) + (start_up.first_step_s or 0.0) + epochs * (one.epoch_s or 0.0)


def _after(pair: BreakEven) -> str:
    """Return when a mode has paid off, with the range over the blocks."""
    if pair.epochs is None:
        return "never"
    if pair.epochs == 0:
        return "at once"
    said = f"{rate_text(pair.epochs)} epochs"
    if pair.bounds is None:
        return said
    low, high = rate_text(pair.bounds[0]), pair.bounds[1]
    if high is None:
        return f"{said} (from {low} to never)"
    return said if low == rate_text(high) else f"{said} ({low}{DASH}{rate_text(high)})"


def _pays(pair: BreakEven, summary: Summary) -> str:
    later = cell_name(pair.later, summary.titles)
    return f"{later} overtakes {mode_name(pair.sooner)} after {_after(pair)}"


def _pays_finding(pairs: Sequence[BreakEven], costs: dict[Cell, CellCosts], summary: Summary) -> str:
    """Say for each framework when its fastest mode has overtaken the one that starts soonest."""
    ahead: list[str] = []
    never: list[str] = []
    for backend in dict.fromkeys(pair.later.backend for pair in pairs):
        mine = [pair for pair in pairs if pair.later.backend == backend]
        laters = {pair.later for pair in mine}
        soonest = next(pair.sooner for pair in mine if pair.sooner not in laters)
        against = [pair for pair in mine if pair.sooner == soonest]
        best = min(against, key=lambda pair: costs[pair.later].epoch_s or math.inf)
        name = cell_name(best.later, summary.titles)
        if best.epochs is None:
            never.append(name)
        else:
            pays = "" if ahead else " pays off"
            ahead.append(f"{name}{pays} {'at once' if best.epochs == 0 else f'after {_after(best)}'}")
    if not ahead:
        return f"{listed(never)} never {'pays' if len(never) == 1 else 'pay'} off"
    rest = f"; {listed(never)} never {'does' if len(never) == 1 else 'do'}" if never else ""
    return f"{listed(ahead)}{rest}"
