"""The instruments of the PyTorch backend: the operations of a step, the machine's peak."""

import time
from collections.abc import Callable

import torch

from bench.workloads.instruments import Peak
from bench.workloads.precision import ROWS, product_error
from bench.workloads.specs import Precision

CPU_SIDE, CPU_HALF_SIDE, GPU_SIDE = 2048, 1024, 8192
"""Rows of the square matrices whose product is timed. A CPU without instructions for bfloat16 takes a minute
for a product of 2048, and seconds for one of 1024."""
COPY_BYTES = 256 * 2**20
TRIES, TRIES_S, LONGEST_S = 3, 0.4, 2.0
"""The least number of tries, and the least seconds of all; after `LONGEST_S` seconds no other try begins."""


def counted_flops(run: Callable[[], object]) -> float:
    """Return the operations in `run` that PyTorch's counter sees: products, convolutions and attention."""
    from torch.utils.flop_counter import FlopCounterMode  # imports triton where there is one

    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def measure_peak(device: torch.device, precision: Precision) -> Peak:
    """Return the best of several tries of a square product and of a copy; `set_precision` decides on TF32."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    side = GPU_SIDE if device.type == "cuda" else CPU_HALF_SIDE if precision == "bf16" else CPU_SIDE
    plain = [torch.randn(side, side, device=device) for _ in range(2)]
    left, right = (matrix.to(dtype) for matrix in plain)
    product = torch.empty(side, side, device=device, dtype=dtype)
    product_s = best_seconds(lambda: torch.mm(left, right, out=product), device)
    parts = (plain[0][:ROWS], plain[1], product[:ROWS])
    error = product_error(*(part.float().cpu().numpy() for part in parts))

    # Ones, because unwritten zeros may all be one page, which is read from a cache.
    source = torch.ones(COPY_BYTES, device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    copy_s = best_seconds(lambda: target.copy_(source), device)
    return Peak(flops_per_s=2 * side**3 / product_s, bytes_per_s=2 * COPY_BYTES / copy_s, product_error=error)


def best_seconds(run: Callable[[], object], device: torch.device) -> float:
    """Return the shortest time of several tries, in seconds, on a GPU by its own clock."""
    run()
    synchronise(device)
    found: list[float] = []
    start = time.perf_counter()
    while len(found) < TRIES or time.perf_counter() < start + TRIES_S:
        found.append(gpu_seconds(run) if device.type == "cuda" else cpu_seconds(run))
        if time.perf_counter() > start + LONGEST_S:
            break
    return min(found)


def gpu_seconds(run: Callable[[], object]) -> float:
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record()
    run()
    after.record()
    after.synchronize()
    return before.elapsed_time(after) / 1e3


def cpu_seconds(run: Callable[[], object]) -> float:
    start_ns = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - start_ns) / 1e9


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished; on a CPU every call has finished when it returns."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
