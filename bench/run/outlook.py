"""How long a run would have to be for narrow intervals, judged by the scatter between its blocks."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean, median

import msgspec

from bench.analysis.comparison import Comparison
from bench.analysis.statistics import (
    FEWEST_FOR_SCATTER,
    blocks_for,
    degrees_of_sum,
    scatter_factors,
)
from bench.analysis.summary import Summary
from bench.records.runs import Run
from bench.records.schema import JobRecord
from bench.report.format import PLUS_MINUS
from bench.run.plan import FEWEST_TO_STOP, MOST_BLOCKS, PRESETS, TRAINING_SHARE
from bench.text import listed

AIM = 0.03
"""The half-width of a ratio's interval that the sentence at the end of a report is about."""


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """The time that a run like this one would take until every ratio is known to a half-width.

    The times are budgets in seconds. They are None if the run has too few blocks to tell, or if it would take
    more blocks than a run takes.
    """

    half_width: float
    reached: bool
    """Whether every ratio of this run is known so well already."""
    budget_s: float | None
    budget_s_low: float | None
    """Lower end of the 95 % interval, like its upper end from the uncertainty of the scatter alone."""
    budget_s_high: float | None
    blocks: dict[str, int]
    """The estimated number of blocks by workload; empty if the run has too few blocks to tell."""
    enough_s: float
    """The budget after which every workload has enough blocks to tell."""

    @property
    def beyond(self) -> list[str]:
        """The workloads that would need more blocks than a run takes."""
        return [name for name, blocks in self.blocks.items() if blocks > MOST_BLOCKS]


class _Work(msgspec.Struct, frozen=True, kw_only=True):
    """A workload of the run, its comparisons, and what a block and an epoch of it cost."""

    name: str
    blocks: int
    """Blocks that count."""
    block_s: float
    """All processes of a block, without training for accuracy."""
    epoch_s: float | None
    """An epoch of all rows, evaluations included; None if nothing was trained."""
    comparisons: tuple[Comparison, ...]

    @property
    def scatter(self) -> float:
        """The scatter of a ratio from block to block, pooled over all ratios of the workload.

        The largest of a few estimates would be too large.
        """
        return math.sqrt(fmean(one.scatter**2 for one in self.comparisons))

    @property
    def degrees(self) -> float:
        """Degrees of freedom of `scatter`: those of the blocks of all rows but one.

        For all pairs of equal rows, the mean variance of the ratios is twice the mean square of the
        interaction of rows and blocks in an analysis of variance.
        """
        rows = {cell for one in self.comparisons for cell in (one.faster, one.slower)}
        return (len(rows) - 1) * (fmean(one.blocks for one in self.comparisons) - 1)

    def needed(self, half_width: float, factor: float = 1.0) -> int:
        """Return the blocks until a ratio has that half-width, if the scatter is `factor` times as large.

        Pairs that lack some of this run's blocks are expected to lack as many of a longer one.
        """
        lacking = self.blocks - min(one.blocks for one in self.comparisons)
        return blocks_for(factor * self.scatter, half_width) + lacking


def outlook(run: Run, summary: Summary, half_width: float = AIM) -> Outlook | None:
    """Return how long a run like this one would take; None if it compares nothing.

    The ratios of a workload are taken to scatter equally; one that scatters more takes longer. The time grows
    with the sum over workloads of block time times variance. Its interval is that of such a sum: chi-square
    with the degrees of freedom of Satterthwaite. Below those of six blocks of one ratio no time is given.
    """
    works = list(_works(run, summary))
    compared = [work for work in works if work.comparisons]
    if not compared:
        return None
    shares = [work.block_s * work.scatter**2 for work in compared]
    degrees = degrees_of_sum(shares, [work.degrees for work in compared])
    complete = len(compared) == len(works)
    reached = complete and all(one.half_width <= half_width for work in works for one in work.comparisons)
    enough_s = _budget_s(run, works, [FEWEST_TO_STOP] * len(works))
    told = complete and not reached and degrees >= FEWEST_FOR_SCATTER - 1
    least = max(FEWEST_TO_STOP, run.header.min_blocks)
    blocks = [max(least, work.needed(half_width)) for work in works] if told else []
    known = told and max(blocks) <= MOST_BLOCKS
    low, high = scatter_factors(degrees) if known else (1.0, 1.0)

    def budget_s(factor: float) -> float:
        return _budget_s(run, works, [work.needed(half_width, factor) for work in works])

    return Outlook(
        half_width=half_width,
        reached=reached,
        budget_s=budget_s(1.0) if known else None,
        budget_s_low=budget_s(low) if known else None,
        budget_s_high=budget_s(high) if known else None,
        blocks=dict(zip((work.name for work in works), blocks, strict=True)) if blocks else {},
        enough_s=enough_s,
    )


def in_words(found: Outlook) -> str:
    """Return what to do for intervals of that half-width, in one or two sentences."""
    aim = f"{PLUS_MINUS}{100 * found.half_width:g} %"
    if found.reached:
        return f"Every ratio of this run is known to {aim} or better."
    if found.beyond:
        needed = listed([f"about {found.blocks[name]} blocks of {name}" for name in found.beyond])
        return f"For {aim} on every ratio a run would need {needed}; a run takes at most {MOST_BLOCKS}."
    if found.budget_s is None or found.budget_s_low is None or found.budget_s_high is None:
        minutes = _minutes(found.enough_s)
        return (
            f"This run has too few blocks to say how long {aim} on every ratio would take. A run of about "
            f"{minutes} minutes has enough: the same command with --budget {minutes}m."
        )
    minutes, low, high = map(_minutes, (found.budget_s, found.budget_s_low, found.budget_s_high))
    return (
        f"For {aim} on every ratio, run about {minutes} minutes (95 % interval: {low} to {high}): the same "
        f"command with --budget {minutes}m."
    )


def _minutes(seconds: float) -> int:
    """Return minutes, rounded up; from twenty on to a multiple of five."""
    unit = 1 if seconds <= 20 * 60 else 5
    return unit * math.ceil(seconds / 60 / unit)


def _works(run: Run, summary: Summary) -> Iterable[_Work]:
    """Yield the workloads whose rows are compared, and those that only have too few blocks for it.

    Workloads that were disturbed are left out: nothing is claimed about them.
    """
    comparisons: dict[str, list[Comparison]] = defaultdict(list)
    for verdict in summary.verdicts:
        if not verdict.disturbed:
            made = verdict.made
            comparisons[verdict.workload] += [*made.backends, *made.modes, *made.tuning]
    for name, found in comparisons.items():
        jobs = [job for job in run.jobs if job.spec.cell.workload == name and job.spec.windows]
        if jobs and (found or _lacks_blocks(name, summary)):
            yield _Work(
                name=name,
                blocks=max(row.blocks for row in summary.cells if row.workload == name),
                block_s=_block_s(jobs),
                epoch_s=_epoch_s(jobs),
                comparisons=tuple(found),
            )


def _lacks_blocks(workload: str, summary: Summary) -> bool:
    """Whether rows of a workload could be compared with each other if they had more blocks."""
    could = [
        row
        for row in summary.cells
        if row.workload == workload
        and row.matched
        and not row.reference
        and row.parity_ok is not False
        and row.status in ("ok", "not_measured")
    ]
    return len(could) > 1 and not all(row.measured for row in could)


def _block_s(jobs: Sequence[JobRecord]) -> float:
    """Return the mean seconds of a block: all its processes, without training for accuracy."""
    taken: dict[int, float] = defaultdict(float)
    for job in jobs:
        taken[job.spec.block] += job.wall_s - (job.learn_s or 0.0)
    return fmean(taken.values())


def _epoch_s(jobs: Sequence[JobRecord]) -> float | None:
    """Return the seconds that all rows together take for an epoch; None if none trained."""
    taken = defaultdict(list)
    for job in jobs:
        if job.learn_s and job.spec.epochs:
            taken[job.spec.cell].append(job.learn_s / job.spec.epochs)
    return sum(median(seconds) for seconds in taken.values()) if taken else None


def _budget_s(run: Run, works: Sequence[_Work], blocks: Sequence[int]) -> float:
    """Return the budget in which a run takes so many blocks of each workload, and trains as it would.

    Widths decide only from `FEWEST_TO_STOP` blocks on, so every workload gets as many.
    """
    header = run.header
    required_s = header.planned.parity_s + sum(header.min_blocks * work.block_s for work in works)
    further_s = sum(
        max(0, max(needed, FEWEST_TO_STOP) - header.min_blocks) * work.block_s
        for work, needed in zip(works, blocks, strict=True)
    )
    if not header.seeds:
        return required_s + further_s
    # Training takes its share of what the required blocks leave, until all of its epochs are trained.
    most = PRESETS[header.preset].epochs if header.preset in PRESETS else math.inf
    all_s = sum(math.inf if work.epoch_s is None else most * work.epoch_s for work in works) * header.seeds
    return required_s + min(further_s / (1 - TRAINING_SHARE), further_s + all_s)
