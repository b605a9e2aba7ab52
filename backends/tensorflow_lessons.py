"""TensorFlow's lessons: slow and quick ways to train, as users write them.

`make_network` and `train_step` are the network and the training step of TensorFlow's quickstart for experts.
Nothing is tuned. Both are without types, as students write them. `backends.lessons` is the contract.
"""

from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from backends.base import TrainingData
from backends.tensorflow_device import find_device
from bench.workloads.specs import Device

RATE = 0.01


def make_network():
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(512, activation="relu"),
            keras.layers.Dense(256, activation="relu"),
            keras.layers.Dense(10),
        ]
    )


@tf.function
def train_step(model, optimizer, images, labels):
    with tf.GradientTape() as tape:
        logits = model(images, training=True)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        loss = tf.reduce_mean(losses)
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply(gradients, model.trainable_variables)
    return loss


def make_optimizer(model: keras.Model) -> keras.Optimizer:
    optimizer = keras.optimizers.SGD(RATE)
    optimizer.build(model.trainable_variables)
    return optimizer


def scaled(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.cast(images, tf.float32) / 255, labels


class TensorFlowLessons:
    """Keeps the contract `backends.lessons.Lessons`."""

    def __init__(self, data: TrainingData, *, device: Device) -> None:
        find_device(device)
        with tf.device("/CPU:0"):
            arrays = np.asarray(data.images), data.labels.astype(np.int64)
            self.samples = tf.data.Dataset.from_tensor_slices(arrays)
            self.shuffled = self.samples.shuffle(len(data.images)).repeat()
        self.model = make_network()
        self.optimizer = make_optimizer(self.model)
        self._iterators: dict[tuple[str, int], Iterator[tuple[tf.Tensor, tf.Tensor]]] = {}

    def device(self) -> str:
        return "gpu" if "GPU" in self.model.trainable_variables[0].value.device else "cpu"

    # Why is mine slow?

    def sample_by_sample(self, steps: int, batch_size: int) -> list[float]:
        losses = []
        batches = self.prepared_one_by_one(batch_size)
        for _ in range(steps):
            images, labels = next(batches)
            losses.append(train_step(self.model, self.optimizer, images, labels))
        return read(losses)

    def batch_by_batch(self, steps: int, batch_size: int) -> list[float]:
        losses = []
        batches = self.prepared_together(batch_size)
        for _ in range(steps):
            images, labels = next(batches)
            losses.append(train_step(self.model, self.optimizer, images, labels))
        return read(losses)

    def not_compiled(self, steps: int, batch_size: int) -> list[float]:
        losses = []
        batches = self.prepared_together(batch_size)
        eager_step = train_step.python_function  # as if the line @tf.function were missing
        for _ in range(steps):
            images, labels = next(batches)
            losses.append(eager_step(self.model, self.optimizer, images, labels))
        return read(losses)

    compiled = batch_by_batch

    def loss_every_step(self, steps: int, batch_size: int) -> list[float]:
        losses = []
        batches = self.prepared_together(batch_size)
        for _ in range(steps):
            images, labels = next(batches)
            loss = train_step(self.model, self.optimizer, images, labels)
            losses.append(loss.numpy().item())
        tf.test.experimental.sync_devices()
        return losses

    # Batches without end, from a pipeline that keeps running between two calls

    def prepared_one_by_one(self, batch_size: int) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        """Let tf.data scale every single image, and then join them."""
        batches = self.shuffled.map(scaled).batch(batch_size, drop_remainder=True)
        return self.running("one by one", batch_size, batches.prefetch(tf.data.AUTOTUNE))

    def prepared_together(self, batch_size: int) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        """Let tf.data join the images, and then scale a whole batch."""
        batches = self.shuffled.batch(batch_size, drop_remainder=True).map(scaled)
        return self.running("together", batch_size, batches.prefetch(tf.data.AUTOTUNE))

    def running(
        self, name: str, batch_size: int, batches: tf.data.Dataset
    ) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        key = name, batch_size
        if key not in self._iterators:
            self._iterators[key] = iter(batches)
        return self._iterators[key]

    # What does an error look like?

    def step_on(self, images: np.ndarray, labels: np.ndarray) -> float:
        model = make_network()
        batch = tf.constant(images), tf.constant(labels.astype(np.int64))
        return float(train_step(model, make_optimizer(model), *batch))

    def checked_step_on(self, images: np.ndarray, labels: np.ndarray) -> float:
        tf.debugging.enable_check_numerics()
        try:
            return self.step_on(images, labels)
        finally:
            tf.debugging.disable_check_numerics()


def read(losses: list[tf.Tensor]) -> list[float]:
    """Read the losses, and wait until the last update is done: a loss is ready before its update is."""
    tf.test.experimental.sync_devices()
    return tf.stack(losses).numpy().tolist()
