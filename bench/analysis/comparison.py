"""Verdicts: which framework is faster on a workload, how sure that is, and what cannot be said.

A verdict is made from the rows of one workload, device, precision and level. Only ranked rows are compared,
by the differences in the rounds and blocks that both have. A difference is claimed only if Holm's procedure
rejects that it is within its margin: `MARGIN`, or what the order of the turns may have changed, if that is
larger.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import combinations
from types import MappingProxyType
from typing import Literal, TypeAlias

import msgspec

from backends.info import Level
from bench.analysis.carry_over import Effects, largest_move
from bench.analysis.disturbance import Screening
from bench.analysis.statistics import (
    EQUIVALENCE,
    MARGIN,
    Difference,
    block_difference,
    block_differences,
    bootstrap_interval,
    detectable_difference,
    holm,
    is_equivalent,
    p_value,
    paired_difference,
    ratio_interval,
)
from bench.workloads.specs import Cell, Device, Precision

ComparisonKind: TypeAlias = Literal[
    "faster",  # by more than the margin
    "slightly faster",  # by more than the margin, but not by more than the bound of equivalence
    "equivalent",  # no difference larger than that bound
    "undecided",
    "disturbed",  # too many blocks were disturbed, so nothing is claimed
]

_Pair: TypeAlias = tuple[Cell, Cell, Difference, tuple[float, float], float]
"""The faster cell, the slower one, their difference, its bootstrap interval, and its margin."""


KIND_WORDS: Mapping[ComparisonKind, str] = MappingProxyType(
    {
        "faster": "faster",
        "slightly faster": f"faster, by no more than {100 * EQUIVALENCE:g} %",
        "equivalent": f"no difference larger than {100 * EQUIVALENCE:g} %",
        "undecided": "no detectable difference",
        "disturbed": "disturbed: nothing claimed",
    }
)
"""The words for each kind of comparison."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What a verdict needs to know of one row."""

    cell: Cell
    level: Level
    ranked: bool
    reference: bool
    """Whether its backend is the reference, which no verdict mentions."""
    matched: bool
    """Whether its workload is the same work for all frameworks; only then can it be ranked."""
    parity_ok: bool | None
    rounds: Mapping[int, Sequence[float]]
    """By block, ln(samples/s) of every round from the first; only blocks that were timed and settled."""
    latest: int
    """How many rounds of each block count: the latest ones."""
    alone: frozenset[int] = frozenset()
    """Blocks whose jobs did not take turns, so that their rounds are not the same."""
    effects: Mapping[int, Effects] = {}
    """By block, what each predecessor changes; only blocks whose records hold the turns."""
    epochs: float | None
    """After how many epochs the accuracies were taken; None if no job trained to the end."""
    accuracies: Mapping[int, float]
    """Test accuracy by seed, of the jobs that trained to the end."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two cells of one workload, the faster one first."""

    faster: Cell
    slower: Cell
    blocks: int
    """Blocks that both have."""
    ratio: float
    low: float
    high: float
    """The 95 % interval by Student's t."""
    bootstrap_low: float
    bootstrap_high: float
    """The 95 % interval by hierarchical bootstrap, for comparison."""
    p: float
    """Of the test that the ratio is within the margin of 1."""
    p_adjusted: float
    alpha: float
    """The level that Holm's procedure gave this comparison."""
    detectable: float
    """The relative difference that would have been found four times in five at this level."""
    margin: float = MARGIN
    """A difference is claimed only if it is proven larger: `MARGIN`, or `largest_move` if that is larger."""
    kind: ComparisonKind

    @property
    def differs(self) -> bool:
        """Whether a difference is claimed."""
        return self.kind in ("faster", "slightly faster")


class Comparisons(msgspec.Struct, frozen=True, kw_only=True):
    """Every comparison of a verdict, for one choice of blocks."""

    backends: tuple[Comparison, ...]
    """Every pair of the backends' best cells: one family of comparisons."""
    modes: tuple[Comparison, ...]
    """Every pair of modes of one backend: one family a backend."""
    tuning: tuple[Comparison, ...]
    """In a verdict on cells as taught, each of them and the best tuned cell of its backend: one family."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on the rows of one level, for one workload on one device in one precision."""

    workload: str
    level: Level
    device: Device
    precision: Precision
    order: tuple[Cell, ...]
    """The ranked cells, the fastest first."""
    winner: Cell | None
    """The cell that is detectably faster than the best cell of every other backend."""
    matched: bool
    """Whether the workload is the same work for all frameworks; if not, no row of it is ranked."""
    disturbed: bool
    """Whether so many blocks were disturbed that nothing is claimed."""
    unranked: tuple[str, ...]
    """Backends of the plan that have no ranked row, so that nothing is claimed about them."""
    made: Comparisons
    with_dropped: Comparisons | None
    """The same comparisons with the dropped blocks included; None if no block was dropped."""
    accuracy_spread: float | None
    """Largest minus smallest test accuracy of the backends after the same epochs, in percentage points."""
    accuracy_epochs: float | None
    screening: Screening
    """Which of the workload's blocks were disturbed."""


def judge(rows: Sequence[Standing], screening: Screening, *, others: Sequence[Standing] = ()) -> Verdict:
    """Judge the rows of one workload, device, precision and level: ranked rows first, the fastest first.

    `screening` says which of the workload's blocks were disturbed. `others` are the rows of the other level,
    in the same order. Only a verdict on rows as taught compares with them.
    """
    ranked = [row for row in rows if row.ranked]
    best = best_of_each_backend([row.cell for row in ranked])
    disturbed = screening.disturbed and bool(ranked)
    tuned = [row for row in others if row.ranked] if rows[0].level == "taught" else []
    compared = partial(_compare, ranked, best, tuned, disturbed=disturbed)
    made = compared(screening.dropped)
    with_dropped = compared(frozenset()) if screening.dropped else None
    wins = Counter(comparison.faster for comparison in made.backends if comparison.differs)
    winner = next((cell for cell in best if len(best) > 1 and wins[cell] == len(best) - 1), None)
    spread, epochs = _accuracy_spread(rows)
    first = rows[0]
    asked = dict.fromkeys(row.cell.backend for row in rows if not row.reference)
    ranked_backends = {cell.backend for cell in best}
    unranked = tuple(name for name in asked if name not in ranked_backends)
    return Verdict(
        workload=first.cell.workload,
        level=first.level,
        device=first.cell.device,
        precision=first.cell.precision,
        order=tuple(row.cell for row in ranked),
        winner=winner,
        matched=first.matched,
        disturbed=disturbed,
        unranked=unranked,
        made=made,
        with_dropped=with_dropped,
        accuracy_spread=spread,
        accuracy_epochs=epochs,
        screening=screening,
    )


def best_of_each_backend(order: Iterable[Cell]) -> list[Cell]:
    """Return the first cell of every backend, in the given order: the fastest first."""
    best: dict[str, Cell] = {}
    for cell in order:
        best.setdefault(cell.backend, cell)
    return list(best.values())


def _compare(
    ranked: Sequence[Standing],
    best: Sequence[Cell],
    tuned: Sequence[Standing],
    dropped: frozenset[int],
    *,
    disturbed: bool,
) -> Comparisons:
    """Compare the backends' best cells, the modes of each backend, and each with its best tuned cell.

    Blocks in `dropped` do not count.
    """
    families = {
        backend: [row for row in ranked if row.cell.backend == backend]
        for backend in dict.fromkeys(row.cell.backend for row in ranked)
    }
    best_tuned = set(best_of_each_backend([row.cell for row in tuned]))
    fastest = {row.cell.backend: row for row in tuned if row.cell in best_tuned}
    family = partial(_compare_family, dropped=dropped, disturbed=disturbed)
    return Comparisons(
        backends=family(combinations([row for row in ranked if row.cell in best], 2)),
        modes=tuple(comparison for rows in families.values() for comparison in family(combinations(rows, 2))),
        tuning=family((row, fastest[row.cell.backend]) for row in ranked if row.cell.backend in fastest),
    )


def _compare_family(
    pairs: Iterable[tuple[Standing, Standing]], *, dropped: frozenset[int], disturbed: bool
) -> tuple[Comparison, ...]:
    """Compare the pairs of a family, the faster side first. A pair needs two blocks that both sides have."""
    found: list[_Pair] = []
    for one, other in pairs:
        shared = sorted((one.rounds.keys() & other.rounds.keys()) - dropped)
        latest = min(one.latest, other.latest)
        sides = {block: (one.rounds[block], other.rounds[block], latest) for block in shared}
        in_turns = {block: block not in one.alone | other.alone for block in shared}
        difference = paired_difference(
            {block: block_difference(*sides[block], in_turns=in_turns[block]) for block in shared}
        )
        bootstrap = bootstrap_interval(
            [block_differences(*sides[block], in_turns=in_turns[block]) for block in shared]
        )
        if difference is None or bootstrap is None:
            continue
        first, second, (low, high) = one.cell, other.cell, bootstrap
        if difference.mean < 0:
            first, second, low, high = second, first, 1 / high, 1 / low
            difference = msgspec.structs.replace(difference, mean=-difference.mean)
        found.append((first, second, difference, (low, high), _margin(one, other, shared)))
    return _decide(found, disturbed=disturbed)


def _decide(found: Sequence[_Pair], *, disturbed: bool) -> tuple[Comparison, ...]:
    """Decide the pairs of one family together."""
    p_values = [p_value(difference, margin) for _, _, difference, _, margin in found]
    comparisons = []
    for pair, p, step in zip(found, p_values, holm(p_values), strict=True):
        faster, slower, difference, bootstrap, margin = pair
        low, high = ratio_interval(difference)
        comparisons.append(
            Comparison(
                faster=faster,
                slower=slower,
                blocks=difference.blocks,
                ratio=difference.ratio,
                low=low,
                high=high,
                bootstrap_low=bootstrap[0],
                bootstrap_high=bootstrap[1],
                p=p,
                p_adjusted=step.p_adjusted,
                alpha=step.alpha,
                detectable=detectable_difference(difference, step.alpha, margin=margin),
                margin=margin,
                kind="disturbed" if disturbed else _kind(difference, margin, claimed=step.rejected),
            )
        )
    return tuple(comparisons)


def _margin(one: Standing, other: Standing, blocks: Sequence[int]) -> float:
    """Return what a difference must exceed: `MARGIN`, and what the order of the turns may have changed."""
    sides = [{at: row.effects[at] for at in blocks if at in row.effects} for row in (one, other)]
    return max(MARGIN, largest_move(*sides) or 0.0)


def _kind(difference: Difference, margin: float, *, claimed: bool) -> ComparisonKind:
    equal = margin <= EQUIVALENCE and is_equivalent(difference)
    if claimed:
        return "slightly faster" if equal else "faster"
    return "equivalent" if equal else "undecided"


def _accuracy_spread(rows: Sequence[Standing]) -> tuple[float | None, float | None]:
    """Return the spread of test accuracy between frameworks, in percentage points, and after which epochs.

    Only rows with parity count, since the others are known to differ, and only the seeds with which all of
    these rows trained.
    """
    asked = [row for row in rows if row.epochs is not None and row.parity_ok and not row.reference]
    epochs = max((row.epochs or 0.0 for row in asked), default=0.0)
    equal = [row for row in asked if math.isclose(row.epochs or 0.0, epochs)]
    if len({row.cell.backend for row in equal}) < 2:
        return None, None
    shared = sorted(set.intersection(*(set(row.accuracies) for row in equal)))
    if not shared:
        return None, None
    means = [math.fsum(row.accuracies[seed] for seed in shared) / len(shared) for row in equal]
    return 100 * (max(means) - min(means)), epochs
