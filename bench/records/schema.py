"""The records of a run: raw values, from which anybody can derive every figure again.

A run is a folder: `run.json` (a `RunHeader`, written once) and `records.jsonl` (one record a line, appended
and fsynced as each job ends). Statistics are never stored.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias

import msgspec

from backends.info import Level
from bench.machine.conditions import Conditions
from bench.machine.environment import Environment
from bench.workloads.instruments import Peak, StepSplit
from bench.workloads.specs import Cell, Device, Workload

SCHEMA = 2

LEAD_S = 0.01
"""Seconds of training before every window that do not count, if a record does not say: at least one step.
While a job waited, others used the caches and its threads slept."""

Status: TypeAlias = Literal[
    "ok",
    "no_steady_state",  # the windows kept drifting: stored, never ranked
    "failed",  # the backend raised
    "crashed",  # the process ended by a signal or without its last event
    "timeout",
    "out_of_memory",
    "nan_loss",
    "not_comparable",  # its values are not numbers, or have another shape than the reference's
    "wrong_device",  # it ran on another device than asked
    "unavailable",  # the framework, the device or the precision is not available here
    "not_measured",  # the budget was spent first
]


STATUS_WORDS: Mapping[Status, str] = MappingProxyType(
    {
        "ok": "ok",
        "no_steady_state": "no steady state",
        "failed": "failed",
        "crashed": "crashed",
        "timeout": "timed out",
        "out_of_memory": "out of memory",
        "nan_loss": "loss not a number",
        "not_comparable": "not comparable",
        "wrong_device": "ran on another device",
        "unavailable": "not available here",
        "not_measured": "not measured",
    }
)


def fault_in_words(status: Status, error: str | None) -> str:
    """Return what went wrong, as it is shown: the status in words, and the message if there is one."""
    return f"{STATUS_WORDS[status]}: {error}" if error else STATUS_WORDS[status]


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of training between two clock readings, the device synchronised at both."""

    steps: int
    samples: int
    seconds: float
    energy_j: float | None = None
    """Energy that the machine, or the GPU of the job, used in that time; None without a meter."""
    round_steal: float | None = None
    """Share of CPU time that the hypervisor gave to others in the whole round, the same for all its jobs."""
    round_foreign: float | None = None
    """Share of CPU time that other programs used in the whole round, at least; the same for all its jobs."""


class EpochPoint(msgspec.Struct, frozen=True, kw_only=True):
    """The state of training when it was evaluated on the whole test split."""

    epoch: float
    """Epochs trained; a fraction where training stops inside one."""
    steps: int
    train_s: float
    """Seconds of training up to here, evaluation excluded."""
    train_loss: float | None
    """Mean of the step losses since the last point; None before the first step."""
    test_loss: float
    test_accuracy: float


class JobSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker process is asked to measure."""

    job_id: str
    cell: Cell
    workload: Workload
    seed: int
    block: int
    """The block, from 0, in which every cell of the workload ran one job, all side by side."""
    position: int
    """The place of this job in its block's order, from 0."""
    hash_seed: int
    """The worker's PYTHONHASHSEED. Every job has another, so that its effect is noise and not bias. The
    length of the worker's environment follows from it too (`bench.measuring.variables.padding`)."""
    windows: int
    """Timed windows at least; up to twice as many are taken while the rate has not settled. 0: none."""
    window_s: float
    """About how long a window is; the jobs of a block take turns, a window each."""
    lead_s: float = LEAD_S
    """About how long it trains before each window without counting it."""
    epochs: float
    """Epochs to train and evaluate after the windows, from the initial weights; 0: none."""
    time_limit_s: float
    only_last: bool = False
    """Whether training is evaluated only at its end."""
    test_samples: int | None = None
    """It is evaluated on so many images of the test split; None: on all."""
    compiles_anew: bool = True
    """Whether it must compile everything anew, so that its first step shows the time to compile."""
    copy: bool = False
    """Whether it is the placebo: another job of a cell beside the cell's own, which it is compared with. It
    counts for nothing else."""


class ParityCheck(msgspec.Struct, frozen=True, kw_only=True):
    """The largest relative error of one kind against the float64 reference."""

    kind: Literal[
        "pixels", "logits", "loss", "gradient", "step", "steps", "losses", "change", "changes", "repeated"
    ]
    error: float
    tolerance: float
    worst: str
    """Where the largest error was: a parameter's name or a step's number."""

    @property
    def ok(self) -> bool:
        return self.error <= self.tolerance


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison of the program that a job times with the float64 reference."""

    after_windows: bool
    """Whether it was made after the timed windows; else before them."""
    steps: int
    """Steps that were trained in it, at the batch size and the rate of the workload."""
    checks: tuple[ParityCheck, ...]
    seconds: float
    loss_errors: tuple[float, ...] = ()
    """The relative error of the loss at each step that the reference trained; none in older records."""
    rounding_errors: tuple[float, ...] = ()
    """The same for a reference disturbed by rounding alone: the largest over its runs, at each step."""


class RankRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One rank of a distributed job: where it ran and how it ended."""

    rank: int
    host: str
    device: str
    """The CPUs that it was pinned to, such as `CPU 1`, or the UUID of its GPU."""
    status: Status
    error: str | None = None
    peak_rss_bytes: int | None = None
    digest: str | None = None
    """SHA-256 of its parameters after its last windows, or after the proof before them if it did not get
    further, equal in all ranks; None if it did not get that far."""


class JobRecord(msgspec.Struct, frozen=True, kw_only=True, tag="job", tag_field="record"):
    """What one worker process did, or the ranks of a distributed job together.

    Times in seconds; a field is None where the job did not get that far.
    """

    schema: int = SCHEMA
    spec: JobSpec
    status: Status
    error: str | None = None
    """What went wrong, in a line or two; None when nothing did."""
    exit_signal: str | None = None
    stderr_tail: tuple[str, ...] = ()
    started_at: str
    """UTC, ISO 8601."""
    wall_s: float
    """From the start of the process to its end, without the time in which it waited for its turn."""
    start_s: float | None = None
    """From the start of the process to its first event: starting the interpreter and reading the task."""
    import_s: float | None = None
    data_s: float | None = None
    """Opening the data, and importing what the harness needs."""
    build_s: float | None = None
    first_step_s: float | None = None
    """The first call of a training step: tracing and compilation, then one step."""
    warmup: tuple[Window, ...] = ()
    windows: tuple[Window, ...] = ()
    lead_s: float | None = None
    """Training before the windows that is not counted: about `lead_s` of the spec each."""
    closer_s: float | None = None
    """Time to find `split`, `counted_flops` and `peak`."""
    learn_s: float | None = None
    """Training and evaluating for `points`, from the first evaluation to the last."""
    points: tuple[EpochPoint, ...] = ()
    peak_rss_bytes: int | None = None
    """Memory at its peak, counted as `peak_rss_method` says: `VmHWM - RssFile` is without pages of files."""
    peak_rss_method: str | None = None
    peak_device_bytes: int | None = None
    """Peak of the framework's own allocator on the GPU."""
    process_device_bytes: int | None = None
    """GPU memory of the whole process after its windows, as the driver reports it."""
    split: StepSplit | None = None
    """The parts of a step's time; None if the backend does not report them or was not asked."""
    counted_flops: float | None = None
    """Floating-point operations of one training step as the framework itself counts them."""
    peak: Peak | None = None
    """The machine's peak as this framework reaches it."""
    proofs: tuple[Proof, ...] = ()
    """What the comparisons of the timed program with the reference found; none in older records."""
    described: dict[str, str | int | float | bool | None] = {}
    """Facts that the backend reported: versions, the actual device, threads."""
    ranks: tuple[RankRecord, ...] = ()
    """The ranks of the job in a run with ranks; empty in other runs. Times are those of the slowest rank,
    memory and energy are sums."""


class BlockRecord(msgspec.Struct, frozen=True, kw_only=True, tag="block", tag_field="record"):
    """A block: every cell of a workload ran one job, all side by side."""

    schema: int = SCHEMA
    workload: str
    block: int
    started_at: str
    order: tuple[Cell, ...]
    """The cells in the order in which their processes were started. That of the placebo stands twice."""
    rounds: int
    """Rounds of turns that were taken."""
    in_turns: bool = True
    """Whether the jobs took turns; else each ran alone, one after another, and `rounds` is their sum."""
    turns: tuple[tuple[int, ...], ...] = ()
    """The places in `order` of the cells that trained in each round, in the order of their turns.

    Empty if they did not take turns, and in older records.
    """
    copy: int | None = None
    """The place in `order` of the placebo's job; None if the block has none."""
    replaces: bool = False
    """Whether it was run in place of a block that lacked quiet rounds."""
    conditions: Conditions


class ParityRecord(msgspec.Struct, frozen=True, kw_only=True, tag="parity", tag_field="record"):
    """Whether a cell computes what the reference computes."""

    schema: int = SCHEMA
    cell: Cell
    optimizer: str
    status: Status
    error: str | None = None
    steps: int
    checks: tuple[ParityCheck, ...] = ()

    @property
    def ok(self) -> bool:
        return self.status == "ok" and bool(self.checks) and all(check.ok for check in self.checks)

    @property
    def lost(self) -> bool:
        """Whether values were compared and differ. An exception, a crash or a timeout compares nothing."""
        return not self.ok and (bool(self.checks) or self.status in ("nan_loss", "not_comparable"))


class UnmeasuredRecord(msgspec.Struct, frozen=True, kw_only=True, tag="unmeasured", tag_field="record"):
    """A cell of the plan that got no job, and the reason."""

    schema: int = SCHEMA
    cell: Cell
    status: Status
    error: str


class WayTimes(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two ways to train that a lesson compares."""

    first_s: float
    """The first step in this way: tracing and compiling, then one step."""
    turns: tuple[Window, ...]


class LessonResult(msgspec.Struct, frozen=True, kw_only=True):
    """A slow and a quick way to train, in turns in one process."""

    name: str
    """One of `backends.lessons.LESSONS`."""
    status: Status
    error: str | None = None
    slow: WayTimes | None = None
    quick: WayTimes | None = None


class MistakeResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a framework made of a wrong batch: either it raised an exception or it returned a loss."""

    name: str
    """One of `backends.lessons.MISTAKES`."""
    status: Status
    error: str | None = None
    """Why the mistake could not be tried."""
    raised: str | None = None
    """The type of the exception; None if none was raised."""
    message: str | None = None
    """Its message, without its middle if it is long, with `...` in place of the folders of this machine."""
    loss: str | None = None
    """The loss as text, because JSON has no NaN; None after an exception."""


class LessonsRecord(msgspec.Struct, frozen=True, kw_only=True, tag="lessons", tag_field="record"):
    """The lessons of one backend, all in one process. It always names every lesson and every mistake."""

    schema: int = SCHEMA
    backend: str
    device: Device
    status: Status
    error: str | None = None
    stderr_tail: tuple[str, ...] = ()
    started_at: str
    wall_s: float
    turn_s: float
    """About how long a turn is."""
    lessons: tuple[LessonResult, ...]
    mistakes: tuple[MistakeResult, ...]


Record: TypeAlias = JobRecord | BlockRecord | ParityRecord | UnmeasuredRecord | LessonsRecord


class BackendHere(msgspec.Struct, frozen=True, kw_only=True):
    """A backend as it was found when the run started."""

    name: str
    title: str
    default_mode: str = msgspec.field(name="taught_mode")
    modes: dict[str, str]
    """A line about each mode, by its name."""
    levels: dict[str, Level] = {}
    """The level of each mode, by its name; a mode that is missing is tuned, as all were in older records."""
    pipeline_modes: tuple[str, ...] = ()
    """The tuned modes whose batches come through the framework's own input pipeline."""
    reference: bool
    """Whether it is the reference, which is never ranked."""
    building: str | None = None
    """What building a network does beside that, in a sentence."""
    versions: dict[str, str]
    """Version of every distribution it needs."""
    packages: int | None = None
    """Number of installed distributions: those it needs, and all that these need."""
    installed_bytes: int | None = None
    """Size of their files on disk."""

    def is_taught(self, mode: str) -> bool:
        return self.levels.get(mode) == "taught"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The plan of a run, with the expected times in seconds."""

    jobs: int
    """Worker processes of the required blocks."""
    parity_s: float
    blocks_s: float
    training_s: float
    """Time for training for accuracy; the epochs are chosen when the speeds are known."""
    refining_s: float
    """Time for further blocks, where an interval is wider than the target."""
    lessons_s: float = 0.0
    """Time for the lessons of a course, at the end."""


class RunHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for, with which backends, and on which machine."""

    schema: int = SCHEMA
    run_id: str
    created_at: str
    command: tuple[str, ...]
    preset: str
    budget_s: float
    min_blocks: int
    target_half_width: float
    """Relative half-width of an interval at which a row counts as precise, 0.015 for 1.5 %."""
    seeds: int
    """Number of seeds that a cell trains with for accuracy; 0: it does not train."""
    lead_s: float = LEAD_S
    """Seconds of training before each window that do not count."""
    placebo: Cell | None = None
    """The cell of which every block of its workload runs two jobs, to show what chance makes of equal
    programs; None if the run has no time for that."""
    ranks: tuple[int, ...] = ()
    """The numbers of ranks of a run with ranks; empty in other runs. In such a run every process is pinned to
    one core, or has one GPU, rows without a distributed mode too."""
    devices: tuple[int | str, ...] = ()
    """The CPU, or the UUID of the GPU, of each rank of a run with ranks, by its number."""
    hosts: tuple[str, ...] = ()
    """The host of each rank of a run with ranks, by its number; empty if all are on the host of this run."""
    planned: Plan
    """What was planned, and shown, before the run began."""
    seed: int
    dataset_limit: int | None
    """Only the first so many images of each split were used; None: all."""
    sample: bool
    """Whether the shipped samples were used in place of the data sets."""
    cells: tuple[Cell, ...]
    workloads: tuple[Workload, ...]
    backends: tuple[BackendHere, ...]
    environment: Environment
