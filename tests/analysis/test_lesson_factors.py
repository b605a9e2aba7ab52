"""Factors of lessons: derived from turns, with an interval, and never where there are no times."""

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.lessons import LESSONS
from bench.analysis.lessons import FEWEST_TURNS, latest_lessons, lesson_factors
from bench.records.runs import Run
from bench.records.schema import LessonResult, LessonsRecord, WayTimes, Window

SECONDS = st.lists(st.floats(1e-4, 1e2), min_size=FEWEST_TURNS, max_size=12)
NAME = LESSONS[0].name


def way(seconds: list[float], *, samples: int = 100, first_s: float = 0.5) -> WayTimes:
    turns = tuple(Window(steps=1, samples=samples, seconds=one) for one in seconds)
    return WayTimes(first_s=first_s, turns=turns)


def record(**changes: Any) -> LessonsRecord:
    fields: dict[str, Any] = {
        "backend": "torch", "device": "cpu", "status": "ok", "started_at": "2026-05-01T10:00:00Z",
        "wall_s": 20.0, "turn_s": 0.1, "lessons": (), "mistakes": (),
    }  # fmt: skip
    return LessonsRecord(**fields | changes)


def run_of(*lessons: LessonResult, **changes: Any) -> Run:
    header: Any = None
    return Run(folder=Path("run"), header=header, records=(record(lessons=lessons, **changes),))


def taught(slow: WayTimes | None, quick: WayTimes | None, **changes: Any) -> LessonResult:
    fields: dict[str, Any] = {"name": NAME, "status": "ok", "slow": slow, "quick": quick}
    return LessonResult(**fields | changes)


@given(SECONDS, st.floats(0.01, 100))
def test_a_way_that_takes_so_many_times_as_long_has_that_factor(seconds: list[float], times: float) -> None:
    slow = way([times * one for one in seconds])
    [found] = lesson_factors(run_of(taught(slow, way(seconds))))
    assert found.factor is not None
    assert found.factor.value == pytest.approx(times, rel=1e-6)
    assert found.factor.low == pytest.approx(times, rel=1e-6), "every turn has the same factor"


@given(st.lists(st.tuples(st.floats(1e-3, 1e2), st.floats(1e-3, 1e2)), min_size=FEWEST_TURNS, max_size=9))
def test_exchanging_the_ways_inverts_the_factor(pairs: list[tuple[float, float]]) -> None:
    slow, quick = (way([pair[place] for pair in pairs]) for place in (0, 1))
    [one], [other] = (lesson_factors(run_of(taught(*ways))) for ways in ((slow, quick), (quick, slow)))
    assert one.factor is not None
    assert other.factor is not None
    assert one.factor.value * other.factor.value == pytest.approx(1)
    kinds = {"slower": "quicker", "quicker": "slower", "no difference": "no difference"}
    assert kinds[one.kind] == other.kind


def test_images_count_and_not_steps() -> None:
    """Ten times as many images in twice the time: an image takes a fifth."""
    [found] = lesson_factors(run_of(taught(way([1.0] * 4, samples=100), way([2.0] * 4, samples=1000))))
    assert found.factor is not None
    assert found.factor.value == pytest.approx(5)


def test_the_first_step_counts_apart() -> None:
    slow, quick = way([1.0] * 4, first_s=0.5), way([1.0] * 4, first_s=8.5)
    [found] = lesson_factors(run_of(taught(slow, quick)))
    assert found.extra_s == pytest.approx(8.0)
    assert found.kind == "no difference"


@pytest.mark.parametrize(
    ("result", "status", "words"),
    [
        (taught(None, None, status="crashed", error="signal 9"), "crashed", "signal 9"),
        (taught(None, way([1.0] * 3)), "failed", "no times"),
        (taught(way([1.0] * 2), way([1.0] * 2)), "failed", "2 turns"),
        (taught(way([1.0] * 3), way([1.0] * 4)), "failed", "zip"),
        (taught(way([0.0] * 3), way([1.0] * 3)), "failed", "no rate"),
        (taught(way([math.inf] * 3), way([1.0] * 3)), "failed", "no rate"),
    ],
)
def test_without_times_there_is_a_status_and_no_factor(result: LessonResult, status: str, words: str) -> None:
    [found] = lesson_factors(run_of(result))
    assert (found.status, found.factor, found.extra_s, found.kind) == (status, None, None, "not measured")
    assert words in str(found.error)


def test_the_last_record_of_a_backend_counts() -> None:
    first = record(lessons=(taught(None, None, status="timeout"),))
    second = record(lessons=(taught(way([2.0] * 3), way([1.0] * 3)),))
    header: Any = None
    run = Run(folder=Path("run"), header=header, records=(first, record(backend="jax"), second))
    assert list(latest_lessons(run)) == ["torch", "jax"]
    [found] = lesson_factors(run)
    assert (found.backend, found.status) == ("torch", "ok")


def test_a_record_survives_json() -> None:
    one = record(lessons=(taught(way([2.0]), way([1.0])),))
    assert msgspec.json.decode(msgspec.json.encode(one), type=LessonsRecord) == one
