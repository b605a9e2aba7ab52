"""Batch order: which training images make up each batch, drawn once in NumPy for every backend."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Permutation = Callable[[int, int], npt.NDArray[np.integer]]
"""From a seed and an epoch, counted from 0, to an order of all images."""


class BatchOrder:
    """An endless order of batches: a new permutation in every epoch, without the incomplete last batch.

    `permute` draws the permutations in place of NumPy, for a framework's own defaults. Raise ValueError if
    the images do not fill one batch.
    """

    def __init__(
        self, *, images: int, batch_size: int, seed: int, permute: Permutation | None = None
    ) -> None:
        if images < batch_size:
            raise ValueError(f"{images} images do not fill one batch of {batch_size}")
        self._images, self._batch_size, self._seed = images, batch_size, seed
        self._permute = permute or self._draw
        self.steps_per_epoch = images // batch_size

    def epoch(self, number: int) -> npt.NDArray[np.int32]:
        """Return the batches of an epoch, counted from 0: int32 (steps_per_epoch, batch_size)."""
        used = self.steps_per_epoch * self._batch_size
        order = self._permute(self._seed, number)[:used]
        return order.astype(np.int32).reshape(-1, self._batch_size)

    def steps(self, start: int, count: int) -> npt.NDArray[np.int32]:
        """Return `count` batches from step `start` on, across epochs: int32 (count, batch_size)."""
        first, last = start // self.steps_per_epoch, (start + max(count, 1) - 1) // self.steps_per_epoch
        batches = np.concatenate([self.epoch(number) for number in range(first, last + 1)])
        skipped = start - first * self.steps_per_epoch
        return batches[skipped : skipped + count]

    def _draw(self, seed: int, epoch: int) -> npt.NDArray[np.integer]:
        return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(self._images)


class StepOrder(BatchOrder):
    """An endless order in which each batch is drawn independently from all images, without repetition."""

    def epoch(self, number: int) -> npt.NDArray[np.int32]:
        """Return as many batches as an epoch has in `BatchOrder`: int32 (steps_per_epoch, batch_size)."""
        return self.steps(number * self.steps_per_epoch, self.steps_per_epoch)

    def steps(self, start: int, count: int) -> npt.NDArray[np.int32]:
        """Return the batches of `count` steps from step `start` on: int32 (count, batch_size)."""
        return np.stack([self._batch(start + number) for number in range(count)])

    def _batch(self, step: int) -> npt.NDArray[np.int32]:
        generator = np.random.Generator(np.random.PCG64([self._seed, step]))
        return generator.choice(self._images, self._batch_size, replace=False).astype(np.int32)
