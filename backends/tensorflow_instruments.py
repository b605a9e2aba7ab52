"""The instruments of the TensorFlow backend: the parts of a step, its operations, the machine's peak."""

import time
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from backends.step_clock import StepClock
from bench.workloads.instruments import Peak, StepSplit
from bench.workloads.precision import ROWS, product_error
from bench.workloads.specs import Device

MATRIX_SIDE: dict[Device, int] = {"cpu": 2048, "gpu": 8192}
COPIED_BYTES: dict[Device, int] = {"cpu": 2**28, "gpu": 2**30}
"""Bytes of one copy. A CPU's caches hold tens of megabytes."""
TRIES = 8
LIMIT_S = 0.5


def timed_parts(
    order: np.ndarray,
    fetch: Callable[[np.ndarray, StepClock], Iterator[tuple[tf.Tensor, tf.Tensor]]],
    update: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
) -> StepSplit:
    """Train one step for each row of `order`, int32 (steps, batch), and return the mean time of each part.

    `fetch` yields the batch of each row and marks the parts that bring it; `update` trains on a batch.
    """
    tf.test.experimental.sync_devices()
    clock = StepClock()
    clock.begin()
    for images, labels in fetch(order, clock):
        update(images, labels)
        clock.mark("dispatch")
        tf.test.experimental.sync_devices()
        clock.mark("device")
    return clock.split(len(order))


def graph_flops(function: tf.types.experimental.ConcreteFunction) -> float | None:
    """Return the floating-point operations of a function, or None if the profiler finds none.

    `tf.compat.v1.profiler` counts matrix products, convolutions and their gradients, biases, pooling and
    arithmetic, but not ReLU, the loss or the assignment of an update. Only operations that affect a result
    count, as a tf.function prunes the others: every graph holds the gradient of the first convolution with
    respect to the images.
    """
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    options["output"] = "none"
    counted = {}
    nodes = [tf.compat.v1.profiler.profile(function.graph, cmd="scope", options=options)]
    while nodes:
        node = nodes.pop()
        counted[node.name] = node.float_ops
        nodes += node.children
    needed = _needed(function)
    total = sum(operations for name, operations in counted.items() if name in needed)
    return float(total) if total > 0 else None


def _needed(function: tf.types.experimental.ConcreteFunction) -> set[str]:
    """Return the names of the operations on which a result or an effect of the function depends."""
    needed: set[str] = set()
    operations = [tensor.op for tensor in function.outputs] + list(function.graph.control_outputs)
    while operations:
        operation = operations.pop()
        if operation.name not in needed:
            needed.add(operation.name)
            operations += [tensor.op for tensor in operation.inputs] + operation.control_inputs
    return needed


def measured_peak(device: Device, dtype: tf.DType) -> Peak:
    """Return the best rates of `tf.linalg.matmul` in a tf.function and of a copy, on this device."""
    side, copied = MATRIX_SIDE[device], COPIED_BYTES[device]
    with tf.device(f"/{device.upper()}:0"):
        plain = [tf.random.stateless_normal((side, side), (seed, 0)) for seed in (0, 1)]
        a, b = (tf.cast(matrix, dtype) for matrix in plain)
        product = tf.function(tf.linalg.matmul)
        product_s = _best_seconds(lambda: product(a, b))
        found = tf.cast(product(a, b)[:ROWS], tf.float32)
        error = product_error(plain[0][:ROWS].numpy(), plain[1].numpy(), found.numpy())
        source = tf.zeros(copied // 4, tf.float32)
        # tf.identity copies nothing; this operation always copies.
        copy_s = _best_seconds(lambda: tf.raw_ops.DeepCopy(x=source))
    return Peak(flops_per_s=2 * side**3 / product_s, bytes_per_s=2 * copied / copy_s, product_error=error)


def _best_seconds(work: Callable[[], object]) -> float:
    """Return the shortest of `TRIES` times, or of fewer if these take more than `LIMIT_S` together."""
    work()
    best = float("inf")
    end = time.perf_counter() + LIMIT_S
    for _ in range(TRIES):
        tf.test.experimental.sync_devices()
        start = time.perf_counter()
        work()
        tf.test.experimental.sync_devices()
        best = min(best, time.perf_counter() - start)
        if time.perf_counter() > end:
            break
    return best
