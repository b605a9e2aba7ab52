"""The main job: prove parity, measure in interleaved blocks, train for accuracy, within the budget.

`RunLog` holds what is recorded, `Budget` the time, and `Schedule` decides what comes next.
"""

import random
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from backends.info import BackendInfo, Mode
from bench.measuring.backends import interpreter
from bench.measuring.block_runner import BlockRunner, Follow, Seat, row_name, steps_of_windows
from bench.measuring.data import Split
from bench.measuring.design import FEWEST_OF_LONG, compiles_anew
from bench.measuring.job import in_a_line
from bench.measuring.lessons import LIMIT_S, PARTS, give_lessons, lessons_in_a_line, without_lessons
from bench.measuring.parity import plan_parity, verify_cells
from bench.measuring.ranks.rows import timed_workload
from bench.measuring.ranks.slots import Slot
from bench.records.runs import Run
from bench.records.schema import (
    BlockRecord,
    JobRecord,
    JobSpec,
    LessonsRecord,
    ParityRecord,
    UnmeasuredRecord,
)
from bench.run.budget import Budget
from bench.run.live import RunDisplay
from bench.run.live_rows import LiveRows
from bench.run.log import RunLog
from bench.run.plan import LESSONS_GUESS_S, LESSONS_SHARE, Preset
from bench.run.schedule import Schedule
from bench.worker.protocol import Built, Evaluated, Event, MeasureTask, Mistaken, Ready, Taught, Timed
from bench.workloads.catalog import base_name
from bench.workloads.specs import Cell, Device, Workload

PIPELINE_STRETCH = 2
"""A framework's own input pipeline starts anew in every window, which takes milliseconds, and in a user's
training once an epoch. So where batches come through one, windows are so many times longer."""
STARTS_IN_A_WINDOW = 20
"""A window is at least so many times as long as a call takes before its first step, by its mode."""
_NO_TIME = "the budget was spent before its turn; use a larger --budget or fewer workloads"

_NO_TIME_FOR_LESSONS = (
    f"lessons would take more than {100 * LESSONS_SHARE:g} % of the budget; a larger --budget would do"
)


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
        display: RunDisplay,
        slots: Sequence[Slot] = (),
    ) -> None:
        """`run` is the run so far; `unavailable` gives the reason for each backend that cannot run here.

        `slots` are where the ranks of every job run, in a run with ranks.
        """
        self._slots = tuple(slots)
        self._header, self._preset = run.header, preset
        self._infos, self._pythons, self._splits = infos, pythons, splits
        self._unavailable, self._display = unavailable, display
        self._workloads: dict[str, Workload] = {workload.name: workload for workload in run.header.workloads}
        self._log = RunLog(run, unavailable=unavailable)
        self._budget = Budget(self._log, splits)
        self._schedule = Schedule(self._log, self._budget, preset)
        self._blocks = BlockRunner(display, steps_of_windows(self._log.jobs))
        self._rows = LiveRows(self._log)

    def run(self) -> None:
        """Do all that is left to do; KeyboardInterrupt passes through with everything so far on disk."""
        with self._blocks:
            self._set_aside()
            self._show_rows()
            self._prove_parity()
            first_training = self._schedule.first_training()
            self._run_due(range(first_training))
            self._replace_lost()
            self._run_due(range(first_training, self._header.min_blocks))
            if self._schedule.due():  # a ranking needs them more than a course needs lessons
                self._budget.give_up_lessons()
                self._run_due(range(self._header.min_blocks))
            self._refine()
            self._name_the_unmeasured()
        self._give_lessons()

    def _set_aside(self) -> None:
        """Record every cell whose backend, device or precision cannot be had here."""
        known = self._log.set_aside
        for cell in self._header.cells:
            if cell.backend in self._unavailable and cell not in known:
                reason = self._unavailable[cell.backend]
                self._log.append(UnmeasuredRecord(cell=cell, status="unavailable", error=reason))

    def _name_the_unmeasured(self) -> None:
        seen = self._log.set_aside | {job.spec.cell for job in self._log.jobs}
        for cell in self._header.cells:
            if cell not in seen:
                self._log.append(UnmeasuredRecord(cell=cell, status="not_measured", error=_NO_TIME))

    # Parity

    def _prove_parity(self) -> None:
        """Prove every cell whose workload is the same for all; once for all batch sizes of a sweep.

        Parity is proven at a batch size of its own, so for another size it would be the same proof again.
        """
        proven = self._log.proven
        sizes: dict[Cell, list[Cell]] = defaultdict(list)
        for cell in self._log.available():
            if self._workloads[cell.workload].matched and cell not in proven:
                sizes[_of_any_size(cell)].append(cell)
        cells = [group[0] for group in sizes.values()]
        if not cells:
            return
        self._display.say(f"Parity: {len(cells)} rows are compared with the float64 reference")
        self._show_overall("parity")

        def note(record: ParityRecord) -> None:
            for cell in sizes[_of_any_size(record.cell)]:
                self._append_parity(msgspec.structs.replace(record, cell=cell))

        jobs = plan_parity(cells, self._workloads, optimizers=False)
        verify_cells(
            jobs, self._infos, self._pythons, self._display, note,
            slots=self._slots, deadline=self._budget.deadline,
        )  # fmt: skip

    def _append_parity(self, record: ParityRecord) -> None:
        self._log.append(record)
        if not record.ok:
            worst = [check for check in record.checks if not check.ok]
            why = record.error or "; ".join(
                f"{check.kind} off by {check.error:.1e} at {check.worst}, allowed {check.tolerance:.0e}"
                for check in worst
            )
            what = "parity lost" if record.lost else "parity not verified"
            self._display.say(f"  {what}: {record.cell}: {why}")

    # Blocks

    def _run_due(self, numbers: range) -> None:
        """Run the required blocks with these numbers, each of every workload before the next."""
        for number in numbers:
            for workload in self._schedule.workloads(number):
                if self._schedule.planned_blocks(workload) <= number:
                    self._run_block(workload)

    def _replace_lost(self) -> None:
        """Run blocks in place of those that lack quiet rounds, before time goes to training for accuracy."""
        skipped: set[str] = set()
        while (workload := self._schedule.to_replace(skipped)) is not None:
            if not self._run_block(workload, replaces=True):
                skipped.add(workload)

    def _run_block(self, workload: str, *, replaces: bool = False) -> bool:
        """Run every cell of a workload side by side, if that fits the budget; return whether it was run."""
        cells = self._log.block_of(workload)
        epochs = 0.0 if replaces else self._schedule.epochs(workload)
        if self._log.jobs and not self._budget.fits(cells, epochs):
            if not self._budget.fits(cells, 0.0):
                return False
            epochs = 0.0
        if not cells or self._budget.spent:
            return False
        number = self._schedule.next_number(workload)
        before = len(self._log.blocks_of(workload))
        chance = random.Random(f"{self._header.seed} {workload} {number}")  # noqa: S311 (an order)
        chance.shuffle(cells)
        placebo = [place for place, cell in enumerate(cells) if cell == self._header.placebo]
        copy = chance.choice(placebo) if len(placebo) > 1 else None
        seats = [
            self._seat(
                self._spec(cell, number, place, 0.0 if place == copy else epochs, chance, copy=place == copy),
                look_closer=before == 0 and place != copy and not self._slots,
            )
            for place, cell in enumerate(cells)
        ]
        self._show_rows(cells)
        self._show_overall(f"block {before + 1}, {workload}")
        self._display.job(f"{workload}: starting", None)
        block = self._blocks.run(
            seats,
            follow=self._follow(cells),
            keep=self._keep,
            fewest=FEWEST_OF_LONG,
            patience_s=self._schedule.patience_s(workload),
            enough=self._budget.deadline,
            deadline=self._budget.latest,
        )
        self._log.append(
            BlockRecord(
                workload=workload,
                block=number,
                started_at=block.started_at,
                order=tuple(cells),
                rounds=block.rounds,
                in_turns=block.in_turns,
                turns=block.turns,
                copy=copy,
                replaces=replaces,
                conditions=block.conditions,
            )
        )
        self._show_rows()
        return True

    def _keep(self, record: JobRecord) -> None:
        self._log.append(record)
        line = f"  {in_a_line(record)}"
        if record.status == "ok":
            self._display.detail(line)
        else:
            self._display.say(line)

    def _seat(self, spec: JobSpec, *, look_closer: bool) -> Seat:
        info = self._infos[spec.cell.backend]
        data = self._splits[spec.cell.workload].source
        task = MeasureTask(backend=info, data=data, spec=spec, look_closer=look_closer)
        return Seat(task=task, python=interpreter(info, self._pythons), slots=self._slots[: spec.cell.ranks])

    def _spec(
        self, cell: Cell, block: int, position: int, epochs: float, chance: random.Random, *, copy: bool
    ) -> JobSpec:
        modes = {mode.name: mode for mode in self._infos[cell.backend].modes}
        return JobSpec(
            job_id=f"{row_name(cell)}.{block}{'.copy' if copy else ''}",
            cell=cell,
            workload=timed_workload(self._workloads[cell.workload], cell),
            seed=self._header.seed + block,
            block=block,
            position=position,
            hash_seed=chance.randrange(1, 2**32),
            windows=self._preset.windows,
            window_s=window_s_of(modes[cell.mode], self._preset.window_s),
            lead_s=self._header.lead_s,
            epochs=epochs,
            time_limit_s=self._budget.time_limit_s(cell, epochs),
            compiles_anew=compiles_anew(cell.device, block),
            copy=copy,
        )

    def _refine(self) -> None:
        """Spend what is left of the budget on blocks where an interval is widest for its target."""
        skipped: set[str] = set()
        while not self._budget.spent and (workload := self._schedule.least_precise(skipped)) is not None:
            if not (self._schedule.may_have_another(workload) and self._run_block(workload)):
                skipped.add(workload)  # its next block does not fit any more; a quicker workload's may

    # Lessons

    def _give_lessons(self) -> None:
        """Let each backend that has lessons give them, one process after another; record why if not."""
        device = self._header.cells[0].device
        for info in self._with_lessons():
            record = self._lessons_of(info, device)
            self._log.append(record)
            self._display.say(f"  {lessons_in_a_line(record, info.title)}")

    def _with_lessons(self) -> list[BackendInfo]:
        """Return the backends whose lessons are due and not recorded yet."""
        done = {record.backend for record in self._log.lessons}
        names = dict.fromkeys(cell.backend for cell in self._log.available())
        infos = [self._infos[name] for name in names if name not in done]
        gives = self._preset.lessons and not self._header.ranks
        return [info for info in infos if info.lessons is not None] if gives else []

    def _lessons_of(self, info: BackendInfo, device: Device) -> LessonsRecord:
        if not self._header.planned.lessons_s:
            return without_lessons(info, device, "not_measured", _NO_TIME_FOR_LESSONS)
        limit_s = min(LIMIT_S, self._budget.latest - time.monotonic())
        if limit_s <= 0 or not self._budget.lessons_s:
            return without_lessons(info, device, "not_measured", _NO_TIME)
        self._show_overall(f"lessons, {info.title}")
        given = 0

        def follow(event: Event) -> None:
            nonlocal given
            if isinstance(event, Taught | Mistaken):
                given += 1
                self._display.job(f"{info.title}: lesson {given} of {PARTS}", given / PARTS)

        python = interpreter(info, self._pythons)
        return give_lessons(info, python=python, device=device, time_limit_s=limit_s, on_event=follow)

    # Progress

    def _show_overall(self, text: str) -> None:
        passed_s = time.monotonic() - self._budget.start
        left_s = self._schedule.left_s() + self._lessons_s()
        self._display.overall(text, passed_s / max(passed_s + left_s, 1.0), left_s)

    def _show_rows(self, running: Sequence[Cell] = ()) -> None:
        """Show the rows with all that is recorded; those of `running` run now."""
        self._rows.begin_block(running)
        self._display.rows(self._rows.rows())

    def _follow(self, cells: Sequence[Cell]) -> Follow:
        """Return what shows the events of a block.

        It shows something only while no process measures: after a process is built it waits, and so it does
        when it is warm, and after each turn. Training for accuracy does not wait, but its events are rare.
        """
        warm: set[int] = set()
        turns = 0

        def show(place: int, event: Event) -> None:
            nonlocal turns
            match event:
                case Built():
                    self._display.job(f"{cells[place]}: first step, warm-up", None)
                case Ready():
                    warm.add(place)
                    what = f"{len(warm)} of {len(cells)} processes are warm"
                    self._display.job(f"{cells[place].workload}: {what}", None)
                case Timed(window=window):
                    turns += 1
                    self._rows.take_turn(cells[place], window.samples, window.seconds)
                    self._display.rows(self._rows.rows())
                    what = f"taking turns, {turns} done"
                    self._display.job(f"{cells[place].workload}: {what}", 0.0)
                case Evaluated(point=point, of_epochs=epochs):
                    what = f"epoch {point.epoch:.2f} of {epochs:.2f}, accuracy {point.test_accuracy:.2%}"
                    self._display.job(f"{cells[place]}: {what}", point.epoch / epochs)

        return show

    def _lessons_s(self) -> float:
        """Return the seconds that the lessons which are still to be given are expected to take."""
        return len(self._with_lessons()) * LESSONS_GUESS_S if self._header.planned.lessons_s else 0.0


def window_s_of(mode: Mode, window_s: float) -> float:
    """Return the seconds of a mode's timed windows, where those of most modes have `window_s`."""
    stretch = PIPELINE_STRETCH if mode.pipeline else 1
    return max(stretch * window_s, STARTS_IN_A_WINDOW * mode.start_s)


def _of_any_size(cell: Cell) -> Cell:
    """Return the cell with its workload's own batch size, in place of one of a sweep or of weak scaling."""
    return msgspec.structs.replace(cell, workload=base_name(cell.workload), scaling="strong")
