"""What a framework was built for: the CPU alone, or CUDA as well."""

import re
import sys
from collections.abc import Callable
from importlib import metadata
from types import ModuleType


def build_of(framework: str) -> str:
    """Return what an imported framework was built for, such as `CPU`, `CUDA 13.0` or `ROCm 6.4`."""
    return _BUILDS[framework](sys.modules[framework])


def _torch_build(torch: ModuleType) -> str:
    if torch.version.cuda:
        return f"CUDA {torch.version.cuda}"
    return f"ROCm {torch.version.hip}" if torch.version.hip else "CPU"


def _tensorflow_build(tensorflow: ModuleType) -> str:
    info = tensorflow.sysconfig.get_build_info()
    if info["is_cuda_build"]:
        return f"CUDA {info['cuda_version']}"
    return "ROCm" if info["is_rocm_build"] else "CPU"


def _jax_build(_: ModuleType) -> str:
    # JAX itself is for the CPU; a plugin such as `xla_cuda13` adds a GPU and names only the major version.
    found = (re.fullmatch(r"xla_(cuda|rocm)(\d+)", plugin.name) for plugin in _jax_plugins())
    names = {"cuda": "CUDA", "rocm": "ROCm"}
    return next((f"{names[one[1]]} {one[2]}" for one in found if one), "CPU")


def _jax_plugins() -> metadata.EntryPoints:
    return metadata.entry_points(group="jax_plugins")


_BUILDS: dict[str, Callable[[ModuleType], str]] = {
    "torch": _torch_build,
    "tensorflow": _tensorflow_build,
    "jax": _jax_build,
}
