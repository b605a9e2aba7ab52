"""Several devices in the short report: one table of all figures, and one line."""

from collections.abc import Mapping, Sequence

from bench.analysis.scaling import ScalingSeries
from bench.records.runs import Run
from bench.report.blocks import Block, Bullets, Heading, Item, Paragraph, Table
from bench.report.format import rate_text
from bench.run.report.answer import LONGEST_NAME
from bench.run.report.scaling_words import efficiency_text, ranks_words, series_name, speed_up_text
from bench.text import cut, listed

_LEGEND = (
    "speed-up: throughput over that of the plain mode at one rank. efficiency: speed-up over ranks. Both are "
    "95 % intervals. break-even: the least number of ranks that is proven faster. Every process has one core "
    "or one GPU, so a plain row on a CPU is slower than in other runs."
)


def short_table(series: Sequence[ScalingSeries], titles: Mapping[str, str]) -> Table:
    """Return one table of every workload, scaling, framework and number of ranks."""
    return Table(
        heads=("workload", "row", "ranks", "samples/s", "speed-up", "efficiency"),
        rows=tuple(
            (
                _workload(one),
                cut(series_name(one, titles), LONGEST_NAME),
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
    """Return one line: the break-even of every framework."""
    found: dict[str, dict[str, list[str]]] = {}
    for one in series:
        if one.break_even is not None:
            said = f"at {ranks_words(one.break_even)}"
        else:
            said = "none so far" if one.break_even_known else "unknown"
        found.setdefault(said, {}).setdefault(cut(series_name(one, titles), LONGEST_NAME), []).append(
            _workload(one)
        )
    text = "; ".join(f"{said}: {_on(rows)}" for said, rows in found.items())
    return Bullets(items=(Item(name="Break-even", text=f"{text}."),) if text else ())


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
        Paragraph(text=_LEGEND, faint=True),
        short_line(series, titles),
    ]


def _workload(one: ScalingSeries) -> str:
    name = cut(one.workload, LONGEST_NAME)
    return f"{name} (weak)" if one.scaling == "weak" else name
