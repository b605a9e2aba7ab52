"""Names of charts are safe, and tell places apart."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.report.names import chart_name

PLACES = st.lists(st.text(max_size=60), min_size=3, max_size=3)


def test_a_usual_place_is_readable():
    assert chart_name("speed", "mnist-cnn", "cpu", "fp32") == "speed-mnist-cnn-cpu-fp32"


@given(PLACES)
def test_a_name_is_short_and_safe_as_a_file_and_a_fragment(place):
    name = chart_name("speed", *place)
    assert re.fullmatch(r"speed-[a-z0-9]+(-[a-z0-9]+)*", name)
    assert len(name) <= 60


@given(PLACES, PLACES)
def test_different_places_have_different_names(one, other):
    assert (chart_name("speed", *one) == chart_name("speed", *other)) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a b", "c"), ("a-b", "c")),
        (("A", "c"), ("a", "c")),
        (("a-b", "c"), ("a", "b-c")),
        (("模", "c"), ("型", "c")),
        (("a" * 80, "c"), ("a" * 81, "c")),
        (("\ud800", "c"), ("\ud801", "c")),
    ],
)
def test_places_that_look_alike_are_told_apart(one, other):
    assert chart_name("speed", *one) != chart_name("speed", *other)
