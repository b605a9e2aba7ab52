"""What machine this is: captured once a run, compared before a run is resumed."""

import platform
import subprocess
from pathlib import Path

import msgspec
import psutil

_CPU_FLAGS = ("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "asimd", "sve")
"""The instruction sets that decide how fast a network trains; the other flags are left out."""
_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "XLA_FLAGS", "TF_XLA_FLAGS", "CUDA_VISIBLE_DEVICES")


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU as its driver names it."""

    name: str
    memory_mib: int


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """The machine and the state of the code, as far as they explain a figure."""

    hostname: str
    system: str
    python: str
    cpu_model: str
    cpu_flags: tuple[str, ...]
    logical_cpus: int
    usable_cpus: int
    """CPUs this process may run on, which a container can make fewer."""
    memory_bytes: int
    gpus: tuple[Gpu, ...]
    gpu_driver: str | None
    load_average: float
    variables: dict[str, str]
    """Those environment variables, where set, that change how many threads or which device is used."""
    version: str
    commit: str | None
    dirty: bool | None
    """Whether the working tree differed from the commit; None outside a checkout."""

    def same_machine(self, other: "Environment") -> bool:
        """Whether figures taken in both may stand in one run."""
        return self._fingerprint() == other._fingerprint()

    def _fingerprint(self) -> tuple[object, ...]:
        return (self.hostname, self.cpu_model, self.usable_cpus, self.memory_bytes // 2**30, self.gpus, self.gpu_driver)

    def in_words(self) -> str:
        """Return the machine in one line for a person."""
        gpus = ", ".join(gpu.name for gpu in self.gpus) or "no GPU"
        return f"{self.cpu_model}, {self.usable_cpus} CPUs, {self.memory_bytes / 2**30:.0f} GiB, {gpus}"
