"""The instruments of the JAX backend: the parts of a step, its operations, the machine's peak."""

import time
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from backends.jax_device import OneDevice
from backends.step_clock import StepClock
from bench.workloads.instruments import Peak
from bench.workloads.precision import ROWS, product_error

if TYPE_CHECKING:
    from backends.jax_backend import JaxBackend

TRIES = 5
PRODUCT_SIDE = {"cpu": 1536, "gpu": 8192}
"""Rows and columns of the matrices: a product takes some tens of milliseconds on two cores or on a GPU."""
COPIED_FLOATS = {"cpu": 2**25, "gpu": 2**28}
"""128 MiB and 1 GiB of float32; the copy reads and writes them once."""


class InstrumentedRunner:
    """What the instruments need of a runner. This class is for modes whose images are on the device."""

    versions: Mapping[str, str | int] = {}
    """Versions of the packages that only this mode needs, and other facts, for `describe`."""
    layout: Callable[[jax.Device], Any] = OneDevice
    """Where the arrays of a mode lie."""

    def __init__(self, backend: "JaxBackend") -> None:
        self._backend = backend

    @cached_property
    def _gather(self) -> Callable[..., Any]:
        return jax.jit(self._backend.gather)

    def timed_batches(self, order: np.ndarray, clock: StepClock) -> Iterator[tuple[jax.Array, jax.Array]]:
        """Yield the scaled images and the labels of each batch; mark the parts `transfer` and `data`."""
        backend = self._backend
        for batch in order:
            clock.begin()
            sent = jax.block_until_ready(jax.device_put(batch, backend.device))
            clock.mark("transfer")
            gathered = jax.block_until_ready(self._gather(sent, backend.images, backend.labels))
            clock.mark("data")
            yield gathered

    def split(self, order: np.ndarray, clock: StepClock) -> None:
        """Train as `train` does, and mark each part of every step."""
        backend, state = self._backend, self._backend.state
        for x, labels in self.timed_batches(order, clock):
            state, loss = backend.learn(state, x, labels)
            clock.mark("dispatch")
            jax.block_until_ready((state, loss))
            clock.mark("device")
        backend.state = state

    def counted_step(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Return a function that trains one step, and its arguments or their shapes, to count its operations.

        It has no loop: XLA could not count how often a loop's body runs.
        """
        backend = self._backend
        batch = jax.ShapeDtypeStruct((backend.workload.batch_size,), jnp.int32)
        return backend.step, (backend.state, batch, backend.images, backend.labels)


def counted_flops(function: Callable[..., Any], arguments: tuple[Any, ...]) -> float | None:
    """Return the floating-point operations that XLA counts in a program before it optimises it, or None.

    In the optimised program a product or a convolution may be a library call, for which XLA counts nothing.
    JAX analyses an unoptimised program only for a CPU, and raises for every other device. The program is the
    same, so it is lowered for the CPU: by the shapes of its arguments, as the arguments are bound to their
    device.
    """
    try:
        cpu = jax.devices("cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS leaves the CPU out
        return None
    shapes = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), arguments)
    with jax.default_device(cpu):
        analysis = jax.jit(function).lower(*shapes).cost_analysis()
    if isinstance(analysis, list):  # some versions return one dictionary per program
        analysis = analysis[0]
    return float(analysis["flops"]) if analysis and "flops" in analysis else None


def measured_peak(dtype: Any, precision: str, device: jax.Device) -> Peak:
    """Return the best of several tries of a product, in JAX's `precision`, and of a copy."""
    kind = "cpu" if device.platform == "cpu" else "gpu"
    side, floats = PRODUCT_SIDE[kind], COPIED_FLOATS[kind]

    noise = np.random.default_rng(0).standard_normal(2**20, dtype=np.float32)
    plain = np.resize(noise, (side, side))
    matrix = jax.device_put(plain, device).astype(dtype)
    multiply = jax.jit(partial(jnp.matmul, precision=precision))
    product_s = shortest(lambda: multiply(matrix, matrix))
    error = product_error(plain[:ROWS], plain, np.array(multiply(matrix, matrix)[:ROWS].astype(jnp.float32)))

    # The result replaces the donated argument: new memory would cost page faults.
    add_one = jax.jit(lambda source, _: source + 1, donate_argnums=1, keep_unused=True)
    source, target = (jax.device_put(np.zeros(floats, np.float32), device) for _ in range(2))

    def copy() -> jax.Array:
        nonlocal target
        target = add_one(source, target)
        return target

    return Peak(
        flops_per_s=2 * side**3 / product_s,
        bytes_per_s=2 * source.nbytes / shortest(copy),
        product_error=error,
    )


def shortest(work: Callable[[], jax.Array]) -> float:
    """Return the shortest time of several tries, in seconds, after one that is not timed."""
    tries = []
    for _ in range(1 + TRIES):
        start = time.perf_counter_ns()
        work().block_until_ready()
        tries.append((time.perf_counter_ns() - start) / 1e9)
    return min(tries[1:])
