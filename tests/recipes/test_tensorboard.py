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
from bench.recipes.metrics import Figure
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


@pytest.fixture(autouse=True, scope="module")
def _without_tensorflow():
    # This module's presence tells TensorBoard to read files by itself, and not to import TensorFlow for it.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tensorboard.compat.notf", ModuleType("notf"))
        yield


def read(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder / EVENTS), size_guidance=KEEP_ALL)
    found.Reload()
    return found


def write(training: Training, images: np.ndarray | None = None) -> EventAccumulator:
    with EventFiles(training, load_sample("mnist").train_images if images is None else images):
        pass
    return read(training.folder)


@pytest.fixture
def training(tmp_path):
    return write_training(tmp_path / "one", make_header(steps=201), make_figures(STEPS))


def test_every_figure_has_its_curves_and_distributions_at_its_step_and_time(training):
    found = write(training)
    assert set(found.Tags()["scalars"]) == {*SCALARS, "cross-entropy/step"}
    assert set(found.Tags()["histograms"]) == set(training.figures[0].distributions)
    begun = datetime.fromisoformat(training.header.created_at).timestamp()
    assert found.FirstEventTimestamp() == begun
    times = [begun + figure.train_s for figure in training.figures]
    for tag, field in SCALARS.items():
        events = found.Scalars(tag)
        assert tuple(event.step for event in events) == STEPS
        np.testing.assert_allclose([event.wall_time for event in events], times, rtol=0, atol=1e-6)
        expected = [getattr(figure, field) for figure in training.figures]
        np.testing.assert_allclose([event.value for event in events], expected, rtol=1e-6)  # float32
    for name in found.Tags()["histograms"]:
        events = found.Histograms(name)
        assert tuple(event.step for event in events) == STEPS
        np.testing.assert_allclose([event.wall_time for event in events], times, rtol=0, atol=1e-6)
        for event, figure in zip(events, training.figures, strict=True):
            told, spread = event.histogram_value, figure.distributions[name]
            assert (told.min, told.max) == (spread.quantiles[0], spread.quantiles[-1])
            assert (told.sum, told.sum_squares) == (spread.total, spread.total_of_squares)
            assert told.num == sum(told.bucket) == sum(spread.counts)


def test_every_tenth_step_has_its_loss_also_across_figures(tmp_path):
    losses = np.arange(1, 26, dtype="<f4")  # the loss of step n is n
    figures = [
        make_figure(7, losses=losses[:7].tobytes()),
        make_figure(20, losses=losses[7:20].tobytes()),
        make_figure(25, losses=losses[20:].tobytes()),
    ]
    found = write(write_training(tmp_path / "t", make_header(steps=25), figures))
    events = found.Scalars("cross-entropy/step")
    assert [(event.step, event.value) for event in events] == [(10, 10.0), (20, 20.0)]


@pytest.mark.parametrize("values", [(-2, -1.5, 0.25, 0.75, 3), (0.0,) * 10, (-3.5,) * 10])
def test_every_value_lies_in_the_bucket_that_counts_it(values, tmp_path):
    figure = make_figure(1, params={"logits/bias": np.array(values, np.float32)})
    training = write_training(tmp_path / "one", make_header(steps=1), [figure])
    (event,) = write(training).Histograms("logits/bias")
    told = event.histogram_value
    assert (told.num, told.min, told.max) == (len(values), min(values), max(values))
    # The first bucket reaches down to the least value.
    lows = [min(told.min, told.bucket_limit[0]), *told.bucket_limit[:-1]]
    ends = zip(lows, told.bucket_limit, told.bucket, strict=True)
    counted = [(low, high) for low, high, count in ends if count]
    assert [sum(low <= value <= high for low, high in counted) for value in values] == [1] * len(values)
    assert all(any(low <= value <= high for value in values) for low, high in counted)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_the_first_images_are_shown_as_they_are(name, tmp_path):
    images = load_sample(name).train_images[3:]
    found = write(write_training(tmp_path / "one"), images)
    tags = [f"input/{number}" for number in range(IMAGES)]
    assert sorted(found.Tags()["images"]) == sorted(tags)
    for tag, image in zip(tags, images, strict=False):
        (event,) = found.Images(tag)
        assert (event.step, (event.height, event.width)) == (0, image.shape[:2])
        assert event.encoded_image_string.startswith(b"\x89PNG")
        shown = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)).convert("RGB"))
        np.testing.assert_array_equal(shown, np.broadcast_to(image, shown.shape))


def test_a_continued_training_tells_no_step_twice_and_each_before_the_file_is_closed(tmp_path, training):
    def steps_of(folder: Path) -> set[tuple[int, ...]]:
        found = read(folder)
        tags = [found.Scalars(tag) for tag in SCALARS] + [found.Histograms("logits/bias")]
        assert [event.step for event in found.Images("input/0")] == [0]
        return {tuple(event.step for event in events) for events in tags}

    write(training)
    resumed = write_training(tmp_path / "two", make_header(steps=201), training.figures[:2])
    (training.folder / EVENTS).rename(resumed.folder / EVENTS)
    again: Figure = make_figure(201, 0.5, before=101)
    with EventFiles(resumed, load_sample("mnist").train_images) as events:
        assert steps_of(resumed.folder) == {STEPS[:2]}
        events.add(again)
        assert steps_of(resumed.folder) == {STEPS}
    assert read(resumed.folder).Scalars("accuracy/test")[-1].value == 0.5


def test_a_full_disk_leaves_the_file_that_was_there(tmp_path, training, monkeypatch):
    with EventFiles(training, load_sample("mnist").train_images):
        pass
    folder = training.folder / "events"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bench.recipes.tensorboard.RecordWriter.write", full)
    with pytest.raises(OSError, match="No space"):
        EventFiles(training, load_sample("mnist").train_images)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
