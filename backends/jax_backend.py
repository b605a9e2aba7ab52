"""JAX: flax.nnx layers, optax, one pure training step under jax.jit with its state donated."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import flax
import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import optax
from flax import nnx

from backends.base import State, TrainingData
from backends.jax_augmentation import augment
from backends.jax_instruments import Laps, counted_flops, measured_peak
from bench.errors import UnavailableError
from bench.workloads.instruments import Peak, StepSplit
from bench.workloads.parameters import Params
from bench.workloads.specs import (
    NORM_DECAY,
    NORM_EPSILON,
    Architecture,
    DatasetInfo,
    Device,
    OptimizerSpec,
    Precision,
    Workload,
    is_statistic,
)

EVALUATION_BATCH = 1000
LOOP_STEPS = 100
"""Steps to a call in mode `loop` on a CPU at most; the shape is fixed and the count is not, so it compiles
once."""
SCANNED_STEPS = 16
"""Steps to a call in mode `loop` on a GPU, which would wait in every step of a loop of a count that it is
told. What is left over is trained step by step."""
UNROLLED_STEPS = 4
"""The same on a CPU of a network that convolves: inside a loop a convolution is many times slower."""
SENT_INDICES = 2**16
"""Indices that are sent to a GPU together, if not of `SCANNED_STEPS` batches: a quarter of a megabyte."""
NORM_NAMES = {"scale": "scale", "offset": "bias", "mean": "mean", "variance": "var"}
LOSSES_A_FETCH = 32
"""Losses that are stacked on the device and fetched as one array."""

THREADED_CONVOLUTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
"""Give products alone, and no convolutions, to the library YNNPACK: there a convolution runs on one core, and
on all by XLA's own means (docs/performance.md)."""

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
        if workload.augmentation is not None and mode != "jit":
            raise UnavailableError(f"mode {mode} of JAX augments no images; mode jit does")
        self._mode, self._workload, self._info = mode, workload, workload.seen(data.info)
        self._images_count = len(data.images)
        self._shapes = workload.architecture.parameter_shapes(self._info)

        labels = data.labels.astype(np.int32)
        if mode == "grain":
            self._pipeline = Pipeline(np.asarray(data.images), labels)
        else:
            # uint8 stays uint8 on the device: a batch is gathered there and scaled on use.
            self._images, self._labels = jax.device_put((data.images, labels), self._device)

        # Split once: nnx.jit would walk the module in Python at every call. Only the structure is wanted
        # here, and drawing parameters would compile a program for each.
        abstract = nnx.eval_shape(lambda: self._network(jax.random.key(0)))
        self._graph, *_ = nnx.split(abstract, nnx.Param, nnx.BatchStat)
        make = make_optimizer if workload.matched else make_own_optimizer
        self._optimizer = make(workload.optimizer)
        self._draw = jax.jit(self._plain_draw)
        self._stack = jax.jit(jnp.stack)
        network = workload.architecture
        # Beside batch normalisation, XLA with that option has computed a convolution's gradient that was half
        # wrong (jaxlib 0.10.2; parity saw it).
        threaded = device == "cpu" and bool(network.convs) and not network.normalises
        self._options = known_options(THREADED_CONVOLUTIONS) if threaded else {}
        self._step = self._jitted(self._plain_step, donate_argnums=0)
        self._next = self._jitted(self._plain_next, donate_argnums=0, static_argnames="steps")
        self._learn = self._jitted(self._plain_learn, donate_argnums=0)
        self._unrolls = mode == "loop" and device == "cpu" and bool(network.convs)
        self._carries = device == "gpu" or self._unrolls
        several = UNROLLED_STEPS if self._unrolls else SCANNED_STEPS
        self.call_steps = several if mode == "loop" and self._carries else 1
        fitting = SENT_INDICES // (SCANNED_STEPS * workload.batch_size)
        self._sent_steps = SCANNED_STEPS * max(1, fitting)
        self._loop = self._jitted(self._plain_loop, donate_argnums=0)
        self._augmented_step = self._jitted(self._plain_augmented_step, donate_argnums=0)
        self._augment = jax.jit(self._plain_augment)
        self._gather, self._logits = jax.jit(gather), self._jitted(self._plain_logits)
        self.load_params({name: np.zeros(shape, np.float32) for name, shape in self._shapes.items()})

    def _jitted(self, function: Callable[..., Any], **how: Any) -> Callable[..., Any]:
        return jax.jit(function, compiler_options=self._options, **how)

    # Training

    def train_steps(self, order: np.ndarray, draws: np.ndarray | None = None) -> np.ndarray:
        state = self._state
        losses = []
        if draws is not None:
            for batch, drawn in zip(order, draws, strict=True):
                state, loss = self._augmented_step(state, batch, drawn, self._images, self._labels)
                losses.append(loss)
        elif self._mode == "grain":
            for batch in self._pipeline.batches(order):
                state, loss = self._learn(state, *jax.device_put(batch, self._device))
                losses.append(loss)
        elif self._carries:
            for count, chunk in self._chunks(order, self._sent_steps):
                carry = (
                    state,
                    *jax.device_put((np.int32(0), np.zeros(len(chunk), np.float32)), self._device),
                )
                calls, left = divmod(count, self.call_steps)
                for steps in [self.call_steps] * calls + [1] * left:
                    carry = self._next(carry, chunk, self._images, self._labels, steps=steps)
                state, _, chunk_losses = carry
                losses.append(chunk_losses)
        elif self._mode == "loop":
            for steps, chunk in self._chunks(order, LOOP_STEPS):
                state, chunk_losses = self._loop(state, chunk, steps, self._images, self._labels)
                losses.append(chunk_losses)
        else:
            for batch in order:
                state, loss = self._step(state, batch, self._images, self._labels)
                losses.append(loss)
        self._state = jax.block_until_ready(state)
        return self._fetched(losses)[: len(order)]

    def _chunks(self, order: np.ndarray, most: int) -> Iterator[tuple[int, jax.Array]]:
        """Yield how many steps there are in each chunk, and their batches on the device, padded."""
        for start in range(0, len(order), most):
            steps = min(most, len(order) - start)
            chunk = np.zeros((most, order.shape[1]), order.dtype)
            chunk[:steps] = order[start : start + steps]
            yield steps, jax.device_put(chunk, self._device)

    def _fetched(self, losses: list[jax.Array]) -> np.ndarray:
        """Return losses, scalars or those of chunks, as one array whose end may be padding.

        Scalars are stacked so many at a time: one by one they take ten times as long, and a stack of all
        would compile anew for every number of steps.
        """
        if losses[0].ndim == 0:
            losses = losses + losses[-1:] * (-len(losses) % LOSSES_A_FETCH)
            starts = range(0, len(losses), LOSSES_A_FETCH)
            losses = [self._stack(losses[start : start + LOSSES_A_FETCH]) for start in starts]
        return np.concatenate(losses)

    def _plain_step(
        self, state: Any, batch: jax.Array, images: jax.Array, labels: jax.Array
    ) -> tuple[Any, jax.Array]:
        return self._plain_learn(state, *gather(batch, images, labels))

    def _plain_next(
        self, carry: Any, order: jax.Array, images: jax.Array, labels: jax.Array, *, steps: int
    ) -> Any:
        """Take the next steps of an order; state, the next step's number and the losses are carried along.

        So nothing is sent to a GPU or fetched from it for a step: either takes as long as a small one.
        """
        state, number, losses = carry
        rows = jax.lax.dynamic_slice_in_dim(order, number, steps)
        repeat = unrolled if self._unrolls else jax.lax.scan
        state, found = repeat(
            lambda state, batch: self._plain_step(state, batch, images, labels), state, rows
        )
        return state, number + steps, jax.lax.dynamic_update_slice_in_dim(losses, found, number, 0)

    def _plain_learn(self, state: Any, x: jax.Array, labels: jax.Array) -> tuple[Any, jax.Array]:
        """Learn from one batch, whose images are scaled."""
        params, statistics, optimizer_state = state

        def loss_of(params: Any) -> tuple[jax.Array, Any]:
            network = self._network_of(params, statistics)
            logits = network(x, training=True).astype(jnp.float32)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            loss = losses.sum() if self._workload.loss == "sum" else losses.mean()
            return loss, nnx.to_pure_dict(nnx.state(network, nnx.BatchStat))

        (loss, statistics), gradients = jax.value_and_grad(loss_of, has_aux=True)(params)
        updates, optimizer_state = self._optimizer.update(gradients, optimizer_state, params)
        return (optax.apply_updates(params, updates), statistics, optimizer_state), loss

    def _plain_augmented_step(
        self, state: Any, batch: jax.Array, draws: jax.Array, images: jax.Array, labels: jax.Array
    ) -> tuple[Any, jax.Array]:
        return self._plain_learn(state, self._plain_augment(batch, draws, images), labels[batch])

    def _plain_augment(self, batch: jax.Array, draws: jax.Array, images: jax.Array) -> jax.Array:
        return augment(images[batch], draws, self._workload.augmentation.crop)

    def augmented(self, batch: np.ndarray, draws: np.ndarray) -> np.ndarray:
        return np.array(self._augment(batch, draws, self._images))

    def _plain_loop(
        self, state: Any, order: jax.Array, steps: int, images: jax.Array, labels: jax.Array
    ) -> tuple[Any, jax.Array]:
        def body(step: jax.Array, carry: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
            state, losses = carry
            state, loss = self._plain_step(state, order[step], images, labels)
            return state, losses.at[step].set(loss)

        return jax.lax.fori_loop(0, steps, body, (state, jnp.zeros(len(order))))

    def _plain_logits(self, params: Any, statistics: Any, images: jax.Array) -> jax.Array:
        """Logits, float32, of uint8 images."""
        return self._network_of(params, statistics)(scale(images), training=False).astype(jnp.float32)

    def _network_of(self, params: Any, statistics: Any) -> "Network":
        return nnx.merge(self._graph, nnx.State(params), nnx.State(statistics))

    def _network(self, key: jax.Array) -> "Network":
        return Network(self._workload.architecture, self._info, dtype=self._dtype, rngs=nnx.Rngs(key))

    # Evaluation

    def predict(self, images: np.ndarray) -> np.ndarray:
        params, statistics, _ = self._state
        starts = range(0, len(images), EVALUATION_BATCH)
        parts = (images[start : start + EVALUATION_BATCH] for start in starts)
        return np.concatenate([self._logits(params, statistics, part) for part in parts])

    # Parameters and state: flax.nnx keeps them in canonical layout already

    def load_params(self, params: Params) -> None:
        trees: tuple[Any, Any] = ({}, {})
        for name, value in params.items():
            layer, kind = self._place(name)
            trees[is_statistic(name)].setdefault(layer, {})[kind] = np.array(value)
        self._start_from(*trees)

    def _place(self, name: str) -> tuple[str, str]:
        """Return where a parameter is: `conv1/offset` is the bias of the layer conv1_norm."""
        layer, kind = name.split("/")
        return (f"{layer}_norm", NORM_NAMES[kind]) if kind in NORM_NAMES else (layer, kind)

    def _start_from(self, params: Any, statistics: Any) -> None:
        # All of it is put on the device by name, as its successors are there by name: where an argument comes
        # from by default, jit compiles for it anew, so the second step would compile again.
        params, statistics = jax.device_put((params, statistics), self._device)
        self._state = (params, statistics, jax.device_put(self._optimizer.init(params), self._device))

    def export_params(self) -> Params:
        found = {}
        for name in self._shapes:
            layer, kind = self._place(name)
            found[name] = np.array(self._state[is_statistic(name)][layer][kind])
        return found

    def save_state(self) -> State:
        return {str(number): np.array(leaf) for number, leaf in enumerate(jax.tree.leaves(self._state))}

    def restore_state(self, state: State) -> None:
        leaves = [jax.device_put(np.array(state[str(number)]), self._device) for number in range(len(state))]
        self._state = jax.tree.unflatten(jax.tree.structure(self._state), leaves)

    # The framework's own defaults

    def initialise(self, seed: int) -> None:
        self._start_from(*self._draw(jax.random.key(seed)))

    def _plain_draw(self, key: jax.Array) -> tuple[Any, Any]:
        network = self._network(key)
        kinds = (nnx.Param, nnx.BatchStat)
        return tuple(nnx.to_pure_dict(nnx.state(network, kind)) for kind in kinds)

    def permutation(self, seed: int, epoch: int) -> np.ndarray:
        key = jax.random.fold_in(jax.random.key(seed), epoch)
        return np.array(jax.random.permutation(key, self._images_count))

    # What it tells of itself

    def split_steps(self, order: np.ndarray) -> StepSplit:
        state = self._state
        laps = Laps()
        batches = iter(self._pipeline.batches(order) if self._mode == "grain" else order)
        for _ in order:
            laps.begin()
            batch = next(batches)
            if self._mode == "grain":
                laps.end("data_s")
                x, labels = jax.block_until_ready(jax.device_put(batch, self._device))
                laps.end("transfer_s")
            else:
                batch = jax.block_until_ready(jax.device_put(batch, self._device))
                laps.end("transfer_s")
                x, labels = jax.block_until_ready(self._gather(batch, self._images, self._labels))
                laps.end("data_s")
            state, loss = self._learn(state, x, labels)
            laps.end("dispatch_s")
            jax.block_until_ready((state, loss))
            laps.end("device_s")
        self._state = state
        return laps.split(len(order))

    def count_flops(self) -> float | None:
        state = self._state
        batch = self._workload.batch_size
        if self._mode == "grain":
            x = jax.ShapeDtypeStruct((batch, *self._info.image_shape), jnp.float32)
            labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
            return counted_flops(self._learn.lower(state, x, labels))
        # The loop's body is that same step, and XLA cannot say how often it runs.
        order = jax.ShapeDtypeStruct((batch,), jnp.int32)
        return counted_flops(self._step.lower(state, order, self._images, self._labels))

    def peak(self) -> Peak:
        return measured_peak(self._dtype, self._device)

    def describe(self) -> dict[str, str | int | float | bool | None]:
        device = next(iter(jax.tree.leaves(self._state)[0].devices()))
        memory = device.memory_stats() or {}
        return {
            "device": "cpu" if device.platform == "cpu" else "gpu",
            "device_name": device.device_kind,
            "dtype": jnp.dtype(self._dtype).name,
            "jax": jax.__version__,
            "jaxlib": jaxlib.__version__,
            "flax": flax.__version__,
            "optax": optax.__version__,
            **({"grain": self._pipeline.version} if self._mode == "grain" else {}),
            "compiler_options": " ".join(f"{name}={value}" for name, value in self._options.items()) or None,
            "matmul_precision": jax.config.jax_default_matmul_precision,
            "peak_device_bytes": memory.get("peak_bytes_in_use") if device.platform != "cpu" else None,
        }


def unrolled(step: Callable[..., Any], state: Any, rows: jax.Array) -> tuple[Any, jax.Array]:
    """Do as `jax.lax.scan`, whose `unroll` leaves a loop where there is one row alone."""
    losses = []
    for row in rows:
        state, loss = step(state, row)
        losses.append(loss)
    return state, jnp.stack(losses)


def gather(batch: jax.Array, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the images, scaled, and the labels of a batch."""
    return scale(images[batch]), labels[batch]


def scale(images: jax.Array) -> jax.Array:
    return images.astype(jnp.float32) / 255


class Pipeline:
    """Batches as Grain, JAX's own library for loading data, makes them: sample by sample, in NumPy.

    The steps are those of "Plugging Grain into JAX training" (google-grain.readthedocs.io), but for the
    order, which is given.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        try:
            import grain
        except ImportError as error:
            raise UnavailableError(f"mode grain needs the package grain: {error}") from error
        self._grain, self.version = grain, grain.__version__
        self._images, self._labels = images, labels

    def batches(self, order: np.ndarray) -> Iterable[tuple[np.ndarray, np.ndarray]]:
        """Yield images, float32 and scaled, and labels of every row of `order`.

        One thread works ahead, as the images lie in memory and Python runs one thread at a time; Grain's
        default of 500 batches in advance would be 600 MB of CIFAR-10. Worker processes would each take
        seconds to start, again at every call, and a job is one process.
        """

        def sample(index: np.int32) -> tuple[np.ndarray, np.int32]:
            return self._images[index].astype(np.float32) / 255, self._labels[index]

        return (
            self._grain.MapDataset.source(order.ravel())
            .map(sample)
            .batch(order.shape[1], drop_remainder=True)
            .to_iter_dataset(self._grain.ReadOptions(num_threads=1, prefetch_buffer_size=4))
        )


def find_device(device: Device) -> jax.Device:
    """Return the device asked for; never another one."""
    try:
        return jax.devices(device)[0]
    except RuntimeError as error:
        raise UnavailableError(f"JAX {jax.__version__} sees no {device.upper()} here: {error}") from error


def known_options(options: dict[str, str]) -> dict[str, str]:
    """Return compiler options, or none where this version of XLA does not know them: it is asked by a try."""

    def tried() -> int:
        return 0

    try:
        jax.jit(tried, compiler_options=options)()
    except jax.errors.JaxRuntimeError:
        return {}
    return options


class Network(nnx.Module):
    """The network; it takes float32 images (n, height, width, channels) and gives logits."""

    def __init__(self, architecture: Architecture, info: DatasetInfo, *, dtype: Any, rngs: nnx.Rngs) -> None:
        self._architecture = architecture
        height, width, channels = info.image_shape
        kinds = {"dtype": dtype, "param_dtype": jnp.float32, "rngs": rngs}
        for number, block in enumerate(architecture.convs, start=1):
            size = (block.kernel, block.kernel)
            bias = {"use_bias": not block.normalise}
            conv = nnx.Conv(channels, block.filters, size, padding="SAME", **bias, **kinds)
            setattr(self, f"conv{number}", conv)
            if block.normalise:
                norm = nnx.BatchNorm(block.filters, momentum=NORM_DECAY, epsilon=NORM_EPSILON, **kinds)
                setattr(self, f"conv{number}_norm", norm)
            height, width, channels = height // block.pool, width // block.pool, block.filters
        features = height * width * channels
        for number, units in enumerate(architecture.hidden, start=1):
            setattr(self, f"dense{number}", nnx.Linear(features, units, **kinds))
            features = units
        self.logits = nnx.Linear(features, info.classes, **kinds)

    def __call__(self, x: jax.Array, *, training: bool) -> jax.Array:
        for number, block in enumerate(self._architecture.convs, start=1):
            x = getattr(self, f"conv{number}")(x)
            if block.normalise:
                x = getattr(self, f"conv{number}_norm")(x, use_running_average=not training)
            x = max_pool(nnx.relu(x), block.pool)
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


def make_own_optimizer(spec: OptimizerSpec) -> optax.GradientTransformation:
    """Return the optimizer of that name with all that optax sets by default.

    It has no default for a learning rate, so these are the rates that are taught: for `adam` on the front
    page of Flax's documentation, for `sgd` and `momentum` in Flax's own MNIST example (examples/mnist), and
    for `rmsprop`, which Flax does not teach, in optax's reference of `optax.rmsprop`.
    """
    match spec.name:
        case "sgd":
            return optax.sgd(0.1)
        case "momentum":
            return optax.sgd(0.1, momentum=0.9)
        case "adam":
            return optax.adam(1e-3)
        case "rmsprop":
            return optax.rmsprop(3e-3)


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
        case "adam" if spec.epsilon_hat:
            return optax.chain(
                scale_by_adam_with_epsilon_hat(spec.beta1, spec.beta2, spec.epsilon),
                optax.scale_by_learning_rate(rate),
            )
        case "adam":
            return optax.adam(rate, b1=spec.beta1, b2=spec.beta2, eps=spec.epsilon, eps_root=0.0)
        case "rmsprop":
            return optax.rmsprop(
                rate, decay=spec.rho, eps=spec.epsilon, initial_scale=spec.initial_square, eps_in_sqrt=True
            )


def scale_by_adam_with_epsilon_hat(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Adam's step with epsilon added to the root of the uncorrected moment; optax corrects it first."""
    plain = optax.scale_by_adam(b1=b1, b2=b2)

    def update(
        gradients: Any, state: optax.ScaleByAdamState, params: Any = None
    ) -> tuple[Any, optax.ScaleByAdamState]:
        _, state = plain.update(gradients, state, params)
        step = state.count.astype(jnp.float32)
        correction = jnp.sqrt(1 - b2**step) / (1 - b1**step)
        return jax.tree.map(lambda m, v: correction * m / (jnp.sqrt(v) + eps), state.mu, state.nu), state

    return optax.GradientTransformation(plain.init, update)
