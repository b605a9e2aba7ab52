"""Handing a model over: it is the same network where it is loaded, and one that is not is found out."""

from pathlib import Path

import fakes
import numpy as np
import pytest
from followed import make_model
from following import place, small

from backends.catalog import NUMPY
from backends.info import BackendInfo
from bench.datasets import cache
from bench.recipes.checkpoints import Model, load_model
from bench.recipes.evaluate import TOLERANCES, Score, evaluate
from bench.recipes.model import Trained

LIMIT = 120


@pytest.fixture(autouse=True)
def _workers_find_the_fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", fakes.python_path())


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return load_model(make_model(tmp_path / "notebook-softmax-plot-step-24.safetensors", small().workload))


def scores(model: Model, *infos: BackendInfo, limit: int | None = LIMIT) -> list[Score]:
    return list(evaluate(model, place(small(), *infos, limit=limit), fakes.Screen()))


def test_the_reference_scores_a_model_within_the_tolerance(model: Model) -> None:
    (score,) = scores(model)
    sample = cache.load_sample("mnist", LIMIT)
    logits = Trained(model).logits(sample.test_images)
    assert (score.backend, score.title, score.error) == ("numpy", NUMPY.title, None)
    assert score.within
    assert score.difference is not None
    assert score.difference < 1e-6
    assert score.test_accuracy == float((logits.argmax(axis=1) == sample.test_labels).mean())
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    loss = -np.log(shares[np.arange(LIMIT), sample.test_labels]).mean()
    assert score.test_loss == pytest.approx(loss, rel=1e-5)


def test_more_test_images_are_scored_than_compared(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.recipes.evaluate.COMPARED", 50)
    (score,) = scores(model)
    assert score.within
    sample = cache.load_sample("mnist", LIMIT)
    right = Trained(model).logits(sample.test_images).argmax(axis=1) == sample.test_labels
    assert score.test_accuracy == float(right.mean()) != float(right[:50].mean())


def test_a_framework_with_wrong_logits_is_found_out_and_the_others_are_not(model: Model) -> None:
    wrong, right = scores(model, fakes.WRONG, fakes.STEADY)
    assert (wrong.backend, wrong.within, wrong.error) == ("wrong", False, None)
    assert wrong.difference == pytest.approx(0.01, rel=1e-3)
    assert wrong.test_accuracy == right.test_accuracy, "accuracy alone would not tell"
    assert right.within


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("NotHere", "its driver is too old"),
        ("Exits", "the process ended with status 7"),
        ("NanLogits", "the loss on the test images is not finite"),
        ("Elsewhere", "asked to run on cpu, it runs on gpu"),
        ("NoSuchClass", "NoSuchClass"),
    ],
)
def test_a_framework_that_fails_has_its_error_and_the_next_has_its_try(
    target: str, words: str, model: Model
) -> None:
    failed, next_one = scores(model, fakes.info("failing", f"fakes:{target}"), fakes.STEADY)
    assert (failed.backend, failed.title) == ("failing", "Failing")
    assert failed.error is not None
    assert words in failed.error
    assert (failed.test_accuracy, failed.test_loss, failed.difference) == (None, None, None)
    assert not failed.within
    assert next_one.within


def test_nothing_is_left_behind(model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    scores(model, limit=20)
    assert list(scratch.iterdir()) == []


def test_a_difference_allowed_grows_as_the_precision_falls() -> None:
    assert 0 < TOLERANCES["fp32"] < TOLERANCES["tf32"] < TOLERANCES["bf16"] <= 0.1
    assert fakes.WRONG.cpu_precisions == ("fp32",)
    assert TOLERANCES["fp32"] < 0.01, "or the wrong one above would pass"
