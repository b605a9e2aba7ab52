"""The verdicts of a run in words."""

import math
from collections.abc import Mapping
from itertools import combinations

from bench.analysis.comparison import (
    Comparison,
    ComparisonKind,
    Comparisons,
    Verdict,
)
from bench.analysis.disturbance import Screening
from bench.analysis.statistics import EQUIVALENCE, MARGIN
from bench.analysis.summary import Summary
from bench.report.format import TIMES, cell_name, percent_text, range_text, ratio_text, workload_name
from bench.text import listed
from bench.workloads.specs import Cell


def topic(verdict: Verdict) -> str:
    """Return what a verdict is about: `mnist-cnn`, or `mnist-cnn as taught`."""
    return workload_name(verdict.workload, verdict.level)


def all_of(made: Comparisons) -> list[Comparison]:
    """Return every comparison, family by family."""
    return [*made.backends, *made.modes, *made.tuning]


def sentences(verdict: Verdict, titles: Mapping[str, str]) -> list[str]:
    """Return the sentences of a verdict; `titles` gives a backend's title by its name."""
    workload = topic(verdict)
    if not verdict.matched:
        found = [
            f"{workload} is trained with each framework's own defaults, which is not the same "
            "work: its speed is not ranked."
        ]
    elif verdict.disturbed:
        found = [_disturbed_sentence(workload, verdict.screening)]
    else:
        found = [
            *_compared(verdict, titles),
            *_picked_sentences(verdict, titles),
            *_untrimmed_sentences(verdict, titles),
            *_changed_sentences(verdict, titles),
        ]
    if verdict.order and verdict.unranked:
        names = listed([titles.get(name, name) for name in verdict.unranked])
        found.append(f"No row of {names} is ranked on {workload}, so nothing is claimed about it.")
    return found


def _compared(verdict: Verdict, titles: Mapping[str, str]) -> list[str]:
    """Return a sentence for every comparison, and for every pair that has none."""
    workload = topic(verdict)
    best = [pick.cell for pick in verdict.picks]
    if not best:
        return [f"No row is ranked on {workload}, so nothing is claimed about its speed."]
    sentences = [_sentence(comparison, titles) for comparison in all_of(verdict.made)]
    compared = {frozenset((comparison.faster, comparison.slower)) for comparison in verdict.made.backends}
    for pair in combinations(best, 2):
        if frozenset(pair) not in compared:
            first, second = (cell_name(cell, titles) for cell in pair)
            besides = (
                " besides those that chose a mode" if any(p.block is not None for p in verdict.picks) else ""
            )
            sentences.append(
                f"{first} and {second} cannot be compared on {workload}: they share fewer than two "
                f"blocks{besides}."
            )
    if len(best) == 1:
        title = titles.get(best[0].backend, best[0].backend)
        sentences.append(f"Only {title} is ranked on {workload}: there is no framework to compare it with.")
    return sentences


def _sentence(comparison: Comparison, titles: Mapping[str, str]) -> str:
    faster, slower = cell_name(comparison.faster, titles), cell_name(comparison.slower, titles)
    workload = comparison.faster.workload
    times = ratio_text(comparison.low, comparison.high)
    seen = ""
    if comparison.detectable is not None:
        low, high = comparison.detectable
        seen = f" (the smallest difference found four times in five is between {range_text(low, high)})"
    bound = f"{100 * EQUIVALENCE:g} %"
    if comparison.differs:
        but = f", but by no more than {bound}" if comparison.kind == "slightly faster" else ""
        return f"{faster} trains {workload} {times} as fast as {slower} here{but}{seen}."
    if comparison.kind == "undecided" and comparison.low > 1 + MARGIN < 1 + comparison.margin:
        return (
            f"{faster} trained {workload} {times} as fast as {slower} here, but after {comparison.blocks} "
            f"blocks it is not certain enough that the difference is larger than the "
            f"{percent_text(comparison.margin)} that the order of the turns may make, so none is "
            f"claimed{seen}."
        )
    if comparison.kind == "equivalent":
        what = f"No difference larger than {bound}"
    else:
        what = "No detectable difference"
    return f"{what} between {faster} and {slower} on {workload}: {times}{seen}."


def _picked_sentences(verdict: Verdict, titles: Mapping[str, str]) -> list[str]:
    """Return a sentence about the modes that stand for their frameworks, if any was chosen among several."""
    chosen = [
        f"{cell_name(pick.cell, titles)} (of {pick.among}, in block {pick.block + 1})"
        for pick in verdict.picks
        if pick.block is not None
    ]
    if not chosen:
        return []
    return [
        f"Chosen on {topic(verdict)} as the fastest mode of its framework: {', '.join(chosen)}. The block "
        "that chose a mode does not judge it against other frameworks."
    ]


def _untrimmed_sentences(verdict: Verdict, titles: Mapping[str, str]) -> list[str]:
    """Return a sentence about the ratios that trimming changes by more than the margin, if there are any."""
    made = all_of(verdict.made)
    changed = [one for one in made if one.trimming_matters]
    if not changed:
        return []
    most = max(changed, key=lambda one: abs(math.log(one.plain / one.ratio)))
    return [
        f"Trimming changes {len(changed)} of {len(made)} ratios on {topic(verdict)} by more than "
        f"{100 * MARGIN:g} %. It changes most that of {cell_name(most.faster, titles)} to "
        f"{cell_name(most.slower, titles)}: {most.ratio:.3f}{TIMES}, and {most.plain:.3f}{TIMES} without "
        "trimming."
    ]


def _disturbed_sentence(workload: str, screening: Screening) -> str:
    kept = screening.blocks - len(screening.dropped)
    if screening.unmeasured.issuperset(screening.staying):
        why = screening.tainted[screening.staying[0]][0]
        return (
            f"Nothing is claimed about {workload}: {why}, so nothing rules out that they disturbed "
            f"{len(screening.staying)} of its {kept} blocks. Run it where /proc can be read."
        )
    if screening.throttled.issuperset(screening.staying):
        return (
            f"Nothing is claimed about {workload}: a CPU quota held back the jobs of "
            f"{len(screening.staying)} of its {kept} blocks. To run it again does not help: raise the quota, "
            "use no more threads than it grants, or end what else runs under it."
        )
    why = listed(list(dict.fromkeys(screening.tainted[block][0] for block in screening.staying))[:2])
    quota = "Raise the CPU quota. " if not screening.throttled.isdisjoint(screening.staying) else ""
    return (
        f"Nothing is claimed about {workload}: something else disturbed {len(screening.staying)} of its "
        f"{kept} blocks ({why}). {quota}Run it again when the machine is quiet."
    )


def _changed_sentences(verdict: Verdict, titles: Mapping[str, str]) -> list[str]:
    """Return a sentence for every comparison that the dropped blocks would change."""
    with_dropped = verdict.with_dropped
    if with_dropped is None:
        return []
    before = {frozenset((one.faster, one.slower)): one for one in all_of(with_dropped)}
    changed = []
    for one in all_of(verdict.made):
        other = before.get(frozenset((one.faster, one.slower)))
        if other is not None and _claim(one) != _claim(other):
            names = f"{cell_name(one.faster, titles)} and {cell_name(one.slower, titles)}"
            changed.append(
                f"The verdict on {names} on {one.faster.workload} changes if the dropped blocks are "
                f"included: {_sentence(other, titles)}"
            )
    return changed


def _claim(comparison: Comparison) -> tuple[ComparisonKind, Cell | None]:
    return comparison.kind, comparison.faster if comparison.differs else None


def placebo_sentence(summary: Summary) -> str | None:
    """Return what became of the comparison of two equal programs; None if there is none."""
    one = summary.placebo
    if one is None:
        return None
    pair = f"two jobs of {cell_name(one.faster, summary.titles)} on {one.faster.workload}"
    found = f"{ratio_text(one.low, one.high)} as fast after {one.blocks} blocks"
    if one.differs:
        return (
            f"{pair} differ by chance alone, but a difference is found ({found}). Do not trust small "
            "differences in this run."
        )
    return f"{pair} differ by chance alone, and no difference is found ({found})."


def answer(summary: Summary) -> tuple[str, ...]:
    """Return the run in a few sentences: who is fastest on each workload, and which rows have parity."""
    rows, verdicts, titles = summary.standings, summary.verdicts, summary.titles
    several = len({(verdict.device, verdict.precision) for verdict in verdicts}) > 1
    said = [_fastest(verdict, titles, several=several) for verdict in verdicts]
    checked = [row for row in rows if row.parity_ok is not None]
    if checked:
        passed = sum(row.parity_ok is True for row in checked)
        said.append(
            f"Of {len(checked)} rows compared with the float64 reference, {passed} compute the same "
            "within tolerance."
        )
    return tuple(said) or ("Nothing was measured.",)


def _fastest(verdict: Verdict, titles: Mapping[str, str], *, several: bool) -> str:
    """Return who is fastest on one workload, and by how much over the framework that comes next."""
    where = f"{topic(verdict)} ({verdict.device} {verdict.precision})" if several else topic(verdict)
    backends = [titles.get(name, name) for name in dict.fromkeys(cell.backend for cell in verdict.order)]
    if not verdict.matched:
        return f"{where}: not ranked, because each framework trains it with its own defaults."
    if verdict.disturbed:
        by_quota = verdict.screening.throttled.issuperset(verdict.screening.staying)
        why = "a CPU quota held the jobs back" if by_quota else "the machine was disturbed"
        return f"{where}: nothing is claimed, because {why}."
    if verdict.winner:
        beaten = [one for one in verdict.made.backends if one.faster == verdict.winner]
        next_best = min(beaten, key=lambda one: one.ratio)
        among = " of those ranked" if verdict.unranked else ""
        said = (
            f"{cell_name(verdict.winner, titles)} is fastest{among}, "
            f"{ratio_text(next_best.low, next_best.high)} as fast as {cell_name(next_best.slower, titles)}"
        )
    elif len(backends) > 1:
        said = "no framework is detectably faster than every other"
    elif backends:
        said = f"only {backends[0]} is ranked"
    else:
        return f"{where}: nothing is ranked."
    missing = listed([titles.get(name, name) for name in verdict.unranked]) if verdict.unranked else ""
    return f"{where}: {said}{f' ({missing} not ranked)' if missing else ''}."
