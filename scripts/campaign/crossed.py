"""The self-test across frameworks: is the rule right on pairs of frameworks? Their true ratio is unknown.

    PYTHONPATH=scripts python -m campaign.crossed --power

prints how often its verdict fails. `campaign.crossed_report` writes CROSSED.md. A self-test compares equal
programs, whose true ratio is 1. Pairs of frameworks scatter more, so a run is compared with another run of
the same pairs. The rules were written down before any data:

1. Between runs. d is the mean log ratio of a pair's default modes in a default run with k blocks, k >= 3, and
   s its standard error; d90 is that of the n blocks of the run of 90 minutes. D* = (d - d90) / sqrt(1 + k/n)
   and s have exactly the distribution that a comparison of equals has, if blocks are normal and equal and
   nothing separates runs.
2. Within the long run. Its n blocks are cut, one after another, into 3, 4, 6 and 10 blocks, where 6 others
   are left. D* = sqrt(n/(n - k)) * (mean of the cut - mean of all n) has the variance sigma^2 / k of a mean
   of k blocks, and is independent of the cut's own scatter. A bias that all blocks share stays unseen.
3. On D*, s and k - 1 degrees of freedom the run's own rule decides: the minimum-effect p value with the
   comparison's margin, and Holm's procedure over the pairs of a workload.
4. Counted are the 95 % intervals that hold 0, the claims (false alarms), and what is claimed after ln 1.05
   and ln 1.10 are added to each framework in turn, with both signs: that moves two of the three pairs.
5. Comparisons depend on each other: the pairs of a workload share frameworks, the runs share one centre, the
   cuts share a mean. So no count has an exact binomial interval. A simulation of the same structure, with
   normal blocks, the covariance that the pairs have in the long run, and no effect between runs, gives the
   counts that a right program has.
6. Test 1 holds if the number of intervals that hold 0 is not below the 1 % quantile of that simulation, and
   the number of false alarms not above its 99 % quantile. Test 2 has no verdict.
"""

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from bench.analysis.statistics import (
    ALPHA,
    CONFIDENCE,
    MARGIN,
    Difference,
    holm,
    p_value,
    paired_difference,
    ratio_interval,
)
from bench.report.markdown import grid
from campaign.records import FRAMEWORKS
from campaign.runs import FEWEST_BLOCKS, PAIRS, RatioBlocks, RunRatio

CUTS = (3, 4, 6, 10)
FEWEST_OTHERS = 6
EFFECTS = (0.05, 0.10)
"""What is added to one framework, as a relative difference."""
DRAWS = 2000
SEED = 20261201
LEVEL = 0.01
"""Of each of the two limits of the verdict."""
HELD, FALSE_ALARMS = "intervals that hold 0", "false alarms"

Pair: TypeAlias = tuple[str, str]
"""Two frameworks; the first comes before the second in the alphabet."""
Values: TypeAlias = npt.NDArray[np.float64]
Counts: TypeAlias = Mapping[str, npt.NDArray[np.int64]]
"""By kind of count, the count in each draw; what was measured is one draw."""


def found_within(effect: float) -> str:
    """Return the name of the count of moved pairs that are claimed in the right direction."""
    return f"±{100 * effect:g} % found"


def wrong_beside(effect: float) -> str:
    """Return the name of the count of wrong claims where a framework was moved."""
    return f"wrong claims beside ±{100 * effect:g} %"


class Centred(msgspec.Struct, frozen=True, kw_only=True):
    """A comparison of two frameworks whose truth is 0, as the same pair's mean elsewhere was taken off."""

    pair: Pair
    difference: Difference
    """D*, with the comparison's own standard error and degrees of freedom."""
    margin: float
    centre_blocks: int
    """n."""
    centre_error: float
    """The standard error of the centre's mean."""

    @property
    def holds(self) -> bool:
        """Whether the 95 % interval holds the truth."""
        low, high = ratio_interval(self.difference)
        return low <= 1 <= high

    @property
    def apart(self) -> float:
        """In a comparison between runs, d - d90."""
        return self.difference.mean * math.sqrt(1 + self.difference.blocks / self.centre_blocks)

    @property
    def excess(self) -> float:
        """The square of that, minus what chance lets expect of it: an estimate of the variance of runs."""
        return self.apart**2 - self.difference.standard_error**2 - self.centre_error**2


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """The centred pairs of one workload in one run, or in one cut of it."""

    run: str
    workload: str
    pairs: tuple[Centred, ...]
    places: tuple[int, ...] = ()
    """Of a cut: which of the long run's common blocks it has, from 0."""

    @property
    def names(self) -> tuple[Pair, ...]:
        return tuple(one.pair for one in self.pairs)


# ---- the two tests


def between_runs(
    ratios: Mapping[str, Sequence[RunRatio]], centre: Sequence[RatioBlocks]
) -> tuple[Family, ...]:
    """Return the families of test 1: each workload of each run, centred by the long run."""
    known = {(one.ratio.workload, one.ratio.first, one.ratio.second): one.ratio for one in centre}
    families: dict[tuple[str, str], list[Centred]] = {}
    for run, found in ratios.items():
        for one in found:
            other = known.get((one.workload, one.first, one.second))
            if other is not None and min(one.blocks, other.blocks) >= FEWEST_BLOCKS:
                families.setdefault((run, one.workload), []).append(_between(one, other))
    return tuple(
        Family(run=run, workload=workload, pairs=tuple(found)) for (run, workload), found in families.items()
    )


def _between(one: RunRatio, centre: RunRatio) -> Centred:
    shrunk = (one.log - centre.log) / math.sqrt(1 + one.blocks / centre.blocks)
    return Centred(
        pair=(one.first, one.second),
        difference=Difference(
            mean=shrunk, standard_error=one.standard_error, degrees=one.degrees, blocks=one.blocks
        ),
        margin=one.margin,
        centre_blocks=centre.blocks,
        centre_error=centre.standard_error,
    )


def common_blocks(pairs: Sequence[RatioBlocks]) -> list[int]:
    """Return the blocks that all pairs of a workload have, in order."""
    return sorted(set.intersection(*(set(one.differences) for one in pairs))) if pairs else []


def within_run(run: str, pairs: Sequence[RatioBlocks], size: int) -> tuple[Family, ...]:
    """Return the families of test 2: a workload's cuts of so many blocks; none if too few others are left.

    `pairs` are the long run's pairs of one workload.
    """
    blocks = common_blocks(pairs)
    if len(blocks) - size < FEWEST_OTHERS:
        return ()
    return tuple(
        Family(
            run=run,
            workload=pairs[0].ratio.workload,
            pairs=tuple(_cut(one, blocks, blocks[start : start + size]) for one in pairs),
            places=tuple(range(start, start + size)),
        )
        for start in range(0, len(blocks) - size + 1, size)
    )


def _cut(one: RatioBlocks, blocks: Sequence[int], cut: Sequence[int]) -> Centred:
    whole, part = _mean_of(one, blocks), _mean_of(one, cut)
    shrunk = math.sqrt(len(blocks) / (len(blocks) - len(cut))) * (part.mean - whole.mean)
    return Centred(
        pair=(one.ratio.first, one.ratio.second),
        difference=msgspec.structs.replace(part, mean=shrunk),
        margin=one.margin(cut),
        centre_blocks=len(blocks),
        centre_error=whole.standard_error,
    )


def _mean_of(one: RatioBlocks, blocks: Sequence[int]) -> Difference:
    found = paired_difference({block: one.differences[block] for block in blocks})
    if found is None:
        raise ValueError(f"a cut needs two blocks; got {len(blocks)}")
    return found


# ---- the rule, and the counts


def variants(
    pairs: Sequence[Pair], effects: Sequence[float] = EFFECTS
) -> list[tuple[float, npt.NDArray[np.int64]]]:
    """Return every way to move one framework: the effect, and the sign of the truth of each pair.

    The first moves nothing. A framework that is faster moves the pairs in which it is the first up, and those
    in which it is the second down.
    """
    moved = [(0.0, np.zeros(len(pairs), dtype=np.int64))]
    for effect in effects:
        for framework in sorted({name for pair in pairs for name in pair}):
            signs = np.array([(pair[0] == framework) - (pair[1] == framework) for pair in pairs])
            moved += [(effect, signs), (effect, -signs)]
    return moved


def claims(family: Family, moved: Iterable[float]) -> list[int]:
    """Return what the run's rule claims of each pair, moved so far: 1, -1 for the second, 0 for nothing."""
    found = [
        msgspec.structs.replace(one.difference, mean=one.difference.mean + by)
        for one, by in zip(family.pairs, moved, strict=True)
    ]
    p_values = [p_value(one, centred.margin) for one, centred in zip(found, family.pairs, strict=True)]
    steps = holm(p_values, ALPHA)
    return [step.rejected * (1 if one.mean > 0 else -1) for one, step in zip(found, steps, strict=True)]


def counted(families: Iterable[Family]) -> Counts:
    """Return the counts of what was measured, by the functions that decide in a run; each is one draw."""
    return summed(
        _tally(
            family.names,
            np.array([[one.holds for one in family.pairs]]),
            np.array([[claims(family, math.log1p(by) * signs)] for by, signs in variants(family.names)]),
        )
        for family in families
    )


def totals(families: Iterable[Family]) -> Mapping[str, int]:
    """Return of how many each count is."""
    found: dict[str, int] = {}
    for family in families:
        size = len(family.pairs)
        found[HELD], found[FALSE_ALARMS] = found.get(HELD, 0) + size, found.get(FALSE_ALARMS, 0) + size
        for effect, signs in variants(family.names)[1:]:
            right, wrong = found_within(effect), wrong_beside(effect)
            found[right] = found.get(right, 0) + int(np.count_nonzero(signs))
            found[wrong] = found.get(wrong, 0) + size
    return found


def _tally(
    pairs: Sequence[Pair],
    held: npt.NDArray[np.bool_],
    claimed: npt.NDArray[np.int64],
    effects: Sequence[float] = EFFECTS,
) -> Counts:
    """Count in one family. `held` is (draws, pairs), and `claimed` (variants, draws, pairs)."""
    found = {HELD: held.sum(-1), FALSE_ALARMS: (claimed[0] != 0).sum(-1)}
    for place, (effect, signs) in enumerate(variants(pairs, effects)):
        if effect:
            right = (signs != 0) & (claimed[place] == signs)
            wrong = (claimed[place] != 0) & (claimed[place] != signs)
            for name, hits in ((found_within(effect), right), (wrong_beside(effect), wrong)):
                found[name] = found.get(name, 0) + hits.sum(-1)
    return found


def summed(counts: Iterable[Counts]) -> Counts:
    """Return the counts of several families together."""
    found: dict[str, npt.NDArray[np.int64]] = {}
    for one in counts:
        for name, values in one.items():
            found[name] = found[name] + values if name in found else values
    return found


def excess_scatter(families: Sequence[Family]) -> float:
    """Return the scatter of d - d90 that chance within runs does not explain, as a standard deviation."""
    return math.sqrt(max(0.0, fmean(one.excess for family in families for one in family.pairs)))


# ---- what a right program gives


def claims_of(means: Values, errors: Values, degrees: Values, margins: Values) -> npt.NDArray[np.int64]:
    """Return what `claims` does, for many families at once: the pairs of each are on the last axis."""
    from scipy.special import stdtr

    excess = np.abs(means) - np.log1p(margins)
    with np.errstate(divide="ignore", invalid="ignore"):
        tails = np.minimum(1.0, 2 * stdtr(degrees, -excess / errors))
    p_values = np.where(errors > 0, tails, np.where(excess > 0, 0.0, 1.0))
    order = np.argsort(p_values, axis=-1, kind="stable")
    count = p_values.shape[-1]
    kept = np.take_along_axis(p_values, order, -1) <= ALPHA / (count - np.arange(count))
    rejected = np.zeros(p_values.shape, dtype=bool)
    np.put_along_axis(rejected, order, np.logical_and.accumulate(kept, axis=-1), -1)
    return np.where(rejected, np.where(means > 0, 1, -1), 0)


def _decided(family: Family, means: Values, errors: Values, effects: Sequence[float]) -> Counts:
    """Count in the draws of one family; means and errors are (draws, pairs)."""
    from scipy.special import stdtrit

    degrees = np.array([one.difference.degrees for one in family.pairs])
    margins = np.array([one.margin for one in family.pairs])
    moves = [math.log1p(by) * signs for by, signs in variants(family.names, effects)]
    moved = means + np.array(moves)[:, np.newaxis]
    held = np.abs(means) <= stdtrit(degrees, (1 + CONFIDENCE) / 2) * errors
    return _tally(family.names, held, claims_of(moved, errors, degrees, margins), effects)


class Scatter(msgspec.Struct, frozen=True, kw_only=True):
    """How the pairs of a workload scatter together from block to block."""

    pairs: tuple[Pair, ...]
    root: Values
    """Rows whose sums, weighted by independent standard normal values, have the pairs' covariance."""


def scatter_of(pairs: Sequence[RatioBlocks]) -> Scatter:
    """Return the scatter that the pairs of a workload have in the blocks that all of them have."""
    blocks = common_blocks(pairs)
    values = np.array([[one.differences[block] for one in pairs] for block in blocks])
    return Scatter(
        pairs=tuple((one.ratio.first, one.ratio.second) for one in pairs),
        root=(values - values.mean(0)) / math.sqrt(len(blocks) - 1),
    )


def _drawn(chance: np.random.Generator, root: Values, draws: int, blocks: int) -> Values:
    return np.asarray(chance.standard_normal((draws, blocks, len(root))) @ root)


def _means(values: Values, counts: Sequence[int]) -> tuple[Values, Values]:
    """Return means and standard errors (draws, pairs) of the first so many blocks of each pair."""
    parts = [values[:, :count, place] for place, count in enumerate(counts)]
    errors = [part.std(1, ddof=1) / math.sqrt(part.shape[1]) for part in parts]
    return np.stack([part.mean(1) for part in parts], -1), np.stack(errors, -1)


def simulate_runs(
    families: Sequence[Family],
    scatters: Mapping[str, Scatter],
    *,
    effect: float = 0.0,
    effects: Sequence[float] = EFFECTS,
    draws: int = DRAWS,
    seed: int = SEED,
) -> tuple[Counts, Values]:
    """Return the counts of test 1 in each draw, and the mean excess over the pairs.

    `effect` is the standard deviation that runs add to d - d90 of every pair: half its variance from each of
    the two runs, by an effect on each framework.
    """
    chance = np.random.default_rng(seed)
    counts: list[Counts] = []
    excesses: list[Values] = []
    for workload in dict.fromkeys(family.workload for family in families):
        scatter = scatters[workload]
        signs = np.array(
            [[(pair[0] == name) - (pair[1] == name) for pair in scatter.pairs] for name in FRAMEWORKS]
        )
        own = [family for family in families if family.workload == workload]
        sizes = {one.pair: one.centre_blocks for family in own for one in family.pairs}
        lengths = [sizes.get(pair, FEWEST_BLOCKS) for pair in scatter.pairs]
        centre, centre_error = _means(_drawn(chance, scatter.root, draws, max(lengths)), lengths)
        centre = centre + effect / 2 * chance.standard_normal((draws, len(FRAMEWORKS))) @ signs
        for family in own:
            at = [scatter.pairs.index(pair) for pair in family.names]
            sizes_here = [one.difference.blocks for one in family.pairs]
            blocks = _drawn(chance, scatter.root[:, at], draws, max(sizes_here))
            means, errors = _means(blocks, sizes_here)
            means = means + effect / 2 * chance.standard_normal((draws, len(FRAMEWORKS))) @ signs[:, at]
            apart = means - centre[:, at]
            shrunk = apart / np.sqrt([1 + one.difference.blocks / one.centre_blocks for one in family.pairs])
            counts.append(_decided(family, shrunk, errors, effects))
            excesses.append(apart**2 - errors**2 - centre_error[:, at] ** 2)
    return summed(counts), np.concatenate(excesses, -1).mean(-1)


def simulate_cuts(
    groups: Mapping[str, Sequence[Family]],
    scatters: Mapping[str, Scatter],
    *,
    draws: int = DRAWS,
    seed: int = SEED,
) -> Mapping[str, Counts]:
    """Return the counts of test 2 in each draw, for each group of cuts; they cut the same draws."""
    chance = np.random.default_rng(seed)
    found: dict[str, list[Counts]] = {name: [] for name in groups}
    for workload, scatter in scatters.items():
        own = {name: [one for one in cuts if one.workload == workload] for name, cuts in groups.items()}
        count = max((cut.pairs[0].centre_blocks for cuts in own.values() for cut in cuts), default=0)
        blocks = _drawn(chance, scatter.root, draws, count) if count else np.zeros((draws, 1, 1))
        for name, cuts in own.items():
            for cut in cuts:
                size = len(cut.places)
                means, errors = _means(blocks[:, list(cut.places)], [size] * len(cut.pairs))
                shrunk = math.sqrt(count / (count - size)) * (means - blocks.mean(1))
                found[name].append(_decided(cut, shrunk, errors, EFFECTS))
    return {name: summed(counts) for name, counts in found.items()}


def quantile(values: npt.NDArray[np.int64] | Values, share: float) -> float:
    """Return the smallest value that is not exceeded with this probability."""
    return float(np.quantile(values, share, method="inverted_cdf"))


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of the verdict on test 1."""

    held: int
    """At least so many intervals have to hold 0."""
    false_alarms: int
    """At most so many claims may be made."""

    def hold(self, counts: Counts) -> npt.NDArray[np.bool_]:
        """Return whether test 1 holds, in each draw."""
        return (counts[HELD] >= self.held) & (counts[FALSE_ALARMS] <= self.false_alarms)


def limits(chance: Counts) -> Limits:
    """Return the limits from the counts that a right program gives."""
    return Limits(
        held=int(quantile(chance[HELD], LEVEL)),
        false_alarms=int(quantile(chance[FALSE_ALARMS], 1 - LEVEL)),
    )


# ---- the power of the verdict

RUNS, WORKLOADS = 3, 6
BLOCKS, LONG_BLOCKS = 3, 12
SCATTERS = (0.02, 0.03)
"""Standard deviations over blocks, of one framework."""
BETWEEN = (0.0, 0.01, 0.02, 0.03)
"""Standard deviations that runs add to the difference of a pair's two logarithms."""


def failing(scatter: float, effect: float, *, draws: int = DRAWS) -> float:
    """Return how often the verdict fails, of a campaign whose runs differ by so much."""
    one_pair = Difference(mean=0.0, standard_error=scatter, degrees=BLOCKS - 1, blocks=BLOCKS)
    families = [
        Family(
            run=str(run),
            workload=str(workload),
            pairs=tuple(
                Centred(
                    pair=pair, difference=one_pair, margin=MARGIN, centre_blocks=LONG_BLOCKS, centre_error=0.0
                )
                for pair in PAIRS
            ),
        )
        for workload in range(WORKLOADS)
        for run in range(RUNS)
    ]
    signs = [[(pair[0] == name) - (pair[1] == name) for pair in PAIRS] for name in FRAMEWORKS]
    own = Scatter(pairs=PAIRS, root=scatter * np.array(signs, dtype=np.float64))
    scatters = {family.workload: own for family in families}
    right, _ = simulate_runs(families, scatters, effects=(), draws=draws)
    tried, _ = simulate_runs(families, scatters, effect=effect, effects=(), draws=draws, seed=SEED + 1)
    return float(1 - limits(right).hold(tried).mean())


def power(draws: int = DRAWS) -> str:
    """Return a table of how often the verdict fails."""
    rows = [
        (f"{100 * scatter:g} %", *(f"{100 * failing(scatter, by, draws=draws):.1f} %" for by in BETWEEN))
        for scatter in SCATTERS
    ]
    return grid(("scatter of blocks", *(f"fails, runs differ by {100 * by:g} %" for by in BETWEEN)), rows)


if __name__ == "__main__":
    if sys.argv[1:] != ["--power"]:
        sys.exit("python -m campaign.crossed --power")
    print(power())
