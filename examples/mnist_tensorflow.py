"""Train a small CNN on MNIST with TensorFlow.

This file needs TensorFlow and NumPy, and nothing else:

    pip install tensorflow numpy
    python examples/mnist_tensorflow.py FOLDER

FOLDER holds the four files of MNIST as they are published, gzipped or not. This command writes them:

    bench data export mnist FOLDER

mnist_pytorch.py and mnist_jax.py train the same network from the same weights with the same batches.
"""

import argparse
import gzip
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

SEED, BATCH, RATE = 0, 100, 0.1


# The data


def read_idx(folder: Path, name: str) -> np.ndarray:
    """Read a file such as train-images-idx3-ubyte.gz: uint8 (images, 28, 28) or, of labels, (images,)."""
    found = sorted(folder.glob(f"{name}*"))
    if not found:
        raise SystemExit(f"{folder} has no file {name}-...; write it with: bench data export mnist {folder}")
    content = found[0].read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    dimensions = content[3]
    shape = np.frombuffer(content, ">u4", dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def batches(images: np.ndarray, labels: np.ndarray, epoch: int) -> tf.data.Dataset:
    """Return the batches of an epoch in an order of its own, without an incomplete last one."""
    order = np.random.Generator(np.random.PCG64([SEED, epoch])).permutation(len(images))
    arrays = images[order, ..., np.newaxis], labels[order].astype(np.int64)
    samples = tf.data.Dataset.from_tensor_slices(arrays).batch(BATCH, drop_remainder=True)
    # A whole batch is scaled at once, and the next one is made while the network trains.
    return samples.map(scaled, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def scaled(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.cast(images, tf.float32) / 255, labels


# The network


def glorot(number: int, *shape: int) -> np.ndarray:
    """Draw a kernel, (height, width, in, out) or (in, out), from a random stream of its own."""
    area = int(np.prod(shape[:-2]))
    limit = np.sqrt(6.0 / (area * (shape[-2] + shape[-1])))
    generator = np.random.Generator(np.random.PCG64([SEED, number]))
    return generator.uniform(-limit, limit, shape).astype(np.float32)


def make_model() -> keras.Sequential:
    """Return the network with the weights from which the files for the other frameworks start, too."""
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(32, 5, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(2),
            keras.layers.Conv2D(64, 5, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(2),
            keras.layers.Flatten(),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    kernels = glorot(0, 5, 5, 1, 32), glorot(2, 5, 5, 32, 64), glorot(4, 7 * 7 * 64, 128), glorot(6, 128, 10)
    # A layer has a kernel, and a bias that starts at zero.
    model.set_weights([part for kernel in kernels for part in (kernel, np.zeros(kernel.shape[-1]))])
    return model


# Training


@tf.function
def train_step(
    model: keras.Model, optimizer: keras.Optimizer, images: tf.Tensor, labels: tf.Tensor
) -> tf.Tensor:
    with tf.GradientTape() as tape:
        logits = model(images, training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply(gradients, model.trainable_variables)
    return loss


def train_epoch(model: keras.Model, images: np.ndarray, labels: np.ndarray, epoch: int) -> list[float]:
    """Train for one epoch and return the loss of each step."""
    optimizer = keras.optimizers.SGD(RATE)
    optimizer.build(model.trainable_variables)  # its variables must exist before the step is traced
    losses = []
    for x, y in batches(images, labels, epoch):
        losses.append(train_step(model, optimizer, x, y))  # .numpy() here would wait at every step
    return tf.stack(losses).numpy().tolist()


@tf.function
def predicted(model: keras.Model, images: tf.Tensor) -> tf.Tensor:
    return tf.argmax(model(images, training=False), axis=1)


def accuracy(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> float:
    samples = tf.data.Dataset.from_tensor_slices((images[..., np.newaxis], labels.astype(np.int64)))
    right = [
        tf.reduce_sum(tf.cast(predicted(model, x) == y, tf.int32)) for x, y in samples.batch(1000).map(scaled)
    ]
    return float(sum(right)) / len(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small CNN on MNIST with TensorFlow.")
    parser.add_argument("folder", type=Path, help="with the four files of MNIST")
    parser.add_argument("--epochs", type=int, default=1)
    asked = parser.parse_args()
    names = ("train-images", "train-labels", "t10k-images", "t10k-labels")
    train_x, train_y, test_x, test_y = (read_idx(asked.folder, name) for name in names)
    model = make_model()
    for epoch in range(asked.epochs):
        start = time.perf_counter()
        losses = train_epoch(model, train_x, train_y, epoch)
        seconds = time.perf_counter() - start
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}, {seconds:.1f} s", end=", ")
        print(f"test accuracy {accuracy(model, test_x, test_y):.2%}")


if __name__ == "__main__":
    main()
