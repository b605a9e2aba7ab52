"""What a worker does to follow a recipe, in this process: figures, checkpoints, and continuing from one."""

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import fakes
import msgspec
import numpy as np
import pytest
from following import assert_same_params, cell_of, small, untimed
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.base import Backend
from backends.catalog import NUMPY
from backends.numpy_backend import NumpyBackend
from bench.datasets import cache as datasets
from bench.recipes.catalog import RECIPES, Recipe, figure_steps
from bench.recipes.checkpoints import (
    checkpoint_files,
    load_checkpoint,
    load_model,
    model_name,
    newest_checkpoint,
)
from bench.recipes.metrics import LATEST, Figure
from bench.recipes.protocol import CheckpointSaved, EvaluateTask, FigureMade, Scored, Trained, TrainTask
from bench.recipes.records import distribution
from bench.recipes.worker import STRETCH, evaluate_model, follow, latest_images, stops
from bench.worker.protocol import DataSource, Event
from bench.worker.timed_loop import Batches, Trainer, evaluate, training_data
from bench.workloads.augmentation import central_crop
from bench.workloads.parameters import Params, initial_params
from bench.workloads.specs import Architecture, ConvBlock, OptimizerSpec

LIMIT = 60
SEED = 3
OPTIMIZERS = (
    OptimizerSpec(name="momentum", learning_rate=0.05),
    OptimizerSpec(name="adam", learning_rate=0.01, epsilon_hat=True),
    OptimizerSpec(name="rmsprop", learning_rate=0.01, initial_square=1.0),
)


def softmax(optimizer: OptimizerSpec = OPTIMIZERS[0], **changes: Any) -> Recipe:
    """Return a recipe of 60 images in batches of 10."""
    recipe = small(**changes)
    workload = msgspec.structs.replace(recipe.workload, optimizer=optimizer, batch_size=10)
    return msgspec.structs.replace(recipe, workload=workload)


def convolutional(**changes: Any) -> Recipe:
    """Return a recipe that augments and normalises, of a small network and in batches of two."""
    recipe = small("notebook-cifar-cnn", **changes)
    network = Architecture(convs=(ConvBlock(filters=4, normalise=True), ConvBlock(filters=4)), hidden=(8,))
    workload = msgspec.structs.replace(recipe.workload, architecture=network, batch_size=2)
    return msgspec.structs.replace(recipe, workload=workload)


def task_of(recipe: Recipe, folder: Path, **changes: Any) -> TrainTask:
    fields: dict[str, Any] = {
        "backend": NUMPY, "workload": recipe.workload, "seed": SEED, "steps": recipe.steps,
        "data": DataSource(name=recipe.workload.dataset, cache=None, limit=LIMIT), "cell": cell_of(recipe),
        "figures": figure_steps(recipe, recipe.steps), "checkpoint_every": recipe.checkpoint_every,
        "folder": str(folder), "checkpoint": None,
    }  # fmt: skip
    return TrainTask(**fields | changes)


def followed(task: TrainTask, backend: type[Backend] = NumpyBackend) -> list[Event]:
    events: list[Event] = []
    follow(task, backend, events.append)
    return events


def figures_of(events: list[Event]) -> list[Figure]:
    return [event.figure for event in events if isinstance(event, FigureMade)]


def losses_of(figures: list[Figure]) -> np.ndarray[Any, Any]:
    return np.frombuffer(b"".join(figure.losses for figure in figures), "<f4")


class Whole(NamedTuple):
    """The softmax recipe, followed without a break."""

    recipe: Recipe
    folder: Path
    events: list[Event]
    figures: list[Figure]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    recipe, folder = softmax(), tmp_path_factory.mktemp("whole")
    events = followed(task_of(recipe, folder))
    return Whole(recipe, folder, events, figures_of(events))


class ByHand(NamedTuple):
    """The softmax recipe, trained step by step and without pause: after every step, from 0."""

    losses: np.ndarray[Any, Any]
    params: list[Params]
    scores: list[tuple[float, float]]
    """Loss and accuracy on the test images."""
    latest: tuple[float, float]
    """Loss and accuracy on the images of the last batches, at the end."""


@pytest.fixture(scope="module")
def by_hand() -> ByHand:
    recipe = softmax()
    sample = datasets.load_sample(recipe.workload.dataset, LIMIT)
    data = training_data(recipe.workload, sample)
    backend = NumpyBackend(recipe.workload, data, mode="float64", device="cpu", precision="fp32")
    backend.load_params(
        initial_params(
            recipe.workload.architecture,
            recipe.workload.seen(sample.info),
            seed=SEED,
            initialiser=recipe.workload.initialiser,
        )
    )
    trainer = Trainer(backend, batches := Batches(recipe.workload, data, seed=SEED))
    losses, params, scores = [], [], []
    for step in range(recipe.steps + 1):
        if step:
            trainer.train(1)
            losses.append(trainer.losses)
        params.append(backend.export_params())
        scores.append(evaluate(backend, sample.test_images, sample.test_labels))
    order = batches.order(recipe.steps - LATEST, LATEST).ravel()
    latest = evaluate(backend, data.images[order], data.labels[order])
    return ByHand(np.concatenate(losses), params, scores, latest)


# Figures


def test_figures_are_of_the_network_as_it_stands_after_their_step(whole: Whole, by_hand: ByHand) -> None:
    assert [figure.step for figure in whole.figures] == [0, 5, 10, 15, 20, 24]
    for before, figure in zip((0, 0, 5, 10, 15, 20), whole.figures, strict=True):
        assert (figure.test_loss, figure.test_accuracy) == by_hand.scores[figure.step]
        losses = np.frombuffer(figure.losses, "<f4")
        np.testing.assert_array_equal(losses, by_hand.losses[before : figure.step])
        params = by_hand.params[figure.step]
        assert figure.distributions == {name: distribution(value) for name, value in params.items()}
    last = whole.figures[-1]
    assert (last.train_loss, last.train_accuracy) == pytest.approx(by_hand.latest, rel=1e-12)


@pytest.mark.parametrize(
    ("changes", "due"),
    [
        ({"first": 1, "checkpoint_every": 3}, [1, 6, 11, 16, 21, 24]),
        ({"checkpoint_every": 5}, [0, 5, 10, 15, 20, 24]),
        ({"checkpoint_every": 100}, [0, 5, 10, 15, 20, 24]),
    ],
)
def test_the_losses_of_a_figure_are_those_since_the_one_before_wherever_a_checkpoint_lies(
    changes: dict[str, int], due: list[int], by_hand: ByHand, tmp_path: Path
) -> None:
    figures = figures_of(followed(task_of(softmax(**changes), tmp_path)))
    assert [figure.step for figure in figures] == due
    assert [len(figure.losses) // 4 for figure in figures] == np.diff([0, *due]).tolist()
    np.testing.assert_array_equal(losses_of(figures), by_hand.losses)


def test_training_time_is_told_without_the_time_of_evaluation(tmp_path: Path) -> None:
    class SlowToAnswer(NumpyBackend):
        def predict(self, images: Any) -> Any:
            fakes.wait_until(fakes.time.perf_counter() + 0.1)
            return super().predict(images)

    last = figures_of(followed(task_of(softmax(), tmp_path), SlowToAnswer))[-1]
    assert 0 < last.train_s < 1.0  # the twelve evaluations took 1.2 s


def test_another_seed_is_another_training(whole: Whole, tmp_path: Path) -> None:
    other = figures_of(followed(task_of(whole.recipe, tmp_path, seed=SEED + 1)))
    assert not np.array_equal(losses_of(whole.figures), losses_of(other))


# Progress, checkpoints and the model


class Counts(NumpyBackend):
    """Remembers how many steps each call was of."""

    calls: list[int]

    def train_steps(self, order: Any, draws: Any = None) -> Any:
        type(self).calls.append(len(order))
        return super().train_steps(order, draws)


def test_progress_is_told_once_in_a_stretch_at_least(tmp_path: Path) -> None:
    Counts.calls = []
    recipe = softmax(steps=2 * STRETCH + 20, first=7, every=1000, checkpoint_every=1000)
    events = followed(task_of(recipe, tmp_path), Counts)
    told = [event.step for event in events if isinstance(event, Trained)]
    assert told == [7, STRETCH, 2 * STRETCH, 2 * STRETCH + 20]
    assert Counts.calls == [7, STRETCH - 7, STRETCH, 20]


@given(
    steps=st.integers(1, 400), first=st.integers(0, 1), every=st.integers(1, 400), saved=st.integers(1, 400)
)
def test_training_pauses_wherever_something_is_due(steps: int, first: int, every: int, saved: int) -> None:
    recipe = softmax(steps=steps, first=first, every=every, checkpoint_every=saved)
    found = stops(task_of(recipe, Path("nowhere")))
    assert found == sorted(set(found))
    assert found[0] == 0
    assert found[-1] == steps
    assert max(np.diff([0, *found])) <= STRETCH
    assert set(figure_steps(recipe, steps)) | set(range(0, steps, saved)) <= set(found)


def test_checkpoints_are_made_at_their_steps_and_at_the_end_and_after_the_figure(tmp_path: Path) -> None:
    """Else a crash between them would leave a checkpoint behind which the figure is never made."""
    events = followed(task_of(softmax(steps=21, every=8), tmp_path))
    made = [
        (event.step if isinstance(event, CheckpointSaved) else event.figure.step, type(event))
        for event in events
        if isinstance(event, CheckpointSaved | FigureMade)
    ]
    both = (FigureMade, CheckpointSaved)
    assert made == [(0, FigureMade), *((step, kind) for step in (8, 16, 21) for kind in both)]
    assert [path.stem for path in checkpoint_files(tmp_path)] == ["step-21", "step-16"]


def test_a_checkpoint_holds_the_losses_since_the_last_figure(whole: Whole, by_hand: ByHand) -> None:
    found = {
        step: load_checkpoint(whole.folder / f"checkpoints/step-{step}.safetensors") for step in (16, 24)
    }
    np.testing.assert_array_equal(found[16].losses, by_hand.losses[15:16])
    assert len(found[24].losses) == 0, "the figure at 24 has them"


def test_the_model_is_the_trained_network(whole: Whole, by_hand: ByHand) -> None:
    model = load_model(whole.folder / "notebook-softmax-plot-step-24.safetensors")
    assert_same_params(model.params, by_hand.params[-1])
    about = model.about
    assert (about.step, about.workload, about.cell) == (24, whole.recipe.workload, cell_of(whole.recipe))
    assert about.seed == SEED


# Killed, and going on


class KilledError(Exception):
    """Stands for a signal that nobody can catch."""


def until(task: TrainTask, last: int, backend: type[Backend]) -> list[Event]:
    """Return the events of a worker that is killed when it has sent so many."""
    events: list[Event] = []

    def emit(event: Event) -> None:
        events.append(event)
        if len(events) == last:
            raise KilledError

    with pytest.raises(KilledError):
        follow(task, backend, emit)
    return events


def assert_resumed_is_whole(
    recipe: Recipe, place: int, backend: type[Backend] = NumpyBackend, kind: Any = object
) -> None:
    """Check that a training that is killed after an event, and goes on, comes to what a whole one does.

    `place` tells which event of that kind it is, counted from 0 and round again.
    """
    with tempfile.TemporaryDirectory(prefix="samework-test-") as scratch:
        whole, halves = Path(scratch, "whole"), Path(scratch, "halves")
        events = followed(task_of(recipe, whole), backend)
        expected = figures_of(events)
        numbers = [number for number, event in enumerate(events, start=1) if isinstance(event, kind)]
        before = figures_of(until(task_of(recipe, halves), numbers[place % len(numbers)], backend))
        begin, faults = newest_checkpoint(halves, recipe.steps + 1)
        assert faults == ()
        step = begin.about.step if begin else -1
        task = task_of(recipe, halves, checkpoint=str(begin.path) if begin else None)
        after = figures_of(followed(task, backend))
        assert all(figure.step > step for figure in after)
        found = [figure for figure in before if figure.step <= step] + after
        assert untimed(found) == untimed(expected)
        np.testing.assert_array_equal(losses_of(found), losses_of(expected))
        times = [figure.train_s for figure in found]
        assert times == sorted(times)
        name = model_name(recipe.name, recipe.steps)
        assert_same_params(load_model(halves / name).params, load_model(whole / name).params)
        states = [load_checkpoint(checkpoint_files(folder)[0]).state for folder in (halves, whole)]
        assert_same_params(*states)


@settings(max_examples=20)
@given(
    optimizer=st.sampled_from(OPTIMIZERS), steps=st.integers(1, 20), first=st.integers(0, 1),
    every=st.integers(1, 7), saved=st.integers(1, 7), place=st.integers(0, 50),
)  # fmt: skip
def test_a_training_killed_at_any_time_goes_on_to_the_same_to_the_last_bit(
    *, optimizer: OptimizerSpec, steps: int, first: int, every: int, saved: int, place: int
) -> None:
    recipe = softmax(optimizer, steps=steps, first=first, every=every, checkpoint_every=saved)
    assert_resumed_is_whole(recipe, place)


@pytest.mark.parametrize("place", [0, 2])
def test_a_training_killed_right_after_a_checkpoint_goes_on_to_the_same(place: int) -> None:
    assert_resumed_is_whole(softmax(), place, kind=CheckpointSaved)


def test_a_training_that_augments_and_normalises_goes_on_to_the_same() -> None:
    recipe = convolutional(steps=5, every=3, checkpoint_every=2)
    assert_resumed_is_whole(recipe, 0, kind=CheckpointSaved)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda spec: spec.name)
def test_a_backend_that_forgets_its_optimizer_would_be_seen(optimizer: OptimizerSpec) -> None:
    with pytest.raises(AssertionError):
        assert_resumed_is_whole(softmax(optimizer), 0, fakes.Forgetful, CheckpointSaved)


def test_time_of_training_goes_on_from_the_checkpoint(whole: Whole, tmp_path: Path) -> None:
    path = whole.folder / "checkpoints/step-16.safetensors"
    events = followed(task_of(whole.recipe, tmp_path, checkpoint=str(path)))
    assert figures_of(events)[0].train_s > load_checkpoint(path).about.train_s > 0


# The latest images


@pytest.mark.parametrize(
    ("recipe", "step", "first", "count"),
    [
        (softmax(), 0, 0, 1),
        (softmax(), 1, 0, 1),
        (softmax(), 10, 0, 10),
        (softmax(), 11, 1, 10),
        (convolutional(), 3, 0, 3),
        (convolutional(), 14, 4, 10),
    ],
    ids=lambda value: value.name if isinstance(value, Recipe) else None,
)
def test_the_latest_images_are_of_the_last_batches_cropped_but_not_distorted(
    recipe: Recipe, step: int, first: int, count: int
) -> None:
    data = training_data(recipe.workload, datasets.load_sample(recipe.workload.dataset, LIMIT))
    batches = Batches(recipe.workload, data, seed=SEED)
    images, labels = latest_images(recipe.workload, data, batches, step)
    order = np.concatenate([batches.order(number, 1)[0] for number in range(first, first + count)])
    expected = data.images[order]
    if recipe.workload.augmentation is not None:
        expected = expected[:, 4:28, 4:28]
    np.testing.assert_array_equal(images, expected, strict=True)
    np.testing.assert_array_equal(labels, data.labels[order])


# Evaluation of a model


@pytest.mark.parametrize("recipe", [softmax(), convolutional(steps=1)], ids=lambda recipe: recipe.name)
def test_a_model_is_evaluated_by_its_own_workload_on_the_test_images_as_the_network_sees_them(
    recipe: Recipe, tmp_path: Path
) -> None:
    """A recipe may change. The file keeps the recipe that was trained."""
    built: list[Any] = []

    class Noting(NumpyBackend):
        def __init__(self, workload: Any, *arguments: Any, **options: Any) -> None:
            built.append(workload)
            super().__init__(workload, *arguments, **options)

    figures = figures_of(followed(task_of(recipe, tmp_path)))
    path, logits = tmp_path / model_name(recipe.name, recipe.steps), tmp_path / "logits.npy"
    source = DataSource(name=recipe.workload.dataset, cache=None, limit=LIMIT)
    task = EvaluateTask(backend=NUMPY, data=source, cell=cell_of(recipe), model=str(path), logits=str(logits))
    events: list[Event] = []
    evaluate_model(task, Noting, events.append)
    assert built == [recipe.workload]
    assert built != [RECIPES[recipe.name].workload]
    (scored,) = events
    assert isinstance(scored, Scored)
    # Parameters leave the reference as float32, so the model is not the network to the last bit.
    assert scored.test_loss == pytest.approx(figures[-1].test_loss, rel=1e-5)
    assert scored.test_accuracy == figures[-1].test_accuracy
    sample = datasets.load_sample(recipe.workload.dataset, LIMIT)
    data = training_data(recipe.workload, sample)
    backend = NumpyBackend(recipe.workload, data, mode="float64", device="cpu", precision="fp32")
    backend.load_params(load_model(path).params)
    images = sample.test_images
    if recipe.workload.augmentation is not None:
        images = central_crop(images, recipe.workload.augmentation.crop)
    np.testing.assert_array_equal(np.load(logits), backend.predict(images), strict=True)
