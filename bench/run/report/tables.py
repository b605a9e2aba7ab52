"""What the sections of the report share: labels, names of rows, lists in words, and the tables of speed."""

import math
from collections.abc import Iterable, Sequence
from itertools import groupby

import numpy as np

from bench.analysis.convergence import LONG_ENOUGH, is_too_brief
from bench.analysis.costs import framework_share
from bench.analysis.disturbance import is_quiet
from bench.analysis.statistics import ALPHA, EQUIVALENCE, FEWEST_FOR_SCATTER, MARGIN
from bench.analysis.summary import STATUS_WORDS, CellSummary, Summary
from bench.records.runs import Run
from bench.records.schema import BlockRecord
from bench.report.blocks import Block, Heading, Table
from bench.report.format import (
    NOTHING,
    PLUS_MINUS,
    TIMES,
    bytes_text,
    cell_name,
    percent,
    rate_text,
    seconds_text,
    width_text,
    workload_name,
)
from bench.text import duration
from bench.workloads.specs import Cell

QUESTION = "Which framework trains faster on this machine, and does it learn the same thing?"
TOO_BRIEF = "too brief"
"""What a table shows in place of an accuracy that is not to be compared."""

LABELS = (
    ("framework", "the framework and the mode it ran in, under the framework's own name"),
    (
        "samples/s",
        "training images per second in steady state, without start-up and evaluation: the mean of the blocks",
    ),
    (
        "block",
        "one fresh process of every framework and mode of a workload; all of them are alive at the same time "
        "and take turns; the figure of a block is the mean of its windows without the highest and the lowest "
        "fifth",
    ),
    ("window", "one turn: training between two clock readings, usually for 0.15 s"),
    (
        PLUS_MINUS,
        "half the width of the 95 % interval of that mean, from three blocks on; it shows how much the row "
        "could change in a new measurement; comparisons of rows are more precise, since they are made within "
        "each block",
    ),
    (
        "relative",
        "throughput divided by that of the fastest ranked row of the same workload, device and precision",
    ),
    ("accuracy", "share of the test images classified correctly after the epochs named above the table"),
    (
        TOO_BRIEF,
        f"trained for less than {LONG_ENOUGH:g} epoch, so its accuracy is not to be compared and not shown",
    ),
    (
        "to target",
        "seconds of training, without evaluation, until the target accuracy was reached, interpolated "
        "between the evaluation before and the one after",
    ),
    (
        "parity",
        "whether logits, loss, gradients and parameters agree with a float64 reference within the tolerances",
    ),
    ("first step", "the first call of a training step: tracing and compilation, then one step"),
    ("import", "importing the framework in a fresh process"),
    ("memory", "peak resident memory of the process (RSS) up to the end of the timed windows"),
    ("GPU memory", "the most that the framework's own allocator held on the GPU"),
    ("reference", "the float64 reference itself: shown, never ranked"),
    ("disturbed", "something else disturbed most of its blocks, so nothing is claimed"),
    ("not comparable", "it does not compute what the reference computes, so its speed is not ranked"),
    ("own defaults", "trained with its framework's own defaults, which is not the same work: never ranked"),
    ("no steady state", "the throughput kept drifting from window to window; shown, not ranked"),
    ("too few blocks", "fewer blocks than a row needs to be ranked"),
    (
        "faster",
        f"the ratio is proven to differ from 1 by more than {100 * MARGIN:g} %; the probability that any "
        f"such claim in a family of comparisons is wrong is at most {100 * ALPHA:g} %",
    ),
    (
        f"no difference larger than {100 * EQUIVALENCE:g} %",
        "a larger difference is ruled out: the 90 % interval of the ratio lies within it",
    ),
    ("no detectable difference", "neither a difference nor its absence is shown"),
    (
        "detectable",
        "the 95 % interval of the smallest difference that a measurement like this one finds four times in "
        f"five, from {FEWEST_FOR_SCATTER} blocks on",
    ),
    (
        "plain",
        "the ratio without trimming: samples over seconds in all windows that count; marked with ! where it "
        f"differs from the ratio by more than {100 * MARGIN:g} %",
    ),
    (NOTHING, "not measured or not available: no interval below three blocks, no rank for an unranked row"),
)


_TARGET, _DEVICE_MEMORY = "to target", "GPU memory"
_HEADS = (
    "framework",
    "samples/s",
    PLUS_MINUS,
    "relative",
    "status",
    "accuracy",
    _TARGET,
    "parity",
    "first step",
    "import",
    "memory",
    _DEVICE_MEMORY,
)
_TEXTS = frozenset({"framework", "status", "parity"})
"""Columns that hold no numbers."""
_DETAILS = "parity"
"""The first column about other costs of a row."""


def speed_blocks(summary: Summary) -> list[Block]:
    """Return a heading and a table for each workload, device, precision and level, in the summary's order.

    Columns that are empty in the whole run are left out: the time to a target if no workload has one, and the
    memory of a GPU if no row used any.
    """
    shown = [
        place
        for place, head in enumerate(_HEADS)
        if (head != _TARGET or any(row.target_accuracy is not None for row in summary.cells))
        and (head != _DEVICE_MEMORY or any(row.peak_device_bytes is not None for row in summary.cells))
    ]
    groups = groupby(summary.cells, key=lambda row: (row.workload, row.device, row.precision, row.level))
    found: list[Block] = []
    for _, group in groups:
        rows = list(group)
        found.append(Heading(text=_title(rows), level=3))
        found.append(_table(rows, summary, shown))
    return found


def _title(rows: Sequence[CellSummary]) -> str:
    first = rows[0]
    said = [f"{first.device} {first.precision}"]
    epochs = sorted({row.epochs for row in rows if row.epochs is not None})
    if epochs:
        counts = f"{' or '.join(f'{count:.3g}' for count in epochs)} epoch{'' if epochs == [1] else 's'}"
        brief = all(map(is_too_brief, epochs))
        said.append(f"trained too briefly to compare: {counts}" if brief else f"accuracy after {counts}")
    if not first.matched:
        said.append("own defaults")
    if first.target_accuracy is not None:
        said.append(f"target {percent(first.target_accuracy, 1)}")
    return f"{workload_name(first.workload, first.level)} ({', '.join(said)})"


def _table(rows: Sequence[CellSummary], summary: Summary, shown: Sequence[int]) -> Table:
    """Return a table with the columns of `_HEADS` that are shown."""
    best = next((row.samples_per_s for row in rows if row.ranked), None)
    heads = tuple(_HEADS[place] for place in shown)
    every = [_cells(row, best, summary) for row in rows]
    return Table(
        heads=heads,
        rows=tuple(tuple(cells[place] for place in shown) for cells in every),
        numbers=frozenset(place for place, head in enumerate(heads) if head not in _TEXTS),
        flagged=frozenset(place for place, row in enumerate(rows) if not row.ranked),
        details=heads.index(_DETAILS),
    )


def _cells(row: CellSummary, best: float | None, summary: Summary) -> tuple[str, ...]:
    return (
        cell_name(row.cell, summary.titles),
        rate_text(row.samples_per_s),
        width_text(row.half_width),
        _relative(row, best),
        state(row),
        TOO_BRIEF if row.epochs is not None and is_too_brief(row.epochs) else percent(row.test_accuracy, 2),
        _to_target(row),
        {True: "ok", False: "fails", None: NOTHING}[row.parity_ok],
        seconds_text(row.first_step_s),
        seconds_text(row.import_s),
        bytes_text(row.peak_rss_bytes),
        bytes_text(row.peak_device_bytes),
    )


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


def row_name(cell: Cell, summary: Summary) -> str:
    """Return the name of a cell outside its table."""
    return f"{cell.workload}, {cell_name(cell, summary.titles)} ({cell.device} {cell.precision})"


def unranked_lines(summary: Summary) -> list[tuple[str, str]]:
    """Return the name of every row that is not ranked, with the reason."""
    return [
        (row_name(row.cell, summary), row.why_not or "no reason recorded")
        for row in summary.cells
        if not row.ranked
    ]


def remark_lines(summary: Summary) -> list[tuple[str, str]]:
    """Return the name of every ranked row with failed jobs, and how many failed."""
    return [
        (row_name(row.cell, summary), f"ranked by {row.blocks} blocks; {row.failed_jobs} of its jobs failed")
        for row in summary.cells
        if row.ranked and row.failed_jobs
    ]


def conditions_text(run: Run) -> str | None:
    """Return what else the machine did during the blocks; None if there is no record of a block."""
    conditions = [record.conditions for record in run.records if isinstance(record, BlockRecord)]
    if not conditions:
        return None
    said = [
        f"{what} {percent(float(np.median(shares)), 1)}, at most {percent(max(shares), 1)}"
        for what, shares in (
            ("the hypervisor took", _present(one.steal_share for one in conditions)),
            ("other programs used", _present(one.foreign_share for one in conditions)),
            ("a quota held jobs back", _present(one.throttled_share for one in conditions)),
            ("some task waited for a CPU", _present(one.pressure_share for one in conditions)),
        )
        if shares
    ]
    if any(one.foreign_share is None for one in conditions):
        said.append("the system did not tell what other programs used")
    rounds = [taken for one in conditions if one.round_foreign for taken in one.taken]
    if rounds:
        loud = sum(not is_quiet(taken) for taken in rounds)
        said.append(f"{loud} of {len(rounds)} rounds were disturbed")
    canaries = [1000 * float(np.median(one.canary_s)) for one in conditions if one.canary_s]
    if canaries:
        said.append(f"a fixed product of matrices took {min(canaries):.3g} to {max(canaries):.3g} ms")
    if loads := _present(one.load_average for one in conditions):
        said.append(f"load average at most {max(loads):.2f}")
    count = f"{len(conditions)} blocks" if len(conditions) > 1 else "one block"
    return f"during {count} (median share, and the largest) {'; '.join(said)}"


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


def plan_text(run: Run) -> str:
    """Return what was planned before the run began, and how long its jobs took."""
    planned = run.header.planned
    parts = [
        f"{duration(seconds)} for {what}"
        for what, seconds in (
            ("parity", planned.parity_s),
            ("the required blocks", planned.blocks_s),
            ("training", planned.training_s),
            ("further blocks", planned.refining_s),
        )
    ]
    took = sum(job.wall_s for job in run.jobs)
    training = sum(job.learn_s or 0.0 for job in run.jobs)
    share = framework_share(run.jobs)
    inside = "" if share is None else f", {percent(share, 0)} inside the frameworks"
    return (
        f"planned: {planned.jobs} jobs, {', '.join(parts)}; took: {len(run.jobs)} jobs, "
        f"{duration(took)}, {duration(training)} of it training{inside}"
    )


def _relative(row: CellSummary, best: float | None) -> str:
    if not row.ranked or row.samples_per_s is None or best is None:
        return NOTHING
    return f"{row.samples_per_s / best:.2f}{TIMES}"


def _to_target(row: CellSummary) -> str:
    if row.seconds_to_target is not None:
        return seconds_text(row.seconds_to_target)
    return "not reached" if row.trained_jobs and row.target_accuracy is not None else NOTHING


def _present(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]
