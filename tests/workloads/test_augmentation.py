"""Augmentation: its draws, its parts against the standard library and against TensorFlow, and its laws."""

import colorsys
from typing import Any

import numpy as np
import pytest
from conftest import INFOS, in_process
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bench.workloads import augmentation
from bench.workloads.augmentation import BRIGHTNESS, COLUMN, COLUMNS, CONTRAST, FLIP, HUE, ROW, SATURATION
from bench.workloads.specs import Augmentation, DatasetInfo

INFO = DatasetInfo(name="noise", image_shape=(9, 11, 3), classes=10)
SPEC = Augmentation(crop=6, hue=0.05, contrast=(0.3, 1.0), brightness=0.2, saturation=(0.0, 2.0))
NEUTRAL = {"row": 0, "column": 0, "flip": 0, "hue": 0, "contrast": 1, "brightness": 0, "saturation": 1}
IMAGES = hnp.arrays(np.uint8, (2, *INFO.image_shape))


def draws(**told: float) -> np.ndarray:
    """Return draws for two images that change nothing except the named columns."""
    return np.array([[(NEUTRAL | told)[name] for name in COLUMNS]] * 2, np.float32)


def drawn(start: int, steps: int, seed: int = 1) -> np.ndarray:
    return augmentation.draw(SPEC, INFO, batch_size=50, seed=seed, start=start, steps=steps)


def test_draws_lie_in_their_ranges_and_reach_their_ends():
    found = drawn(0, 100).reshape(-1, len(COLUMNS))
    assert set(found[:, ROW]) == {0, 1, 2, 3}
    assert set(found[:, COLUMN]) == {0, 1, 2, 3, 4, 5}
    assert set(found[:, FLIP]) == {0, 1}
    assert abs(found[:, FLIP].mean() - 0.5) < 5 * 0.5 / np.sqrt(len(found))
    for column, low, high in (
        (HUE, -0.05, 0.05),
        (CONTRAST, 0.3, 1),
        (BRIGHTNESS, -0.2, 0.2),
        (SATURATION, 0, 2),
    ):
        near = (high - low) / 100
        assert low <= found[:, column].min() < low + near
        assert high - near < found[:, column].max() <= high


@given(st.integers(0, 1000), st.integers(1, 5))
def test_a_step_draws_the_same_however_it_is_asked_for(start, steps):
    together = drawn(start, steps)
    for number in range(steps):
        np.testing.assert_array_equal(drawn(start + number, 1)[0], together[number])
    assert (drawn(start, 1, seed=2) != together[0]).any()


@given(IMAGES)
def test_draws_that_change_nothing_crop_and_scale(images):
    found = augmentation.augment(images, draws(row=2, column=3), 6)
    np.testing.assert_allclose(found, images[:, 2:8, 3:9] / 255, atol=1e-12)


@given(IMAGES)
def test_flipping_twice_is_not_flipping(images):
    window = augmentation.crop_and_flip(images, draws(flip=1, row=1, column=5), 6)
    np.testing.assert_array_equal(window[:, :, ::-1], images[:, 1:7, 5:11])


@given(IMAGES, st.floats(-0.5, 0.5), st.floats(0, 2))
def test_hue_and_saturation_are_those_of_the_standard_library(images, turns, factor):
    pixels = images[:, :2, :2] / 255
    turned = augmentation.turn_hue(pixels, np.full((2, 1, 1, 1), turns))
    scaled = augmentation.scale_saturation(pixels, np.full((2, 1, 1, 1), factor))
    for place in np.ndindex(pixels.shape[:3]):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixels[place])
        expected = colorsys.hsv_to_rgb((hue + turns) % 1.0, saturation, value)
        np.testing.assert_allclose(turned[place], expected, atol=1e-9)
        expected = colorsys.hsv_to_rgb(hue, min(saturation * factor, 1.0), value)
        np.testing.assert_allclose(scaled[place], expected, atol=1e-9)


@given(IMAGES, st.integers(0, 2**32))
def test_pixels_stay_between_zero_and_one(images, seed):
    found = augmentation.augment(images, drawn(0, 1, seed)[0, :2], SPEC.crop)
    assert (found.shape, found.dtype) == ((2, 6, 6, 3), np.float64)
    assert found.min() >= 0
    assert found.max() <= 1


def test_contrast_keeps_the_mean_of_each_channel_and_brightness_moves_it():
    images = np.random.default_rng(0).integers(60, 200, (2, *INFO.image_shape), dtype=np.uint8)
    plain = augmentation.augment(images, draws(), 6)
    flat = augmentation.augment(images, draws(contrast=0.3), 6)
    np.testing.assert_allclose(flat.mean((1, 2)), plain.mean((1, 2)), atol=1e-12)
    np.testing.assert_allclose(flat.std((1, 2)), 0.3 * plain.std((1, 2)), atol=1e-12)
    np.testing.assert_allclose(augmentation.augment(images, draws(brightness=0.1), 6), plain + 0.1, atol=1e-8)


def test_a_crop_around_the_centre_is_tensorflows():
    images = np.arange(32 * 32, dtype=np.uint32).reshape(1, 32, 32, 1).astype(np.uint8)
    np.testing.assert_array_equal(augmentation.central_crop(images, 24), images[:, 4:28, 4:28])
    odd = np.arange(7 * 8, dtype=np.uint8).reshape(1, 7, 8, 1)
    np.testing.assert_array_equal(augmentation.central_crop(odd, 4), odd[:, 1:5, 2:6])


def test_grey_images_are_augmented_as_their_three_equal_channels():
    images = np.random.default_rng(4).integers(0, 256, (50, 10, 12, 1), dtype=np.uint8)
    told = drawn(0, 1)[0]
    grey = augmentation.augment(images, told, 6)
    assert grey.shape == (50, 6, 6, 1)
    as_colours = augmentation.augment(np.repeat(images, 3, axis=3), told, 6)
    np.testing.assert_allclose(grey, as_colours[..., :1], atol=1e-12)


def by_tf_image(argument: dict[str, Any]) -> list[Any]:
    """Return images changed one by one with tf.image; called in a child process."""
    import tensorflow as tf  # in a process of its own

    found = []
    for image, one in zip(argument["images"], argument["draws"], strict=True):
        row, column, flip, hue, contrast, brightness, saturation = one
        crop = argument["crop"]
        x = (
            tf.constant(image, tf.float32)[int(row) : int(row) + crop, int(column) : int(column) + crop]
            / 255.0
        )
        x = tf.image.flip_left_right(x) if flip else x
        x = tf.image.adjust_hue(x, hue)
        x = tf.image.adjust_contrast(x, contrast)
        x = tf.image.adjust_brightness(x, brightness)
        x = tf.image.adjust_saturation(x, saturation)
        found.append(tf.clip_by_value(x, 0.0, 1.0).numpy().tolist())
    return found


@pytest.mark.framework("tensorflow")
def test_all_parts_together_are_those_of_tf_image():
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (50, *INFO.image_shape), dtype=np.uint8)
    images[:10] = images[:10, :, :, :1]  # grey, which has no hue
    images[10] = 0
    told = drawn(0, 1)[0]
    argument = {"images": images.tolist(), "draws": told.tolist(), "crop": 6}
    expected = in_process(INFOS["tensorflow"], "test_augmentation:by_tf_image", argument)
    np.testing.assert_allclose(augmentation.augment(images, told, 6), expected, atol=1e-5)
