"""All recipes in all frameworks: what is trained in which order, and how our figures compare."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fakes
import pytest
from followed import make_figure, make_figures, make_header, write_training
from following import place, small
from scipy.stats import t
from synthetic import make_workload

from backends.catalog import NUMPY
from bench.recipes import notebooks
from bench.recipes.catalog import RECIPES, Recipe
from bench.recipes.metrics import Figure
from bench.recipes.notebooks import Answer, Job, Table, of_recipe, plan, read_trainings, run
from bench.recipes.records import FIGURES, HEADER, Training, read_training
from bench.recipes.train import TrainingFailedError, folder_name

QUICK_FIRST = (
    "notebook-one-layer", "notebook-softmax-save", "notebook-softmax-plot", "notebook-affine",
    "notebook-convnet", "notebook-cifar-cnn",
)  # fmt: skip
ENDS = fakes.info("ends", "fakes:EndsAt")
FAILS = fakes.info("fails", "fakes:LosesNumbers")


# The plan


def planned(recipes: Sequence[Recipe], folder: Path = Path("table"), seeds: int | None = None) -> list[Job]:
    return plan(recipes, {recipe.name: place(recipe, NUMPY, ENDS) for recipe in recipes}, folder, seeds)


def test_quick_recipes_come_first_and_every_seed_is_trained_in_all_frameworks_before_the_next() -> None:
    jobs = planned(list(RECIPES.values()), seeds=2)
    found = [(job.order.recipe.name, job.order.seed, job.order.cell.backend) for job in jobs]
    assert found == [
        (name, seed, backend)
        for name in QUICK_FIRST
        for seed, backends in enumerate((("numpy", "ends"), ("ends", "numpy")))
        for backend in backends
    ], "no framework is always the first or last one that a budget leaves"


def test_every_recipe_has_its_own_number_of_seeds_and_every_training_run_a_folder_of_its_own() -> None:
    jobs = planned(list(RECIPES.values()))
    for name, recipe in RECIPES.items():
        seeds = [job.order.seed for job in jobs if job.order.recipe is recipe]
        assert seeds == [seed for seed in range(recipe.seeds) for _ in ("numpy", "ends")], name
    assert len({job.order.folder for job in jobs}) == len(jobs)
    for job in jobs:
        order = job.order
        assert order.folder == Path("table") / folder_name(order.recipe.name, order.cell.backend, order.seed)
        assert order.steps == order.recipe.steps
        assert (order.cell.workload, order.source.name) == (order.recipe.name, order.recipe.workload.dataset)
        assert order.cell in job.place.cells
        assert not order.anew
    assert folder_name("notebook-affine", "torch", 2) == "notebook-affine-torch-seed-2"


# Training


class Trainer:
    """Stands for `train`: takes ten seconds by its own clock, and fails in the folders that are named."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *fails: str) -> None:
        self.now, self._fails = 1000.0, fails
        self.done: list[str] = []
        self.limits: list[float | None] = []
        monkeypatch.setattr(notebooks, "train", self)
        monkeypatch.setattr(notebooks.time, "monotonic", lambda: self.now)

    def __call__(self, order: Any, where: Any, display: Any, *, time_limit_s: float | None) -> None:
        self.done.append(order.folder.name)
        self.limits.append(time_limit_s)
        assert order.cell in where.cells
        display.say("a figure")
        display.overall("step 1 of 2", 0.5, 90.0)
        self.now += 10.0
        if order.folder.name in self._fails:
            raise TrainingFailedError("crashed: by a signal")


class Jobs(fakes.Screen):
    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[tuple[str, float | None]] = []

    def job(self, text: str, done: float | None) -> None:
        self.jobs.append((text, done))


def test_every_training_is_carried_out_and_the_display_shows_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer, screen, jobs = Trainer(monkeypatch), Jobs(), planned(list(RECIPES.values()), seeds=1)
    assert run(jobs, screen, budget_s=None) == []
    names = [job.order.folder.name for job in jobs]
    assert trainer.done == names
    assert set(trainer.limits) == {None}
    assert screen.lines == [], "a line for each figure would be thousands"
    assert set(screen.jobs) == {("a figure", None), ("step 1 of 2, about 1 min 30 s left", 0.5)}
    texts, shares, left = zip(*screen.overalls, strict=True)
    assert texts == (*names, "all trained")
    assert list(shares) == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert (left[0], left[-1]) == (None, None)
    assert left[1] == pytest.approx(10.0 / shares[1] * (1 - shares[1]))
    assert shares[-2] < 0.7, "the convolutional trainings are most of the work"


def test_a_training_that_fails_does_not_keep_the_others_from_a_try(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(monkeypatch, "notebook-softmax-plot-numpy-seed-0")
    faults = run(planned([small()], seeds=2), fakes.Screen(), budget_s=None)
    assert faults == ["notebook-softmax-plot-numpy-seed-0: crashed: by a signal"]
    assert len(trainer.done) == 4


@pytest.mark.parametrize(("budget_s", "limits"), [(15.0, [15.0, 5.0]), (0.0, [])])
def test_what_a_budget_leaves_out_is_named_and_the_last_training_gets_what_is_left(
    budget_s: float, limits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, jobs = Trainer(monkeypatch), planned([small()], seeds=2)
    faults = run(jobs, fakes.Screen(), budget_s=budget_s)
    assert trainer.limits == limits
    assert faults == [f"{job.order.folder.name}: the budget was spent" for job in jobs[len(limits) :]]


@pytest.mark.parametrize(("finished", "shares"), [(2, [0.0, 0.5, 1.0]), (4, [1.0])])
def test_what_is_finished_takes_no_time_and_is_not_left_out_by_a_budget(
    finished: int, shares: list[float], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Trainer(monkeypatch)
    screen, jobs = fakes.Screen(), planned([small()], tmp_path, seeds=2)
    for job in jobs[:finished]:
        header = make_header(job.order.recipe, seed=job.order.seed, sample=False)
        write_training(job.order.folder, header, make_figures([0, job.order.steps]))
    faults = run(jobs, fakes.Screen(), budget_s=0.0)
    assert faults == [f"{job.order.folder.name}: the budget was spent" for job in jobs[finished:]]
    assert run(jobs, screen, budget_s=None) == []
    assert [done for _, done, _ in screen.overalls] == shares
    assert screen.overalls[-1] == ("all trained", 1.0, None)


def test_real_trainings_that_cannot_be_done_are_named_and_the_next_has_its_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", fakes.python_path())
    recipe = small()
    jobs = plan([recipe], {recipe.name: place(recipe, NUMPY, fakes.STEADY, FAILS, ENDS)}, tmp_path, 1)
    damaged, other, fails, ends = (job.order.folder for job in jobs)
    damaged.mkdir()
    (damaged / HEADER).write_text("{")
    before = write_training(other, make_header("notebook-softmax-plot", seed=0))
    found = run(jobs, fakes.Screen(), budget_s=None)
    for fault, folder, words in zip(
        found,
        (damaged, other, fails),
        (f"cannot read {damaged}", "holds another training run", "loss not a number"),
        strict=True,
    ):
        assert fault.startswith(f"{folder.name}: ")
        assert words in fault
    assert read_training(other) == before
    first = read_training(ends)
    assert first.finished
    assert run(jobs[3:], fakes.Screen(), budget_s=None) == []
    assert read_training(ends) == first, "what is finished is left as it is"


# Reading


def test_trainings_are_read_and_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert read_trainings(tmp_path / "none") == ([], [])
    for seed in (1, 0):
        write_training(tmp_path / f"b-{seed}", make_header(seed=seed), make_figures([1, 101]))
    write_training(tmp_path / "a", make_header(seed=9))
    (tmp_path / "something else").mkdir()
    found, faults = read_trainings(tmp_path)
    assert [one.header.seed for one in found] == [9, 0, 1]
    assert faults == []
    cut = tmp_path / "b-0" / FIGURES
    cut.write_bytes(cut.read_bytes()[:-20])
    (tmp_path / "b-1" / HEADER).write_text("{")
    found, faults = read_trainings(tmp_path)
    assert [(one.header.seed, len(one.figures)) for one in found] == [(9, 0), (0, 1)]
    assert faults[0].startswith(f"{cut.parent}: left out, as it cannot be read: {FIGURES} line 2: ")
    assert f"cannot read {tmp_path / 'b-1' / HEADER}" in faults[1]


def test_the_same_training_counts_once_and_it_is_the_longer(tmp_path: Path) -> None:
    for folder, steps in (("a", [1, 101]), ("b", [1, 101, 201]), ("c", [1])):
        write_training(tmp_path / folder, make_header(seed=4), make_figures(steps))
    found, faults = read_trainings(tmp_path)
    assert [one.folder.name for one in found] == ["b"]
    assert [fault.partition(": left out")[0] for fault in faults] == [
        str(tmp_path / name) for name in ("a", "c")
    ]


# Our figures beside the notebooks'


ONE_LAYER = RECIPES["notebook-one-layer"]
AT_900 = "0.9163 at step 900"
AFFINE = '"between 91 and 93 %"'


def training(
    *figures: Figure,
    recipe: str = "notebook-one-layer",
    backend: str = "torch",
    seed: int = 0,
    **changes: Any,
) -> Training:
    header = make_header(recipe, backend, seed, **{"sample": False, **changes})
    return Training(folder=Path(f"{backend}-{seed}"), header=header, figures=figures)


def seeds(step: int, *accuracies: float, recipe: str = "notebook-one-layer") -> list[Training]:
    """Return a training run for each accuracy at a step."""
    return [
        training(make_figure(step, value), recipe=recipe, seed=seed) for seed, value in enumerate(accuracies)
    ]


def answer_to(trainings: Sequence[Training], text: str, recipe: str = "notebook-one-layer") -> Answer:
    table = Table(recipes=[RECIPES[recipe]], titles={"torch": "PyTorch"}, trainings=trainings)
    (answer,) = next(line.answers for line in table.lines if line.published.text == text)
    return answer


def test_every_figure_of_the_notebooks_has_a_line_and_every_framework_an_answer() -> None:
    titles = {"torch": "PyTorch", "jax": "JAX"}
    found = Table(recipes=list(RECIPES.values()), titles=titles, trainings=[]).lines
    assert [(line.recipe, line.published) for line in found] == [
        (recipe, published) for recipe in RECIPES.values() for published in recipe.published
    ]
    for line in found:
        assert line.answers == tuple(
            Answer(backend=name, band=None, verdict=None, reached=0) for name in titles
        )


def test_an_answer_is_the_mean_over_seeds_its_spread_and_the_band_of_one_more() -> None:
    answer = answer_to(seeds(901, 0.90, 0.92, 0.94), AT_900)
    assert answer.band is not None
    assert answer.band.n == 3
    assert answer.band.mean == pytest.approx(0.92)
    assert answer.band.sd == pytest.approx(0.02)
    half = float(t.ppf(0.975, 2)) * 0.02 * math.sqrt(1 + 1 / 3)
    assert (answer.band.low, answer.band.high) == pytest.approx((0.92 - half, 0.92 + half))
    assert answer.verdict == "inside"


@pytest.mark.parametrize(
    ("text", "recipe", "step", "accuracies", "verdict"),
    [
        (AT_900, "notebook-one-layer", 901, (0.90, 0.901, 0.902), "outside"),
        (AT_900, "notebook-one-layer", 901, (0.9163,), "no band"),
        (AFFINE, "notebook-affine", 30_001, (0.92,), "inside"),
        (AFFINE, "notebook-affine", 30_001, (0.94,), "outside"),
        (AFFINE, "notebook-affine", 30_001, (0.80, 0.90), "outside"),  # though the band meets the range
    ],
)
def test_a_value_is_judged_by_the_band_and_a_range_by_the_mean(
    text: str, recipe: str, step: int, accuracies: tuple[float, ...], verdict: str
) -> None:
    assert answer_to(seeds(step, *accuracies, recipe=recipe), text, recipe).verdict == verdict


@pytest.mark.parametrize(
    ("recipe", "text", "field"),
    [
        ("notebook-one-layer", "2979 at step 900", "test_loss"),
        ("notebook-one-layer", AT_900, "test_accuracy"),
        ("notebook-cifar-cnn", "73.0 % of one training batch at step 11,120", "train_accuracy"),
    ],
)
def test_a_figure_is_answered_by_the_same_measure(recipe: str, text: str, field: str) -> None:
    (step,) = (one.step for one in RECIPES[recipe].published if one.text == text)
    figure = make_figure(step, 0.7)
    assert len({figure.test_loss, figure.test_accuracy, figure.train_accuracy, figure.train_loss}) == 4
    answer = answer_to([training(figure, recipe=recipe)], text, recipe)
    assert answer.band is not None
    assert answer.band.mean == getattr(figure, field)


def test_a_share_of_one_batch_scatters_for_that_alone_even_with_one_seed() -> None:
    (text,) = (one.text for one in RECIPES["notebook-cifar-cnn"].published if one.drawn_from == 100)
    # A test accuracy of 0.4 comes with 0.7 of the training images.
    answer = answer_to(seeds(11_120, 0.4, recipe="notebook-cifar-cnn"), text, "notebook-cifar-cnn")
    assert answer.band is not None
    half = 1.959964 * math.sqrt(0.7 * 0.3 / 100)
    assert (answer.band.low, answer.band.high) == pytest.approx((0.7 - half, 0.7 + half))
    assert answer.verdict == "inside"


def test_seeds_that_have_reached_the_step_answer_and_else_the_highest_step_is_named() -> None:
    found = [
        training(*make_figures([1, 101, 201])),
        training(*make_figures([1, 101]), seed=1),
        training(*make_figures([1, 901]), backend="jax"),
    ]
    assert answer_to(found, AT_900) == Answer(backend="torch", band=None, verdict=None, reached=201)
    for trainings, text, n, reached in (
        (found, "0.8912 at step 100", 2, 201),
        ([*found, training(*make_figures([1, 101, 901]), seed=2)], AT_900, 1, 901),
    ):
        answer = answer_to(trainings, text)
        assert answer.band is not None
        assert (answer.band.n, answer.reached) == (n, reached)


def test_only_trainings_of_the_recipe_as_it_stands_on_all_its_data_count() -> None:
    figure = make_figure(901, 0.9)
    counts, jax = training(figure), training(figure, backend="jax")
    others = [
        training(figure, sample=True),
        training(figure, limit=1000),
        training(figure, workload=make_workload("notebook-one-layer")),
        training(figure, recipe="notebook-softmax-save"),
        training(),
    ]
    assert of_recipe([*others, counts, jax], ONE_LAYER, ["torch", "jax"]) == [counts, jax]
    assert of_recipe([counts, jax], ONE_LAYER, ["jax"]) == [jax]
    assert answer_to(others, AT_900) == Answer(backend="torch", band=None, verdict=None, reached=0)
