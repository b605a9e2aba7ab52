"""TensorFlow's mode `tutorial`: the training loop of its own quickstart, with nothing tuned.

It follows https://www.tensorflow.org/tutorials/quickstart/advanced, except for what every row needs: the
order of the images is given instead of drawn by `.shuffle`, network and optimizer are those of the workload,
and the loss of each step is returned instead of its mean. No accuracy is computed in training.
"""

from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from backends.step_clock import StepClock
from backends.tensorflow_backend import TensorFlowBackend


class TutorialRunner:
    """Mode `tutorial`: a step is one call of a tf.function, on a batch from tf.data."""

    call_steps = 1
    jit_compile = False

    def __init__(self, backend: TensorFlowBackend) -> None:
        # All images are scaled once, before training. As float32 they take four times the memory of the
        # bytes: 188 MB of MNIST, 614 MB of CIFAR-10.
        self._x_train = backend.data.images / np.float32(255)
        self._y_train = backend.data.labels.astype(np.int64)

        model, optimizer = backend.network, backend.optimizer
        loss_object = keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, reduction="sum" if backend.workload.loss == "sum" else "sum_over_batch_size"
        )

        @tf.function
        def train_step(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                predictions = model(images, training=True)
                loss = loss_object(labels, predictions)
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            return loss

        self._train_step = train_step

    def train(self, order: np.ndarray, draws: None) -> tf.Tensor:  # noqa: ARG002 - it augments no images
        train_ds = self._make_dataset(order)
        losses = []
        for images, labels in train_ds:
            losses.append(self._train_step(images, labels))
        return tf.stack(losses)

    def _make_dataset(self, order: np.ndarray) -> tf.data.Dataset:
        """Return the batches of an order, int32 (steps, batch)."""
        rows = order.ravel()  # in place of `.shuffle`: NumPy copies the images of these steps in their order
        with tf.device("/CPU:0"):  # a data set stays on the host
            train_ds = tf.data.Dataset.from_tensor_slices((self._x_train[rows], self._y_train[rows]))
            return train_ds.batch(order.shape[1])

    def fetch(self, order: np.ndarray, clock: StepClock) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        """Yield the batch of each row; mark the parts `data` and `transfer`."""
        for batch in self._make_dataset(order):
            clock.mark("data")
            images, labels = (tf.identity(part) for part in batch)
            tf.test.experimental.sync_devices()
            clock.mark("transfer")
            yield images, labels
