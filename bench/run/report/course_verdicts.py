"""A verdict for each need, by rules that were fixed before any run, from figures of this run alone.

No rule knows a framework. `RULES` has them in words. Where the run lacks the figures, the verdict says that
the run cannot tell.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from bench.analysis.comparison import Comparison, Verdict
from bench.analysis.summary import Summary
from bench.report.format import bytes_text, cell_name, rate_text, ratio_text, seconds_text
from bench.run.report.course_figures import UNCHECKED, Contender, CourseFigures
from bench.text import listed

CLEAR = 0.1
"""How much better a figure must be than every other one, relative to it, to count as ahead."""
FEWEST_AHEAD = 2
MOVE = 1.5
"""How many times as fast another framework must be, proven, before moving a code base is worth a thought."""

CANNOT_TELL = "This run cannot tell"

RULES = (
    "A first course: four figures count, measured on the CPU: time to a first result, installed size, wrong "
    "batches that are refused with an error, and speed as taught. A framework is ahead in a time or a size "
    f"if it is more than {100 * CLEAR:g} % better than every other one, in errors if it refuses more, and in "
    "speed if it is proven faster. The verdict names the one that is ahead in the most figures, in "
    f"{FEWEST_AHEAD} at least. Keras is a way to use a framework, so it is shown and not judged here.",
    "A research group: the verdict names the framework that is proven faster than every other one, tuned and "
    "on a GPU, on more than half of the workloads.",
    "An existing code base: the verdict is to stay, unless another framework is proven more than "
    f"{MOVE:g} times as fast, tuned, on half of the workloads or more.",
)
"""The rules in words, for the reader of the report."""


class NeedVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict for one need."""

    need: str
    said: str
    figures: tuple[tuple[str, str], ...] = ()
    """What it rests on: the name of each figure, and its values."""


def need_verdicts(figures: CourseFigures, summary: Summary) -> list[NeedVerdict]:
    """Return the verdict for every need, those that cannot be told included."""
    production = (_production(one.backend, one.title, summary) for one in figures.contenders)
    return [_first_course(figures, summary), _research(summary), *filter(None, production)]


# A first course


class _Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One of the figures of the first course: its value for each contender that has one."""

    name: str
    values: tuple[tuple[Contender, float], ...]
    shown: Callable[[float], str]
    leader: str | None
    """The title of the framework that is ahead; None if none is."""

    @property
    def said(self) -> str:
        return ", ".join(f"{one.title} {self.shown(value)}" for one, value in self.values)


def _first_course(figures: CourseFigures, summary: Summary) -> NeedVerdict:
    told = [one for one in _first_course_figures(figures, summary) if len(one.values) > 1]
    if figures.device != "cpu":
        said, told = f"{CANNOT_TELL}: it measured a GPU. Measure with: bench run --device cpu", []
    elif sum(one.engine is None for one in figures.contenders) < 2:
        said = f"{CANNOT_TELL}: it measured one framework alone."
    elif not told:
        said = f"{CANNOT_TELL}: it has none of the figures that count."
    else:
        said = _who_is_ahead(told)
    return NeedVerdict(
        need="A first course on laptops without a GPU",
        said=said,
        figures=tuple((one.name, one.said) for one in told),
    )


def _who_is_ahead(told: Sequence[_Figure]) -> str:
    wins: dict[str, list[str]] = {}
    for one in told:
        if one.leader is not None:
            wins.setdefault(one.leader, []).append(one.name)
    best = sorted(wins, key=lambda title: -len(wins[title]))
    most = len(wins[best[0]]) if best else 0
    if most >= FEWEST_AHEAD and sum(len(names) == most for names in wins.values()) == 1:
        others = [f"{title} is ahead in {listed(wins[title])}" for title in best[1:]]
        if open_ := [one.name for one in told if one.leader is None]:
            others.append(f"no framework is clearly ahead in {listed(open_)}")
        besides = f" {'; '.join([others[0][0].upper() + others[0][1:], *others[1:]])}." if others else ""
        return (
            f"{best[0]}, by these figures alone. It is ahead in {most} of {len(told)}: "
            f"{listed(wins[best[0]])}.{besides}"
        )
    ahead = "; ".join(f"{title} is ahead in {listed(wins[title])}" for title in best)
    return f"No framework is clearly ahead{f': {ahead}' if ahead else ''}."


def _first_course_figures(figures: CourseFigures, summary: Summary) -> list[_Figure]:
    contenders = [one for one in figures.contenders if one.engine is None]
    first = _known((one, one.first_result_s) for one in contenders)
    size = _known((one, one.installed_bytes) for one in contenders)
    errors = _known((one, one.errors) for one in contenders)
    speed = _known(
        (one, one.taught.samples_per_s) for one in contenders if one.taught is not None and one.taught.ranked
    )
    return [
        _Figure(name="time to a first result", values=first, shown=seconds_text, leader=_smallest(first)),
        _Figure(
            name="installed size",
            values=size,
            shown=lambda count: bytes_text(int(count)),
            leader=_smallest(size),
        ),
        _Figure(
            name=f"wrong batches refused, of {len(UNCHECKED)}",
            values=errors,
            shown=lambda count: f"{count:.0f}",
            leader=_largest(errors),
        ),
        _Figure(
            name=f"samples/s as taught on {figures.workload}",
            values=speed,
            shown=rate_text,
            leader=_proven(figures, summary),
        ),
    ]


_Values = tuple[tuple[Contender, float], ...]


def _known(values: Iterable[tuple[Contender, float | None]]) -> _Values:
    return tuple((one, value) for one, value in values if value is not None)


def _smallest(values: _Values) -> str | None:
    """Return the title of the contender whose value is clearly smaller than every other one."""
    ordered = sorted(values, key=lambda one: one[1])
    clear = len(ordered) > 1 and ordered[1][1] > ordered[0][1] * (1 + CLEAR)
    return ordered[0][0].title if clear else None


def _largest(values: _Values) -> str | None:
    """Return the title of the contender whose value is larger than every other one."""
    ordered = sorted(values, key=lambda one: -one[1])
    return ordered[0][0].title if len(ordered) > 1 and ordered[0][1] > ordered[1][1] else None


def _proven(figures: CourseFigures, summary: Summary) -> str | None:
    """Return the title of the framework that is proven the fastest as taught on the workload."""
    for verdict in summary.verdicts:
        place = verdict.workload, verdict.device, verdict.level
        if place == (figures.workload, figures.device, "taught") and verdict.winner is not None:
            frameworks = {one.backend: one.title for one in figures.contenders if one.engine is None}
            return frameworks.get(verdict.winner.backend)
    return None


# A research group


def _research(summary: Summary) -> NeedVerdict:
    verdicts = [one for one in _tuned(summary) if one.device == "gpu"]
    several = [one for one in verdicts if len(one.picks) > 1]
    won = {one.workload: one.winner for one in several}
    counts = Counter(cell.backend for cell in won.values() if cell is not None)
    if not verdicts:
        said = f"{CANNOT_TELL}: it measured no GPU. On a machine with one: bench run --device gpu"
    elif not several:
        said = f"{CANNOT_TELL}: it ranked no two frameworks on a GPU."
    elif counts and (best := max(counts, key=lambda name: counts[name])) and counts[best] * 2 > len(won):
        said = (
            f"{summary.titles.get(best, best)}. Tuned, it is proven faster than every other framework on "
            f"{counts[best]} of {len(won)} workloads."
        )
    else:
        said = f"No framework is proven the fastest on more than half of {len(won)} workloads."
    return NeedVerdict(
        need="A research group with GPUs",
        said=said,
        figures=tuple(
            (workload, "none is proven the fastest" if cell is None else cell_name(cell, summary.titles))
            for workload, cell in won.items()
        ),
    )


# Production


def _production(backend: str, title: str, summary: Summary) -> NeedVerdict | None:
    """Return the verdict for a code base in this framework; None if it has no ranked tuned row."""
    verdicts = [one for one in _tuned(summary) if backend in {pick.cell.backend for pick in one.picks}]
    if not verdicts:
        return None
    faster = {one.workload: found for one in verdicts if (found := _fastest_over(backend, one)) is not None}
    far = sum(found.low > MOVE for found in faster.values())
    far_off = f"proven more than {MOVE:g} times as fast"
    where = f"On {far} of {len(verdicts)} workloads another framework is {far_off}."
    if not any(one.made.backends for one in verdicts):
        said = f"{CANNOT_TELL}: it compared {title} with no other framework."
    elif not far:
        said = f"Stay. No other framework is {far_off} on any of {len(verdicts)} workloads."
    elif far * 2 >= len(verdicts):
        said = f"A move may pay, if your networks are like these. {where}"
    else:
        said = f"Stay, and measure your own network. {where}"
    return NeedVerdict(
        need=f"Production in an existing {title} code base",
        said=said,
        figures=(
            *((workload, _sentence(one, summary.titles)) for workload, one in faster.items()),
            *(("tuning", _sentence(one, summary.titles)) for one in _tuning(backend, summary)),
        ),
    )


def _fastest_over(backend: str, verdict: Verdict) -> Comparison | None:
    """Return the comparison with the framework that is proven faster by the most; None if none is."""
    lost = [one for one in verdict.made.backends if one.differs and one.slower.backend == backend]
    return max(lost, key=lambda one: one.low, default=None)


def _sentence(one: Comparison, titles: Mapping[str, str]) -> str:
    faster, slower = cell_name(one.faster, titles), cell_name(one.slower, titles)
    return f"{faster} is {ratio_text(one.low, one.high)} as fast as {slower}"


def _tuning(backend: str, summary: Summary) -> list[Comparison]:
    """Return what tuning is proven to be worth in this framework."""
    return [
        one
        for verdict in summary.verdicts
        for one in verdict.made.tuning
        if one.differs and one.faster.backend == backend and verdict.level == "taught"
    ]


def _tuned(summary: Summary) -> list[Verdict]:
    return [one for one in summary.verdicts if one.level == "tuned" and one.matched and not one.disturbed]
