"""What fewer blocks would have said: the blocks of a self-test's comparisons, judged as shorter ones.

Blocks are independent, so ten of them are also one comparison of six, two of four, or three of three. Those
of one length share no block, and blocks that are left over are not used.
"""

from collections.abc import Sequence

import msgspec

from bench.analysis.statistics import exact_interval
from bench.report.format import NOTHING
from bench.selftest.calibration import INJECTED, JUDGES, Calibration, Rate, Row, Trial, judged_by

LENGTHS = (3, 4, 6, 10)
"""Numbers of blocks: what a default run has, four, what a run takes before precision stops it, and ten."""
SHOWN = ("bench, paired by round", "the same, as the first of three pairs", "pyperf t test")
"""Our rule, for one pair and for the pairs of a run, and the one of another tool that finds as much on equal
data."""


class AtLength(msgspec.Struct, frozen=True, kw_only=True):
    """The rates at which one rule decides comparisons of so many blocks."""

    blocks: int
    row: Row


def at_lengths(calibration: Calibration, lengths: Sequence[int] = LENGTHS) -> tuple[AtLength, ...]:
    """Judge the comparisons of a self-test at each length that one of them has blocks for."""
    found = []
    for blocks in lengths:
        trials = [part for one in calibration.judged for part in cut(one.trial, blocks)]
        found += [
            AtLength(blocks=blocks, row=judged_by(judge, trials))
            for judge in JUDGES
            if judge.name in SHOWN and trials
        ]
    return tuple(found)


def cut(trial: Trial, blocks: int) -> list[Trial]:
    """Return a comparison as separate ones of so many blocks, from the first on."""
    return [
        msgspec.structs.replace(
            trial, base=trial.base[start : start + blocks], head=trial.head[start : start + blocks]
        )
        for start in range(0, len(trial.base) - blocks + 1, blocks)
    ]


def heads() -> tuple[str, ...]:
    """Return the heads of the table's columns."""
    slowed = (f"{100 * injected:.0f} % found" for injected in INJECTED)
    return ("blocks", "rule", "false alarms", *slowed, "truth held", "margin")


def cells(one: AtLength) -> tuple[str, ...]:
    """Return a row of the table; rates have exact intervals."""
    row = one.row
    return (
        str(one.blocks),
        row.name,
        rate_in_words(row.false_alarms),
        *(rate_in_words(row.found[injected]) for injected in INJECTED),
        NOTHING if row.coverage is None else rate_in_words(row.coverage),
        NOTHING if row.half_width is None else f"{100 * row.half_width:.1f} %",
    )


def rate_in_words(rate: Rate) -> str:
    """Return a rate with its Clopper-Pearson interval."""
    if not rate.of:
        return NOTHING
    low, high = exact_interval(rate.hits, rate.of)
    return f"{rate.hits} of {rate.of} ({100 * low:.0f}-{100 * high:.0f} %)"


LEGEND = (
    "The same blocks, judged as separate comparisons of fewer. Comparisons of one length share no block; "
    "those of two lengths do. The 95 % interval of the true share (Clopper and Pearson) is in brackets. It "
    "is somewhat too narrow, as comparisons of a group share sides. A run of three frameworks compares three "
    "pairs as one family (Holm), so its first claim has a third of the level: read a run with three blocks "
    "by that rule's row of three."
)
