"""TensorFlow's mode `tf-data`: batches come through `tf.data`, TensorFlow's input pipeline."""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from backends.step_clock import StepClock
from backends.tensorflow_backend import TensorFlowBackend

Batch = tuple[tf.Tensor, tf.Tensor]


class PipelineRunner:
    """Mode `tf-data`: a training step is one call of a tf.function, on a batch that `tf.data` made."""

    call_steps = 1
    jit_compile = False

    def __init__(self, backend: TensorFlowBackend) -> None:
        self._batch = backend.batch
        batches = tf.TensorSpec([None, backend.workload.batch_size], tf.int64)
        self._pipeline = tf.function(self._make_pipeline, input_signature=[batches])
        self._update = tf.function(
            backend.update, input_signature=backend.batch_spec, jit_compile=self.jit_compile
        )

    def train(self, order: np.ndarray, draws: None) -> tf.Tensor:  # noqa: ARG002 - it augments no images
        update = self._update.get_concrete_function()
        return tf.stack([update(*batch) for batch in self._batches(order)])

    def fetch(self, order: np.ndarray, clock: StepClock) -> Iterator[Batch]:
        """Yield the batch of each row; mark the parts `data` and `transfer`."""
        for batch in self._batches(order):
            clock.mark("data")
            images, labels = (tf.identity(part) for part in batch)
            tf.test.experimental.sync_devices()
            clock.mark("transfer")
            yield images, labels

    def _batches(self, order: np.ndarray) -> Iterator[Batch]:
        """Start the pipeline, which takes some milliseconds, as at the start of an epoch.

        An endless iterator, fed through a queue, would start only once. But TensorFlow 2.21 crashes when it
        frees such an iterator while that waits for the queue.
        """
        with tf.device("/CPU:0"):
            return iter(self._pipeline(tf.constant(order.astype(np.int64))))

    def _make_pipeline(self, batches: tf.Tensor) -> tf.data.Dataset:
        """Return the images and labels of each row of indices, made while the previous step trains."""
        rows = tf.data.Dataset.from_tensor_slices(batches)
        return rows.map(self._batch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
