"""Statistics of training rates: every figure of a report is derived here, from raw values.

Everything is computed on the logarithm of a rate, so that "1.1 times as fast" and "1/1.1 times as fast" are
the same distance from 1. The functions take numbers, not records, and raise ValueError for values that no
measurement can have. The functions that need SciPy import it themselves, so that a worker never loads it.
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95
"""Of every interval that is shown, except those of accuracy tests, which have the level of their test."""
POWER = 0.80

ALPHA = 0.02
"""Level of a family of comparisons: the largest probability that one of them claims a difference although it
is not larger than `MARGIN`."""
MARGIN = 0.01
"""A difference is claimed only if it is proven larger than this. Chance in a fresh process, such as its place
in memory and the order of its hash tables, makes two runs of one program differ by about as much."""
EQUIVALENCE = 0.02
"""Two rows are called equal if a difference larger than this is ruled out."""
EQUIVALENCE_ALPHA = 0.05
"""Level of each of the two one-sided tests that rule it out."""

FEWEST_FOR_SCATTER = 6
"""Fewest blocks from whose scatter anything is predicted. The 95 % interval of a standard deviation reaches
from 0.6 to 2.5 times its estimate with six blocks, and from 0.5 to 6.3 times with three."""

TRIMMED = 0.2
"""Share of a job's windows, or of two jobs' rounds, cut off at each end before the mean is taken."""

_LOOKS_DRAWS = 100_000
_SEED = 20240229
"""Fixed, so that the same values always give the same interval."""
_LARGEST_LOG = 300.0

_Values: TypeAlias = npt.NDArray[np.float64]


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A rate and its interval; there is no interval below two blocks."""

    value: float
    low: float | None
    high: float | None
    blocks: int

    @property
    def half_width(self) -> float | None:
        """Half the interval's width divided by the estimate: 0.012 for ±1.2 %."""
        return None if self.low is None or self.high is None else (self.high - self.low) / (2 * self.value)


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """The mean difference of two sides, usually of logarithms of rates."""

    mean: float
    standard_error: float
    degrees: float
    """Degrees of freedom of the standard error; fractional if the sides are not paired."""
    blocks: int
    """Number of pairs; if the sides are not paired, number of values of the smaller side."""

    @property
    def ratio(self) -> float:
        return math.exp(self.mean)


class PairJudgement(msgspec.Struct, frozen=True, kw_only=True):
    """The judgement of one pair of cells alone, not as one of a family."""

    ratio: float
    """The first side's throughput divided by the second's."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    p: float
    """The p value of the test that the difference is no larger than `MARGIN`."""
    claimed: bool
    """Whether a difference larger than `MARGIN` is claimed at level `ALPHA`."""
    equivalent: bool
    """Whether a difference larger than `EQUIVALENCE` is ruled out."""
    blocks: int


class HolmStep(msgspec.Struct, frozen=True, kw_only=True):
    """The result of Holm's procedure for one comparison."""

    p_adjusted: float
    alpha: float
    """The level at which this comparison was tested."""
    rejected: bool


# ---- from windows to blocks


def log_rate(samples: int, seconds: float) -> float:
    """Return a window's ln(samples/s); raise ValueError for a window without samples or without time."""
    if not (samples > 0 and seconds > 0 and math.isfinite(seconds)):
        raise ValueError(f"a window of {samples} samples in {seconds} s has no rate")
    return math.log(samples / seconds)


def trimmed_mean(values: Sequence[float] | _Values) -> float:
    """Return the mean after a fifth of the values, rounded down, is cut off at each end.

    An occasional stall moves neither this mean nor a median. But if values scatter evenly about their middle,
    as those of short windows do, a median scatters more. Source: Tukey and McLaughlin, Less vulnerable
    confidence and significance procedures for location (1963).
    """
    ordered = np.sort(_finite(values))
    cut = int(TRIMMED * len(ordered))
    return float(ordered[cut : len(ordered) - cut].mean())


def log_throughput(logs: Sequence[float], latest: int) -> float:
    """Return the throughput of one job, ln(samples/s): the trimmed mean over its `latest` windows.

    `logs` are ln(samples/s) of all its windows, in order.
    """
    if latest < 1:
        raise ValueError(f"a throughput needs at least one window; {latest} are asked for")
    return trimmed_mean(_finite(logs)[-latest:])


def block_differences(
    first: Sequence[float], second: Sequence[float], latest: int, *, in_turns: bool = True
) -> _Values:
    """Return the differences of two jobs of one block in the `latest` rounds that both have, round by round.

    Both sides are ln(samples/s) by round, from the first one. A job that died has fewer rounds. If the jobs
    did not take turns, they share no rounds: the latest windows of each count, in any pairing, and nothing
    cancels out.
    """
    shared = min(len(first), len(second))
    if shared < 1 or latest < 1:
        raise ValueError("a difference needs at least one round that both sides have")
    if not in_turns:
        count = min(shared, latest)
        return _finite(first)[-count:] - _finite(second)[-count:]
    return (_finite(first)[:shared] - _finite(second)[:shared])[-latest:]


def block_difference(
    first: Sequence[float], second: Sequence[float], latest: int, *, in_turns: bool = True
) -> float:
    """Return the difference of two jobs of one block: the trimmed mean of `block_differences`.

    If something slowed the machine in a round, it slowed both jobs, and cancels out. Jobs that did not take
    turns are compared by the trimmed mean of each, as no round is the same for both.
    """
    if not in_turns:
        return log_throughput(first, latest) - log_throughput(second, latest)
    return trimmed_mean(block_differences(first, second, latest))


def plain_difference(
    first: Sequence[float], second: Sequence[float], latest: int, *, in_turns: bool = True
) -> float:
    """Return the difference of two jobs of one block by their samples over seconds, in the same rounds.

    Nothing is trimmed. All windows of a row train equally many samples, so samples over seconds is the
    harmonic mean of the windows' rates.
    """
    shared = min(len(first), len(second))
    if shared < 1 or latest < 1:
        raise ValueError("a difference needs at least one round that both sides have")
    if in_turns:
        first, second = first[:shared], second[:shared]
    return _log_harmonic_mean(first[-latest:]) - _log_harmonic_mean(second[-latest:])


def _log_harmonic_mean(logs: Sequence[float]) -> float:
    values = _finite(logs)
    slowest = float(values.min())  # taken out, so that nothing overflows
    return slowest - math.log(float(np.exp(slowest - values).mean()))


def estimate(logs: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """Return exp of the mean of the blocks' log-throughputs, with its interval by Student's t.

    A single block has no scatter, so it has no interval.
    """
    values = _finite(logs)
    mean = float(values.mean())
    if values.size == 1:
        return Estimate(value=math.exp(mean), low=None, high=None, blocks=1)
    error = float(values.std(ddof=1)) / math.sqrt(values.size)
    margin = _t_quantile(1 - (1 - confidence) / 2, values.size - 1) * error
    return Estimate(
        value=math.exp(mean), low=_exp(mean - margin), high=_exp(mean + margin), blocks=values.size
    )


# ---- pairs


def paired_difference(differences: Mapping[int, float]) -> Difference | None:
    """Return the mean of the differences by block, made by `block_difference`; None below two blocks."""
    if len(differences) < 2:
        return None
    values = _finite([differences[block] for block in sorted(differences)])
    return Difference(
        mean=float(values.mean()),
        standard_error=float(values.std(ddof=1)) / math.sqrt(values.size),
        degrees=values.size - 1,
        blocks=values.size,
    )


def unpaired_difference(first: Sequence[float], second: Sequence[float]) -> Difference | None:
    """Return the second side's mean minus the first's, for sides that are not paired.

    None below two values on a side.

    The variances may differ (Welch's t test). Source: Welch, The generalization of "Student's" problem when
    several different population variances are involved (1947).
    """
    sides = _finite(first), _finite(second)
    fewest = min(side.size for side in sides)
    if fewest < 2:
        return None
    one, other = (float(side.var(ddof=1)) / side.size for side in sides)
    error = one + other
    parts = one**2 / (sides[0].size - 1) + other**2 / (sides[1].size - 1)
    return Difference(
        mean=float(sides[1].mean() - sides[0].mean()),
        standard_error=math.sqrt(error),
        degrees=error**2 / parts if parts else fewest - 1,
        blocks=fewest,
    )


def judge_pair(differences: Mapping[int, float]) -> PairJudgement | None:
    """Judge one pair alone by its differences in each block; None below two blocks."""
    difference = paired_difference(differences)
    if difference is None:
        return None
    low, high = ratio_interval(difference)
    p = p_value(difference)
    return PairJudgement(
        ratio=difference.ratio,
        low=low,
        high=high,
        p=p,
        claimed=p <= ALPHA,
        equivalent=is_equivalent(difference),
        blocks=difference.blocks,
    )


def p_value(difference: Difference, margin: float = MARGIN) -> float:
    """Return the p value of the test that the true ratio is within `margin` of 1, a minimum-effect test.

    The null hypothesis is |mu| <= delta, with mu the true mean difference of logarithms and delta =
    ln(1 + margin). With t = (|mean| - delta) / standard error, p = min(1, 2 P(T >= t)), where T has Student's
    t distribution with `difference.degrees` degrees of freedom. That is the one-sided p value at the nearer
    end of the null hypothesis, doubled because the data choose the end. So p <= alpha exactly if the interval
    `ratio_interval(difference, alpha)` excludes every ratio from 1 / (1 + margin) to 1 + margin. Under the
    null hypothesis the probability of that is at most alpha. With a margin of 0 it is the ordinary paired t
    test. Source: Murphy and Myors, Testing the hypothesis that treatments have negligible effects:
    minimum-effect tests in the general linear model (1999), there for F tests.
    """
    excess = abs(difference.mean) - math.log1p(margin)
    if difference.standard_error == 0:
        return 0.0 if excess > 0 else 1.0
    from scipy.special import stdtr

    return min(1.0, 2 * float(stdtr(difference.degrees, -excess / difference.standard_error)))


def ratio_interval(difference: Difference, alpha: float = 1 - CONFIDENCE) -> tuple[float, float]:
    """Return the interval of the ratio with confidence 1 - alpha: exp(mean ± t S/√P)."""
    margin = _t_quantile(1 - alpha / 2, difference.degrees) * difference.standard_error
    return _exp(difference.mean - margin), _exp(difference.mean + margin)


def is_equivalent(difference: Difference, bound: float = EQUIVALENCE) -> bool:
    """Say whether a ratio beyond 1 + bound is ruled out in both directions: two one-sided tests (TOST).

    Each test has the level `EQUIVALENCE_ALPHA`, so both reject exactly if the 90 % interval lies inside the
    bounds. Source: Schuirmann, A comparison of the two one-sided tests procedure and the power approach
    (1987).
    """
    low, high = ratio_interval(difference, 2 * EQUIVALENCE_ALPHA)
    return 1 / (1 + bound) < low and high < 1 + bound


def detectable_difference(
    difference: Difference, alpha: float = ALPHA, power: float = POWER, margin: float = MARGIN
) -> float:
    """Return the smallest true relative difference that `p_value` finds with that power: 0.03 for 3 %.

    The test rejects if t exceeds Student's quantile. t has the noncentral t distribution with noncentrality
    (mu - delta) / standard error, and the equation is solved exactly: the usual sum of two quantiles is too
    optimistic with few blocks. The true scatter must be that of `difference`; `detectable_range` is for one
    that was estimated. Source: Cohen, Statistical Power Analysis (1988), chapter 2.
    """
    from scipy.special import nctdtrinc

    degrees = difference.degrees
    noncentrality = float(nctdtrinc(degrees, 1 - power, _t_quantile(1 - alpha / 2, degrees)))
    return _exp(math.log1p(margin) + noncentrality * difference.standard_error) - 1


def detectable_range(
    difference: Difference, alpha: float = ALPHA, power: float = POWER, margin: float = MARGIN
) -> tuple[float, float] | None:
    """Return the 95 % interval of the `detectable_difference`; None below six blocks.

    The scatter of the blocks is an estimate, so the detectable difference is one as well. Its interval is
    that of the standard deviation.
    """
    if difference.degrees < FEWEST_FOR_SCATTER - 1:
        return None
    low, high = (
        detectable_difference(
            msgspec.structs.replace(difference, standard_error=factor * difference.standard_error),
            alpha,
            power,
            margin,
        )
        for factor in scatter_factors(difference.degrees)
    )
    return low, high


def scatter_factors(degrees: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the ends of the interval of a standard deviation as multiples of its estimate.

    With f degrees of freedom, f times the squared ratio of estimate and truth has a chi-square distribution,
    if the values are normal.
    """
    from scipy.special import chdtri

    tail = (1 - confidence) / 2
    return math.sqrt(degrees / chdtri(degrees, tail)), math.sqrt(degrees / chdtri(degrees, 1 - tail))


def degrees_of_sum(variances: Sequence[float], degrees: Sequence[float]) -> float:
    """Return the degrees of freedom of a sum of independent estimates of variances; 0 for a sum of 0.

    Source: Satterthwaite, An approximate distribution of estimates of variance components (1946).
    """
    parts = math.fsum(
        variance**2 / freedom for variance, freedom in zip(variances, degrees, strict=True) if variance
    )
    return math.fsum(variances) ** 2 / parts if parts else 0.0


def blocks_for(scatter: float, half_width: float, confidence: float = CONFIDENCE) -> int:
    """Return the fewest blocks, two at least, in which a ratio's interval has this relative half-width.

    `scatter` is the standard deviation of the ratio's logarithm from block to block.
    """
    from scipy.special import ndtri

    probability = 1 - (1 - confidence) / 2
    margin = math.asinh(half_width)  # exp(mean ± margin) has the half-width sinh(margin) of exp(mean)
    blocks = max(2, math.ceil((float(ndtri(probability)) * scatter / margin) ** 2))
    while _t_quantile(probability, blocks - 1) * scatter > margin * math.sqrt(blocks):
        blocks += 1
    return blocks


def holm(p_values: Sequence[float], alpha: float = ALPHA) -> tuple[HolmStep, ...]:
    """Adjust the p values of one family by Holm's step-down method; the results are in the given order.

    The p values are tested from the smallest to the largest: of m, the one at step i (from 0) at alpha / (m -
    i). The first that is not rejected ends the procedure: it and all larger ones are not rejected, and get
    its level. The method only requires that each p value is valid under its own null hypothesis, so it also
    serves minimum-effect tests. Source: Holm, A simple sequentially rejective multiple test procedure (1979).
    """
    count = len(p_values)
    steps: dict[int, HolmStep] = {}
    running, level, ended = 0.0, alpha, False
    for step, index in enumerate(sorted(range(count), key=lambda index: p_values[index])):
        if not 0 <= p_values[index] <= 1:
            raise ValueError(f"a p value lies between 0 and 1; got {p_values[index]}")
        running = max(running, min(1.0, (count - step) * p_values[index]))
        if not ended:
            level = alpha / (count - step)
            ended = p_values[index] > level
        steps[index] = HolmStep(p_adjusted=running, alpha=level, rejected=not ended)
    return tuple(steps[index] for index in range(count))


@lru_cache
def level_of_looks(looks: tuple[int, ...], alpha: float) -> float:
    """Return the level for each look at growing data so that all together err with probability `alpha`.

    At each count of values in `looks`, a one-sided t test of all values so far is made, and one rejection is
    enough. The looks share data, so each may have more than its share of `alpha`. The level depends only on
    the counts. It is found by simulation with a fixed seed, with a relative error of about 2 %. Source:
    Pocock, Group sequential methods in the design and analysis of clinical trials (1977). Raises ValueError
    for a look at fewer than two values.
    """
    if min(looks) < 2:
        raise ValueError(f"a t test needs two values; got looks at {looks}")
    if len(looks) == 1:
        return alpha
    from scipy.special import stdtr

    values = np.random.default_rng(_SEED)
    total, squares = np.zeros(_LOOKS_DRAWS), np.zeros(_LOOKS_DRAWS)
    smallest = np.ones(_LOOKS_DRAWS)
    for count in range(1, max(looks) + 1):
        drawn = values.standard_normal(_LOOKS_DRAWS)
        total += drawn
        squares += drawn**2
        if count in looks:
            error = np.sqrt((squares - total**2 / count) / (count - 1) / count)
            smallest = np.minimum(smallest, stdtr(count - 1, -total / count / error))
    return float(np.quantile(smallest, alpha))


def success_interval(successes: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return Wilson's interval of a success rate, which stays within 0 to 1 even if all or none succeed.

    Source: Wilson, Probable inference, the law of succession, and statistical inference (1927).
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"{successes} successes in {trials} trials have no rate")
    from scipy.special import ndtri

    z = float(ndtri(1 - (1 - confidence) / 2))
    share = successes / trials
    scale = 1 + z * z / trials
    middle = (share + z * z / (2 * trials)) / scale
    half = z * math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2) / scale
    return max(0.0, middle - half), min(1.0, middle + half)


def exact_interval(successes: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the exact interval of a success rate: it holds the true one at least as often as it says.

    Source: Clopper and Pearson, The use of confidence or fiducial limits illustrated in the case of the
    binomial (1934).
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"{successes} successes in {trials} trials have no rate")
    from scipy.special import betaincinv

    tail, failures = (1 - confidence) / 2, trials - successes
    low = float(betaincinv(successes, failures + 1, tail)) if successes else 0.0
    high = float(betaincinv(successes + 1, failures, 1 - tail)) if failures else 1.0
    return low, high


# ---- shared


def _finite(values: Sequence[float] | _Values) -> _Values:
    """Return the values as an array; raise ValueError if there is none, or one is not finite."""
    array = np.asarray(values, dtype=np.float64)
    if not array.size or not np.isfinite(array).all():
        raise ValueError(f"a statistic needs finite values, at least one; got {list(values)}")
    return array


def _exp(value: float) -> float:
    """Return exp(value), limited so that an absurd scatter does not overflow."""
    return math.exp(max(-_LARGEST_LOG, min(_LARGEST_LOG, value)))


def _t_quantile(probability: float, degrees: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, probability))
