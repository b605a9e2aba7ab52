"""The recipes: how each notebook trains its workload, when it evaluates, and what it publishes.

A step number is the number of updates done. The notebooks 000 and 003 print "step i" after update i + 1, so
their step 0 is step 1 here. 001 prints before the update, so its step 0 is step 0 here as well. The published
figures are a selection of what the notebooks print: the first, the last, and some between.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias

import msgspec

from bench.errors import UsageError, unknown
from bench.workloads.catalog import find_workload
from bench.workloads.specs import Workload

NotebookMetric: TypeAlias = Literal["test accuracy", "test loss", "train accuracy"]


IMAGE_LOSS = "nats an image"


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """A figure that a notebook prints or promises: one value, or a range where its text names one."""

    step: int
    """Updates done."""
    metric: NotebookMetric
    low: float
    high: float
    """Shares for accuracies, nats per image for losses; equal to `low` unless it is a range."""
    text: str
    """The figure in the notebook's words."""
    drawn_from: int | None = None
    """How many images the figure was computed on, where the notebook drew them at random."""


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """One training run of a notebook, to be repeated in any framework."""

    workload: Workload
    steps: int
    first: int
    """Updates before the first figure."""
    every: int
    """Updates from one figure to the next; the last update is followed by a figure as well."""
    checkpoint_every: int
    seeds: int
    """How many seeds `bench notebooks` trains by default."""
    published: tuple[Published, ...]
    loss_scale: float = 1.0
    loss_unit: str = IMAGE_LOSS
    """The unit in which the notebook prints the loss: `loss_scale` times the mean over the images."""

    @property
    def name(self) -> str:
        return self.workload.name


def figure_steps(recipe: Recipe, steps: int) -> tuple[int, ...]:
    """Return the steps of a training run of `steps` steps after which a figure is due, sorted.

    These are the regular ones, those that the notebook publishes, and the last.
    """
    published = {one.step for one in recipe.published if one.step <= steps}
    return tuple(sorted({*range(recipe.first, steps + 1, recipe.every), steps} | published))


def _value(step: int, value: float, text: str, metric: NotebookMetric = "test accuracy") -> Published:
    return Published(step=step, metric=metric, low=value, high=value, text=text)


_SUMMED = "nats, summed over the test images"
_TEST_IMAGES = 10_000

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        recipe.name: recipe
        for recipe in (
            Recipe(
                workload=find_workload("notebook-one-layer"),
                steps=1000,
                first=1,
                every=100,
                checkpoint_every=500,
                seeds=20,
                published=(
                    _value(1, 0.4307, "0.4307 at step 0, another run"),
                    _value(1, 0.279, "0.279 at step 0"),
                    _value(101, 0.8912, "0.8912 at step 100"),
                    _value(501, 0.9115, "0.9115 at step 500"),
                    _value(801, 0.9149, "0.9149 at step 800, another run"),
                    _value(901, 0.9163, "0.9163 at step 900"),
                    _value(1, 20985 / _TEST_IMAGES, "20985 at step 0", "test loss"),
                    _value(901, 2979 / _TEST_IMAGES, "2979 at step 900", "test loss"),
                ),
                loss_scale=_TEST_IMAGES,
                loss_unit=_SUMMED,
            ),
            Recipe(
                workload=find_workload("notebook-softmax-plot"),
                steps=5000,
                first=0,
                every=100,
                checkpoint_every=1000,
                seeds=8,
                published=(
                    _value(0, 0.0936, "0.0936 at step 0"),
                    _value(100, 0.8798, "0.8798 at step 100"),
                    _value(4900, 0.9241, "0.9241 at step 4,900"),
                    _value(5000, 0.9238, "0.9238 at step 5,000"),
                    _value(5000, 0.2761, "27.61 at step 5,000", "test loss"),
                ),
                loss_scale=100,
                loss_unit="nats, of 100 images",
            ),
            Recipe(
                workload=find_workload("notebook-cifar-cnn"),
                steps=11_120,
                first=0,
                every=1000,
                checkpoint_every=1000,
                seeds=1,
                published=(
                    Published(
                        step=11_120,
                        metric="train accuracy",
                        low=0.730,
                        high=0.730,
                        text="73.0 % of one training batch at step 11,120",
                        drawn_from=100,
                    ),
                    Published(
                        step=11_120,
                        metric="test accuracy",
                        low=0.795,
                        high=0.805,
                        text='"about 80 %", read as 79.5 to 80.5 %',
                    ),
                ),
            ),
            Recipe(
                workload=find_workload("notebook-affine"),
                steps=30_001,
                first=1,
                every=500,
                checkpoint_every=5000,
                seeds=3,
                published=(
                    Published(
                        step=30_001,
                        metric="test accuracy",
                        low=0.91,
                        high=0.93,
                        text='"between 91 and 93 %"',
                    ),
                ),
            ),
            Recipe(
                workload=find_workload("notebook-convnet"),
                steps=5001,
                first=1,
                every=500,
                checkpoint_every=1000,
                seeds=1,
                published=(
                    Published(
                        step=5001,
                        metric="test accuracy",
                        low=0.99,
                        high=1.0,
                        text='"well over 99 %", read as 99 % and more',
                    ),
                ),
            ),
            Recipe(
                workload=find_workload("notebook-softmax-save"),
                steps=1000,
                first=0,
                every=100,
                checkpoint_every=500,
                seeds=20,
                published=(_value(1000, 0.9184, "0.9184 at the end"),),
            ),
        )
    }
)


def find_recipe(name: str) -> Recipe:
    """Return the recipe of that name, with or without `notebook-`; raise UsageError if there is none."""
    for known in (name, f"notebook-{name}"):
        if known in RECIPES:
            return RECIPES[known]
    short = not name.startswith("notebook-")
    names = [known.removeprefix("notebook-") if short else known for known in RECIPES]
    raise unknown("recipe", name, names, "bench list shows all")


def on_dataset(recipe: Recipe, dataset: str) -> Recipe:
    """Return the recipe for another data set, without the published figures, which do not apply there.

    Raises UsageError if the data set is unknown, or its images are smaller than the recipe's crop.
    """
    from bench.datasets.catalog import DATASETS

    if dataset == recipe.workload.dataset:
        return recipe
    if dataset not in DATASETS:
        raise unknown("data set", dataset, list(DATASETS), "bench data fetch NAME fetches one")
    height, width, _ = DATASETS[dataset].info.image_shape
    augmentation = recipe.workload.augmentation
    if augmentation is not None and augmentation.crop > min(height, width):
        raise UsageError(
            f"{recipe.name} crops to {augmentation.crop} pixels; {dataset} has {height} by {width}."
        )
    workload = msgspec.structs.replace(
        recipe.workload, name=f"{recipe.name}-{dataset}", dataset=dataset, target_accuracy=None
    )
    return msgspec.structs.replace(recipe, workload=workload, published=())
