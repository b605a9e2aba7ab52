"""What a change of a figure is called: only what is proven, to either side, and nothing of too few."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.analysis.statistics import detectable_range
from bench.gate.metrics import ACCURACY, FIRST_STEP, MEMORY, SPEED, in_families, judge

STEADY = {
    block: 1000.0 * math.exp(wobble) for block, wobble in enumerate([-0.01, 0.0, 0.01, -0.005, 0.005, 0.0])
}


def changed(factor: float, values: dict[int, float] = STEADY, scatter: float = 0.004) -> dict[int, float]:
    noise = np.random.default_rng(7).normal(0, scatter, len(values))
    return {block: value * factor * math.exp(noise[block]) for block, value in values.items()}


@pytest.mark.parametrize(
    ("measure", "factor", "kind"),
    [
        (SPEED, 0.95, "worse"),
        (SPEED, 1.05, "better"),
        (SPEED, 1.0, "same"),
        (MEMORY, 1.2, "worse"),
        (MEMORY, 0.8, "better"),
        (FIRST_STEP, 1.6, "worse"),
        (FIRST_STEP, 0.5, "better"),
    ],
)
def test_a_change_is_called_by_its_direction(measure, factor, kind):
    found = judge(measure, STEADY, changed(factor), paired=True)
    assert found.kind == kind
    assert found.low < factor - 1 < found.high
    assert found.change == pytest.approx(factor - 1, abs=0.01)


def test_what_scatters_too_much_is_undecided_and_never_passes():
    found = judge(SPEED, STEADY, changed(1.0, scatter=0.15), paired=True)
    assert found.kind == "undecided"
    assert found.detectable[0] > SPEED.tolerance


def test_a_gain_that_is_not_proven_still_rules_a_loss_out():
    found = judge(SPEED, STEADY, changed(1.05, scatter=0.05), paired=True)
    assert found.kind == "no worse"
    assert found.low > 1 / 1.05 - 1
    assert found.high > SPEED.tolerance


@pytest.mark.parametrize("sign", [-1, 1])
def test_accuracy_that_differs_to_either_side_is_worse(sign):
    base = {0: 0.91, 1: 0.912, 2: 0.908}
    head = {seed: value + sign * (0.05 + 0.001 * seed) for seed, value in base.items()}
    assert judge(ACCURACY, base, head, paired=True).kind == "worse"
    nearer = {seed: value + sign * 0.001 * seed for seed, value in base.items()}
    assert judge(ACCURACY, base, nearer, paired=True).kind == "same"


def test_equal_values_are_the_same_and_a_constant_change_is_proven():
    base = {0: 0.9, 1: 0.9, 2: 0.9}
    assert judge(ACCURACY, base, base, paired=True).kind == "same"
    assert judge(ACCURACY, base, dict.fromkeys(base, 0.8), paired=True).kind == "worse"


def test_pairs_are_of_one_number_and_others_are_left_out():
    head = {**changed(0.95), 17: 1.0}
    assert judge(SPEED, STEADY, head, paired=True).values == 6
    assert judge(SPEED, {0: 1.0, 1: 1.0, 2: 1.0}, {3: 1.0, 4: 1.0, 5: 1.0}, paired=True) is None


@pytest.mark.parametrize("paired", [True, False])
def test_two_values_are_too_few(paired):
    few = dict(list(STEADY.items())[:2])
    assert judge(SPEED, few, STEADY, paired=paired) is None
    assert judge(SPEED, STEADY, few, paired=paired) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -1.0])
def test_a_value_that_cannot_be_is_refused(value):
    with pytest.raises(ValueError, match="speed of"):
        judge(SPEED, STEADY, {**STEADY, 0: value}, paired=True)


@given(st.floats(0.5, 2.0), st.integers(0, 1000))
def test_turned_round_a_change_is_its_inverse(factor, seed):
    noise = np.random.default_rng(seed).normal(0, 0.01, len(STEADY))
    head = {block: value * factor * math.exp(noise[block]) for block, value in STEADY.items()}
    for paired in (True, False):
        there = judge(SPEED, STEADY, head, paired=paired)
        back = judge(SPEED, head, STEADY, paired=paired)
        assert (1 + there.change) * (1 + back.change) == pytest.approx(1)
        assert (1 + there.low) * (1 + back.high) == pytest.approx(1)
        opposite = {"worse": "better", "better": "worse", "same": "same"}
        assert there.kind not in opposite or back.kind == opposite[there.kind]


def test_among_many_cells_a_change_has_to_be_clearer():
    border = judge(SPEED, STEADY, changed(0.965, scatter=0.025), paired=True)
    assert border.kind == "worse"
    calm = judge(SPEED, STEADY, changed(1.0), paired=True)
    many = in_families([border, *[calm] * 30])
    assert many[0].kind != "worse"
    # A difference that is called detectable is so at the level at which Holm's method tests it.
    at_its_level = detectable_range(border.difference, SPEED.alpha / 31, margin=SPEED.margin)
    assert many[0].detectable == pytest.approx(at_its_level)
    assert many[0].detectable[0] > 1.2 * border.detectable[0]
    assert {found.kind for found in many[1:]} == {"same"}
    alone = in_families([border, judge(MEMORY, STEADY, changed(1.0), paired=True)])
    assert [found.kind for found in alone] == ["worse", "same"]
