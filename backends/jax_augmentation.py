"""Augmentation in JAX: the formulas of `bench.workloads.augmentation` for one image, mapped over a batch."""

from functools import partial

import jax
import jax.numpy as jnp

from bench.workloads.augmentation import BRIGHTNESS, COLUMN, CONTRAST, FLIP, HUE, ROW, SATURATION


def augment(images: jax.Array, draws: jax.Array, crop: int) -> jax.Array:
    """Return uint8 images (n, h, w, c) augmented by `draws` (n, columns): float32 (n, crop, crop, c)."""
    return jax.vmap(partial(augment_one, crop=crop))(images, draws)


def augment_one(image: jax.Array, drawn: jax.Array, *, crop: int) -> jax.Array:
    """Return one uint8 image (h, w, c) augmented by its draws (columns,): float32 (crop, crop, c)."""
    row, column = drawn[ROW].astype(jnp.int32), drawn[COLUMN].astype(jnp.int32)
    window = jax.lax.dynamic_slice(image, (row, column, 0), (crop, crop, image.shape[2]))
    x = jnp.where(drawn[FLIP] == 1, window[:, ::-1], window).astype(jnp.float32) / 255
    x = turn_hue(x, drawn[HUE])
    mean = x.mean(axis=(0, 1))
    x = (x - mean) * drawn[CONTRAST] + mean + drawn[BRIGHTNESS]
    return scale_saturation(x, drawn[SATURATION]).clip(0, 1)


def turn_hue(x: jax.Array, turns: jax.Array) -> jax.Array:
    """Turn the hue of an image (h, w, c) in [0, 1] by `turns`; a grey image has no hue."""
    if x.shape[-1] == 1:
        return x
    red, green, blue = x[..., 0], x[..., 1], x[..., 2]
    value = x.max(axis=-1)
    chroma = value - x.min(axis=-1)
    safe = jnp.where(chroma > 0, chroma, 1)
    hue = jnp.select(
        [value == red, value == green],
        [(green - blue) / safe, 2 + (blue - red) / safe],
        4 + (red - green) / safe,
    )
    k = (jnp.array([5.0, 3.0, 1.0]) + hue[..., None] + 6 * turns) % 6
    return value[..., None] - chroma[..., None] * jnp.minimum(k, 4 - k).clip(0, 1)


def scale_saturation(x: jax.Array, factor: jax.Array) -> jax.Array:
    """Multiply the saturation of an image (h, w, c) by a factor."""
    value = x.max(axis=-1, keepdims=True)
    chroma = value - x.min(axis=-1, keepdims=True)
    safe = jnp.where(chroma > 0, chroma, 1)
    factor = jnp.where(value > 0, jnp.minimum(factor, value / safe), 0)
    return value - (value - x) * factor
