"""Follow all recipes in all frameworks over several seeds, and compare with the notebooks' figures."""

import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import msgspec

from bench.datasets.catalog import DATASETS
from bench.errors import BenchError
from bench.progress import Display
from bench.recipes.catalog import NotebookMetric, Published, Recipe
from bench.recipes.metrics import Figure
from bench.recipes.prediction import Band, BandVerdict, band, judge
from bench.recipes.records import FIELDS, HEADER, Training, read_training, steps_reached
from bench.recipes.setup import Place
from bench.recipes.train import Order, folder_name, train
from bench.text import duration
from bench.workloads.flops import training_flops
from bench.workloads.specs import Cell


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One training run of the plan: a recipe in a framework from a seed."""

    order: Order
    place: Place


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one framework for one figure of a notebook."""

    backend: str
    band: Band | None
    """None if no training run has reached the step."""
    verdict: BandVerdict | None
    reached: int
    """The highest step that any seed has reached."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of a notebook, and the answer of each framework, in the order of the table's columns."""

    recipe: Recipe
    published: Published
    answers: tuple[Answer, ...]


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """The notebooks' figures beside ours: what the report and the terminal show."""

    recipes: Sequence[Recipe]
    titles: Mapping[str, str]
    """The titles of the backends by their names, in the order of the columns."""
    trainings: Sequence[Training]

    @property
    def lines(self) -> tuple[Line, ...]:
        """A line for every figure of the notebooks."""
        return tuple(
            Line(
                recipe=recipe,
                published=published,
                answers=tuple(_answer(recipe, published, name, self.trainings) for name in self.titles),
            )
            for recipe in self.recipes
            for published in recipe.published
        )

    def of_recipe(self, recipe: Recipe) -> list[Training]:
        """Return the training runs of a recipe in the backends of the table."""
        return of_recipe(self.trainings, recipe, self.titles)


_START_S, _STEP_S, _FLOPS_PER_S = 5.0, 5e-4, 5e10
"""Rough figures of a small machine. They only weigh the training runs against each other."""


def plan(
    recipes: Sequence[Recipe], places: Mapping[str, Place], folder: Path, seeds: int | None
) -> list[Job]:
    """Return all training runs, those of the quick recipes first.

    `places` says by the name of a recipe where it is trained. Each seed starts with another framework, so
    that a budget does not always cut off the same one. Without `seeds`, each recipe has its own number.
    """
    return [
        Job(
            order=Order(
                recipe=recipe,
                steps=recipe.steps,
                cell=cell,
                seed=seed,
                source=places[recipe.name].source,
                folder=folder / folder_name(recipe.name, cell.backend, seed),
            ),
            place=places[recipe.name],
        )
        for recipe in sorted(recipes, key=lambda one: (bool(one.workload.architecture.convs), one.steps))
        for seed in range(recipe.seeds if seeds is None else seeds)
        for cell in _rotated(places[recipe.name].cells, seed)
    ]


def _rotated(cells: Sequence[Cell], by: int) -> tuple[Cell, ...]:
    start = by % len(cells)
    return (*cells[start:], *cells[:start])


def run(jobs: Sequence[Job], display: Display, *, budget_s: float | None) -> list[str]:
    """Train what is not finished, and return which training runs could not be finished, and why.

    A training run that the budget cuts off keeps its checkpoints, and the next call continues it.
    """
    began = time.monotonic()
    faults: list[str] = []
    waiting = [job for job in jobs if steps_reached(job.order.folder) < job.order.steps]
    all_cost, done = sum(map(_cost, waiting)), 0.0
    for job in waiting:
        name = job.order.folder.name
        passed = time.monotonic() - began
        left_s = None if budget_s is None else budget_s - passed
        if left_s is not None and left_s <= 0:
            faults.append(f"{name}: the budget was spent")
            continue
        left = passed / done * (all_cost - done) if done else None
        display.overall(name, done / all_cost, left)
        done += _cost(job)
        try:
            train(job.order, job.place, _CurrentJob(display), time_limit_s=left_s)
        except BenchError as error:
            faults.append(f"{name}: {error}")
    display.overall("all trained", 1.0, None)
    return faults


def _cost(job: Job) -> float:
    """Return roughly how many seconds a training run takes on a small machine: start-up plus arithmetic."""
    workload = job.order.recipe.workload
    work = training_flops(
        workload.architecture, workload.seen(DATASETS[workload.dataset].info), workload.batch_size
    )
    return _START_S + job.order.steps * (_STEP_S + work / _FLOPS_PER_S)


class _CurrentJob:
    """Shows one training run on the line of the current job, without a line for each figure."""

    def __init__(self, display: Display) -> None:
        self._display = display

    def say(self, text: str) -> None:
        self.job(text, None)

    def overall(self, text: str, done: float, left_s: float | None) -> None:
        self.job(text if left_s is None else f"{text}, about {duration(left_s)} left", done)

    def job(self, text: str, done: float | None) -> None:
        self._display.job(text, done)


def read_trainings(folder: Path) -> tuple[list[Training], list[str]]:
    """Return the training runs below a folder, one per framework and seed, and what was left out and why."""
    found: dict[tuple[str, str, int], Training] = {}
    faults: list[str] = []
    for path in sorted(folder.glob(f"*/{HEADER}")):
        try:
            one = read_training(path.parent)
        except BenchError as error:
            faults.append(str(error))
            continue
        faults += [f"{path.parent}: left out, as it cannot be read: {line}" for line in one.rejected]
        key = (one.header.workload.name, one.header.cell.backend, one.header.seed)
        other = found.get(key)
        if other is not None:
            shorter, one = sorted((one, other), key=lambda each: each.steps)
            faults.append(f"{shorter.folder}: left out, as {one.folder} trained the same from the same seed")
        found[key] = one
    return list(found.values()), faults


def of_recipe(trainings: Sequence[Training], recipe: Recipe, backends: Collection[str]) -> list[Training]:
    """Return the training runs that have figures of a recipe, unchanged and on its whole data set."""
    return [
        one
        for one in trainings
        if one.header.workload == recipe.workload
        and one.header.cell.backend in backends
        and not one.header.sample
        and one.header.limit is None
        and one.figures
    ]


def _answer(recipe: Recipe, published: Published, backend: str, trainings: Sequence[Training]) -> Answer:
    found = of_recipe(trainings, recipe, [backend])
    at = [figure for one in found if (figure := one.at(published.step)) is not None]
    reached = max((one.figures[-1].step for one in found), default=0)
    if not at:
        return Answer(backend=backend, band=None, verdict=None, reached=reached)
    values = [_value(figure, published.metric) for figure in at]
    ours = band(values, drawn_from=published.drawn_from)
    return Answer(
        backend=backend, band=ours, verdict=judge(ours, published.low, published.high), reached=reached
    )


def _value(figure: Figure, metric: NotebookMetric) -> float:
    value: float = getattr(figure, FIELDS[metric])
    return value
