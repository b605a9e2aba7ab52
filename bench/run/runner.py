"""The main job: prove parity, measure in interleaved blocks, train for accuracy, within the budget.

Blocks go breadth first: every workload gets its first block before any gets its second, so that a run that is
cut short has measured everything a little rather than something a lot. The first blocks show how fast each
cell is; from that follow the epochs that fit the budget, the time left, and which blocks are worth it.
"""

import math
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

import msgspec

from backends.info import BackendInfo
from bench.analysis.disturbance import dropped_blocks
from bench.analysis.stopping import widest_half_width
from bench.measuring.backends import interpreter
from bench.measuring.block import BlockJob, run_block
from bench.measuring.data import Split
from bench.measuring.design import BLOCKS_ANEW, FEWEST_OF_LONG
from bench.measuring.job import in_a_line, job_record
from bench.measuring.parity import plan_parity, verify_cells
from bench.measuring.process import Outcome
from bench.progress import Display
from bench.records.runs import Run, append_record
from bench.records.schema import (
    BlockRecord,
    JobRecord,
    JobSpec,
    ParityRecord,
    Record,
    Status,
    UnmeasuredRecord,
)  # fmt: skip
from bench.run.plan import TRAINING_SHARE, Preset, plan_epochs
from bench.text import duration
from bench.worker.protocol import Built, Evaluated, Event, Imported, MeasureTask, Timed, WarmedUp  # fmt: skip
from bench.workloads.catalog import SWEPT, base_name
from bench.workloads.schedule import evaluation_steps
from bench.workloads.specs import Cell, Workload

FIRST_GUESS_S = 20.0
"""What a job is thought to take before any has run. Told on the screen, and never a reason not to try."""
LEAST_LIMIT_S = 120.0
"""No job is stopped earlier than this, unless the budget itself ends."""
OVERRUN = 1.08
"""A job still running when this part of the budget is spent is stopped."""
MOST_BLOCKS = 30
PIPELINE_STRETCH = 5
"""A framework's own input pipeline starts anew in every window, which takes milliseconds, and in a user's
training once an epoch. So where batches come through one, windows are so many times longer."""
_NO_TIME = "the budget was spent before its turn came; a larger --budget, or fewer workloads, would do"
GIVE_UP: tuple[Status, ...] = (
    "failed", "crashed", "timeout", "out_of_memory", "nan_loss", "wrong_device", "unavailable",
)  # fmt: skip
"""A cell that ended so would end so again: it is not tried in later blocks."""


class Runner:
    """Carries out one run; what is on disk when it stops is complete up to the jobs in hand."""

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
        """`run` is the run so far; `unavailable` gives the reason for each backend that cannot run here."""
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
        with tempfile.TemporaryDirectory(prefix="samework-compiled-") as folder:
            self._compiled = Path(folder)
            self._set_aside()
            self._prove_parity()
            for number in range(self._header.min_blocks):
                for workload in self._shuffled(number):
                    if len(self._blocks_of(workload)) <= number:
                        self._run_block(workload)
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
                self._append(UnmeasuredRecord(cell=cell, status="not_measured", error=_NO_TIME))

    # Parity

    def _prove_parity(self) -> None:
        """Prove every cell whose workload is the same for all; once for all batch sizes of a sweep.

        Parity is proven at a batch size of its own anyway, so another size would be the same proof again.
        """
        proven = {record.cell for record in self._records if isinstance(record, ParityRecord)}
        sizes: dict[Cell, list[Cell]] = defaultdict(list)
        for cell in self._available():
            if self._workloads[cell.workload].matched and cell not in proven:
                sizes[msgspec.structs.replace(cell, workload=base_name(cell.workload))].append(cell)
        cells = [group[0] for group in sizes.values()]
        if not cells:
            return
        self._display.say(f"Parity: {len(cells)} cells against the float64 reference")
        self._show_overall("parity")

        def note(record: ParityRecord) -> None:
            base = msgspec.structs.replace(record.cell, workload=base_name(record.cell.workload))
            for cell in sizes[base]:
                self._append_parity(msgspec.structs.replace(record, cell=cell))

        jobs = plan_parity(cells, self._workloads, optimizers=False)
        verify_cells(jobs, self._infos, self._pythons, self._display, note, deadline=self._deadline)

    def _append_parity(self, record: ParityRecord) -> None:
        self._append(record)
        if not record.ok:
            worst = [check for check in record.checks if not check.ok]
            why = record.error or "; ".join(
                f"{check.kind} off by {check.error:.1e} at {check.worst}, allowed {check.tolerance:.0e}"
                for check in worst
            )
            what = "parity lost" if record.lost else "parity not verified"
            self._display.say(f"  {what}: {record.cell}: {why}")

    # Blocks

    def _shuffled(self, number: int) -> list[str]:
        names = sorted({cell.workload for cell in self._available()})
        random.Random(f"{self._header.seed} {number}").shuffle(names)  # noqa: S311 (an order, not a secret)
        return names

    def _run_block(self, workload: str) -> None:
        """Run every cell of a workload side by side, in a random order of its own, if that fits."""
        cells = self._worth_running(workload)
        number = self._next_number(workload)
        epochs = self._training(workload)
        if self._jobs() and not self._fits(cells, epochs):
            if not self._fits(cells, 0.0):
                return
            epochs = 0.0
        if not cells or time.monotonic() >= self._deadline:
            return
        chance = random.Random(f"{self._header.seed} {workload} {number}")  # noqa: S311 (an order)
        chance.shuffle(cells)
        specs = [self._spec(cell, number, place, epochs, chance) for place, cell in enumerate(cells)]
        self._show_overall(f"block {len(self._blocks_of(workload)) + 1}, {workload}")
        started_at = datetime.now(UTC).isoformat()
        closer = not self._blocks_of(workload)
        ends = time.monotonic() + sum(self._expected(cell, epochs) for cell in cells)

        def keep(place: int, outcome: Outcome, windows: int) -> None:
            spec = msgspec.structs.replace(specs[place], windows=windows)
            record = job_record(spec, outcome, started_at=started_at)
            self._append(record)
            self._display.say(f"  {in_a_line(record)}")

        self._display.job(f"{workload}: starting{_left(ends)}", None)
        outcome = run_block(
            [
                BlockJob(
                    task=MeasureTask(
                        backend=self._infos[spec.cell.backend],
                        data=self._splits[workload].source,
                        spec=spec,
                        look_closer=closer,
                    ),
                    python=interpreter(self._infos[spec.cell.backend], self._pythons),
                    window_steps=self._window_steps(spec.cell),
                    compiled=None if spec.compiles_anew else self._compiled / spec.job_id.rpartition(".")[0],
                )
                for spec in specs
            ],
            on_event=lambda place, event: self._show_event(cells[place], event, ends),
            on_end=keep,
            fewest=FEWEST_OF_LONG,
            patience_s=self._patience_s(workload),
            enough=self._deadline,
            deadline=self._start + OVERRUN * self._header.budget_s,
        )
        self._append(
            BlockRecord(
                workload=workload,
                block=number,
                started_at=started_at,
                order=tuple(cells),
                rounds=outcome.rounds,
                conditions=outcome.conditions,
            )
        )

    def _spec(self, cell: Cell, block: int, position: int, epochs: float, chance: random.Random) -> JobSpec:
        modes = {mode.name: mode for mode in self._infos[cell.backend].modes}
        stretch = PIPELINE_STRETCH if modes[cell.mode].pipeline else 1
        return JobSpec(
            job_id=f"{cell.workload}.{cell.backend}.{cell.mode}.{block}",
            cell=cell,
            workload=self._workloads[cell.workload],
            seed=self._header.seed + block,
            block=block,
            position=position,
            hash_seed=chance.randrange(1, 2**32),
            windows=self._preset.windows,
            window_s=self._preset.window_s * stretch,
            epochs=epochs,
            time_limit_s=self._time_limit(cell, epochs),
            compiles_anew=block < BLOCKS_ANEW,
        )

    def _window_steps(self, cell: Cell) -> int | None:
        """Return the steps of a cell's windows so far; None before its first block."""
        return next((job.windows[0].steps for job in self._jobs_of(cell) if job.windows), None)

    def _fits(self, cells: Sequence[Cell], epochs: float) -> bool:
        return time.monotonic() + sum(self._expected(cell, epochs) for cell in cells) <= self._deadline

    def _patience_s(self, workload: str) -> float:
        """Return for how long a block may take other rounds for those that the hypervisor disturbed.

        While blocks are due, for its share of what they leave of the budget: it must not cost another
        workload the block without which that is not ranked. Later, for as long as it likes.
        """
        due = [name for name, _ in self._due()]
        if workload not in due:
            return math.inf
        left_s = self._deadline - time.monotonic() - sum(map(self._block_s, due))
        return self._block_s(workload) + max(0.0, left_s) / len(due)

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
            if len(self._blocks_of(workload)) < MOST_BLOCKS:
                self._run_block(workload)
            if len(self._records) == before:
                skipped.add(workload)  # its next block does not fit any more; a quicker workload's may

    def _next_number(self, workload: str) -> int:
        """Return a number that no job has yet.

        A block that was interrupted is not gone on with: what is left of it would not meet those that ended.
        """
        numbers = [job.spec.block for job in self._jobs() if job.spec.cell.workload == workload]
        return max([*numbers, *(block.block for block in self._blocks_of(workload))], default=-1) + 1

    def _block_s(self, workload: str) -> float:
        return sum(self._expected(cell, 0.0) for cell in self._worth_running(workload))

    def _lost_blocks(self, workload: str) -> int:
        """Return how many blocks have to be made up for: a job in them did not settle, or they are dropped.

        After as many further blocks as a ranking needs it is none: a row may drift for ever.
        """
        required = self._header.min_blocks
        blocks = self._blocks_of(workload)
        if len(blocks) >= 2 * required:
            return 0
        kept = {block.block for block in blocks} - self._dropped(workload)
        settled = [
            sum(job.status == "ok" and job.spec.block in kept for job in self._jobs_of(cell))
            for cell in self._worth_running(workload)
        ]
        return max(0, min(len(blocks), required) - min(settled, default=0))

    def _dropped(self, workload: str) -> frozenset[int]:
        """Return the blocks of a workload that do not count, for what else the machine did meanwhile."""
        blocks = [record for record in self._records if isinstance(record, BlockRecord)]
        screenings = dropped_blocks(blocks, self._header.min_blocks)
        return screenings[workload].dropped if workload in screenings else frozenset()

    def _half_width(self, workload: str) -> float:
        """Return the widest half-width of a workload's ratios; infinite where a ranking lacks blocks."""
        if self._lost_blocks(workload):
            return math.inf
        dropped = self._dropped(workload)
        return widest_half_width([job for job in self._jobs_in(workload) if job.spec.block not in dropped])

    # Training for accuracy

    def _training(self, workload: str) -> float:
        """Return the epochs that the jobs of a workload's next block train, chosen when the first is due.

        Training comes with the last blocks: what is needed for a ranking is then done or nearly so, and the
        speeds are known. Every workload yet to choose gets its share of the time that is left over.
        """
        done = len(self._blocks_of(workload))
        if not self._trains(workload, done):
            return 0.0
        if workload not in self._epochs:
            needed_s = sum(
                self._expected(cell, self._planned(name, number))
                for name, number in self._due()
                for cell in self._worth_running(name)
            )
            needed_s += sum(self._lost_blocks(name) * self._block_s(name) for name in self._shuffled(0))
            seconds: dict[str, float] = defaultdict(float)
            for cell in self._running():
                name = cell.workload
                if (
                    name not in self._epochs and SWEPT not in name and self._epoch_s(cell) > 0
                ):  # 0: never timed
                    seconds[name] += self._epoch_s(cell)
            left_s = (self._deadline - time.monotonic() - needed_s) * TRAINING_SHARE
            chosen = plan_epochs(seconds, left_s / self._header.seeds, self._preset.epochs)
            self._epochs[workload] = chosen.get(workload, 0.0)
        return self._epochs[workload]

    def _trains(self, workload: str, number: int) -> bool:
        """Whether a workload's block, counted from 0, is one of those that train."""
        required = self._header.min_blocks
        return SWEPT not in workload and required - self._header.seeds <= number < required

    def _planned(self, workload: str, number: int) -> float:
        """Return the epochs that were chosen for a block; 0 where none were yet."""
        return self._epochs.get(workload, 0.0) if self._trains(workload, number) else 0.0

    def _epoch_s(self, cell: Cell) -> float:
        """Return the seconds of training an epoch, without evaluations."""
        rates = [window.samples / window.seconds for job in self._jobs_of(cell) for window in job.windows]
        return self._splits[cell.workload].train / fmean(rates) if rates else 0.0

    # Time

    def _expected(self, cell: Cell, epochs: float) -> float:
        """Return the seconds a job is expected to take, from what this cell, or else any, took before."""
        own = [self._without_training(job) for job in self._jobs_of(cell)]
        other = [self._without_training(job) for job in self._jobs()]
        base = fmean(own) if own else fmean(other) if other else FIRST_GUESS_S
        if not epochs:
            return base
        split = self._splits[cell.workload]
        steps_per_epoch = max(1, split.train // self._workloads[cell.workload].batch_size)
        evaluations = len(evaluation_steps(round(epochs * steps_per_epoch), steps_per_epoch))
        # An image is taken to cost a third as much to evaluate as to train.
        return base + self._epoch_s(cell) * (epochs + evaluations * split.test / 3 / split.train)

    @staticmethod
    def _without_training(job: JobRecord) -> float:
        return job.wall_s - (job.learn_s or 0.0)

    def _time_limit(self, cell: Cell, epochs: float) -> float:
        return max(3 * self._expected(cell, epochs), LEAST_LIMIT_S)

    def _show_overall(self, text: str) -> None:
        now = time.monotonic()
        left = sum(
            self._expected(cell, self._planned(name, number))
            for name, number in self._due()
            for cell in self._worth_running(name)
        )
        names = self._shuffled(0)
        precise = all(self._half_width(name) <= self._header.target_half_width for name in names)
        # Training and further blocks fill the budget; only where neither is to come does a run end sooner.
        end = (
            min(now + left, self._deadline)
            if precise and self._epochs.keys() >= set(names)
            else self._deadline
        )
        self._display.overall(text, (now - self._start) / max(end - self._start, 1.0), max(0.0, end - now))

    def _due(self) -> list[tuple[str, int]]:
        """Return the workload and the number of every block that a ranking needs and that has not run yet."""
        return [
            (name, number)
            for name in self._shuffled(0)
            for number in range(len(self._blocks_of(name)), self._header.min_blocks)
        ]

    def _show_event(self, cell: Cell, event: Event, ends: float) -> None:
        match event:
            case Imported():
                self._display.job(f"{cell}: building{_left(ends)}", None)
            case Built():
                self._display.job(f"{cell}: first step{_left(ends)}", None)
            case WarmedUp():
                self._display.job(f"{cell}: warming up{_left(ends)}", None)
            case Timed(window=window):
                rate = window.samples / window.seconds
                self._display.job(f"{cell}: {rate:,.0f} samples/s, taking turns{_left(ends)}", None)
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

    def _jobs_in(self, workload: str) -> list[JobRecord]:
        return [job for job in self._jobs() if job.spec.cell.workload == workload]

    def _blocks_of(self, workload: str) -> list[BlockRecord]:
        """Return the blocks of a workload that ran to their end."""
        return [
            record
            for record in self._records
            if isinstance(record, BlockRecord) and record.workload == workload
        ]

    def _available(self) -> list[Cell]:
        return [cell for cell in self._header.cells if cell.backend not in self._unavailable]

    def _running(self) -> list[Cell]:
        given_up = {job.spec.cell for job in self._jobs() if job.status in GIVE_UP}
        return [cell for cell in self._available() if cell not in given_up]

    def _worth_running(self, workload: str) -> list[Cell]:
        return [cell for cell in self._running() if cell.workload == workload]


def _left(ends: float) -> str:
    """Return about how long a job still takes that is expected to end at a time of the monotonic clock."""
    return f", about {duration(max(0.0, ends - time.monotonic()))} left"
