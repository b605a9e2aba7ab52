"""TensorFlow's modes `tf-data-batches` and `tf-data-samples`: batches come through tf.data."""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from backends.step_clock import StepClock
from backends.tensorflow_backend import TensorFlowBackend

Batch = tuple[tf.Tensor, tf.Tensor]


class BatchesRunner:
    """Mode `tf-data-batches`: a step is one call of a tf.function, on a batch that tf.data gathered."""

    call_steps = 1
    jit_compile = False

    def __init__(self, backend: TensorFlowBackend) -> None:
        self._backend = backend
        with tf.device("/CPU:0"):
            shape = [None, backend.workload.batch_size]
            self._order = tf.Variable(tf.zeros([0, *shape[1:]], tf.int64), shape=shape, trainable=False)
        self._pipeline = self._make_pipeline()
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
            self._order.assign(order.astype(np.int64))
        with tf.device(self._backend.device_name):
            return iter(self._pipeline)

    def _make_pipeline(self) -> tf.data.Dataset:
        """Return the images and labels of each row of `self._order`, made while the previous step trains.

        It is made once, as `prefetch_to_device` traces six functions. It is made outside of a tf.function:
        one that returns a data set cannot copy it to a GPU.
        """
        with tf.device("/CPU:0"):
            once = tf.data.Dataset.from_tensors(0)
            rows = once.flat_map(lambda _: tf.data.Dataset.from_tensor_slices(self._order.read_value()))
            batches = self._make_batches(rows)
            if self._backend.device == "cpu":
                return batches.prefetch(tf.data.AUTOTUNE)
        return batches.apply(tf.data.experimental.prefetch_to_device(self._backend.device_name))

    def _make_batches(self, rows: tf.data.Dataset) -> tf.data.Dataset:
        return rows.map(self._backend.batch, num_parallel_calls=tf.data.AUTOTUNE)


class SamplesRunner(BatchesRunner):
    """Mode `tf-data-samples`: as `tf-data-batches`, but tf.data makes sample by sample and joins them.

    These are the steps of tensorflow.org/datasets/keras_example, except for the order, which is given, and
    for its cache.
    """

    def _make_batches(self, rows: tf.data.Dataset) -> tf.data.Dataset:
        samples = rows.unbatch().map(self._backend.batch, num_parallel_calls=tf.data.AUTOTUNE)
        return samples.batch(self._backend.workload.batch_size, drop_remainder=True)
