"""The time of a run: how much is left, and how long a job will take, judged by the jobs before it."""

import time
from collections.abc import Mapping, Sequence
from statistics import fmean

from bench.measuring.data import Split
from bench.records.schema import JobRecord
from bench.run.log import RunLog
from bench.run.plan import training_seconds
from bench.workloads.specs import Cell

FIRST_GUESS_S = 20.0
"""What a job is expected to take before any has run. It is shown, and never keeps a job from being tried."""
LEAST_LIMIT_S = 120.0
"""No job is stopped earlier than this, unless the budget itself ends."""
OVERRUN = 1.08
"""A job that still runs when this part of the budget is spent is stopped."""


class Budget:
    """The clock of a run. Times are seconds; its four points in time are of the monotonic clock.

    A run that is resumed has spent what its jobs took before. Blocks may take until `deadline`. What is then
    left until `end` is kept for the lessons that are still to be given.
    """

    def __init__(self, log: RunLog, splits: Mapping[str, Split]) -> None:
        self._log, self._splits = log, splits
        self._batch_sizes = {workload.name: workload.batch_size for workload in log.header.workloads}
        taught_s = sum(one.wall_s for one in log.lessons)
        self.start = time.monotonic() - log.jobs_s - taught_s
        self.end = self.start + log.header.budget_s
        self.lessons_s = max(0.0, log.header.planned.lessons_s - taught_s)
        self.deadline = self.end - self.lessons_s
        self.latest = self.start + OVERRUN * log.header.budget_s

    def give_up_lessons(self) -> None:
        """Let blocks use the time that was kept for lessons."""
        self.lessons_s, self.deadline = 0.0, self.end

    @property
    def spent(self) -> bool:
        return time.monotonic() >= self.deadline

    @property
    def left_s(self) -> float:
        return self.deadline - time.monotonic()

    def fits(self, cells: Sequence[Cell], epochs: float) -> bool:
        """Whether a block of these cells, which trains so many epochs, is expected to end in time."""
        return self.block_s(cells, epochs) <= self.left_s

    def block_s(self, cells: Sequence[Cell], epochs: float = 0.0) -> float:
        """Return the seconds that a block of these cells is expected to take."""
        return sum(self.expected_s(cell, epochs) for cell in cells)

    def expected_s(self, cell: Cell, epochs: float) -> float:
        """Return the seconds a job is expected to take, from what this cell, or else any, took before."""
        own = [_without_training(job) for job in self._log.jobs_of(cell)]
        jobs = self._log.jobs
        alike = [job for job in jobs if job.spec.cell.ranks == cell.ranks]
        other = [_without_training(job) for job in alike or jobs]
        base = fmean(own) if own else fmean(other) if other else FIRST_GUESS_S
        return base + (self.training_s(cell, epochs) if epochs else 0.0)

    def training_s(self, cell: Cell, epochs: float) -> float:
        """Return the seconds that a training is expected to take; 0 before the cell was timed."""
        rates = [window.samples / window.seconds for job in self._log.jobs_of(cell) for window in job.windows]
        if not rates:
            return 0.0
        split, batch_size = self._splits[cell.workload], self._batch_sizes[cell.workload]
        return training_seconds(
            fmean(rates), epochs, train=split.train, test=split.test, batch_size=batch_size
        )

    def time_limit_s(self, cell: Cell, epochs: float) -> float:
        return max(3 * self.expected_s(cell, epochs), LEAST_LIMIT_S)


def _without_training(job: JobRecord) -> float:
    return job.wall_s - (job.learn_s or 0.0)
