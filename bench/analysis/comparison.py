"""Verdicts: which framework is faster on a workload, how sure that is, and what cannot be said.

A verdict is made from the rows of one group: one workload, device, precision, level, number of ranks and
scaling. Only ranked rows are compared, by the differences in the rounds and blocks that both have. A
difference is claimed only if Holm's procedure rejects that it is within its margin: `MARGIN`, or what the
order of the turns may have changed, if that is larger.
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
    detectable_range,
    holm,
    is_equivalent,
    log_throughput,
    p_value,
    paired_difference,
    plain_difference,
    ratio_interval,
)
from bench.workloads.ranks import Scaling
from bench.workloads.specs import Cell, Device, Precision

ComparisonKind: TypeAlias = Literal[
    "faster",  # by more than the margin
    "slightly faster",  # by more than the margin, but not by more than the bound of equivalence
    "equivalent",  # no difference larger than that bound
    "undecided",
    "disturbed",  # too many blocks were disturbed, so nothing is claimed
]

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


class GroupKey(msgspec.Struct, frozen=True, kw_only=True):
    """What rows must share to be ranked among themselves."""

    workload: str
    level: Level
    device: Device
    precision: Precision
    ranks: int = 1
    scaling: Scaling = "strong"
    """`strong` for one rank, which trains the same batch in either scaling."""


def group_key(cell: Cell, level: Level) -> GroupKey:
    """Return the key of a row's group."""
    return GroupKey(
        workload=cell.workload,
        level=level,
        device=cell.device,
        precision=cell.precision,
        ranks=cell.ranks,
        scaling=cell.scaling if cell.ranks > 1 else "strong",
    )


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
    accuracies: Mapping[int, float]
    """Test accuracy by seed, of the jobs that trained to the end."""

    @property
    def group(self) -> GroupKey:
        return group_key(self.cell, self.level)


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two cells of one workload, the faster one first."""

    faster: Cell
    slower: Cell
    blocks: int
    """Blocks that both have and that count for the pair."""
    ratio: float
    low: float
    high: float
    """The 95 % interval by Student's t."""
    standard_error: float
    """Of ln(ratio)."""
    plain: float
    """The ratio of samples over seconds, in all rounds that count and without trimming."""
    p: float
    """Of the test that the ratio is within the margin of 1."""
    p_adjusted: float
    alpha: float
    """The level that Holm's procedure gave this comparison."""
    detectable: tuple[float, float] | None
    """The range of the relative difference that is found four times in five at this level; None below six
    blocks."""
    margin: float = MARGIN
    """A difference is claimed only if it is proven larger: `MARGIN`, or `largest_move` if that is larger."""
    kind: ComparisonKind

    @property
    def differs(self) -> bool:
        """Whether a difference is claimed."""
        return self.kind in ("faster", "slightly faster")

    def seen_from(self, cell: Cell) -> tuple[float, float, float]:
        """Return how many times as fast one of the two cells is as the other: ratio, low and high end."""
        if cell == self.faster:
            return self.ratio, self.low, self.high
        return 1 / self.ratio, 1 / self.high, 1 / self.low

    @property
    def half_width(self) -> float:
        """Half the width of the interval divided by the ratio: 0.012 for ±1.2 %."""
        return (self.high - self.low) / (2 * self.ratio)

    @property
    def scatter(self) -> float:
        """Standard deviation of ln(ratio) from block to block."""
        return self.standard_error * math.sqrt(self.blocks)

    @property
    def trimming_matters(self) -> bool:
        """Whether the ratio and the plain ratio differ by more than `MARGIN`."""
        return abs(math.log(self.plain / self.ratio)) > math.log1p(MARGIN)


class Pick(msgspec.Struct, frozen=True, kw_only=True):
    """The cell that stands for its backend where backends are compared."""

    cell: Cell
    among: int
    """The number of the backend's ranked cells."""
    block: int | None
    """The block in which it was the fastest, and which does not judge it; None if it is the only one."""


class Comparisons(msgspec.Struct, frozen=True, kw_only=True):
    """Every comparison of a verdict, for one choice of blocks."""

    backends: tuple[Comparison, ...]
    """Every pair of the backends' picked cells: one family of comparisons."""
    modes: tuple[Comparison, ...]
    """Every pair of modes of one backend: one family a backend."""
    tuning: tuple[Comparison, ...]
    """In a verdict on cells as taught, each of them and the picked tuned cell of its backend: one family."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on the rows of one group."""

    workload: str
    level: Level
    device: Device
    precision: Precision
    ranks: int = 1
    scaling: Scaling = "strong"
    order: tuple[Cell, ...]
    """The ranked cells, the fastest first."""
    picks: tuple[Pick, ...]
    """The cell that stands for each backend, in the order of the backends' fastest cells."""
    winner: Cell | None
    """The cell that is detectably faster than the picked cell of every other backend."""
    matched: bool
    """Whether the workload is the same work for all frameworks; if not, no row of it is ranked."""
    disturbed: bool
    """Whether so many blocks were disturbed that nothing is claimed."""
    unranked: tuple[str, ...]
    """Backends of the plan that have no ranked row, so that nothing is claimed about them."""
    made: Comparisons
    with_dropped: Comparisons | None
    """The same comparisons with the dropped blocks included; None if no block was dropped."""
    screening: Screening
    """Which of the workload's blocks were disturbed."""

    @property
    def group(self) -> GroupKey:
        return GroupKey(
            workload=self.workload,
            level=self.level,
            device=self.device,
            precision=self.precision,
            ranks=self.ranks,
            scaling=self.scaling,
        )


class _Pair(msgspec.Struct, frozen=True, kw_only=True):
    """The faster cell of a pair, the slower one, and how much they differ."""

    faster: Cell
    slower: Cell
    difference: Difference
    plain: float
    """ln of the plain ratio."""
    margin: float


_Asked: TypeAlias = tuple[Standing, Standing, frozenset[int]]
"""Two rows to compare, and the blocks that do not count because they picked one of them."""


def judge(rows: Sequence[Standing], screening: Screening, *, others: Sequence[Standing] = ()) -> Verdict:
    """Judge the rows of one group: ranked rows first, the fastest first.

    `screening` says which of the workload's blocks were disturbed. `others` are the rows of the other level,
    in the same order. Only a verdict on rows as taught compares with them.
    """
    ranked = [row for row in rows if row.ranked]
    picks = pick_each_backend(ranked, screening.dropped)
    disturbed = screening.disturbed and bool(ranked)
    tuned = [row for row in others if row.ranked] if rows[0].level == "taught" else []
    compared = partial(
        _compare, ranked, picks, tuned, pick_each_backend(tuned, screening.dropped), disturbed=disturbed
    )
    made = compared(screening.dropped)
    with_dropped = compared(frozenset()) if screening.dropped else None
    wins = Counter(comparison.faster for comparison in made.backends if comparison.differs)
    best = [pick.cell for pick in picks]
    winner = next((cell for cell in best if len(best) > 1 and wins[cell] == len(best) - 1), None)
    first = rows[0]
    asked = dict.fromkeys(row.cell.backend for row in rows if not row.reference)
    ranked_backends = {cell.backend for cell in best}
    unranked = tuple(name for name in asked if name not in ranked_backends)
    return Verdict(
        workload=first.cell.workload,
        level=first.level,
        device=first.cell.device,
        precision=first.cell.precision,
        ranks=first.group.ranks,
        scaling=first.group.scaling,
        order=tuple(row.cell for row in ranked),
        picks=picks,
        winner=winner,
        matched=first.matched,
        disturbed=disturbed,
        unranked=unranked,
        made=made,
        with_dropped=with_dropped,
        screening=screening,
    )


def compare_copies(one: Standing, copy: Standing, screening: Screening) -> Comparison | None:
    """Compare two jobs of one cell in each block, as any pair is; None if they share too few blocks."""
    found = _compare_family(
        [(one, copy, frozenset())], dropped=screening.dropped, disturbed=screening.disturbed
    )
    return found[0] if found else None


def compare_with(base: Standing, others: Sequence[Standing], screening: Screening) -> dict[Cell, Comparison]:
    """Compare each of several rows with one, as one family; return the comparisons by the row's cell.

    The rows are of one workload and of any group. A row that shares fewer than two blocks with `base` has no
    comparison.
    """
    found = _compare_family(
        [(one, base, frozenset()) for one in others], dropped=screening.dropped, disturbed=screening.disturbed
    )
    return {one.slower if one.faster == base.cell else one.faster: one for one in found}


def pick_each_backend(ranked: Sequence[Standing], dropped: frozenset[int] = frozenset()) -> tuple[Pick, ...]:
    """Return the row that stands for each backend, in the order of the backends in `ranked`.

    Of several rows it is the fastest in one block: the first of those in which most of them are sound, as a
    rule all. That block must not judge the row as well. The fastest of several equal rows was lucky in the
    block that picked it, and in all blocks if all of them picked it. Blocks in `dropped` pick nothing.
    """
    rows_of: dict[str, list[Standing]] = {}
    for row in ranked:
        rows_of.setdefault(row.cell.backend, []).append(row)
    return tuple(_pick(rows, dropped) for rows in rows_of.values())


def _pick(rows: Sequence[Standing], dropped: frozenset[int]) -> Pick:
    blocks = {block for row in rows for block in row.rounds} - dropped
    if len(rows) == 1 or not blocks:
        return Pick(cell=rows[0].cell, among=len(rows), block=None)
    block = min(blocks, key=lambda block: (-sum(block in row.rounds for row in rows), block))
    sound = [row for row in rows if block in row.rounds]
    fastest = max(sound, key=lambda row: log_throughput(row.rounds[block], row.latest))
    return Pick(cell=fastest.cell, among=len(rows), block=block)


def _compare(
    ranked: Sequence[Standing],
    picks: Sequence[Pick],
    tuned: Sequence[Standing],
    tuned_picks: Sequence[Pick],
    dropped: frozenset[int],
    *,
    disturbed: bool,
) -> Comparisons:
    """Compare the backends' picked cells, the modes of each backend, and each with its picked tuned cell.

    Blocks in `dropped` do not count.
    """
    families = {
        backend: [row for row in ranked if row.cell.backend == backend]
        for backend in dict.fromkeys(row.cell.backend for row in ranked)
    }
    family = partial(_compare_family, dropped=dropped, disturbed=disturbed)
    best, fastest = _rows_of(picks, ranked), _rows_of(tuned_picks, tuned)
    return Comparisons(
        backends=family(
            (best[one.cell.backend], best[other.cell.backend], _blocks_of(one, other))
            for one, other in combinations(picks, 2)
        ),
        modes=tuple(
            comparison
            for rows in families.values()
            for comparison in family((one, other, frozenset()) for one, other in combinations(rows, 2))
        ),
        tuning=family(
            (row, fastest[pick.cell.backend], _blocks_of(pick))
            for row in ranked
            for pick in tuned_picks
            if pick.cell.backend == row.cell.backend
        ),
    )


def _rows_of(picks: Iterable[Pick], rows: Iterable[Standing]) -> dict[str, Standing]:
    """Return the picked rows by backend."""
    cells = {pick.cell for pick in picks}
    return {row.cell.backend: row for row in rows if row.cell in cells}


def _blocks_of(*picks: Pick) -> frozenset[int]:
    return frozenset(pick.block for pick in picks if pick.block is not None)


def _compare_family(
    pairs: Iterable[_Asked], *, dropped: frozenset[int], disturbed: bool
) -> tuple[Comparison, ...]:
    """Compare the pairs of a family, the faster side first. A pair needs two blocks that both sides have."""
    found: list[_Pair] = []
    for one, other, picking in pairs:
        shared = sorted((one.rounds.keys() & other.rounds.keys()) - dropped - picking)
        latest = min(one.latest, other.latest)
        sides = {block: (one.rounds[block], other.rounds[block], latest) for block in shared}
        in_turns = {block: block not in one.alone | other.alone for block in shared}
        difference = paired_difference(
            {block: block_difference(*sides[block], in_turns=in_turns[block]) for block in shared}
        )
        if difference is None:
            continue
        plain = math.fsum(plain_difference(*sides[block], in_turns=in_turns[block]) for block in shared)
        plain /= len(shared)
        first, second = one.cell, other.cell
        if difference.mean < 0:
            first, second, plain = second, first, -plain
            difference = msgspec.structs.replace(difference, mean=-difference.mean)
        margin = _margin(one, other, shared)
        found.append(_Pair(faster=first, slower=second, difference=difference, plain=plain, margin=margin))
    return _decide(found, disturbed=disturbed)


def _decide(found: Sequence[_Pair], *, disturbed: bool) -> tuple[Comparison, ...]:
    """Decide the pairs of one family together."""
    p_values = [p_value(pair.difference, pair.margin) for pair in found]
    comparisons = []
    for pair, p, step in zip(found, p_values, holm(p_values), strict=True):
        difference = pair.difference
        low, high = ratio_interval(difference)
        comparisons.append(
            Comparison(
                faster=pair.faster,
                slower=pair.slower,
                blocks=difference.blocks,
                ratio=difference.ratio,
                low=low,
                high=high,
                standard_error=difference.standard_error,
                plain=math.exp(pair.plain),
                p=p,
                p_adjusted=step.p_adjusted,
                alpha=step.alpha,
                detectable=detectable_range(difference, step.alpha, margin=pair.margin),
                margin=pair.margin,
                kind="disturbed" if disturbed else _kind(difference, pair.margin, claimed=step.rejected),
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
