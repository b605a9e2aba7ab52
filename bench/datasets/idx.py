"""Write a data set of grey images as the four IDX files in which MNIST is published."""

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.datasets.cache import Dataset
from bench.errors import UsageError, WriteError
from bench.paths import refusal

NAMES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
"""The names of the files, by the name of the array."""

_UINT8 = 0x08


def to_idx(array: npt.NDArray[np.uint8]) -> bytes:
    """Return an array as an IDX file: two zeros, type, number of dimensions, sizes (big-endian), values."""
    header = struct.pack(f">HBB{array.ndim}I", 0, _UINT8, array.ndim, *array.shape)
    return header + np.ascontiguousarray(array).tobytes()


def write_idx(dataset: Dataset, folder: Path) -> None:
    """Write the four files into a folder, which is made if it is missing; files of these names are replaced.

    Raises UsageError if the images have colours, and WriteError if the files cannot be written.
    """
    if dataset.info.image_shape[2] != 1:
        raise UsageError(f"{dataset.info.name} has images in colour, and IDX files hold grey ones.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, file in NAMES.items():
            array = np.asarray(getattr(dataset, name))
            grey = array[..., 0] if array.ndim == 4 else array
            (folder / file).write_bytes(to_idx(grey))
    except OSError as error:
        raise WriteError(
            f"cannot write to {folder}: {refusal(error, folder)}. Name another folder."
        ) from error
