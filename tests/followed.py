"""Synthetic trainings for tests: folders as `bench train` would leave them, with the figures chosen."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import synthetic

from bench import store
from bench.datasets.catalog import DATASETS
from bench.recipes.catalog import RECIPES, Recipe, figure_steps, find_recipe
from bench.recipes.checkpoints import model_name, save_model
from bench.recipes.metrics import Figure
from bench.recipes.records import FIGURES, HEADER, Training, TrainingHeader, distribution, read_training
from bench.workloads.parameters import Params
from bench.workloads.specs import Workload

RECIPE = "notebook-one-layer"
STEPS_PER_S = 100


def make_header(
    recipe: Recipe | str = RECIPE,
    backend: str = "numpy",
    seed: int = 1,
    steps: int | None = None,
    **changes: object,
) -> TrainingHeader:
    """Return the header of a training on the shipped sample, but for what is named."""
    found = find_recipe(recipe) if isinstance(recipe, str) else recipe
    mode = synthetic.REFERENCE_MODE if backend == synthetic.REFERENCE else synthetic.MODES[backend][0]
    cell = synthetic.make_cell(found.workload.name, backend, mode)
    run = synthetic.make_header([cell])
    header = TrainingHeader(
        created_at="2026-05-01T10:00:00+00:00",
        command=("bench", "train", found.name),
        recipe=found.name,
        steps=found.steps if steps is None else steps,
        cell=cell,
        workload=found.workload,
        seed=seed,
        limit=None,
        sample=True,
        backend=run.backends[0],
        environment=run.environment,
    )
    return msgspec.structs.replace(header, **changes)


def make_figure(
    step: int,
    accuracy: float = 0.9,
    *,
    before: int = 0,
    params: Mapping[str, npt.NDArray[np.float32]] | None = None,
    **changes: object,
) -> Figure:
    """Return a figure with that test accuracy; `before` is the step of the figure before.

    Of no `params` a small kernel and a bias are told that widen with the steps.
    """
    losses = np.random.default_rng(step).random(step - before, np.float32)
    spread = np.linspace(-1, 1, 40, dtype=np.float32) * np.float32(1 + step)
    told = {"logits/kernel": spread, "logits/bias": spread[::4]} if params is None else params
    figure = Figure(
        step=step,
        train_s=step / STEPS_PER_S,
        train_loss=1.0 * (1 - accuracy) + 0.01,
        train_accuracy=accuracy + (1 - accuracy) / 2,
        test_loss=2.0 * (1 - accuracy) + 0.01,
        test_accuracy=accuracy,
        losses=losses.astype("<f4").tobytes(),
        distributions={name: distribution(value) for name, value in told.items()},
    )
    return msgspec.structs.replace(figure, **changes)


def make_figures(steps: Sequence[int], *, final: float = 0.9, start: float = 0.1) -> tuple[Figure, ...]:
    """Return a figure after each of these steps; the accuracy rises from `start` to `final` evenly."""
    return tuple(
        make_figure(step, float(accuracy), before=before)
        for step, before, accuracy in zip(
            steps, [0, *steps[:-1]], np.linspace(start, final, len(steps)), strict=True
        )
    )


def due_figures(header: TrainingHeader, *, final: float = 0.9) -> tuple[Figure, ...]:
    """Return every figure that is due in that training, as `make_figures` does."""
    return make_figures(figure_steps(RECIPES[header.recipe], header.steps), final=final)


def write_training(
    folder: Path, header: TrainingHeader | None = None, figures: Iterable[Figure] = (), *, model: bool = False
) -> Training:
    """Write a training to a folder that is not there yet, with `model` its model too, and read it."""
    header = header or make_header()
    store.create(folder, HEADER, header)
    for figure in figures:
        store.append(folder / FIGURES, figure)
    if model:
        make_model(folder / model_name(header.recipe, header.steps), header.workload, step=header.steps)
    return read_training(folder)


def make_params(workload: Workload, seed: int = 0) -> Params:
    """Return random parameters of a workload's network; variances and scales are positive."""
    random = np.random.default_rng(seed)
    shapes = workload.architecture.parameter_shapes(workload.seen(DATASETS[workload.dataset].info))
    return {
        name: (
            random.uniform(0.5, 1.5, shape)
            if name.endswith(("/variance", "/scale"))
            else random.normal(0, 0.1, shape)
        ).astype(np.float32)
        for name, shape in shapes.items()
    }


def make_model(
    path: Path,
    workload: Workload,
    *,
    params: Params | None = None,
    step: int = 1000,
    seed: int = 1,
    backend: str = "numpy",
) -> Path:
    """Write a model, of random parameters where none are given, and return its path."""
    mode = synthetic.REFERENCE_MODE if backend == synthetic.REFERENCE else synthetic.MODES[backend][0]
    cell = synthetic.make_cell(workload.name, backend, mode)
    params = make_params(workload, seed) if params is None else params
    save_model(path, params, step=step, workload=workload, cell=cell, seed=seed)
    return path
