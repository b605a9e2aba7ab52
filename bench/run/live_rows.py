"""The rows of the live table, from what a run has recorded so far."""

from collections.abc import Collection, Sequence

import msgspec

from bench.analysis.disturbance import in_quiet_rounds
from bench.analysis.statistics import Estimate, estimate, log_rate, log_throughput
from bench.analysis.summary import FEWEST_FOR_INTERVAL
from bench.records.schema import JobRecord
from bench.report.format import NOTHING, cell_name, rate_text, width_text
from bench.run.live import LiveRow
from bench.run.log import RunLog
from bench.workloads.specs import Cell


class LiveRows:
    """Rows in the order of the plan. The estimates are made once a block, the rates of turns at once."""

    def __init__(self, log: RunLog) -> None:
        self._log = log
        self._titles = {backend.name: backend.title for backend in log.header.backends}
        self._finished: dict[Cell, LiveRow] = {}
        self._turns: dict[Cell, tuple[int, float]] = {}
        """Samples and seconds of the block that runs now."""
        self.begin_block(())

    def begin_block(self, cells: Collection[Cell]) -> None:
        """Take up what was recorded; these cells run now."""
        self._turns = {}
        jobs: dict[Cell, list[JobRecord]] = {}
        for job in self._log.jobs:
            jobs.setdefault(job.spec.cell, []).append(job)
        faults = self._log.faults()
        self._finished = {
            cell: self._row(cell, jobs.get(cell, []), faults.get(cell, ""), running=cell in cells)
            for cell in self._order()
        }

    def take_turn(self, cell: Cell, samples: int, seconds: float) -> None:
        """Count a window of the block that runs now."""
        before = self._turns.get(cell, (0, 0.0))
        self._turns[cell] = before[0] + samples, before[1] + seconds

    def rows(self) -> list[LiveRow]:
        """Return the rows. One that has no finished block shows the rate of its turns so far."""
        return [self._with_turns(cell, row) for cell, row in self._finished.items()]

    def _with_turns(self, cell: Cell, row: LiveRow) -> LiveRow:
        samples, seconds = self._turns.get(cell, (0, 0.0))
        if row.rate or row.fault or not seconds:
            return row
        return msgspec.structs.replace(row, rate=rate_text(samples / seconds), half_width=NOTHING)

    def _order(self) -> Sequence[Cell]:
        """Return the cells of the plan, those of a workload together."""
        names = [workload.name for workload in self._log.header.workloads]
        return sorted(self._log.header.cells, key=lambda cell: names.index(cell.workload))

    def _row(self, cell: Cell, jobs: Sequence[JobRecord], fault: str, *, running: bool) -> LiveRow:
        done = [job for job in jobs if job.status == "ok" and job.windows]
        needed = self._log.header.min_blocks
        found = _estimate(done)
        interval = found is not None and found.blocks >= FEWEST_FOR_INTERVAL
        return LiveRow(
            workload=cell.workload,
            name=cell_name(cell, self._titles),
            blocks=f"{len(done)}/{needed}" if len(done) < needed else str(len(done)),
            rate="" if found is None else rate_text(found.value),
            half_width="" if found is None else width_text(found.half_width if interval else None),
            fault=fault,
            running=running,
        )


def _estimate(jobs: Sequence[JobRecord]) -> Estimate | None:
    """Return the throughput over the jobs of a cell; None if none of them has a rate."""
    logs = [log for job in jobs if (log := _log_throughput(job)) is not None]
    return estimate(logs) if logs else None


def _log_throughput(job: JobRecord) -> float | None:
    windows = in_quiet_rounds(job.windows)
    try:
        logs = [log_rate(window.samples, window.seconds) for window in windows]
    except ValueError:  # a backend has miscounted; the report says so
        return None
    return log_throughput(logs, max(1, job.spec.windows))
