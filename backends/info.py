"""The description of a backend, for which neither its framework nor NumPy is imported."""

from collections.abc import Mapping
from typing import Literal, TypeAlias

import msgspec

from bench.workloads.specs import Device, Precision

Level: TypeAlias = Literal["taught", "tuned"]
"""How far a mode goes.

`taught` is the plain loop of the framework's own tutorial, with its own loader and the defaults of its
compiler. `tuned` is what an expert of the framework would write. Only rows of one level are ranked against
each other.
"""


class Mode(msgspec.Struct, frozen=True, kw_only=True):
    """One way a framework runs a training step."""

    name: str
    summary: str
    level: Level = "tuned"
    default: bool = False
    """Whether it is measured if no mode is named. Exactly one mode of a backend is."""
    pipeline: bool = False
    """Whether batches come through the framework's input pipeline; else from memory on the device."""
    start_s: float = 0.0
    """Seconds that a call of `train_steps` takes before its first step, which a user's training takes once an
    epoch or less. Timed windows are made so long that they are a small share."""
    augments: bool = False
    """Whether it trains workloads whose images are augmented."""
    distributed: bool = False
    """Whether several processes can train together in this mode, by the framework's own engine. Its backend
    is given a `Place`, and it is measured only if ranks are asked for."""
    devices: tuple[Device, ...] = ("cpu", "gpu")
    """The devices on which it can run."""
    runner: str | None = None
    """The class that trains in this mode, as `module:Class`; None if the backend itself does."""


class UnsupportedGpus(msgspec.Struct, frozen=True, kw_only=True):
    """The GPUs on which some versions of a framework were reported to fail."""

    versions: str
    """Of the framework, in pip's syntax, such as `<=2.21`."""
    compute_capability: tuple[int, int]
    """The lowest one that is concerned, as major and minor number; all newer GPUs are, too."""
    why: str
    links: tuple[str, ...]
    remedy: str


class LessonsInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Where a backend's lessons are, and what a course view shows of their source code."""

    target: str
    """The class that keeps the contract `backends.lessons.Lessons`, as `module:Class`."""
    network: str
    """The class or function of that module that defines the network."""
    step: str
    """The function of that module that trains one step."""


class BackendInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A backend: its name, its class, the packages it needs, and its modes."""

    name: str
    title: str
    target: str
    """Its class, as `module:Class`; imported only inside a worker."""
    distributions: tuple[str, ...]
    """The installed distributions it needs; `tensorflow|tensorflow-cpu` is either of the two."""
    modes: tuple[Mode, ...]
    environment: Mapping[str, str] = {}
    """Environment variables of its worker. `{scratch}` stands for a folder that is new for every worker,
    `{compiled}` for one that keeps compiled programs: new for each job whose compiling is timed, and the same
    for all other jobs of a cell."""
    caching_environment: Mapping[str, str] = {}
    """Further variables of jobs whose compiling is not timed. They make the framework keep programs in
    `{compiled}`, which it does not do by itself. Flags are added to those that the user has set."""
    cpu_environment: Mapping[str, str] = {}
    """Further variables of jobs on the CPU."""
    thread_variables: tuple[str, ...] = ()
    """Variables that set the sizes of its framework's thread pools, beside `OMP_NUM_THREADS`. A worker gets
    them where a CPU quota grants less than the CPUs that the framework counts."""
    cpu_precisions: tuple[Precision, ...] = ("fp32", "bf16")
    gpu_precisions: tuple[Precision, ...] = ("fp32", "tf32", "bf16")
    unsupported_gpus: tuple[UnsupportedGpus, ...] = ()
    lessons: LessonsInfo | None = None
    """Where its lessons are; None: it gives none."""
    building: str | None = None
    """What building a network does beside that, in a sentence for the reader of a report."""
    on_request: bool = False
    """Whether it is measured only if it is named, except beside the rows as taught of a preset."""
    engine: str | None = None
    """The backend whose framework it trains with. Its workers run in that one's interpreter if none of its
    own is named."""
    reference: bool = False
    """Whether it is the reference: measured only if it is named, and never ranked."""

    @property
    def packages(self) -> tuple[str, ...]:
        """Every name of every distribution it needs."""
        return tuple(name for names in self.distributions for name in names.split("|"))

    @property
    def default_mode(self) -> str:
        return next(mode.name for mode in self.modes if mode.default)

    def distributes(self, mode: str) -> bool:
        """Return whether several processes can train together in this mode."""
        return any(one.name == mode and one.distributed for one in self.modes)
