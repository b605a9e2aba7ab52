"""Whether frameworks learn the same: tests of equivalence, the frameworks' own defaults, targets.

Trainings of one seed start from the same weights and take the same batches in every cell of a matched
workload. Accuracies and differences are shares of 1.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Literal, TypeAlias

import msgspec

from bench.analysis.convergence import (
    CellConvergence,
    CurvePoint,
    cell_convergence,
    is_too_brief,
    mean,
    standard_deviation,
)
from bench.analysis.statistics import paired_difference
from bench.records.runs import Run
from bench.records.schema import JobRecord
from bench.workloads.specs import Cell, Device, Precision, Workload

EQUIVALENT = 0.005
"""Two frameworks learn the same if their mean accuracies are shown to differ by less: half a percentage
point."""
EQUIVALENCE_ALPHA = 0.05
"""Level of each of the two one-sided tests that show it, for one pair of frameworks."""
SEEDS_NEEDED = 10
"""Fewest seeds of each framework for a test of equivalence, and for a target. The standard deviation of fewer
is too uncertain."""
TARGET_SDS = 3
"""A target lies this many standard deviations below the mean of the measured accuracies."""

Conclusion: TypeAlias = Literal[
    "equivalent",
    "not shown",  # a difference as large as `EQUIVALENT` is not ruled out
    "too few seeds",
    "diverged",  # some trainings have no accuracy, so the mean of the others shows too little
    "unequal epochs",
    "too brief",  # some training is too short to be compared
]


class Equivalence(msgspec.Struct, frozen=True, kw_only=True):
    """Two one-sided t tests of the mean accuracies of two frameworks, paired by seed."""

    difference: float
    """The first mean less the second."""
    low: float
    """Lower end of its 90 % interval, which lies within `EQUIVALENT` exactly if both tests reject."""
    high: float
    degrees: float
    """One less than the seeds."""
    p: float
    """The larger p value of the two tests."""

    @property
    def shown(self) -> bool:
        return self.p <= EQUIVALENCE_ALPHA


class AccuracyComparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two frameworks on one workload, in the order of the plan."""

    first: Cell
    second: Cell
    seeds: int
    """Seeds that both trained."""
    epochs: tuple[float, float]
    """Epochs that each trained."""
    diverged: int
    """Trainings of both whose loss became NaN."""
    conclusion: Conclusion
    test: Equivalence | None
    """None unless the conclusion is `equivalent` or `not shown`."""


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
    """Every pair of representatives."""


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
    seeds: Mapping[str, int]
    """By framework, its seeds that trained for `epochs`; 0 for one that did not."""
    trainings: int
    """Of all frameworks and modes. Trainings of one seed are not independent: many seeds are needed."""
    epochs: float
    mean: float
    """Of the final test accuracies."""
    sd: float | None
    """None for a single training."""
    target: float | None
    """mean - 3 sd, rounded down to a tenth of a percentage point.

    None if a framework has fewer than `SEEDS_NEEDED` seeds, or the trainings are too brief.
    """

    @property
    def too_brief(self) -> bool:
        return is_too_brief(self.epochs)


def converge(run: Run) -> Convergence:
    """Derive everything that a run shows about learning.

    Rows that train a larger batch than the workload's, as weak scaling does, learn something else. They are
    left out.
    """
    workloads = {workload.name: workload for workload in run.header.workloads}
    jobs: dict[Cell, list[JobRecord]] = {cell: [] for cell in run.header.cells}
    for job in run.jobs:
        jobs.setdefault(job.spec.cell, []).append(job)
    groups: dict[tuple[str, Device, Precision], dict[Cell, CellConvergence]] = {}
    for cell, found in jobs.items():
        workload = workloads.get(cell.workload)
        learned = cell_convergence(found, workload.target_accuracy if workload else None)
        if learned is not None and cell.batches == 1:
            groups.setdefault((cell.workload, cell.device, cell.precision), {})[cell] = learned
    judged = tuple(_workload(cells, workloads.get(name), run) for (name, _, _), cells in groups.items())
    return Convergence(workloads=judged, defaults=tuple(_defaults(judged, workloads)))


def left_out(run: Run) -> frozenset[Cell]:
    """Return the cells that take part in no comparison: the reference's, and those that failed parity."""
    references = {backend.name for backend in run.header.backends if backend.reference}
    wrong = {record.cell for record in run.parity if record.checks and not record.ok}
    disproven = {job.spec.cell for job in run.jobs if job.status == "not_comparable"}
    return frozenset({cell for cell in run.header.cells if cell.backend in references} | wrong | disproven)


def proposed_targets(run: Run, frameworks: Sequence[str]) -> tuple[ProposedTarget, ...]:
    """Return what a run shows of a target for each workload: mean - 3 sd over all seeds and frameworks.

    `frameworks` names the backends whose seeds are needed. The reference and cells that failed parity are
    left out, and so are trainings of fewer epochs than the workload's longest.
    """
    cells: dict[str, dict[Cell, CellConvergence]] = {}
    without = left_out(run)
    for workload in converge(run).workloads:
        cells.setdefault(workload.workload, {}).update(
            (cell, learned)
            for cell, learned in workload.cells.items()
            if cell not in without and learned.accuracies
        )
    return tuple(_proposed(name, learned, frameworks) for name, learned in cells.items() if learned)


def _proposed(
    workload: str, cells: Mapping[Cell, CellConvergence], frameworks: Sequence[str]
) -> ProposedTarget:
    epochs = max(learned.epochs or 0.0 for learned in cells.values())
    longest = {
        cell: learned for cell, learned in cells.items() if math.isclose(learned.epochs or 0.0, epochs)
    }
    values = [accuracy for learned in longest.values() for accuracy in learned.accuracies.values()]
    seeds: dict[str, set[int]] = {name: set() for name in frameworks}
    for cell, learned in longest.items():
        seeds.setdefault(cell.backend, set()).update(learned.accuracies)
    middle, sd = mean(values), standard_deviation(values)
    target = None
    if sd is not None and min(map(len, seeds.values())) >= SEEDS_NEEDED and not is_too_brief(epochs):
        # Rounded twice, so that 0.97 stored as 0.96999... does not lose a tenth of a point.
        target = math.floor(round(1000 * (middle - TARGET_SDS * sd), 6)) / 1000
    return ProposedTarget(
        workload=workload,
        seeds={name: len(found) for name, found in seeds.items()},
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
        comparisons=tuple(
            _compare(pair, (cells[pair[0]], cells[pair[1]])) for pair in combinations(representatives, 2)
        ),
    )


def _representatives(cells: Mapping[Cell, CellConvergence], run: Run) -> tuple[Cell, ...]:
    """Return one cell of each framework: its default mode, else the one with the most seeds, else the first.

    All modes of a framework compute the same, so any of them can stand for what it learns.
    """
    defaults = {backend.name: backend.default_mode for backend in run.header.backends}
    without = left_out(run)
    of_backend: dict[str, list[Cell]] = {}
    for cell, learned in cells.items():
        if learned.accuracies and cell not in without:
            of_backend.setdefault(cell.backend, []).append(cell)
    return tuple(
        max(found, key=lambda cell: (cell.mode == defaults.get(cell.backend), len(cells[cell].accuracies)))
        for found in of_backend.values()
    )


def _compare(pair: tuple[Cell, Cell], learned: tuple[CellConvergence, CellConvergence]) -> AccuracyComparison:
    """Compare two cells, if their trainings allow it."""
    first, second = (one.accuracies for one in learned)
    conclusion = _hindrance(learned)
    test = None
    if conclusion is None:
        test = equivalence(first, second)
        conclusion = "equivalent" if test.shown else "not shown"
    return AccuracyComparison(
        first=pair[0],
        second=pair[1],
        seeds=len(first.keys() & second.keys()),
        epochs=(learned[0].epochs or 0.0, learned[1].epochs or 0.0),
        diverged=learned[0].diverged + learned[1].diverged,
        conclusion=conclusion,
        test=test,
    )


def _hindrance(learned: Sequence[CellConvergence]) -> Conclusion | None:
    """Return why the accuracies of cells cannot be tested; None if they can."""
    epochs = [one.epochs or 0.0 for one in learned]
    if any(map(is_too_brief, epochs)):
        return "too brief"
    if not all(math.isclose(one, epochs[0]) for one in epochs):
        return "unequal epochs"
    if any(one.diverged for one in learned):
        return "diverged"
    shared = set.intersection(*(set(one.accuracies) for one in learned))
    return "too few seeds" if len(shared) < SEEDS_NEEDED else None


def equivalence(first: Mapping[int, float], second: Mapping[int, float]) -> Equivalence:
    """Test whether two mean accuracies, by seed, differ by less than `EQUIVALENT`.

    Two one-sided paired t tests over the seeds that both sides have, two at least. Both reject at
    `EQUIVALENCE_ALPHA` exactly if the 90 % interval of the difference lies within `EQUIVALENT`. Trainings of
    one seed have the same weights and batches, so their accuracies rise and fall together, and a test that
    is not paired would hardly ever reject where seeds scatter. Source: Schuirmann, A comparison of the two
    one-sided tests procedure and the power approach (1987).
    """
    shared = sorted(first.keys() & second.keys())
    difference = paired_difference({seed: first[seed] - second[seed] for seed in shared})
    if difference is None:
        raise ValueError(f"a test needs two seeds that both sides have; they share {len(shared)}")
    from scipy.special import stdtr, stdtrit

    error, degrees, room = difference.standard_error, difference.degrees, EQUIVALENT - abs(difference.mean)
    half = float(stdtrit(degrees, 1 - EQUIVALENCE_ALPHA)) * error
    return Equivalence(
        difference=difference.mean,
        low=difference.mean - half,
        high=difference.mean + half,
        degrees=degrees,
        p=float(stdtr(degrees, -room / error)) if error > 0 else float(room <= 0),
    )


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
    if is_too_brief(epoch):
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
