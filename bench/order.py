"""Batch order: which training images make up each batch, drawn once in NumPy for every backend."""

import numpy as np
import numpy.typing as npt


class BatchOrder:
    """An endless order of batches: a fresh permutation every epoch, the ragged last batch dropped."""

    def __init__(self, *, images: int, batch_size: int, seed: int) -> None:
        if images < batch_size:
            raise ValueError(f"{images} images do not fill one batch of {batch_size}")
        self._images, self._batch_size, self._seed = images, batch_size, seed
        self.steps_per_epoch = images // batch_size

    def epoch(self, number: int) -> npt.NDArray[np.int32]:
        """Return the batches of an epoch, counted from 0: int32 (steps_per_epoch, batch_size)."""
        generator = np.random.Generator(np.random.PCG64([self._seed, number]))
        used = self.steps_per_epoch * self._batch_size
        return generator.permutation(self._images)[:used].astype(np.int32).reshape(-1, self._batch_size)

    def steps(self, start: int, count: int) -> npt.NDArray[np.int32]:
        """Return `count` batches from step `start` on, across epochs: int32 (count, batch_size)."""
        first, last = start // self.steps_per_epoch, (start + max(count, 1) - 1) // self.steps_per_epoch
        batches = np.concatenate([self.epoch(number) for number in range(first, last + 1)])
        skipped = start - first * self.steps_per_epoch
        return batches[skipped : skipped + count]
