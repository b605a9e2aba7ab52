"""What the reports of a run share: the status and the name of a row, and facts of a run in words."""

import math
from collections.abc import Iterable

import numpy as np

from bench.analysis.costs import framework_share
from bench.analysis.disturbance import is_quiet
from bench.analysis.summary import CellSummary, Summary
from bench.records.runs import Run
from bench.records.schema import STATUS_WORDS, BlockRecord
from bench.report.format import (
    cell_name,
    percent,
)
from bench.text import duration
from bench.workloads.specs import Cell

QUESTION = "Which framework trains fastest on this machine, and does it learn the same thing?"
TOO_BRIEF = "too brief"
"""What a table shows in place of an accuracy that is not to be compared."""


def state(row: CellSummary) -> str:
    """Return the status of a row in one to three words."""
    if row.ranked:
        return "disturbed" if row.disturbed else "ok"
    if row.reference:
        return "reference"
    if row.parity_ok is False:
        return "not comparable"
    if row.status != "ok":
        return STATUS_WORDS[row.status]
    if not row.matched:
        return "own defaults"
    return "parity not verified" if row.parity_ok is None else "too few blocks"


def reported(run: Run) -> dict[Cell, dict[str, str]]:
    """Return, for every row, the settings that all its jobs reported with the same value."""
    common: dict[Cell, dict[str, str]] = {}
    for job in run.jobs:
        said = {key: str(value) for key, value in job.described.items() if value is not None}
        if said:
            before = common.setdefault(job.spec.cell, said)
            for key in [key for key in before if said.get(key) != before[key]]:
                del before[key]
    return common


def row_name(cell: Cell, summary: Summary) -> str:
    """Return the name of a cell outside its table."""
    return f"{cell.workload}, {cell_name(cell, summary.titles)} ({cell.device} {cell.precision})"


def conditions_of(run: Run) -> list[tuple[str, str]]:
    """Return what else the machine did during the blocks, by name; nothing without a record of a block."""
    conditions = [record.conditions for record in run.records if isinstance(record, BlockRecord)]
    if not conditions:
        return []
    said = [
        (what, f"{percent(float(np.median(shares)), 1)}, at most {percent(max(shares), 1)}")
        for what, shares in (
            ("CPU time that the hypervisor took", _present(one.steal_share for one in conditions)),
            ("CPU time that other programs used", _present(one.foreign_share for one in conditions)),
            ("time in which a quota held jobs back", _present(one.throttled_share for one in conditions)),
            ("time in which some task waited for a CPU", _present(one.pressure_share for one in conditions)),
        )
        if shares
    ]
    if any(one.foreign_share is None for one in conditions):
        said.append(("other programs", "the system did not tell what they used"))
    rounds = [taken for one in conditions if one.round_foreign for taken in one.taken]
    if rounds:
        loud = sum(not is_quiet(taken) for taken in rounds)
        said.append(("rounds that were disturbed", f"{loud} of {len(rounds)}"))
    canaries = [1000 * float(np.median(one.canary_s)) for one in conditions if one.canary_s]
    if canaries:
        said.append(("a fixed product of matrices took", f"{min(canaries):.3g} to {max(canaries):.3g} ms"))
    if loads := _present(one.load_average for one in conditions):
        said.append(("load average", f"at most {max(loads):.2f}"))
    return said


def taint_lines(summary: Summary) -> list[tuple[str, str]]:
    """Return every disturbed block, whether it was dropped, and what disturbed it."""
    return [
        (
            f"{workload}, block {block + 1}",
            f"{'dropped' if block in screening.dropped else 'kept'}: {'; '.join(why)}",
        )
        for workload, screening in summary.screenings.items()
        for block, why in screening.tainted.items()
    ]


def plan_texts(run: Run) -> tuple[str, str]:
    """Return what was planned before the run began, and what its jobs took."""
    planned = run.header.planned
    parts = [
        f"{duration(seconds)} for {what}"
        for what, seconds in (
            ("parity", planned.parity_s),
            ("the required blocks", planned.blocks_s),
            ("training", planned.training_s),
            ("further blocks", planned.refining_s),
            *((("lessons", planned.lessons_s),) if planned.lessons_s else ()),
        )
    ]
    took = sum(job.wall_s for job in run.jobs)
    training = sum(job.learn_s or 0.0 for job in run.jobs)
    share = framework_share(run.jobs)
    inside = "" if share is None else f", {percent(share, 0)} inside the frameworks"
    return (
        f"{planned.jobs} jobs, {', '.join(parts)}",
        f"{len(run.jobs)} jobs, {duration(took)}, {duration(training)} of it training{inside}",
    )


def _present(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]
