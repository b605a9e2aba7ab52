"""From a run's raw records to what a reader wants: one row a cell, and a verdict a workload.

A row is ranked only if its cell computes what the reference computes and was timed in enough blocks; every
other planned cell has a row too, with the reason in words. Nothing here is stored.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, groupby
from types import MappingProxyType

import msgspec
import numpy as np

from bench.records import JobRecord, ParityRecord, RunHeader, Status, UnmeasuredRecord
from bench.runs import Run
from bench.specs import Cell, Device, Precision, Workload
from bench.statistics import (
    Estimate,
    PairedDifference,
    detectable_difference,
    estimate,
    holm,
    log_throughput,
    p_value,
    paired_difference,
    ratio_interval,
    window_rate,
)

TIMES = "\N{MULTIPLICATION SIGN}"
DASH = "\N{EN DASH}"

STATUS_WORDS: Mapping[Status, str] = MappingProxyType(
    {
        "ok": "ok",
        "no_steady_state": "no steady state",
        "failed": "failed",
        "crashed": "crashed",
        "timeout": "timed out",
        "out_of_memory": "out of memory",
        "nan_loss": "loss not a number",
        "wrong_device": "ran on another device",
        "unavailable": "not available here",
        "not_measured": "not measured",
    }
)


class CellSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the report. A figure is None where it was not measured, never zero."""

    mark: str | None
    """What sets the whole run apart from a full one, as a limited data set does; None for a full run."""
    workload: str
    backend: str
    mode: str
    device: Device
    precision: Precision
    status: Status
    parity_ok: bool | None
    """Whether it computes what the reference computes; None where that was not verified."""
    ranked: bool
    why_not: str | None
    """Why the row is not ranked, in one line; None if it is."""
    samples_per_s: float | None
    """Steady-state throughput over the blocks that settled; over all others where none did, never ranked."""
    samples_per_s_low: float | None
    samples_per_s_high: float | None
    half_width: float | None
    """Half the interval's width over the throughput: 0.012 for ±1.2 %."""
    imprecise: bool
    """Whether the half-width is larger than the run aimed at."""
    blocks: int
    """Blocks that count: timed, settled and complete."""
    failed_jobs: int
    import_s: float | None
    build_s: float | None
    first_step_s: float | None
    """Median over the jobs, as import_s and build_s are."""
    epochs: float | None
    """Epochs trained by the jobs whose accuracy is given."""
    test_accuracy: float | None
    """Mean over the jobs that trained to the end."""
    trained_jobs: int
    target_accuracy: float | None
    epochs_to_target: float | None
    """Median over the trained jobs, those that never got there counting as later than all.

    None where that median is a job that never got there: it is censored, which jobs_at_target tells apart.
    """
    seconds_to_target: float | None
    """As epochs_to_target, in seconds of training alone: evaluation and start-up are left out."""
    jobs_at_target: int
    peak_rss_bytes: int | None
    """Largest of all jobs, as peak_device_bytes is."""
    peak_device_bytes: int | None

    @property
    def cell(self) -> Cell:
        return Cell(
            workload=self.workload,
            backend=self.backend,
            mode=self.mode,
            device=self.device,
            precision=self.precision,
        )


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two cells of one workload, the one that was faster first."""

    faster: Cell
    slower: Cell
    blocks: int
    """Blocks that both have."""
    ratio: float
    low: float
    high: float
    """The interval at the level `alpha`, which Holm's procedure gave this comparison."""
    p: float
    p_adjusted: float
    alpha: float
    detectable: float
    """The relative difference that would have been found four times in five at this level."""
    differs: bool


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What can be said of one workload on one device in one precision."""

    workload: str
    device: Device
    precision: Precision
    order: tuple[Cell, ...]
    """The ranked cells, the fastest first."""
    winner: Cell | None
    """The cell that is detectably faster than the best cell of every other backend."""
    unranked: tuple[str, ...]
    """Backends of the plan that have no ranked row, so that nothing is said of them."""
    backends: tuple[Comparison, ...]
    """Every pair of the backends' best cells: one family of comparisons."""
    modes: tuple[Comparison, ...]
    """Every pair of modes of one backend: one family a backend."""
    accuracy_spread: float | None
    """Largest less smallest test accuracy of the backends after the same epochs, in percentage points."""
    accuracy_epochs: float | None
    sentences: tuple[str, ...]


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """All that is derived from a run."""

    mark: str | None
    cells: tuple[CellSummary, ...]
    """Workload by workload, device and precision together; ranked rows first, the fastest first."""
    verdicts: tuple[Verdict, ...]
    answer: tuple[str, ...]
    """The run in a few sentences."""
    titles: Mapping[str, str]
    """A backend's title by its name."""


def summarise(run: Run) -> Summary:
    """Derive every row and verdict of a run."""
    header = run.header
    mark = run_mark(header)
    titles = {backend.name: backend.title for backend in header.backends}
    evidence = _gather(run)
    workloads = {workload.name: workload for workload in header.workloads}
    rows = [
        _summarise_cell(cell, found, workloads.get(cell.workload), header, mark)
        for cell, found in evidence.items()
    ]
    names = dict.fromkeys([*workloads, *(row.workload for row in rows)])
    places = {name: place for place, name in enumerate(names)}
    # A row without throughput comes last; rows that nothing tells apart stay in the order of the plan.
    rows.sort(
        key=lambda row: (
            places[row.workload],
            row.device,
            row.precision,
            not row.ranked,
            -(row.samples_per_s or 0.0),
        )
    )
    verdicts = tuple(
        _judge(list(group), evidence, titles)
        for _, group in groupby(rows, key=lambda row: (row.workload, row.device, row.precision))
    )
    return Summary(
        mark=mark,
        cells=tuple(rows),
        verdicts=verdicts,
        answer=_answer(rows, verdicts, titles),
        titles=titles,
    )


def run_mark(header: RunHeader) -> str | None:
    """Return what sets the whole run apart from one on the full data sets; None where nothing does."""
    marks = []
    if header.sample:
        marks.append("made on the small sample that comes with the program")
    if header.dataset_limit is not None:
        marks.append(f"limited to the first {header.dataset_limit:,} images of each split")
    if not marks:
        return None
    return f"{'; '.join(marks).capitalize()}. Not to be compared with a run on the full data sets."


def cell_name(cell: Cell, titles: Mapping[str, str]) -> str:
    """Return what a cell is called inside its workload: the backend's title and the mode."""
    return f"{titles.get(cell.backend, cell.backend)} {cell.mode}"


# ---- one row a cell


class _Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job's record with what is made of it."""

    record: JobRecord
    fault: str | None
    """Why it does not count, in words; None if it does."""
    log: float | None
    """ln(samples/s); None where it was not timed."""


class _Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """The records of one cell that count."""

    jobs: tuple[_Job, ...]
    parity: tuple[ParityRecord, ...]
    unmeasured: UnmeasuredRecord | None

    @property
    def logs(self) -> dict[int, float]:
        """Log-throughput by block, of the jobs that were timed and settled."""
        return {
            job.record.spec.block: job.log
            for job in self.jobs
            if job.record.spec.windows and job.fault is None and job.log is not None
        }

    @property
    def records(self) -> list[JobRecord]:
        return [job.record for job in self.jobs]

    @property
    def faulty(self) -> list[_Job]:
        return [job for job in self.jobs if job.fault is not None]


def _gather(run: Run) -> dict[Cell, _Evidence]:
    """Sort the records by cell: planned cells first, in their order, then any that was not planned.

    A job that was run again, as after a resume, counts once: the last one that is sound, else the last.
    """
    jobs: dict[Cell, dict[tuple[int, bool, int], _Job]] = defaultdict(dict)
    for record in sorted(run.jobs, key=lambda record: record.started_at):
        spec = record.spec
        # Jobs that only train are told apart by seed, timed ones by block.
        key = (spec.block, spec.windows > 0, 0 if spec.windows > 0 else spec.seed)
        job, before = _read_job(record), jobs[spec.cell].get(key)
        if before is None or job.fault is None or before.fault is not None:
            jobs[spec.cell][key] = job
    parity: dict[Cell, dict[str, ParityRecord]] = defaultdict(dict)
    for check in run.parity:
        parity[check.cell][check.optimizer] = check
    unmeasured = {record.cell: record for record in run.unmeasured}
    return {
        cell: _Evidence(
            jobs=tuple(jobs[cell][key] for key in sorted(jobs[cell])) if cell in jobs else (),
            parity=tuple(parity[cell].values()) if cell in parity else (),
            unmeasured=unmeasured.get(cell),
        )
        for cell in dict.fromkeys([*run.header.cells, *jobs, *parity, *unmeasured])
    }


def _read_job(record: JobRecord) -> _Job:
    """Judge one job; one that calls itself ok is held to what it was asked, and fails where that lacks."""
    log, fault = None, None
    try:
        rates = [window_rate(window.samples, window.seconds) for window in record.windows]
        log = log_throughput(rates) if rates else None
    except ValueError as error:
        fault = f"failed: {error}"
    if record.status != "ok":
        signal = f" ({record.exit_signal})" if record.exit_signal else ""
        fault = STATUS_WORDS[record.status] + signal + (f": {record.error}" if record.error else "")
    elif len(record.windows) < record.spec.windows:
        fault = f"failed: {len(record.windows)} of {record.spec.windows} windows"
    elif record.spec.epochs > 0 and not _finished(record):
        fault = f"failed: training ended before epoch {record.spec.epochs:g}"
    return _Job(record=record, fault=fault, log=log)


def _summarise_cell(
    cell: Cell, found: _Evidence, workload: Workload | None, header: RunHeader, mark: str | None
) -> CellSummary:
    blocks = len(found.logs)
    parity_ok = _parity_ok(found.parity)
    records = found.records
    throughput = _throughput(found)
    half_width = throughput.half_width if throughput else None
    reasons = _reasons(found, parity_ok, header.min_blocks)
    trained = _trained(records)
    target = workload.target_accuracy if workload else None
    reached = [_first_at(job, target) for job in trained] if target is not None else []
    return CellSummary(
        mark=mark,
        workload=cell.workload,
        backend=cell.backend,
        mode=cell.mode,
        device=cell.device,
        precision=cell.precision,
        status=_status(found, header.min_blocks),
        parity_ok=parity_ok,
        ranked=not reasons,
        why_not="; ".join(reasons) or None,
        samples_per_s=throughput.value if throughput else None,
        samples_per_s_low=throughput.low if throughput else None,
        samples_per_s_high=throughput.high if throughput else None,
        half_width=half_width,
        imprecise=half_width is not None and half_width > header.target_half_width,
        blocks=blocks,
        failed_jobs=len(found.faulty),
        import_s=_median(record.import_s for record in records),
        build_s=_median(record.build_s for record in records),
        first_step_s=_median(record.first_step_s for record in records),
        epochs=trained[0].points[-1].epoch if trained else None,
        test_accuracy=_mean([job.points[-1].test_accuracy for job in trained]),
        trained_jobs=len(trained),
        target_accuracy=target,
        epochs_to_target=_censored_median([epoch for epoch, _ in reached]),
        seconds_to_target=_censored_median([seconds for _, seconds in reached]),
        jobs_at_target=sum(math.isfinite(epoch) for epoch, _ in reached),
        peak_rss_bytes=_largest(record.peak_rss_bytes for record in records),
        peak_device_bytes=_largest(record.peak_device_bytes for record in records),
    )


def _throughput(found: _Evidence) -> Estimate | None:
    """Return the throughput of the blocks that settled, else of those that did not."""
    logs = list(found.logs.values()) or [
        job.log for job in found.jobs if job.record.status == "no_steady_state" and job.log is not None
    ]
    return estimate(logs) if logs else None


def _status(found: _Evidence, min_blocks: int) -> Status:
    """Return one status for a cell: `ok` with enough blocks, else the last that says why it has too few."""
    if len(found.logs) >= max(1, min_blocks):
        return "ok"
    if found.faulty:
        last = found.faulty[-1].record.status
        return "failed" if last == "ok" else last
    if found.unmeasured:
        return found.unmeasured.status
    if found.jobs:
        return "ok"
    return next((check.status for check in found.parity if check.status != "ok"), "not_measured")


def _reasons(found: _Evidence, parity_ok: bool | None, min_blocks: int) -> list[str]:
    """Return every reason for which a cell is not ranked; none if it is."""
    reasons = []
    if parity_ok is False:
        reasons.append(f"not comparable: {_worst_check(found.parity)}")
    elif parity_ok is None and (found.jobs or found.parity):
        said = [_said(check.status, check.error) for check in found.parity if check.status != "ok"]
        reasons.append(": ".join(["parity not verified", *said[:1]]))
    if len(found.logs) >= max(1, min_blocks):
        return reasons
    blocks: dict[str, list[int]] = defaultdict(list)
    for job in found.faulty:
        blocks[job.fault or ""].append(job.record.spec.block)
    for fault, numbers in blocks.items():
        where = "block" if len(numbers) == 1 else "blocks"
        reasons.append(f"{fault} ({where} {', '.join(map(str, numbers))})")
    if found.jobs:
        reasons.append(f"{len(found.logs)} of the {max(1, min_blocks)} blocks it needs")
    if found.unmeasured:
        reasons.append(_said(found.unmeasured.status, found.unmeasured.error))
    elif not found.jobs:
        reasons.append("not timed" if found.parity else "not measured: the run has no record of it")
    return reasons


def _said(status: Status, error: str | None) -> str:
    return STATUS_WORDS[status] + (f": {error}" if error else "")


def _parity_ok(records: Sequence[ParityRecord]) -> bool | None:
    """Return whether every optimizer's check passed; None where none was done to the end."""
    if any(record.checks and not all(check.ok for check in record.checks) for record in records):
        return False
    return True if records and all(record.ok for record in records) else None


def _worst_check(records: Sequence[ParityRecord]) -> str:
    failed = [check for record in records for check in record.checks if not check.ok]
    # NaN is neither larger nor smaller than a number, so it is put above all of them.
    worst = max(failed, key=lambda c: math.inf if math.isnan(c.error) else c.error / c.tolerance)
    return (
        f"{worst.kind} is off by {worst.error:.1e} from the reference, at {worst.worst}; "
        f"{worst.tolerance:.1e} is allowed"
    )


def _finished(job: JobRecord) -> bool:
    """Say whether a job trained the epochs it was asked for, to the nearest step, with finite results."""
    if not job.points or job.points[-1].steps <= 0:
        return False
    last = job.points[-1]
    a_step = last.epoch / last.steps  # in epochs
    return 0 < job.spec.epochs <= last.epoch + a_step and math.isfinite(last.test_accuracy)


def _trained(jobs: Iterable[JobRecord]) -> list[JobRecord]:
    """Return the jobs that trained to the end, those of the most epochs; a drifting rate does not matter."""
    done = [job for job in jobs if job.status in ("ok", "no_steady_state") and _finished(job)]
    most = max((job.points[-1].epoch for job in done), default=0.0)
    return [job for job in done if math.isclose(job.points[-1].epoch, most)]


def _first_at(job: JobRecord, target: float) -> tuple[float, float]:
    """Return the epochs and the training seconds at the first point at the target; infinite if none is."""
    for point in job.points:
        if point.test_accuracy >= target:
            return point.epoch, point.train_s
    return math.inf, math.inf


def _censored_median(values: Sequence[float]) -> float | None:
    median = float(np.median(values)) if values else math.inf
    return median if math.isfinite(median) else None


def _median(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return float(np.median(present)) if present else None


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _largest(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


# ---- one verdict a workload


def _judge(
    rows: Sequence[CellSummary], evidence: Mapping[Cell, _Evidence], titles: Mapping[str, str]
) -> Verdict:
    """Judge the rows of one workload, device and precision, which come ranked first and the fastest first."""
    ranked = [row.cell for row in rows if row.ranked]
    best_of: dict[str, Cell] = {}
    for cell in ranked:
        best_of.setdefault(cell.backend, cell)
    best = list(best_of.values())
    logs = {cell: evidence[cell].logs for cell in ranked}
    backends = _compare(list(combinations(best, 2)), logs)
    modes = tuple(
        comparison
        for backend in dict.fromkeys(cell.backend for cell in ranked)
        for comparison in _compare(list(combinations([c for c in ranked if c.backend == backend], 2)), logs)
    )
    wins = Counter(comparison.faster for comparison in backends if comparison.differs)
    winner = next((cell for cell in best if len(best) > 1 and wins[cell] == len(best) - 1), None)
    spread, epochs = _accuracy_spread(rows, evidence)
    first = rows[0]
    unranked = tuple(name for name in dict.fromkeys(row.backend for row in rows) if name not in best_of)
    sentences = _sentences(first.workload, best, backends, modes, titles)
    if best and unranked:
        names = _listed([titles.get(name, name) for name in unranked])
        sentences.append(f"Nothing is said of {names} on {first.workload}: no row is ranked.")
    if spread is not None:
        sentences.append(
            f"After {epochs:g} epochs the frameworks' test accuracy on {first.workload} differs by "
            f"{spread:.2f} percentage points at most."
        )
    return Verdict(
        workload=first.workload,
        device=first.device,
        precision=first.precision,
        order=tuple(ranked),
        winner=winner,
        unranked=unranked,
        backends=backends,
        modes=modes,
        accuracy_spread=spread,
        accuracy_epochs=epochs,
        sentences=tuple(sentences),
    )


def _compare(
    pairs: Sequence[tuple[Cell, Cell]], logs: Mapping[Cell, Mapping[int, float]]
) -> tuple[Comparison, ...]:
    """Compare the pairs of one family, the faster side first; a pair needs two blocks that both have."""
    found: list[tuple[Cell, Cell, PairedDifference]] = []
    for first, second in pairs:
        difference = paired_difference(logs[first], logs[second])
        if difference is not None and difference.mean < 0:
            first, second = second, first  # noqa: PLW2901 - the faster side goes first
            difference = msgspec.structs.replace(difference, mean=-difference.mean)
        if difference is not None:
            found.append((first, second, difference))
    p_values = [p_value(difference) for _, _, difference in found]
    comparisons = []
    for (faster, slower, difference), p, step in zip(found, p_values, holm(p_values), strict=True):
        low, high = ratio_interval(difference, step.alpha)
        comparisons.append(
            Comparison(
                faster=faster,
                slower=slower,
                blocks=difference.blocks,
                ratio=difference.ratio,
                low=low,
                high=high,
                p=p,
                p_adjusted=step.p_adjusted,
                alpha=step.alpha,
                detectable=detectable_difference(difference, step.alpha),
                differs=step.rejected,
            )
        )
    return tuple(comparisons)


def _accuracy_spread(
    rows: Sequence[CellSummary], evidence: Mapping[Cell, _Evidence]
) -> tuple[float | None, float | None]:
    """Return the spread of test accuracy between backends, in percentage points, and after which epochs.

    Only rows that compute what the reference computes are asked, since the others are known to differ, and
    of their jobs only those of seeds that all of them trained with.
    """
    asked = [row for row in rows if row.test_accuracy is not None and row.parity_ok]
    epochs = max((row.epochs or 0.0 for row in asked), default=0.0)
    equal = [row for row in asked if math.isclose(row.epochs or 0.0, epochs)]
    if len({row.backend for row in equal}) < 2:
        return None, None
    by_seed = [
        {job.spec.seed: job.points[-1].test_accuracy for job in _trained(evidence[row.cell].records)}
        for row in equal
    ]
    shared = sorted(set.intersection(*(set(accuracies) for accuracies in by_seed)))
    means = [_mean([accuracies[seed] for seed in shared]) for accuracies in by_seed]
    known = [mean for mean in means if mean is not None]
    return (100 * (max(known) - min(known)), epochs) if known else (None, None)


# ---- sentences


def ratio_text(low: float, high: float) -> str:
    """Return an interval of ratios with the digits it takes to keep its ends apart and off 1."""
    for digits in (2, 3, 4):
        ends = f"{low:.{digits}f}", f"{high:.{digits}f}"
        if "1." + "0" * digits not in ends and ends[0] != ends[1]:
            break
    return f"{ends[0]}{TIMES}" if ends[0] == ends[1] else f"{ends[0]}{DASH}{ends[1]}{TIMES}"


def percent_text(share: float) -> str:
    """Return a share as a percentage of two digits or so: `0.8 %`, `12 %`."""
    percent = 100 * share
    if percent > 1000:
        return "over 1000 %"
    return f"{percent:.0f} %" if percent >= 10 else f"{percent:.1f} %"


def _sentences(
    workload: str,
    best: Sequence[Cell],
    backends: Sequence[Comparison],
    modes: Sequence[Comparison],
    titles: Mapping[str, str],
) -> list[str]:
    if not best:
        return [f"No row is ranked on {workload}, so nothing can be said of its speed."]
    sentences = [_sentence(comparison, titles) for comparison in [*backends, *modes]]
    compared = {frozenset((comparison.faster, comparison.slower)) for comparison in backends}
    for pair in combinations(best, 2):
        if frozenset(pair) not in compared:
            first, second = (cell_name(cell, titles) for cell in pair)
            sentences.append(
                f"{first} and {second} cannot be compared on {workload}: they share fewer than two blocks."
            )
    if len(best) == 1:
        title = titles.get(best[0].backend, best[0].backend)
        sentences.append(f"Only {title} is ranked on {workload}: there is no framework to compare it with.")
    return sentences


def _sentence(comparison: Comparison, titles: Mapping[str, str]) -> str:
    faster, slower = cell_name(comparison.faster, titles), cell_name(comparison.slower, titles)
    workload = comparison.faster.workload
    if comparison.differs:
        times = ratio_text(comparison.low, comparison.high)
        return f"{faster} trains {workload} {times} as fast as {slower} here."
    return (
        f"No detectable difference between {faster} and {slower} on {workload} "
        f"(a difference of {percent_text(comparison.detectable)} would have been seen)."
    )


def _answer(
    rows: Sequence[CellSummary], verdicts: Sequence[Verdict], titles: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the run in a few sentences: who is fastest on each workload, and whether all learn the same."""
    several = len({(verdict.device, verdict.precision) for verdict in verdicts}) > 1
    answer = [_fastest(verdict, titles, several=several) for verdict in verdicts]
    spreads = [(v.accuracy_spread, v.workload) for v in verdicts if v.accuracy_spread is not None]
    if spreads:
        spread, name = max(spreads)
        answer.append(
            f"After equal epochs the frameworks' test accuracy differs by {spread:.2f} percentage points "
            f"at most ({name})."
        )
    checked = [row for row in rows if row.parity_ok is not None]
    if checked:
        passed = sum(row.parity_ok is True for row in checked)
        answer.append(
            f"Of {len(checked)} rows held to the float64 reference, {passed} compute the same "
            "within tolerance."
        )
    return tuple(answer) or ("Nothing was measured.",)


def _fastest(verdict: Verdict, titles: Mapping[str, str], *, several: bool) -> str:
    """Return who is fastest on one workload, and by how much over the framework that comes next."""
    where = f"{verdict.workload} ({verdict.device} {verdict.precision})" if several else verdict.workload
    backends = [titles.get(name, name) for name in dict.fromkeys(cell.backend for cell in verdict.order)]
    if verdict.winner:
        beaten = [one for one in verdict.backends if one.faster == verdict.winner]
        next_best = min(beaten, key=lambda one: one.ratio)
        said = (
            f"{cell_name(verdict.winner, titles)} is fastest, {ratio_text(next_best.low, next_best.high)} "
            f"as fast as {cell_name(next_best.slower, titles)}"
        )
    elif len(backends) > 1:
        said = "no framework is detectably faster than every other"
    elif backends:
        said = f"only {backends[0]} is ranked"
    else:
        return f"{where}: nothing is ranked."
    missing = _listed([titles.get(name, name) for name in verdict.unranked]) if verdict.unranked else ""
    return f"{where}: {said}{f' ({missing} not ranked)' if missing else ''}."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
