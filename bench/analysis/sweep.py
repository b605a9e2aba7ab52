"""Reading a batch-size sweep: where the overhead of a step ends and the work of its images begins.

The workloads of a sweep are called `<workload>@<batch size>` and differ only in the batch size.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from bench.analysis.summary import Summary
from bench.workloads.catalog import SWEPT
from bench.workloads.specs import Cell

FEWEST_BATCHES = 3
"""A line always fits two points, so two points cannot show whether a line is right."""
GOOD_FIT = 0.15
"""A line that misses a point by more than this share of its time does not describe the sweep."""


class SweepPoint(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """One batch size of a sweep."""

    batch_size: int
    samples_per_s: float

    @property
    def step_s(self) -> float:
        return self.batch_size / self.samples_per_s


class StepLine(msgspec.Struct, frozen=True, kw_only=True):
    """A step's time as a line: overhead_s + per_image_s x batch size. Neither is negative."""

    overhead_s: float
    per_image_s: float
    worst: float
    """Largest relative distance of a measured step from the line: 0.05 for 5 %."""

    @property
    def good(self) -> bool:
        return self.worst <= GOOD_FIT

    @property
    def half_batch(self) -> float | None:
        """The batch size at which overhead is half of the step; None if a larger batch takes no longer."""
        return self.overhead_s / self.per_image_s if self.per_image_s > 0 else None


class Sweep(msgspec.Struct, frozen=True, kw_only=True):
    """One workload in one backend and mode over its batch sizes, in their order."""

    cell: Cell
    """With the name of the workload without a batch size."""
    points: tuple[SweepPoint, ...]
    line: StepLine | None
    """None below three batch sizes."""


def split_name(name: str) -> tuple[str, int] | None:
    """Return a swept workload's name and batch size; None for a workload that is not part of a sweep."""
    base, _, batch = name.rpartition(SWEPT)
    return (base, int(batch)) if base and batch.isascii() and batch.isdecimal() and int(batch) else None


def read_sweeps(summary: Summary) -> tuple[Sweep, ...]:
    """Return every sweep of a run, without rows that failed parity or never kept a steady pace."""
    found: dict[Cell, list[SweepPoint]] = {}
    for row in summary.cells:
        named = split_name(row.workload)
        if named is None or row.samples_per_s is None or row.status != "ok" or row.parity_ok is False:
            continue
        base, batch = named
        cell = msgspec.structs.replace(row.cell, workload=base)
        found.setdefault(cell, []).append(SweepPoint(batch_size=batch, samples_per_s=row.samples_per_s))
    return tuple(
        Sweep(cell=cell, points=tuple(sorted(points)), line=fit(points)) for cell, points in found.items()
    )


def leave_out_sweep(summary: Summary) -> frozenset[Cell]:
    """Return the rows outside a sweep; if all rows belong to one, those of its largest batch size."""
    named = {row.cell: split_name(row.workload) for row in summary.cells}
    if None in named.values():
        return frozenset(cell for cell, name in named.items() if name is None)
    largest: dict[str, int] = {}
    for base, batch in filter(None, named.values()):
        largest[base] = max(batch, largest.get(base, 0))
    return frozenset(cell for cell, name in named.items() if name and largest[name[0]] == name[1])


def fit(points: Sequence[SweepPoint]) -> StepLine | None:
    """Return the line with the smallest relative error of the steps' times; None below three batch sizes.

    It minimises the sum of ((line - time) / time)² with overhead_s >= 0 and per_image_s >= 0 (non-negative
    least squares; Lawson and Hanson, Solving Least Squares Problems, 1974, chapter 23). The error is relative
    because the scatter of a time grows with the time, and because the smallest batches show the overhead
    best.
    """
    if len({point.batch_size for point in points}) < FEWEST_BATCHES:
        return None
    from scipy.optimize import nnls

    times = np.array([point.step_s for point in points])
    batches = np.array([point.batch_size for point in points], dtype=np.float64)
    design = np.column_stack([1 / times, batches / times])
    (overhead_s, per_image_s), _ = nnls(design, np.ones_like(times))
    misses = np.abs(design @ np.array([overhead_s, per_image_s]) - 1)
    return StepLine(overhead_s=float(overhead_s), per_image_s=float(per_image_s), worst=float(misses.max()))
