"""A run that stops where its intervals are narrow: how often they still hold the truth."""

import math

import numpy as np
import pytest
from conftest import draws

from bench.analysis.statistics import paired_difference, ratio_interval
from bench.analysis.stopping import FEWEST_TO_STOP, MOST_BLOCKS

TARGET = 0.015
"""The half-width at which the presets stop."""


def runs_that_stop(scatter: float, fewest: int, times: int) -> list[tuple[int, bool]]:
    """Return the blocks at which each run stops, and whether its interval then holds the truth.

    The blocks of a ratio of 1 scatter by `scatter`, and its width may stop the run from `fewest` blocks on.
    """
    found = []
    for values in np.random.default_rng(1).normal(0, scatter, (times, MOST_BLOCKS)).tolist():
        for blocks in range(fewest, MOST_BLOCKS + 1):
            difference = paired_difference(dict(enumerate(values[:blocks])))
            assert difference is not None
            low, high = ratio_interval(difference)
            if (high - low) / (2 * difference.ratio) <= TARGET:
                break
        found.append((blocks, low <= 1 <= high))
    return found


@pytest.mark.parametrize("scatter", [0.01, 0.02, 0.03])
def test_from_six_blocks_on_a_width_may_stop_a_run_and_93_of_100_intervals_hold_the_truth(
    scatter: float,
) -> None:
    times = draws(2000, 500)
    held = [held for _, held in runs_that_stop(scatter, FEWEST_TO_STOP, times)]
    assert np.mean(held) >= 0.93 - 4 * math.sqrt(0.93 * 0.07 / times)


def test_of_the_runs_that_stop_at_three_blocks_few_intervals_hold_the_truth() -> None:
    early = [held for blocks, held in runs_that_stop(0.015, 3, 500) if blocks == 3]
    assert len(early) > 50
    assert np.mean(early) < 0.85
