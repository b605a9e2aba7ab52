"""Two runs compared: for each cell what changed, and whether it got worse.

The runs were made one after the other, so no round of one meets a round of the other, and what the machine
did between them is in every difference. The canary, a fixed NumPy product that every block computes, shows a
machine that was faster or slower; `bench ab` measures both sides side by side and needs no such caution.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, TypeAlias

import msgspec

from bench.analysis.comparison import Standing
from bench.analysis.convergence import CellConvergence, cell_convergence
from bench.analysis.disturbance import run_canary
from bench.analysis.statistics import log_throughput
from bench.analysis.summary import CellSummary, Summary, summarise
from bench.gate.changes import Changed, data_change, environment_changes, work_changes
from bench.gate.metrics import (
    ACCURACY,
    DEVICE_MEMORY,
    FEWEST_VALUES,
    FINE,
    FIRST_STEP,
    GATED,
    MEMORY,
    SPEED,
    TIME_TO_TARGET,
    Finding,
    Measure,
    in_families,
    judge,
)
from bench.records.runs import Run
from bench.records.schema import JobRecord
from bench.text import listed
from bench.workloads.specs import Cell

Outcome: TypeAlias = Literal["fine", "regression", "undecided"]

MOST_DRIFT = 0.03
"""By how much the canary's time may differ between the runs for a figure in seconds to be compared."""


class CellComparison(msgspec.Struct, frozen=True, kw_only=True):
    """One cell in both runs."""

    cell: Cell
    findings: tuple[Finding, ...]
    untold: Mapping[str, str]
    """By its name, each measure that could not be compared, and why."""
    outcome: Outcome | None
    """None where the cell is only in head: there is nothing to compare it with."""
    why: str
    """In words, what the outcome is for."""


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """The comparison of two runs."""

    base: Run
    head: Run
    cells: tuple[CellComparison, ...]
    changes: tuple[Changed, ...]
    drift: float | None
    """By how much the canary took longer in head, 0.02 for 2 %; None where a run has none."""
    titles: Mapping[str, str]

    @property
    def outcome(self) -> Outcome:
        """A regression where any cell has one; fine only where at least one was compared and all are fine."""
        outcomes = {one.outcome for one in self.cells if one.outcome is not None}
        if "regression" in outcomes:
            return "regression"
        return "fine" if outcomes == {"fine"} and not self.unreadable else "undecided"

    @property
    def unreadable(self) -> tuple[str, ...]:
        """In words, what cannot be read of either run: nothing is known of it, so nothing passes."""
        return tuple(f"{run.folder}: {line}" for run in (self.base, self.head) for line in run.rejected)


def compare(base: Run, head: Run) -> Compared:
    """Compare every cell that either run planned; changes are claimed by Holm's method over all cells."""
    sides = [_side(base), _side(head)]
    canaries = [run_canary(list(run.blocks)) for run in (base, head)]
    drift = canaries[1] / canaries[0] - 1 if canaries[0] and canaries[1] else None
    data, work = data_change(base, head), work_changes(base.header.workloads, head.header.workloads)
    found = {
        cell: _look(
            sides[0].get(cell), sides[1].get(cell), drift, data=data, work=work.get(cell.workload, ())
        )
        for cell in dict.fromkeys(cell for side in sides for cell in side)
    }
    judged = iter(in_families([finding for one in found.values() for finding in one.findings]))
    return Compared(
        base=base,
        head=head,
        cells=tuple(_judged(cell, one, [next(judged) for _ in one.findings]) for cell, one in found.items()),
        changes=environment_changes(base, head),
        drift=drift,
        titles={backend.name: backend.title for run in (base, head) for backend in run.header.backends},
    )


class _Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What one run has of a cell."""

    row: CellSummary
    values: Mapping[str, Mapping[int, float]]
    """By the measure's name, the values by block or by seed."""
    memory_method: str | None
    """How its memory was counted."""
    epochs: float | None
    censored: int
    """Trainings that did not reach the target."""


def _side(run: Run) -> dict[Cell, _Evidence]:
    summary = summarise(run)
    jobs: dict[Cell, list[JobRecord]] = {}
    for job in run.jobs:
        jobs.setdefault(job.spec.cell, []).append(job)
    return {
        row.cell: _evidence(row, standing, jobs.get(row.cell, []), summary)
        for row, standing in zip(summary.cells, summary.standings, strict=True)
    }


def _evidence(row: CellSummary, standing: Standing, jobs: Sequence[JobRecord], summary: Summary) -> _Evidence:
    dropped = summary.screenings[row.workload].dropped if row.workload in summary.screenings else frozenset()
    learned = cell_convergence(jobs, row.target_accuracy)
    sound = [job for job in jobs if job.status == "ok"]
    values = {
        SPEED.name: {
            block: math.exp(log_throughput(rounds, standing.latest))
            for block, rounds in standing.rounds.items()
            if block not in dropped
        },
        FIRST_STEP.name: _by_block(
            [job for job in sound if job.spec.block not in dropped], "first_step_s", anew=True
        ),
        MEMORY.name: _by_block(sound, "peak_rss_bytes"),
        DEVICE_MEMORY.name: _by_block(sound, "peak_device_bytes"),
        ACCURACY.name: dict(standing.accuracies),
        TIME_TO_TARGET.name: _times(learned),
    }
    return _Evidence(
        row=row,
        values=values,
        memory_method=next((job.peak_rss_method for job in sound if job.peak_rss_method), None),
        epochs=row.epochs,
        censored=sum(crossing is None for crossing in learned.crossings.values()) if learned else 0,
    )


def _by_block(jobs: Sequence[JobRecord], field: str, *, anew: bool = False) -> dict[int, float]:
    """Return a field of the jobs by block; with `anew`, of those that compiled everything anew."""
    return {
        job.spec.block: float(value)
        for job in jobs
        if (value := getattr(job, field)) is not None and (job.spec.compiles_anew or not anew)
    }


def _times(learned: CellConvergence | None) -> dict[int, float]:
    crossings = learned.crossings if learned else {}
    return {seed: crossing.seconds for seed, crossing in crossings.items() if crossing is not None}


class _Look(msgspec.Struct, frozen=True, kw_only=True):
    """What a cell shows in both runs, before it is known what of it is claimed."""

    certain: tuple[Outcome | None, str] | None = None
    """The outcome that holds whatever the figures are."""
    findings: tuple[Finding, ...] = ()
    untold: Mapping[str, str] = {}
    missed: tuple[str, ...] = ()
    """The measures that base has values of, and that could not be compared."""


def _look(
    base: _Evidence | None,
    head: _Evidence | None,
    drift: float | None,
    *,
    data: Changed | None,
    work: Sequence[Changed],
) -> _Look:
    """Look at one cell; `data` and `work` are what makes what it does in head other work than in base."""
    certain = _unlike_reference(base, head) or _unmeasured(base, head)
    if base is None or head is None or certain is not None:
        return _Look(certain=certain)
    if data is not None:
        return _Look(certain=("undecided", f"not the same work: {data.in_words()}"))
    findings, untold, missed = [], {}, []
    for measure in (SPEED, FIRST_STEP, MEMORY, DEVICE_MEMORY, ACCURACY, TIME_TO_TARGET):
        found = _find(measure, base, head, drift)
        if isinstance(found, Finding):
            findings.append(found)
        elif found is not None:
            untold[measure.name] = found
            if measure is SPEED or (base.values[measure.name] and not _as_good(measure, base, head)):
                missed.append(measure.name)
    changed = f"not the same work: {listed([one.in_words() for one in work])}" if work else None
    return _Look(
        certain=("undecided", changed) if changed else None,
        findings=tuple(findings),
        untold=untold,
        missed=tuple(missed),
    )


def _as_good(measure: Measure, base: _Evidence, head: _Evidence) -> bool:
    """Whether seeds too few to judge by came out alike, each as in base: it is little, and no loss."""
    one, other = base.values[measure.name], head.values[measure.name]
    return (
        measure is ACCURACY
        and base.epochs == head.epochs
        and one.keys() == other.keys()
        and all(abs(other[seed] - value) <= measure.margin for seed, value in one.items())
    )


def _unlike_reference(base: _Evidence | None, head: _Evidence | None) -> tuple[Outcome | None, str] | None:
    """Return the outcome for a cell that is not known to compute what the reference computes."""
    before, now = (None if side is None else side.row.parity_ok for side in (base, head))
    if head is not None and now is False:
        said = f"head does not compute what the reference computes: {head.row.why_not}"
        # Lost is only what base had.
        return ("undecided", f"{said}; nor does base") if before is False else ("regression", said)
    if base is None or head is None:
        return None
    if before is False:
        return "undecided", f"base does not compute what the reference computes: {base.row.why_not}"
    unproven = [
        name
        for name, side in (("base", base), ("head", head))
        if side.row.matched and side.row.parity_ok is None and _measured(side.row)
    ]
    return ("undecided", f"not compared with the reference in {listed(unproven)}") if unproven else None


def _unmeasured(base: _Evidence | None, head: _Evidence | None) -> tuple[Outcome | None, str] | None:
    """Return the outcome for a cell that was not measured in both runs."""
    lacks = [
        f"not in {name}" if side is None else f"not measured in {name}: {side.row.why_not}"
        for name, side in (("base", base), ("head", head))
        if side is None or not _measured(side.row)
    ]
    if not lacks:
        return None
    # What base never meant to measure, or could not, cannot have got worse.
    never = base is None or base.row.status == "unavailable"
    new = head is not None and _measured(head.row) and never
    return None if new else "undecided", "; ".join(lacks)


def _measured(row: CellSummary) -> bool:
    return row.measured and row.samples_per_s is not None


def _find(measure: Measure, base: _Evidence, head: _Evidence, drift: float | None) -> Finding | str | None:
    """Return what is found of a measure, in words why nothing is, or None where neither run has it."""
    one, other = base.values[measure.name], head.values[measure.name]
    never = base.censored + head.censored if measure is TIME_TO_TARGET else 0
    if not one and not other and not never:
        return None
    hindered = (
        _learned_otherwise(measure, base, head)
        or _timed_otherwise(measure, base, head, drift)
        or _counted_otherwise(measure, base, head)
    )
    if hindered:
        return hindered
    try:
        # Equal seeds are equal starts; blocks of two runs have nothing in common.
        found = judge(measure, one, other, paired=measure is ACCURACY)
    except ValueError as error:
        return str(error)
    few = "seeds" if measure in (ACCURACY, TIME_TO_TARGET) else "blocks"
    shared = f", {len(one.keys() & other.keys())} of them in both" if measure is ACCURACY else ""
    return found or f"{len(one)} and {len(other)} {few}{shared}; {FEWEST_VALUES} are needed"


def _learned_otherwise(measure: Measure, base: _Evidence, head: _Evidence) -> str | None:
    """Return in words why what was learned cannot be compared; None where it can, or was not asked for."""
    if measure is ACCURACY and base.epochs != head.epochs:
        return f"after {base.epochs or 0:g} and {head.epochs or 0:g} epochs"
    if measure is not TIME_TO_TARGET:
        return None
    if base.row.target_accuracy != head.row.target_accuracy:
        return f"the targets are {_target(base)} and {_target(head)}"
    if base.censored or head.censored:
        return f"{base.censored} and {head.censored} trainings never got there"
    return None


def _counted_otherwise(measure: Measure, base: _Evidence, head: _Evidence) -> str | None:
    """Return in words why memory cannot be compared; None where it can, or is not asked for."""
    if measure is not MEMORY or base.memory_method == head.memory_method:
        return None
    return f"counted as {base.memory_method} in base and as {head.memory_method} in head"


def _timed_otherwise(measure: Measure, base: _Evidence, head: _Evidence, drift: float | None) -> str | None:
    """Return in words why seconds cannot be compared; None where they can, or are not asked for."""
    if not measure.timed:
        return None
    if drift is None:
        return "a run has no canary, which shows whether the machine was the same"
    if not _steady(drift):
        return f"the machine was not the same, as its canary took {1 + drift:.3f} times as long in head"
    disturbed = [name for name, side in (("base", base), ("head", head)) if side.row.disturbed]
    return f"something else disturbed most blocks of {listed(disturbed)}" if disturbed else None


def _steady(drift: float) -> bool:
    """Whether the machine was the same by its canary, whichever of the runs comes first; a NaN is not."""
    return drift > -1 and abs(math.log1p(drift)) <= math.log1p(MOST_DRIFT)


def _target(side: _Evidence) -> str:
    return "none" if side.row.target_accuracy is None else f"{100 * side.row.target_accuracy:g} %"


def _judged(cell: Cell, look: _Look, findings: Sequence[Finding]) -> CellComparison:
    outcome, why = look.certain or _outcome(findings, look.missed)
    return CellComparison(cell=cell, findings=tuple(findings), untold=look.untold, outcome=outcome, why=why)


def _outcome(findings: Sequence[Finding], missed: Collection[str]) -> tuple[Outcome, str]:
    """Return what the figures say; `missed` are the measures that were to be compared and could not be."""
    if worse := [found.measure.name for found in findings if found.kind == "worse"]:
        return "regression", f"{listed(worse)} got worse"
    told = {found.measure.name: found.kind in FINE for found in findings}
    undecided = [measure.name for measure in GATED if not told.get(measure.name, measure.name not in missed)]
    if undecided:
        return "undecided", f"{listed(undecided)} undecided"
    return "fine", "nothing got worse"
