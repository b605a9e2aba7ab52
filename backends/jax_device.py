"""The device that JAX computes on, its CUDA libraries, and the options with which XLA compiles for it."""

import importlib
import importlib.util
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from backends.builds import build_of
from bench.errors import UnavailableError
from bench.workloads.specs import Architecture, Device

MATMUL_PRECISION = {"fp32": "highest", "tf32": "tensorfloat32", "bf16": "bfloat16"}
"""The `precision` of every product and convolution, by the precision of the contract."""

THREADED_CONVOLUTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
"""Gives matrix products to the library YNNPACK, but no convolutions. YNNPACK runs a convolution on one core,
XLA itself on all cores (docs/performance.md)."""

CUDA_PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin")
"""The modules of JAX's plug-in for CUDA 13 and 12. An environment has one of them."""


def find_device(device: Device) -> jax.Device:
    """Return this process's first device of this kind; raise UnavailableError if JAX sees none."""
    try:
        return jax.local_devices(backend=device)[0]
    except RuntimeError as error:
        raise UnavailableError(
            f"JAX {jax.__version__}, built for {build_of('jax')}, sees no {device.upper()} here: {error}"
        ) from error


class OneDevice:
    """Where arrays lie in a mode of one process: all on one device."""

    outputs: Mapping[str, Any] = {}
    """Arguments of `jax.jit` for a program that trains."""

    def __init__(self, device: jax.Device) -> None:
        self._device = device

    def put(self, tree: Any) -> Any:
        """Return arrays on the device. On a CPU they share the memory of NumPy's."""
        return jax.device_put(tree, self._device)

    def own(self, tree: Any) -> Any:
        """Return arrays of the training state as this process alone can compute with them."""
        return tree

    def batches(self, order: np.ndarray, draws: np.ndarray | None) -> Iterable[Any]:
        """Return the batch of each row, as a program that trains one step takes it."""
        return order if draws is None else zip(order, draws, strict=True)

    def rows(self, tree: Any) -> Any:
        """Return many such batches at once: arrays (steps, batch, ...)."""
        return self.put(tree)


def wanted_options(architecture: Architecture, device: Device) -> dict[str, str]:
    """Return the options of XLA with which every program of a network should be compiled."""
    return dict(THREADED_CONVOLUTIONS) if device == "cpu" and architecture.convs else {}


def knows_options(options: dict[str, str], device: jax.Device) -> bool:
    """Whether this version of XLA knows all options; only a compilation shows it."""

    def tried() -> int:
        return 0

    try:
        with jax.default_device(device):
            jax.jit(tried, compiler_options=options)()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def described_options(options: dict[str, str]) -> str | None:
    """Return options as `name=value`, for a record; None if there are none."""
    return " ".join(f"{name}={value}" for name, value in options.items()) or None


def cuda_versions(device: jax.Device) -> dict[str, str | int | None]:
    """Return the versions of CUDA, as `13.0`, and of cuDNN, as cuDNN numbers itself; None on a CPU.

    JAX has no public function for them. Its plug-in for CUDA has a module that asks the loaded libraries.
    """
    versions = None if device.platform == "cpu" else cuda_module()
    if versions is None:
        return {"cuda": None, "cudnn": None}
    runtime = versions.cuda_runtime_get_version()
    return {"cuda": f"{runtime // 1000}.{runtime % 1000 // 10}", "cudnn": versions.cudnn_get_version()}


def cuda_module() -> Any:
    """Return the module of JAX's plug-in for CUDA that reports versions; None if no plug-in is installed."""
    for plugin in CUDA_PLUGINS:
        if importlib.util.find_spec(plugin) is not None:
            return importlib.import_module(f"{plugin}._versions")
    return None
