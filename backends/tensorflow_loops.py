"""TensorFlow's modes `graph-loop` and `xla-loop`, in which many training steps are one call."""

import numpy as np
import tensorflow as tf

from backends.tensorflow_backend import TensorFlowBackend

CHUNK_STEPS = 100
"""The most steps per call in mode `xla-loop`."""
UNROLLED_STEPS = 4
"""Steps per call in mode `xla-loop` if the loop is unrolled."""


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
    """Mode `xla-loop`: a loop that XLA compiles, or unrolled steps if a loop would slow them down."""

    jit_compile = True

    def __init__(self, backend: TensorFlowBackend) -> None:
        # On a CPU a convolution inside a loop of XLA is many times slower than outside.
        unrolls = backend.device == "cpu" and bool(backend.workload.architecture.convs)
        self._steps = UnrolledSteps(backend) if unrolls else LoopedSteps(backend)
        self.call_steps = self._steps.call_steps

    def train(self, order: np.ndarray, draws: None) -> tf.Tensor:  # noqa: ARG002 - it augments no images
        return self._steps.train(order)


class LoopedSteps:
    """Trains up to `CHUNK_STEPS` steps per call, in a loop.

    The program takes indices of a fixed shape and the number of steps, so that XLA compiles it once.
    """

    call_steps = 1

    def __init__(self, backend: TensorFlowBackend) -> None:
        self._step = backend.step
        batches = tf.TensorSpec([CHUNK_STEPS, backend.workload.batch_size], tf.int64)
        signature = [batches, tf.TensorSpec([], tf.int32)]
        self._chunk = tf.function(self._train_chunk, input_signature=signature, jit_compile=True)

    def train(self, order: np.ndarray) -> tf.Tensor:
        starts = range(0, len(order), CHUNK_STEPS)
        return tf.concat([self._padded(order[i : i + CHUNK_STEPS]) for i in starts], axis=0)

    def _padded(self, order: np.ndarray) -> tf.Tensor:
        """Train up to `CHUNK_STEPS` steps in one call, and return their losses."""
        padded = np.pad(order.astype(np.int64), ((0, CHUNK_STEPS - len(order)), (0, 0)))
        return self._chunk(tf.constant(padded), tf.constant(len(order)))[: len(order)]

    def _train_chunk(self, batches: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
        losses, step = tf.zeros(CHUNK_STEPS), tf.constant(0)
        while step < steps:  # with a range, XLA would compile again for every length
            loss = self._step(batches[step])
            losses = tf.tensor_scatter_nd_update(losses, [[step]], [loss])
            step += 1
        return losses


class UnrolledSteps:
    """Trains `UNROLLED_STEPS` steps per call, without a loop; the remaining steps are trained one by one."""

    call_steps = UNROLLED_STEPS

    def __init__(self, backend: TensorFlowBackend) -> None:
        self._plain_step = backend.step
        _, batch = backend.batch_spec
        batches = tf.TensorSpec([UNROLLED_STEPS, backend.workload.batch_size], tf.int64)
        self._step = tf.function(backend.step, input_signature=[batch], jit_compile=True)
        self._few = tf.function(self._train_few, input_signature=[batches], jit_compile=True)

    def train(self, order: np.ndarray) -> tf.Tensor:
        starts = range(0, len(order), UNROLLED_STEPS)
        return tf.concat([self._unrolled(order[i : i + UNROLLED_STEPS]) for i in starts], axis=0)

    def _unrolled(self, order: np.ndarray) -> tf.Tensor:
        """Train `UNROLLED_STEPS` steps in one call, or fewer step by step, and return their losses."""
        batches = tf.constant(order.astype(np.int64))
        if len(order) == UNROLLED_STEPS:
            return self._few(batches)
        return tf.stack([self._step(batch) for batch in tf.unstack(batches)])

    def _train_few(self, batches: tf.Tensor) -> tf.Tensor:
        return tf.stack([self._plain_step(batch) for batch in tf.unstack(batches)])
