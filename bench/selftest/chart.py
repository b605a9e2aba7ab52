"""The self-test's chart: what every comparison estimated, against what is true."""

from collections.abc import Sequence
from itertools import groupby

from bench.analysis.statistics import success_interval
from bench.report.blocks import Chart, Table
from bench.report.chart import Axis, Lines, Point, Series
from bench.report.format import percent
from bench.selftest.calibration import Calibration, Judged

NAME = "selftest"
_GAP = 2
"""Places left free between two slowdowns."""
_ABOUT = (
    "Each point is a comparison of two sides with its 95 % interval, sorted by its estimate. The lines are "
    "the slowdowns that were injected: an interval that crosses its line holds the truth."
)
_KINDS = (
    ("a difference was claimed", 0, 0),
    ("none was claimed", 5, 1),
    ("the interval leaves out the truth", 1, 2),
)
"""Name, hue and shape of each kind of comparison."""
_TRUTH = 6
"""The hue of the truth."""


def chart(calibration: Calibration) -> Chart | None:
    """Return the chart; None where nothing could be judged."""
    judged = sorted(calibration.judged, key=lambda one: (one.trial.injected, one.judgement.ratio))
    if not judged:
        return None
    points: dict[int, list[Point]] = {kind: [] for kind in range(len(_KINDS))}
    truths: list[Series] = []
    names: list[str] = []
    middles: list[float] = []
    place = 0
    groups = {
        injected: list(found) for injected, found in groupby(judged, key=lambda one: one.trial.injected)
    }
    for injected, group in groups.items():
        first = place
        for one in group:
            points[_kind(one)].append(_point(place, one))
            place += 1
        last = place - 1
        truths.append(_truth(injected, first, last, named=injected == max(groups)))
        middles.append((first + last) / 2)
        names.append(_side(injected))
        place += _GAP
    return Chart(
        name=NAME,
        title=_finding(judged),
        about=_ABOUT,
        drawn=Lines(
            x=Axis(
                title="what was injected",
                low=-1.0,
                high=float(place - _GAP),
                ticks=tuple(middles),
                labels=tuple(names),
            ),
            y=Axis(title="estimated slowdown", unit="percent"),
            series=(
                *truths,
                *(
                    Series(name=name, points=tuple(points[kind]), hue=hue, shape=shape, joined=False)
                    for kind, (name, hue, shape) in enumerate(_KINDS)
                ),
            ),
        ),
        table=Table(
            heads=("injected", "comparisons", "a difference was claimed", "intervals that hold the truth"),
            rows=tuple(_row(injected, group) for injected, group in groups.items()),
            numbers=frozenset({1, 2, 3}),
        ),
    )


def _kind(one: Judged) -> int:
    if not one.covered:
        return 2
    return 0 if one.judgement.claimed else 1


def _point(place: int, one: Judged) -> Point:
    low, middle, high = (
        100 * (ratio - 1) for ratio in (one.judgement.low, one.judgement.ratio, one.judgement.high)
    )
    text = f"{one.trial.cell}, {one.trial.head_side}: {middle:+.1f} % ({low:+.1f} to {high:+.1f} %)"
    return Point(x=place, y=middle, low=low, high=high, text=text)


def _truth(injected: float, first: int, last: int, *, named: bool) -> Series:
    return Series(
        name="truth" if named else "",
        points=(Point(x=first - 0.8, y=100 * injected), Point(x=last + 0.8, y=100 * injected)),
        hue=_TRUTH,
        marked=False,
    )


def _side(injected: float) -> str:
    return f"{percent(injected, 0)} slower" if injected else "equal"


def _finding(judged: Sequence[Judged]) -> str:
    """Say how many intervals hold the truth, and how often equal sides were called different."""
    held = sum(one.covered for one in judged)
    low, high = success_interval(held, len(judged))
    equal = [one for one in judged if not one.trial.injected]
    alarms = sum(one.judgement.claimed for one in equal)
    share = f"{100 * low:.0f} to {100 * high:.0f} %, a 95 % interval"
    said = f"{held} of {len(judged)} intervals hold the truth ({share})"
    return (
        f"{said}; {alarms} of {len(equal)} comparisons of equal sides claim a difference" if equal else said
    )


def _row(injected: float, group: Sequence[Judged]) -> tuple[str, ...]:
    claimed = sum(one.judgement.claimed for one in group)
    held = sum(one.covered for one in group)
    return _side(injected), str(len(group)), str(claimed), str(held)
