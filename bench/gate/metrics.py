"""The metrics by which two sides are compared, and how large a change counts.

A finding states whether one figure of one cell is worse on the second side, head, than on the first, base. A
change is claimed only if it is proven larger than the metric's margin. A change is ruled out only if the
whole interval is within the tolerance. Everything else is undecided, so neither noise nor too few values can
look like "nothing has changed".
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import msgspec

from bench.analysis.statistics import (
    ALPHA,
    Difference,
    HolmStep,
    detectable_range,
    holm,
    p_value,
    paired_difference,
    ratio_interval,
    unpaired_difference,
)

ChangeKind: TypeAlias = Literal[
    "worse",  # by more than the margin
    "better",
    "same",  # no change larger than the tolerance
    "no worse",  # no loss larger than the tolerance
    "undecided",
]
Conclusion: TypeAlias = Literal["fine", "regression", "undecided"]
"""Of a cell or a comparison: nothing got worse, something did, or that is not known."""

FINE: tuple[ChangeKind, ...] = ("better", "same", "no worse")

LEFT_OUT = 0.05
"""The probability that the interval which rules out a change leaves out, at both ends together."""
FEWEST_VALUES = 3
"""Fewest blocks or seeds on each side: with two, an interval is 12.7 standard errors wide."""


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """A figure that is compared."""

    name: str
    unit: str
    better: Literal["higher", "lower", "same"]
    """`same`: a change in either direction is worse, because equal work must learn equally well."""
    relative: bool
    """Whether the change is a ratio; otherwise it is a difference in the figure's own unit."""
    margin: float
    """A change is claimed only if it is proven larger than this."""
    tolerance: float
    """A loss as large as this must not be missed."""
    alpha: float = ALPHA
    """Significance level at which a change in either direction is claimed."""
    timed: bool = False
    """Whether it depends on the speed of the machine."""
    words: tuple[str, str]
    """The words for a figure that got worse, and for one that got better."""


SPEED = Metric(
    name="speed", unit="samples/s", better="higher", relative=True, margin=0.01, tolerance=0.05,
    timed=True, words=("slower", "faster"),
)  # fmt: skip
FIRST_STEP = Metric(
    name="first step", unit="s", better="lower", relative=True, margin=0.05, tolerance=0.5,
    timed=True, words=("later", "sooner"),
)  # fmt: skip
"""It takes a second or less and varies by a quarter from run to run, so only a large change can be ruled
out."""
MEMORY = Metric(
    name="memory", unit="bytes", better="lower", relative=True, margin=0.02, tolerance=0.2,
    words=("larger", "smaller"),
)  # fmt: skip
"""The peak of the same program differs by a tenth from process to process where threads compile side by side,
so a loss of a tenth cannot be ruled out in a reasonable time."""
DEVICE_MEMORY = msgspec.structs.replace(MEMORY, name="GPU memory")
TIME_TO_TARGET = Metric(
    name="time to target", unit="s", better="lower", relative=True, margin=0.02, tolerance=0.25,
    timed=True, words=("later", "sooner"),
)  # fmt: skip
ACCURACY = Metric(
    name="accuracy", unit="share", better="same", relative=False, margin=0.005, tolerance=0.02, alpha=0.05,
    words=("different", "different"),
)  # fmt: skip

GATED = (SPEED, MEMORY, DEVICE_MEMORY, ACCURACY)
"""A comparison passes only if each of these that both sides have is decided. The others can make it fail, but
are not needed to pass: a first step is too short, and a target is reached by too few trainings."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The finding for one figure of one cell."""

    metric: Metric
    base: float
    """The geometric mean over blocks where the change is a ratio, else the mean over seeds."""
    head: float
    change: float
    """0.05: head's figure is 5 % larger; for a difference, larger by 0.05."""
    low: float
    """Lower end of the interval of the change."""
    high: float
    p: float
    """p value of the test that the change is not larger than the margin."""
    detectable: tuple[float, float] | None
    """The range of the smallest change that is found four times in five; None below six values."""
    values: int
    """Number of blocks or seeds; for unpaired sides, that of the side with fewer."""
    difference: Difference
    """The difference that everything but the figures of the sides is derived from."""
    kind: ChangeKind


def judge(
    metric: Metric,
    base: Mapping[int, float],
    head: Mapping[int, float],
    *,
    paired: bool,
    left_out: float = LEFT_OUT,
) -> Finding | None:
    """Judge a figure by its values on both sides, by block or by seed; None if there are too few.

    With `paired`, values with the same number (block or seed) are paired; otherwise both sides are compared
    by Welch's t test. The interval leaves out the probability `left_out`.
    Raises ValueError for a value that is not finite, or not positive where the change is a ratio.
    """
    if paired:
        shared = base.keys() & head.keys()
        base, head = ({number: side[number] for number in shared} for side in (base, head))
    if min(len(base), len(head)) < FEWEST_VALUES:
        return None
    one, other = (
        {number: _scaled(metric, value) for number, value in sorted(side.items())} for side in (base, head)
    )
    difference = (
        paired_difference({number: other[number] - one[number] for number in one})
        if paired
        else unpaired_difference(list(one.values()), list(other.values()))
    )
    return (
        None
        if difference is None
        else judge_difference(
            metric, difference, _middle(metric, one), _middle(metric, other), left_out=left_out
        )
    )


def judge_difference(
    metric: Metric, difference: Difference, base: float, head: float, *, left_out: float = LEFT_OUT
) -> Finding:
    """Judge a difference, head's less base's; of logarithms where the metric is relative."""
    low, high = (_change(metric, math.log(end)) for end in ratio_interval(difference, left_out))
    p = p_value(difference, _margin(metric))
    return Finding(
        metric=metric,
        base=base,
        head=head,
        change=_change(metric, difference.mean),
        low=low,
        high=high,
        p=p,
        detectable=_detectable(metric, difference, metric.alpha),
        values=difference.blocks,
        difference=difference,
        kind=_kind(metric, _change(metric, difference.mean), low, high, claimed=p <= metric.alpha),
    )


def in_families(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return the findings of many cells, with changes claimed by Holm's method over all cells of a metric."""
    steps: dict[int, HolmStep] = {}
    for metric in {found.metric.name: found.metric for found in findings}.values():
        places = [place for place, found in enumerate(findings) if found.metric == metric]
        steps |= zip(places, holm([findings[place].p for place in places], metric.alpha), strict=True)
    return tuple(
        msgspec.structs.replace(
            found,
            detectable=_detectable(found.metric, found.difference, steps[place].alpha),
            kind=_kind(found.metric, found.change, found.low, found.high, claimed=steps[place].rejected),
        )
        for place, found in enumerate(findings)
    )


def _margin(metric: Metric) -> float:
    """Return the margin as the share exp(difference) - 1, which the statistics expect."""
    return metric.margin if metric.relative else math.expm1(metric.margin)


def _detectable(metric: Metric, difference: Difference, alpha: float) -> tuple[float, float] | None:
    found = detectable_range(difference, alpha, margin=_margin(metric))
    if found is None or metric.relative:
        return found
    return math.log1p(found[0]), math.log1p(found[1])


def _kind(metric: Metric, change: float, low: float, high: float, *, claimed: bool) -> ChangeKind:
    falls = metric.better == "higher"
    if claimed:
        return "worse" if metric.better == "same" or (change < 0) == falls else "better"
    most = metric.tolerance
    least = 1 / (1 + most) - 1 if metric.relative else -most
    if least < low and high < most:
        return "same"
    ruled_out = least < low if falls else high < most
    return "no worse" if ruled_out and metric.better != "same" else "undecided"


def _scaled(metric: Metric, value: float) -> float:
    if not math.isfinite(value) or (metric.relative and value <= 0):
        raise ValueError(f"{metric.name} of {value} {metric.unit} cannot be compared")
    return math.log(value) if metric.relative else value


def _middle(metric: Metric, values: Mapping[int, float]) -> float:
    mean = math.fsum(values.values()) / len(values)
    return math.exp(mean) if metric.relative else mean


def _change(metric: Metric, difference: float) -> float:
    return math.expm1(difference) if metric.relative else difference
