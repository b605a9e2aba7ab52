"""All recipes in all frameworks over several seeds, and where the notebooks' figures lie among ours."""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from bench.datasets.catalog import DATASETS
from bench.errors import BenchError
from bench.progress import Display
from bench.recipes.catalog import Measure, Published, Recipe
from bench.recipes.metrics import Figure
from bench.recipes.prediction import Band, Verdict, band, judge
from bench.recipes.records import FIELDS, HEADER, Training, read_training, steps_reached
from bench.recipes.setup import Place
from bench.recipes.train import Order, folder_name, train
from bench.text import duration
from bench.workloads.flops import training_flops
from bench.workloads.specs import Cell


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One training of the table: a recipe in a framework from a seed."""

    order: Order
    place: Place


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What one framework says to one figure of a notebook."""

    backend: str
    band: Band | None
    """None where no training has come to that step."""
    verdict: Verdict | None
    reached: int
    """The furthest step of any seed, where there is no band."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of a notebook, and each framework's answer, in the order of the table."""

    recipe: Recipe
    published: Published
    answers: tuple[Answer, ...]


_START_S, _STEP_S, _FLOPS_PER_S = 5.0, 5e-4, 5e10
"""Of a small machine: they only divide the time that is left among the trainings."""


def plan(
    recipes: Sequence[Recipe], places: Mapping[str, Place], folder: Path, seeds: int | None
) -> list[Job]:
    """Return the trainings of the table, those of the quick recipes first.

    `places` tells for every recipe, by name, where it is trained. Another framework is the first for every
    seed, so that a budget does not always cut off the same.
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
        for cell in _turned(places[recipe.name].cells, seed)
    ]


def _turned(cells: Sequence[Cell], by: int) -> tuple[Cell, ...]:
    start = by % len(cells)
    return (*cells[start:], *cells[:start])


def run(jobs: Sequence[Job], display: Display, *, budget_s: float | None) -> list[str]:
    """Train what is not trained yet, and return what could not be finished, and why.

    A training that the budget cuts off keeps its checkpoints; running again goes on from them.
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
            train(job.order, job.place, _Inner(display), time_limit_s=left_s)
        except BenchError as error:
            faults.append(f"{name}: {error}")
    display.overall("all trained", 1.0, None)
    return faults


def _cost(job: Job) -> float:
    """Return about how long a training takes, in seconds of some machine: its start, then its arithmetic."""
    workload = job.order.recipe.workload
    work = training_flops(
        workload.architecture, workload.seen(DATASETS[workload.dataset].info), workload.batch_size
    )
    return _START_S + job.order.steps * (_STEP_S + work / _FLOPS_PER_S)


class _Inner:
    """Shows a training as the job in hand of the whole table: no line a figure."""

    def __init__(self, display: Display) -> None:
        self._display = display

    def say(self, text: str) -> None:
        self.job(text, None)

    def overall(self, text: str, done: float, left_s: float | None) -> None:
        self.job(text if left_s is None else f"{text}, about {duration(left_s)} left", done)

    def job(self, text: str, done: float | None) -> None:
        self._display.job(text, done)


def read_trainings(folder: Path) -> tuple[list[Training], list[str]]:
    """Return the trainings below a folder, one a framework and seed, and what is wrong with others there."""
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
            less, one = sorted((one, other), key=lambda each: each.steps)
            faults.append(f"{less.folder}: left out, as {one.folder} trained the same from the same seed")
        found[key] = one
    return list(found.values()), faults


def lines(
    recipes: Sequence[Recipe], backends: Sequence[str], trainings: Sequence[Training]
) -> Iterator[Line]:
    """Yield a line for every figure of the notebooks."""
    for recipe in recipes:
        for published in recipe.published:
            answers = (_answer(recipe, published, backend, trainings) for backend in backends)
            yield Line(recipe=recipe, published=published, answers=tuple(answers))


def of_recipe(trainings: Sequence[Training], recipe: Recipe, backends: Collection[str]) -> list[Training]:
    """Return the trainings of a recipe as it stands, on its whole data set, in these frameworks."""
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
    values = [_value(figure, published.measure) for figure in at]
    ours = band(values, drawn_from=published.drawn_from)
    return Answer(
        backend=backend, band=ours, verdict=judge(ours, published.low, published.high), reached=reached
    )


def _value(figure: Figure, measure: Measure) -> float:
    value: float = getattr(figure, FIELDS[measure])
    return value
