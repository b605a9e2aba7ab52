"""What a worker does for the lessons of a course: time slow and quick ways in turns, and make mistakes."""

import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import backends
from backends.base import Backend, TrainingData
from backends.info import BackendInfo
from backends.lessons import BATCH_SIZE, LESSONS, MISTAKES, Lesson, Lessons, Mistake, Way
from bench.datasets.cache import load_sample
from bench.errors import ContractError, UnavailableError, WrongDeviceError
from bench.records.schema import LessonResult, MistakeResult, WayTimes, Window
from bench.worker.failures import in_a_line, print_if_unforeseen, status_of
from bench.worker.protocol import Emit, Mistaken, Taught, TeachTask
from bench.worker.stopwatch import Stopwatch

WARM_STEPS = 3
"""Steps that are trained after the first one, before the steps of a turn are chosen."""
MOST_STEPS = 10_000
LONGEST_MESSAGE = 2000
"""Characters of an error message that are kept: its first half and its last. Some frameworks put the stack
of every operation before what is wrong, and some after it."""
CUT_OUT = "\n[...]\n"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")

_METHODS = (
    "device", "sample_by_sample", "batch_by_batch", "not_compiled", "compiled", "loss_every_step", "step_on",
    "checked_step_on",
)  # fmt: skip


def teach(task: TeachTask, _backend_class: type[Backend], emit: Emit) -> None:
    """Give every lesson and make every mistake; one that fails does not stop the others."""
    data = _data()
    lessons = load_lessons(task.backend)(data, device=task.device)
    if (actual := lessons.device()) != task.device:
        raise WrongDeviceError(f"asked to run on {task.device}, its lessons run on {actual}")
    for lesson in LESSONS:
        emit(Taught(lesson=_given(lesson, lessons, task)))
    fault = _fault_of_right_batch(lessons, data)
    for mistake in MISTAKES:
        emit(Mistaken(mistake=fault(mistake) if fault else _made(mistake, lessons, data)))


def load_lessons(info: BackendInfo) -> type[Lessons]:
    """Import the class of a backend's lessons; raise ContractError if a method is missing."""
    if info.lessons is None:
        raise UnavailableError(f"{info.title} gives no lessons")
    module, _, name = info.lessons.target.partition(":")
    found = getattr(import_module(module), name, None)
    missing = [method for method in _METHODS if not callable(getattr(found, method, None))]
    if not isinstance(found, type) or missing:
        said = f"lacks {', '.join(missing)}" if isinstance(found, type) else "is no class"
        raise ContractError(
            f"backend {info.name!r}: {info.lessons.target} {said}. (backends/lessons.py is the contract)"
        )
    return found


def _data() -> TrainingData:
    """Return the shipped sample of MNIST: what an image shows does not change how long a step takes."""
    sample = load_sample("mnist")
    return TrainingData(info=sample.info, images=sample.train_images, labels=sample.train_labels)


# Lessons


def _given(lesson: Lesson, lessons: Lessons, task: TeachTask) -> LessonResult:
    try:
        slow, quick = in_turns((lesson.slow, lesson.quick), lessons, task)
    except Exception as error:  # any exception becomes the status of the lesson
        print_if_unforeseen(error)
        return LessonResult(name=lesson.name, status=status_of(error), error=in_a_line(error))
    return LessonResult(name=lesson.name, status="ok", slow=slow, quick=quick)


def in_turns(ways: tuple[Way, Way], lessons: Lessons, task: TeachTask) -> list[WayTimes]:
    """Train in both ways in short turns. The order changes from turn to turn, so that neither comes first."""
    train = [getattr(lessons, way.method) for way in ways]
    first_s = [_timed(one, 1, way).seconds for one, way in zip(train, ways, strict=True)]
    steps = [_steps_of_turn(one, way, task.turn_s) for one, way in zip(train, ways, strict=True)]
    turns: tuple[list[Window], list[Window]] = ([], [])
    for turn in range(task.turns):
        for place in (0, 1) if turn % 2 == 0 else (1, 0):
            turns[place].append(_timed(train[place], steps[place], ways[place]))
    return [
        WayTimes(first_s=seconds, turns=tuple(found)) for seconds, found in zip(first_s, turns, strict=True)
    ]


def _steps_of_turn(train: Callable[[int, int], Any], way: Way, turn_s: float) -> int:
    """Return the steps that last about `turn_s`, after a warm-up of so many."""
    warm = _timed(train, WARM_STEPS, way)
    guess = min(MOST_STEPS, max(1, round(turn_s * warm.steps / warm.seconds)))
    warm = _timed(train, guess, way)
    return min(MOST_STEPS, max(1, round(turn_s * warm.steps / warm.seconds)))


def _timed(train: Callable[[int, int], Any], steps: int, way: Way) -> Window:
    clock = Stopwatch()
    train(steps, way.batch_size)
    return Window(steps=steps, samples=steps * way.batch_size, seconds=clock.seconds())


# Mistakes


def _fault_of_right_batch(lessons: Lessons, data: TrainingData) -> Callable[[Mistake], MistakeResult] | None:
    """Train on a right batch first. Return None if that works; an error must come from the mistake alone."""
    try:
        loss = lessons.step_on(*_batch(data))
        if np.isfinite(loss):
            return None
        said = f"a right batch gives the loss {loss}"
    except Exception as error:
        print_if_unforeseen(error)
        said = f"a right batch fails: {in_a_line(error)}"
    return lambda mistake: MistakeResult(name=mistake.name, status="failed", error=said)


def _batch(data: TrainingData) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    images = np.asarray(data.images[:BATCH_SIZE])
    return images.astype(np.float32) / np.float32(255), np.array(data.labels[:BATCH_SIZE])


def wrong_batch(name: str, data: TrainingData) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8]]:
    """Return the first batch with the named mistake in it; raise ValueError for another name."""
    images, labels = _batch(data)
    match name:
        case "shape":
            return np.ascontiguousarray(images[:, :, :-1]), labels
        case "dtype":
            return np.array(data.images[:BATCH_SIZE]), labels
        case "nan" | "nan_checked":
            images[0, 14, 14] = np.nan
            return images, labels
        case "label":
            labels[0] = data.info.classes
            return images, labels
    raise ValueError(f"no mistake is called {name!r}")


def _made(mistake: Mistake, lessons: Lessons, data: TrainingData) -> MistakeResult:
    step = lessons.checked_step_on if mistake.checked else lessons.step_on
    images, labels = wrong_batch(mistake.name, data)
    try:
        loss = step(images, labels)
    except Exception as error:  # it is what the mistake is made for
        return MistakeResult(
            name=mistake.name, status="ok", raised=type(error).__name__, message=_message(error)
        )
    return MistakeResult(name=mistake.name, status="ok", loss=f"{loss:.4g}")


def _message(error: Exception) -> str:
    """Return the message of an exception, without colours and folders of this machine, and not too long."""
    text = _COLOUR.sub("", str(error)).strip()
    for folder in (str(Path(backends.__file__).parent.parent), sys.prefix, sys.base_prefix):
        text = text.replace(folder, "...")
    if len(text) <= LONGEST_MESSAGE:
        return text
    half = LONGEST_MESSAGE // 2
    # Whole lines are cut out: half a path would look like another path.
    first, last = text[:half].rpartition("\n")[0], text[-half:].partition("\n")[2]
    return (first or text[:half]).rstrip() + CUT_OUT + (last or text[-half:]).lstrip("\n")
