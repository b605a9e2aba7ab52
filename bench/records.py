"""The records of a run: what is written down, raw, so that a stranger can derive every figure again.

A run is a folder: `run.json` (a `RunHeader`, written once) and `records.jsonl` (one record a line, appended
and fsynced as each job ends). Statistics are never stored.
"""

from typing import Literal, TypeAlias

import msgspec

from bench.machine import Environment
from bench.specs import Cell, Workload

SCHEMA = 1

Status: TypeAlias = Literal[
    "ok",
    "no_steady_state",  # the windows kept drifting: stored, never ranked
    "failed",  # the backend raised
    "crashed",  # the process ended by a signal or without a last word
    "timeout",
    "out_of_memory",
    "nan_loss",
    "wrong_device",  # it ran somewhere else than asked
    "unavailable",  # the framework, the device or the precision is not to be had here
    "not_measured",  # the budget was spent first
]


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of training between two clock readings, the device synchronised at both."""

    steps: int
    samples: int
    seconds: float


class EpochPoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where training stood when it was evaluated on the whole test split."""

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
    """The round, from 0, in which every backend of the workload ran once, back to back."""
    position: int
    """The place of this job in its block's order, from 0."""
    windows: int
    """Timed windows at least; up to twice as many are taken while the rate has not settled. 0: none."""
    window_s: float
    epochs: float
    """Epochs to train and evaluate after the windows, from the initial weights; 0: none."""
    time_limit_s: float


class JobRecord(msgspec.Struct, frozen=True, kw_only=True, tag="job", tag_field="record"):
    """What one worker process did. Times in seconds; a field is None where the job did not get that far."""

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
    """From starting the process to its end, seen from the harness."""
    import_s: float | None = None
    data_s: float | None = None
    build_s: float | None = None
    first_step_s: float | None = None
    """The first call of a training step: tracing and compilation, then one step."""
    warmup: tuple[Window, ...] = ()
    windows: tuple[Window, ...] = ()
    learn_s: float | None = None
    """Training and evaluating for `points`, from the first evaluation to the last."""
    points: tuple[EpochPoint, ...] = ()
    peak_rss_bytes: int | None = None
    peak_rss_method: str | None = None
    peak_device_bytes: int | None = None
    described: dict[str, str | int | float | bool | None] = {}
    """What the backend said of itself: versions, the actual device, threads."""
    load_before: float | None = None
    """Load average of the last minute when the process was started."""
    steal_share: float | None = None
    """Share of CPU time that the hypervisor took while the process ran; None where it is not told."""


class ParityCheck(msgspec.Struct, frozen=True, kw_only=True):
    """The largest relative error of one kind against the float64 reference."""

    kind: Literal["logits", "loss", "gradient", "step", "steps", "losses"]
    error: float
    tolerance: float
    worst: str
    """Where the largest error was: a parameter's name or a step's number."""

    @property
    def ok(self) -> bool:
        return self.error <= self.tolerance


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


class UnmeasuredRecord(msgspec.Struct, frozen=True, kw_only=True, tag="unmeasured", tag_field="record"):
    """A cell of the plan that got no job, and why."""

    schema: int = SCHEMA
    cell: Cell
    status: Status
    error: str


Record: TypeAlias = JobRecord | ParityRecord | UnmeasuredRecord


class BackendHere(msgspec.Struct, frozen=True, kw_only=True):
    """A backend as it was found when the run started."""

    name: str
    title: str
    taught_mode: str
    modes: dict[str, str]
    """What each mode is, in a line."""
    reference: bool
    """Whether it is the reference, which is never ranked."""
    versions: dict[str, str]
    """Version of every distribution it needs."""


class RunHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked, of what, on which machine."""

    schema: int = SCHEMA
    run_id: str
    created_at: str
    command: tuple[str, ...]
    preset: str
    budget_s: float
    min_blocks: int
    target_half_width: float
    """Relative half-width of an interval at which a row counts as precise, 0.015 for 1.5 %."""
    seed: int
    dataset_limit: int | None
    """Only the first so many images of each split were used; None: all."""
    sample: bool
    """Whether the shipped sample stood in for the data sets."""
    cells: tuple[Cell, ...]
    workloads: tuple[Workload, ...]
    backends: tuple[BackendHere, ...]
    environment: Environment
