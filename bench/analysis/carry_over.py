"""Carry-over: what it changes for a row which of the other rows had its turn just before.

The turns of a block are balanced: each row trains first in as many rounds as it follows each other row. So
all predecessors have the same weight in its figure. But a row never follows itself at once, as it would if
it trained alone. What the figure would be then cannot be measured in turns. What can be measured is how much
the predecessors differ, and that limits what the turns may have changed.

The windows of a row in a block are divided by predecessor: each other row, and the start of a round, where
the canary comes just before. The effect of a predecessor in a block is the trimmed mean of ln(samples/s) of
its windows minus the mean of these means over all predecessors. Source of the design: Williams, Experimental
designs balanced for the estimation of residual effects of treatments (1949).

The effects of a row are averaged over blocks. Their standard error comes from the scatter of the effects of
all its predecessors from block to block: with B blocks and P predecessors, (B - 1)(P - 1) degrees of freedom.
Source: the analysis of randomized complete block designs, Montgomery, Design and Analysis of Experiments,
chapter 4. A single predecessor's effects would give only B - 1, and intervals twice as wide for three blocks.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from itertools import product
from statistics import fmean
from typing import NamedTuple, TypeAlias

import msgspec
import numpy as np

from bench.analysis.disturbance import in_quiet_rounds
from bench.analysis.statistics import Difference, log_rate, ratio_interval, trimmed_mean
from bench.records.schema import BlockRecord, JobRecord, Window
from bench.workloads.ranks import Scaling
from bench.workloads.specs import Cell

FEWEST_WINDOWS = 3
"""Windows after a predecessor that a block needs. With fewer, one stall would decide the mean."""

Predecessor: TypeAlias = Cell | None
"""The cell whose turn came just before; None at the start of a round. In a block with a placebo it may be the
row's own cell."""

Effects: TypeAlias = Mapping[Predecessor, float]
"""The effect of each predecessor on one row in one block, in logarithms; their sum is 0."""


class CarryOver(msgspec.Struct, frozen=True, kw_only=True):
    """How much faster a row trains after one predecessor than after the others."""

    backend: str | None
    """The backend of the predecessor; None: the windows at the start of a round."""
    mode: str | None
    ranks: int = 1
    scaling: Scaling = "strong"
    change: float
    """Relative: -0.07 if it is slower by 7 % after this predecessor."""
    low: float
    """Lower end of the 95 % interval over blocks, by Student's t with the pooled error of the row."""
    high: float
    blocks: int


class _InTurn(NamedTuple):
    """A window with its predecessor."""

    before: Predecessor
    log_rate: float
    round_steal: float | None
    round_foreign: float | None


def block_effects(block: BlockRecord, jobs: Iterable[JobRecord]) -> dict[Cell, Effects]:
    """Return the effects in one block, for each of the jobs whose windows have every predecessor.

    Only the windows that count are used: the latest ones in quiet rounds. `jobs` are those of this block
    that count. The result is empty if the record does not hold the turns.
    """
    before = _predecessors(block)
    found = {}
    for job in jobs:
        cell = job.spec.cell
        windows = [
            _in_turn(one, window) for one, window in zip(before.get(cell, ()), job.windows, strict=False)
        ]
        by_predecessor: dict[Predecessor, list[float]] = defaultdict(list)
        for window in in_quiet_rounds(windows)[-max(1, job.spec.windows) :]:
            by_predecessor[window.before].append(window.log_rate)
        enough = all(len(logs) >= FEWEST_WINDOWS for logs in by_predecessor.values())
        if by_predecessor.keys() == set(before.get(cell, ())) and len(by_predecessor) > 1 and enough:
            found[cell] = _centred({one: trimmed_mean(logs) for one, logs in by_predecessor.items()})
    return found


def effects_by_cell(
    blocks: Iterable[BlockRecord], jobs: Mapping[Cell, Mapping[int, JobRecord]]
) -> dict[Cell, dict[int, Effects]]:
    """Return the effects by cell and block; `jobs` are those that count, by cell and block."""
    effects: dict[Cell, dict[int, Effects]] = defaultdict(dict)
    for block in blocks:
        counting = [jobs.get(cell, {}).get(block.block) for cell in dict.fromkeys(block.order)]
        for cell, found in block_effects(block, [job for job in counting if job]).items():
            effects[cell][block.block] = found
    return effects


def _predecessors(block: BlockRecord) -> dict[Cell, list[Predecessor]]:
    """Return the predecessor of each window of each cell; the windows of the placebo's job are left out."""
    found: dict[Cell, list[Predecessor]] = defaultdict(list)
    for turns in block.turns:
        cells = [block.order[place] for place in turns]
        for place, before, cell in zip(turns, [None, *cells], cells, strict=False):
            if place != block.copy:
                found[cell].append(before)
    return found


def _in_turn(before: Predecessor, window: Window) -> _InTurn:
    return _InTurn(
        before=before,
        log_rate=log_rate(window.samples, window.seconds),
        round_steal=window.round_steal,
        round_foreign=window.round_foreign,
    )


def _centred(means: Effects) -> Effects:
    middle = math.fsum(means.values()) / len(means)
    return {one: mean - middle for one, mean in means.items()}


def carry_over(
    effects: Mapping[int, Effects], dropped: Collection[int] = frozenset()
) -> tuple[CarryOver, ...]:
    """Return how much each predecessor changes a row's rate, by its effects in the blocks that are kept.

    The change is that of the rate after this predecessor against the mean of the others (of logarithms). With
    P predecessors it is P / (P - 1) times the effect, in logarithms. Nothing below two blocks.
    """
    mean_effects = _mean_effects({at: found for at, found in effects.items() if at not in dropped})
    found = []
    for before, effect in mean_effects.items():
        scale = len(mean_effects) / (len(mean_effects) - 1)
        change = msgspec.structs.replace(
            effect, mean=scale * effect.mean, standard_error=scale * effect.standard_error
        )
        low, high = ratio_interval(change)
        found.append(
            CarryOver(
                backend=None if before is None else before.backend,
                mode=None if before is None else before.mode,
                ranks=1 if before is None else before.ranks,
                scaling="strong" if before is None else before.scaling,
                change=change.ratio - 1,
                low=low - 1,
                high=high - 1,
                blocks=change.blocks,
            )
        )
    return tuple(found)


def largest_move(one: Mapping[int, Effects], other: Mapping[int, Effects]) -> float | None:
    """Return how far the ratio of two rows could move if each always had the same predecessor: 0.03 for 3 %.

    If the one row always had the predecessor a and the other b, the ratio would move by exp(effect of a on
    the one - effect of b on the other). The result is the move that is farthest from 1. It limits what the
    turns changed if a row's effect on itself is no larger than that of its other predecessors. Only the
    blocks that both rows have count. None below two of them.
    """
    shared = one.keys() & other.keys()
    sides = [_mean_effects({at: side[at] for at in shared}) for side in (one, other)]
    moves = [abs(first - second) for first, second in product(*map(_without_noise, sides))]
    return math.expm1(max(moves)) if moves else None


def _without_noise(effects: Mapping[Predecessor, Difference]) -> list[float]:
    """Return the mean effects, shrunk until they scatter as much as the true ones are estimated to.

    The variance of the mean effects is that of the true ones and that of their noise. The largest of noisy
    effects is mostly noise, and the more predecessors, the larger. Source: Louis, Estimating a population of
    parameter values using Bayes and empirical Bayes methods, Journal of the American Statistical Association
    79 (1984).
    """
    if not effects:
        return []
    free = len(effects) - 1
    spread = math.fsum(effect.mean**2 for effect in effects.values()) / free
    noise = fmean(effect.standard_error**2 for effect in effects.values()) * len(effects) / free
    kept = math.sqrt(max(0.0, 1 - noise / spread)) if spread > 0 else 0.0
    return [kept * effect.mean for effect in effects.values()]


def _mean_effects(effects: Mapping[int, Effects]) -> dict[Predecessor, Difference]:
    """Return the mean effect of each predecessor with its standard error; nothing below two blocks.

    Only predecessors that all blocks have count, and there must be two.
    """
    every = [set(one) for one in effects.values()]
    common = sorted(set.intersection(*every), key=str) if every else []
    if len(effects) < 2 or len(common) < 2:
        return {}
    values = np.array([[one[before] for before in common] for one in effects.values()])
    blocks, predecessors = values.shape
    degrees = (blocks - 1) * (predecessors - 1)
    scatter = float(((values - values.mean(axis=0)) ** 2).sum()) / degrees
    error = math.sqrt(scatter * (1 - 1 / predecessors) / blocks)
    return {
        before: Difference(mean=float(mean), standard_error=error, degrees=degrees, blocks=blocks)
        for before, mean in zip(common, values.mean(axis=0), strict=True)
    }
