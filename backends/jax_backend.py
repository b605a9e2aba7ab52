"""JAX: flax.nnx layers, optax, and one pure training step under jax.jit that donates its state, tuned.

From top to bottom: the network, one training step, the mode `jit` that JAX's documentation teaches, and the
backend with evaluation and parameters. `backends.catalog` names the classes of the other modes.
"""

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, TypeAlias

import flax
import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import optax
from flax import nnx

from backends.base import State, TrainingData
from backends.builds import build_of
from backends.catalog import JAX
from backends.jax_augmentation import augment
from backends.jax_device import (
    MATMUL_PRECISION,
    cuda_versions,
    described_options,
    find_device,
    knows_options,
    wanted_options,
)
from backends.jax_instruments import InstrumentedRunner, counted_flops, measured_peak
from backends.jax_loop import CarriedSteps
from backends.jax_optimizers import make_optimizer, make_own_optimizer
from backends.runners import load_runner
from backends.step_clock import StepClock
from bench.errors import UnavailableError
from bench.workloads.instruments import Peak, StepSplit
from bench.workloads.parameters import Params
from bench.workloads.ranks import Place
from bench.workloads.specs import (
    NORM_DECAY,
    NORM_EPSILON,
    Architecture,
    DatasetInfo,
    Device,
    Precision,
    Workload,
    is_statistic,
)

EVALUATION_BATCH = 1000
LOSSES_PER_FETCH = 32
UNKNOWN_OPTIONS = "This version of XLA does not know {}, so convolutions may run on one core."
NORM_NAMES = {"scale": "scale", "offset": "bias", "mean": "mean", "variance": "var"}
"""Names of batch normalisation's parameters and statistics: those of the contract to those of flax."""

TrainState: TypeAlias = tuple[Any, Any, Any]
"""Parameters and running statistics, dictionaries by layer and kind, and the optimizer's state."""
TrainStep: TypeAlias = Callable[[TrainState, jax.Array, jax.Array], tuple[TrainState, jax.Array]]
"""From state, scaled images (batch, h, w, c) and labels (batch,) to the next state and the loss before it."""


class Network(nnx.Module):
    """The network; it takes float32 images (n, height, width, channels) and returns logits (n, classes)."""

    def __init__(
        self, architecture: Architecture, info: DatasetInfo, *, dtype: Any, precision: str, rngs: nnx.Rngs
    ) -> None:
        """`dtype` is the type of activations and products, `precision` that of `jax.lax.Precision`."""
        self._architecture = architecture
        height, width, channels = info.image_shape
        kinds = {"dtype": dtype, "param_dtype": jnp.float32, "rngs": rngs}
        products = {"precision": precision, **kinds}
        for number, block in enumerate(architecture.convs, start=1):
            size = (block.kernel, block.kernel)
            bias = {"use_bias": not block.normalise}
            conv = nnx.Conv(channels, block.filters, size, padding="SAME", **bias, **products)
            setattr(self, f"conv{number}", conv)
            if block.normalise:
                norm = nnx.BatchNorm(block.filters, momentum=NORM_DECAY, epsilon=NORM_EPSILON, **kinds)
                setattr(self, f"conv{number}_norm", norm)
            height, width, channels = height // block.pool, width // block.pool, block.filters
        features = height * width * channels
        for number, units in enumerate(architecture.hidden, start=1):
            setattr(self, f"dense{number}", nnx.Linear(features, units, **products))
            features = units
        self.logits = nnx.Linear(features, info.classes, **products)

    def __call__(self, x: jax.Array, *, training: bool) -> jax.Array:
        for number, block in enumerate(self._architecture.convs, start=1):
            x = getattr(self, f"conv{number}")(x)
            if block.normalise:
                x = getattr(self, f"conv{number}_norm")(x, use_running_average=not training)
            x = nnx.relu(x)
            if block.normalise:
                # XLA may compute a normalisation twice, which makes the gradient of `max_pool` wrong
                # (docs/traps.md).
                x = nnx.max_pool(x, (block.pool, block.pool), strides=(block.pool, block.pool))
            else:
                x = max_pool(x, block.pool)
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


def make_train_step(
    graph: nnx.GraphDef[Network], optimizer: optax.GradientTransformation, *, loss: str
) -> TrainStep:
    """Return the pure function that trains one step; `loss` is `mean` or `sum`, over the batch."""

    def loss_of(params: Any, statistics: Any, x: jax.Array, labels: jax.Array) -> tuple[jax.Array, Any]:
        network = nnx.merge(graph, params, statistics)
        logits = network(x, training=True).astype(jnp.float32)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        reduced = losses.sum() if loss == "sum" else losses.mean()
        return reduced, nnx.to_pure_dict(nnx.state(network, nnx.BatchStat))

    def train_step(state: TrainState, x: jax.Array, labels: jax.Array) -> tuple[TrainState, jax.Array]:
        params, statistics, optimizer_state = state
        loss_and_gradients = jax.value_and_grad(loss_of, has_aux=True)
        (loss, statistics), gradients = loss_and_gradients(params, statistics, x, labels)
        updates, optimizer_state = optimizer.update(gradients, optimizer_state, params)
        return (optax.apply_updates(params, updates), statistics, optimizer_state), loss

    return train_step


def scale(images: jax.Array) -> jax.Array:
    """Scale uint8 pixels to float32 from 0 to 1."""
    return images.astype(jnp.float32) / 255


def gather(batch: jax.Array, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the scaled images and the labels of a batch of indices, int32 (batch,)."""
    return scale(images[batch]), labels[batch]


def gather_augmented(
    batch: tuple[jax.Array, jax.Array], images: jax.Array, labels: jax.Array, *, crop: int
) -> tuple[jax.Array, jax.Array]:
    """Do what `gather` does, and augment; a batch is its indices and its draws, float32 (batch, columns)."""
    indices, draws = batch
    return augment(images[indices], draws, crop), labels[indices]


class Jit(InstrumentedRunner):
    """Mode `jit`: a step is one call of a jitted function, to which its state is donated."""

    call_steps = 1

    def __init__(self, backend: "JaxBackend") -> None:
        super().__init__(backend)
        self._carried: CarriedSteps | None = None
        if backend.on_gpu:
            # One transfer to a GPU takes as long as a small step, so the indices of many batches go together.
            self._carried = CarriedSteps(backend, call_steps=1)
        else:
            self._step = backend.jitted(backend.step, donate_argnums=0, **backend.layout.outputs)

    def train(self, order: np.ndarray, draws: np.ndarray | None) -> np.ndarray:
        if self._carried is not None:
            return self._carried.train(order, draws)
        backend = self._backend
        state, losses = backend.state, []
        for batch in backend.layout.batches(order, draws):
            state, loss = self._step(state, batch, backend.images, backend.labels)
            losses.append(loss)
        backend.state = jax.block_until_ready(state)
        return fetch(losses)


stack = jax.jit(jnp.stack)


def fetch(losses: list[jax.Array]) -> np.ndarray:
    """Return the losses of steps, scalars on the device, as one array, float32 (steps,).

    On a CPU they are read where they lie. On a GPU, where each read would be a copy of its own, they are
    stacked 32 at a time: a stack of all of them would compile again for every number of steps. The last stack
    is padded.
    """
    if next(iter(losses[0].devices())).platform == "cpu":
        return np.array([np.asarray(loss) for loss in losses])
    padded = losses + losses[-1:] * (-len(losses) % LOSSES_PER_FETCH)
    starts = range(0, len(padded), LOSSES_PER_FETCH)
    stacks = [stack(padded[start : start + LOSSES_PER_FETCH]) for start in starts]
    return np.concatenate(stacks)[: len(losses)]


class JaxBackend:
    """One network trained by JAX; `backends.base.Backend` is its contract.

    Public names beyond the contract are for the runners. A runner trains from `state` and stores the next
    state there.
    """

    def __init__(
        self,
        workload: Workload,
        data: TrainingData,
        *,
        mode: str,
        device: Device,
        precision: Precision,
        place: Place | None = None,
    ) -> None:
        runner, offered = load_runner(JAX, mode, place), next(one for one in JAX.modes if one.name == mode)
        if workload.augmentation is not None and not offered.augments:
            raise UnavailableError(f"mode {mode} of JAX augments no images; mode {JAX.default_mode} does")
        if place is not None:
            runner.join(place, device)
        self.place, self.device, self.on_gpu = place, find_device(device), device == "gpu"
        self.layout = runner.layout(self.device)
        self.dtype = jnp.bfloat16 if precision == "bf16" else jnp.float32
        self.precision = MATMUL_PRECISION[precision]
        options = wanted_options(workload.architecture, device) if offered.level == "tuned" else {}
        known = not options or knows_options(options, self.device)
        self._options, self._unknown_options = (options, {}) if known else ({}, options)
        self.workload, self.info = workload, workload.seen(data.info)
        self._shapes = workload.architecture.parameter_shapes(self.info)

        self.images, self.labels = data.images, data.labels.astype(np.int32)
        if not offered.pipeline:
            # Images stay uint8 on the device: a batch is gathered and then scaled.
            self.images, self.labels = self.layout.put((self.images, self.labels))
        self.gather: Callable[..., tuple[jax.Array, jax.Array]] = gather
        if workload.augmentation is not None:
            self.gather = partial(gather_augmented, crop=workload.augmentation.crop)

        # Split once: nnx.jit would walk the module in Python at every call. eval_shape gives the structure
        # alone; to draw parameters here would compile a program for each.
        abstract = nnx.eval_shape(lambda: self._network(jax.random.key(0)))
        self._graph, *_ = nnx.split(abstract, nnx.Param, nnx.BatchStat)
        self.optimizer = (make_optimizer if workload.matched else make_own_optimizer)(workload.optimizer)
        self.train_step = make_train_step(self._graph, self.optimizer, loss=workload.loss)
        self._logits, self._draw = self.jitted(self._compute_logits), jax.jit(self._draw_params)
        self.load_params({name: np.zeros(shape, np.float32) for name, shape in self._shapes.items()})
        self._runner = runner(self)
        self.call_steps = self._runner.call_steps

    def _network(self, key: jax.Array) -> Network:
        return Network(
            self.workload.architecture,
            self.info,
            dtype=self.dtype,
            precision=self.precision,
            rngs=nnx.Rngs(key),
        )

    def jitted(self, function: Callable[..., Any], **arguments: Any) -> Callable[..., Any]:
        """Return the function under jax.jit, with the compiler options of this network."""
        return jax.jit(function, compiler_options=self._options, **arguments)

    # Training

    def step(
        self, state: TrainState, batch: Any, images: jax.Array, labels: jax.Array
    ) -> tuple[TrainState, jax.Array]:
        """Train one step on a batch of indices: a pure function that a runner compiles."""
        return self.train_step(state, *self.gather(batch, images, labels))

    @cached_property
    def learn(self) -> Callable[..., tuple[TrainState, jax.Array]]:
        """The compiled `TrainStep`, for batches that a pipeline or an instrument has gathered."""
        return self.jitted(self.train_step, donate_argnums=0)

    def train_steps(self, order: np.ndarray, draws: np.ndarray | None = None) -> np.ndarray:
        return self._runner.train(order, draws)

    def longest(self, seconds: float) -> float:
        return self._runner.longest(seconds)

    @staticmethod
    def leave() -> None:
        jax.distributed.shutdown()  # a barrier; without an engine it does nothing

    def augmented(self, batch: np.ndarray, draws: np.ndarray) -> np.ndarray:
        x, _ = jax.jit(self.gather)((batch, draws), self.images, self.labels)
        return np.array(x)

    # Evaluation

    def predict(self, images: np.ndarray) -> np.ndarray:
        params, statistics, _ = self.layout.own(self.state)
        starts = range(0, len(images), EVALUATION_BATCH)
        parts = (images[start : start + EVALUATION_BATCH] for start in starts)
        return np.concatenate([self._logits(params, statistics, part) for part in parts])

    def _compute_logits(self, params: Any, statistics: Any, images: jax.Array) -> jax.Array:
        network = nnx.merge(self._graph, params, statistics)
        return network(scale(images), training=False).astype(jnp.float32)

    # Parameters and state: flax.nnx keeps them in canonical layout already

    def load_params(self, params: Params) -> None:
        weights: dict[str, Any] = {}
        statistics: dict[str, Any] = {}
        for name, value in params.items():
            layer, kind = self._place(name)
            tree = statistics if is_statistic(name) else weights
            tree.setdefault(layer, {})[kind] = np.array(value)
        self._start_from(weights, statistics)

    def export_params(self) -> Params:
        weights, statistics, _ = self.state
        exported = {}
        for name in self._shapes:
            layer, kind = self._place(name)
            tree = statistics if is_statistic(name) else weights
            exported[name] = np.array(tree[layer][kind])
        return exported

    def _place(self, name: str) -> tuple[str, str]:
        """Return a parameter's layer and kind in flax: `conv1/offset` is the bias of the layer conv1_norm."""
        layer, kind = name.split("/")
        return (f"{layer}_norm", NORM_NAMES[kind]) if kind in NORM_NAMES else (layer, kind)

    def _start_from(self, params: Any, statistics: Any) -> None:
        # What a step returns is committed to the device. device_put commits the arguments of the first step
        # too: jit compiles another program for uncommitted ones, so the second step would compile again.
        params, statistics = jax.device_put((params, statistics), self.device)
        self.state = self.layout.put((params, statistics, self.optimizer.init(params)))

    def save_state(self) -> State:
        return {str(number): np.array(leaf) for number, leaf in enumerate(jax.tree.leaves(self.state))}

    def restore_state(self, state: State) -> None:
        leaves = self.layout.put([np.array(state[str(number)]) for number in range(len(state))])
        self.state = jax.tree.unflatten(jax.tree.structure(self.state), leaves)

    # The framework's own defaults

    def initialise(self, seed: int) -> None:
        self._start_from(*self._draw(self._key(seed)))

    def _key(self, seed: int) -> jax.Array:
        return jax.device_put(jax.random.key(seed), self.device)

    def _draw_params(self, key: jax.Array) -> tuple[Any, Any]:
        network = self._network(key)
        kinds = (nnx.Param, nnx.BatchStat)
        return tuple(nnx.to_pure_dict(nnx.state(network, kind)) for kind in kinds)

    def permutation(self, seed: int, epoch: int) -> np.ndarray:
        key = jax.random.fold_in(self._key(seed), epoch)
        return np.array(jax.random.permutation(key, len(self.images)))

    # Instruments and description

    def split_steps(self, order: np.ndarray) -> StepSplit:
        clock = StepClock()
        self._runner.split(order, clock)
        return clock.split(len(order))

    def count_flops(self) -> float | None:
        return counted_flops(*self._runner.counted_step())

    def peak(self) -> Peak:
        return measured_peak(self.dtype, self.precision, self.device)

    def describe(self) -> dict[str, str | int | float | bool | None]:
        device = next(iter(self.layout.own(jax.tree.leaves(self.state)[0]).devices()))
        memory = device.memory_stats() or {}
        return {
            "device": "cpu" if device.platform == "cpu" else "gpu",
            "device_name": device.device_kind,
            "dtype": jnp.dtype(self.dtype).name,
            "jax": jax.__version__,
            "jaxlib": jaxlib.__version__,
            "build": build_of("jax"),
            "flax": flax.__version__,
            "optax": optax.__version__,
            **self._runner.versions,
            **cuda_versions(device),
            "compiler_options": described_options(self._options),
            "warning": UNKNOWN_OPTIONS.format(described_options(self._unknown_options))
            if self._unknown_options
            else None,
            "matmul_precision": self.precision,
            "peak_device_bytes": memory.get("peak_bytes_in_use") if device.platform != "cpu" else None,
        }
