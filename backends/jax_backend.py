"""JAX: flax.nnx layers, optax, one pure training step under jax.jit with its state donated."""

from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from backends.base import Params, State, TrainingData
from bench.errors import UnavailableError
from bench.specs import Architecture, DatasetInfo, Device, OptimizerSpec, Precision, Workload

EVALUATION_BATCH = 1000
LOOP_STEPS = 100
"""Steps to a call in mode `loop` at most; the shape is fixed and the count is not, so it compiles once."""

MATMUL_PRECISION = {"fp32": "highest", "tf32": "tensorfloat32", "bf16": "bfloat16"}


class JaxBackend:
    """One network trained by JAX; see `backends.base.Backend` for what is owed."""

    def __init__(
        self, workload: Workload, data: TrainingData, *, mode: str, device: Device, precision: Precision
    ) -> None:
        self._device = find_device(device)
        jax.config.update("jax_default_device", self._device)
        jax.config.update("jax_default_matmul_precision", MATMUL_PRECISION[precision])
        self._dtype = jnp.bfloat16 if precision == "bf16" else jnp.float32
        self._mode = mode
        self._names = list(workload.architecture.parameter_shapes(data.info))

        # uint8 stays uint8 on the device: a batch is gathered there and scaled on use.
        self._images = jax.device_put(data.images, self._device)
        self._labels = jax.device_put(data.labels.astype(np.int32), self._device)

        network = Network(workload.architecture, data.info, dtype=self._dtype, rngs=nnx.Rngs(0))
        self._optimizer = make_optimizer(workload.optimizer)
        # Split once: nnx.jit would walk the module in Python at every call.
        self._graph, state = nnx.split(network, nnx.Param)
        self._params = nnx.to_pure_dict(state)
        self._optimizer_state = self._optimizer.init(self._params)
        if mode == "eager":
            self._step, self._logits = self._plain_step, self._plain_logits
        else:
            self._step = jax.jit(self._plain_step, donate_argnums=0)
            self._logits = jax.jit(self._plain_logits)
            self._loop = jax.jit(self._plain_loop, donate_argnums=0)

    # Training

    def train_steps(self, order: np.ndarray) -> np.ndarray:
        state = (self._params, self._optimizer_state)
        losses = []
        if self._mode == "loop":
            for start in range(0, len(order), LOOP_STEPS):
                chunk = order[start : start + LOOP_STEPS]
                padded = np.pad(chunk, ((0, LOOP_STEPS - len(chunk)), (0, 0)))
                state, chunk_losses = self._loop(state, padded, len(chunk), self._images, self._labels)
                losses.append(chunk_losses[: len(chunk)])
        else:
            for batch in order:
                state, loss = self._step(state, batch, self._images, self._labels)
                losses.append(loss)
        self._params, self._optimizer_state = jax.block_until_ready(state)
        return np.hstack(jax.device_get(losses))

    def _plain_step(
        self, state: Any, batch: jax.Array, images: jax.Array, labels: jax.Array
    ) -> tuple[Any, jax.Array]:
        params, optimizer_state = state

        def loss_of(params: Any) -> jax.Array:
            logits = self._plain_logits(params, images[batch])
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels[batch]).mean()

        loss, gradients = jax.value_and_grad(loss_of)(params)
        updates, optimizer_state = self._optimizer.update(gradients, optimizer_state, params)
        return (optax.apply_updates(params, updates), optimizer_state), loss

    def _plain_loop(
        self, state: Any, order: jax.Array, steps: int, images: jax.Array, labels: jax.Array
    ) -> tuple[Any, jax.Array]:
        def body(step: jax.Array, carry: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
            state, losses = carry
            state, loss = self._plain_step(state, order[step], images, labels)
            return state, losses.at[step].set(loss)

        return jax.lax.fori_loop(0, steps, body, (state, jnp.zeros(len(order))))

    def _plain_logits(self, params: Any, images: jax.Array) -> jax.Array:
        """Logits, float32, of uint8 images."""
        network = nnx.merge(self._graph, nnx.State(params))
        return network(images.astype(jnp.float32) / 255).astype(jnp.float32)

    # Evaluation

    def predict(self, images: np.ndarray) -> np.ndarray:
        starts = range(0, len(images), EVALUATION_BATCH)
        return np.concatenate([self._logits(self._params, images[i : i + EVALUATION_BATCH]) for i in starts])

    # Parameters and state: flax.nnx keeps them in canonical layout already

    def load_params(self, params: Params) -> None:
        tree: dict[str, dict[str, jax.Array]] = {}
        for name, value in params.items():
            layer, kind = name.split("/")
            tree.setdefault(layer, {})[kind] = jax.device_put(np.array(value), self._device)
        self._params = tree
        self._optimizer_state = self._optimizer.init(tree)

    def export_params(self) -> Params:
        pairs = [name.split("/") for name in self._names]
        return {f"{layer}/{kind}": np.array(self._params[layer][kind]) for layer, kind in pairs}

    def save_state(self) -> State:
        leaves = jax.tree.leaves((self._params, self._optimizer_state))
        return {str(number): np.array(leaf) for number, leaf in enumerate(leaves)}

    def restore_state(self, state: State) -> None:
        structure = jax.tree.structure((self._params, self._optimizer_state))
        leaves = [jax.device_put(np.array(state[str(number)]), self._device) for number in range(len(state))]
        self._params, self._optimizer_state = jax.tree.unflatten(structure, leaves)

    def describe(self) -> dict[str, str | int | float | bool | None]:
        device = next(iter(jax.tree.leaves(self._params)[0].devices()))
        memory = device.memory_stats() or {}
        return {
            "device": "cpu" if device.platform == "cpu" else "gpu",
            "device_name": device.device_kind,
            "dtype": jnp.dtype(self._dtype).name,
            "jax": jax.__version__,
            "flax": flax.__version__,
            "optax": optax.__version__,
            "matmul_precision": jax.config.jax_default_matmul_precision,
            "peak_device_bytes": memory.get("peak_bytes_in_use") if device.platform != "cpu" else None,
        }


def find_device(device: Device) -> jax.Device:
    """Return the device asked for; never another one."""
    try:
        return jax.devices(device)[0]
    except RuntimeError as error:
        raise UnavailableError(f"JAX {jax.__version__} sees no {device.upper()} here: {error}") from error


class Network(nnx.Module):
    """The network; it takes float32 images (n, height, width, channels) and gives logits."""

    def __init__(self, architecture: Architecture, info: DatasetInfo, *, dtype: Any, rngs: nnx.Rngs) -> None:
        self._architecture = architecture
        height, width, channels = info.image_shape
        kinds = {"dtype": dtype, "param_dtype": jnp.float32, "rngs": rngs}
        for number, block in enumerate(architecture.convs, start=1):
            size = (block.kernel, block.kernel)
            setattr(self, f"conv{number}", nnx.Conv(channels, block.filters, size, padding="SAME", **kinds))
            height, width, channels = height // block.pool, width // block.pool, block.filters
        features = height * width * channels
        for number, units in enumerate(architecture.hidden, start=1):
            setattr(self, f"dense{number}", nnx.Linear(features, units, **kinds))
            features = units
        self.logits = nnx.Linear(features, info.classes, **kinds)

    def __call__(self, x: jax.Array) -> jax.Array:
        for number, block in enumerate(self._architecture.convs, start=1):
            x = max_pool(nnx.relu(getattr(self, f"conv{number}")(x)), block.pool)
        x = x.reshape(len(x), -1)
        for number in range(1, len(self._architecture.hidden) + 1):
            x = nnx.relu(getattr(self, f"dense{number}")(x))
        return self.logits(x)


def max_pool(x: jax.Array, size: int) -> jax.Array:
    """Max-pool by reshape, which trains faster on a CPU than nnx.max_pool: its gradient needs no scatter."""
    n, height, width, channels = x.shape
    rows, columns = height // size, width // size
    x = x[:, : rows * size, : columns * size]
    return x.reshape(n, rows, size, columns, size, channels).max(axis=(2, 4))


def make_optimizer(spec: OptimizerSpec) -> optax.GradientTransformation:
    """Return the optimizer with every constant stated."""
    rate: optax.ScalarOrSchedule = spec.learning_rate
    if spec.decay_rate != 1.0:
        rate = optax.exponential_decay(
            spec.learning_rate, transition_steps=spec.decay_steps, decay_rate=spec.decay_rate, staircase=False
        )
    match spec.name:
        case "sgd":
            return optax.sgd(rate, momentum=None, nesterov=False)
        case "momentum":
            return optax.sgd(rate, momentum=spec.momentum, nesterov=False)
        case "adam":
            return optax.adam(rate, b1=spec.beta1, b2=spec.beta2, eps=spec.epsilon, eps_root=0.0)
        case "rmsprop":
            return optax.rmsprop(rate, decay=spec.rho, eps=spec.epsilon, initial_scale=0.0, eps_in_sqrt=True)
