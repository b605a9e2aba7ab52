"""Loading a model in another framework: the same network is recognised, and another one is found out."""

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
FAILING = {
    "NotHere": "its driver is too old",
    "Exits": "the process ended with status 7",
    "NanLogits": "the loss on the test images is not finite",
    "Elsewhere": "asked to run on cpu, it runs on gpu",
    "NoSuchClass": "NoSuchClass",
}


@pytest.fixture(autouse=True)
def _workers_find_the_fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", fakes.python_path())


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return load_model(make_model(tmp_path / "notebook-softmax-plot-step-24.safetensors", small().workload))


def scores(model: Model, *infos: BackendInfo) -> list[Score]:
    return list(evaluate(model, place(small(), *infos, limit=LIMIT), fakes.Screen()))


def test_the_reference_is_within_the_tolerance_and_scores_all_test_images(
    model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    monkeypatch.setattr("bench.recipes.evaluate.COMPARED", 50)
    (score,) = scores(model)
    assert list(scratch.iterdir()) == [], "nothing is left behind"
    assert (score.backend, score.title, score.error) == ("numpy", NUMPY.title, None)
    assert score.within
    assert score.difference is not None
    assert score.difference < 1e-6
    sample = cache.load_sample("mnist", LIMIT)
    logits = Trained(model).logits(sample.test_images)
    right = logits.argmax(axis=1) == sample.test_labels
    assert score.test_accuracy == float(right.mean()) != float(right[:50].mean())
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    loss = -np.log(shares[np.arange(LIMIT), sample.test_labels]).mean()
    assert score.test_loss == pytest.approx(loss, rel=1e-5)


def test_a_framework_with_wrong_logits_is_found_out_and_the_others_are_not(model: Model) -> None:
    wrong, right = scores(model, fakes.WRONG, fakes.STEADY)
    assert (wrong.backend, wrong.within, wrong.error) == ("wrong", False, None)
    assert wrong.difference == pytest.approx(0.01, rel=1e-3)
    assert wrong.test_accuracy == right.test_accuracy, "accuracy alone would not tell"
    assert right.within


def test_a_framework_that_fails_has_its_error_and_the_next_has_its_try(model: Model) -> None:
    infos = [fakes.info(target.lower(), f"fakes:{target}") for target in FAILING]
    *failed, last = scores(model, *infos, fakes.STEADY)
    assert last.within
    for score, info, words in zip(failed, infos, FAILING.values(), strict=True):
        assert (score.backend, score.title) == (info.name, info.title)
        assert score.error is not None
        assert words in score.error
        assert (score.test_accuracy, score.test_loss, score.difference) == (None, None, None)
        assert not score.within


def test_a_difference_allowed_grows_as_the_precision_falls() -> None:
    assert 0 < TOLERANCES["fp32"] < TOLERANCES["tf32"] < TOLERANCES["bf16"] <= 0.1
    assert fakes.WRONG.cpu_precisions == ("fp32",)
    assert TOLERANCES["fp32"] < 0.01, "or the wrong one above would pass"
