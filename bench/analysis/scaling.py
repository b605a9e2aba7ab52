"""Scaling: what several ranks bring a framework, against its plain mode at one rank.

    speed-up    S(N) = samples/s of the distributed mode with N ranks / samples/s of the plain mode
    efficiency  E(N) = S(N) / N
    cost at one rank = 1 - S(1)

The plain mode is the framework's default mode in one process, pinned to one core or with one GPU, as every
rank is. In strong scaling all rows train the same batch, and the ranks share it. In weak scaling the batch
grows with N; the formulas are the same, because they count samples.

Both sides of a ratio come from the same blocks, and its interval from their differences, as that of any
comparison. The numbers of ranks of one framework are one family of comparisons.
"""

from collections.abc import Sequence

import msgspec

from bench.analysis.comparison import Comparison, Standing, compare_with
from bench.analysis.disturbance import UNDISTURBED
from bench.analysis.ranks import NOT_TOLD, distributed_modes, shared_device
from bench.analysis.summary import CellSummary, Summary
from bench.records.runs import Run
from bench.records.schema import RunHeader
from bench.workloads.ranks import Scaling
from bench.workloads.specs import Cell, Device, Precision


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """A ratio with its 95 % interval by Student's t, from paired blocks."""

    value: float
    low: float
    high: float


class ScalingPoint(msgspec.Struct, frozen=True, kw_only=True):
    """The distributed mode with one number of ranks."""

    ranks: int
    cell: Cell
    samples_per_s: float | None
    """Throughput of all ranks together; None if the row is not ranked, like the next two fields."""
    samples_per_s_low: float | None
    samples_per_s_high: float | None
    speed_up: Share | None
    """S(N); None unless this row and the plain one are ranked and share two blocks."""
    efficiency: Share | None
    """E(N) = S(N) / N: 1 is the ideal."""
    own_devices: bool | None
    """Whether every rank had a core or a GPU of its own; None if no record tells."""
    comparison: Comparison | None
    """The comparison with the plain row that `speed_up` is taken from."""
    why_not: str | None
    """Why there is no speed-up, in one line; None if there is one."""

    @property
    def proven(self) -> bool:
        """Whether the speed-up is proven above one."""
        return self.comparison is not None and self.comparison.differs and self.comparison.faster == self.cell

    @property
    def proven_slower(self) -> bool:
        """Whether the speed-up is proven below one."""
        return self.comparison is not None and self.comparison.differs and self.comparison.slower == self.cell


class ScalingSeries(msgspec.Struct, frozen=True, kw_only=True):
    """One framework on one workload, from the least to the largest number of ranks."""

    workload: str
    backend: str
    mode: str
    """The distributed mode."""
    device: Device
    precision: Precision
    scaling: Scaling
    plain: Cell | None
    """The plain row at one rank; None if none was planned."""
    plain_samples_per_s: float | None
    """Its throughput; None if it is not ranked, like the next two fields."""
    plain_samples_per_s_low: float | None
    plain_samples_per_s_high: float | None
    points: tuple[ScalingPoint, ...]
    cost_at_one_rank: Share | None
    """1 - S(1), the share of the plain row's throughput that is lost by being distributed: 0.03 for 3 %, and
    negative if the distributed mode is faster. None if S(1) is not known."""
    break_even: int | None
    """The least number of ranks whose speed-up is proven above one; None if there is none, or if nobody can
    tell."""
    break_even_known: bool
    """Whether the speed-up of several ranks was measured in enough quiet blocks. If not, `break_even` is None
    because it is unknown, and not because no number of ranks has been enough so far."""

    @property
    def measured(self) -> tuple[ScalingPoint, ...]:
        """The points that have a speed-up."""
        return tuple(point for point in self.points if point.speed_up is not None)

    @property
    def disturbed(self) -> bool:
        """Whether so many blocks were disturbed that nothing is claimed."""
        return any(point.comparison and point.comparison.kind == "disturbed" for point in self.points)


def read_scaling(run: Run, summary: Summary) -> tuple[ScalingSeries, ...]:
    """Return every series of a run with ranks, in the order of its rows; nothing for any other run."""
    distributed = distributed_modes(run.header)
    rows = {row.cell: row for row in summary.cells if not row.reference}
    families: dict[tuple[str, str, str, Device, Precision, Scaling], list[CellSummary]] = {}
    for row in sorted(rows.values(), key=lambda row: row.ranks):
        if (row.backend, row.mode) in distributed:
            key = (row.workload, row.backend, row.mode, row.device, row.precision, row.scaling)
            families.setdefault(key, []).append(row)
    workloads = list(dict.fromkeys(row.workload for row in summary.cells))
    backends = [backend.name for backend in run.header.backends]
    found = [
        _series(_with_one_rank(family, rows), _plain(family[0], rows, run.header), run, summary)
        for family in families.values()
        if family[-1].ranks > 1 or not _is_twin(family[0], rows)
    ]
    return tuple(
        sorted(
            found,
            key=lambda one: (
                workloads.index(one.workload),
                one.device,
                one.precision,
                one.scaling,
                backends.index(one.backend),
            ),
        )
    )


def _is_twin(row: CellSummary, rows: dict[Cell, CellSummary]) -> bool:
    """Say whether a row of one rank belongs to the series of the other scaling, which has several ranks."""
    return any(
        msgspec.structs.replace(other, ranks=1, scaling=row.scaling) == row.cell
        for other in rows
        if other.ranks > 1 and other.scaling != row.scaling
    )


def _with_one_rank(family: Sequence[CellSummary], rows: dict[Cell, CellSummary]) -> list[CellSummary]:
    """Return the rows of a series, with that of one rank of the other scaling if it has none of its own.

    One rank trains the same batch in either scaling.
    """
    first = family[0].cell
    if first.ranks == 1:
        return list(family)
    other: Scaling = "weak" if first.scaling == "strong" else "strong"
    twin = rows.get(msgspec.structs.replace(first, ranks=1, scaling=other))
    return [*([twin] if twin is not None else []), *family]


def _plain(row: CellSummary, rows: dict[Cell, CellSummary], header: RunHeader) -> CellSummary | None:
    """Return the plain row that a distributed one is measured against: its framework's default mode."""
    defaults = {backend.name: backend.default_mode for backend in header.backends}
    mode = defaults.get(row.backend, row.mode)
    scalings: tuple[Scaling, Scaling] = ("strong", "weak")
    cells = [msgspec.structs.replace(row.cell, mode=mode, ranks=1, scaling=scaling) for scaling in scalings]
    return next((rows[cell] for cell in cells if cell in rows), None)


def _series(
    family: Sequence[CellSummary], plain: CellSummary | None, run: Run, summary: Summary
) -> ScalingSeries:
    standings = {one.cell: one for one in summary.standings}
    compared = _compared(family, plain, standings, summary)
    points = tuple(_point(row, plain, compared.get(row.cell), run) for row in family)
    first = family[-1]
    one_rank = next((point.speed_up for point in points if point.ranks == 1), None)
    proven = [point.ranks for point in points if point.proven]
    ranked = plain if plain is not None and plain.ranked else None
    return ScalingSeries(
        workload=first.workload,
        backend=first.backend,
        mode=first.mode,
        device=first.device,
        precision=first.precision,
        scaling=first.scaling,
        plain=plain.cell if plain is not None else None,
        plain_samples_per_s=ranked.samples_per_s if ranked else None,
        plain_samples_per_s_low=ranked.samples_per_s_low if ranked else None,
        plain_samples_per_s_high=ranked.samples_per_s_high if ranked else None,
        points=points,
        cost_at_one_rank=None
        if one_rank is None
        else Share(value=1 - one_rank.value, low=1 - one_rank.high, high=1 - one_rank.low),
        break_even=min(proven, default=None),
        break_even_known=any(
            point.ranks > 1 and point.comparison is not None and point.comparison.kind != "disturbed"
            for point in points
        ),
    )


def _compared(
    family: Sequence[CellSummary],
    plain: CellSummary | None,
    standings: dict[Cell, Standing],
    summary: Summary,
) -> dict[Cell, Comparison]:
    """Compare every ranked row of a series with the plain one."""
    if plain is None or not plain.ranked:
        return {}
    ranked = [standings[row.cell] for row in family if row.ranked]
    return compare_with(standings[plain.cell], ranked, summary.screenings.get(plain.workload, UNDISTURBED))


def _point(
    row: CellSummary, plain: CellSummary | None, comparison: Comparison | None, run: Run
) -> ScalingPoint:
    value, low, high = comparison.seen_from(row.cell) if comparison else (None, None, None)
    speed_up = efficiency = None
    if value is not None and low is not None and high is not None:
        speed_up = Share(value=value, low=low, high=high)
        efficiency = Share(value=value / row.ranks, low=low / row.ranks, high=high / row.ranks)
    return ScalingPoint(
        ranks=row.ranks,
        cell=row.cell,
        samples_per_s=row.samples_per_s if row.ranked else None,
        samples_per_s_low=row.samples_per_s_low if row.ranked else None,
        samples_per_s_high=row.samples_per_s_high if row.ranked else None,
        speed_up=speed_up,
        efficiency=efficiency,
        own_devices=_own_devices(row.cell, run),
        comparison=comparison,
        why_not=None if speed_up else _why_not(row, plain),
    )


def _own_devices(cell: Cell, run: Run) -> bool | None:
    jobs = [job for job in run.jobs if job.spec.cell == cell and job.windows]
    shared = shared_device(jobs)
    return None if not jobs or shared == NOT_TOLD else shared is None


def _why_not(row: CellSummary, plain: CellSummary | None) -> str:
    if not row.ranked:
        return row.why_not or "no reason recorded"
    if plain is None:
        return "the run has no plain row at one rank"
    if not plain.ranked:
        return f"the plain row is not ranked: {plain.why_not or 'no reason recorded'}"
    return "it shares fewer than two blocks with the plain row"
