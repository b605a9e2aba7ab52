"""Training steps without transfers: the rows of many steps and the next one's number are on the device."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

if TYPE_CHECKING:
    from backends.tensorflow_backend import TensorFlowBackend

Step = Callable[[tf.Tensor | int], tf.Tensor]
"""Takes the k-th step of a call; returns its loss."""
Repeat = Callable[[Step, int], tf.Tensor]
"""Takes so many steps; returns their losses, float32 (steps,)."""
SENT_INDICES = 2**16
"""Indices per transfer to the device, 512 KiB; more if `SENT_MULTIPLE` batches need more."""
SENT_MULTIPLE = 16
"""Rows are sent for a multiple of this many steps. The `call_steps` of every mode divides it."""


def unrolled(step: Step, steps: int) -> tf.Tensor:
    """Take the steps without a loop."""
    return tf.stack([step(k) for k in range(steps)])


def looped(step: Step, steps: int) -> tf.Tensor:
    """Take the steps in a loop whose length XLA knows.

    XLA does not find the length of a loop over `tf.range(steps)`, which has a second condition.
    """
    losses, k = tf.TensorArray(tf.float32, steps, element_shape=()), tf.constant(0)
    while k < steps:
        losses = losses.write(k, step(tf.cast(k, tf.int64)))
        k += 1
    return losses.stack()


class CarriedSteps:
    """Trains a fixed number of steps per call, and the remaining steps one by one.

    A transfer to a GPU, or a wait for one, takes as long as a small step. A call therefore takes the number
    of its first row, which stays on the device, and returns the number of the next one.
    """

    def __init__(
        self,
        backend: "TensorFlowBackend",
        *,
        jit_compile: bool,
        repeat: Repeat = unrolled,
        call_steps: int = 1,
        step: Callable[..., tf.Tensor] | None = None,
    ) -> None:
        """`step` trains on one row as `backend.step`, which it is by default."""
        self._step, self._repeat, self.call_steps = step or backend.step, repeat, call_steps
        fitting = SENT_INDICES // (SENT_MULTIPLE * backend.workload.batch_size)
        self._sent_steps = SENT_MULTIPLE * max(1, fitting)
        rows = [tf.TensorSpec([self._sent_steps, *row.shape], row.dtype) for row in backend.row_spec]
        given = {"input_signature": [tf.TensorSpec([], tf.int64), *rows], "jit_compile": jit_compile}
        self._one = tf.function(self._take_one, **given)
        self._several = tf.function(self._take_several, **given)

    def train(self, order: np.ndarray, draws: np.ndarray | None) -> tf.Tensor:
        """Train one step per row; return the losses, float32 (steps,)."""
        losses = []
        for start in range(0, len(order), self._sent_steps):
            parts = [part[start : start + self._sent_steps] for part in (order, draws) if part is not None]
            rows, number = [self._sent(part) for part in parts], tf.constant(0, tf.int64)
            for program in self._programs(len(parts[0])):
                found, number = program(number, *rows)
                losses.append(found)
        return tf.concat(losses, axis=0)

    def _sent(self, rows: np.ndarray) -> tf.Tensor:
        """Return rows on the device, padded to a fixed number, for which XLA compiles once.

        Indices are int64, because TensorFlow keeps int32 on the host.
        """
        kind = np.int64 if rows.dtype == np.int32 else rows.dtype
        padded = np.zeros((self._sent_steps, *rows.shape[1:]), kind)
        padded[: len(rows)] = rows
        return tf.constant(padded)

    def _programs(self, steps: int) -> list[tf.types.experimental.ConcreteFunction]:
        """Return the programs to call one after another for so many steps; no other is traced."""
        calls, left = divmod(steps, self.call_steps)
        several = [self._several.get_concrete_function()] * calls if calls else []
        return several + ([self._one.get_concrete_function()] * left if left else [])

    def _take_one(self, number: tf.Tensor, *rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return self._take(unrolled, 1, number, rows)

    def _take_several(self, number: tf.Tensor, *rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return self._take(self._repeat, self.call_steps, number, rows)

    def _take(
        self, repeat: Repeat, steps: int, number: tf.Tensor, rows: tuple[tf.Tensor, ...]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Take steps from row `number` on, int64 (); return the losses, (steps,), and the next number."""

        def step(k: tf.Tensor | int) -> tf.Tensor:
            return self._step(*(tf.gather(part, number + k) for part in rows))

        return repeat(step, steps), number + steps
