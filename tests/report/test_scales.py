"""Scales of charts: ends that differ, round ticks inside them, and labels that can be told apart."""

import math
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bench.report.format import TIMES
from bench.report.scales import Scale, label, labels, limits, ticks, whole_ticks

FINITE = st.floats(-1e9, 1e9)
POSITIVE = st.floats(1e-9, 1e15)


@given(st.lists(FINITE, max_size=6))
def test_the_ends_of_a_linear_axis_differ_and_hold_every_value(values):
    low, high = limits(values, log=False, low=None, high=None)
    assert low < high
    assert all(low <= value <= high for value in values)


@given(st.lists(POSITIVE, max_size=6))
def test_the_ends_of_a_logarithmic_axis_are_positive_and_hold_every_value(values):
    low, high = limits(values, log=True, low=None, high=None)
    assert 0 < low < high
    assert all(low <= value <= high for value in values)


@given(st.lists(FINITE, max_size=4), FINITE)
def test_a_given_end_stays(values, end):
    assert limits(values, log=False, low=end, high=None)[0] == end
    assert limits(values, log=False, low=None, high=end)[1] == end


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_is_refused_wherever_it_stands(wrong):
    for values, low in (([1.0, wrong], None), ([1.0], wrong)):
        with pytest.raises(ValueError, match="finite numbers only; got"):
            limits(values, log=False, low=low, high=None)


@pytest.mark.parametrize("wrong", [0.0, -1.0])
def test_a_logarithmic_axis_refuses_what_has_no_logarithm(wrong):
    with pytest.raises(ValueError, match="positive numbers only; got"):
        limits([1.0, wrong], log=True, low=None, high=None)


def test_ends_that_are_not_in_order_are_refused():
    with pytest.raises(ValueError, match="in order; got 2 and 1"):
        limits([], log=False, low=2, high=1)


@given(FINITE, st.floats(1e-6, 1e9), st.integers(2, 9))
def test_ticks_are_few_round_and_inside(low, width, most):
    high = low + width
    assume(width > 1e-6 * abs(low))  # else rounding errors are as large as the distance of two ticks
    found = ticks(low, high, most=most)
    assert 1 <= len(found) <= most + 2
    assert list(found) == sorted(set(found))
    assert all(low - 1e-6 * width <= tick <= high + 1e-6 * width for tick in found)
    if len(found) > 2:
        distances = [after - before for before, after in pairwise(found)]
        assert distances == pytest.approx([distances[0]] * len(distances), rel=1e-4)


@given(st.floats(1e-9, 1e9), st.floats(1.01, 1e12))
def test_ticks_of_a_logarithmic_axis_are_few_and_inside(low, factor):
    high = low * factor
    found = ticks(low, high, log=True)
    assert len(found) <= 9
    assert list(found) == sorted(set(found))
    assert all(low * (1 - 1e-6) <= tick <= high * (1 + 1e-6) for tick in found)
    if factor > 10:
        assert len(found) >= 2


@given(st.floats(2.0**20, 2.0**40))
def test_ticks_of_bytes_are_round_in_the_unit_of_their_labels(high):
    said = labels(ticks(0, high, unit="bytes"), "bytes")
    assert all(len(one) <= len("1,000.0 MiB") for one in said)
    assert len(set(said)) == len(said) >= 2


@given(st.integers(1, 10_000))
def test_whole_ticks_are_whole(high):
    found = whole_ticks(0, high)
    assert all(tick == round(tick) for tick in found)
    assert 2 <= len(found) <= 10


@given(FINITE, st.floats(1e-3, 1e9))
def test_the_ends_of_a_scale_lie_at_its_ends(low, width):
    assume(width > 1e-6 * abs(low))
    scale = Scale(low=low, high=low + width, start=100, end=700)
    assert scale.at(scale.low) == pytest.approx(100)
    assert scale.at(scale.high) == pytest.approx(700)
    assert scale.inside(scale.high + width) == pytest.approx(700)
    assert scale.at(scale.high + width) > 701


def test_a_logarithmic_scale_gives_equal_factors_equal_room():
    scale = Scale(low=1, high=100, start=0, end=10, log=True)
    assert [scale.at(value) for value in (1, 10, 100)] == pytest.approx([0, 5, 10])


@pytest.mark.parametrize(
    ("values", "unit", "said"),
    [
        ((0, 500, 1000), "number", ("0", "500", "1,000")),
        ((0, 0.5, 1), "number", ("0", "0.5", "1.0")),
        ((96, 97, 98), "percent", ("96 %", "97 %", "98 %")),
        ((96.5, 97), "percent", ("96.5 %", "97.0 %")),
        ((0, 2**29, 2**30), "bytes", ("0 GiB", "0.5 GiB", "1.0 GiB")),
        ((0, 5, 10), "seconds", ("0 s", "5 s", "10 s")),
        ((0, 0.005), "seconds", ("0 ms", "5 ms")),
        ((0, 0), "seconds", ("0 s", "0 s")),
        ((1, 1.5), "factor", (f"1.0{TIMES}", f"1.5{TIMES}")),
        ((1e9, 2e9), "FLOP/s", ("1 GFLOP/s", "2 GFLOP/s")),
    ],
)
def test_labels_of_an_axis_share_their_unit_and_digits(values, unit, said):
    assert labels(values, unit) == said


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (1234567, "number", "1.23e6"),
        (12345, "number", "12,300"),
        (0.00012, "number", "1.2e-4"),
        (0, "number", "0"),
        (0.0125, "seconds", "12.5 ms"),
        (90, "seconds", "90 s"),
        (700 * 2**20, "bytes", "700 MiB"),
        (3.2e10, "FLOP/s", "32 GFLOP/s"),
        (1.05, "factor", f"1.05{TIMES}"),
        (98.25, "percent", "98.2 %"),
    ],
)
def test_a_value_has_three_digits_and_its_unit(value, unit, said):
    assert label(value, unit) == said


@given(st.floats(1e-6, 1e9), st.floats(1.2, 1e6))
def test_no_two_labels_of_an_axis_are_the_same(low, factor):
    for log in (False, True):
        found = ticks(low, low * factor, log=log)
        said = labels(found, "number", log=log)
        assert len(set(said)) == len(said)
