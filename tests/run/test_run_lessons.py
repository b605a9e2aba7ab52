"""Lessons at the end of a run: when they are given, what is kept of them, and that the budget knows them."""

from pathlib import Path

import fakes
import msgspec
import pytest
from fakes import STEADY, TINY
from played import play, undisturbed
from test_runner import begin, carry_out

from backends.lessons import LESSONS
from bench.records.runs import RECORDS, read_run
from bench.run.budget import Budget
from bench.run.log import RunLog
from bench.run.plan import LESSONS_GUESS_S, LESSONS_SHARE, PRESETS, lessons_seconds
from bench.run.setup import plan_in_words

pytestmark = pytest.mark.measures

TEACHES = fakes.with_lessons("GivesLessons")
PRESET = msgspec.structs.replace(TINY, lessons=True)
ENOUGH_S = LESSONS_GUESS_S / LESSONS_SHARE


@pytest.fixture(autouse=True)
def _played(monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed(monkeypatch)
    play(monkeypatch)


def test_lessons_come_last_and_only_from_backends_that_have_them(tmp_path: Path) -> None:
    infos = [STEADY, TEACHES]
    screen = fakes.Screen()
    run = carry_out(
        begin(tmp_path, infos, preset=PRESET, budget_s=ENOUGH_S), infos, preset=PRESET, display=screen
    )
    [record] = run.lessons
    assert run.records[-1] == record
    assert (record.backend, record.status, record.device) == ("teaches", "ok", "cpu")
    assert {one.status for one in record.lessons} == {"ok"}
    assert any("lessons of Teaches" in line and "9 of 9 given" in line for line in screen.lines)
    shown = [left for text, _, left in screen.overalls if text == "lessons, Teaches"]
    assert len(shown) == 1
    assert shown[0] is not None
    assert shown[0] >= LESSONS_GUESS_S, "the time left knows the lessons"


def test_a_preset_without_lessons_gives_none(tmp_path: Path) -> None:
    run = carry_out(begin(tmp_path, [TEACHES], budget_s=ENOUGH_S), [TEACHES])
    assert run.lessons == ()
    assert run.header.planned.lessons_s == 0


def test_a_short_run_says_why_it_gives_none(tmp_path: Path) -> None:
    begun = begin(tmp_path, [TEACHES], preset=PRESET, budget_s=ENOUGH_S - 1)
    [record] = carry_out(begun, [TEACHES], preset=PRESET).lessons
    assert (record.status, len(record.lessons)) == ("not_measured", len(LESSONS))
    assert "more than 10 % of the budget" in str(record.error)


def test_a_backend_that_cannot_run_here_gives_no_lessons(tmp_path: Path) -> None:
    absent = msgspec.structs.replace(fakes.ABSENT, lessons=TEACHES.lessons)
    infos = [absent, TEACHES]
    run = carry_out(begin(tmp_path, infos, preset=PRESET, budget_s=2 * ENOUGH_S), infos, preset=PRESET)
    assert [record.backend for record in run.lessons] == ["teaches"]
    assert run.header.planned.lessons_s == LESSONS_GUESS_S


def test_a_backend_whose_lessons_crash_does_not_spoil_the_run(tmp_path: Path) -> None:
    infos = [fakes.with_lessons("ExitsInALesson", "exits"), TEACHES]
    run = carry_out(begin(tmp_path, infos, preset=PRESET, budget_s=2 * ENOUGH_S), infos, preset=PRESET)
    found = {record.backend: record.status for record in run.lessons}
    assert found == {"exits": "crashed", "teaches": "ok"}


def test_a_resumed_run_gives_only_the_lessons_that_are_missing(tmp_path: Path) -> None:
    infos = [fakes.with_lessons("GivesLessons", "other"), TEACHES]
    run = carry_out(begin(tmp_path, infos, preset=PRESET, budget_s=2 * ENOUGH_S), infos, preset=PRESET)
    lines = (run.folder / RECORDS).read_bytes().splitlines(keepends=True)
    (run.folder / RECORDS).write_bytes(b"".join(lines[:-1]))
    cut = read_run(run.folder)
    assert len(cut.lessons) == 1
    again = carry_out(cut, infos, preset=PRESET)
    assert sorted(record.backend for record in again.lessons) == ["other", "teaches"]
    assert again.lessons[0] == cut.lessons[0]


def test_the_budget_keeps_time_for_lessons_that_are_still_to_be_given(tmp_path: Path) -> None:
    run = begin(tmp_path, [TEACHES], preset=PRESET, budget_s=ENOUGH_S)
    log = RunLog(run, unavailable=())
    budget = Budget(log, {})
    assert budget.end - budget.start == pytest.approx(ENOUGH_S)
    assert budget.end - budget.deadline == pytest.approx(LESSONS_GUESS_S)
    [record] = carry_out(run, [TEACHES], preset=PRESET).lessons
    log.append(msgspec.structs.replace(record, wall_s=1000.0))
    later = Budget(log, {})
    assert later.deadline == later.end, "nothing is kept for lessons that took longer than expected"


def test_the_plan_names_the_lessons(tmp_path: Path) -> None:
    run = begin(tmp_path, [TEACHES], preset=PRESET, budget_s=ENOUGH_S)
    assert "lessons for a course 30 s" in plan_in_words(run.header)
    planned = run.header.planned
    parts = (planned.parity_s, planned.blocks_s, planned.training_s, planned.refining_s, planned.lessons_s)
    assert sum(parts) == pytest.approx(ENOUGH_S)


def test_every_preset_has_time_for_the_lessons_of_three_frameworks() -> None:
    for preset in PRESETS.values():
        assert preset.lessons
        assert lessons_seconds(3, preset.budget_s) == 3 * LESSONS_GUESS_S


@pytest.mark.parametrize(
    ("backends", "budget_s", "seconds"), [(0, 1, 0), (1, 299, 0), (1, 300, 30), (2, 599, 0)]
)
def test_lessons_take_a_tenth_of_the_budget_at_most(backends: int, budget_s: float, seconds: float) -> None:
    assert lessons_seconds(backends, budget_s) == seconds
