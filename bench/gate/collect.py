"""Measure two sides side by side: base and head of a cell take turns, block by block, until all is decided.

Blocks go breadth first, so that a comparison that is cut short has measured everything a little. What the
first series finds worse is measured again, in a second series with seeds of its own, before it counts.
"""

import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

import msgspec

from bench import store
from bench.gate.judge import (
    Next,
    compiles_anew,
    judge_cell,
    looks,
    next_step,
    trains,
    unlike_reference,
)
from bench.gate.records import (
    Ab,
    AbBlock,
    AbHeader,
    AbParity,
    AbRecord,
    Series,
    append_ab,
    create_ab,
    find_ab,
    read_ab,
)
from bench.gate.setup import AbPlan, Folders, in_words, make_sides, new_header, refuse_others
from bench.gate.sides import SIDES, Side, SideName
from bench.machine.environment import commit_notes
from bench.machine.known_faults import known_faults
from bench.measuring.block_runner import BlockRunner, Seat, steps_of_windows
from bench.measuring.data import Split, prepare_data
from bench.measuring.design import SMALLEST_TRAINING, balanced_order
from bench.measuring.parity import plan_parity, verify_cells
from bench.measuring.selection import choose_device
from bench.progress import Display
from bench.records.schema import JobSpec, ParityRecord, fault_in_words
from bench.worker.protocol import MeasureTask
from bench.workloads.specs import Cell, Device

TRAINING_S = 1.5
"""About how long a training for accuracy takes. From equal starts and batches, a wrong rate or label shows
early."""
MOST_EPOCHS = 1.0
TEST_SAMPLES = 2000
"""Images of the test split that are used. Equal trainings give equal answers, and a wrong one shows on a
fifth."""
SECOND_SEEDS = 1000
"""The first seed of the second series, which shares no seed with the first."""
BLOCK_GUESS_S = 15.0
"""The time that a block is expected to take before any has run."""
TIME_LIMIT_S = 300.0
PATIENCE_S = 10.0
"""How long after a block's first round disturbed rounds are repeated: about three times as long as all rounds
take. Base and head meet the same disturbance, and a gate has to end."""


def measure(plan: AbPlan, *, folders: Folders, resume: str | None, offline: bool, display: Display) -> Ab:
    """Measure all that was asked for, or continue a comparison, and return it as read from its file.

    KeyboardInterrupt is raised again, after a message that says how to continue. Every finished block is on
    disk by then.
    """
    device = choose_device(plan.asked.device, plan.asked.gpu)
    with TemporaryDirectory(prefix="samework-sides-") as place:
        sides = make_sides(plan, device, folders=folders, place=Path(place), display=display)
        header = new_header(plan, device, sides)
        begun = None
        if resume is not None:
            begun = read_ab(find_ab(folders.results, resume))
            refuse_others(begun.header, header)
            # The budget is for this call, not for the calls before it.
            header = msgspec.structs.replace(begun.header, budget_s=plan.budget_s)
        splits = prepare_data(
            header.base.workloads, cache=folders.data, sample=header.sample, limit=None, offline=offline,
            display=display,
        )  # fmt: skip
        folder = create_ab(folders.results, header) if begun is None else begun.folder
        _announce(header, device, display)
        again = f"Go on with the same command and --resume {header.run_id}"
        try:
            with store.resumable(again):
                Collector(
                    Ab(folder=folder, header=header, records=begun.records if begun else ()),
                    sides=sides, splits=splits, display=display,
                ).run()  # fmt: skip
        except KeyboardInterrupt:
            display.say("Interrupted; all finished blocks are kept.")
            display.say(again)
            raise
    return read_ab(folder)


def _announce(header: AbHeader, device: Device, display: Display) -> None:
    """Say what is compared, on which machine, and what is known to be wrong or missing."""
    display.say(f"Comparison {header.run_id} on {header.environment.in_words()}")
    if threads := header.environment.threads_in_words():
        display.say(f"  threads: {threads}")
    for note in commit_notes(header.environment):
        display.say(note)
    for name in SIDES:
        display.say(f"  {name}: {in_words(header.side(name))}")
        for one in header.side(name).backends:
            for warning in known_faults(one.versions, device):
                display.say(f"  WARNING: {name}: {warning}")
    for cell, why in header.missing.items():
        display.say(f"  {cell}: {why}")


class Collector:
    """Measures what is missing in a comparison, and records each block as it ends."""

    def __init__(
        self, so_far: Ab, *, sides: Mapping[SideName, Side], splits: Mapping[str, Split], display: Display
    ) -> None:
        self._ab, self._sides, self._splits, self._display = so_far, sides, splits, display
        self._header = so_far.header
        self._begun = time.monotonic()
        jobs = [job for block in so_far.blocks for job in (block.base, block.head)]
        self._blocks = BlockRunner(display, steps_of_windows(jobs))

    def run(self) -> None:
        with self._blocks:
            self._prove_parity()
            for wanted in ("block", "confirm"):
                while cells := self._due(wanted):
                    for cell in cells:
                        if self._spent_s() < self._header.budget_s:
                            self._run_block(cell, "first" if wanted == "block" else "second")
                    if self._spent_s() >= self._header.budget_s:
                        self._display.say("The budget is spent; what is still undecided stays so.")
                        return

    def _due(self, wanted: Next) -> list[Cell]:
        return [cell for cell in self._header.cells if next_step(self._ab, cell) == wanted]

    def _append(self, record: AbRecord) -> None:
        append_ab(self._ab.folder, record)
        self._ab = msgspec.structs.replace(self._ab, records=(*self._ab.records, record))

    def _prove_parity(self) -> None:
        """Compare every cell of both sides with the reference.

        Only sides that are right can be compared with each other, and head is worse only where base is right.
        """
        for name in SIDES:
            self._prove(name)
        for cell in self._header.cells:
            if (unlike := unlike_reference(self._ab, cell)) is not None:
                self._display.say(f"  {cell}: {unlike[1]}")

    def _prove(self, name: SideName) -> None:
        """Compare those cells of a side with the reference that were not compared before."""
        # A comparison that ran out of time or memory is tried again.
        proven = {
            one.parity.cell
            for one in self._ab.parity
            if one.side == name and (one.parity.ok or one.parity.checks)
        }
        side = self._sides[name]
        workloads = side.described.workloads
        cells = [
            cell for cell in self._header.cells if cell not in proven and workloads[cell.workload].matched
        ]
        if not cells:
            return
        self._display.say(f"Parity: {len(cells)} rows of {name} are compared with the float64 reference")

        def note(record: ParityRecord) -> None:
            self._append(AbParity(side=name, parity=record))

        verify_cells(
            plan_parity(cells, workloads, optimizers=False),
            {cell.backend: side.info(cell.backend) for cell in cells},
            side.pythons,
            self._display,
            note,
        )

    def _run_block(self, cell: Cell, series: Series) -> None:
        number = 1 + max((block.block for block in self._ab.blocks_of(cell, series)), default=-1)
        names = [SIDES[place] for place in balanced_order(2, number)]
        epochs = self._epochs(cell) if trains(self._ab, cell, series) else 0.0
        self._show(cell, series, number)
        seats = [
            self._seat(cell, name, series=series, number=number, place=place, epochs=epochs)
            for place, name in enumerate(names)
        ]
        block = self._blocks.run(seats, together=True, patience_s=PATIENCE_S)
        records = dict(zip(names, block.records, strict=True))
        self._append(
            AbBlock(
                series=series, block=number, cell=cell, started_at=block.started_at,
                wall_s=block.wall_s, rounds=block.rounds, in_turns=block.in_turns, first=names[0],
                conditions=block.conditions, base=records["base"], head=records["head"],
            )
        )  # fmt: skip
        for name, record in records.items():
            if record.status != "ok":
                self._display.say(f"  {cell}, {name}: {fault_in_words(record.status, record.error)}")
        judged = judge_cell(self._ab, cell)
        if next_step(self._ab, cell) != ("block" if series == "first" else "confirm"):
            self._display.say(f"  {cell}: {judged.conclusion}: {judged.why}")

    def _seat(
        self, cell: Cell, name: SideName, *, series: Series, number: int, place: int, epochs: float
    ) -> Seat:
        side = self._sides[name]
        spec = JobSpec(
            job_id=f"{cell.workload}.{cell.backend}.{cell.mode}.{series}.{number}.{name}",
            cell=cell,
            workload=side.described.workloads[cell.workload],
            seed=number + (SECOND_SEEDS if series == "second" else 0),
            block=number,
            position=place,
            hash_seed=secrets.randbits(32),
            windows=self._header.windows,
            window_s=self._header.window_s,
            epochs=epochs,
            time_limit_s=TIME_LIMIT_S,
            only_last=True,
            test_samples=TEST_SAMPLES,
            compiles_anew=compiles_anew(self._ab, cell, series),
        )
        task = MeasureTask(
            backend=side.info(cell.backend), data=self._splits[cell.workload].source, spec=spec
        )
        # Each series compiles for itself. With the programs of the first, a second series would find again
        # whatever came of compiling them.
        return Seat(task=task, python=side.pythons[cell.backend], side=f"{name}.{series}")

    def _epochs(self, cell: Cell) -> float:
        """Return the epochs to train, the same in every block: as many as base trains in `TRAINING_S`."""
        blocks = [block for block in self._ab.blocks if block.cell == cell]
        chosen = next((block.base.spec.epochs for block in blocks if block.base.spec.epochs), None)
        if chosen is not None:
            return chosen
        windows = [window for block in blocks for window in block.base.windows]
        if not windows:
            return SMALLEST_TRAINING
        rate = sum(window.samples for window in windows) / sum(window.seconds for window in windows)
        fitting = TRAINING_S * rate / self._splits[cell.workload].train
        return min(MOST_EPOCHS, max(1, int(fitting / SMALLEST_TRAINING)) * SMALLEST_TRAINING)

    # Progress

    def _spent_s(self) -> float:
        return time.monotonic() - self._begun

    def _show(self, cell: Cell, series: Series, number: int) -> None:
        left_s = self._left_s()
        passed_s = self._spent_s()
        again = "again, " if series == "second" else ""
        self._display.overall(
            f"{cell}, {again}block {number + 1}",
            passed_s / (passed_s + left_s) if left_s else 1.0,
            left_s,
        )

    def _left_s(self) -> float:
        """Return the seconds until every cell has been judged once more."""
        left_s = 0.0
        walls = [block.wall_s for block in self._ab.blocks]
        for cell in self._header.cells:
            step = next_step(self._ab, cell)
            if step is None:
                continue
            series: Series = "first" if step == "block" else "second"
            done = len(self._ab.blocks_of(cell, series))
            wanted = next((look for look in looks(self._ab, series) if look > done), done + 1)
            mine = [block.wall_s for block in self._ab.blocks if block.cell == cell] or walls
            left_s += (wanted - done) * (fmean(mine) if mine else BLOCK_GUESS_S)
        return left_s
