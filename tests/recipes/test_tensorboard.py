"""Event files, as TensorBoard's own reader finds them: every step once, with its curves and distributions."""

import io
import sys
from datetime import datetime
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from followed import make_figure, make_figures, make_header, write_training
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bench.datasets.cache import load_sample
from bench.recipes.records import EVENTS, Training
from bench.recipes.tensorboard import IMAGES, EventFiles

STEPS = (1, 101, 201)
SCALARS = {
    "cross-entropy/test": "test_loss",
    "cross-entropy/train": "train_loss",
    "accuracy/test": "test_accuracy",
    "accuracy/train": "train_accuracy",
}
KEEP_ALL = dict.fromkeys(("scalars", "histograms", "images", "compressedHistograms", "tensors"), 0)


@pytest.fixture(autouse=True)
def _without_tensorflow(monkeypatch):
    # This module's presence tells TensorBoard to read files by itself, and not to import TensorFlow for it.
    monkeypatch.setitem(sys.modules, "tensorboard.compat.notf", ModuleType("notf"))


def read(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder), size_guidance=KEEP_ALL)
    found.Reload()
    return found


def write(training: Training) -> EventAccumulator:
    with EventFiles(training, load_sample("mnist").train_images):
        pass
    return read(training.folder / EVENTS)


@pytest.fixture
def training(tmp_path):
    return write_training(tmp_path / "one", make_header(steps=201), make_figures(STEPS))


def test_every_curve_has_every_figure_at_its_step(training):
    found = write(training)
    assert set(found.Tags()["scalars"]) == {*SCALARS, "cross-entropy/step"}
    for tag, field in SCALARS.items():
        events = found.Scalars(tag)
        assert tuple(event.step for event in events) == STEPS
        expected = [getattr(figure, field) for figure in training.figures]
        np.testing.assert_allclose([event.value for event in events], expected, rtol=1e-6)  # float32


def test_every_tenth_step_has_its_loss_also_across_figures(tmp_path):
    header = make_header(steps=25)
    losses = np.arange(1, 26, dtype="<f4")  # the loss of step n is n
    figures = [
        make_figure(7, losses=losses[:7].tobytes()),
        make_figure(20, losses=losses[7:20].tobytes()),
        make_figure(25, losses=losses[20:].tobytes()),
    ]
    events = write(write_training(tmp_path / "t", header, figures)).Scalars("cross-entropy/step")
    assert [(event.step, event.value) for event in events] == [(10, 10.0), (20, 20.0)]


def test_every_parameter_has_the_distribution_of_every_figure(training):
    found = write(training)
    assert set(found.Tags()["histograms"]) == set(training.figures[0].distributions)
    for name in found.Tags()["histograms"]:
        events = found.Histograms(name)
        assert tuple(event.step for event in events) == STEPS
        for event, figure in zip(events, training.figures, strict=True):
            told, spread = event.histogram_value, figure.distributions[name]
            assert (told.min, told.max) == (spread.quantiles[0], spread.quantiles[-1])
            assert (told.sum, told.sum_squares) == (spread.total, spread.total_of_squares)
            assert told.num == sum(told.bucket) == sum(spread.counts)


def test_the_clock_of_the_events_is_the_time_of_training(training):
    found = write(training)
    begun = found.Images("input/0")[0].wall_time
    assert begun == datetime.fromisoformat(training.header.created_at).timestamp()
    for events in (found.Scalars("accuracy/test"), found.Histograms("logits/bias")):
        expected = [figure.train_s for figure in training.figures]
        np.testing.assert_allclose([event.wall_time - begun for event in events], expected, atol=1e-6)


def test_every_value_lies_in_the_bucket_that_counts_it(tmp_path):
    values = np.array([-2, -1.5, 0.25, 0.75, 3], np.float32)
    figure = make_figure(1, params={"logits/bias": values})
    training = write_training(tmp_path / "one", make_header(steps=1), [figure])
    (event,) = write(training).Histograms("logits/bias")
    counted = buckets(event.histogram_value)
    assert [sum(low <= value <= high for low, high in counted) for value in values] == [1] * 5
    assert all(any(low <= value <= high for value in values) for low, high in counted)


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5])
def test_equal_values_lie_in_the_bucket_that_counts_them(value, tmp_path):
    figure = make_figure(1, params={"logits/bias": np.full(10, value, np.float32)})
    training = write_training(tmp_path / "one", make_header(steps=1), [figure])
    told = write(training).Histograms("logits/bias")[0].histogram_value
    ((low, high),) = buckets(told)
    assert low <= value <= high
    assert (told.num, told.min, told.max) == (10, value, value)


def buckets(told) -> list[tuple[float, float]]:
    """Return the ends of every bucket that counts anything; the first reaches down to the least value."""
    lows = [min(told.min, told.bucket_limit[0]), *told.bucket_limit[:-1]]
    ends = zip(lows, told.bucket_limit, told.bucket, strict=True)
    return [(low, high) for low, high, count in ends if count]


def test_the_first_images_are_shown_as_they_are(training):
    found = write(training)
    tags = [f"input/{number}" for number in range(IMAGES)]
    assert sorted(found.Tags()["images"]) == sorted(tags)
    for tag in tags:
        (event,) = found.Images(tag)
        assert (event.step, event.width, event.height) == (0, 28, 28)
        assert event.encoded_image_string.startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_the_image_that_is_shown_has_the_images_pixels(name, tmp_path):
    images = load_sample(name).train_images[3:6]
    training = write_training(tmp_path / "one")
    with EventFiles(training, images):
        pass
    found = read(training.folder / EVENTS)
    for number, image in enumerate(images):
        (event,) = found.Images(f"input/{number}")
        shown = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)).convert("RGB"))
        np.testing.assert_array_equal(shown, np.broadcast_to(image, shown.shape))


def test_a_figure_is_seen_before_the_files_are_closed(training):
    with EventFiles(training, load_sample("mnist").train_images) as events:
        events.add(make_figure(301, 0.95, before=201))
        seen = read(training.folder / EVENTS)
        assert [event.step for event in seen.Scalars("accuracy/test")] == [*STEPS, 301]


def test_after_a_resumption_no_step_is_told_twice_and_none_that_was_thrown_away(tmp_path, training):
    write(training)
    resumed = write_training(tmp_path / "two", make_header(steps=201), training.figures[:2])
    (training.folder / EVENTS).rename(resumed.folder / EVENTS)
    with EventFiles(resumed, load_sample("mnist").train_images) as events:
        events.add(make_figure(201, 0.5, before=101))
    found = read(resumed.folder / EVENTS)
    for tag in SCALARS:
        assert [event.step for event in found.Scalars(tag)] == list(STEPS)
    assert found.Scalars("accuracy/test")[-1].value == 0.5
    assert [event.step for event in found.Histograms("logits/bias")] == list(STEPS)
    assert [event.step for event in found.Images("input/0")] == [0]
