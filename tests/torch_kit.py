"""What the checks of the PyTorch backend share: a backend that trains on noise, and what it is compared with.

pytest's own process imports no framework, so torch is imported inside functions.
"""

from typing import Any

import numpy as np

from backends.base import TrainingData
from bench.workloads.parameters import initial_params
from bench.workloads.specs import Architecture, ConvBlock, DatasetInfo, OptimizerSpec, Workload

INFO = DatasetInfo(name="noise", image_shape=(12, 8, 3), classes=7)
BATCH = 10
MLP = Architecture(hidden=(16,))
CNN = Architecture(convs=(ConvBlock(filters=4, kernel=5), ConvBlock(filters=5, kernel=3)), hidden=(12,))
NORMALISED = Architecture(convs=(ConvBlock(filters=4, kernel=3, normalise=True),), hidden=(6,))
RATES = {"sgd": 0.1, "momentum": 0.05, "adam": 0.01, "rmsprop": 0.01}
LOADERS = ("dataloader-samples", "dataloader-batches", "tutorial")


def data() -> TrainingData:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (200, *INFO.image_shape), dtype=np.uint8)
    return TrainingData(info=INFO, images=images, labels=rng.integers(0, 7, 200, dtype=np.uint8))


def make(mode: str, architecture: Architecture = MLP, optimizer: str = "momentum", **other: Any) -> Any:
    """Return a backend; where its workload is matched, given the same start in every call."""
    from backends.torch_backend import TorchBackend

    spec = OptimizerSpec(name=optimizer, learning_rate=RATES[optimizer], decay_rate=0.5, decay_steps=4)
    precision, matched = other.get("precision", "fp32"), other.get("matched", True)
    workload = Workload(
        name="noise",
        dataset="noise",
        architecture=architecture,
        optimizer=spec,
        batch_size=BATCH,
        matched=matched,
        augmentation=other.get("augmentation"),
    )
    backend = TorchBackend(workload, data(), mode=mode, device="cpu", precision=precision)
    if matched:
        backend.load_params(initial_params(architecture, workload.seen(INFO), seed=5))
    return backend


def order(steps: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 200, (steps, BATCH), dtype=np.int32)


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], what: str) -> None:
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=f"{what}: {name}")


def cpu_modes() -> list[str]:
    from backends.catalog import TORCH

    return [mode.name for mode in TORCH.modes if "cpu" in mode.devices and not mode.distributed]


def check_that_it_starts_anew(backend: Any, name: str) -> None:
    """Check that a backend repeats itself after `initialise` and after `restore_state`."""
    backend.initialise(3)
    first = backend.train_steps(order(6))
    assert len(set(first.tolist())) == 6
    state = backend.save_state()
    expected = backend.train_steps(order(4))
    backend.restore_state(state)
    np.testing.assert_array_equal(backend.train_steps(order(4)), expected, err_msg=f"{name}, restored")
    backend.initialise(3)
    np.testing.assert_array_equal(backend.train_steps(order(6)), first, err_msg=f"{name}, initialised")
