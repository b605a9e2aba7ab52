"""What several ranks bring: the page's section on several devices, and the short report's table and line."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec

from bench.analysis.comparison import KIND_WORDS
from bench.analysis.scaling import ScalingPoint, ScalingSeries, Share
from bench.records.runs import Run
from bench.report.blocks import (
    Block,
    Bullets,
    Chart,
    Group,
    Heading,
    Item,
    Paragraph,
    Table,
    named_bullets,
)
from bench.report.format import (
    DASH,
    NOTHING,
    TIMES,
    cell_name,
    rate_text,
    ratio_text,
)
from bench.run.report.answer import LONGEST_NAME
from bench.text import cut, listed
from bench.workloads.ranks import Scaling
from bench.workloads.specs import Device, Precision

Place: TypeAlias = tuple[str, Device, Precision, Scaling]
"""Workload, device, precision and scaling: what one picture is about."""

_MINUS = "\N{MINUS SIGN}"
_NO_TABLE = Table(heads=(), rows=())
LEGEND = (
    "speed-up: throughput over that of the plain mode at one rank. efficiency: speed-up over ranks. Both are "
    "95 % intervals. Every process has one core or one GPU, so a plain row is slower here than in other runs."
)


# ---- the section of the page


def scaling(
    run: Run, series: Sequence[ScalingSeries], charts: Sequence[Chart], titles: Mapping[str, str]
) -> list[Block]:
    """Return the section; nothing for a run without ranks. `charts` are those of the places, in any order."""
    if not run.header.ranks:
        return []
    found: list[Block] = [
        Heading(text="Several devices"),
        Paragraph(
            text="Several processes train one network together. Each of them is a rank, and trains its part "
            "of every batch. The speed-up is the throughput of the framework's distributed mode, divided by "
            "that of its plain mode at one rank, in the same blocks. The efficiency is the speed-up divided "
            "by the number of ranks. Ranges are 95 % intervals."
        ),
        Paragraph(text=" ".join(what_it_shows(run))),
    ]
    for place, members in by_place(series).items():
        chart = next((one for one in charts if one.tags == tags_of(place)), None)
        table = table_of(members, titles)
        if chart is None:
            shown: list[Block] = [table]
        else:
            shown = [msgspec.structs.replace(chart, table=_NO_TABLE), table]
        found.append(
            Group(
                blocks=(
                    Heading(text=place_name(place), level=3),
                    Group(blocks=tuple(shown), beside=chart is not None),
                    named_bullets((_name(one, titles), " ".join(sentences(one))) for one in members),
                ),
                tags=tags_of(place),
            )
        )
    if not series:
        found.append(Paragraph(text="No row of a distributed mode was planned."))
    return found


def by_place(series: Sequence[ScalingSeries]) -> dict[Place, list[ScalingSeries]]:
    """Return the series of each workload, device, precision and scaling, in their order."""
    found: dict[Place, list[ScalingSeries]] = {}
    for one in series:
        found.setdefault((one.workload, one.device, one.precision, one.scaling), []).append(one)
    return found


def tags_of(place: Place) -> dict[str, str]:
    """Return what a reader can choose a place by."""
    return dict(zip(("workload", "device", "precision", "scaling"), place, strict=True))


def place_name(place: Place) -> str:
    """Return the name of a place: `mnist-cnn, strong scaling (cpu fp32)`."""
    workload, device, precision, kind = place
    return f"{workload}, {kind} scaling ({device} {precision})"


def what_it_shows(run: Run) -> list[str]:
    """Return in sentences what a run with ranks can show on its machines, and what it cannot."""
    hosts = dict.fromkeys(rank.host for job in run.jobs for rank in job.ranks)
    gpu = any(cell.device == "gpu" for cell in run.header.cells)
    environment = run.header.environment
    device, count = ("GPU", len(environment.gpus)) if gpu else ("CPU", environment.usable_cpus)
    said = [
        "Each process of this run has a GPU of its own, that of a plain row too."
        if gpu
        else "Each process of this run is pinned to one core, that of a plain row too. So a plain row is "
        "slower here than in a normal run, in which a framework may use every core. Compare the rows of this "
        "run only with each other."
    ]
    if len(hosts) > 1:
        said.append(f"The ranks ran on {len(hosts)} hosts, so the figures include the network between them.")
        return said
    plural = "" if count == 1 else "s"
    said.append(
        f"It may use {count} {device}{plural} of the machine, so it cannot show more than {count} "
        f"rank{plural}. What the ranks exchange stays inside the machine and crosses no network."
    )
    if not gpu:
        said.append(
            "CPUs share memory and caches, and two of them may be threads of one core. The efficiency that "
            "this costs is not lost by a framework."
        )
    return said


# ---- the table


def table_of(series: Sequence[ScalingSeries], titles: Mapping[str, str]) -> Table:
    """Return every number of ranks of some series, below the plain row of each."""
    rows: list[tuple[str, ...]] = []
    flagged: set[int] = set()
    tags: list[dict[str, str]] = []
    for one in series:
        if one.plain is not None:
            name = cell_name(one.plain, titles)
            rows.append((name, "1", rate_text(one.plain_samples_per_s), NOTHING, NOTHING))
            tags.append({"backend": one.backend})
        for point in one.points:
            if point.speed_up is None:
                flagged.add(len(rows))
            rows.append(
                (
                    _name(one, titles),
                    str(point.ranks),
                    rate_text(point.samples_per_s),
                    speed_up_text(point),
                    efficiency_text(point),
                )
            )
            tags.append({"backend": one.backend})
    return Table(
        heads=("framework", "ranks", "samples/s", "speed-up", "efficiency"),
        rows=tuple(rows),
        numbers=frozenset({1, 2, 3, 4}),
        flagged=frozenset(flagged),
        tags=tuple(tags),
    )


def _name(one: ScalingSeries, titles: Mapping[str, str]) -> str:
    return f"{titles.get(one.backend, one.backend)} {one.mode}"


def speed_up_text(point: ScalingPoint) -> str:
    """Return the interval of a speed-up; in a few words, that there is none."""
    if point.speed_up is None:
        return "not compared" if point.samples_per_s is not None else "not ranked"
    return f"{_range(f'{point.speed_up.low:.2f}', f'{point.speed_up.high:.2f}')}{TIMES}"


def efficiency_text(point: ScalingPoint) -> str:
    """Return the interval of an efficiency in whole percent."""
    if point.efficiency is None:
        return NOTHING
    low, high = (f"{100 * end:.0f}" for end in (point.efficiency.low, point.efficiency.high))
    return f"{_range(low, high)} %"


def _range(low: str, high: str) -> str:
    return low if low == high else f"{low}{DASH}{high}"


def percent_range(share: Share) -> str:
    """Return the interval of a share in percent, with enough digits to tell its ends apart."""
    for digits in (0, 1, 2):
        # Adding 0.0 turns a negative zero into 0.
        low, high = (round(100 * end, digits) + 0.0 for end in (share.low, share.high))
        if low != high:
            break
    first, last = (f"{end:.{digits}f}".replace("-", _MINUS) for end in (low, high))
    if low == high:
        return f"{first} %"
    return f"{first}{' to ' if low < 0 else DASH}{last} %"


# ---- sentences


def sentences(one: ScalingSeries) -> list[str]:
    """Return the break-even of a series, its cost at one rank, and why numbers of ranks have no figure."""
    missing: dict[str, list[str]] = {}
    for point in one.points:
        if point.why_not is not None:
            missing.setdefault(point.why_not, []).append(str(point.ranks))
    return [
        _break_even(one),
        _cost(one),
        *(
            f"No figure with {listed(ranks)} rank{'' if ranks == ['1'] else 's'}: {why}."
            for why, ranks in missing.items()
        ),
    ]


def _break_even(one: ScalingSeries) -> str:
    plain = "the plain row" if one.plain is None else one.plain.mode
    if one.break_even is not None:
        at = next(point for point in one.points if point.ranks == one.break_even)
        times = "" if at.speed_up is None else f" ({ratio_text(at.speed_up.low, at.speed_up.high)})"
        said = f"The break-even is at {_ranks(at.ranks)}{times}"
        if at.ranks == 1:
            return f"{said}: it is proven faster than {plain} even there.{_again(one, at.ranks)}"
        return f"{said}: with fewer it is not proven faster than {plain}.{_again(one, at.ranks)}"
    if not one.break_even_known:
        return f"The break-even is unknown{_why_unknown(one)}."
    most = max(point.ranks for point in one.measured)
    return f"No break-even so far: with up to {_ranks(most)} it is not proven faster than {plain}."


def _again(one: ScalingSeries, break_even: int) -> str:
    """Return which larger numbers of ranks are not proven faster; empty if all are."""
    slower = [str(point.ranks) for point in one.measured if point.ranks > break_even and not point.proven]
    return f" With {listed(slower)} it is not, either." if slower else ""


def _why_unknown(one: ScalingSeries) -> str:
    if one.disturbed:
        return ": something else disturbed the machine, so nothing is claimed"
    return "" if any(point.ranks > 1 for point in one.points) else ": no row has several ranks"


def _cost(one: ScalingSeries) -> str:
    point = next((point for point in one.points if point.ranks == 1), None)
    cost = one.cost_at_one_rank
    if point is None or point.comparison is None or cost is None or one.plain is None:
        why = ": no row of it has one rank" if point is None else ""
        return f"What it costs to be distributed at one rank is unknown{why}."
    plain = one.plain.mode
    if point.proven_slower:
        return f"To be distributed costs {percent_range(cost)} of the throughput of {plain} at one rank."
    if point.proven:
        gain = Share(value=-cost.value, low=-cost.high, high=-cost.low)
        return (
            f"At one rank it is {percent_range(gain)} faster than {plain}: being distributed costs nothing."
        )
    claim = KIND_WORDS[point.comparison.kind]
    return f"At one rank, against {plain}: {claim} (a loss of {percent_range(cost)})."


def _ranks(count: int) -> str:
    return "1 rank" if count == 1 else f"{count} ranks"


# ---- the short report


def short_table(series: Sequence[ScalingSeries], titles: Mapping[str, str]) -> Table:
    """Return one table of every workload, scaling, framework and number of ranks."""
    return Table(
        heads=("workload", "row", "ranks", "samples/s", "speed-up", "efficiency"),
        rows=tuple(
            (
                _workload(one),
                cut(_name(one, titles), LONGEST_NAME),
                str(point.ranks),
                rate_text(point.samples_per_s),
                speed_up_text(point),
                efficiency_text(point),
            )
            for one in series
            for point in one.points
        ),
        numbers=frozenset({2, 3, 4, 5}),
        details=5,
    )


def short_line(series: Sequence[ScalingSeries], titles: Mapping[str, str]) -> Bullets:
    """Return one line: from how many ranks on each framework is faster than its plain mode."""
    found: dict[str, dict[str, list[str]]] = {}
    for one in series:
        if one.break_even is not None:
            said = f"proven faster than plain from {_ranks(one.break_even)} on"
        elif one.break_even_known:
            said = "not proven faster so far"
        else:
            said = "unknown"
        found.setdefault(said, {}).setdefault(cut(_name(one, titles), LONGEST_NAME), []).append(
            _workload(one)
        )
    text = "; ".join(f"{said}: {_on(rows)}" for said, rows in found.items())
    return Bullets(items=(Item(name="Several devices", text=f"{text}."),) if text else ())


def _on(rows: Mapping[str, Sequence[str]]) -> str:
    """Return rows with their workloads, those of the same workloads together: `A and B on mnist-cnn`."""
    together: dict[tuple[str, ...], list[str]] = {}
    for name, workloads in rows.items():
        together.setdefault(tuple(workloads), []).append(name)
    return ", ".join(f"{listed(names)} on {listed(workloads)}" for workloads, names in together.items())


def short_blocks(run: Run, series: Sequence[ScalingSeries], titles: Mapping[str, str]) -> list[Block]:
    """Return the heading, the table, its legend and the line; nothing for a run without ranks."""
    if not run.header.ranks or not series:
        return []
    return [
        Heading(text="Several devices", level=3),
        short_table(series, titles),
        Paragraph(text=LEGEND, faint=True),
        short_line(series, titles),
    ]


def _workload(one: ScalingSeries) -> str:
    name = cut(one.workload, LONGEST_NAME)
    return f"{name} (weak)" if one.scaling == "weak" else name
