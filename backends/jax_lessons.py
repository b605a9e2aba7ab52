"""JAX's lessons: slow and quick ways to train, as users write them, with Flax and Optax.

`Network` and `train_step` are the network and the training step of Flax's MNIST tutorial. Nothing is tuned.
Both are without types, as students write them. `backends.lessons` is the contract.
"""

from collections.abc import Iterator
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from backends.base import TrainingData
from backends.jax_device import find_device
from bench.workloads.specs import Device

RATE = 0.01


class Network(nnx.Module):
    def __init__(self, rngs):
        self.hidden1 = nnx.Linear(28 * 28, 512, rngs=rngs)
        self.hidden2 = nnx.Linear(512, 256, rngs=rngs)
        self.logits = nnx.Linear(256, 10, rngs=rngs)

    def __call__(self, x):
        x = x.reshape(x.shape[0], -1)
        x = nnx.relu(self.hidden1(x))
        x = nnx.relu(self.hidden2(x))
        return self.logits(x)


@nnx.jit
def train_step(model, optimizer, images, labels):
    def loss_of(model):
        losses = optax.softmax_cross_entropy_with_integer_labels(model(images), labels)
        return losses.mean()

    loss, gradients = nnx.value_and_grad(loss_of)(model)
    optimizer.update(model, gradients)
    return loss


class JaxLessons:
    """Keeps the contract `backends.lessons.Lessons`."""

    def __init__(self, data: TrainingData, *, device: Device) -> None:
        find_device(device)
        self.images, self.labels = np.asarray(data.images), data.labels.astype(np.int32)
        self.model = Network(nnx.Rngs(0))
        self.optimizer = nnx.Optimizer(self.model, optax.sgd(RATE), wrt=nnx.Param)
        self._random = np.random.default_rng(0)

    def device(self) -> str:
        platform = next(iter(self.model.logits.kernel[...].devices())).platform
        return "cpu" if platform == "cpu" else "gpu"

    # Why is mine slow?

    def sample_by_sample(self, steps: int, batch_size: int) -> list[float]:
        losses = []
        for images, labels in islice(self.joined(batch_size), steps):
            losses.append(train_step(self.model, self.optimizer, images, labels))
        return self.read(losses)

    def batch_by_batch(self, steps: int, batch_size: int) -> list[float]:
        losses = []
        for images, labels in islice(self.cut_out(batch_size), steps):
            losses.append(train_step(self.model, self.optimizer, images, labels))
        return self.read(losses)

    def not_compiled(self, steps: int, batch_size: int) -> list[float]:
        losses = []
        eager_step = train_step.__wrapped__  # as if the line @nnx.jit were missing
        for images, labels in islice(self.cut_out(batch_size), steps):
            losses.append(eager_step(self.model, self.optimizer, images, labels))
        return self.read(losses)

    compiled = batch_by_batch

    def loss_every_step(self, steps: int, batch_size: int) -> list[float]:
        losses = []
        for images, labels in islice(self.cut_out(batch_size), steps):
            losses.append(train_step(self.model, self.optimizer, images, labels).item())
        self.wait()
        return losses

    def read(self, losses: list[jax.Array]) -> list[float]:
        self.wait()
        # Not stacked: a stack compiles for every number of steps, and would do so inside a timed turn.
        return [loss.item() for loss in losses]

    def wait(self) -> None:
        """Wait until the last update is done: a loss is ready before its update is."""
        jax.block_until_ready(nnx.state(self.model))

    # Batches without end, each epoch in a new order

    def joined(self, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Scale every single image in Python, and join them."""
        for rows in self.orders(batch_size):
            samples = [self.images[row].astype(np.float32) / 255 for row in rows]
            yield np.stack(samples), np.stack([self.labels[row] for row in rows])

    def cut_out(self, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Take all images of a batch with one call, and scale them with one."""
        for rows in self.orders(batch_size):
            yield self.images[rows].astype(np.float32) / 255, self.labels[rows]

    def orders(self, batch_size: int) -> Iterator[np.ndarray]:
        while True:
            order = self._random.permutation(len(self.images))
            yield from order[: len(order) // batch_size * batch_size].reshape(-1, batch_size)

    # What does an error look like?

    def step_on(self, images: np.ndarray, labels: np.ndarray) -> float:
        model = Network(nnx.Rngs(0))
        optimizer = nnx.Optimizer(model, optax.sgd(RATE), wrt=nnx.Param)
        loss = train_step(model, optimizer, jnp.asarray(images), jnp.asarray(labels, jnp.int32))
        return loss.item()

    def checked_step_on(self, images: np.ndarray, labels: np.ndarray) -> float:
        with jax.debug_nans(True):
            return self.step_on(images, labels)
