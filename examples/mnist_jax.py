"""Train a small CNN on MNIST with JAX, Flax and Optax.

This file needs these and NumPy, and nothing else:

    pip install jax flax optax numpy
    python examples/mnist_jax.py FOLDER

FOLDER holds the four files of MNIST as they are published, gzipped or not. This command writes them:

    bench data export mnist FOLDER

mnist_tensorflow.py and mnist_pytorch.py train the same network from the same weights with the same batches.
"""

import argparse
import gzip
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

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


def batches(images: np.ndarray, labels: np.ndarray, epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the batches of an epoch in an order of its own, without an incomplete last one."""
    order = np.random.Generator(np.random.PCG64([SEED, epoch])).permutation(len(images))
    for rows in order[: len(order) // BATCH * BATCH].reshape(-1, BATCH):
        yield images[rows], labels[rows].astype(np.int32)


# The network


class CNN(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv1 = nnx.Conv(1, 32, kernel_size=(5, 5), rngs=rngs)
        self.conv2 = nnx.Conv(32, 64, kernel_size=(5, 5), rngs=rngs)
        self.dense1 = nnx.Linear(7 * 7 * 64, 128, rngs=rngs)
        self.logits = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        x = images[..., jnp.newaxis].astype(jnp.float32) / 255  # a batch comes as bytes, (n, 28, 28)
        x = nnx.max_pool(nnx.relu(self.conv1(x)), window_shape=(2, 2), strides=(2, 2))
        x = nnx.max_pool(nnx.relu(self.conv2(x)), window_shape=(2, 2), strides=(2, 2))
        x = x.reshape(x.shape[0], -1)
        return self.logits(nnx.relu(self.dense1(x)))


def glorot(number: int, *shape: int) -> np.ndarray:
    """Draw a kernel, (height, width, in, out) or (in, out), from a random stream of its own."""
    area = int(np.prod(shape[:-2]))
    limit = np.sqrt(6.0 / (area * (shape[-2] + shape[-1])))
    generator = np.random.Generator(np.random.PCG64([SEED, number]))
    return generator.uniform(-limit, limit, shape).astype(np.float32)


def make_model() -> CNN:
    """Return the network with the weights from which the files for the other frameworks start, too."""
    model = CNN(nnx.Rngs(SEED))  # its biases start at zero
    model.conv1.kernel[...] = jnp.asarray(glorot(0, 5, 5, 1, 32))
    model.conv2.kernel[...] = jnp.asarray(glorot(2, 5, 5, 32, 64))
    model.dense1.kernel[...] = jnp.asarray(glorot(4, 7 * 7 * 64, 128))
    model.logits.kernel[...] = jnp.asarray(glorot(6, 128, 10))
    return model


# Training


@nnx.jit
def train_step(model: CNN, optimizer: nnx.Optimizer, images: jax.Array, labels: jax.Array) -> jax.Array:
    def loss_of(model: CNN) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()

    loss, gradients = nnx.value_and_grad(loss_of)(model)
    optimizer.update(model, gradients)
    return loss


def train_epoch(model: CNN, images: np.ndarray, labels: np.ndarray, epoch: int) -> list[float]:
    """Train for one epoch and return the loss of each step."""
    optimizer = nnx.Optimizer(model, optax.sgd(RATE), wrt=nnx.Param)
    losses = []
    for x, y in batches(images, labels, epoch):
        losses.append(train_step(model, optimizer, x, y))  # .item() here would wait at every step
    return jnp.stack(losses).tolist()


@nnx.jit
def predicted(model: CNN, images: jax.Array) -> jax.Array:
    return model(images).argmax(axis=1)


def accuracy(model: CNN, images: np.ndarray, labels: np.ndarray) -> float:
    starts = range(0, len(images), 1000)
    right = [(predicted(model, images[i : i + 1000]) == labels[i : i + 1000]).sum() for i in starts]
    return float(sum(right)) / len(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small CNN on MNIST with JAX.")
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
