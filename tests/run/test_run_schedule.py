"""Which block comes next in a run, and how often intervals hold the truth where it stops."""

import math

import numpy as np
import pytest
from conftest import draws
from synthetic import make_cell, make_header, make_job, make_run, quiet_blocks

from bench.analysis.statistics import paired_difference, ratio_interval
from bench.records.schema import BlockRecord
from bench.run.budget import Budget
from bench.run.log import RunLog
from bench.run.plan import FEWEST_TO_STOP, MOST_BLOCKS, PRESETS
from bench.run.schedule import Schedule


@pytest.mark.parametrize(("blocks", "following"), [(3, "mnist-mlp"), (5, "mnist-mlp"), (6, None)])
def test_no_width_ends_a_run_before_six_blocks(blocks: int, following: str | None) -> None:
    """All blocks are equal, so any width would be narrow enough."""
    cells = [make_cell("mnist-mlp", backend) for backend in ("torch", "jax")]
    jobs = [make_job(cell, block) for cell in cells for block in range(blocks)]
    log = RunLog(make_run(make_header(cells), [*quiet_blocks(cells, blocks), *jobs]), unavailable=())
    schedule = Schedule(log, Budget(log, {}), PRESETS["quick"])
    assert schedule.least_precise(set()) == following
    assert schedule.least_precise({"mnist-mlp"}) is None


def test_until_widths_decide_the_workload_with_the_fewest_blocks_is_next() -> None:
    """Else the number of blocks would depend on the widths, and narrow intervals would be too narrow."""
    cells = [make_cell(name, backend) for name in ("mnist-mlp", "mnist-cnn") for backend in ("torch", "jax")]
    random = np.random.default_rng(1)
    scatters = {"mnist-mlp": 0.5, "mnist-cnn": 0.05}
    records = list(quiet_blocks(cells, 8))
    for cell in cells:
        rates = 1000 * np.exp(random.normal(0, scatters[cell.workload], 8))
        records += [make_job(cell, block, rates=[float(rate)] * 20) for block, rate in enumerate(rates)]

    def after(mlp: int, cnn: int) -> str | None:
        kept = {"mnist-mlp": mlp, "mnist-cnn": cnn}
        short = [
            one
            for one in records
            if (one.block if isinstance(one, BlockRecord) else one.spec.block)
            < kept[one.workload if isinstance(one, BlockRecord) else one.spec.cell.workload]
        ]
        log = RunLog(make_run(make_header(cells), short), unavailable=())
        return Schedule(log, Budget(log, {}), PRESETS["quick"]).least_precise(set())

    assert after(3, 4) == "mnist-mlp"
    assert after(4, 3) == "mnist-cnn", "although its interval is narrower"
    assert after(6, 5) == "mnist-cnn"
    assert after(6, 6) == "mnist-mlp", "now the widest interval is next"
    assert after(8, 6) == "mnist-mlp"


def test_a_row_that_was_given_up_does_not_keep_a_run_going() -> None:
    cells = [make_cell("mnist-mlp", backend) for backend in ("torch", "jax", "tensorflow")]
    records = list(quiet_blocks(cells, 6))
    for cell in cells[:2]:
        records += [make_job(cell, block) for block in range(6)]
    records += [make_job(cells[2], 0), make_job(cells[2], 1, status="crashed", rates=())]
    log = RunLog(make_run(make_header(cells), records), unavailable=())
    assert Schedule(log, Budget(log, {}), PRESETS["quick"]).least_precise(set()) is None


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
