"""Following a recipe in the real frameworks: killed and continued to the last bit, and handed over."""

import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import fakes
import msgspec
import pytest
from conftest import INFOS
from following import assert_same, final_params, place, small, trained

from bench.recipes import evaluate as hand_over
from bench.recipes.catalog import Recipe
from bench.recipes.checkpoints import checkpoint_files, find_model, load_model
from bench.recipes.records import Training, keep_figures

pytestmark = pytest.mark.long

LIMIT = 100
ENGINES = ("tensorflow", "torch", "jax")
"""Keras on each of them is held to the contract, which saving and loading are part of, and no more."""


def recipe() -> Recipe:
    """Return the notebook's convolutional network at a fifth of its batch.

    It augments, normalises by running statistics, flattens feature maps, and steps by Adam.
    """
    cut = small("notebook-cifar-cnn", steps=20, checkpoint_every=12)
    return msgspec.structs.replace(cut, workload=msgspec.structs.replace(cut.workload, batch_size=20))


@pytest.fixture(scope="module", autouse=True)
def _threads_sleep_while_they_wait() -> Iterator[None]:
    """Keep the threads of PyTorch from spinning: beside other tests that takes most of the time of a step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_WAIT_POLICY", "PASSIVE")
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Training]:
    """Return what trains in a framework without a break, once for all tests."""

    @cache
    def train_in(framework: str) -> Training:
        return trained(tmp_path_factory.mktemp(framework) / "whole", recipe(), INFOS[framework], limit=LIMIT)

    return train_in


@pytest.mark.parametrize(
    "framework", [pytest.param(name, marks=pytest.mark.framework(name)) for name in ENGINES]
)
def test_a_training_that_is_killed_goes_on_to_the_same_to_the_last_bit(
    framework: str, whole: Callable[[str], Training], tmp_path: Path
) -> None:
    killed = killed_at_15(whole(framework), tmp_path / "killed")
    screen = fakes.Screen()
    resumed = trained(killed, recipe(), INFOS[framework], limit=LIMIT, display=screen)
    assert screen.lines[0].startswith("Continues from step 12.")
    assert [figure.step for figure in resumed.figures] == [0, 5, 10, 15, 20]
    assert len(resumed.losses) == 20
    assert_same(resumed, whole(framework))


def killed_at_15(whole: Training, folder: Path) -> Path:
    """Return a copy of a training's folder as a worker leaves it that is killed before its figure at 15."""
    shutil.copytree(whole.folder, folder)
    newest, older = checkpoint_files(folder)
    assert (newest.stem, older.stem) == ("step-20", "step-12")
    newest.unlink()
    find_model(folder).unlink()
    keep_figures(folder, 10)
    return folder


@pytest.mark.parametrize(
    ("framework", "reader"),
    [
        pytest.param(one, other, marks=[pytest.mark.framework(one), pytest.mark.framework(other)])
        for one, other in zip(ENGINES, (*ENGINES[1:], ENGINES[0]), strict=True)
    ],
)
def test_a_trained_model_is_the_same_network_in_another_framework(
    framework: str, reader: str, whole: Callable[[str], Training]
) -> None:
    """A model's file says nothing of its framework, so that each saves once and each loads once is enough."""
    found = whole(framework)
    assert {(value.dtype.str, value.flags.c_contiguous) for value in final_params(found).values()} == {
        ("<f4", True)
    }
    model = load_model(find_model(found.folder))
    (score,) = hand_over.evaluate(model, place(recipe(), INFOS[reader], limit=LIMIT), fakes.Screen())
    assert (score.backend, score.error) == (reader, None)
    assert score.within, score
    assert score.test_accuracy == pytest.approx(found.figures[-1].test_accuracy, abs=1 / LIMIT)
    # A kernel that is 1 % off changes the loss by 3e-5 of it.
    assert score.test_loss == pytest.approx(found.figures[-1].test_loss, rel=2e-6)
