"""The rows of a run that were timed, each with the values that its throughput is computed from."""

import math
from collections.abc import Iterator, Mapping

import msgspec
import numpy as np

from bench.analysis.disturbance import UNDISTURBED
from bench.analysis.statistics import log_throughput
from bench.analysis.summary import CellSummary, Summary
from bench.records.runs import Run


class TimedCell(msgspec.Struct, frozen=True, kw_only=True):
    """A row with at least one block that counts."""

    row: CellSummary
    batch_size: int
    steps: int
    """Steps of a window, the median."""
    rounds: Mapping[int, tuple[float, ...]]
    """For each block that counts: ln(samples/s) of the windows that count, in order."""

    @property
    def logs(self) -> list[float]:
        """ln(samples/s) of each block, as in the report."""
        return [log_throughput(rounds, len(rounds)) for rounds in self.rounds.values()]

    def step_s(self, log: float) -> float:
        """Return the seconds of a training step of a whole batch, from ln(samples/s)."""
        return self.batch_size * math.exp(-log)


def timed_cells(run: Run, summary: Summary) -> Iterator[TimedCell]:
    """Yield the timed rows in the report's order."""
    for row, standing in zip(summary.cells, summary.standings, strict=True):
        dropped = summary.screenings.get(row.workload, UNDISTURBED).dropped
        rounds = {
            block: tuple(logs[-standing.latest :])
            for block, logs in standing.rounds.items()
            if block not in dropped
        }
        if rounds:
            jobs = [job for job in run.jobs if job.spec.cell == row.cell and job.windows]
            yield TimedCell(
                row=row,
                batch_size=jobs[-1].spec.workload.batch_size,
                steps=int(np.median([window.steps for job in jobs for window in job.windows])),
                rounds=rounds,
            )


def comparable(row: CellSummary) -> bool:
    """Whether a tool that shows values without remarks may get this row: it did not lose parity.

    The charts and alerts of other tools have no place for "does not compute what the reference computes".
    """
    return row.parity_ok is not False
