"""The charts of speed: how fast every row trains, and how far each framework is behind the fastest."""

from collections.abc import Sequence

from bench.analysis.comparison import Comparison, Verdict
from bench.analysis.statistics import EQUIVALENCE, MARGIN
from bench.analysis.summary import CellSummary, Summary
from bench.records.runs import Run
from bench.report.blocks import Chart, Table, lean
from bench.report.chart import Axis, Bar, Bars, Mark
from bench.report.format import (
    NOTHING,
    PLUS_MINUS,
    TIMES,
    cell_name,
    percent_text,
    rate_text,
    ratio_text,
    width_text,
)
from bench.run.report.charts.rows import Group, Looks, cell_bar, groups_of, looks_of, same_units
from bench.run.report.sentences import topic
from bench.run.report.tables import state
from bench.text import listed

_ABOUT = (
    "A longer bar is faster. The line at its end is the 95 % interval of the mean over the blocks. A pale, "
    "crossed bar is not ranked."
)
_OVERVIEW_ABOUT = (
    "The mode that stands for each framework, against that of the fastest framework. The line is the 95 % "
    "interval of the ratio. A difference is claimed at a stricter level, and only beyond a margin: "
    f"{100 * MARGIN:g} %, or what the order of turns may change."
)


def speed(run: Run, summary: Summary) -> list[Chart]:
    """Return a chart of throughput for every group of rows that has any."""
    looks, groups = looks_of(run, summary), groups_of(summary)
    alike = same_units(groups)
    return [
        _speed(group, looks, summary, alike=alike)
        for group in groups
        if any(row.samples_per_s is not None for row in group.rows)
    ]


def _speed(group: Group, looks: Looks, summary: Summary, *, alike: bool) -> Chart:
    return Chart(
        name=group.name("speed"),
        title=finding(group.verdict(summary), summary, alike=alike),
        about=_ABOUT,
        drawn=Bars(
            axis=Axis(title="samples/s, more is better"),
            bars=tuple(
                cell_bar(
                    row,
                    looks,
                    summary,
                    value=row.samples_per_s,
                    text=_rate(row),
                    low=row.samples_per_s_low,
                    high=row.samples_per_s_high,
                )
                for row in group.rows
            ),
        ),
        table=_table(group.rows, looks, summary),
        tags=group.tags,
    )


def _rate(row: CellSummary) -> str:
    rate = rate_text(row.samples_per_s)
    return rate if row.half_width is None else f"{rate} {PLUS_MINUS}{width_text(row.half_width)}"


def _table(rows: Sequence[CellSummary], looks: Looks, summary: Summary) -> Table:
    best = next((row.samples_per_s for row in rows if row.ranked), None)
    table = Table(
        heads=("framework", "samples/s", PLUS_MINUS, "of the fastest", "status"),
        rows=tuple(
            (
                cell_name(row.cell, summary.titles),
                rate_text(row.samples_per_s),
                width_text(row.half_width),
                f"{row.samples_per_s / best:.2f}{TIMES}"
                if row.ranked and row.samples_per_s and best
                else NOTHING,
                state(row),
            )
            for row in rows
        ),
        numbers=frozenset({1, 2, 3}),
        flagged=frozenset(place for place, row in enumerate(rows) if not row.ranked),
        tags=tuple(looks.tags(row.cell) for row in rows),
    )
    return lean(table, {"status": "ok"})


# ---- what is found, in one sentence


def finding(verdict: Verdict, summary: Summary, *, alike: bool = True) -> str:
    """Return in one sentence who is fastest, by how much, or that no difference is proven.

    `alike` says that all groups of the run have one device and precision, which then need no mention.
    """
    where = topic(verdict) if alike else f"{topic(verdict)} ({verdict.device} {verdict.precision})"
    titles = summary.titles
    backends = [titles.get(pick.cell.backend, pick.cell.backend) for pick in verdict.picks]
    if not verdict.matched:
        return f"{where}: not ranked, because each framework trains it with its own defaults"
    if verdict.disturbed:
        return f"{where}: nothing is claimed, because the machine was disturbed"
    if not backends:
        return f"{where}: no row is ranked"
    missing = [titles.get(name, name) for name in verdict.unranked]
    besides = f" ({listed(missing)} not ranked)" if missing else ""
    if len(backends) == 1:
        return f"{where}: only {backends[0]} is ranked, so there is nothing to compare it with{besides}"
    if verdict.winner is None:
        return f"{where}: {_not_proven(verdict, summary)}{besides}"
    beaten = [one for one in verdict.made.backends if one.faster == verdict.winner]
    closest = min(beaten, key=lambda one: one.ratio)
    times = ratio_text(closest.low, closest.high)
    winner, follower = (cell_name(cell, titles) for cell in (verdict.winner, closest.slower))
    return f"{where}: {winner} is fastest, {times} as fast as {follower}, the next{besides}"


def _not_proven(verdict: Verdict, summary: Summary) -> str:
    """Say that no framework is proven to be the fastest, and what is proven all the same."""
    made = verdict.made.backends
    if made and all(one.kind == "equivalent" for one in made):
        return f"no two frameworks differ by more than {percent_text(EQUIVALENCE)}"
    losers = {one.slower.backend for one in made if one.differs}
    ahead = [
        cell_name(pick.cell, summary.titles) for pick in verdict.picks if pick.cell.backend not in losers
    ]
    if losers and len(ahead) > 1:
        return f"no difference is proven between {listed(ahead)}, the fastest"
    return "no difference between frameworks is proven"


# ---- all workloads in one chart


def overview(run: Run, summary: Summary) -> Chart | None:
    """Return one chart of the speed of each framework on every workload; None if nothing was compared."""
    looks = looks_of(run, summary)
    alike = same_units(groups_of(summary))
    tuned = [one for one in summary.verdicts if one.level == "tuned"]
    found = {
        place: bars
        for place, one in enumerate(tuned or summary.verdicts)
        if (bars := _relative(one, looks, summary, alike=alike))
    }
    if not found:
        return None
    judged = [(tuned or summary.verdicts)[place] for place in found]
    bars = [bar for group in found.values() for bar in group]
    return Chart(
        name="overview",
        title=_overview_title(judged, summary),
        about=_OVERVIEW_ABOUT,
        drawn=Bars(
            axis=Axis(
                title="speed relative to the fastest framework, more is better", unit="factor", low=0.0
            ),
            bars=tuple(bars),
            marks=(Mark(value=1.0, text="the fastest"),),
        ),
        table=Table(
            heads=("workload", "framework", "relative speed"),
            rows=tuple((bar.group, bar.name, bar.text) for bar in bars),
            numbers=frozenset({2}),
        ),
    )


def _relative(verdict: Verdict, looks: Looks, summary: Summary, *, alike: bool) -> list[Bar]:
    """Return a bar for the picked row of each framework; nothing unless two can be compared."""
    if verdict.disturbed or len(verdict.picks) < 2:
        return []
    where = topic(verdict) if alike else f"{topic(verdict)} ({verdict.device} {verdict.precision})"
    compared = {frozenset((one.faster, one.slower)): one for one in verdict.made.backends}
    first = verdict.picks[0].cell
    bars = []
    for pick in verdict.picks:
        cell = pick.cell
        one = compared.get(frozenset((first, cell)))
        if cell != first and one is None:
            continue
        value, low, high, text = (1.0, None, None, f"1{TIMES}") if one is None else _against(one, first)
        bars.append(
            Bar(
                name=cell_name(cell, summary.titles),
                parts=(value,),
                low=low,
                high=high,
                text=text,
                group=where,
                hue=looks.hue(cell),
                shape=looks.hatch(cell),
                tags={"workload": verdict.workload, **looks.tags(cell)},
            )
        )
    return bars if len(bars) > 1 else []


def _against(one: Comparison, first: object) -> tuple[float, float, float, str]:
    """Return the speed of the other side relative to `first`, its interval, and both in words."""
    if one.faster == first:
        value, low, high = 1 / one.ratio, 1 / one.high, 1 / one.low
    else:
        value, low, high = one.ratio, one.low, one.high
    proven = "" if one.differs else ", no difference proven"
    return value, low, high, f"{ratio_text(low, high)}{proven}"


def _overview_title(judged: Sequence[Verdict], summary: Summary) -> str:
    """Return which framework is proven the fastest on how many workloads."""
    wins: dict[str, int] = {}
    for one in judged:
        if one.winner is not None:
            wins[one.winner.backend] = wins.get(one.winner.backend, 0) + 1
    # In a run with ranks, a workload is ranked at each number of ranks.
    kind = "workloads" if len({one.workload for one in judged}) == len(judged) else "rankings"
    of = "the only workload" if len(judged) == 1 else f"{len(judged)} {kind}"
    if not wins:
        return f"No framework is proven the fastest on {'any of ' if len(judged) > 1 else ''}{of}"
    said = [
        f"{summary.titles.get(backend, backend)} on {count}"
        for backend, count in sorted(wins.items(), key=lambda pair: (-pair[1], pair[0]))
    ]
    if len(judged) == 1:
        return f"{said[0].rpartition(' on ')[0]} is fastest on {of} compared"
    left = len(judged) - sum(wins.values())
    rest = f"; on {left} no framework is proven the fastest" if left else ""
    return f"Of {of}, {listed([said[0].replace(' on ', ' is fastest on ', 1), *said[1:]])}{rest}"
