"""The lessons of a backend: what is timed, what is recorded, and that nothing is ever left blank."""

import sys
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pytest
from played import play, undisturbed

from backends.base import TrainingData
from backends.lessons import BATCH_SIZE, LESSONS, MISTAKES
from bench.analysis.lessons import lesson_factors
from bench.datasets.cache import load_sample
from bench.measuring.lessons import give_lessons, lessons_in_a_line, without_lessons
from bench.records.runs import Run
from bench.records.schema import LessonsRecord
from bench.worker.lessons import CUT_OUT, LONGEST_MESSAGE, in_turns, wrong_batch
from bench.worker.protocol import TeachTask

LESSON_NAMES = [one.name for one in LESSONS]
MISTAKE_NAMES = [one.name for one in MISTAKES]


@pytest.fixture(autouse=True)
def _played(monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed(monkeypatch)
    play(monkeypatch)


def lessons_of(kind: str, **changes: Any) -> LessonsRecord:
    options = {"time_limit_s": 60.0, "turns": 4, "turn_s": 0.02} | changes
    return give_lessons(
        fakes.with_lessons(kind), python=Path(sys.executable), device="cpu", **options
    )  # fmt: skip


def run_with(*records: LessonsRecord) -> Run:
    header: Any = None
    return Run(folder=Path("run"), header=header, records=records)


def test_every_lesson_is_timed_in_turns() -> None:
    record = lessons_of("GivesLessons")
    assert (record.status, record.error) == ("ok", None)
    assert [one.name for one in record.lessons] == LESSON_NAMES
    for lesson, result in zip(LESSONS, record.lessons, strict=True):
        assert result.status == "ok"
        for way, times in ((lesson.slow, result.slow), (lesson.quick, result.quick)):
            assert times is not None
            assert len(times.turns) == 4
            assert all(turn.samples == turn.steps * way.batch_size for turn in times.turns)
            assert all(turn.seconds == pytest.approx(0.02, rel=0.5) for turn in times.turns)


def test_both_ways_have_a_turn_before_either_has_another_and_neither_always_comes_first() -> None:
    calls: list[str] = []

    class Recorder(fakes.GivesLessons):
        def batch_by_batch(self, steps: int, batch_size: int) -> None:
            calls.append("quick")
            super().batch_by_batch(steps, batch_size)

        def sample_by_sample(self, steps: int, batch_size: int) -> None:
            calls.append("slow")
            fakes.GivesLessons.batch_by_batch(self, steps, batch_size)

    sample = load_sample("mnist", 10)
    data = TrainingData(info=sample.info, images=sample.train_images, labels=sample.train_labels)
    loading = next(one for one in LESSONS if one.name == "loading")
    task = TeachTask(backend=fakes.STEADY, device="cpu", turns=4, turn_s=0.01)
    in_turns((loading.slow, loading.quick), Recorder(data, device="cpu"), task)
    assert calls[-8:] == ["slow", "quick", "quick", "slow"] * 2


def test_a_factor_is_that_of_the_times() -> None:
    factors = {one.lesson: one for one in lesson_factors(run_with(lessons_of("GivesLessons")))}
    assert factors["loading"].factor is not None
    assert factors["loading"].factor.value == pytest.approx(fakes.SLOW_FACTOR, rel=0.02)
    assert (factors["loading"].kind, factors["compiling"].kind) == ("slower", "slower")
    assert factors["reading"].kind == "no difference"
    # An image of a batch of 10 takes (1 + 0.1) / 10 ms, one of a batch of 100 takes (1 + 1) / 100 ms.
    assert factors["batch"].factor is not None
    assert factors["batch"].factor.value == pytest.approx(0.11 / 0.02, rel=0.02)


def test_every_mistake_is_made() -> None:
    record = lessons_of("GivesLessons")
    made = {one.name: one for one in record.mistakes}
    assert list(made) == MISTAKE_NAMES
    assert {one.status for one in record.mistakes} == {"ok"}
    assert (made["shape"].raised, made["shape"].loss) == ("ValueError", None)
    assert made["dtype"].raised is None
    assert float(str(made["dtype"].loss)) > 1, "bytes are not scaled"
    assert made["nan"].loss == "nan"
    assert made["nan_checked"].raised == "FloatingPointError"
    assert made["label"].raised == "IndexError"


def test_a_message_names_no_folder_of_this_machine_and_is_not_endless() -> None:
    made = {one.name: one for one in lessons_of("GivesLessons").mistakes}
    assert str(fakes.TESTS.parent) not in str(made["shape"].message)
    assert str(made["shape"].message).startswith("in ...:\n")
    assert "\x1b" not in str(made["shape"].message)
    long = str(made["label"].message)
    assert len(long) == LONGEST_MESSAGE + len(CUT_OUT)
    assert long.startswith("first")
    assert long.endswith("last")


def test_a_lesson_that_fails_does_not_stop_the_others() -> None:
    record = lessons_of("FailsInOneLesson")
    found = {one.name: (one.status, one.error) for one in record.lessons}
    assert record.status == "ok"
    assert found.pop("reading") == ("out_of_memory", "MemoryError: no room")
    assert set(found.values()) == {("ok", None)}


@pytest.mark.parametrize(
    ("kind", "status", "words"),
    [("ExitsInALesson", "crashed", "status 7"), ("HangsInALesson", "timeout", "limit of 60 s")],
)
def test_what_a_worker_did_not_get_to_has_the_status_of_its_end(kind: str, status: str, words: str) -> None:
    record = lessons_of(kind)
    found = {one.name: one for one in record.lessons}
    assert (record.status, [found[name].status for name in LESSON_NAMES[:2]]) == (status, ["ok", "ok"])
    assert words in str(record.error)
    left = [*(found[name] for name in LESSON_NAMES[2:]), *record.mistakes]
    assert {one.status for one in left} == {status}
    assert all(words in str(one.error) for one in left)


@pytest.mark.parametrize(
    ("kind", "status", "words"),
    [
        ("LessonsElsewhere", "wrong_device", "asked to run on cpu, its lessons run on gpu"),
        ("HalfLessons", "failed", "lacks sample_by_sample"),
        ("no_such_class", "failed", "is no class"),
    ],
)
def test_lessons_that_break_the_contract_say_so(kind: str, status: str, words: str) -> None:
    record = lessons_of(kind)
    every = [record, *record.lessons, *record.mistakes]
    assert {one.status for one in every} == {status}
    assert all(words in str(one.error) for one in every)


def test_where_a_right_batch_fails_no_error_is_shown_as_that_of_a_mistake() -> None:
    record = lessons_of("RefusesRightBatches")
    assert {one.status for one in record.lessons} == {"ok"}
    assert {one.status for one in record.mistakes} == {"failed"}
    assert all(one.error == "a right batch fails: RuntimeError: no batch is right" for one in record.mistakes)


def test_lessons_that_are_not_given_have_a_status_too() -> None:
    record = without_lessons(fakes.with_lessons("GivesLessons"), "cpu", "not_measured", "no time")
    assert [one.name for one in record.lessons] == LESSON_NAMES
    assert {(one.status, one.error) for one in (*record.lessons, *record.mistakes)} == {
        ("not_measured", "no time")
    }
    assert lessons_in_a_line(record, "Fake") == "lessons of Fake, 0 s: 0 of 9 given: not measured: no time"


@pytest.mark.parametrize("name", MISTAKE_NAMES)
def test_a_wrong_batch_is_wrong_in_one_thing(name: str) -> None:
    sample = load_sample("mnist")
    data = TrainingData(info=sample.info, images=sample.train_images, labels=sample.train_labels)
    images, labels = wrong_batch(name, data)
    right = sample.train_images[:BATCH_SIZE].astype(np.float32) / np.float32(255)
    same_labels = bool((labels == sample.train_labels[:BATCH_SIZE]).all())
    same_images = (
        images.shape == right.shape and images.dtype == right.dtype and bool((images == right).all())
    )
    assert (same_images, same_labels) == ((True, False) if name == "label" else (False, True))
    assert len(images) == len(labels) == BATCH_SIZE


def test_no_other_mistake_is_known() -> None:
    sample = load_sample("mnist", 200)
    data = TrainingData(info=sample.info, images=sample.train_images, labels=sample.train_labels)
    with pytest.raises(ValueError, match="no mistake is called 'typo'"):
        wrong_batch("typo", data)


def test_no_lesson_compiles_a_step_before_the_one_that_shows_what_compiling_takes() -> None:
    compiling = [place for place, one in enumerate(LESSONS) if one.compiles]
    assert compiling == [0], "a step of another lesson may be compiled, too"
