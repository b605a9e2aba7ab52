"""The charts of accuracy: everything matched, against each framework's own defaults."""

from bench.analysis.accuracy import (
    DefaultsAgainstMatched,
    converge,
)
from bench.analysis.summary import Summary
from bench.records.runs import Run
from bench.report.blocks import Chart, Table
from bench.report.chart import Axis, Bar, Bars
from bench.report.format import DASH, cell_name, percent
from bench.report.names import chart_name
from bench.run.report.charts.rows import Looks, looks_of, place_tags

_DEFAULTS_ABOUT = (
    "Matched: same weights, batches and constants for all. Own defaults: those of each framework. A dot is "
    "the mean over the seeds, and its line reaches from the lowest seed to the highest."
)


def defaults(run: Run, summary: Summary) -> list[Chart]:
    """Return a chart for every workload that was trained matched and with the frameworks' own defaults."""
    looks = looks_of(run, summary)
    return [_defaults(pair, summary, looks) for pair in converge(run).defaults]


def _defaults(pair: DefaultsAgainstMatched, summary: Summary, looks: Looks) -> Chart:
    sides = [
        (row.matched, side, point)
        for row in pair.rows
        for side, point in (("matched", row.matched_point), ("own defaults", row.defaults_point))
    ]
    ends = [100 * end for *_, point in sides for end in (point.accuracy_low, point.accuracy_high)]
    room = max(0.1 * (max(ends) - min(ends)), 0.05)
    count = f"{pair.epoch:g} epoch{'' if pair.epoch == 1 else 's'}"
    return Chart(
        name=chart_name("defaults", pair.matched, pair.device, pair.precision),
        title=(
            f"{pair.matched}: frameworks differ by at most {100 * pair.matched_spread:.2f} points when "
            f"matched, by {100 * pair.defaults_spread:.2f} with their own defaults (means after {count})"
        ),
        about=_DEFAULTS_ABOUT,
        drawn=Bars(
            axis=Axis(
                title=f"test accuracy after {count}",
                unit="percent",
                low=max(min(ends) - room, 1e-3),
                high=min(max(ends) + room, 100.0),
            ),
            bars=tuple(
                Bar(
                    name=side,
                    group=cell_name(cell, summary.titles),
                    parts=(100 * point.test_accuracy,),
                    low=100 * point.accuracy_low,
                    high=100 * point.accuracy_high,
                    text=percent(point.test_accuracy, 2),
                    hue=looks.hue(cell),
                    shape=0 if side == "matched" else 1,
                    tags=looks.tags(cell),
                )
                for cell, side, point in sides
            ),
        ),
        table=Table(
            heads=("framework", "side", "test accuracy", "lowest to highest seed"),
            rows=tuple(
                (
                    cell_name(cell, summary.titles),
                    side,
                    percent(point.test_accuracy, 2),
                    f"{100 * point.accuracy_low:.2f}{DASH}{100 * point.accuracy_high:.2f} %",
                )
                for cell, side, point in sides
            ),
            numbers=frozenset({2, 3}),
            tags=tuple(looks.tags(cell) for cell, *_ in sides),
        ),
        tags=place_tags(pair.matched, pair.device, pair.precision),
    )
