"""Prediction intervals: numbers worked out by hand, laws, and that they hold as often as is claimed."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.recipes.prediction import Band, band, judge

Z = 1.959964  # the normal distribution's 97.5 % quantile
T2 = 4.302653  # Student's with two degrees of freedom
DRAW = Z * math.sqrt(0.73 * 0.27 / 100)
VALUES = st.lists(st.floats(-1000, 1000), min_size=2, max_size=30)


@pytest.mark.parametrize(
    ("values", "drawn_from", "sd", "half"),
    [
        ([3.0, 1.0, 2.0], None, 1.0, T2 * math.sqrt(1 + 1 / 3)),
        ([0.5, 0.5, 0.5], None, 0.0, 0.0),
        ([0.73], None, None, None),
        ([0.73], 100, None, DRAW),
        ([0.73, 0.73], 100, 0.0, DRAW),
        ([0.70, 0.73, 0.76], 100, 0.03, math.hypot(T2 * 0.03 * math.sqrt(4 / 3), DRAW)),
    ],
    ids=["seeds", "equal seeds", "one seed", "one draw", "a draw, equal seeds", "a draw and seeds"],
)
def test_the_band_is_the_one_worked_out_by_hand(values, drawn_from, sd, half):
    found = band(values, drawn_from=drawn_from)
    assert (found.n, found.mean) == (len(values), pytest.approx(sum(values) / len(values)))
    assert found.sd == pytest.approx(sd)
    if half is None:
        assert (found.low, found.high) == (None, None)
    else:
        ends = (found.mean - half, found.mean + half)
        assert (found.low, found.high) == pytest.approx(ends, rel=1e-6)


def test_no_values_are_refused():
    with pytest.raises(ValueError, match="no values have no band"):
        band([])


@given(VALUES, st.floats(-1000, 1000), st.floats(0, 10))
def test_shifting_and_stretching_the_values_does_the_same_to_the_band(values, shift, factor):
    before, after = band(values), band([factor * value + shift for value in values])
    near = {"rel": 1e-9, "abs": 1e-7}  # values of up to 11,000 in double precision, and a t of up to 13
    assert after.mean == pytest.approx(factor * before.mean + shift, **near)
    assert after.sd == pytest.approx(factor * before.sd, **near)
    assert after.low == pytest.approx(factor * before.low + shift, **near)
    assert after.high == pytest.approx(factor * before.high + shift, **near)


@given(VALUES, st.randoms())
def test_the_order_of_the_seeds_does_not_count(values, random):
    shuffled = values.copy()
    random.shuffle(shuffled)
    assert band(shuffled).mean == band(values).mean
    assert band(shuffled).sd == pytest.approx(band(values).sd, rel=1e-12)


@pytest.mark.parametrize("seeds", [2, 3, 20])
def test_one_more_draw_of_a_normal_lies_in_the_band_in_95_of_100_cases(seeds):
    draws = np.random.default_rng(seeds).normal(5, 2, (4000, seeds + 1))
    found = [band(row[:-1].tolist()) for row in draws]
    share = np.mean([one.low <= last <= one.high for one, last in zip(found, draws[:, -1], strict=True)])
    assert abs(share - 0.95) < 5 * math.sqrt(0.95 * 0.05 / len(draws))


def test_a_share_of_drawn_images_lies_in_its_band_in_95_of_100_cases():
    random = np.random.default_rng(1)
    truth = random.normal(0.7, 0.02, (4000, 21))
    shares = random.binomial(100, truth[:, -1]) / 100
    found = [band(row.tolist(), drawn_from=100) for row in truth[:, :-1]]
    share = np.mean([one.low <= last <= one.high for one, last in zip(found, shares, strict=True)])
    assert abs(share - 0.95) < 0.02  # shares of 100 images are whole hundredths, which moves it a little
    without = [band(row.tolist()) for row in truth[:, :-1]]
    assert np.mean([a.low <= last <= a.high for a, last in zip(without, shares, strict=True)]) < 0.8


WIDE = Band(n=3, mean=0.92, sd=0.01, low=0.90, high=0.94)
ALONE = Band(n=1, mean=0.92, sd=None, low=None, high=None)


@pytest.mark.parametrize(
    ("found", "low", "high", "verdict"),
    [
        (WIDE, 0.90, 0.90, "inside"),
        (WIDE, 0.94, 0.94, "inside"),
        (WIDE, 0.8999, 0.8999, "outside"),
        (WIDE, 0.9401, 0.9401, "outside"),
        (WIDE, 0.93, 0.99, "outside"),  # it meets the band, but our mean is not in it
        (WIDE, 0.80, 0.91, "outside"),
        (WIDE, 0.80, 0.99, "inside"),
        (ALONE, 0.92, 0.92, "no band"),
        (ALONE, 0.92, 0.93, "inside"),
        (ALONE, 0.91, 0.92, "inside"),
        (ALONE, 0.93, 0.99, "outside"),
    ],
)
def test_a_value_is_compared_with_the_band_and_a_range_with_the_mean(found, low, high, verdict):
    assert judge(found, low, high) == verdict
