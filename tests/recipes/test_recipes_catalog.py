"""Recipes: figures are due where the notebooks have theirs; names are found, or refused with the nearest."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.datasets.catalog import DATASETS
from bench.errors import UsageError
from bench.recipes.catalog import RECIPES, figure_steps, find_recipe, on_dataset
from bench.workloads.catalog import NOTEBOOKS
from bench.workloads.specs import Augmentation


def test_every_workload_of_a_notebook_has_a_recipe_under_its_name():
    assert {name: recipe.workload for name, recipe in RECIPES.items()} == {one.name: one for one in NOTEBOOKS}


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_recipe_is_possible_and_found_by_its_names(name):
    recipe = RECIPES[name]
    assert find_recipe(name) is find_recipe(name.removeprefix("notebook-")) is recipe
    assert 0 < recipe.checkpoint_every < recipe.steps
    assert recipe.published
    for one in recipe.published:
        assert one.step <= recipe.steps
        assert 0 <= one.low <= one.high
        assert one.metric == "test loss" or one.high <= 1


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


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("notebook-one-lair", "did you mean 'notebook-one-layer'"),
        ("one-layr", "did you mean 'one-layer'"),
        ("mnist-cnn", ""),  # a workload, but of no notebook
    ],
)
def test_an_unknown_recipe_is_refused_with_the_nearest(name, said):
    with pytest.raises(UsageError, match=f"unknown recipe '{name}'; {said}"):
        find_recipe(name)


@pytest.mark.parametrize("name", list(RECIPES))
def test_on_another_data_set_a_recipe_has_another_name_and_no_published_figures(name):
    recipe = RECIPES[name]
    assert on_dataset(recipe, recipe.workload.dataset) is recipe
    other = on_dataset(recipe, "cifar100" if recipe.workload.dataset == "cifar10" else "fashion-mnist")
    assert other.name == f"{name}-{other.workload.dataset}"
    assert other.published == ()
    back = msgspec.structs.replace(other.workload, name=name, dataset=recipe.workload.dataset)
    assert msgspec.structs.replace(other, workload=back, published=recipe.published) == recipe


def test_an_unknown_data_set_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="unknown data set 'fashion-mnis'; did you mean 'fashion-mnist'"):
        on_dataset(find_recipe("one-layer"), "fashion-mnis")


@pytest.mark.parametrize(("crop", "fits"), [(28, True), (29, False)])
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
