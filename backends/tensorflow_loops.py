"""TensorFlow's modes `graph-loop` and `xla-loop`, in which many training steps are one call."""

import numpy as np
import tensorflow as tf

from backends.tensorflow_backend import TensorFlowBackend
from backends.tensorflow_steps import CarriedSteps, looped, unrolled

COUNTED_STEPS = 100
"""The most steps per call of `CountedLoop`."""
UNROLLED_STEPS = 4
"""Steps per call of mode `xla-loop` for a network with convolutions on a CPU."""
LOOPED_STEPS = 16
"""Steps per call of mode `xla-loop` on a GPU."""


class GraphLoopRunner:
    """Mode `graph-loop`: all steps are one call of a tf.function, which holds the loop."""

    call_steps = 1
    jit_compile = False

    def __init__(self, backend: TensorFlowBackend) -> None:
        self._step = backend.step
        batches = tf.TensorSpec([None, backend.workload.batch_size], tf.int64)
        self._loop = tf.function(self._train_loop, input_signature=[batches])

    def train(self, order: np.ndarray, draws: None) -> tf.Tensor:  # noqa: ARG002 - it augments no images
        return self._loop(tf.constant(order.astype(np.int64)))

    def _train_loop(self, batches: tf.Tensor) -> tf.Tensor:
        steps = tf.shape(batches)[0]
        losses = tf.TensorArray(tf.float32, size=steps)
        for step in tf.range(steps):
            losses = losses.write(step, self._step(batches[step]))
        return losses.stack()


class XlaLoopRunner:
    """Mode `xla-loop`: many steps are one call of a program that XLA compiles.

    The loop has three forms, as no one of them is fast everywhere.
    """

    jit_compile = True

    def __init__(self, backend: TensorFlowBackend) -> None:
        self._form: CarriedSteps | CountedLoop
        if backend.device == "gpu":
            # If the number of steps is an argument, XLA asks the GPU in every step whether another follows.
            self._form = CarriedSteps(backend, jit_compile=True, repeat=looped, call_steps=LOOPED_STEPS)
        elif backend.workload.architecture.convs:
            # On a CPU a convolution inside a loop of XLA is many times slower than outside.
            self._form = CarriedSteps(backend, jit_compile=True, repeat=unrolled, call_steps=UNROLLED_STEPS)
        else:
            self._form = CountedLoop(backend)
        self.call_steps = self._form.call_steps

    def train(self, order: np.ndarray, draws: None) -> tf.Tensor:
        return self._form.train(order, draws)


class CountedLoop:
    """Trains up to `COUNTED_STEPS` steps per call, in a loop.

    The program takes indices of a fixed shape and the number of steps, so that XLA compiles it once.
    """

    call_steps = 1

    def __init__(self, backend: TensorFlowBackend) -> None:
        self._step = backend.step
        batches = tf.TensorSpec([COUNTED_STEPS, backend.workload.batch_size], tf.int64)
        signature = [batches, tf.TensorSpec([], tf.int32)]
        self._chunk = tf.function(self._train_chunk, input_signature=signature, jit_compile=True)

    def train(self, order: np.ndarray, draws: None) -> tf.Tensor:  # noqa: ARG002 - it augments no images
        starts = range(0, len(order), COUNTED_STEPS)
        return tf.concat([self._padded(order[i : i + COUNTED_STEPS]) for i in starts], axis=0)

    def _padded(self, order: np.ndarray) -> tf.Tensor:
        """Train up to `COUNTED_STEPS` steps in one call, and return their losses."""
        padded = np.pad(order.astype(np.int64), ((0, COUNTED_STEPS - len(order)), (0, 0)))
        return self._chunk(tf.constant(padded), tf.constant(len(order)))[: len(order)]

    def _train_chunk(self, batches: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
        losses, step = tf.zeros(COUNTED_STEPS), tf.constant(0)
        while step < steps:  # with a range, XLA would compile again for every length
            loss = self._step(batches[step])
            losses = tf.tensor_scatter_nd_update(losses, [[step]], [loss])
            step += 1
        return losses
