"""What the JAX backend measures beside training: the parts of a step, its operations, the machine's peak."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.workloads.instruments import Peak, StepSplit
from bench.workloads.precision import ROWS, product_error

TRIES = 5
PRODUCT_SIDE = {"cpu": 1536, "gpu": 8192}
"""Rows and columns of the matrices: a product takes some tens of milliseconds on two cores or on a GPU."""
COPIED_FLOATS = {"cpu": 2**25, "gpu": 2**28}
"""128 MiB and 1 GiB of float32, read once and written once."""


class Laps:
    """Sums of seconds by part of a step."""

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(("data_s", "transfer_s", "dispatch_s", "device_s"), 0.0)
        self.begin()

    def begin(self) -> None:
        """Start the clock of the next part."""
        self._since = time.perf_counter_ns()

    def end(self, part: str) -> None:
        """Add the time since the last call to a part, and start the clock of the next."""
        now = time.perf_counter_ns()
        self._seconds[part] += (now - self._since) / 1e9
        self._since = now

    def split(self, steps: int) -> StepSplit:
        """Return the means over so many steps."""
        return StepSplit(steps=steps, **{part: seconds / steps for part, seconds in self._seconds.items()})


def counted_flops(lowered: jax.stages.Lowered) -> float | None:
    """Return the floating-point operations that XLA counts in a program before it optimises it.

    After that, a product or a convolution may be a call of a library, in which XLA counts nothing.
    """
    analysis = lowered.cost_analysis()
    if isinstance(analysis, list):  # the form is free: some versions give one dictionary a program
        analysis = analysis[0]
    return float(analysis["flops"]) if analysis and "flops" in analysis else None


def measured_peak(dtype: Any, device: jax.Device) -> Peak:
    """Return the best of several tries of a product in the precision that JAX is set to, and of a copy."""
    kind = "cpu" if device.platform == "cpu" else "gpu"
    side, floats = PRODUCT_SIDE[kind], COPIED_FLOATS[kind]

    noise = np.random.default_rng(0).standard_normal(2**20, dtype=np.float32)
    plain = np.resize(noise, (side, side))
    matrix = jax.device_put(plain, device).astype(dtype)
    multiply = jax.jit(jnp.matmul)
    product_s = shortest(lambda: multiply(matrix, matrix))
    error = product_error(plain[:ROWS], plain, np.array(multiply(matrix, matrix)[:ROWS].astype(jnp.float32)))

    # The result goes where the donated argument is: memory that is new to the process costs page faults.
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
    """Return the fewest seconds that the work took in several tries, after one that is not timed."""
    tries = []
    for _ in range(1 + TRIES):
        start = time.perf_counter_ns()
        work().block_until_ready()
        tries.append((time.perf_counter_ns() - start) / 1e9)
    return min(tries[1:])
