"""The records of each row of a run: those that count, and what is wrong with the others."""

from collections import defaultdict
from collections.abc import Iterable

import msgspec

from bench.analysis.convergence import finished
from bench.analysis.disturbance import in_quiet_rounds
from bench.analysis.statistics import log_rate
from bench.records.runs import Run
from bench.records.schema import STATUS_WORDS, JobRecord, ParityRecord, UnmeasuredRecord
from bench.workloads.specs import Cell


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job's record and what is derived from it."""

    record: JobRecord
    fault: str | None
    """Why it does not count, in words; None if it counts."""
    logs: tuple[float, ...]
    """ln(samples/s) of each window, by round; empty if it was not timed."""

    @property
    def latest(self) -> int:
        """How many of its windows count: the latest ones."""
        return max(1, self.record.spec.windows)


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """The records of one cell that count."""

    jobs: tuple[Job, ...]
    parity: tuple[ParityRecord, ...]
    disproven: JobRecord | None
    """A job whose timed program does not compute what the reference computes, even if it was run again."""
    unmeasured: UnmeasuredRecord | None

    @property
    def sound(self) -> dict[int, Job]:
        """By block, the jobs that were timed and have steady state."""
        return {
            job.record.spec.block: job
            for job in self.jobs
            if job.record.spec.windows and job.fault is None and job.logs
        }

    @property
    def records(self) -> list[JobRecord]:
        return [job.record for job in self.jobs]

    @property
    def faulty(self) -> list[Job]:
        return [job for job in self.jobs if job.fault is not None]

    @property
    def parity_ok(self) -> bool | None:
        """Whether all values agree with the reference; None if some were not compared.

        The values of every optimizer count, and those of the timed program in every job.
        """
        if self.disproven is not None or any(record.lost for record in self.parity):
            return False
        return True if self.parity and all(record.ok for record in self.parity) else None


def gather(run: Run, timed: Iterable[JobRecord]) -> dict[Cell, Evidence]:
    """Group these jobs and the other records by cell: planned cells first, then any that was not planned.

    A job that was run again, for example after a resume, counts once: the last sound one, else the last one.
    """
    jobs: dict[Cell, dict[tuple[int, bool, int], Job]] = defaultdict(dict)
    for record in sorted(timed, key=lambda record: record.started_at):
        spec = record.spec
        # Jobs that only train are identified by seed, timed ones by block.
        key = (spec.block, spec.windows > 0, 0 if spec.windows > 0 else spec.seed)
        job, before = _read_job(record), jobs[spec.cell].get(key)
        if before is None or job.fault is None or before.fault is not None:
            jobs[spec.cell][key] = job
    parity: dict[Cell, dict[str, ParityRecord]] = defaultdict(dict)
    for check in run.parity:
        parity[check.cell][check.optimizer] = check
    disproven = {record.spec.cell: record for record in run.jobs if record.status == "not_comparable"}
    unmeasured = {record.cell: record for record in run.unmeasured}
    return {
        cell: Evidence(
            jobs=tuple(jobs[cell][key] for key in sorted(jobs[cell])) if cell in jobs else (),
            parity=tuple(parity[cell].values()) if cell in parity else (),
            disproven=disproven.get(cell),
            unmeasured=unmeasured.get(cell),
        )
        for cell in dict.fromkeys([*run.header.cells, *jobs, *parity, *unmeasured])
    }


def _read_job(record: JobRecord) -> Job:
    """Judge one job. A job with status ok still fails if it did not do everything it was asked."""
    logs: tuple[float, ...] = ()
    fault = None
    try:
        logs = tuple(log_rate(window.samples, window.seconds) for window in in_quiet_rounds(record.windows))
    except ValueError as error:
        fault = f"failed: {error}"
    if record.status != "ok":
        signal = f" ({record.exit_signal})" if record.exit_signal else ""
        fault = STATUS_WORDS[record.status] + signal + (f": {record.error}" if record.error else "")
    elif len(record.windows) < record.spec.windows:
        fault = f"failed: {len(record.windows)} of {record.spec.windows} windows"
    elif record.spec.epochs > 0 and not finished(record):
        fault = f"failed: training ended before epoch {record.spec.epochs:g}"
    return Job(record=record, fault=fault, logs=logs)
