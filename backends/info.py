"""What the harness knows of a backend without importing its framework, or NumPy."""

from collections.abc import Mapping

import msgspec

from bench.workloads.specs import Device, Precision


class Mode(msgspec.Struct, frozen=True, kw_only=True):
    """One way a framework runs a training step, under the name its community gives it."""

    name: str
    summary: str
    taught: bool = False
    """Whether this is what the framework's own documentation teaches first."""
    pipeline: bool = False
    """Whether batches come through the framework's own input pipeline, not from memory on the device."""
    augments: bool = False
    """Whether it trains workloads whose images are augmented."""
    devices: tuple[Device, ...] = ("cpu", "gpu")
    """Where it can run."""
    runner: str | None = None
    """Where the class is that trains in this mode, as `module:Class`; None: the backend itself does."""


class BackendInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A backend: what it is called, where it is, what it needs, and in which modes it trains."""

    name: str
    title: str
    target: str
    """Where the class is, as `module:Class`; imported only inside a worker."""
    distributions: tuple[str, ...]
    """Installed distributions it needs, by any of several names: `tensorflow|tensorflow-cpu`."""
    modes: tuple[Mode, ...]
    environment: Mapping[str, str] = {}
    """Variables its worker is started with; `{scratch}` stands for a folder that is new for every worker, and
    `{compiled}` for one to keep compiled programs in: new as well where the time to compile is measured, else
    the same for all jobs of a cell."""
    caching_environment: Mapping[str, str] = {}
    """Further variables, but where the time to compile is measured: they have the framework keep its compiled
    programs in `{compiled}`, which it does not by itself. Flags join those that the user has set."""
    cpu_environment: Mapping[str, str] = {}
    """Further variables when the job runs on the CPU."""
    cpu_precisions: tuple[Precision, ...] = ("fp32", "bf16")
    gpu_precisions: tuple[Precision, ...] = ("fp32", "tf32", "bf16")
    on_request: bool = False
    """Whether it is measured only when it is named."""
    reference: bool = False
    """Whether it is the reference: measured only when named, and never ranked."""

    @property
    def packages(self) -> tuple[str, ...]:
        """Every name that a distribution it needs goes by."""
        return tuple(name for names in self.distributions for name in names.split("|"))

    @property
    def taught_mode(self) -> str:
        return next(mode.name for mode in self.modes if mode.taught)
