"""Augmentation in TensorFlow, a batch at a time: the formulas of `bench.workloads.augmentation`.

The functions of `tf.image` change all images of a batch by one factor; these take a factor for each image.
"""

import numpy as np
import tensorflow as tf

from bench.workloads.augmentation import BRIGHTNESS, COLUMN, CONTRAST, FLIP, HUE, ROW, SATURATION


def augment(images: tf.Tensor, draws: tf.Tensor, crop: int) -> tf.Tensor:
    """Return the images, uint8 (n, h, w, c), augmented: float32 (n, crop, crop, c) from 0 to 1.

    `draws`, float32 (n, `COLUMNS`), says how.
    """
    # Cast before they are cropped: a GPU gathers no uint8, other than from a variable.
    x = crop_and_flip(tf.cast(images, tf.float32), draws, crop) / 255.0
    values = draws[:, :, tf.newaxis, tf.newaxis, tf.newaxis]
    x = turn_hue(x, values[:, HUE])
    mean = tf.reduce_mean(x, axis=(1, 2), keepdims=True)
    x = (x - mean) * values[:, CONTRAST] + mean + values[:, BRIGHTNESS]
    x = scale_saturation(x, values[:, SATURATION])
    return tf.clip_by_value(x, 0.0, 1.0)


def crop_and_flip(images: tf.Tensor, draws: tf.Tensor, crop: int) -> tf.Tensor:
    """Return a window of each image, mirrored where its draw is 1: of `images`' type (n, crop, crop, c).

    Places are int64: TensorFlow computes with int32 on the host.
    """
    places = np.arange(crop, dtype=np.int64)
    rows = tf.cast(draws[:, ROW, tf.newaxis], tf.int64) + places
    mirrored = draws[:, FLIP, tf.newaxis] == 1.0
    columns = tf.cast(draws[:, COLUMN, tf.newaxis], tf.int64) + tf.where(mirrored, places[::-1], places)
    windows = tf.gather(images, rows, axis=1, batch_dims=1)
    return tf.gather(windows, columns, axis=2, batch_dims=1)


def turn_hue(x: tf.Tensor, turns: tf.Tensor) -> tf.Tensor:
    """Turn the hue of images (n, h, w, c) in [0, 1] by `turns` (n, 1, 1, 1); grey images have no hue."""
    if x.shape[-1] == 1:
        return x
    red, green, blue = tf.unstack(x, axis=-1)
    value = tf.reduce_max(x, axis=-1)
    chroma = value - tf.reduce_min(x, axis=-1)
    safe = tf.where(chroma > 0.0, chroma, 1.0)
    hue = tf.where(
        value == red,
        (green - blue) / safe,
        tf.where(value == green, 2.0 + (blue - red) / safe, 4.0 + (red - green) / safe),
    )
    k = tf.math.floormod(tf.constant([5.0, 3.0, 1.0]) + hue[..., tf.newaxis] + 6.0 * turns, 6.0)
    share = tf.clip_by_value(tf.minimum(k, 4.0 - k), 0.0, 1.0)
    return value[..., tf.newaxis] - chroma[..., tf.newaxis] * share


def scale_saturation(x: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Multiply the saturation of images (n, h, w, c) by a factor (n, 1, 1, 1)."""
    value = tf.reduce_max(x, axis=-1, keepdims=True)
    chroma = value - tf.reduce_min(x, axis=-1, keepdims=True)
    safe = tf.where(chroma > 0.0, chroma, 1.0)
    factor = tf.where(value > 0.0, tf.minimum(factor, value / safe), 0.0)
    return value - (value - x) * factor
