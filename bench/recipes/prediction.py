"""Where one more run would fall: the band of a figure over seeds, and whether a published one lies in it."""

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import msgspec

Verdict: TypeAlias = Literal["inside", "outside", "no band"]
CONFIDENCE = 0.95


class Band(msgspec.Struct, frozen=True, kw_only=True):
    """A figure over several seeds; the band is None where one seed leaves it unknown.

    Of one seed and a share of images drawn at random, the band is that of the draw alone.
    """

    n: int
    mean: float
    sd: float | None
    """Over the seeds, of the sample."""
    low: float | None
    high: float | None
    """The ends of the interval in which one further run lies with 95 % probability."""


def band(values: Sequence[float], *, drawn_from: int | None = None) -> Band:
    """Return mean, spread and prediction interval of a figure over seeds.

    One more value of a normal sample lies in mean ± t sd sqrt(1 + 1/n), t being the quantile of Student's
    distribution with n - 1 degrees of freedom (Hahn and Meeker, Statistical Intervals (1991), section 4.7).
    `drawn_from`: the published figure is a share of so few images of its own, drawn at random, and scatters
    for that alone with the variance p (1 - p) / `drawn_from`, which is known: its part of the half-width, by
    the normal quantile, is added in squares.
    """
    n = len(values)
    if n == 0:
        raise ValueError("no values have no band")
    mean = math.fsum(values) / n
    sampling = mean * (1 - mean) / drawn_from if drawn_from else 0.0
    by_draw = _normal_quantile() * math.sqrt(sampling)
    if n == 1:
        sd, half = None, by_draw if drawn_from else None
    else:
        sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
        half = math.hypot(_t_quantile(n - 1) * sd * math.sqrt(1 + 1 / n), by_draw)
    return Band(
        n=n,
        mean=mean,
        sd=sd,
        low=None if half is None else mean - half,
        high=None if half is None else mean + half,
    )


def judge(found: Band, low: float, high: float) -> Verdict:
    """Say whether a published value lies in the band, or our mean in the range that a text names.

    A range is not compared with the band, which is wider the less is known, and would touch it sooner.
    """
    if low < high:
        return "inside" if low <= found.mean <= high else "outside"
    if found.low is None or found.high is None:
        return "no band"
    return "inside" if found.low <= low <= found.high else "outside"


def _t_quantile(degrees: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + CONFIDENCE) / 2))


def _normal_quantile() -> float:
    from scipy.special import ndtri

    return float(ndtri((1 + CONFIDENCE) / 2))
