"""Mode `loop`: many training steps are one call of a jitted function.

The loop has three forms, as no one of them is fast everywhere; `Loop` chooses.
"""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from backends.jax_instruments import InstrumentedRunner

if TYPE_CHECKING:
    from backends.jax_backend import JaxBackend, TrainState

COUNTED_STEPS = 100
"""The most steps per call of `CountedLoop`; it compiles once, as its shape is fixed and its count is not."""
SCANNED_STEPS = 16
"""Steps per call of mode `loop` on a GPU. The remaining steps are trained one by one."""
UNROLLED_STEPS = 4
"""Steps per call of a network with convolutions on a CPU."""
SENT_INDICES = 2**16
"""Indices per transfer in `CarriedSteps`: 256 KiB, and 1.75 MiB of draws if images are augmented. More if
`SCANNED_STEPS` batches need more."""


class Loop(InstrumentedRunner):
    """Trains in the form of loop that is fastest for the network on the device."""

    def __init__(self, backend: "JaxBackend") -> None:
        super().__init__(backend)
        self._form: CarriedSteps | CountedLoop
        if backend.on_gpu:
            # In a loop whose count is an argument, a GPU waits for the host at every step.
            self._form = CarriedSteps(backend, SCANNED_STEPS)
        elif backend.workload.architecture.convs:
            # Inside a loop, XLA's convolutions on a CPU are many times slower.
            self._form = CarriedSteps(backend, UNROLLED_STEPS, unroll=0)
        else:
            self._form = CountedLoop(backend)
        self.call_steps = self._form.call_steps

    def train(self, order: np.ndarray, draws: np.ndarray | None) -> np.ndarray:  # noqa: ARG002 (augments none)
        return self._form.train(order)


class CarriedSteps:
    """A fixed number of steps per call; state, the next step's number and the losses stay on the device.

    A transfer to or from a GPU takes as long as a small step, so no step has one: the indices of many batches
    are sent together, and their draws too. Mode `jit` trains so on a GPU.
    """

    def __init__(self, backend: "JaxBackend", call_steps: int, *, unroll: int = 1) -> None:
        """`unroll` is that of `jax.lax.scan`: with 0 the steps of a call are not in a loop."""
        self._backend, self.call_steps, self._unroll = backend, call_steps, unroll
        fitting = SENT_INDICES // (SCANNED_STEPS * backend.workload.batch_size)
        self._sent_steps = SCANNED_STEPS * max(1, fitting)
        self._next = backend.jitted(
            self._take_next, donate_argnums=0, static_argnames="steps", **backend.layout.outputs
        )

    def train(self, order: np.ndarray, draws: np.ndarray | None = None) -> np.ndarray:
        """Train one step per row of `order`, and of `draws`; return the losses, float32 (steps,)."""
        backend = self._backend
        state, losses = backend.state, []
        batches = order if draws is None else (order, draws)
        for count, chunk in chunks(batches, self._sent_steps, backend.layout):
            start = (np.int32(0), np.zeros(self._sent_steps, np.float32))
            carry = (state, *backend.layout.put(start))
            calls, left = divmod(count, self.call_steps)
            for steps in [self.call_steps] * calls + [1] * left:
                carry = self._next(carry, chunk, backend.images, backend.labels, steps=steps)
            state, _, chunk_losses = carry
            losses.append(chunk_losses)
        backend.state = jax.block_until_ready(state)
        return np.concatenate(losses)[: len(order)]

    def _take_next(
        self, carry: Any, batches: Any, images: jax.Array, labels: jax.Array, *, steps: int
    ) -> Any:
        """Take the next `steps` steps of a chunk of batches: arrays (chunk, ...)."""
        state, number, losses = carry
        rows = jax.tree.map(lambda array: jax.lax.dynamic_slice_in_dim(array, number, steps), batches)
        state, found = jax.lax.scan(
            lambda state, batch: self._backend.step(state, batch, images, labels),
            state,
            rows,
            unroll=self._unroll if steps > 1 else 0,  # one step needs no loop
        )
        return state, number + steps, jax.lax.dynamic_update_slice_in_dim(losses, found, number, 0)


class CountedLoop:
    """A loop whose count is an argument, so any number of steps is one call of the same program."""

    call_steps = 1

    def __init__(self, backend: "JaxBackend") -> None:
        self._backend = backend
        self._loop = backend.jitted(self._take_steps, donate_argnums=0)

    def train(self, order: np.ndarray) -> np.ndarray:
        """Train one step per row of `order`; return the losses, float32 (steps,)."""
        backend = self._backend
        state, losses = backend.state, []
        for steps, chunk in chunks(order, COUNTED_STEPS, backend.layout):
            state, chunk_losses = self._loop(state, chunk, steps, backend.images, backend.labels)
            losses.append(chunk_losses)
        backend.state = jax.block_until_ready(state)
        return np.concatenate(losses)[: len(order)]

    def _take_steps(
        self, state: "TrainState", order: jax.Array, steps: int, images: jax.Array, labels: jax.Array
    ) -> tuple["TrainState", jax.Array]:
        """Take the first `steps` steps of an order, int32 (`COUNTED_STEPS`, batch)."""

        def body(step: jax.Array, carry: Any) -> Any:
            state, losses = carry
            state, loss = self._backend.step(state, order[step], images, labels)
            return state, losses.at[step].set(loss)

        return jax.lax.fori_loop(0, steps, body, (state, jnp.zeros(len(order))))


def chunks(batches: Any, most: int, layout: Any) -> Iterator[tuple[int, Any]]:
    """Yield how many steps each chunk has, at most `most`, and its rows on devices, padded to `most`.

    `batches` is an array (steps, ...) or a tuple of such arrays, and so is a chunk.
    """
    total = len(jax.tree.leaves(batches)[0])
    for start in range(0, total, most):
        steps = min(most, total - start)
        chunk = jax.tree.map(partial(padded, start=start, steps=steps, most=most), batches)
        yield steps, layout.rows(chunk)


def padded(array: np.ndarray, *, start: int, steps: int, most: int) -> np.ndarray:
    """Return `steps` rows of an array from `start` on, and zeros up to `most` rows."""
    chunk = np.zeros((most, *array.shape[1:]), array.dtype)
    chunk[:steps] = array[start : start + steps]
    return chunk
