"""Following a recipe in the real frameworks: killed and resumed to the last bit, and handed over."""

import shutil
from pathlib import Path

import fakes
import msgspec
import pytest
from conftest import INFOS, demand
from following import assert_same, place, small, trained

from bench.recipes import evaluate as hand_over
from bench.recipes.catalog import Recipe
from bench.recipes.checkpoints import checkpoint_files, find_model, load_model
from bench.recipes.records import Training, keep_figures
from bench.workloads.specs import Architecture, ConvBlock

pytestmark = pytest.mark.long

LIMIT = 100


NETWORK = Architecture(convs=(ConvBlock(filters=8, normalise=True), ConvBlock(filters=8)), hidden=(32,))


ENGINES = ("tensorflow", "torch", "jax")
"""Keras on each of them is held to the contract, which saving and loading are part of, and no more."""
engines = pytest.mark.parametrize(
    "framework", [pytest.param(name, marks=pytest.mark.framework(name)) for name in ENGINES]
)


def small_batches(recipe: Recipe) -> Recipe:
    """Return the notebook's convolutional network at a fifth of its batch.

    It augments, normalises by running statistics, flattens feature maps, and steps by Adam.
    """
    return msgspec.structs.replace(recipe, workload=msgspec.structs.replace(recipe.workload, batch_size=20))


def plain(recipe: Recipe) -> Recipe:
    """Return the recipe with a small network and images as they are, as every framework trains them."""
    workload = msgspec.structs.replace(
        recipe.workload, batch_size=20, architecture=NETWORK, augmentation=None
    )
    return msgspec.structs.replace(recipe, workload=workload)


@engines
def test_a_training_that_is_killed_goes_on_to_the_same_to_the_last_bit(
    framework: str, tmp_path: Path
) -> None:
    recipe = small_batches(small("notebook-cifar-cnn", steps=20, checkpoint_every=12))
    info = INFOS[framework]
    whole = trained(tmp_path / "whole", recipe, info, limit=LIMIT)
    killed = killed_at_15(whole, tmp_path / "killed")
    screen = fakes.Screen()
    resumed = trained(killed, recipe, info, limit=LIMIT, display=screen)
    assert screen.lines[0].startswith("Goes on from step 12.")
    assert [figure.step for figure in resumed.figures] == [0, 5, 10, 15, 20]
    assert len(resumed.losses) == 20
    assert_same(resumed, whole)


def killed_at_15(whole: Training, folder: Path) -> Path:
    """Return a copy of a training's folder as a worker leaves it that is killed before its figure at 15."""
    shutil.copytree(whole.folder, folder)
    newest, older = checkpoint_files(folder)
    assert (newest.stem, older.stem) == ("step-20", "step-12")
    newest.unlink()
    find_model(folder).unlink()
    keep_figures(folder, 10)
    return folder


@engines
def test_a_trained_model_is_the_same_network_in_every_framework(framework: str, tmp_path: Path) -> None:
    for name in ENGINES:
        demand(INFOS[name])
    recipe = plain(small("notebook-cifar-cnn", steps=6))
    readers = [INFOS[name] for name in ENGINES]
    found = trained(tmp_path / "t", recipe, INFOS[framework], limit=LIMIT)
    model = load_model(find_model(found.folder))
    scores = list(hand_over.evaluate(model, place(recipe, *readers, limit=LIMIT), fakes.Screen()))
    assert [(score.backend, score.error) for score in scores] == [(info.name, None) for info in readers]
    for score in scores:
        assert score.within, score
        assert score.difference is not None
        assert score.difference <= hand_over.TOLERANCES["fp32"], score
        assert score.test_accuracy == pytest.approx(found.figures[-1].test_accuracy, abs=1 / LIMIT)
        assert score.test_loss == pytest.approx(found.figures[-1].test_loss, rel=1e-4)
