"""The section on carry-over: whether it matters for a row which other row had its turn before."""

from collections.abc import Mapping

import msgspec

from bench.analysis.carry_over import CarryOver
from bench.analysis.statistics import MARGIN
from bench.analysis.summary import Summary
from bench.report.blocks import Block, Paragraph, Table, section
from bench.report.format import cell_name, percent_text
from bench.run.report.sentences import all_of
from bench.workloads.specs import Cell

_HEADS = ("workload", "row", "after", "change", "interval", "blocks")
_START = "the start of a round"


def blocks(summary: Summary) -> list[Block]:
    """Return the section; nothing if no record of the run holds the order of the turns."""
    if not summary.carry_over:
        return []
    shown = [
        _row(cell, one, summary)
        for cell, found in summary.carry_over.items()
        for one in found
        if _is_shown(one)
    ]
    none = (
        f"No row is proven to be more than {100 * MARGIN:g} % faster or slower after one predecessor than "
        "after the others. bench report RUN --format json gives the values."
    )
    return [
        *section(
            "What the order of the turns may have changed",
            "In a block, a row trains at the start of a round and after each other row equally often. But "
            "for the placebo's, it never trains after itself at once, as it would if it trained alone. How "
            "much its predecessors differ limits what this may have changed. The margin of a comparison is "
            "how far its ratio could move if each of the two rows always had the same predecessor, after "
            f"the scatter of the effects is taken off, and at least {100 * MARGIN:g} %. A difference that is "
            "not proven larger than the margin is not claimed.",
        ),
        Paragraph(text=_margins(summary)),
        *(
            [Table(heads=_HEADS, rows=tuple(shown), numbers=frozenset({3, 5}))]
            if shown
            else [Paragraph(text=none)]
        ),
    ]


def _is_shown(one: CarryOver) -> bool:
    return one.low > MARGIN or one.high < 1 / (1 + MARGIN) - 1


def _row(cell: Cell, one: CarryOver, summary: Summary) -> tuple[str, ...]:
    return (
        cell.workload,
        cell_name(cell, summary.titles),
        predecessor(one, cell, summary.titles),
        f"{100 * one.change:+.1f} %",
        f"{100 * one.low:+.1f} to {100 * one.high:+.1f} %",
        str(one.blocks),
    )


def predecessor(one: CarryOver, cell: Cell, titles: Mapping[str, str]) -> str:
    """Return the name of the row that trained before `cell`, or that it was the start of a round."""
    if one.backend is None or one.mode is None:
        return _START
    before = msgspec.structs.replace(
        cell, backend=one.backend, mode=one.mode, ranks=one.ranks, scaling=one.scaling
    )
    return cell_name(before, titles)


def _margins(summary: Summary) -> str:
    """Return in a sentence how many comparisons have a larger margin than usual, and the largest."""
    made = [one for verdict in summary.verdicts for one in all_of(verdict.made)]
    larger = [one for one in made if one.margin > MARGIN]
    if not larger:
        return f"The margin of all {len(made)} comparisons is {100 * MARGIN:g} %."
    worst = max(larger, key=lambda one: one.margin)
    names = f"{cell_name(worst.faster, summary.titles)} and {cell_name(worst.slower, summary.titles)}"
    return (
        f"The margin of {len(larger)} of {len(made)} comparisons is larger than {100 * MARGIN:g} %. The "
        f"largest is {percent_text(worst.margin)}: {names} on {worst.faster.workload}."
    )
