"""A line through the blocks of several runs shows how a ratio depends on the speed of the machine."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import make_cell, simple_run

from bench.analysis.summary import summarise
from campaign import speed
from campaign.speed import Block, slope

TIMES = (0.020, 0.022, 0.027, 0.030, 0.034)
STILL = (0.0,) * 5


def on_a_line(value, noise=STILL):
    return [
        Block(canary_s=time, log=0.1 + value * math.log(time) + off)
        for time, off in zip(TIMES, noise, strict=True)
    ]


@given(st.floats(-2, 2))
def test_blocks_on_a_line_give_its_slope_and_no_scatter(value):
    found = slope(on_a_line(value))
    assert found.value == pytest.approx(value, abs=1e-9)
    assert found.half_width == pytest.approx(0, abs=1e-6)
    assert found.change(0.0) == pytest.approx(2**value - 1, abs=1e-8)


def test_a_slope_and_its_interval_are_those_of_scipy():
    stats = pytest.importorskip("scipy.stats", reason="scipy computes what is compared here")
    blocks = on_a_line(0.5, (0.01, -0.02, 0.015, 0.0, -0.01))
    known = stats.linregress([math.log(one.canary_s) for one in blocks], [one.log for one in blocks])
    found = slope(blocks)
    assert found.value == pytest.approx(known.slope)
    assert found.half_width == pytest.approx(stats.t.ppf(0.975, 3) * known.stderr)
    assert found.blocks == 5


@pytest.mark.parametrize(
    "blocks", [[], on_a_line(1.0)[:3], [Block(canary_s=0.02, log=log) for log in (1.0, 2.0, 3.0, 4.0)]]
)
def test_too_few_blocks_or_one_speed_give_no_line(blocks):
    assert slope(blocks) is None


def test_the_blocks_of_several_runs_are_joined_and_shown():
    cells = {make_cell(): [1000.0] * 3, make_cell(backend="jax", mode="jit"): [2000.0] * 3}
    run = simple_run(cells)
    found = {name: (run, summarise(run)) for name in ("one", "other")}
    blocks = speed.ratio_blocks(found)
    assert [len(one) for one in blocks.values()] == [6]
    assert speed.table(found).splitlines()[0].startswith("| workload | pair")


def test_the_span_is_that_of_the_canary():
    run = simple_run({make_cell(): [1000.0] * 3})
    assert set(speed.canaries(run).values()) == {0.0100}
    assert speed.span({"one": (run, summarise(run))}) == "10 to 10 ms"
