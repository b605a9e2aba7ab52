"""All recipes in all frameworks: what is trained in which order, and what our figures say to a notebook."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fakes
import pytest
from followed import due_figures, make_figure, make_figures, make_header, write_training
from following import place, small
from scipy.stats import t
from synthetic import make_workload

from backends.catalog import NUMPY
from bench.recipes import notebooks
from bench.recipes.catalog import RECIPES, Measure, Recipe
from bench.recipes.metrics import Figure
from bench.recipes.notebooks import Answer, Job, lines, of_recipe, plan, read_trainings, run
from bench.recipes.records import FIGURES, HEADER, Training, read_training
from bench.recipes.train import TrainingFailedError, folder_name

QUICK_FIRST = (
    "notebook-one-layer", "notebook-softmax-save", "notebook-softmax-plot", "notebook-affine",
    "notebook-convnet", "notebook-cifar-cnn",
)  # fmt: skip
ENDS = fakes.info("ends", "fakes:EndsAt")
FAILS = fakes.info("fails", "fakes:LosesNumbers")


@pytest.fixture(autouse=True)
def _workers_find_the_fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", fakes.python_path())


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
    ], "and no framework is always the first that a budget leaves, or the last"


def test_every_recipe_has_its_own_number_of_seeds_where_none_is_told() -> None:
    jobs = planned(list(RECIPES.values()))
    for name, recipe in RECIPES.items():
        seeds = [job.order.seed for job in jobs if job.order.recipe is recipe]
        assert seeds == [seed for seed in range(recipe.seeds) for _ in ("numpy", "ends")], name


def test_a_training_is_the_whole_recipe_in_a_folder_of_its_own() -> None:
    jobs = planned(list(RECIPES.values()))
    assert len({job.order.folder for job in jobs}) == len(jobs)
    for job in jobs:
        order = job.order
        assert order.folder == Path("table") / folder_name(order.recipe.name, order.cell.backend, order.seed)
        assert order.steps == order.recipe.steps
        assert (order.cell.workload, order.source.name) == (order.recipe.name, order.recipe.workload.dataset)
        assert order.cell in job.place.cells
        assert not order.anew
    assert folder_name("notebook-affine", "torch", 2) == "notebook-affine-torch-seed-2"


# Carrying it out


class Trainer:
    """Stands for `train`: takes so long by a clock of its own, and fails in the folders that are named."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *fails: str, seconds: float = 10.0) -> None:
        self.now, self._seconds, self._fails = 1000.0, seconds, fails
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
        self.now += self._seconds
        if order.folder.name in self._fails:
            raise TrainingFailedError("crashed: by a signal")


class Jobs(fakes.Screen):
    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[tuple[str, float | None]] = []

    def job(self, text: str, done: float | None) -> None:
        self.jobs.append((text, done))


def test_every_training_is_carried_out_in_the_order_of_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, jobs = Trainer(monkeypatch), planned(list(RECIPES.values()), seeds=1)
    assert run(jobs, fakes.Screen(), budget_s=None) == []
    assert trainer.done == [job.order.folder.name for job in jobs]
    assert set(trainer.limits) == {None}


def test_a_training_that_fails_does_not_keep_the_others_from_a_try(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(monkeypatch, "notebook-softmax-plot-numpy-seed-0")
    faults = run(planned([small()], seeds=2), fakes.Screen(), budget_s=None)
    assert faults == ["notebook-softmax-plot-numpy-seed-0: crashed: by a signal"]
    assert len(trainer.done) == 4


def test_what_a_budget_leaves_out_is_named_and_the_last_training_gets_what_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer = Trainer(monkeypatch, seconds=10.0)
    faults = run(planned([small()], seeds=2), fakes.Screen(), budget_s=15.0)
    assert trainer.limits == [15.0, 5.0]
    assert faults == [
        f"notebook-softmax-plot-{name}-seed-1: the budget was spent" for name in ("ends", "numpy")
    ]


def test_without_any_budget_nothing_is_trained_and_all_of_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer, jobs = Trainer(monkeypatch), planned([small()], seeds=3)
    faults = run(jobs, fakes.Screen(), budget_s=0.0)
    assert trainer.done == []
    assert faults == [f"{job.order.folder.name}: the budget was spent" for job in jobs]


def test_the_display_shows_the_table_and_the_training_in_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    Trainer(monkeypatch, seconds=10.0)
    screen, jobs = Jobs(), planned(list(RECIPES.values()), seeds=1)
    run(jobs, screen, budget_s=None)
    assert screen.lines == [], "a line a figure would be thousands"
    assert set(screen.jobs) == {("a figure", None), ("step 1 of 2, about 1 min 30 s left", 0.5)}
    texts, shares, left = zip(*screen.overalls, strict=True)
    assert texts == (*(job.order.folder.name for job in jobs), "all trained")
    assert list(shares) == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert (left[0], left[-1]) == (None, None)
    assert left[1] == pytest.approx(10.0 / shares[1] * (1 - shares[1]))
    assert shares[-2] < 0.7, "the convolutional trainings are most of the work"


def finished_before(job: Job) -> None:
    """Leave a folder as a training of that job does that came to its end."""
    header = make_header(job.order.recipe, seed=job.order.seed, sample=False)
    write_training(job.order.folder, header, make_figures([0, job.order.steps]))


def test_what_is_trained_already_takes_no_part_of_the_time_that_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Trainer(monkeypatch, seconds=10.0)
    screen, jobs = fakes.Screen(), planned([small()], tmp_path, seeds=2)
    for job in jobs[:2]:
        finished_before(job)
    run(jobs, screen, budget_s=None)
    assert [done for _, done, _ in screen.overalls] == [0.0, 0.5, 1.0]


def test_what_is_trained_already_is_not_said_to_be_left_out_by_the_budget(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Trainer(monkeypatch)
    jobs = planned([small()], tmp_path, seeds=2)
    finished_before(jobs[3])
    faults = run(jobs, fakes.Screen(), budget_s=0.0)
    assert faults == [f"{job.order.folder.name}: the budget was spent" for job in jobs[:3]]


def test_a_table_that_is_all_trained_already_ends_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Trainer(monkeypatch)
    screen, jobs = fakes.Screen(), planned([small()], tmp_path, seeds=1)
    for job in jobs:
        finished_before(job)
    assert run(jobs, screen, budget_s=None) == []
    assert screen.overalls[-1] == ("all trained", 1.0, None)


def test_a_damaged_training_is_named_and_the_next_has_its_try(tmp_path: Path) -> None:
    jobs = planned([small()], tmp_path, seeds=1)
    jobs[0].order.folder.mkdir()
    (jobs[0].order.folder / HEADER).write_text("{")
    (fault,) = run(jobs, fakes.Screen(), budget_s=None)
    assert fault.startswith(f"notebook-softmax-plot-numpy-seed-0: cannot read {jobs[0].order.folder}")
    assert read_training(jobs[1].order.folder).finished


def test_real_trainings_are_finished_resumed_and_not_done_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small()
    where = {recipe.name: place(recipe, FAILS, ENDS)}
    jobs = plan([recipe], where, tmp_path, 1)
    (fault,) = run(jobs, fakes.Screen(), budget_s=None)
    assert "fails-seed-0: " in fault
    assert "nan_loss" in fault
    folder = tmp_path / "notebook-softmax-plot-ends-seed-0"
    first = read_training(folder)
    assert first.finished
    run(jobs[1:], fakes.Screen(), budget_s=None)
    assert read_training(folder) == first, "what is finished is left as it is"
    found, faults = read_trainings(tmp_path)
    assert faults == []
    assert [one.folder.name for one in found] == [job.order.folder.name for job in sorted_jobs(jobs)]


def sorted_jobs(jobs: list[Job]) -> list[Job]:
    return sorted(jobs, key=lambda job: job.order.folder.name)


def test_a_folder_that_holds_another_training_is_named_and_left_and_the_next_has_its_try(
    tmp_path: Path,
) -> None:
    jobs = planned([small()], tmp_path, seeds=1)
    other = write_training(jobs[0].order.folder, make_header("notebook-softmax-plot", seed=0))
    (fault,) = run(jobs, fakes.Screen(), budget_s=None)
    assert fault.startswith("notebook-softmax-plot-numpy-seed-0: ")
    assert "holds another training" in fault
    assert read_training(jobs[0].order.folder) == other
    assert read_training(jobs[1].order.folder).finished


# Reading


def test_trainings_are_read_and_one_that_cannot_be_is_named(tmp_path: Path) -> None:
    assert read_trainings(tmp_path / "none") == ([], [])
    for seed in (1, 0):
        write_training(tmp_path / f"b-{seed}", make_header(seed=seed), make_figures([1, 101]))
    write_training(tmp_path / "a", make_header(seed=9))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / HEADER).write_text("{")
    (tmp_path / "something else").mkdir()
    found, (fault,) = read_trainings(tmp_path)
    assert [one.header.seed for one in found] == [9, 0, 1]
    assert f"cannot read {tmp_path / 'broken' / HEADER}" in fault
    shutil.rmtree(tmp_path / "broken")
    assert read_trainings(tmp_path)[1] == []


def test_the_same_training_counts_once_and_it_is_the_longer(tmp_path: Path) -> None:
    for folder, steps in (("a", [1, 101]), ("b", [1, 101, 201]), ("c", [1])):
        write_training(tmp_path / folder, make_header(seed=4), make_figures(steps))
    found, faults = read_trainings(tmp_path)
    assert [one.folder.name for one in found] == ["b"]
    assert [fault.partition(": left out")[0] for fault in faults] == [
        str(tmp_path / name) for name in ("a", "c")
    ]


def test_a_figure_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    one = write_training(tmp_path / "a", make_header(), make_figures([1, 101]))
    path = one.folder / FIGURES
    path.write_bytes(path.read_bytes()[:-20])
    (found,), (fault,) = read_trainings(tmp_path)
    assert len(found.figures) == 1
    assert fault.startswith(f"{one.folder}: left out, as it cannot be read: {FIGURES} line 2: ")


# What our figures say to the notebooks'

ONE_LAYER = RECIPES["notebook-one-layer"]


def training(
    *figures: Figure,
    recipe: str = "notebook-one-layer",
    backend: str = "torch",
    seed: int = 0,
    **changes: Any,
) -> Training:
    header = make_header(recipe, backend, seed, **{"sample": False, **changes})
    return Training(folder=Path(f"{backend}-{seed}"), header=header, figures=figures)


def answers(
    trainings: Sequence[Training], text: str, *, recipe: str = "notebook-one-layer", backend: str = "torch"
) -> Answer:
    (answer,) = next(
        line.answers for line in lines([RECIPES[recipe]], [backend], trainings) if line.published.text == text
    )
    return answer


def test_every_figure_of_the_notebooks_has_a_line_and_every_framework_an_answer() -> None:
    found = list(lines(list(RECIPES.values()), ["torch", "jax"], []))
    assert [(line.recipe, line.published) for line in found] == [
        (recipe, published) for recipe in RECIPES.values() for published in recipe.published
    ]
    for line in found:
        assert line.answers == tuple(
            Answer(backend=name, band=None, verdict=None, reached=0) for name in ("torch", "jax")
        )


def test_an_answer_is_the_mean_over_seeds_its_spread_and_the_band_of_one_more() -> None:
    values = [0.90, 0.92, 0.94]
    found = [training(make_figure(901, value), seed=seed) for seed, value in enumerate(values)]
    answer = answers(found, "0.9163 at step 900")
    assert answer.band is not None
    assert answer.band.n == 3
    assert answer.band.mean == pytest.approx(0.92)
    assert answer.band.sd == pytest.approx(0.02)
    half = float(t.ppf(0.975, 2)) * 0.02 * math.sqrt(1 + 1 / 3)
    assert (answer.band.low, answer.band.high) == pytest.approx((0.92 - half, 0.92 + half))
    assert answer.verdict == "inside"


def test_a_figure_far_from_all_seeds_lies_outside() -> None:
    found = [training(make_figure(901, value), seed=seed) for seed, value in enumerate((0.90, 0.901, 0.902))]
    assert answers(found, "0.9163 at step 900").verdict == "outside"


def test_one_seed_has_no_band_and_judges_no_value_but_a_range() -> None:
    assert answers([training(make_figure(901, 0.9163))], "0.9163 at step 900").verdict == "no band"
    said = '"between 91 and 93 %"'
    for accuracy, verdict in ((0.92, "inside"), (0.94, "outside")):
        found = [training(make_figure(30_001, accuracy), recipe="notebook-affine")]
        assert answers(found, said, recipe="notebook-affine").verdict == verdict


def test_a_range_of_a_text_is_held_to_the_mean_and_not_to_the_band() -> None:
    """The less is known the wider is a band, and would the sooner touch the range."""
    found = [
        training(make_figure(30_001, accuracy), recipe="notebook-affine", seed=seed)
        for seed, accuracy in enumerate((0.80, 0.90))
    ]
    answer = answers(found, '"between 91 and 93 %"', recipe="notebook-affine")
    assert answer.band is not None
    assert answer.band.high is not None
    assert answer.band.high > 0.93
    assert answer.verdict == "outside"


@pytest.mark.parametrize(
    ("recipe", "measure", "step", "field"),
    [
        ("notebook-one-layer", "test loss", 901, "test_loss"),
        ("notebook-one-layer", "test accuracy", 901, "test_accuracy"),
        ("notebook-cifar-cnn", "train accuracy", 11_120, "train_accuracy"),
        ("notebook-cifar-cnn", "test accuracy", 11_120, "test_accuracy"),
    ],
)
def test_a_figure_is_answered_by_the_same_measure(
    recipe: str, measure: Measure, step: int, field: str
) -> None:
    figure = make_figure(step, 0.7)
    assert len({figure.test_loss, figure.test_accuracy, figure.train_accuracy, figure.train_loss}) == 4
    (found,) = [
        line.answers[0].band
        for line in lines([RECIPES[recipe]], ["torch"], [training(figure, recipe=recipe)])
        if (line.published.measure, line.published.step) == (measure, step)
    ]
    assert found is not None
    assert found.mean == getattr(figure, field)


def test_a_share_of_one_batch_scatters_for_that_alone_even_with_one_seed() -> None:
    found = [training(make_figure(11_120, 0.4), recipe="notebook-cifar-cnn")]  # 0.7 of the training images
    (text,) = (one.text for one in RECIPES["notebook-cifar-cnn"].published if one.drawn_from == 100)
    answer = answers(found, text, recipe="notebook-cifar-cnn")
    assert answer.band is not None
    half = 1.959964 * math.sqrt(0.7 * 0.3 / 100)
    assert (answer.band.low, answer.band.high) == pytest.approx((0.7 - half, 0.7 + half))
    assert answer.verdict == "inside"


def test_a_training_that_has_not_come_so_far_says_how_far_it_is() -> None:
    found = [
        training(*make_figures([1, 101, 201])),
        training(*make_figures([1, 101]), seed=1),
        training(*make_figures([1, 901]), backend="jax"),
    ]
    assert answers(found, "0.9163 at step 900") == Answer(
        backend="torch", band=None, verdict=None, reached=201
    )
    there = answers(found, "0.8912 at step 100")
    assert there.band is not None
    assert there.band.n == 2


def test_seeds_that_have_come_so_far_answer_for_those_that_have_not() -> None:
    found = [training(*make_figures([1, 101, 901])), training(*make_figures([1, 101]), seed=1)]
    answer = answers(found, "0.9163 at step 900")
    assert answer.band is not None
    assert (answer.band.n, answer.reached) == (1, 901)


def test_only_trainings_of_the_recipe_as_it_stands_on_all_its_data_count() -> None:
    figure = make_figure(901, 0.9)
    counts = training(figure)
    others = [
        training(figure, sample=True),
        training(figure, limit=1000),
        training(figure, workload=make_workload("notebook-one-layer")),
        training(figure, recipe="notebook-softmax-save"),
        training(),
    ]
    assert of_recipe([*others, counts], ONE_LAYER, ["torch", "jax"]) == [counts]
    assert answers(others, "0.9163 at step 900") == Answer(
        backend="torch", band=None, verdict=None, reached=0
    )
    jax = training(figure, backend="jax")
    assert of_recipe([counts, jax], ONE_LAYER, ["torch", "jax"]) == [counts, jax]
    assert of_recipe([counts, jax], ONE_LAYER, ["jax"]) == [jax]


def test_a_whole_table_is_read_from_its_folder(tmp_path: Path) -> None:
    for seed in range(3):
        header = make_header("notebook-softmax-save", "jax", seed, sample=False)
        write_training(tmp_path / str(seed), header, due_figures(header, final=0.917 + seed / 1000))
    found, _ = read_trainings(tmp_path)
    (line,) = lines([RECIPES["notebook-softmax-save"]], ["jax"], found)
    assert line.answers[0].band is not None
    assert line.answers[0].band.mean == pytest.approx(0.918)
    assert line.answers[0].verdict == "inside"
