"""Random changes of training images: drawn once in NumPy for every backend, and defined here in float64.

The six operations are those of TensorFlow's `tf.image` (random_crop, random_flip_left_right, adjust_hue,
adjust_contrast, adjust_brightness, adjust_saturation; tensorflow/python/ops/image_ops_impl.py and the kernels
adjust_hue_op.cc and adjust_saturation_op.cc). A test compares this module with `tf.image`.
"""

import numpy as np
import numpy.typing as npt

from bench.workloads.specs import Augmentation, DatasetInfo, Workload

COLUMNS = ("row", "column", "flip", "hue", "contrast", "brightness", "saturation")
"""What is drawn for every image: the corner of the crop, in pixels; 1 to flip, otherwise 0; the rotation of
the hue, in turns; the factor of the contrast; the shift of the brightness; the factor of the saturation."""
ROW, COLUMN, FLIP, HUE, CONTRAST, BRIGHTNESS, SATURATION = range(len(COLUMNS))
_STREAM = 1
"""Part of the seed, so that the draws of a step come from another stream than its batch."""

Draws = npt.NDArray[np.float32]
Images = npt.NDArray[np.float64]


def draws_of(
    workload: Workload, info: DatasetInfo, *, seed: int, start: int, steps: int
) -> tuple[Draws, ...]:
    """Return the further arguments of a backend's `train_steps`: the draws, or none without augmentation."""
    if workload.augmentation is None:
        return ()
    size = workload.batch_size
    return (draw(workload.augmentation, info, batch_size=size, seed=seed, start=start, steps=steps),)


def seen_images(workload: Workload, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return images as the network sees them in evaluation: cropped, if it is trained on crops."""
    return images if workload.augmentation is None else central_crop(images, workload.augmentation.crop)


def draw(
    augmentation: Augmentation, info: DatasetInfo, *, batch_size: int, seed: int, start: int, steps: int
) -> Draws:
    """Return the draws of `steps` steps from step `start` on: float32 (steps, batch, columns).

    `info` describes the images on disk. Each step has its own random stream, so a training run that was
    interrupted continues with the same draws.
    """
    height, width, _ = info.image_shape
    found = np.empty((steps, batch_size, len(COLUMNS)), np.float32)
    for number in range(steps):
        generator = np.random.Generator(np.random.PCG64([seed, start + number, _STREAM]))
        step = found[number]
        step[:, ROW] = generator.integers(0, height - augmentation.crop, batch_size, endpoint=True)
        step[:, COLUMN] = generator.integers(0, width - augmentation.crop, batch_size, endpoint=True)
        step[:, FLIP] = generator.integers(0, 1, batch_size, endpoint=True)
        step[:, HUE] = generator.uniform(-augmentation.hue, augmentation.hue, batch_size)
        step[:, CONTRAST] = generator.uniform(*augmentation.contrast, batch_size)
        step[:, BRIGHTNESS] = generator.uniform(-augmentation.brightness, augmentation.brightness, batch_size)
        step[:, SATURATION] = generator.uniform(*augmentation.saturation, batch_size)
    return found


def augment(images: npt.NDArray[np.uint8], draws: Draws, crop: int) -> Images:
    """Return images (n, h, w, c), changed by `draws` (n, columns): float64 (n, crop, crop, c) in [0, 1]."""
    values = draws.astype(np.float64)[:, :, None, None, None]
    x = crop_and_flip(images, draws, crop) / 255.0
    x = turn_hue(x, values[:, HUE])
    mean = x.mean(axis=(1, 2), keepdims=True)
    x = (x - mean) * values[:, CONTRAST] + mean
    x = x + values[:, BRIGHTNESS]
    x = scale_saturation(x, values[:, SATURATION])
    return np.clip(x, 0.0, 1.0)


def crop_and_flip(images: npt.NDArray[np.uint8], draws: Draws, crop: int) -> npt.NDArray[np.uint8]:
    """Return a square of `crop` pixels of each image, from the drawn corner, mirrored if FLIP is 1."""
    places = np.arange(crop)
    rows = draws[:, ROW, None].astype(int) + places
    mirrored = draws[:, FLIP, None] == 1
    columns = draws[:, COLUMN, None].astype(int) + np.where(mirrored, places[::-1], places)
    windows: npt.NDArray[np.uint8] = images[
        np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]
    ]
    return windows


def turn_hue(x: Images, turns: Images) -> Images:
    """Rotate the hue of RGB images in [0, 1] by `turns` of the circle of colours (Smith, 1978).

    Value v and chroma c stay. With the hue h in sixths of the circle, each channel is
    v - c max(0, min(k, 4 - k, 1)), where k = (n + h) mod 6, and n is 5 for red, 3 for green and 1 for blue.
    Images of one channel are grey: they have no hue and stay as they are.
    """
    if x.shape[-1] == 1:
        return x
    red, green, blue = x[..., 0], x[..., 1], x[..., 2]
    value = x.max(axis=-1)
    chroma = value - x.min(axis=-1)
    safe = np.where(chroma > 0, chroma, 1.0)
    hue = np.where(
        value == red,
        (green - blue) / safe,
        np.where(value == green, 2.0 + (blue - red) / safe, 4.0 + (red - green) / safe),
    )
    k = (np.array([5.0, 3.0, 1.0]) + hue[..., None] + 6.0 * turns) % 6.0
    turned: Images = value[..., None] - chroma[..., None] * np.clip(np.minimum(k, 4.0 - k), 0.0, 1.0)
    return turned


def scale_saturation(x: Images, factor: Images) -> Images:
    """Multiply the saturation, which is chroma over value, and keep it in [0, 1]; value and hue stay.

    A pixel whose value is not positive has no saturation, so all its channels get the value.
    """
    value = x.max(axis=-1, keepdims=True)
    chroma = value - x.min(axis=-1, keepdims=True)
    safe = np.where(chroma > 0, chroma, 1.0)
    factor = np.where(value > 0, np.minimum(factor, value / safe), 0.0)
    scaled: Images = value - (value - x) * factor
    return scaled


def central_crop(images: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """Return the middle `size` rows and columns of images (n, h, w, c).

    If an odd number of rows or columns is cut off, one more is cut at the bottom or on the right.
    """
    top, left = (images.shape[1] - size) // 2, (images.shape[2] - size) // 2
    return images[:, top : top + size, left : left + size]
