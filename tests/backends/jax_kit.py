"""What the tests of the JAX backend share: a network that trains on noise, and checks in a child process."""

import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import pytest
from conftest import INFOS, in_process

from backends.base import TrainingData
from bench.workloads.specs import Architecture, Augmentation, ConvBlock, DatasetInfo, OptimizerSpec, Workload

INFO = DatasetInfo(name="noise", image_shape=(12, 8, 1), classes=7)
BATCH = 8
IMAGES = 160
MODES = ("jit", "loop", "grain-samples", "grain-batches", "tutorial")
PIPELINES = MODES[2:]
NETWORKS = {
    "softmax": Architecture(),
    "cnn": Architecture(convs=(ConvBlock(filters=4, kernel=3),), hidden=(9,)),
    "normalised": Architecture(convs=(ConvBlock(filters=4, kernel=3, normalise=True),), hidden=(9,)),
}
SGD = OptimizerSpec(name="sgd", learning_rate=0.1)
ADAM = OptimizerSpec(name="adam", learning_rate=0.01)


def make(
    mode: str, optimizer: OptimizerSpec = SGD, network: str = "softmax", *, matched: bool = True,
    device: str = "cpu", precision: str = "fp32", augmentation: Augmentation | None = None,
) -> Any:  # fmt: skip
    from backends.jax_backend import JaxBackend

    rng = np.random.default_rng(0)
    data = TrainingData(
        info=INFO,
        images=rng.integers(0, 256, (IMAGES, *INFO.image_shape), dtype=np.uint8),
        labels=rng.integers(0, INFO.classes, IMAGES, dtype=np.uint8),
    )
    workload = Workload(
        name="noise",
        dataset="noise",
        architecture=NETWORKS[network],
        optimizer=optimizer,
        batch_size=BATCH,
        matched=matched,
        augmentation=augmentation,
    )
    return JaxBackend(workload, data, mode=mode, device=device, precision=precision)


def order(steps: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, IMAGES, (steps, BATCH), dtype=np.int32)


def zeros(backend: Any) -> dict[str, np.ndarray]:
    return {name: np.zeros_like(value) for name, value in backend.export_params().items()}


@contextmanager
def heard(event: str) -> Iterator[list[str]]:
    """Collect the details of an event of JAX meanwhile."""
    import jax

    seen: list[str] = []

    def listen(name: str, seconds: float, **details: Any) -> None:
        if name == event:
            seen.append(f"{details} {seconds:.2f} s")

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


compilations = partial(heard, "/jax/core/compile/backend_compile_duration")
traces = partial(heard, "/jax/core/compile/jaxpr_trace_duration")


def as_on_a_gpu(mode: str, optimizer: OptimizerSpec, network: str, **others: Any) -> Any:
    """Return a backend that runs on the CPU the programs that it has for a GPU."""
    from backends import jax_backend, jax_loop

    on_cpu = jax_backend.find_device("cpu")
    with (
        mock.patch.object(jax_backend, "find_device", return_value=on_cpu),
        mock.patch.object(jax_loop, "SENT_INDICES", 40 * BATCH),
    ):
        return make(mode, optimizer, network, device="gpu", **others)


def run_all(checks: Mapping[str, Callable[[], None]], names: list[str]) -> dict[str, str | None]:
    """Return for each check None or what went wrong; called in a child process."""
    found: dict[str, str | None] = {}
    for name in names:
        try:
            checks[name]()
            found[name] = None
        except (Exception, pytest.fail.Exception):
            found[name] = traceback.format_exc()
    return found


def verdicts_of(
    request: pytest.FixtureRequest, module: str, checks: Mapping[str, object]
) -> Callable[[], dict[str, str | None]]:
    """Return what one child process finds for all checks of a test module that this session selected."""
    chosen = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    names = [name for name in checks if {"jax_check": name} in chosen]
    found: dict[str, str | None] = {}

    def of_all() -> dict[str, str | None]:
        if not found:
            found.update(in_process(INFOS["jax"], f"{module}:run_checks", names))
        return found

    return of_all
