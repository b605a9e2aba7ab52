"""Modes `grain-samples` and `grain-batches`: batches through Grain, JAX's own library for loading data."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import grain
import jax
import jax.numpy as jnp
import numpy as np

from backends.jax_backend import fetch, scale
from backends.jax_instruments import InstrumentedRunner
from backends.step_clock import StepClock

if TYPE_CHECKING:
    from backends.jax_backend import JaxBackend

Batch = tuple[np.ndarray, np.ndarray]

READING = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
"""One thread works ahead, as the images are in memory and Python runs one thread at a time. At most four
batches wait: Grain's default of 500 would be 600 MB of CIFAR-10. There are no worker processes: a job is one
process, and workers would take seconds to start at every call."""


class GrainSamples(InstrumentedRunner):
    """Trains as mode `jit` does, but Grain makes the batches, sample by sample in NumPy.

    The steps are those of "Plugging Grain into JAX training" (google-grain.readthedocs.io), except for the
    order, which is given.
    """

    call_steps = 1
    pixels: Any = jnp.float32
    """The type of the images of a batch."""
    versions: Mapping[str, str] = {"grain": grain.__version__}

    def __init__(self, backend: "JaxBackend") -> None:
        super().__init__(backend)
        self._images = np.asarray(backend.images)  # indexing an np.memmap takes longer
        self._learn = backend.jitted(self._learn_batch, donate_argnums=0)

    def train(self, order: np.ndarray, draws: np.ndarray | None) -> np.ndarray:  # noqa: ARG002 (augments none)
        backend = self._backend
        state, losses = backend.state, []
        for batch in self._batches(order):
            state, loss = self._learn(state, *jax.device_put(batch, backend.device))
            losses.append(loss)
        backend.state = jax.block_until_ready(state)
        return fetch(losses)

    def _learn_batch(self, state: Any, images: jax.Array, labels: jax.Array) -> Any:
        return self._backend.train_step(state, images, labels)

    def _batches(self, order: np.ndarray) -> Iterable[Batch]:
        """Return the scaled images, float32, and the labels, int32, of each row of `order`."""
        images, labels = self._images, self._backend.labels

        def sample(index: np.int32) -> tuple[np.ndarray, np.int32]:
            return images[index].astype(np.float32) / 255, labels[index]

        return (
            grain.MapDataset.source(order.ravel())
            .map(sample)
            .batch(order.shape[1], drop_remainder=True)
            .to_iter_dataset(READING)
        )

    def split(self, order: np.ndarray, clock: StepClock) -> None:
        backend, state = self._backend, self._backend.state
        batches = iter(self._batches(order))
        for _ in order:
            clock.begin()
            batch = next(batches)
            clock.mark("data")
            sent = jax.block_until_ready(jax.device_put(batch, backend.device))
            clock.mark("transfer")
            state, loss = self._learn(state, *sent)
            clock.mark("dispatch")
            jax.block_until_ready((state, loss))
            clock.mark("device")
        backend.state = state

    def counted_step(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        backend = self._backend
        shape = (backend.workload.batch_size, *backend.info.image_shape)
        labels = jax.ShapeDtypeStruct(shape[:1], jnp.int32)
        return self._learn_batch, (backend.state, jax.ShapeDtypeStruct(shape, self.pixels), labels)


class GrainBatches(GrainSamples):
    """Trains as `GrainSamples` does, but one call gathers a whole batch.

    The source yields rows of indices. A batch stays uint8 until it is on the device: as float32 it would be
    four times as large.
    """

    pixels = jnp.uint8

    def _learn_batch(self, state: Any, images: jax.Array, labels: jax.Array) -> Any:
        return self._backend.train_step(state, scale(images), labels)

    def _batches(self, order: np.ndarray) -> Iterable[Batch]:
        """Return the images, uint8, and the labels, int32, of each row of `order`."""
        images, labels = self._images, self._backend.labels

        def gather(row: np.ndarray) -> Batch:
            return images[row], labels[row]

        return grain.MapDataset.source(order).map(gather).to_iter_dataset(READING)
