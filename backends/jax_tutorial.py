"""Mode `tutorial`: the training loop that Flax teaches first.

The network, the step and the loop follow Flax's MNIST tutorial
(https://flax.readthedocs.io/en/stable/mnist_tutorial.html). That tutorial loads with TensorFlow's data
sets. Here Grain does (https://google-grain.readthedocs.io), which JAX's documentation recommends, and reads
without threads, as `grain.ReadOptions` recommends for data in memory. Every workload brings its own layers,
optimizer, loss and precision, and the order of the images is given. Nothing is tuned.

The class at the end connects the loop with the harness.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from backends.jax_backend import fetch
from backends.jax_instruments import InstrumentedRunner
from backends.step_clock import StepClock
from bench.workloads.specs import NORM_DECAY, NORM_EPSILON, Architecture, DatasetInfo

if TYPE_CHECKING:
    from backends.jax_backend import JaxBackend

# The network


class Network(nnx.Module):
    """The workload's network; it takes float32 images (n, height, width, channels) and returns logits."""

    def __init__(
        self, architecture: Architecture, info: DatasetInfo, *, dtype: Any, precision: str, rngs: nnx.Rngs
    ) -> None:
        self.convs, self.hidden = architecture.convs, len(architecture.hidden)
        products = {"dtype": dtype, "precision": precision, "rngs": rngs}
        height, width, channels = info.image_shape
        for number, block in enumerate(self.convs, start=1):
            size = (block.kernel, block.kernel)
            conv = nnx.Conv(channels, block.filters, size, use_bias=not block.normalise, **products)
            setattr(self, f"conv{number}", conv)
            if block.normalise:
                norm = nnx.BatchNorm(
                    block.filters, momentum=NORM_DECAY, epsilon=NORM_EPSILON, dtype=dtype, rngs=rngs
                )
                setattr(self, f"conv{number}_norm", norm)
            height, width, channels = height // block.pool, width // block.pool, block.filters
        features = height * width * channels
        for number, units in enumerate(architecture.hidden, start=1):
            setattr(self, f"dense{number}", nnx.Linear(features, units, **products))
            features = units
        self.logits = nnx.Linear(features, info.classes, **products)

    def __call__(self, x: jax.Array) -> jax.Array:
        for number, block in enumerate(self.convs, start=1):
            x = getattr(self, f"conv{number}")(x)
            if block.normalise:
                x = getattr(self, f"conv{number}_norm")(x)
            pool = (block.pool, block.pool)
            x = nnx.max_pool(nnx.relu(x), window_shape=pool, strides=pool)
        x = x.reshape(x.shape[0], -1)
        for number in range(1, self.hidden + 1):
            x = nnx.relu(getattr(self, f"dense{number}")(x))
        return self.logits(x)


# The loader


def make_loader(
    images: np.ndarray, labels: np.ndarray, order: np.ndarray, batch_size: int
) -> grain.IterDataset[dict[str, np.ndarray]]:
    """Return an iterable of batches: the images, float32 (batch, h, w, c) from 0 to 1, and the labels."""
    reading = grain.ReadOptions(num_threads=0)

    def sample(index: np.int32) -> dict[str, Any]:
        return {"image": images[index].astype(np.float32) / 255, "label": labels[index]}

    return grain.MapDataset.source(order).map(sample).batch(batch_size).to_iter_dataset(reading)


# The step and the loop


def loss_fn(model: Network, batch: Any, reduce: Callable[[jax.Array], jax.Array]) -> jax.Array:
    logits = model(batch["image"]).astype(jnp.float32)
    return reduce(optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]))


@nnx.jit(static_argnames="reduce")
def train_step(
    model: Network, optimizer: nnx.Optimizer[Network], batch: Any, *, reduce: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    """Train one step: change model and optimizer in place, and return the loss before the update."""
    loss, grads = nnx.value_and_grad(loss_fn)(model, batch, reduce)
    optimizer.update(model, grads)
    return loss


class Tutorial(InstrumentedRunner):
    """Trains with the functions above; the model and the optimizer are made from the backend's state."""

    call_steps = 1
    versions: Mapping[str, str] = {"grain": grain.__version__}

    def __init__(self, backend: "JaxBackend") -> None:
        super().__init__(backend)
        self._images = np.asarray(backend.images)  # indexing an np.memmap takes longer
        self._reduce = jnp.sum if backend.workload.loss == "sum" else jnp.mean
        self._stored: Any = None
        # To draw parameters here would compile a program for each; they come with the backend's state.
        self._model, self._optimizer = nnx.eval_shape(self._make)

    def _make(self) -> tuple[Network, nnx.Optimizer[Network]]:
        backend = self._backend
        model = Network(
            backend.workload.architecture,
            backend.info,
            dtype=backend.dtype,
            precision=backend.precision,
            rngs=nnx.Rngs(0),
        )
        return model, nnx.Optimizer(model, backend.optimizer, wrt=nnx.Param)

    def train(self, order: np.ndarray, draws: np.ndarray | None) -> np.ndarray:  # noqa: ARG002 (augments none)
        self._load()
        losses = []
        for batch in self._loader(order):
            losses.append(train_step(self._model, self._optimizer, batch, reduce=self._reduce))
        self._store()
        return fetch(losses)

    def _loader(self, order: np.ndarray) -> grain.IterDataset[dict[str, np.ndarray]]:
        return make_loader(self._images, self._backend.labels, order.ravel(), order.shape[1])

    # Between the backend's state, which is plain dictionaries, and the objects of nnx

    def _load(self) -> None:
        """Take the backend's state, unless it is what `_store` left there."""
        backend = self._backend
        if backend.state is self._stored:
            return
        params, statistics, optimizer_state = backend.state
        nnx.update(self._model, params)
        nnx.update(self._model, statistics)
        structure = jax.tree.structure(nnx.as_pure(self._optimizer.opt_state))
        arrays = jax.tree.unflatten(structure, jax.tree.leaves(optimizer_state))
        nnx.update(self._optimizer.opt_state, nnx.state(arrays))
        nnx.update(self._optimizer, {"step": jax.device_put(np.uint32(0), backend.device)})

    def _store(self) -> None:
        """Store the state for the backend, and wait for the last update."""
        backend = self._backend
        params, statistics = (
            nnx.to_pure_dict(nnx.state(self._model, kind)) for kind in (nnx.Param, nnx.BatchStat)
        )
        structure = jax.tree.structure(backend.state[2])
        optimizer_state = jax.tree.unflatten(
            structure, jax.tree.leaves(nnx.as_pure(self._optimizer.opt_state))
        )
        backend.state = self._stored = jax.block_until_ready((params, statistics, optimizer_state))

    # Instruments

    def split(self, order: np.ndarray, clock: StepClock) -> None:
        self._load()
        batches = iter(self._loader(order))
        for _ in order:
            clock.begin()
            batch = next(batches)
            clock.mark("data")
            sent = jax.block_until_ready(jax.device_put(batch, self._backend.device))
            clock.mark("transfer")
            loss = train_step(self._model, self._optimizer, sent, reduce=self._reduce)
            clock.mark("dispatch")
            jax.block_until_ready((loss, nnx.state(self._model), nnx.state(self._optimizer)))
            clock.mark("device")
        self._store()

    def counted_step(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        self._load()
        backend, reduce = self._backend, self._reduce
        batch_size = backend.workload.batch_size
        batch = {
            "image": jax.ShapeDtypeStruct((batch_size, *backend.info.image_shape), jnp.float32),
            "label": jax.ShapeDtypeStruct((batch_size,), jnp.int32),
        }
        graph, state = nnx.split((self._model, self._optimizer))

        def step(state: Any, batch: Any) -> Any:
            model, optimizer = nnx.merge(graph, state)
            loss = train_step(model, optimizer, batch, reduce=reduce)
            return nnx.state((model, optimizer)), loss

        return step, (state, batch)
