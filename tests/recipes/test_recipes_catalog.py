"""Recipes: figures fall where the notebooks have theirs, and names are found or refused with the nearest."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.datasets.catalog import DATASETS
from bench.errors import UsageError
from bench.recipes.catalog import RECIPES, figure_steps, find_recipe, on_dataset
from bench.workloads.catalog import NOTEBOOKS, WORKLOADS
from bench.workloads.specs import Augmentation

every_recipe = pytest.mark.parametrize("name", list(RECIPES))


def test_every_workload_of_a_notebook_has_a_recipe_under_its_name():
    assert {name: recipe.workload for name, recipe in RECIPES.items()} == {one.name: one for one in NOTEBOOKS}


@every_recipe
def test_a_figure_is_due_wherever_the_notebook_prints_one(name):
    recipe = RECIPES[name]
    assert recipe.published
    assert {one.step for one in recipe.published} <= set(figure_steps(recipe, recipe.steps))


@every_recipe
def test_published_figures_are_possible(name):
    for one in RECIPES[name].published:
        assert 0 <= one.low <= one.high
        assert one.measure == "test loss" or one.high <= 1


@pytest.mark.parametrize(
    ("name", "first", "every", "last"),
    [
        ("one-layer", 1, 100, 1000),
        ("softmax-plot", 0, 100, 5000),
        ("cifar-cnn", 0, 1000, 11_120),
        ("affine", 1, 500, 30_001),
        ("convnet", 1, 500, 5001),
        ("softmax-save", 0, 100, 1000),
    ],
)
def test_the_first_figure_and_the_last_are_the_notebooks(name, first, every, last):
    recipe = find_recipe(name)
    steps = figure_steps(recipe, recipe.steps)
    assert steps[:3] == (first, first + every, first + 2 * every)
    assert steps[-1] == last


@given(st.sampled_from(list(RECIPES)), st.integers(1, 40_000))
def test_figures_are_evenly_spaced_and_published_steps_and_the_last_have_one(name, steps):
    recipe = RECIPES[name]
    *before, last = figure_steps(recipe, steps)
    published = {one.step for one in recipe.published if one.step < steps}
    assert last == steps
    assert before == sorted({*range(recipe.first, steps, recipe.every), *published})


@every_recipe
def test_a_checkpoint_is_never_rarer_than_the_training_is_long(name):
    assert 0 < RECIPES[name].checkpoint_every < RECIPES[name].steps


@every_recipe
def test_a_recipe_is_found_with_and_without_its_prefix(name):
    assert find_recipe(name) is find_recipe(name.removeprefix("notebook-")) is RECIPES[name]


@pytest.mark.parametrize(
    ("name", "near"), [("notebook-one-lair", "notebook-one-layer"), ("one-layr", "one-layer")]
)
def test_an_unknown_recipe_is_refused_with_the_nearest(name, near):
    with pytest.raises(UsageError, match=f"unknown recipe '{name}'; did you mean '{near}'"):
        find_recipe(name)


def test_a_workload_that_is_no_notebooks_is_no_recipe():
    assert "mnist-cnn" in WORKLOADS
    with pytest.raises(UsageError, match="unknown recipe 'mnist-cnn'"):
        find_recipe("mnist-cnn")


@every_recipe
def test_on_another_data_set_a_recipe_has_another_name_and_no_published_figures(name):
    recipe = RECIPES[name]
    other = on_dataset(recipe, "cifar100" if recipe.workload.dataset == "cifar10" else "fashion-mnist")
    assert other.name == f"{name}-{other.workload.dataset}"
    assert other.workload.dataset != recipe.workload.dataset
    assert other.published == ()
    back = msgspec.structs.replace(other.workload, name=name, dataset=recipe.workload.dataset)
    assert msgspec.structs.replace(other, workload=back, published=recipe.published) == recipe


@every_recipe
def test_on_its_own_data_set_a_recipe_stays_what_it_is(name):
    assert on_dataset(RECIPES[name], RECIPES[name].workload.dataset) is RECIPES[name]


def test_an_unknown_data_set_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="unknown data set 'fashion-mnis'; did you mean 'fashion-mnist'"):
        on_dataset(find_recipe("one-layer"), "fashion-mnis")


@pytest.mark.parametrize(("crop", "fits"), [(24, True), (28, True), (29, False)])
def test_a_data_set_smaller_than_the_crop_is_refused(crop, fits):
    assert DATASETS["fashion-mnist"].info.image_shape == (28, 28, 1)
    recipe = find_recipe("cifar-cnn")
    spec = Augmentation(crop=crop, hue=0, contrast=(1, 1), brightness=0, saturation=(1, 1))
    workload = msgspec.structs.replace(recipe.workload, augmentation=spec)
    cropping = msgspec.structs.replace(recipe, workload=workload)
    if fits:
        assert on_dataset(cropping, "fashion-mnist").workload.augmentation == spec
    else:
        with pytest.raises(UsageError, match="crops to 29 pixels; fashion-mnist has 28 by 28"):
            on_dataset(cropping, "fashion-mnist")
