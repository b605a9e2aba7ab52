"""Two runs compared: for each cell what changed, and whether it got worse.

The runs were made one after the other, so their rounds cannot be paired, and every difference contains what
the machine did between the runs. The canary, a fixed NumPy product that every block computes, shows whether
the machine was faster or slower. `bench ab` measures both sides side by side and does not have this problem.
"""

import math
from collections.abc import Collection, Mapping, Sequence

import msgspec

from bench.analysis.comparison import Standing
from bench.analysis.convergence import CellConvergence, cell_convergence, is_too_brief
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
    Conclusion,
    Finding,
    Metric,
    in_families,
    judge,
)
from bench.records.runs import Run
from bench.records.schema import JobRecord
from bench.text import listed
from bench.workloads.specs import Cell

MOST_DRIFT = 0.03
"""Largest relative change of the canary's time between the runs with which times are still compared."""


class CellComparison(msgspec.Struct, frozen=True, kw_only=True):
    """One cell in both runs."""

    cell: Cell
    findings: tuple[Finding, ...]
    untold: Mapping[str, str]
    """The metrics that could not be compared, by name, with the reason."""
    conclusion: Conclusion | None
    """None if only head has the cell: there is nothing to compare it with."""
    why: str
    """The reason for the conclusion, in words."""


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """The comparison of two runs."""

    base: Run
    head: Run
    cells: tuple[CellComparison, ...]
    changes: tuple[Changed, ...]
    drift: float | None
    """How much longer the canary took in head: 0.02 for 2 %. None if a run has no canary."""
    titles: Mapping[str, str]

    @property
    def conclusion(self) -> Conclusion:
        """A regression if any cell has one; fine only if at least one cell was compared and all are fine."""
        conclusions = {one.conclusion for one in self.cells if one.conclusion is not None}
        if "regression" in conclusions:
            return "regression"
        return "fine" if conclusions == {"fine"} and not self.unreadable else "undecided"

    @property
    def unreadable(self) -> tuple[str, ...]:
        """The lines of both runs that cannot be read. With any, the comparison does not pass."""
        return tuple(f"{run.folder}: {line}" for run in (self.base, self.head) for line in run.rejected)


def compare(base: Run, head: Run) -> Compared:
    """Compare every cell of either run. Changes are claimed by Holm's method over all cells."""
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
    """The figures of one cell in one run."""

    row: CellSummary
    values: Mapping[str, Mapping[int, float]]
    """The values by block or by seed, by the metric's name."""
    memory_method: str | None
    """The method by which memory was counted."""
    epochs: float | None
    brief: bool
    """Whether it trained too briefly for its accuracy to be compared."""
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
        ACCURACY.name: {} if _brief(learned) else dict(standing.accuracies),
        TIME_TO_TARGET.name: _times(learned),
    }
    return _Evidence(
        row=row,
        values=values,
        memory_method=next((job.peak_rss_method for job in sound if job.peak_rss_method), None),
        epochs=row.epochs,
        brief=_brief(learned),
        censored=sum(crossing is None for crossing in learned.crossings.values()) if learned else 0,
    )


def _by_block(jobs: Sequence[JobRecord], field: str, *, anew: bool = False) -> dict[int, float]:
    """Return a field of the jobs by block; with `anew`, only of jobs that compiled everything anew."""
    return {
        job.spec.block: float(value)
        for job in jobs
        if (value := getattr(job, field)) is not None and (job.spec.compiles_anew or not anew)
    }


def _brief(learned: CellConvergence | None) -> bool:
    return learned is not None and learned.epochs is not None and is_too_brief(learned.epochs)


def _times(learned: CellConvergence | None) -> dict[int, float]:
    crossings = learned.crossings if learned else {}
    return {seed: crossing.seconds for seed, crossing in crossings.items() if crossing is not None}


class _Look(msgspec.Struct, frozen=True, kw_only=True):
    """The comparison of one cell, before Holm's method decides which changes are claimed."""

    certain: tuple[Conclusion | None, str] | None = None
    """The conclusion that does not depend on the figures, with the reason."""
    findings: tuple[Finding, ...] = ()
    untold: Mapping[str, str] = {}
    missed: tuple[str, ...] = ()
    """The metrics that base has values for and that could not be compared."""


def _look(
    base: _Evidence | None,
    head: _Evidence | None,
    drift: float | None,
    *,
    data: Changed | None,
    work: Sequence[Changed],
) -> _Look:
    """Compare one cell; `data` and `work` are the differences that make head do other work than base."""
    certain = _unlike_reference(base, head) or _unmeasured(base, head)
    if base is None or head is None or certain is not None:
        return _Look(certain=certain)
    if data is not None:
        return _Look(certain=("undecided", f"not the same work: {data.in_words()}"))
    findings, untold, missed = [], {}, []
    for metric in (SPEED, FIRST_STEP, MEMORY, DEVICE_MEMORY, ACCURACY, TIME_TO_TARGET):
        found = _find(metric, base, head, drift)
        if isinstance(found, Finding):
            findings.append(found)
        elif found is not None:
            untold[metric.name] = found
            if metric is SPEED or (base.values[metric.name] and not _as_good(metric, base, head)):
                missed.append(metric.name)
    changed = f"not the same work: {listed([one.in_words() for one in work])}" if work else None
    return _Look(
        certain=("undecided", changed) if changed else None,
        findings=tuple(findings),
        untold=untold,
        missed=tuple(missed),
    )


def _as_good(metric: Metric, base: _Evidence, head: _Evidence) -> bool:
    """Whether every seed ended as in base, which is enough to pass where seeds are too few for a verdict."""
    one, other = base.values[metric.name], head.values[metric.name]
    return (
        metric is ACCURACY
        and base.epochs == head.epochs
        and one.keys() == other.keys()
        and all(abs(other[seed] - value) <= metric.margin for seed, value in one.items())
    )


def _unlike_reference(base: _Evidence | None, head: _Evidence | None) -> tuple[Conclusion | None, str] | None:
    """Return the conclusion for a cell that is not known to agree with the reference."""
    before, now = (None if side is None else side.row.parity_ok for side in (base, head))
    if head is not None and now is False:
        said = f"head does not compute what the reference computes: {head.row.why_not}"
        if base is None or before:  # parity is lost only if base had it, and a new row must have it
            return "regression", said
        other = "base was not compared with it" if before is None else "base does not either"
        return "undecided", f"{said}; {other}"
    if base is None or head is None:
        return None
    if before is False:
        other = "head agrees with it" if now else "head was not compared with it"
        return (
            "undecided",
            f"base does not compute what the reference computes: {base.row.why_not}; {other}. Their speeds "
            "are not compared",
        )
    unproven = [
        name
        for name, side in (("base", base), ("head", head))
        if side.row.matched and side.row.parity_ok is None and _measured(side.row)
    ]
    return ("undecided", f"not compared with the reference in {listed(unproven)}") if unproven else None


def _unmeasured(base: _Evidence | None, head: _Evidence | None) -> tuple[Conclusion | None, str] | None:
    """Return the conclusion for a cell that was not measured in both runs."""
    lacks = [
        f"not in {name}" if side is None else f"not measured in {name}: {side.row.why_not}"
        for name, side in (("base", base), ("head", head))
        if side is None or not _measured(side.row)
    ]
    if not lacks:
        return None
    # A cell that base did not plan, or could not measure, cannot have got worse.
    never = base is None or base.row.status == "unavailable"
    new = head is not None and _measured(head.row) and never
    return None if new else "undecided", "; ".join(lacks)


def _measured(row: CellSummary) -> bool:
    return row.measured and row.samples_per_s is not None


def _find(metric: Metric, base: _Evidence, head: _Evidence, drift: float | None) -> Finding | str | None:
    """Return the finding for a metric, or the reason why there is none, or None if neither run has it."""
    one, other = base.values[metric.name], head.values[metric.name]
    if metric is ACCURACY and base.brief and base.epochs == head.epochs:
        return f"trained too briefly to compare: {base.epochs:g} epochs"
    never = base.censored + head.censored if metric is TIME_TO_TARGET else 0
    if not one and not other and not never:
        return None
    hindered = (
        _learned_otherwise(metric, base, head)
        or _timed_otherwise(metric, base, head, drift)
        or _counted_otherwise(metric, base, head)
    )
    if hindered:
        return hindered
    try:
        # Equal seeds are equal starts, so they are paired; blocks of two runs are not.
        found = judge(metric, one, other, paired=metric is ACCURACY)
    except ValueError as error:
        return str(error)
    few = "seeds" if metric in (ACCURACY, TIME_TO_TARGET) else "blocks"
    shared = f", {len(one.keys() & other.keys())} of them in both" if metric is ACCURACY else ""
    return found or f"{len(one)} and {len(other)} {few}{shared}; {FEWEST_VALUES} are needed"


def _learned_otherwise(metric: Metric, base: _Evidence, head: _Evidence) -> str | None:
    """Return the reason why accuracy or time to target cannot be compared; None if it can, or for others."""
    if metric is ACCURACY and base.epochs != head.epochs:
        return f"after {base.epochs or 0:g} and {head.epochs or 0:g} epochs"
    if metric is not TIME_TO_TARGET:
        return None
    if base.row.target_accuracy != head.row.target_accuracy:
        return f"the targets are {_target(base)} and {_target(head)}"
    if base.censored or head.censored:
        return f"{base.censored} and {head.censored} trainings did not reach the target"
    return None


def _counted_otherwise(metric: Metric, base: _Evidence, head: _Evidence) -> str | None:
    """Return the reason why memory cannot be compared; None if it can, or for another metric."""
    if metric is not MEMORY or base.memory_method == head.memory_method:
        return None
    return f"counted as {base.memory_method} in base and as {head.memory_method} in head"


def _timed_otherwise(metric: Metric, base: _Evidence, head: _Evidence, drift: float | None) -> str | None:
    """Return the reason why times cannot be compared; None if they can, or for other metrics."""
    if not metric.timed:
        return None
    if drift is None:
        return "a run has no canary, which would show whether the machine was as fast"
    if not _steady(drift):
        return f"the machine was not equally fast: the canary took {1 + drift:.3f} times as long in head"
    disturbed = [name for name, side in (("base", base), ("head", head)) if side.row.disturbed]
    return f"something else disturbed most blocks of {listed(disturbed)}" if disturbed else None


def _steady(drift: float) -> bool:
    """Whether the machine was equally fast by its canary, in either order of the runs; False for NaN."""
    return drift > -1 and abs(math.log1p(drift)) <= math.log1p(MOST_DRIFT)


def _target(side: _Evidence) -> str:
    return "none" if side.row.target_accuracy is None else f"{100 * side.row.target_accuracy:g} %"


def _judged(cell: Cell, look: _Look, findings: Sequence[Finding]) -> CellComparison:
    conclusion, why = look.certain or _conclusion(findings, look.missed)
    return CellComparison(
        cell=cell, findings=tuple(findings), untold=look.untold, conclusion=conclusion, why=why
    )


def _conclusion(findings: Sequence[Finding], missed: Collection[str]) -> tuple[Conclusion, str]:
    """Return the conclusion of the figures; `missed` are the metrics that could not be compared."""
    if worse := [found.metric.name for found in findings if found.kind == "worse"]:
        return "regression", f"{listed(worse)} got worse"
    told = {found.metric.name: found.kind in FINE for found in findings}
    undecided = [metric.name for metric in GATED if not told.get(metric.name, metric.name not in missed)]
    if undecided:
        return "undecided", f"{listed(undecided)} undecided"
    return "fine", "nothing got worse"
