"""Mode `grain`: batches through Grain, JAX's own library for loading data."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from backends.jax_backend import fetch
from backends.jax_instruments import InstrumentedRunner
from backends.step_clock import StepClock
from bench.errors import UnavailableError

if TYPE_CHECKING:
    from backends.jax_backend import JaxBackend


class Grain(InstrumentedRunner):
    """Trains as mode `jit` does, but Grain makes the batches, sample by sample in NumPy.

    The steps are those of "Plugging Grain into JAX training" (google-grain.readthedocs.io), except for the
    order, which is given.
    """

    call_steps = 1

    def __init__(self, backend: "JaxBackend") -> None:
        try:
            import grain
        except ImportError as error:
            raise UnavailableError(f"mode grain needs the package grain: {error}") from error
        super().__init__(backend)
        self._grain, self.versions = grain, {"grain": grain.__version__}
        self._images = np.asarray(backend.images)  # indexing an np.memmap takes longer

    def train(self, order: np.ndarray, draws: np.ndarray | None) -> np.ndarray:  # noqa: ARG002 (augments none)
        backend, learn = self._backend, self._backend.learn
        state, losses = backend.state, []
        for batch in self._batches(order):
            state, loss = learn(state, *jax.device_put(batch, backend.device))
            losses.append(loss)
        backend.state = jax.block_until_ready(state)
        return fetch(losses)

    def _batches(self, order: np.ndarray) -> Iterable[tuple[np.ndarray, np.ndarray]]:
        """Return the scaled images, float32, and the labels, int32, of each row of `order`.

        One thread works ahead, as the images are in memory and Python runs one thread at a time. At most four
        batches wait: Grain's default of 500 would be 600 MB of CIFAR-10. There are no worker processes: a job
        is one process, and workers would take seconds to start at every call.
        """
        images, labels = self._images, self._backend.labels

        def sample(index: np.int32) -> tuple[np.ndarray, np.int32]:
            return images[index].astype(np.float32) / 255, labels[index]

        return (
            self._grain.MapDataset.source(order.ravel())
            .map(sample)
            .batch(order.shape[1], drop_remainder=True)
            .to_iter_dataset(self._grain.ReadOptions(num_threads=1, prefetch_buffer_size=4))
        )

    def timed_batches(self, order: np.ndarray, clock: StepClock) -> Iterator[tuple[jax.Array, jax.Array]]:
        batches = iter(self._batches(order))
        for _ in order:
            clock.begin()
            batch = next(batches)
            clock.mark("data")
            sent = jax.block_until_ready(jax.device_put(batch, self._backend.device))
            clock.mark("transfer")
            yield sent

    def lower_step(self) -> jax.stages.Lowered:
        backend = self._backend
        batch_size = backend.workload.batch_size
        x = jax.ShapeDtypeStruct((batch_size, *backend.info.image_shape), jnp.float32)
        labels = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
        return backend.learn.lower(backend.state, x, labels)
