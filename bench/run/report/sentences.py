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
    """Return what a verdict is about: `mnist-cnn`, `mnist-cnn as taught`, or `mnist-cnn with 2 ranks`."""
    return workload_name(verdict.workload, verdict.level, verdict.ranks, verdict.scaling)


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
