"""What the checks of conformance share: a backend that trains on noise, and comparisons with clear errors."""

import hashlib
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from backends.base import Backend, TrainingData
from backends.info import BackendInfo
from bench.parity import checks, reference
from bench.workloads.parameters import Params, initial_params
from bench.workloads.specs import (
    Architecture,
    ConvBlock,
    DatasetInfo,
    Device,
    OptimizerSpec,
    Precision,
    Workload,
)

INFO = DatasetInfo(name="noise", image_shape=(11, 8, 3), classes=7)
BATCH = 8
ARCHITECTURES = {
    "softmax": Architecture(),
    "mlp": Architecture(hidden=(16,)),
    "cnn": Architecture(
        convs=(ConvBlock(filters=4, kernel=5), ConvBlock(filters=5, kernel=3)), hidden=(12, 6)
    ),
    "no pooling, then pool 3 with rows left over, to the classifier": Architecture(
        convs=(ConvBlock(filters=3, kernel=1, pool=1), ConvBlock(filters=4, kernel=3, pool=3))
    ),
    "eleven layers": Architecture(hidden=(4,) * 11),
    "one batch norm": Architecture(convs=(ConvBlock(filters=3, kernel=3, normalise=True),)),
    "two batch norms": Architecture(
        convs=(
            ConvBlock(filters=4, kernel=3, normalise=True),
            ConvBlock(filters=3, kernel=3, normalise=True),
        ),
        hidden=(6,),
    ),
}
OPTIMIZERS = {
    name: OptimizerSpec(name=name, learning_rate=rate, epsilon=1e-3, decay_rate=0.5, decay_steps=4)
    for name, rate in (("sgd", 0.1), ("momentum", 0.05), ("adam", 0.01), ("rmsprop", 0.01))
} | {
    "adam of TensorFlow 1": OptimizerSpec(
        name="adam", learning_rate=0.01, epsilon=1e-3, epsilon_hat=True, decay_rate=0.5, decay_steps=4
    ),
    "rmsprop of TensorFlow 1": OptimizerSpec(
        name="rmsprop", learning_rate=0.01, epsilon=1e-3, initial_square=1.0, decay_rate=0.5, decay_steps=4
    ),
}
SAME = 1e-6
"""The tolerance between two runs of one program: threads may add in another order, which moves a float32 by
some 6e-8."""
ALIKE = 2e-5
"""The tolerance between two programs that compute the same in another order, over 20 small steps: a wrong
formula is off by 1e-3."""


class Kit:
    """A backend under test, and a folder for memory maps like those that a worker trains from."""

    def __init__(
        self, backend_class: type[Backend], info: BackendInfo, folder: Path, *, traces: Path | None = None
    ) -> None:
        """`traces` is a folder in which the kits of all backends share the results of the reference."""
        self._traces = traces or folder
        self.backend_class, self.info = backend_class, info
        self.modes = [mode.name for mode in info.modes if "cpu" in mode.devices and not mode.distributed]
        rng = np.random.default_rng(0)
        np.save(folder / "images.npy", rng.integers(0, 256, (1001, *INFO.image_shape), dtype=np.uint8))
        np.save(folder / "labels.npy", rng.integers(0, INFO.classes, 1001, dtype=np.uint8))
        self._folder = folder
        self.images, self.labels = self.mapped()
        self.data = TrainingData(info=INFO, images=self.images[:160], labels=self.labels[:160])
        self._made: dict[tuple[Any, ...], Any] = {}

    def mapped(self) -> tuple[np.ndarray, np.ndarray]:
        """Return 1001 images and labels, mapped as `datasets.load` does: a write changes no other mapping."""
        return tuple(np.load(self._folder / f"{name}.npy", mmap_mode="c") for name in ("images", "labels"))

    def trace(self, workload: Workload, data: TrainingData) -> checks.Trace:
        """Return what the reference computes for a workload, from a file if it was computed before."""
        named = msgspec.json.encode(workload) + repr(data.images.shape).encode()
        path = self._traces / f"{hashlib.sha256(named).hexdigest()}.npz"
        if not path.exists():
            part = path.with_name(f"{os.getpid()}.npz")
            reference.save_trace(part, data, reference.reference_trace(workload, data))
            part.replace(path)
        return reference.load_trace(path)[1]

    def make(
        self,
        architecture: str = "softmax",
        optimizer: OptimizerSpec = OPTIMIZERS["adam"],
        *,
        mode: str | None = None,
        precision: Precision = "fp32",
        matched: bool = True,
    ) -> Any:
        """Return a backend with the start parameters and a reset optimizer.

        It is the same backend for the same arguments, so that its programs are compiled once for all checks.
        A check that needs an untouched backend calls `build`.
        """
        key = (architecture, optimizer, mode or self.info.default_mode, precision, matched)
        if key not in self._made:
            self._made[key] = self.build(
                architecture, optimizer, mode=mode, precision=precision, matched=matched
            )
        self._made[key].load_params(start(architecture))
        return self._made[key]

    def build(
        self,
        architecture: str,
        optimizer: OptimizerSpec,
        *,
        mode: str | None = None,
        device: Device = "cpu",
        precision: Precision = "fp32",
        matched: bool = True,
        data: TrainingData | None = None,
    ) -> Any:
        """Return a new backend without parameters, on the kit's data or on `data`."""
        workload = Workload(
            name="noise",
            dataset="noise",
            architecture=ARCHITECTURES[architecture],
            optimizer=optimizer,
            batch_size=BATCH,
            matched=matched,
        )
        mode = mode or self.info.default_mode
        return self.backend_class(workload, data or self.data, mode=mode, device=device, precision=precision)


def start(architecture: str) -> Params:
    """Return start parameters whose biases are not zero."""
    params = initial_params(ARCHITECTURES[architecture], INFO, seed=5)
    rng = np.random.default_rng(6)
    for name, value in params.items():
        if name.endswith(("bias", "offset", "mean")):
            params[name] = rng.normal(0, 0.3, value.shape).astype(np.float32)
        elif name.endswith(("scale", "variance")):
            params[name] = rng.uniform(0.5, 2.0, value.shape).astype(np.float32)
    return params


def narrow(workload: Workload) -> Workload:
    """Return a workload with a quarter of its filters and units, which trains in half a second."""
    network = workload.architecture
    convs = tuple(msgspec.structs.replace(block, filters=block.filters // 4) for block in network.convs)
    network = Architecture(convs=convs, hidden=tuple(units // 4 for units in network.hidden))
    return msgspec.structs.replace(workload, architecture=network)


def order(steps: int, seed: int = 1) -> np.ndarray:
    """Return the images of `steps` batches: int32 (steps, BATCH)."""
    return np.random.default_rng(seed).integers(0, 160, (steps, BATCH), dtype=np.int32)


def assert_close(found: np.ndarray, expected: np.ndarray, tolerance: float, what: str) -> None:
    error = checks.relative_error(found, expected)
    assert error <= tolerance, f"{what}: off by {error:.1e} of the largest value, {tolerance:.0e} allowed"


def assert_same_params(found: Params, expected: Params, tolerance: float, what: str) -> None:
    assert list(found) == list(expected), f"{what}: parameters are {list(found)}, not {list(expected)}"
    for name, value in expected.items():
        assert_close(found[name], value, tolerance, f"{what}, {name}")


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]))
