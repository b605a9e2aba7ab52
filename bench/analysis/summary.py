"""From a run's raw records to a summary: one row for each cell, and the verdicts made from the rows.

A row is ranked only if its cell has parity, was timed in enough blocks and is not the reference itself. Every
other planned cell has a row too, with the reason in words. Nothing is stored.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType

import msgspec
import numpy as np

from backends.info import Level
from bench.analysis.carry_over import CarryOver, Effects, carry_over, effects_by_cell
from bench.analysis.comparison import (
    Comparison,
    GroupKey,
    Standing,
    Verdict,
    compare_copies,
    group_key,
    judge,
)
from bench.analysis.convergence import cell_convergence
from bench.analysis.disturbance import UNDISTURBED, Screening, dropped_blocks, in_quiet_rounds
from bench.analysis.evidence import Evidence, Job, gather
from bench.analysis.notices import job_warnings, run_mark, run_warnings
from bench.analysis.reasons import block_reasons, device_reasons, work_reasons
from bench.analysis.statistics import Estimate, estimate, log_throughput
from bench.records.runs import Run
from bench.records.schema import BlockRecord, RunHeader, Status
from bench.workloads.ranks import Scaling
from bench.workloads.specs import Cell, Device, Precision, Workload

OTHER_LEVEL: Mapping[Level, Level] = MappingProxyType({"taught": "tuned", "tuned": "taught"})
FEWEST_FOR_INTERVAL = 3
"""Fewest blocks for which a row has an interval: with two it reaches 12.7 standard errors to each side."""


class CellSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the report. A figure is None where it was not measured, never zero."""

    mark: str | None
    """How the run differs from a full one, for example by a limited data set; None for a full run."""
    workload: str
    backend: str
    mode: str
    level: Level
    """How far the mode goes: `taught` or `tuned`. Rows are ranked among those of their level."""
    device: Device
    precision: Precision
    ranks: int = 1
    scaling: Scaling = "strong"
    status: Status
    reference: bool
    """Whether its backend is the reference, which is never ranked."""
    matched: bool
    """Whether its workload is the same work for all; if not, each framework uses its own defaults."""
    parity_ok: bool | None
    """Whether it computes what the reference computes; None if that was not verified."""
    measured: bool
    """Whether it has all the blocks that a ranking needs, even if it is not ranked for another reason."""
    ranked: bool
    why_not: str | None
    """Why the row is not ranked, in one line; None if it is."""
    samples_per_s: float | None
    """Steady-state throughput. If no block has steady state, that of the others, which is never ranked."""
    samples_per_s_low: float | None
    """Lower end of the 95 % interval; None below three blocks, like its upper end and half_width."""
    samples_per_s_high: float | None
    half_width: float | None
    """Half the interval's width divided by the throughput: 0.012 for ±1.2 %."""
    imprecise: bool
    """Whether the half-width is larger than the run's target."""
    blocks: int
    """Blocks that count: timed, with steady state, complete and not dropped."""
    dropped_blocks: int
    """Blocks of its workload that were dropped, because something else disturbed them."""
    disturbed: bool
    """Whether most of the blocks that count were disturbed, so that nothing is claimed about them."""
    failed_jobs: int
    start_s: float | None
    """From starting the process to its first message; a median over jobs, like the next three fields."""
    import_s: float | None
    build_s: float | None
    first_step_s: float | None
    epochs: float | None
    """Epochs trained by the jobs whose accuracy is given; None if no job trained to the end."""
    test_accuracy: float | None
    """Mean over the jobs that trained to the end."""
    trained_jobs: int
    target_accuracy: float | None
    epochs_to_target: float | None
    """Median over the trained jobs. A job that never reached the target counts as later than all others.

    None if the median falls on such a job (it is censored), or if no job trained: trained_jobs tells which.
    """
    seconds_to_target: float | None
    """Like epochs_to_target, in seconds of training alone: evaluation and start-up are excluded."""
    jobs_at_target: int
    peak_rss_bytes: int | None
    """Largest of all jobs, like the next two fields."""
    peak_device_bytes: int | None
    process_device_bytes: int | None
    energy_per_1000_j: float | None
    """Joules for 1,000 samples, median over the jobs; None unless a meter covered every window."""

    @property
    def cell(self) -> Cell:
        return Cell(
            workload=self.workload,
            backend=self.backend,
            mode=self.mode,
            device=self.device,
            precision=self.precision,
            ranks=self.ranks,
            scaling=self.scaling,
        )

    @property
    def group(self) -> GroupKey:
        return group_key(self.cell, self.level)


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is derived from a run."""

    mark: str | None
    cells: tuple[CellSummary, ...]
    """Group by group, those of a workload together; in each group ranked rows first, the fastest first."""
    standings: tuple[Standing, ...]
    """For each row, in the same order, the data of its comparisons."""
    verdicts: tuple[Verdict, ...]
    screenings: Mapping[str, Screening]
    """By workload, which of its blocks were disturbed and which are dropped."""
    carry_over: Mapping[Cell, tuple[CarryOver, ...]]
    """How much each predecessor changes the rate of a cell; only cells whose records tell."""
    placebo: Comparison | None = None
    """Two jobs of one cell in each block, compared as any pair: nothing is different but chance. None if the
    run has none, or too few blocks with it."""
    titles: Mapping[str, str]
    """A backend's title by its name."""
    warnings: tuple[str, ...]
    """One for each framework whose version is known to compute wrong values."""


def summarise(run: Run) -> Summary:
    """Derive every row and verdict of a run."""
    header = run.header
    blocks = [record for record in run.records if isinstance(record, BlockRecord)]
    context = _Context(
        header=header,
        mark=run_mark(header),
        workloads={workload.name: workload for workload in header.workloads},
        references=frozenset(backend.name for backend in header.backends if backend.reference),
        levels={
            (backend.name, mode): level
            for backend in header.backends
            for mode, level in backend.levels.items()
        },
        screenings=dropped_blocks(blocks, header.min_blocks),
        alone=frozenset((block.workload, block.block) for block in blocks if not block.in_turns),
    )
    evidence = gather(run, run.jobs)
    rows = _in_order([_summarise_cell(cell, found, context) for cell, found in evidence.items()], context)
    sound = {cell: {at: job.record for at, job in found.sound.items()} for cell, found in evidence.items()}
    effects = effects_by_cell(blocks, sound)
    standings = [_standing(row, evidence[row.cell], context.alone, effects.get(row.cell, {})) for row in rows]
    groups = {key: list(group) for key, group in groupby(standings, key=lambda one: one.group)}
    verdicts = tuple(
        judge(
            group,
            context.screening(key.workload),
            others=groups.get(msgspec.structs.replace(key, level=OTHER_LEVEL[key.level]), ()),
        )
        for key, group in groups.items()
    )
    return Summary(
        mark=context.mark,
        cells=tuple(rows),
        standings=tuple(standings),
        verdicts=verdicts,
        screenings=context.screenings,
        carry_over={
            one.cell: found
            for one in standings
            if (found := carry_over(one.effects, context.screening(one.cell.workload).dropped))
        },
        placebo=_placebo(run, standings, context),
        titles={backend.name: backend.title for backend in header.backends},
        warnings=(
            *run_warnings(header),
            *job_warnings(run),
            *alone_words([block.in_turns for block in blocks]),
        ),
    )


def alone_words(in_turns: Sequence[bool]) -> tuple[str, ...]:
    """Return a sentence about the blocks whose processes did not take turns; nothing if all did."""
    alone = len(in_turns) - sum(in_turns)
    if not alone:
        return ()
    which = "all" if alone == len(in_turns) else f"{alone} of {len(in_turns)}"
    return (
        f"In {which} blocks the processes ran one after another and did not take turns, because the compute "
        "mode of the GPU admits one process at a time. A change in the machine's speed does not cancel in "
        "their comparison.",
    )


# ---- one row a cell


class _Context(msgspec.Struct, frozen=True, kw_only=True):
    """What all rows of a run share."""

    header: RunHeader
    mark: str | None
    workloads: Mapping[str, Workload]
    """By name."""
    references: frozenset[str]
    """Names of the backends that are references."""
    levels: Mapping[tuple[str, str], Level]
    """By backend and mode."""
    screenings: Mapping[str, Screening]
    """By workload."""
    alone: frozenset[tuple[str, int]]
    """Workload and number of each block whose jobs did not take turns."""

    def screening(self, workload: str) -> Screening:
        return self.screenings.get(workload, UNDISTURBED)


def _standing(
    row: CellSummary, found: Evidence, alone: frozenset[tuple[str, int]], effects: Mapping[int, Effects]
) -> Standing:
    return Standing(
        cell=row.cell,
        level=row.level,
        ranked=row.ranked,
        reference=row.reference,
        matched=row.matched,
        parity_ok=row.parity_ok,
        rounds={block: job.logs for block, job in found.sound.items()},
        latest=min((job.latest for job in found.sound.values()), default=1),
        alone=frozenset(block for workload, block in alone if workload == row.workload),
        effects=effects,
        accuracies=learned.accuracies if (learned := cell_convergence(found.records, None)) else {},
    )


def _placebo(run: Run, standings: Iterable[Standing], context: _Context) -> Comparison | None:
    """Compare the two jobs of the placebo's cell as any pair of rows is compared."""
    copies = gather(run, run.copies)
    for row in standings:
        if row.cell == run.header.placebo:
            rounds = {block: job.logs for block, job in copies[row.cell].sound.items()}
            copy = msgspec.structs.replace(row, rounds=rounds)
            return compare_copies(row, copy, context.screening(row.cell.workload))
    return None


def _in_order(rows: Sequence[CellSummary], context: _Context) -> list[CellSummary]:
    """Sort the rows: workloads as in the plan; in each of them ranked rows first, and the fastest first."""
    names = dict.fromkeys([*context.workloads, *(row.workload for row in rows)])
    places = {name: place for place, name in enumerate(names)}
    # A row without throughput comes last; equal rows stay in the order of the plan.
    return sorted(
        rows,
        key=lambda row: (
            places[row.workload],
            row.device,
            row.precision,
            row.level == "taught",
            row.group.scaling,
            row.ranks,
            not row.ranked,
            -(row.samples_per_s or 0.0),
        ),
    )


def _summarise_cell(cell: Cell, found: Evidence, context: _Context) -> CellSummary:
    header, screening = context.header, context.screening(cell.workload)
    workload = context.workloads.get(cell.workload)
    reference = cell.backend in context.references
    counting = [job for block, job in found.sound.items() if block not in screening.dropped]
    matched = workload is None or workload.matched
    records = found.records
    throughput = _throughput(found, counting)
    interval = throughput if throughput and throughput.blocks >= FEWEST_FOR_INTERVAL else None
    half_width = interval.half_width if interval else None
    too_few = block_reasons(found, len(counting), header.min_blocks)
    reasons = [
        *work_reasons(found, reference=reference, matched=matched), *device_reasons(counting), *too_few
    ]  # fmt: skip
    target = workload.target_accuracy if workload else None
    learned = cell_convergence(records, target)
    return CellSummary(
        mark=context.mark,
        workload=cell.workload,
        backend=cell.backend,
        mode=cell.mode,
        level=context.levels.get((cell.backend, cell.mode), "tuned"),
        device=cell.device,
        precision=cell.precision,
        ranks=cell.ranks,
        scaling=cell.scaling,
        status=_status(found, len(counting), header.min_blocks),
        reference=reference,
        matched=matched,
        parity_ok=found.parity_ok,
        measured=not too_few,
        ranked=not reasons,
        why_not="; ".join(reasons) or None,
        samples_per_s=throughput.value if throughput else None,
        samples_per_s_low=interval.low if interval else None,
        samples_per_s_high=interval.high if interval else None,
        half_width=half_width,
        imprecise=half_width is not None and half_width > header.target_half_width,
        blocks=len(counting),
        dropped_blocks=len(screening.dropped),
        disturbed=screening.disturbed,
        failed_jobs=len(found.faulty),
        start_s=median_of(record.start_s for record in records),
        import_s=median_of(record.import_s for record in records),
        build_s=median_of(record.build_s for record in records),
        first_step_s=median_of(record.first_step_s for record in records if record.spec.compiles_anew),
        epochs=learned.epochs if learned else None,
        test_accuracy=learned.accuracy if learned else None,
        trained_jobs=len(learned.accuracies) if learned else 0,
        target_accuracy=target,
        epochs_to_target=learned.epochs_to_target if learned else None,
        seconds_to_target=learned.seconds_to_target if learned else None,
        jobs_at_target=learned.successes if learned else 0,
        peak_rss_bytes=largest_of(record.peak_rss_bytes for record in records),
        peak_device_bytes=largest_of(record.peak_device_bytes for record in records),
        process_device_bytes=largest_of(record.process_device_bytes for record in records),
        energy_per_1000_j=median_of(_energy_per_1000(job) for job in counting),
    )


def _throughput(found: Evidence, counting: Sequence[Job]) -> Estimate | None:
    """Return the throughput of the blocks that count; if there is none, of those without steady state."""
    drifting = [job for job in found.jobs if job.record.status == "no_steady_state" and job.logs]
    logs = [log_throughput(job.logs, job.latest) for job in counting or drifting]
    return estimate(logs) if logs else None


def _energy_per_1000(job: Job) -> float | None:
    """Return the joules for 1,000 samples over the windows that count; None unless each was metered."""
    windows = in_quiet_rounds(job.record.windows)[-job.latest :]
    joules = [window.energy_j for window in windows if window.energy_j is not None]
    samples = sum(window.samples for window in windows)
    return 1000 * math.fsum(joules) / samples if samples and len(joules) == len(windows) else None


def _status(found: Evidence, counting: int, min_blocks: int) -> Status:
    """Return one status for a cell: `ok` with enough blocks, else the latest reason for too few."""
    if counting >= max(1, min_blocks):
        return "ok"
    if found.faulty:
        last = found.faulty[-1].record.status
        return "failed" if last == "ok" else last
    if found.unmeasured:
        return found.unmeasured.status
    if found.jobs:
        return "ok"
    return next((check.status for check in found.parity if check.status != "ok"), "not_measured")


def median_of(values: Iterable[float | None]) -> float | None:
    """Return the median of the values that are not None; None if there are none."""
    present = [value for value in values if value is not None]
    return float(np.median(present)) if present else None


def largest_of(values: Iterable[int | None]) -> int | None:
    """Return the largest of the values that are not None; None if there are none."""
    return max((value for value in values if value is not None), default=None)
