"""Print the effects of predecessors in runs whose records do not hold the turns, as a Markdown table.

    PYTHONPATH=. python scripts/carry_over.py results/cpu-2-core results/cpu-2-core-second

The turns of these runs are taken from `balanced_order`, which is unchanged since the first of them.
"""

import sys
from pathlib import Path

import msgspec

from bench.analysis.carry_over import CarryOver
from bench.analysis.statistics import MARGIN
from bench.analysis.summary import summarise
from bench.measuring.design import balanced_order
from bench.records.runs import Run, read_run
from bench.records.schema import BlockRecord
from bench.report.format import cell_name, percent_text
from bench.run.report.sentences import all_of


def with_turns(run: Run) -> Run:
    """Return the run with the turns of each block in its record."""
    records = tuple(
        msgspec.structs.replace(
            one,
            turns=tuple(tuple(balanced_order(len(one.order), number)) for number in range(one.rounds)),
        )
        if isinstance(one, BlockRecord) and one.in_turns
        else one
        for one in run.records
    )
    return msgspec.structs.replace(run, records=records)


def is_proven(one: CarryOver) -> bool:
    return one.low > MARGIN or one.high < 1 / (1 + MARGIN) - 1


def main(folders: list[str]) -> None:
    print("| run | workload | row | after | change | 95 % interval | blocks |")
    print("|---|---|---|---|---|---|---|")
    margins = []
    for folder in map(Path, folders):
        old = read_run(folder)
        summary, before = summarise(with_turns(old)), summarise(old)
        effects = sum(map(len, summary.carry_over.values()))
        proven = [
            (cell, one) for cell, found in summary.carry_over.items() for one in found if is_proven(one)
        ]
        for cell, one in proven:
            title = summary.titles.get(one.backend or "", one.backend)
            after = f"{title} {one.mode}" if one.backend else "the start of a round"
            print(
                f"| {folder.name} | {cell.workload} | {cell_name(cell, summary.titles)} | {after} "
                f"| {100 * one.change:+.1f} % | {100 * one.low:+.1f} to {100 * one.high:+.1f} % "
                f"| {one.blocks} |"
            )
        made = [one for verdict in summary.verdicts for one in all_of(verdict.made)]
        claimed = [one for verdict in before.verdicts for one in all_of(verdict.made) if one.differs]
        values = sorted(one.margin for one in made)
        margins.append(
            f"{folder.name}: {len(proven)} of {effects} effects; margins {percent_text(values[0])} to "
            f"{percent_text(values[-1])}, median {percent_text(values[len(values) // 2])}; "
            f"{sum(one.differs for one in made)} differences claimed instead of {len(claimed)}"
        )
    print()
    print("\n".join(margins))


main(sys.argv[1:])
