"""The training loops that one would write in JAX by hand for a network, with no harness around them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Params = dict[str, np.ndarray]
Pictures = tuple[jax.Array, jax.Array]
Loss = Callable[[Any, jax.Array, jax.Array], jax.Array]
Train = Callable[[np.ndarray], np.ndarray]
"""From int32 (steps, batch) to the loss of every step."""

THREADED_CONVOLUTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
CHUNK, UNROLLED = 100, 4


def on_device(images: np.ndarray, labels: np.ndarray) -> Pictures:
    """uint8, as gathering a quarter of the bytes is quicker than scaling once for all."""
    return jnp.asarray(images), jnp.asarray(labels, jnp.int32)


def jit(params: Params, rate: float, pictures: Pictures, *, loss: Loss | None = None) -> Train:
    """One call a step, the parameters donated; `loss` in place of `loss_of`."""
    layers = layers_of(params)

    @compiled_for(layers)
    def step(layers: Any, batch: jax.Array, x: jax.Array, y: jax.Array) -> tuple[Any, jax.Array]:
        return learned(layers, rate, batch, x, y, loss=loss)

    def train(order: np.ndarray) -> np.ndarray:
        nonlocal layers
        losses = []
        for batch in order:
            layers, loss = step(layers, batch, *pictures)
            losses.append(loss)
        jax.block_until_ready(layers)
        return np.array(jax.device_get(losses))

    return train


def many_steps_a_call(params: Params, rate: float, pictures: Pictures) -> Train:
    """A loop inside, or of a CNN, whose convolutions a loop slows, a few steps unrolled."""
    return (unrolled if "conv1/kernel" in params else scan)(params, rate, pictures)


def scan(params: Params, rate: float, pictures: Pictures) -> Train:
    """A hundred steps a call, by lax.scan."""
    layers = layers_of(params)

    @compiled_for(layers)
    def steps(layers: Any, order: jax.Array, x: jax.Array, y: jax.Array) -> tuple[Any, jax.Array]:
        return jax.lax.scan(lambda layers, batch: learned(layers, rate, batch, x, y), layers, order)

    return in_calls(steps, layers, pictures, chunk=CHUNK)


def unrolled(params: Params, rate: float, pictures: Pictures, *, chunk: int = UNROLLED) -> Train:
    """So many steps a call, and no loop inside it."""
    layers = layers_of(params)

    @compiled_for(layers)
    def steps(layers: Any, order: jax.Array, x: jax.Array, y: jax.Array) -> tuple[Any, jax.Array]:
        losses = []
        for batch in order:
            layers, loss = learned(layers, rate, batch, x, y)
            losses.append(loss)
        return layers, jnp.stack(losses)

    return in_calls(steps, layers, pictures, chunk=chunk)


def in_calls(steps: Callable[..., Any], layers: Any, pictures: Pictures, *, chunk: int) -> Train:
    """So many steps a call; what is left over goes to a call of its own."""

    def train(order: np.ndarray) -> np.ndarray:
        nonlocal layers
        losses = []
        for first in range(0, len(order), chunk):
            layers, found = steps(layers, order[first : first + chunk], *pictures)
            losses.append(found)
        jax.block_until_ready(layers)
        return np.concatenate(losses)

    return train


def compiled_for(layers: Any) -> Callable[..., Any]:
    options = THREADED_CONVOLUTIONS if layers[0][0].ndim == 4 else None
    return partial(jax.jit, donate_argnums=0, compiler_options=options)


def learned(
    layers: Any, rate: float, batch: jax.Array, x: jax.Array, y: jax.Array, *, loss: Loss | None = None
) -> tuple[Any, jax.Array]:
    images = x[batch].astype(jnp.float32) / 255
    value, gradients = jax.value_and_grad(loss or loss_of)(layers, images, y[batch])
    return jax.tree.map(lambda value, gradient: value - rate * gradient, layers, gradients), value


def loss_of(layers: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    for kernel, bias in layers[:-1]:
        if kernel.ndim == 4:
            x = jax.nn.relu(convolved(x, kernel) + bias)
            n, height, width, channels = x.shape
            x = x.reshape(n, height // 2, 2, width // 2, 2, channels).max((2, 4))
        else:
            x = jax.nn.relu(x.reshape(len(x), -1) @ kernel + bias)
    kernel, bias = layers[-1]
    logits = x.reshape(len(x), -1) @ kernel + bias
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1).mean()


def convolved(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def layers_of(params: Params) -> list[tuple[jax.Array, jax.Array]]:
    names = [name for name in params if name.endswith("kernel")]
    return [
        (jnp.asarray(params[name]), jnp.asarray(params[name.replace("kernel", "bias")])) for name in names
    ]


LOOPS = {"jit": jit, "loop": many_steps_a_call}
