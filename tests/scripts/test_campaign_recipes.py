"""The notebooks' figures for pages, from training runs whose accuracies are chosen."""

import pytest
from followed import make_figures, make_header, write_training

from bench.recipes.catalog import RECIPES
from bench.recipes.records import Training
from campaign import recipes

ONE_LAYER, AFFINE = RECIPES["notebook-one-layer"], RECIPES["notebook-affine"]


@pytest.fixture
def folders(tmp_path):
    """Return two folders: one layer from two seeds in two frameworks, and the affine recipe in one."""
    for backend in ("torch", "jax"):
        for seed in range(2):
            header = make_header(ONE_LAYER, backend, seed, sample=False)
            steps = sorted({one.step for one in ONE_LAYER.published} | {ONE_LAYER.steps})
            write_training(tmp_path / "quick" / f"{backend}-{seed}", header, make_figures(steps), model=False)
    header = make_header(AFFINE, "torch", 0, sample=False)
    write_training(tmp_path / "slow" / "affine", header, make_figures([AFFINE.steps]), model=False)
    return [tmp_path / "quick", tmp_path / "slow"]


def rows_of(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.strip().splitlines()]


def test_the_last_figure_of_each_recipe_stands_beside_those_of_the_frameworks(folders):
    table = recipes.read(folders)
    assert table.titles == {"jax": "JAX", "torch": "PyTorch"}
    assert [recipe.name for recipe in table.recipes] == [ONE_LAYER.name, AFFINE.name]
    text = recipes.last_figures(table)
    assert text.startswith("\n\n|")
    assert text.endswith("|\n\n")
    heads, _, accuracy, loss, affine = rows_of(text)
    assert heads == ["recipe", "the notebook", "JAX", "PyTorch"]
    last = {one.metric: one.text for one in ONE_LAYER.published}
    assert accuracy[:2] == ["notebook-one-layer", f"{last['test accuracy']} (test accuracy)"]
    assert loss[:2] == ["notebook-one-layer", f"{last['test loss']} (test loss)"]
    assert "(2)" in accuracy[2]
    assert affine[2] == "not trained"
    assert affine[3].endswith("side")


def test_only_verdicts_on_single_values_of_softmax_recipes_are_counted(folders):
    table = recipes.read(folders)
    singles = [answer.verdict for line in table.lines[:-1] for answer in line.answers]
    assert recipes.outside(table) == f"{singles.count('outside')} of {2 * len(ONE_LAYER.published)}"
    assert singles.count("outside") > 0


def test_the_campaign_judges_42_single_values():
    header = make_header(ONE_LAYER, "torch", 0, sample=False)
    titles = {"jax": "JAX", "tensorflow": "TensorFlow", "torch": "PyTorch"}
    training = Training(folder=None, header=header, figures=())
    table = recipes.Table(recipes=list(RECIPES.values()), titles=titles, trainings=[training])
    assert recipes.outside(table).endswith(" of 42")
