"""Small trainings for tests: recipes cut short, on the shipped sample, in this process or in real workers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fakes
import msgspec
import numpy as np

from backends.catalog import NUMPY
from backends.info import BackendInfo
from bench.measuring.backends import Registry
from bench.measuring.selection import Asked, Available, choose_backends
from bench.recipes.catalog import RECIPES, Recipe
from bench.recipes.checkpoints import find_model, load_model
from bench.recipes.metrics import Figure
from bench.recipes.records import Training
from bench.recipes.setup import Place
from bench.recipes.train import Order, train
from bench.worker.protocol import DataSource
from bench.workloads.parameters import Params
from bench.workloads.specs import Cell, OptimizerSpec

LIMIT = 200
"""Images of each split, of which a softmax regression sees batches of 20."""
MOMENTUM = OptimizerSpec(name="momentum", learning_rate=0.05)


def small(name: str = "notebook-softmax-plot", **changes: Any) -> Recipe:
    """Return a recipe of two dozen steps, whose figures and checkpoints seldom fall together.

    No figure is published, as another would be due for each.

    The optimizer has a state of its own: a resumption that forgets it must not go unseen.
    """
    recipe = RECIPES[name]
    fields: dict[str, Any] = {"steps": 24, "first": 0, "every": 5, "checkpoint_every": 8, "published": ()}
    if not recipe.workload.architecture.convs:
        fields["workload"] = msgspec.structs.replace(
            recipe.workload, optimizer=MOMENTUM, loss="mean", batch_size=20, held_out=0
        )
    return msgspec.structs.replace(recipe, **fields | changes)


def available(*infos: BackendInfo) -> Available:
    return choose_backends(
        Registry(backends={info.name: info for info in infos}, broken={}),
        Asked(backends=tuple(info.name for info in infos)),
        "cpu",
    )


def place(recipe: Recipe, *infos: BackendInfo, limit: int | None = LIMIT) -> Place:
    """Return where a recipe can be followed: in these backends, or in the reference, on the sample."""
    return Place(
        available=available(*(infos or (NUMPY,))),
        cells=tuple(cell_of(recipe, info) for info in infos or (NUMPY,)),
        source=DataSource(name=recipe.workload.dataset, cache=None, limit=limit),
        pythons={},
    )


def cell_of(recipe: Recipe, info: BackendInfo = NUMPY) -> Cell:
    return Cell(
        workload=recipe.name, backend=info.name, mode=info.default_mode, device="cpu", precision="fp32"
    )


def order_of(recipe: Recipe, where: Place, folder: Path, **changes: Any) -> Order:
    fields: dict[str, Any] = {"steps": recipe.steps, "cell": where.cells[0], "seed": 1}
    return Order(recipe=recipe, source=where.source, folder=folder, **fields | changes)


def trained(
    folder: Path,
    recipe: Recipe | None = None,
    *infos: BackendInfo,
    display: Any = None,
    limit: int | None = LIMIT,
    time_limit_s: float | None = None,
    **changes: Any,
) -> Training:
    """Train in a real worker, a small recipe in the reference where nothing else is named."""
    recipe = recipe or small()
    where = place(recipe, *infos, limit=limit)
    order = order_of(recipe, where, folder, **changes)
    return train(order, where, display or fakes.Screen(), time_limit_s=time_limit_s)


def untimed(figures: Sequence[Figure]) -> list[Figure]:
    """Return figures without their times, which no two trainings share."""
    return [msgspec.structs.replace(figure, train_s=0.0) for figure in figures]


def final_params(training: Training) -> Params:
    return load_model(find_model(training.folder)).params


def assert_same_params(params: Params, others: Params) -> None:
    """Check that two networks are equal to the last bit."""
    assert sorted(params) == sorted(others)
    for name, value in params.items():
        np.testing.assert_array_equal(value, others[name], err_msg=name, strict=True)


def assert_same(training: Training, other: Training) -> None:
    """Check that two trainings came to the same, to the last bit: all figures, all losses, and the model."""
    assert untimed(training.figures) == untimed(other.figures)
    np.testing.assert_array_equal(training.losses, other.losses, strict=True)
    assert_same_params(final_params(training), final_params(other))


class Interrupts(fakes.Screen):
    """A display during which somebody presses Ctrl-C, when a line with that beginning appears."""

    def __init__(self, line: str) -> None:
        super().__init__()
        self._line = line

    def say(self, text: str) -> None:
        super().say(text)
        if text.strip().startswith(self._line):
            raise KeyboardInterrupt
