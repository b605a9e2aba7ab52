"""The lessons of the real frameworks: each is given, in a worker as a run starts it, by a tiny setting."""

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FRAMEWORKS, INFOS, in_process

from backends.base import TrainingData
from backends.lessons import LESSONS, MISTAKES, WORKLOAD
from bench.datasets.cache import load_sample
from bench.measuring.lessons import give_lessons
from bench.records.schema import LessonsRecord
from bench.worker.lessons import load_lessons
from bench.workloads.catalog import WORKLOADS

NAMES = [name for name, info in INFOS.items() if info.lessons is not None]
frameworks = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.framework(name)) for name in NAMES]
)


def given(name: str) -> LessonsRecord:
    return give_lessons(
        INFOS[name], python=Path(sys.executable), device="cpu", time_limit_s=280, turns=3, turn_s=0.005
    )


def test_every_framework_that_is_compared_gives_lessons() -> None:
    assert NAMES == ["tensorflow", "torch", "jax"]


@pytest.mark.long
@pytest.mark.measures
@frameworks
def test_all_lessons_are_given_and_all_mistakes_made(name: str) -> None:
    record = given(name)
    assert (record.status, record.error) == ("ok", None)
    assert {one.name: (one.status, one.error) for one in record.lessons} == {
        one.name: ("ok", None) for one in LESSONS
    }
    assert {one.name: (one.status, one.error) for one in record.mistakes} == {
        one.name: ("ok", None) for one in MISTAKES
    }
    made = {one.name: one for one in record.mistakes}
    assert made["shape"].raised, "no framework can multiply matrices that do not fit"
    assert "756" in str(made["shape"].message), "28 rows of 27 columns: the message names what it was given"
    for one in record.mistakes:
        assert str(Path(__file__).parent.parent.parent) not in str(one.message)
        assert sys.prefix not in str(one.message)


def shapes_and_losses(argument: dict[str, Any]) -> dict[str, Any]:
    """Return the shapes of the network of the lessons, and what it learns; called in a process of its own."""
    sample = load_sample("mnist", 400)
    data = TrainingData(info=sample.info, images=sample.train_images, labels=sample.train_labels)
    kind = load_lessons(INFOS[argument["name"]])
    lessons = kind(data, device="cpu")
    methods = dict.fromkeys(way.method for lesson in LESSONS for way in (lesson.slow, lesson.quick))
    losses = {method: getattr(lessons, method)(20, 100) for method in methods if method != "compiled"}
    model: Any = vars(lessons)["model"]
    if hasattr(model, "weights"):
        shapes = [list(weight.shape) for weight in model.weights]
    elif hasattr(model, "state_dict"):
        shapes = [list(weight.shape) for weight in model.state_dict().values()]
    else:
        nnx = importlib.import_module("flax.nnx")
        jax = importlib.import_module("jax")
        shapes = [list(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))]
    return {"shapes": shapes, "losses": losses}


@frameworks
def test_the_network_of_the_lessons_is_that_of_the_workload_and_learns(name: str) -> None:
    found = in_process(INFOS[name], "test_lessons:shapes_and_losses", {"name": name})
    info = load_sample("mnist", 1).info
    expected = WORKLOADS[WORKLOAD].architecture.parameter_shapes(info).values()
    assert sorted(sorted(shape) for shape in found["shapes"]) == sorted(sorted(shape) for shape in expected)
    for method, losses in found["losses"].items():
        assert len(losses) == 20, method
        assert np.isfinite(losses).all(), method
    every = [loss for losses in found["losses"].values() for loss in losses]
    assert np.mean(every[-20:]) < 0.99 * np.mean(every[:20]), "all ways train the same network further"


def test_this_process_has_imported_no_framework() -> None:
    assert not set(FRAMEWORKS) & sys.modules.keys()
