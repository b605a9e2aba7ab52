"""Prediction intervals: where one more training run would fall, and whether a published figure lies there.

The code and the reports call a prediction interval a band.
"""

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Literal, TypeAlias

import msgspec

BandVerdict: TypeAlias = Literal["inside", "outside", "no band"]
CONFIDENCE = 0.95


class Band(msgspec.Struct, frozen=True, kw_only=True):
    """A figure over several seeds, and the prediction interval of one more.

    The ends are None for one seed, which says nothing about the spread. They are given nevertheless where
    the published figure is a share of images drawn at random: then they are the interval of the draw alone.
    """

    n: int
    mean: float
    sd: float | None
    """The sample standard deviation over the seeds; None for one seed."""
    low: float | None
    high: float | None


def band(values: Sequence[float], *, drawn_from: int | None = None) -> Band:
    """Return the mean, the standard deviation and the 95 % prediction interval of a figure over seeds.

    One more value of a normal sample lies in mean ± t sd sqrt(1 + 1/n), with t the quantile of Student's
    distribution with n - 1 degrees of freedom (Hahn and Meeker, Statistical Intervals (1991), section 4.7).

    `drawn_from` is the number of images whose share the notebook published, where it drew them at random.
    The draw has the known variance p (1 - p) / `drawn_from`. Its half-width, by the normal quantile, is added
    to that of the seeds in squares.

    Raises ValueError if there are no values.
    """
    if not values:
        raise ValueError("no values have no band")
    from scipy.special import ndtri, stdtrit

    n, mean, quantile = len(values), fmean(values), (1 + CONFIDENCE) / 2
    sd = stdev(values, mean) if n > 1 else None
    draw = float(ndtri(quantile)) * math.sqrt(mean * (1 - mean) / drawn_from) if drawn_from else None
    seeds = float(stdtrit(n - 1, quantile)) * sd * math.sqrt(1 + 1 / n) if sd is not None else None
    parts = [part for part in (draw, seeds) if part is not None]
    half = math.hypot(*parts) if parts else None
    return Band(
        n=n,
        mean=mean,
        sd=sd,
        low=None if half is None else mean - half,
        high=None if half is None else mean + half,
    )


def judge(found: Band, low: float, high: float) -> BandVerdict:
    """Return whether a published value lies in the band, or our mean in a published range.

    A range (`low` < `high`) is compared with the mean and not with the band: the fewer seeds there are, the
    wider is the band, and the sooner it would touch the range.
    """
    if low < high:
        return "inside" if low <= found.mean <= high else "outside"
    if found.low is None or found.high is None:
        return "no band"
    return "inside" if found.low <= low <= found.high else "outside"
