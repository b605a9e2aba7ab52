"""How a block is laid out: the order of turns, how many windows, what compiles anew."""

import math
from collections.abc import Sequence
from statistics import fmean

FEWEST_OF_LONG = 0.5
"""Share of a preset's windows that a run takes also where calls last long: see `windows_asked`."""

BLOCKS_ANEW = 3
"""Blocks whose jobs compile all anew, so that the time to compile is known; later ones take what is there."""

SMALLEST_TRAINING = 0.05
"""Less than this part of an epoch teaches nothing worth a row."""


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
    """Return how many windows each job of a block is asked for, of the `windows` of a preset.

    `stretches` are how much longer than meant a window of each job takes, 1 or more: it holds whole calls.
    The time stays what was meant, over all jobs, but for the share `fewest` of the windows, which is taken in
    any case. Long windows scatter less, and the time is worth more as a further block.
    """
    return math.ceil(windows * max(fewest, 1 / fmean(stretches or [1.0])))
