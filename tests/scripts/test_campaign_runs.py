"""What runs publish: the blocks behind a ratio are those of the published comparison."""

import math
from pathlib import Path
from statistics import fmean

import msgspec
import pytest
from synthetic import disturbed_run, make_cell, simple_run

from bench.analysis.statistics import MARGIN
from bench.analysis.summary import summarise
from bench.records.schema import JobRecord
from campaign import runs
from campaign.runs import default_blocks, default_ratios

TORCH, JAX = make_cell(), make_cell(backend="jax", mode="jit")
COMPILED = make_cell(mode="compile")
RATES = {TORCH: [1000.0, 1010.0, 990.0, 1003.0, 999.0], JAX: [2000.0, 2030.0, 1985.0, 2010.0, 900.0]}


def test_the_mean_of_the_differences_is_the_published_ratio():
    run = simple_run(RATES)
    (one,) = default_blocks("x", run, summary := summarise(run))
    assert (one.ratio,) == default_ratios("x", run, summary)
    assert fmean(one.differences.values()) == pytest.approx(one.ratio.log, abs=1e-12)
    assert one.differences[1] == pytest.approx(math.log(2030 / 1010))
    assert one.ratio.blocks == len(one.differences) == 5
    assert one.ratio.margin == one.margin(range(5)) == MARGIN


def test_a_dropped_block_is_not_among_them():
    run = disturbed_run(RATES, {4})
    (one,) = default_blocks("x", run, summarise(run))
    assert list(one.differences) == [0, 1, 2, 3]
    assert fmean(one.differences.values()) == pytest.approx(one.ratio.log, abs=1e-12)


def test_a_block_that_one_side_lacks_and_one_that_picked_a_mode_are_not_among_them():
    run = simple_run({**RATES, COMPILED: [500.0] * 5})
    records = tuple(
        record
        for record in run.records
        if not (isinstance(record, JobRecord) and record.spec.cell == JAX and record.spec.block == 3)
    )
    run = msgspec.structs.replace(run, records=records)
    (one,) = default_blocks("x", run, summarise(run))
    assert list(one.differences) == [1, 2, 4]
    assert fmean(one.differences.values()) == pytest.approx(one.ratio.log, abs=1e-12)


def test_a_margin_is_that_of_the_order_of_the_turns_in_these_blocks():
    (one,) = default_blocks("x", run := simple_run(RATES), summarise(run))
    late = {block: {None: 0.05, JAX: -0.05} for block in (2, 3, 4)}
    early = {block: {None: 0.0, JAX: 0.0} for block in (0, 1)}
    still = {block: {None: 0.0, TORCH: 0.0} for block in range(5)}
    one = msgspec.structs.replace(one, effects=(still, {**early, **late}))
    assert one.margin((0, 1)) == MARGIN
    assert one.margin((2, 3, 4)) == pytest.approx(math.expm1(0.05))


def test_a_published_run_gives_its_own_figures():
    run, summary = runs.read(Path(__file__).parents[2] / "results" / "campaign" / "run-default-1")
    found = default_blocks("x", run, summary)
    assert [one.ratio for one in found] == list(default_ratios("x", run, summary))
    assert len(found) == 18
    for one in found:
        assert fmean(one.differences.values()) == pytest.approx(one.ratio.log, abs=1e-12)
        assert one.margin(list(one.differences)) == one.ratio.margin
    assert max(one.ratio.margin for one in found) > MARGIN
