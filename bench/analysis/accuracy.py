"""Whether frameworks learn the same: tests of accuracy, the frameworks' own defaults, targets for workloads.

Trainings of one seed start from the same weights and take the same batches in every cell of a matched
workload, so accuracies are compared in pairs, seed by seed. Accuracies and differences are shares of 1.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import msgspec

from bench.analysis.convergence import (
    FEWEST_SEEDS,
    CellConvergence,
    CurvePoint,
    cell_convergence,
    mean,
    standard_deviation,
)
from bench.analysis.statistics import (
    Difference,
    detectable_range,
    holm,
    p_value,
    paired_difference,
    ratio_interval,
)
from bench.records.runs import Run
from bench.records.schema import JobRecord
from bench.workloads.specs import Cell, Device, Precision, Workload

ALPHA = 0.05
"""Level of a workload's family of tests. Higher than for throughput: there are few seeds and no margin."""
EQUIVALENT = 0.005
"""Accuracies count as equal if their difference is shown to be smaller than this: half a percentage point."""
TARGET_SDS = 3
"""A target lies this many standard deviations below the mean of the measured accuracies."""


class AccuracyTest(msgspec.Struct, frozen=True, kw_only=True):
    """A paired t test of two cells' final accuracies. Accuracies and their differences are shares of 1."""

    difference: float
    """The first cell's mean less the second's, over the shared seeds."""
    low: float
    """Lower end of the interval at the level `alpha`, which Holm's procedure gave this comparison."""
    high: float
    alpha: float
    p_adjusted: float
    differs: bool
    detectable: tuple[float, float] | None
    """The range of the smallest difference that is found four times in five at this level; None below six
    seeds."""
    equivalent: bool
    """Whether two one-sided tests, with Holm's method over the pairs, show equality within `EQUIVALENT`."""


class AccuracyComparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two frameworks on one workload. If they were tested, the one with the higher mean is first."""

    first: Cell
    second: Cell
    seeds: int
    """Seeds with which both trained, for the same number of epochs."""
    test: AccuracyTest | None
    """None below `FEWEST_SEEDS`."""


class WorkloadConvergence(msgspec.Struct, frozen=True, kw_only=True):
    """The cells of one workload, device and precision that trained, and the comparisons between them."""

    workload: str
    device: Device
    precision: Precision
    matched: bool
    target: float | None
    cells: Mapping[Cell, CellConvergence]
    """In the order of the plan."""
    representatives: tuple[Cell, ...]
    """For each framework that did not fail parity, the cell that stands for it."""
    comparisons: tuple[AccuracyComparison, ...]
    """Every pair of representatives: one family."""


class DefaultsRow(msgspec.Struct, frozen=True, kw_only=True):
    """One framework at the same epoch of two trainings: matched, and with its own defaults."""

    matched: Cell
    defaults: Cell
    matched_point: CurvePoint
    defaults_point: CurvePoint


class DefaultsAgainstMatched(msgspec.Struct, frozen=True, kw_only=True):
    """How much the frameworks differ if everything is equal, and if each follows its own defaults."""

    matched: str
    """The workloads' names."""
    defaults: str
    device: Device
    precision: Precision
    epoch: float
    """The last epoch at which every training of both workloads was evaluated."""
    rows: tuple[DefaultsRow, ...]

    @property
    def matched_spread(self) -> float:
        """Largest less smallest mean accuracy of the frameworks, a share of 1."""
        return _range([row.matched_point.test_accuracy for row in self.rows])

    @property
    def defaults_spread(self) -> float:
        return _range([row.defaults_point.test_accuracy for row in self.rows])


class Convergence(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a run shows about learning."""

    workloads: tuple[WorkloadConvergence, ...]
    defaults: tuple[DefaultsAgainstMatched, ...]


class ProposedTarget(msgspec.Struct, frozen=True, kw_only=True):
    """A target for a workload, from the trainings of all frameworks and seeds together."""

    workload: str
    seeds: int
    trainings: int
    """Of all frameworks and modes. Trainings of one seed are not independent: several seeds are needed."""
    epochs: float
    mean: float
    """Of the final test accuracies."""
    sd: float | None
    """None for a single training."""
    target: float | None
    """mean - 3 sd, rounded down to a tenth of a percentage point; None below `FEWEST_SEEDS`."""


def converge(run: Run) -> Convergence:
    """Derive everything that a run shows about learning."""
    workloads = {workload.name: workload for workload in run.header.workloads}
    jobs: dict[Cell, list[JobRecord]] = {cell: [] for cell in run.header.cells}
    for job in run.jobs:
        jobs.setdefault(job.spec.cell, []).append(job)
    groups: dict[tuple[str, Device, Precision], dict[Cell, CellConvergence]] = {}
    for cell, found in jobs.items():
        workload = workloads.get(cell.workload)
        learned = cell_convergence(found, workload.target_accuracy if workload else None)
        if learned is not None:
            groups.setdefault((cell.workload, cell.device, cell.precision), {})[cell] = learned
    judged = tuple(_workload(cells, workloads.get(name), run) for (name, _, _), cells in groups.items())
    return Convergence(workloads=judged, defaults=tuple(_defaults(judged, workloads)))


def proposed_targets(run: Run) -> tuple[ProposedTarget, ...]:
    """Return a target for every workload that was trained: mean - 3 sd over all seeds and frameworks.

    The reference and cells that failed parity are left out, and so are trainings of fewer epochs than the
    workload's longest.
    """
    cells: dict[str, list[CellConvergence]] = {}
    left_out = _left_out(run)
    for workload in converge(run).workloads:
        cells.setdefault(workload.workload, []).extend(
            learned for cell, learned in workload.cells.items() if cell not in left_out and learned.accuracies
        )
    return tuple(_proposed(name, learned) for name, learned in cells.items() if learned)


def _proposed(workload: str, cells: Sequence[CellConvergence]) -> ProposedTarget:
    epochs = max(cell.epochs or 0.0 for cell in cells)
    longest = [cell for cell in cells if math.isclose(cell.epochs or 0.0, epochs)]
    values = [accuracy for cell in longest for accuracy in cell.accuracies.values()]
    seeds = {seed for cell in longest for seed in cell.accuracies}
    middle, sd = mean(values), standard_deviation(values)
    target = None
    if sd is not None and len(seeds) >= FEWEST_SEEDS:
        # Rounded twice, so that 0.97 stored as 0.96999... does not lose a tenth of a point.
        target = math.floor(round(1000 * (middle - TARGET_SDS * sd), 6)) / 1000
    return ProposedTarget(
        workload=workload,
        seeds=len(seeds),
        trainings=len(values),
        epochs=epochs,
        mean=middle,
        sd=sd,
        target=target,
    )


def _workload(
    cells: Mapping[Cell, CellConvergence], workload: Workload | None, run: Run
) -> WorkloadConvergence:
    representatives = _representatives(cells, run)
    first = next(iter(cells))
    return WorkloadConvergence(
        workload=first.workload,
        device=first.device,
        precision=first.precision,
        matched=workload is None or workload.matched,
        target=workload.target_accuracy if workload else None,
        cells=cells,
        representatives=representatives,
        comparisons=_compare(representatives, cells),
    )


def _representatives(cells: Mapping[Cell, CellConvergence], run: Run) -> tuple[Cell, ...]:
    """Return one cell of each framework: its default mode, else the one with the most seeds, else the first.

    All modes of a framework compute the same, so any of them can stand for what it learns.
    """
    defaults = {backend.name: backend.default_mode for backend in run.header.backends}
    left_out = _left_out(run)
    of_backend: dict[str, list[Cell]] = {}
    for cell, learned in cells.items():
        if learned.accuracies and cell not in left_out:
            of_backend.setdefault(cell.backend, []).append(cell)
    return tuple(
        max(found, key=lambda cell: (cell.mode == defaults.get(cell.backend), len(cells[cell].accuracies)))
        for found in of_backend.values()
    )


def _left_out(run: Run) -> frozenset[Cell]:
    """Return the cells of the reference, and those that failed parity."""
    references = {backend.name for backend in run.header.backends if backend.reference}
    wrong = {record.cell for record in run.parity if record.checks and not record.ok}
    return frozenset({cell for cell in run.header.cells if cell.backend in references} | wrong)


def _compare(
    cells: Sequence[Cell], learned: Mapping[Cell, CellConvergence]
) -> tuple[AccuracyComparison, ...]:
    """Test every pair of one family by the differences at the seeds that both have.

    If the initial weights differ, pairing gains nothing, but the test stays valid.
    """
    tested: dict[tuple[Cell, Cell], Difference] = {}
    shared: dict[tuple[Cell, Cell], int] = {}
    for first, second in combinations(cells, 2):
        one, other = learned[first], learned[second]
        alike = math.isclose(one.epochs or 0.0, other.epochs or 0.0)
        seeds = len(one.accuracies.keys() & other.accuracies.keys()) if alike else 0
        difference = _difference(one, other) if seeds >= FEWEST_SEEDS else None
        pair = (first, second)
        if difference is not None and difference.mean < 0:
            pair = (second, first)
            difference = msgspec.structs.replace(difference, mean=-difference.mean)
        shared[pair] = seeds
        if difference is not None:
            tested[pair] = difference
    tests = _test(tested)
    return tuple(
        AccuracyComparison(first=pair[0], second=pair[1], seeds=seeds, test=tests.get(pair))
        for pair, seeds in shared.items()
    )


def _test(tested: Mapping[tuple[Cell, Cell], Difference]) -> dict[tuple[Cell, Cell], AccuracyTest]:
    """Test the pairs of one family, for a difference and for equivalence."""
    different = holm([p_value(one, margin=0.0) for one in tested.values()], ALPHA)
    equal = holm([_equivalence_p(one) for one in tested.values()], ALPHA)
    return {
        pair: AccuracyTest(
            difference=one.mean,
            low=interval[0],
            high=interval[1],
            alpha=step.alpha,
            p_adjusted=step.p_adjusted,
            differs=step.rejected,
            detectable=_detectable(one, step.alpha),
            equivalent=same.rejected,
        )
        for (pair, one), step, same in zip(tested.items(), different, equal, strict=True)
        for interval in [_interval(one, step.alpha)]
    }


def _difference(first: CellConvergence, second: CellConvergence) -> Difference | None:
    shared = first.accuracies.keys() & second.accuracies.keys()
    return paired_difference({seed: first.accuracies[seed] - second.accuracies[seed] for seed in shared})


def _detectable(difference: Difference, alpha: float) -> tuple[float, float] | None:
    """Return differences where the statistics module returns ratios, exp of a difference less 1."""
    found = detectable_range(difference, alpha, margin=0.0)
    return None if found is None else (math.log1p(found[0]), math.log1p(found[1]))


def _interval(difference: Difference, alpha: float) -> tuple[float, float]:
    low, high = ratio_interval(difference, alpha)
    return math.log(low), math.log(high)


def _equivalence_p(difference: Difference) -> float:
    """Return the p value of two one-sided t tests that the difference lies within `EQUIVALENT`.

    Source: Schuirmann, A comparison of the two one-sided tests procedure and the power approach (1987).
    """
    room = EQUIVALENT - abs(difference.mean)
    if difference.standard_error == 0:
        return 0.0 if room > 0 else 1.0
    from scipy.special import stdtr

    return float(stdtr(difference.degrees, -room / difference.standard_error))


def _defaults(
    judged: Sequence[WorkloadConvergence], workloads: Mapping[str, Workload]
) -> Iterator[DefaultsAgainstMatched]:
    """Yield every workload that is not matched together with its matched twin, if both were trained."""
    for one in judged:
        for twin in judged:
            if (
                (twin.device, twin.precision) != (one.device, one.precision)
                or one.matched
                or not twin.matched
            ):
                continue
            specs = workloads[one.workload], workloads.get(twin.workload)
            found = _against(one, twin) if _are_twins(*specs) else None
            if found is not None:
                yield found


def _are_twins(one: Workload, other: Workload | None) -> bool:
    """Say whether two workloads differ only in the constants of their optimizer."""
    return other is not None and (one.dataset, one.architecture, one.batch_size, one.optimizer.name) == (
        other.dataset,
        other.architecture,
        other.batch_size,
        other.optimizer.name,
    )


def _against(defaults: WorkloadConvergence, matched: WorkloadConvergence) -> DefaultsAgainstMatched | None:
    """Compare the frameworks that trained both workloads, at the last epoch that all of them have."""
    own = {cell.backend: cell for cell in defaults.representatives}
    pairs = [(cell, own[cell.backend]) for cell in matched.representatives if cell.backend in own]
    points = [
        tuple({round(point.epoch, 6): point for point in group.cells[cell].curve} for group, cell in sides)
        for pair in pairs
        for sides in [zip((matched, defaults), pair, strict=True)]
    ]
    shared = set.intersection(*(set(curve) for sides in points for curve in sides)) if points else set()
    epoch = max(shared, default=0.0)
    if epoch <= 0:  # before training there is nothing to compare
        return None
    return DefaultsAgainstMatched(
        matched=matched.workload,
        defaults=defaults.workload,
        device=matched.device,
        precision=matched.precision,
        epoch=epoch,
        rows=tuple(
            DefaultsRow(
                matched=pair[0],
                defaults=pair[1],
                matched_point=sides[0][epoch],
                defaults_point=sides[1][epoch],
            )
            for pair, sides in zip(pairs, points, strict=True)
        ),
    )


def _range(values: Sequence[float]) -> float:
    return max(values) - min(values)
