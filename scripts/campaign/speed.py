"""How much the ratios of frameworks depend on the speed of the machine, from the reference runs.

A virtual machine may slow to half its speed for an hour, for example while another one uses the second
thread of its cores. Turns then slow all rows, but not all by the same factor. A run's interval does not show
that, because the whole run is slow.

The canary, a fixed product that is timed before every round, tells how fast the machine was in a block. For
each pair of frameworks a line is fitted by least squares to the blocks of all runs: ln of the ratio over ln
of the canary's time. Nothing is claimed by it: it was computed after the runs had been seen.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median

import msgspec
import numpy as np

from bench.analysis.summary import Summary
from bench.records.runs import Run
from bench.report.markdown import grid
from campaign.agreement import quantile
from campaign.runs import default_blocks

FEWEST = 4
"""Blocks that a line needs: it has two coefficients, and a scatter is to be estimated."""
SLOWER = 2.0
"""The change of a ratio is shown for a machine that takes this many times as long."""

Key = tuple[str, str, str]
"""Workload, first and second framework."""


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """A ratio in one block."""

    canary_s: float
    """Median time of the canary in the block."""
    log: float
    """ln of the ratio."""


class Slope(msgspec.Struct, frozen=True, kw_only=True):
    """By how much ln of a ratio grows with ln of the canary's time."""

    value: float
    half_width: float
    """Of its 95 % interval (Student's t)."""
    blocks: int

    def change(self, by: float) -> float:
        """Return the relative change of the ratio on the slower machine for the slope plus `by`."""
        return math.expm1((self.value + by) * math.log(SLOWER))


def slope(blocks: Sequence[Block]) -> Slope | None:
    """Return the slope of the line through the blocks; None for too few, or if the speed never changed."""
    x = np.log([one.canary_s for one in blocks])
    y = np.array([one.log for one in blocks])
    if len(x) < FEWEST or not (spread := float(((x - x.mean()) ** 2).sum())):
        return None
    value = float(((x - x.mean()) * (y - y.mean())).sum()) / spread
    left = y - y.mean() - value * (x - x.mean())
    degrees = len(x) - 2
    error = math.sqrt(float((left**2).sum()) / degrees / spread)
    return Slope(value=value, half_width=quantile(degrees) * error, blocks=len(x))


def canaries(run: Run) -> dict[tuple[str, int], float]:
    """Return the canary's median time in seconds in each block, by workload and number of the block."""
    return {
        (block.workload, block.block): median(block.conditions.canary_s)
        for block in run.blocks
        if block.conditions.canary_s
    }


def ratio_blocks(runs: Mapping[str, tuple[Run, Summary]]) -> dict[Key, list[Block]]:
    """Return the blocks behind each ratio of the default modes, over all runs."""
    found: dict[Key, list[Block]] = defaultdict(list)
    for name, (run, summary) in runs.items():
        times = canaries(run)
        for one in default_blocks(name, run, summary):
            ratio = one.ratio
            found[ratio.workload, ratio.first, ratio.second] += [
                Block(canary_s=times[ratio.workload, number], log=log)
                for number, log in one.differences.items()
                if (ratio.workload, number) in times
            ]
    return dict(found)


def table(runs: Mapping[str, tuple[Run, Summary]]) -> str:
    """Return as a table of Markdown how each ratio changes on a machine of half the speed."""
    rows = [
        (
            workload,
            f"{first} / {second}",
            str(line.blocks),
            f"{_percent(line.change(0.0))} ({_percent(line.change(-line.half_width))} to "
            f"{_percent(line.change(line.half_width))})",
        )
        for (workload, first, second), blocks in ratio_blocks(runs).items()
        if (line := slope(blocks)) is not None
    ]
    heads = ("workload", "pair", "blocks", "change of the ratio at half the speed")
    return grid(heads, rows, numbers=frozenset({2, 3}))


def span(runs: Mapping[str, tuple[Run, Summary]]) -> str:
    """Return the shortest and the longest time of the canary in a block, in words."""
    times = [1000 * seconds for run, _ in runs.values() for seconds in canaries(run).values()]
    return f"{min(times):.0f} to {max(times):.0f} ms"


def _percent(share: float) -> str:
    return f"{100 * share:+.0f} %"
