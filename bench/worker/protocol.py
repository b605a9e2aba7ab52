"""The messages between harness and worker, one line of JSON each: a task and commands in, events out."""

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from backends.info import BackendInfo
from bench.records.schema import (
    EpochPoint,
    JobSpec,
    LessonResult,
    MistakeResult,
    ParityCheck,
    Proof,
    Status,
    Window,
)
from bench.workloads.instruments import Peak, StepSplit
from bench.workloads.ranks import Place
from bench.workloads.specs import Cell, Device, Workload

VERSION = 3
"""The version of what a worker measures. It grows when a figure of an older worker can no longer be compared
with one of this worker; the gate then refuses to compare two commits."""


class DataSource(msgspec.Struct, frozen=True, kw_only=True):
    """Where a worker finds a data set: in the folder `cache`, or in the sample data set if that is None.

    A path in a message is text as `bench.paths.to_text` writes it.
    """

    name: str
    cache: str | None
    limit: int | None


class MeasureTask(msgspec.Struct, frozen=True, kw_only=True, tag="measure", tag_field="task"):
    """Measure one cell: build, warm up, train a window at each `Turn`, and at `Finish` do the rest."""

    backend: BackendInfo
    data: DataSource
    spec: JobSpec
    look_closer: bool = False
    """Whether to split a step, count its operations and measure the machine's peak after the windows."""
    slowdown: float | None = None
    """For the self-test: the share by which training takes longer, 0.05 for 5 %; None: not at all."""
    place: Place | None = None
    """The place of this worker among the ranks of its job; None in a run without ranks."""


class ParityCase(msgspec.Struct, frozen=True, kw_only=True):
    """One cell to compare with the reference trace in the file `trace`."""

    cell: Cell
    workload: Workload
    trace: str


class VerifyTask(msgspec.Struct, frozen=True, kw_only=True, tag="verify", tag_field="task"):
    """Compare one backend's cells with the reference."""

    backend: BackendInfo
    cases: tuple[ParityCase, ...]
    place: Place | None = None
    """The place of this worker among the ranks of its job, which all cases share; None without ranks."""


class ProbeTask(msgspec.Struct, frozen=True, kw_only=True, tag="probe", tag_field="task"):
    """Multiply and convolve once on a device and compare with the reference."""

    backend: BackendInfo
    case: ParityCase


class TeachTask(msgspec.Struct, frozen=True, kw_only=True, tag="teach", tag_field="task"):
    """Give the lessons of a backend: time each slow way beside its quick one, then make the mistakes."""

    backend: BackendInfo
    device: Device
    turns: int
    """Turns of each way."""
    turn_s: float
    """About how long a turn is."""


class Command(msgspec.Struct, frozen=True, kw_only=True, tag_field="command"):
    """What the harness asks of a worker that measures, once its backend is built."""


class Begin(Command, frozen=True, kw_only=True, tag="begin"):
    """Take the first step, prove the program and warm up; `Ready` answers it. A worker only builds before."""

    proof: str | None = None
    """The file of the reference trace that the timed program is compared with, before the windows and after
    them; None: there is none, as each framework trains with its own defaults."""
    repeated: bool = False
    """Whether to compare many steps with their repetition too."""


class Turn(Command, frozen=True, kw_only=True, tag="turn"):
    """Train a window of `steps` steps; `Timed` answers it."""

    steps: int


class WarmUp(Command, frozen=True, kw_only=True, tag="warm_up"):
    """Warm up once more, because something disturbed the warm-up before; `Ready` answers it."""


class Finish(Command, frozen=True, kw_only=True, tag="finish"):
    """No more turns: describe, learn if the job asks for it, and end."""


AnyCommand: TypeAlias = Begin | WarmUp | Turn | Finish


class AnyTask(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker reads of any task first: its tag, which names the handler, the backend and the place."""

    task: str
    backend: BackendInfo
    place: Place | None = None


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event"):
    """What a worker reports, as soon as it has happened."""


class Started(Event, frozen=True, kw_only=True, tag="started"):
    """The first event: the interpreter runs, and the task can be read."""


class Imported(Event, frozen=True, kw_only=True, tag="imported"):
    import_s: float


class DataLoaded(Event, frozen=True, kw_only=True, tag="data"):
    data_s: float


class Built(Event, frozen=True, kw_only=True, tag="built"):
    build_s: float
    call_steps: int = 1
    """`call_steps` of the backend; 1 from workers that do not prove the timed program."""


class FirstStep(Event, frozen=True, kw_only=True, tag="first_step"):
    first_step_s: float


class WarmedUp(Event, frozen=True, kw_only=True, tag="warmup"):
    window: Window


class Ready(Event, frozen=True, kw_only=True, tag="ready"):
    """The worker has warmed up and waits for its turns."""

    step_s: float
    """Seconds of a step in the quickest window of the warm-up, as disturbances only make a step slower."""
    call_steps: int
    """`call_steps` of the backend; its windows hold whole calls."""
    again: bool = False
    """Whether the worker knows the command `WarmUp`; older ones do not."""


class Timed(Event, frozen=True, kw_only=True, tag="window"):
    window: Window
    lead_s: float | None = None
    """Seconds of training before the window, which do not count."""


class Evaluated(Event, frozen=True, kw_only=True, tag="point"):
    point: EpochPoint
    of_epochs: float


class Learned(Event, frozen=True, kw_only=True, tag="learned"):
    learn_s: float


class Memory(Event, frozen=True, kw_only=True, tag="memory"):
    peak_rss_bytes: int
    peak_rss_method: str


class Described(Event, frozen=True, kw_only=True, tag="described"):
    facts: dict[str, str | int | float | bool | None]


class DeviceMemory(Event, frozen=True, kw_only=True, tag="device_memory"):
    process_device_bytes: int | None


class LookedCloser(Event, frozen=True, kw_only=True, tag="looked_closer"):
    """What an `Instrumented` backend measured; None where it offers none of it."""

    closer_s: float | None = None
    """Seconds that these measurements took."""
    split: StepSplit | None
    counted_flops: float | None
    peak: Peak | None


class Proven(Event, frozen=True, kw_only=True, tag="proven"):
    """The timed program was compared with the reference; if a check fails, the job ends."""

    proof: Proof


class Digested(Event, frozen=True, kw_only=True, tag="digest"):
    """What a rank's parameters are after a proof, so that the harness can compare the ranks."""

    sha256: str
    """Of all its parameters, as `bench.worker.digest` defines it."""


class Verified(Event, frozen=True, kw_only=True, tag="verified"):
    cell: Cell
    optimizer: str
    status: Status
    error: str | None
    checks: tuple[ParityCheck, ...]


class Probed(Event, frozen=True, kw_only=True, tag="probed"):
    error: float
    """The largest relative error of the logits of a convolutional network."""


class Taught(Event, frozen=True, kw_only=True, tag="taught"):
    lesson: LessonResult


class Mistaken(Event, frozen=True, kw_only=True, tag="mistaken"):
    mistake: MistakeResult


class Failed(Event, frozen=True, kw_only=True, tag="failed"):
    status: Status
    error: str


class Done(Event, frozen=True, kw_only=True, tag="done"):
    """The last event of a worker that has done its task."""


AnyEvent: TypeAlias = (
    Started | Imported | DataLoaded | Built | FirstStep | WarmedUp | Ready | Timed | Evaluated | Learned
    | Memory | DeviceMemory | Described | LookedCloser | Proven | Digested | Verified | Probed | Taught
    | Mistaken | Failed | Done
)  # fmt: skip
"""Every event of measuring and proving. A feature that has further events defines its own union."""

Emit: TypeAlias = Callable[[Event], None]
