"""Give the lessons of a backend in a process of their own, and make the record of them."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from backends.info import BackendInfo
from backends.lessons import LESSONS, MISTAKES
from bench.measuring.process import Outcome, run_worker
from bench.records.schema import LessonResult, LessonsRecord, MistakeResult, Status, fault_in_words
from bench.text import duration
from bench.worker.protocol import Event, Mistaken, Taught, TeachTask
from bench.workloads.specs import Device

TURNS = 10
"""Turns of each way in a lesson. The interval of a factor is over these."""
TURN_S = 0.12
"""About how long a turn is: long against the clock, short against the changes of a machine's speed."""
LIMIT_S = 180.0
"""No lessons take longer; on two cores they take 15 to 30 s."""

PARTS = len(LESSONS) + len(MISTAKES)
"""The events of a worker that gives all lessons."""


def give_lessons(
    info: BackendInfo,
    *,
    python: Path,
    device: Device,
    time_limit_s: float = LIMIT_S,
    turns: int = TURNS,
    turn_s: float = TURN_S,
    on_event: Callable[[Event], None] = lambda _: None,
) -> LessonsRecord:
    """Run the worker to its end; a lesson that it did not get to has the status with which it ended."""
    started_at = datetime.now(UTC).isoformat()
    outcome = run_worker(
        TeachTask(backend=info, device=device, turns=turns, turn_s=turn_s),
        python=python,
        device=device,
        time_limit_s=time_limit_s,
        on_event=on_event,
    )
    return _record(info, device, outcome, started_at=started_at, turn_s=turn_s)


def without_lessons(info: BackendInfo, device: Device, status: Status, error: str) -> LessonsRecord:
    """Return the record of lessons that were not given, and why."""
    nothing = Outcome(
        events=(), status=status, error=error, exit_signal=None, stderr_tail=(), wall_s=0.0
    )  # fmt: skip
    return _record(info, device, nothing, started_at=datetime.now(UTC).isoformat(), turn_s=TURN_S)


def lessons_in_a_line(record: LessonsRecord, title: str) -> str:
    """Return what came of the lessons in a line, to be shown while the run goes on."""
    statuses = [*(one.status for one in record.lessons), *(one.status for one in record.mistakes)]
    given = statuses.count("ok")
    said = f"lessons of {title}, {duration(record.wall_s)}: {given} of {PARTS} given"
    return said if record.status == "ok" else f"{said}: {fault_in_words(record.status, record.error)}"


def _record(
    info: BackendInfo, device: Device, outcome: Outcome, *, started_at: str, turn_s: float
) -> LessonsRecord:
    taught = {event.lesson.name: event.lesson for event in outcome.events if isinstance(event, Taught)}
    made = {event.mistake.name: event.mistake for event in outcome.events if isinstance(event, Mistaken)}
    # A worker that was done without giving all lessons is an older one, which knows fewer of them.
    status = "not_measured" if outcome.status == "ok" else outcome.status
    error = outcome.error or "the worker ended without it"
    return LessonsRecord(
        backend=info.name,
        device=device,
        status=outcome.status,
        error=outcome.error,
        stderr_tail=outcome.stderr_tail,
        started_at=started_at,
        wall_s=outcome.wall_s,
        turn_s=turn_s,
        lessons=tuple(
            taught.get(one.name, LessonResult(name=one.name, status=status, error=error)) for one in LESSONS
        ),
        mistakes=tuple(
            made.get(one.name, MistakeResult(name=one.name, status=status, error=error)) for one in MISTAKES
        ),
    )
