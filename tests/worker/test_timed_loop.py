"""What every training of a worker shares: its data, its batches, its steps under a clock, its evaluation."""

from typing import Any

import fakes
import msgspec
import numpy as np
import pytest

from backends.base import TrainingData
from backends.catalog import TORCH
from bench.datasets import cache as datasets
from bench.errors import UnavailableError
from bench.worker.protocol import DataSource
from bench.worker.timed_loop import (
    Batches,
    NanLossError,
    Trainer,
    WrongDeviceError,
    build,
    evaluate,
    load_data,
    place_in,
    training_data,
)
from bench.workloads.augmentation import draw
from bench.workloads.catalog import find_workload
from bench.workloads.ranks import Place
from bench.workloads.specs import Cell


def batches_of(name: str, *, seed: int = 5) -> tuple[Batches, TrainingData]:
    workload = find_workload(name)
    data = training_data(workload, datasets.load_sample(workload.dataset))
    return Batches(workload, data, seed=seed), data


# The data


def test_the_data_are_the_sample_where_no_cache_is_named() -> None:
    found = load_data(DataSource(name="mnist", cache=None, limit=70))
    sample = datasets.load_sample("mnist", 70)
    np.testing.assert_array_equal(found.train_images, sample.train_images)
    np.testing.assert_array_equal(found.test_labels, sample.test_labels)


def test_what_is_held_out_is_the_beginning_of_the_training_images() -> None:
    sample = datasets.load_sample("mnist")
    workload = msgspec.structs.replace(find_workload("notebook-one-layer"), held_out=1500)
    data = training_data(workload, sample)
    np.testing.assert_array_equal(data.images, sample.train_images[1500:])
    np.testing.assert_array_equal(data.labels, sample.train_labels[1500:])


@pytest.mark.parametrize("name", ["notebook-one-layer", "notebook-affine", "notebook-convnet"])
def test_a_data_set_that_leaves_no_batch_is_not_trained_on(name: str) -> None:
    words = f"{name} holds out 5000 of 2000 training images, which leaves no batch of 100"
    with pytest.raises(UnavailableError, match=words):
        training_data(find_workload(name), datasets.load_sample("mnist"))


@pytest.mark.parametrize(("held_out", "enough"), [(1900, True), (1901, False)])
def test_one_batch_is_enough_and_less_is_not(held_out: int, enough: bool) -> None:
    sample = datasets.load_sample("mnist")
    workload = msgspec.structs.replace(find_workload("notebook-one-layer"), held_out=held_out)
    if enough:
        assert len(training_data(workload, sample).images) == 100
    else:
        with pytest.raises(UnavailableError, match="holds out 1901 of 2000"):
            training_data(workload, sample)


# The batches


@pytest.mark.parametrize("name", ["notebook-softmax-plot", "notebook-cifar-cnn"])
def test_batches_are_the_same_however_they_are_asked_for(name: str) -> None:
    batches, _ = batches_of(name)
    again, _ = batches_of(name)
    whole = batches.order(0, 30)
    np.testing.assert_array_equal(whole[17:29], again.order(17, 12))
    for all_draws, later in zip(batches.draws(0, 30), again.draws(17, 12), strict=True):
        np.testing.assert_array_equal(all_draws[17:29], later)


@pytest.mark.parametrize("name", ["notebook-softmax-plot", "notebook-cifar-cnn"])
def test_another_seed_has_other_batches(name: str) -> None:
    assert not np.array_equal(batches_of(name)[0].order(0, 5), batches_of(name, seed=6)[0].order(0, 5))


def test_an_epoch_takes_every_image_once_and_steps_by_themselves_do_not() -> None:
    by_epoch, data = batches_of("notebook-softmax-plot")
    first = by_epoch.order(0, by_epoch.steps_per_epoch).ravel()
    np.testing.assert_array_equal(np.sort(first), np.arange(len(data.images)))
    by_step, data = batches_of("notebook-cifar-cnn")
    assert len(np.unique(by_step.order(0, 10))) < len(data.images) == 1000


def test_images_are_changed_only_where_the_workload_says_so() -> None:
    assert batches_of("notebook-softmax-plot")[0].draws(0, 3) == ()
    batches, data = batches_of("notebook-cifar-cnn")
    (draws,) = batches.draws(4, 3)
    augmentation = find_workload("notebook-cifar-cnn").augmentation
    assert augmentation is not None
    expected = draw(augmentation, data.info, batch_size=100, seed=5, start=4, steps=3)
    np.testing.assert_array_equal(draws, expected)


# The trainer


def test_the_trainer_walks_the_batch_order_without_gap_or_overlap() -> None:
    backend, order, _ = fakes.backend_on_sample()
    seen: list[np.ndarray[Any, Any]] = []

    class Recorder:
        def train_steps(self, batches: Any) -> Any:
            seen.append(batches)
            return backend.train_steps(batches)

    trainer = Trainer(Recorder(), order)  # type: ignore[arg-type]
    for steps in (1, 3, 7):
        window = trainer.train(steps)
        assert (window.steps, window.samples) == (steps, steps * 100)
    np.testing.assert_array_equal(np.concatenate(seen), order.order(0, 11))
    assert trainer.steps == 11
    assert len(trainer.losses) == 7


def test_a_loss_that_is_no_number_is_named_by_its_step() -> None:
    _, order, _ = fakes.backend_on_sample()

    class Broken:
        def train_steps(self, batches: Any) -> Any:
            return np.where(np.arange(len(batches)) == 2, np.inf, 1.0).astype(np.float32)

    trainer = Trainer(Broken(), order)  # type: ignore[arg-type]
    trainer.train(2)
    with pytest.raises(NanLossError, match="the loss of step 4 is not finite"):
        trainer.train(3)


def test_a_trainer_goes_on_from_the_steps_and_the_time_before() -> None:
    backend, order, _ = fakes.backend_on_sample()
    whole = Trainer(backend, order)
    whole.train(7)
    state = backend.save_state()
    whole.train(4)
    backend.restore_state(state)
    resumed = Trainer(backend, order, steps=7, train_s=100.0)
    resumed.train(4)
    np.testing.assert_array_equal(resumed.losses, whole.losses)
    assert resumed.steps == 11
    assert 100.0 < resumed.train_s < 110.0


def test_a_trainer_hands_the_draws_of_its_steps_on() -> None:
    batches, _ = batches_of("notebook-cifar-cnn")
    given: list[Any] = []

    class Recorder:
        def train_steps(self, order: Any, draws: Any) -> Any:
            given.append(draws)
            return np.ones(len(order), np.float32)

    trainer = Trainer(Recorder(), batches)  # type: ignore[arg-type]
    trainer.train(2)
    trainer.train(3)
    np.testing.assert_array_equal(np.concatenate(given), batches.draws(0, 5)[0])


def test_a_stretch_of_several_ranks_takes_as_long_as_in_the_slowest() -> None:
    _, order, _ = fakes.backend_on_sample()

    class Ranks:
        def train_steps(self, batches: Any) -> Any:
            return np.ones(len(batches), np.float32)

        def longest(self, seconds: float) -> float:
            assert 0.0 < seconds < 100.0
            return seconds + 100.0

    trainer = Trainer(Ranks(), order, distributed=True)  # type: ignore[arg-type]
    assert 100.0 < trainer.train(2).seconds < 200.0
    assert 100.0 < trainer.lead(1) < 200.0
    assert 200.0 < trainer.train_s < 400.0
    assert Trainer(Ranks(), order).train(2).seconds < 100.0  # type: ignore[arg-type]


def test_a_place_is_given_to_distributed_modes_alone() -> None:
    given: list[Any] = []

    class Noting(fakes.Steady):
        def __init__(self, *arguments: Any, **more: Any) -> None:
            given.append(more.pop("place", "nothing"))
            super().__init__(*arguments, **more)

    workload = find_workload("mnist-softmax")
    data = training_data(workload, datasets.load_sample("mnist"))
    place = Place(rank=1, ranks=2)
    for mode in ("eager", "ddp"):
        cell = Cell(workload=workload.name, backend="torch", mode=mode, device="cpu", precision="fp32")
        build(Noting, workload, data, cell, place_in(TORCH, cell, place))
    build(Noting, workload, data, cell, place_in(TORCH, cell, None))
    assert given == ["nothing", place, "nothing"]


@pytest.mark.parametrize("target", [fakes.Steady, fakes.Elsewhere])
def test_a_backend_on_another_device_is_not_used(target: Any) -> None:
    workload = find_workload(fakes.WORKLOAD)
    data = training_data(workload, datasets.load_sample("mnist"))
    cell = Cell(workload=workload.name, backend="fake", mode="only", device="cpu", precision="fp32")
    if target is fakes.Steady:
        assert build(target, workload, data, cell).describe()["device"] == "cpu"
    else:
        with pytest.raises(WrongDeviceError, match="asked to run on cpu, it runs on gpu"):
            build(target, workload, data, cell)


# Evaluation


def test_accuracy_and_loss_are_of_the_whole_split() -> None:
    class Oracle:
        def predict(self, images: Any) -> Any:
            logits = np.zeros((len(images), 10), np.float32)
            logits[np.arange(len(images)), images[:, 0, 0, 0]] = 4.0
            return logits

    images = np.zeros((40, 2, 2, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(40) % 10
    labels = images[:, 0, 0, 0].copy()
    labels[:10] = (labels[:10] + 1) % 10
    loss, accuracy = evaluate(Oracle(), images, labels)  # type: ignore[arg-type]
    assert accuracy == 0.75
    norm = np.log(np.exp(4.0) + 9)
    assert loss == pytest.approx(0.75 * (norm - 4.0) + 0.25 * norm, rel=1e-12)


def test_a_test_loss_that_is_no_number_is_an_error() -> None:
    class Lost:
        def predict(self, images: Any) -> Any:
            return np.full((len(images), 10), np.nan, np.float32)

    with pytest.raises(NanLossError, match="test images"):
        evaluate(Lost(), np.zeros((4, 2, 2, 1), np.uint8), np.zeros(4, np.uint8))  # type: ignore[arg-type]
