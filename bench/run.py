"""The main job: prove parity, measure in interleaved blocks, train for accuracy, within the budget.

Blocks go breadth first: every workload gets its first block before any gets its second, so that a run that is
cut short has measured everything a little rather than something a lot. The first blocks show how fast each
cell is; from that follow the epochs that fit the budget, the time left, and which blocks are worth it.
"""

import math
import os
import random
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

import msgspec

from backends.base import BackendInfo
from bench.launch import Outcome, run_worker
from bench.machine import read_steal, steal_share
from bench.plan import TRAINING_SHARE, Preset, balanced_order, plan_epochs
from bench.progress import Display, duration
from bench.protocol import (
    AnyEvent,
    Built,
    DataLoaded,
    DataSource,
    Described,
    Evaluated,
    FirstStep,
    Imported,
    Learned,
    MeasureTask,
    Memory,
    Timed,
    WarmedUp,
)  # fmt: skip
from bench.records import JobRecord, JobSpec, ParityRecord, Record, Status, UnmeasuredRecord
from bench.registry import interpreter
from bench.runs import Run, append_record
from bench.specs import Cell, Workload
from bench.statistics import estimate, log_throughput
from bench.verify import plan_parity, verify_cells

FIRST_GUESS_S = 20.0
"""What a job is thought to take before any has run. Told on the screen, and never a reason not to try."""
LEAST_LIMIT_S = 120.0
"""No job is stopped earlier than this, unless the budget itself ends."""
OVERRUN = 1.08
"""A job still running when this part of the budget is spent is stopped."""
MOST_BLOCKS = 30
GIVE_UP: tuple[Status, ...] = (
    "failed", "crashed", "timeout", "out_of_memory", "nan_loss", "wrong_device", "unavailable",
)  # fmt: skip
"""A cell that ended so would end so again: it is not tried in later blocks."""


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """How many images a workload trains and is tested on, and where its workers find them."""

    source: DataSource
    train: int
    test: int


class Runner:
    """Carries out one run; what is on disk when it stops is complete up to the job in hand."""

    def __init__(
        self,
        *,
        run: Run,
        preset: Preset,
        infos: Mapping[str, BackendInfo],
        pythons: Mapping[str, Path],
        splits: Mapping[str, Split],
        unavailable: Mapping[str, str],
        display: Display,
    ) -> None:
        """`run` is the run so far; `unavailable` says of each backend that cannot run here why not."""
        self._folder, self._header = run.folder, run.header
        self._preset, self._infos, self._pythons = preset, infos, pythons
        self._splits, self._unavailable, self._display = splits, unavailable, display
        self._workloads: dict[str, Workload] = {workload.name: workload for workload in run.header.workloads}
        self._records: list[Record] = list(run.records)
        spent_s = sum(record.wall_s for record in run.jobs)
        self._start = time.monotonic() - spent_s
        self._deadline = self._start + run.header.budget_s
        # Of a run that is resumed: what its jobs trained, the others train too.
        self._epochs = {job.spec.cell.workload: job.spec.epochs for job in run.jobs if job.spec.epochs}

    def run(self) -> None:
        """Do all that is left to do; KeyboardInterrupt passes through with everything so far on disk."""
        self._set_aside()
        self._prove_parity()
        for block in range(self._preset.min_blocks):
            for workload in self._shuffled(block):
                self._run_block(workload, block)
        self._refine()
        self._name_the_unmeasured()

    # What cannot be measured at all

    def _set_aside(self) -> None:
        """Record every cell whose backend, device or precision is not to be had here."""
        known = {record.cell for record in self._records if isinstance(record, UnmeasuredRecord)}
        for cell in self._header.cells:
            if cell.backend in self._unavailable and cell not in known:
                reason = self._unavailable[cell.backend]
                self._append(UnmeasuredRecord(cell=cell, status="unavailable", error=reason))

    def _name_the_unmeasured(self) -> None:
        seen = {record.cell for record in self._records if isinstance(record, UnmeasuredRecord)}
        seen |= {job.spec.cell for job in self._jobs()}
        for cell in self._header.cells:
            if cell not in seen:
                self._append(
                    UnmeasuredRecord(
                        cell=cell, status="not_measured", error="the budget was spent before its turn came"
                    )
                )

    # Parity

    def _prove_parity(self) -> None:
        proven = {record.cell for record in self._records if isinstance(record, ParityRecord)}
        cells = [cell for cell in self._available() if cell not in proven]
        if not cells:
            return
        self._display.say(f"Parity: {len(cells)} cells against the float64 reference")
        self._show_overall("parity")
        jobs = plan_parity(cells, self._workloads, optimizers=False)
        verify_cells(
            jobs, self._infos, self._pythons, self._display, self._append_parity, deadline=self._deadline
        )

    def _append_parity(self, record: ParityRecord) -> None:
        self._append(record)
        if not record.ok:
            worst = [check for check in record.checks if not check.ok]
            why = record.error or "; ".join(
                f"{check.kind} off by {check.error:.1e} at {check.worst}, allowed {check.tolerance:.0e}"
                for check in worst
            )
            self._display.say(f"  parity lost: {record.cell}: {why}")

    # Blocks

    def _shuffled(self, block: int) -> list[str]:
        names = sorted({cell.workload for cell in self._available()})
        random.Random(f"{self._header.seed} {block}").shuffle(names)  # noqa: S311 (an order, not a secret)
        return names

    def _run_block(self, workload: str, block: int) -> None:
        """Run every cell of a workload once, back to back, in the block's balanced order, if that fits."""
        done = {job.spec.cell for job in self._jobs_in(workload, block)}
        cells = self._worth_running(workload)
        order = [cells[place] for place in balanced_order(len(cells), block)] if cells else []
        missing = [(place, cell) for place, cell in enumerate(order) if cell not in done]
        begun = [job.spec.epochs for job in self._jobs_in(workload, block)]
        epochs = begun[0] if begun else self._training(workload, block)
        if self._jobs() and not self._fits(missing, epochs):
            if begun or not self._fits(missing, 0.0):
                return
            epochs = 0.0
        for place, cell in missing:
            if time.monotonic() < self._deadline:
                self._run_job(cell, block, place, epochs)

    def _fits(self, jobs: Sequence[tuple[int, Cell]], epochs: float) -> bool:
        return time.monotonic() + sum(self._expected(cell, epochs) for _, cell in jobs) <= self._deadline

    def _run_job(self, cell: Cell, block: int, position: int, epochs: float) -> None:
        spec = JobSpec(
            job_id=f"{cell.workload}.{cell.backend}.{cell.mode}.{block}",
            cell=cell,
            workload=self._workloads[cell.workload],
            seed=self._header.seed + block,
            block=block,
            position=position,
            windows=self._preset.windows,
            window_s=self._preset.window_s,
            epochs=epochs,
            time_limit_s=self._time_limit(cell, epochs),
        )
        self._show_overall(f"block {block + 1}, {cell.workload}")
        ends = time.monotonic() + self._expected(cell, epochs)
        self._display.job(f"{cell}: starting{_left(ends)}", None)
        started_at, load, steal = datetime.now(UTC).isoformat(), os.getloadavg()[0], read_steal()
        outcome = run_worker(
            MeasureTask(
                backend=self._infos[cell.backend], data=self._splits[cell.workload].source, spec=spec
            ),
            python=interpreter(self._infos[cell.backend], self._pythons),
            device=cell.device,
            time_limit_s=spec.time_limit_s,
            on_event=lambda event: self._show_event(cell, event, ends),
        )
        record = job_record(
            spec, outcome, started_at=started_at, load_before=load, steal=steal_share(steal, read_steal())
        )
        self._append(record)
        self._display.say(f"  {in_a_line(record)}")

    def _refine(self) -> None:
        """Spend what is left of the budget on blocks where an interval is widest for its target."""
        skipped: set[str] = set()
        while time.monotonic() < self._deadline:
            widths = {name: self._half_width(name) for name in self._shuffled(0) if name not in skipped}
            wanted = {name: width for name, width in widths.items() if width > self._header.target_half_width}
            if not wanted:
                break
            workload = max(wanted, key=lambda name: wanted[name])
            before = len(self._records)
            block = self._next_block(workload)
            if block < MOST_BLOCKS:
                self._run_block(workload, block)
            if len(self._records) == before:
                skipped.add(workload)  # its next block does not fit any more; a quicker workload's may

    def _next_block(self, workload: str) -> int:
        """Return the block after the latest, or the latest where it was interrupted before its last job."""
        blocks = [job.spec.block for job in self._jobs() if job.spec.cell.workload == workload]
        latest = max(blocks, default=-1)
        done = {job.spec.cell for job in self._jobs_in(workload, latest)}
        return latest if blocks and not done.issuperset(self._worth_running(workload)) else latest + 1

    def _lost_blocks(self, workload: str) -> int:
        """Return how many blocks have to be made up for, because a job in them did not settle.

        After as many further blocks as a ranking needs it is none: a row may drift for ever.
        """
        unsettled: dict[Cell, int] = defaultdict(int)
        for job in self._jobs():
            unsettled[job.spec.cell] += job.status == "no_steady_state"
        blocks = len({job.spec.block for job in self._jobs() if job.spec.cell.workload == workload})
        spare = max(0, blocks - self._preset.min_blocks)
        if spare >= self._preset.min_blocks:
            return 0
        return max(0, max((unsettled[cell] for cell in self._worth_running(workload)), default=0) - spare)

    def _block_s(self, workload: str) -> float:
        return sum(self._expected(cell, 0.0) for cell in self._worth_running(workload))

    def _half_width(self, workload: str) -> float:
        """Return the widest relative half-width among the cells of a workload that can still be ranked.

        It is infinite where one has yet to get the blocks that a ranking needs.
        """
        if self._lost_blocks(workload):
            return math.inf
        logs: dict[Cell, list[float]] = defaultdict(list)
        for job in self._jobs():
            if job.status == "ok" and job.spec.cell.workload == workload:
                logs[job.spec.cell].append(log_throughput([w.samples / w.seconds for w in job.windows]))
        widths = [estimate(values).half_width for values in logs.values() if len(values) > 1]
        return max((width for width in widths if width is not None), default=0.0)

    # Training for accuracy

    def _training(self, workload: str, block: int) -> float:
        """Return the epochs that the jobs of a block train, chosen when the first of them is due.

        Training comes with the last blocks: what is needed for a ranking is then done or nearly so, and the
        speeds are known. Every workload yet to choose gets its share of the time that is left over.
        """
        if self._trains(block) and workload not in self._epochs:
            needed_s = sum(
                self._expected(cell, self._planned(cell.workload, later)) for cell, later in self._due()
            )
            needed_s += sum(self._lost_blocks(name) * self._block_s(name) for name in self._shuffled(0))
            seconds: dict[str, float] = defaultdict(float)
            for cell in self._running():
                if cell.workload not in self._epochs and self._epoch_s(cell) > 0:  # 0: it was never timed
                    seconds[cell.workload] += self._epoch_s(cell)
            left_s = (self._deadline - time.monotonic() - needed_s) * TRAINING_SHARE
            chosen = plan_epochs(seconds, left_s / self._preset.training_blocks, self._preset.epochs)
            self._epochs[workload] = chosen.get(workload, 0.0)
        return self._planned(workload, block)

    def _trains(self, block: int) -> bool:
        return self._preset.min_blocks - self._preset.training_blocks <= block < self._preset.min_blocks

    def _planned(self, workload: str, block: int) -> float:
        """Return the epochs that were chosen for a block; 0 where none were yet."""
        return self._epochs.get(workload, 0.0) if self._trains(block) else 0.0

    def _epoch_s(self, cell: Cell) -> float:
        """Return the seconds of an epoch with its evaluation, taken to cost a third of training an image."""
        rates = [window.samples / window.seconds for job in self._jobs_of(cell) for window in job.windows]
        split = self._splits[cell.workload]
        return (split.train + split.test / 3) / fmean(rates) if rates else 0.0

    # Time

    def _expected(self, cell: Cell, epochs: float) -> float:
        """Return the seconds a job is expected to take, from what this cell, or else any, took before."""
        own = [self._without_training(job) for job in self._jobs_of(cell)]
        other = [self._without_training(job) for job in self._jobs()]
        base = fmean(own) if own else fmean(other) if other else FIRST_GUESS_S
        if not epochs:
            return base
        split = self._splits[cell.workload]
        evaluation_s = self._epoch_s(cell) * (split.test / 3) / (split.train + split.test / 3)
        # One evaluation before the first step, and a whole one after training less than an epoch.
        return base + epochs * self._epoch_s(cell) + evaluation_s * (1 + max(0.0, 1 - epochs))

    @staticmethod
    def _without_training(job: JobRecord) -> float:
        return job.wall_s - (job.learn_s or 0.0)

    def _time_limit(self, cell: Cell, epochs: float) -> float:
        hard_end = self._start + OVERRUN * self._header.budget_s - time.monotonic()
        return max(1.0, min(max(3 * self._expected(cell, epochs), LEAST_LIMIT_S), hard_end))

    def _show_overall(self, text: str) -> None:
        now = time.monotonic()
        left = sum(self._expected(cell, self._planned(cell.workload, block)) for cell, block in self._due())
        names = self._shuffled(0)
        precise = all(self._half_width(name) <= self._header.target_half_width for name in names)
        # Training and further blocks fill the budget; only where neither is to come does a run end sooner.
        end = (
            min(now + left, self._deadline)
            if precise and self._epochs.keys() >= set(names)
            else self._deadline
        )
        self._display.overall(text, (now - self._start) / max(end - self._start, 1.0), max(0.0, end - now))

    def _due(self) -> list[tuple[Cell, int]]:
        """Return the cells and blocks that a ranking needs and that have not run yet."""
        done = {(job.spec.cell, job.spec.block) for job in self._jobs()}
        blocks = range(self._preset.min_blocks)
        return [(cell, block) for block in blocks for cell in self._running() if (cell, block) not in done]

    def _show_event(self, cell: Cell, event: AnyEvent, ends: float) -> None:
        match event:
            case Imported():
                self._display.job(f"{cell}: building{_left(ends)}", None)
            case Built():
                self._display.job(f"{cell}: first step{_left(ends)}", None)
            case WarmedUp():
                self._display.job(f"{cell}: warming up{_left(ends)}", None)
            case Timed(window=window):
                self._display.job(
                    f"{cell}: {window.samples / window.seconds:,.0f} samples/s{_left(ends)}", None
                )
            case Evaluated(point=point, of_epochs=epochs):
                text = f"{cell}: epoch {point.epoch:.2f} of {epochs:.2f}, accuracy {point.test_accuracy:.2%}"
                self._display.job(text + _left(ends), point.epoch / epochs)

    # Records

    def _append(self, record: Record) -> None:
        append_record(self._folder, record)
        self._records.append(record)

    def _jobs(self) -> list[JobRecord]:
        return [record for record in self._records if isinstance(record, JobRecord)]

    def _jobs_of(self, cell: Cell) -> list[JobRecord]:
        return [job for job in self._jobs() if job.spec.cell == cell]

    def _jobs_in(self, workload: str, block: int) -> list[JobRecord]:
        return [job for job in self._jobs() if job.spec.block == block and job.spec.cell.workload == workload]

    def _available(self) -> list[Cell]:
        return [cell for cell in self._header.cells if cell.backend not in self._unavailable]

    def _running(self) -> list[Cell]:
        given_up = {job.spec.cell for job in self._jobs() if job.status in GIVE_UP}
        return [cell for cell in self._available() if cell not in given_up]

    def _worth_running(self, workload: str) -> Sequence[Cell]:
        return [cell for cell in self._running() if cell.workload == workload]


def _left(ends: float) -> str:
    """Return about how long a job still takes that is expected to end at a time of the monotonic clock."""
    return f", about {duration(max(0.0, ends - time.monotonic()))} left"


def job_record(
    spec: JobSpec, outcome: Outcome, *, started_at: str, load_before: float, steal: float | None
) -> JobRecord:
    """Return what is kept of a worker's events and of how it ended."""
    facts: dict[str, float | int | str | None] = {}
    described: dict[str, str | int | float | bool | None] = {}
    warmup, windows, points = [], [], []
    for event in outcome.events:
        match event:
            case Imported(import_s=seconds):
                facts["import_s"] = seconds
            case DataLoaded(data_s=seconds):
                facts["data_s"] = seconds
            case Built(build_s=seconds):
                facts["build_s"] = seconds
            case FirstStep(first_step_s=seconds):
                facts["first_step_s"] = seconds
            case WarmedUp(window=window):
                warmup.append(window)
            case Timed(window=window):
                windows.append(window)
            case Memory(peak_rss_bytes=peak, method=method):
                facts |= {"peak_rss_bytes": peak, "peak_rss_method": method}
            case Evaluated(point=point):
                points.append(point)
            case Learned(learn_s=seconds):
                facts["learn_s"] = seconds
            case Described(facts=described):
                pass
    peak_device = described.pop("peak_device_bytes", None)
    return JobRecord(
        spec=spec,
        status=outcome.status,
        error=outcome.error,
        exit_signal=outcome.exit_signal,
        stderr_tail=outcome.stderr_tail,
        started_at=started_at,
        wall_s=outcome.wall_s,
        warmup=tuple(warmup),
        windows=tuple(windows),
        points=tuple(points),
        peak_device_bytes=int(peak_device) if isinstance(peak_device, int | float) else None,
        described=described,
        load_before=load_before,
        steal_share=steal,
        **facts,  # type: ignore[arg-type]
    )


def in_a_line(record: JobRecord) -> str:
    """Return a finished job as a person reads it while the run goes on."""
    head = f"{record.spec.cell}, block {record.spec.block + 1}, {duration(record.wall_s)}"
    if record.status != "ok":
        return f"{head}: {record.status}: {record.error}"
    rate = sum(window.samples for window in record.windows) / sum(window.seconds for window in record.windows)
    said = f"{head}: {rate:,.0f} samples/s"
    if record.points:
        last = record.points[-1]
        said += f", accuracy {last.test_accuracy:.2%} after {last.epoch:.2f} epochs"
    return said
