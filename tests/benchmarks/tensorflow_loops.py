"""The training loops that one would write in TensorFlow by hand for a network, with no harness."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

Params = dict[str, np.ndarray]
Pictures = tuple[tf.Tensor, tf.Tensor]
Train = Callable[[np.ndarray], np.ndarray]
"""From int32 (steps, batch) to the loss of every step."""
Step = Callable[[tf.Tensor], tf.Tensor]

CHUNK, UNROLLED = 100, 4


def on_device(images: np.ndarray, labels: np.ndarray) -> Pictures:
    """uint8, as gathering a quarter of the bytes is quicker than scaling once for all."""
    return tf.constant(images), tf.constant(labels.astype(np.int32))


def step_by_step(wrap: Callable[[Step], Step], params: Params, rate: float, pictures: Pictures) -> Train:
    """One call a step; `wrap` says how it is compiled."""
    step = wrap(make_step(params, rate, pictures))

    def train(order: np.ndarray) -> np.ndarray:
        losses = tf.stack([step(batch) for batch in tf.unstack(tf.constant(order))])
        return finished(losses)

    return train


def all_in_a_call(params: Params, rate: float, pictures: Pictures, *, kind: type = np.int32) -> Train:
    """The loop is inside the tf.function; `kind` is that of the indices."""
    step = make_step(params, rate, pictures)

    @tf.function(input_signature=[tf.TensorSpec([None, None], kind)])
    def steps(order: tf.Tensor) -> tf.Tensor:
        losses = tf.TensorArray(tf.float32, size=tf.shape(order)[0])
        for number in tf.range(tf.shape(order)[0]):
            losses = losses.write(number, step(order[number]))
        return losses.stack()

    def train(order: np.ndarray) -> np.ndarray:
        return finished(steps(tf.constant(order.astype(kind))))

    return train


def many_steps_a_call(params: Params, rate: float, pictures: Pictures) -> Train:
    """Many steps a call, by XLA: a loop, or of a CNN, whose convolutions a loop slows, a few unrolled."""
    return (unrolled if "conv1/kernel" in params else a_hundred_in_a_call)(params, rate, pictures)


def unrolled(params: Params, rate: float, pictures: Pictures, *, chunk: int = UNROLLED) -> Train:
    """So many steps a call; what is left over goes to a call of its own."""
    step = make_step(params, rate, pictures)

    @tf.function(jit_compile=True)
    def steps(order: tf.Tensor) -> tf.Tensor:
        return tf.stack([step(batch) for batch in tf.unstack(order)])

    def train(order: np.ndarray) -> np.ndarray:
        starts = range(0, len(order), chunk)
        losses = [steps(tf.constant(order[first : first + chunk])) for first in starts]
        return finished(tf.concat(losses, 0))

    return train


def a_hundred_in_a_call(params: Params, rate: float, pictures: Pictures) -> Train:
    """The loop is inside, up to a hundred steps long, and compiled by XLA."""
    step = make_step(params, rate, pictures)

    @tf.function(jit_compile=True)
    def steps(order: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        losses, number = tf.zeros(CHUNK), tf.constant(0)
        while number < count:
            losses = tf.tensor_scatter_nd_update(losses, [[number]], [step(order[number])])
            number += 1
        return losses

    def train(order: np.ndarray) -> np.ndarray:
        losses = []
        for first in range(0, len(order), CHUNK):
            chunk = order[first : first + CHUNK]
            padded = np.pad(chunk, ((0, CHUNK - len(chunk)), (0, 0)))
            losses.append(steps(tf.constant(padded), tf.constant(len(chunk)))[: len(chunk)])
        return finished(tf.concat(losses, 0))

    return train


def finished(losses: tf.Tensor) -> np.ndarray:
    tf.test.experimental.sync_devices()  # a loss is there before its update has landed
    return losses.numpy()


def make_step(params: Params, rate: float, pictures: Pictures) -> Step:
    """Return a step of plain SGD on a batch of indices."""
    names = [name for name in params if name.endswith("kernel")]
    layers = [
        (tf.Variable(params[name]), tf.Variable(params[name.replace("kernel", "bias")])) for name in names
    ]
    variables = [variable for layer in layers for variable in layer]
    x, y = pictures

    def step(batch: tf.Tensor) -> tf.Tensor:
        images = tf.cast(tf.gather(x, batch), tf.float32) / 255.0
        with tf.GradientTape() as tape:
            logits = logits_of(layers, images)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.gather(y, batch), logits)
            loss = tf.reduce_mean(losses)
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            variable.assign_sub(rate * gradient)
        return loss

    return step


def logits_of(layers: list[tuple[Any, Any]], x: tf.Tensor) -> tf.Tensor:
    for kernel, bias in layers[:-1]:
        if len(kernel.shape) == 4:
            x = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "SAME"), bias))
            x = tf.nn.max_pool2d(x, 2, 2, "VALID")
        else:
            x = tf.nn.relu(tf.nn.bias_add(flat(x, kernel) @ kernel, bias))
    kernel, bias = layers[-1]
    return tf.nn.bias_add(flat(x, kernel) @ kernel, bias)


def flat(x: tf.Tensor, kernel: Any) -> tf.Tensor:
    return tf.reshape(x, [-1, kernel.shape[0]])


LOOPS = {
    "graph": partial(step_by_step, tf.function),
    "graph-loop": all_in_a_call,
    "xla": partial(step_by_step, partial(tf.function, jit_compile=True)),
    "xla-loop": many_steps_a_call,
}
