"""Statistics of training rates: every figure of a report is derived here, from raw values, when it is read.

Everything is computed on the logarithm of a rate, so that "1.1 times as fast" and "1/1.1 times as fast" are
the same distance from 1. The functions take numbers, not records, and raise ValueError for values that no
measurement can have. SciPy is imported by the functions that need it: a worker, which only asks whether its
rate has settled, loads NumPy alone.
"""

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

CONFIDENCE = 0.95
SIGNIFICANCE = 0.05
POWER = 0.80

FEWEST_WINDOWS = 5
LATEST_WINDOWS = 10
"""The steady state is judged, and the throughput taken, on so many of the latest windows at most."""

_LARGEST_LOG = 300.0
_MOVING_RANGE = 1.128
"""Expected range of two normal values in standard deviations (the d2 of control charts, for two)."""
_MEDIAN = 1.2533
"""Standard error of a median over that of a mean, for normal values: sqrt(pi / 2)."""
_TREND_T = {3: 3.482, 4: 2.999, 5: 2.757, 6: 2.612, 7: 2.517, 8: 2.449}
"""Student's t at which a slope counts as a trend: 4 % two-sided, by degrees of freedom."""


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A rate and its interval; without interval where there are fewer than two blocks."""

    value: float
    low: float | None
    high: float | None
    blocks: int

    @property
    def half_width(self) -> float | None:
        """Half the interval's width over the estimate: 0.012 for ±1.2 %."""
        return None if self.low is None or self.high is None else (self.high - self.low) / (2 * self.value)


class PairedDifference(msgspec.Struct, frozen=True, kw_only=True):
    """The mean difference of two cells' log-throughput over the blocks that both have."""

    mean: float
    standard_error: float
    blocks: int

    @property
    def ratio(self) -> float:
        return math.exp(self.mean)


class HolmStep(msgspec.Struct, frozen=True, kw_only=True):
    """What Holm's procedure says of one comparison."""

    p_adjusted: float
    alpha: float
    """The level this comparison was tested at; its interval is made at the same level."""
    rejected: bool


def window_rate(samples: int, seconds: float) -> float:
    """Return a window's rate in samples/s; raise ValueError for a window without samples or without time."""
    if not (samples > 0 and seconds > 0 and math.isfinite(seconds)):
        raise ValueError(f"a window of {samples} samples in {seconds} s has no rate")
    return samples / seconds


def log_throughput(rates: Sequence[float]) -> float:
    """Return the throughput of one job, ln(samples/s): the median of the logarithms of its latest windows.

    Only the latest `LATEST_WINDOWS` count, which are those that `settled` looked at.
    """
    if not rates:
        raise ValueError("a throughput needs at least one window")
    return float(np.median(np.log(_positive(rates)[-LATEST_WINDOWS:])))


def estimate(logs: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """Return exp of the mean of the blocks' log-throughputs with its Student's t interval.

    A single block has no scatter, so it has no interval.
    """
    values = np.asarray(logs, dtype=np.float64)
    if not values.size or not np.isfinite(values).all():
        raise ValueError(f"an estimate needs finite values, at least one; got {list(logs)}")
    mean = float(values.mean())
    if values.size == 1:
        return Estimate(value=math.exp(mean), low=None, high=None, blocks=1)
    error = float(values.std(ddof=1)) / math.sqrt(values.size)
    margin = _t_quantile(1 - (1 - confidence) / 2, values.size - 1) * error
    return Estimate(
        value=math.exp(mean), low=_exp(mean - margin), high=_exp(mean + margin), blocks=values.size
    )


def paired_difference(first: Mapping[int, float], second: Mapping[int, float]) -> PairedDifference | None:
    """Return `first` minus `second`, log-throughputs by block, over shared blocks; None below two of them.

    Sides of one block ran back to back, so what slowed the machine in a block cancels in the difference.
    """
    shared = sorted(first.keys() & second.keys())
    if len(shared) < 2:
        return None
    differences = np.array([first[block] - second[block] for block in shared])
    return PairedDifference(
        mean=float(differences.mean()),
        standard_error=float(differences.std(ddof=1)) / math.sqrt(len(shared)),
        blocks=len(shared),
    )


def p_value(difference: PairedDifference) -> float:
    """Return the two-sided p value of the paired t test that the ratio is 1."""
    if difference.standard_error == 0:
        return 1.0 if difference.mean == 0 else 0.0
    from scipy.special import stdtr

    t = abs(difference.mean) / difference.standard_error
    return min(1.0, 2 * float(stdtr(difference.blocks - 1, -t)))


def ratio_interval(difference: PairedDifference, alpha: float = SIGNIFICANCE) -> tuple[float, float]:
    """Return the interval of the ratio that leaves out `alpha`: exp(mean ± t S/√P)."""
    margin = _t_quantile(1 - alpha / 2, difference.blocks - 1) * difference.standard_error
    return _exp(difference.mean - margin), _exp(difference.mean + margin)


def detectable_difference(
    difference: PairedDifference, alpha: float = SIGNIFICANCE, power: float = POWER
) -> float:
    """Return the smallest relative difference that such a test finds with that power: 0.03 for 3 %.

    The noncentrality is solved for exactly (noncentral t), because the usual sum of two quantiles promises
    too much when there are three blocks: 5.36 standard errors in place of 5.65. The true scatter is taken
    to be the one seen. Source: Cohen, Statistical Power Analysis (1988), chapter 2.
    """
    from scipy.special import nctdtrinc

    degrees = difference.blocks - 1
    noncentrality = float(nctdtrinc(degrees, 1 - power, _t_quantile(1 - alpha / 2, degrees)))
    return _exp(noncentrality * difference.standard_error) - 1


def holm(p_values: Sequence[float], alpha: float = SIGNIFICANCE) -> tuple[HolmStep, ...]:
    """Adjust the p values of one family by Holm's step-down method, in the order given.

    Source: Holm, A simple sequentially rejective multiple test procedure (1979). The p values are taken from
    the smallest on; of m, the one at step i (from 0) is tested at alpha / (m - i), and the first that is not
    rejected ends the procedure: it and all after it are not rejected. A comparison's interval is made at the
    level of its own step, and after the end at the level of the step that ended it. So an interval excludes 1
    exactly where Holm rejects; read alone it covers at least 1 - alpha, but the intervals of a family are
    not promised to hold all at once.
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


def settled(rates: Sequence[float], tolerance: float = 0.01) -> bool:
    """Say whether training runs at a steady rate, from the rates of all windows so far, in order.

    At least five windows are needed, and the latest ten at most are looked at; n of them. With the medians
    of ln(rate) over the first and over the last n // 2 of these, the rate has settled

    1. if the medians differ by at most `tolerance`, or
    2. if the windows' own scatter explains the difference: it is at most three standard errors, AND the slope
       of ln(rate) over the windows is not significant (t test of a least-squares line, 4 % two-sided).

    The scatter is the mean absolute difference of neighbouring windows over 1.128 (the moving range of
    control charts; Montgomery, Statistical Quality Control, individuals charts), which a slow drift hardly
    changes; the standard error of the difference of the medians is 1.2533 scatter sqrt(2 / (n // 2)).
    Rule 2 is there because 1 % is less than the scatter of a shared machine, where rule 1 alone would call
    noise a drift; its second half is there because few windows hide a ramp inside three standard errors.
    """
    latest = np.log(_positive(rates)[-LATEST_WINDOWS:])
    count = len(latest)
    if count < FEWEST_WINDOWS:
        return False
    half = count // 2
    difference = abs(float(np.median(latest[-half:]) - np.median(latest[:half])))
    if difference <= math.log1p(tolerance):
        return True
    scatter = float(np.abs(np.diff(latest)).mean()) / _MOVING_RANGE
    return difference <= 3 * _MEDIAN * scatter * math.sqrt(2 / half) and not _has_trend(latest)


def _has_trend(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> bool:
    """Say whether the slope of a least-squares line through 5 to 10 values is significant."""
    count = len(values)
    places = np.arange(count) - (count - 1) / 2
    spread = float(places @ places)
    slope = float(places @ values) / spread
    rest = values - values.mean() - slope * places
    slope_error = math.sqrt(float(rest @ rest) / (count - 2) / spread)
    return abs(slope) > _TREND_T[count - 2] * slope_error


def _positive(rates: Sequence[float]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    values = np.asarray(rates, dtype=np.float64)
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise ValueError(f"a rate is a finite number above 0; got {list(rates)}")
    return values


def _exp(value: float) -> float:
    """Return exp(value), finite also where scatter without sense would overflow it."""
    return math.exp(max(-_LARGEST_LOG, min(_LARGEST_LOG, value)))


def _t_quantile(probability: float, degrees: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, probability))
