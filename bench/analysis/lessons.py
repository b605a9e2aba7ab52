"""How much slower the slow way of each lesson is: a factor, and its interval over turns.

The turns of both ways alternate in one process. A factor therefore holds for this process and this machine:
its interval says how much the turns scatter, and not how much another process would differ.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import msgspec

from backends.lessons import LESSONS
from bench.analysis.statistics import MARGIN, Estimate, estimate, log_rate
from bench.records.runs import Run
from bench.records.schema import LessonResult, LessonsRecord, Status

FEWEST_TURNS = 3
"""Fewest turns for which a factor has an interval that says anything."""

Kind: TypeAlias = Literal["slower", "quicker", "no difference", "not measured"]


class LessonFactor(msgspec.Struct, frozen=True, kw_only=True):
    """What one lesson showed in one framework."""

    backend: str
    lesson: str
    status: Status
    error: str | None
    factor: Estimate | None
    """Time for an image in the slow way divided by that in the quick way; None if it was not measured."""
    extra_s: float | None
    """How much longer the first step takes in the quick way than in the slow one; negative: less long."""

    @property
    def kind(self) -> Kind:
        """What the interval shows; a difference counts if all of the interval is beyond `MARGIN`."""
        found = self.factor
        if found is None or found.low is None or found.high is None:
            return "not measured"
        if found.low > 1 + MARGIN:
            return "slower"
        return "quicker" if found.high < 1 / (1 + MARGIN) else "no difference"


def latest_lessons(run: Run) -> dict[str, LessonsRecord]:
    """Return the last record of each backend's lessons, by its name, in the order of the records."""
    return {record.backend: record for record in run.lessons}


def lesson_factors(run: Run) -> tuple[LessonFactor, ...]:
    """Return what every lesson showed: backend by backend, lessons in the order in which they are taught."""
    found = []
    for record in latest_lessons(run).values():
        results = {one.name: one for one in record.lessons}
        found += [_factor(record, results[one.name]) for one in LESSONS if one.name in results]
    return tuple(found)


def _factor(record: LessonsRecord, result: LessonResult) -> LessonFactor:
    slow, quick, status, error, factor = result.slow, result.quick, result.status, result.error, None
    if status == "ok" and slow is not None and quick is not None:
        try:
            logs = [
                log_rate(fast.samples, fast.seconds) - log_rate(slower.samples, slower.seconds)
                for slower, fast in zip(slow.turns, quick.turns, strict=True)
            ]
            factor = _estimate(logs)
        except ValueError as problem:
            status, error = "failed", str(problem)
    elif status == "ok":
        status, error = "failed", "the record holds no times"
    return LessonFactor(
        backend=record.backend,
        lesson=result.name,
        status=status,
        error=error,
        factor=factor,
        extra_s=None if factor is None or slow is None or quick is None else quick.first_s - slow.first_s,
    )


def _estimate(logs: Sequence[float]) -> Estimate:
    if len(logs) < FEWEST_TURNS:
        raise ValueError(f"{len(logs)} turns of each way, where {FEWEST_TURNS} are needed")
    return estimate(logs)
