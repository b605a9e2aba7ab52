"""The design of a block: the order of turns, the number of windows, and which blocks compile anew."""

import math
from collections.abc import Sequence
from statistics import fmean

from bench.workloads.specs import Device

WINDOWS = 24
"""Windows of a job: four times the six rounds after which three rows have had every place and predecessor."""
WINDOW_S = 0.15
"""About the seconds of a window."""
LEAD_S = 0.05
"""Seconds of training before each window that do not count, at least one step.

A row's first tenth of a second depends on the row before: PyTorch's threads spin for 8 ms after their last
step, and which CPUs the threads of the next row get then changes its speed for up to 0.1 s. A lead of 50 ms
and a window of 150 ms take as long as three of 10 and 50 ms, and depend on it less (docs/trials.md, "Why a
row depends on the row before")."""
FEWEST_OF_LONG = 0.5
"""The smallest share of a preset's windows that a run takes where calls are long: see `windows_asked`."""

BLOCKS_ANEW = 3
"""The first blocks, whose jobs compile everything anew, to measure the time to compile. On a CPU later ones
reuse it."""

SMALLEST_TRAINING = 0.05
"""The smallest part of an epoch that is trained: less does not say anything about accuracy."""


def compiles_anew(device: Device, before: int) -> bool:
    """Whether the next block of a row compiles everything anew, after `before` blocks that did.

    On a GPU every block does. Compilers choose kernels there by timing them, and choose anew in each process.
    Blocks with shared programs would share one choice, and the interval would not contain its scatter.
    """
    return device == "gpu" or before < BLOCKS_ANEW


def balanced_order(size: int, number: int) -> list[int]:
    """Return the order of `size` jobs in a round of turns: row `number` of a Williams design, going round.

    Over a whole design each job stands in each place, and follows each other job, equally often (Williams,
    1949). For two it is AB, BA. The rows of an odd size come in two mirrored squares.
    """
    first = [0]
    low, high = 1, size - 1
    while low <= high:
        first.append(low)
        if low < high:
            first.append(high)
        low, high = low + 1, high - 1
    square, row = divmod(number % (size * (1 + size % 2)), size)
    order = [(place + row) % size for place in first]
    return order[::-1] if square else order


def windows_asked(windows: int, stretches: Sequence[float], fewest: float) -> int:
    """Return how many windows each job of a block is asked for; `windows` is the number in the preset.

    `stretches` say how many times as long as planned the windows of each job are, because they hold whole
    calls; each is 1 or more. Fewer windows are taken in proportion, so that the block takes the planned time,
    but never less than the share `fewest` of them. Long windows scatter less, and the time saved is better
    spent on another block.
    """
    return math.ceil(windows * max(fewest, 1 / fmean(stretches or [1.0])))
