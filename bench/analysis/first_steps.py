"""How closely the losses of the first training steps agree with the float64 reference.

Every job trains the program that it times beside the reference, from equal weights and at the workload's own
batch size and rate. A rounding error grows from step to step, and how fast depends on the network. So the
errors of a framework are compared with those of a reference that is disturbed by rounding alone.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from bench.analysis.accuracy import left_out
from bench.records.runs import Run
from bench.workloads.specs import Cell, Device, Precision

MOST_DIGITS = 15
"""A float64 holds no more decimal digits than these, so an error of 0 is an agreement to these."""


class FirstSteps(msgspec.Struct, frozen=True, kw_only=True):
    """The relative errors of the losses of one cell, step by step from the first."""

    errors: tuple[float, ...]
    """The largest over all comparisons that its jobs made."""
    rounding: tuple[float, ...]
    """Those of the reference disturbed by rounding alone: the largest over its runs."""


class WorkloadFirstSteps(msgspec.Struct, frozen=True, kw_only=True):
    """The cells of one workload, device and precision whose losses were compared."""

    workload: str
    device: Device
    precision: Precision
    cells: Mapping[Cell, FirstSteps]
    """In the order of the plan, without the reference and without cells that failed parity."""

    @property
    def steps(self) -> int:
        """The steps in which all cells were compared."""
        return min(len(cell.errors) for cell in self.cells.values())

    def error(self, step: int) -> float:
        """Return the largest error of a cell at a step, counted from 1."""
        return max(cell.errors[step - 1] for cell in self.cells.values())

    def rounding(self, step: int) -> float:
        """Return the largest error of the disturbed reference at a step, counted from 1."""
        return max(cell.rounding[step - 1] for cell in self.cells.values())


def first_steps(run: Run) -> tuple[WorkloadFirstSteps, ...]:
    """Derive how closely the first losses of each workload agree with the reference.

    Records that were made before these errors were kept have none, and give nothing. Rows that train a larger
    batch than the workload's, as weak scaling does, have other losses, and are left out.
    """
    found: dict[Cell, list[FirstSteps]] = {cell: [] for cell in run.header.cells}
    for job in run.jobs:
        found.setdefault(job.spec.cell, []).extend(
            FirstSteps(errors=proof.loss_errors, rounding=proof.rounding_errors)
            for proof in job.proofs
            if proof.loss_errors and proof.rounding_errors
        )
    without = left_out(run)
    groups: dict[tuple[str, Device, Precision], dict[Cell, FirstSteps]] = {}
    for cell, comparisons in found.items():
        if comparisons and cell not in without and cell.batches == 1:
            groups.setdefault((cell.workload, cell.device, cell.precision), {})[cell] = FirstSteps(
                errors=_largest(one.errors for one in comparisons),
                rounding=_largest(one.rounding for one in comparisons),
            )
    return tuple(
        WorkloadFirstSteps(workload=workload, device=device, precision=precision, cells=cells)
        for (workload, device, precision), cells in groups.items()
    )


def digits(error: float) -> int:
    """Return the number of decimal digits to which two values agree, from their relative difference.

    They agree to N digits if the difference is at most 10^-N of the value.
    """
    if error <= 0:
        return MOST_DIGITS
    return max(0, min(MOST_DIGITS, math.floor(-math.log10(error))))


def _largest(series: Iterable[Sequence[float]]) -> tuple[float, ...]:
    """Return the largest value at each step that all series have."""
    return tuple(max(values) for values in zip(*series, strict=False))
