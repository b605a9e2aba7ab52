"""Run block after block for a feature, which decides what a block holds and what is kept of it.

Run, comparison side by side and self-test all measure so. Between blocks this module remembers how many steps
the windows of a cell have, and where the programs are that its jobs have compiled.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import msgspec

from bench.machine.conditions import Conditions
from bench.machine.gpu import admits_one_process
from bench.measuring.alone import run_alone
from bench.measuring.block import BlockJob, run_block
from bench.measuring.job import job_record
from bench.measuring.process import Outcome
from bench.measuring.ranks.slots import Slot
from bench.measuring.traces import Traces
from bench.progress import Teller
from bench.records.schema import JobRecord
from bench.worker.protocol import Evaluated, Event, MeasureTask, Ready, Timed
from bench.workloads.specs import Cell

Follow = Callable[[int, Event], None]

ALONE = (
    "The compute mode of the GPU admits one process at a time. So the processes of a block run one after "
    "another instead of taking turns. A change in the machine's speed does not cancel in their comparison."
)


class Seat(msgspec.Struct, frozen=True, kw_only=True):
    """A job's place in a block: what it measures, and with which interpreter."""

    task: MeasureTask
    python: Path
    slots: tuple[Slot, ...] = ()
    """Where each rank of the job runs; empty in a run without ranks."""
    side: str = ""
    """Jobs of a cell share what they have compiled only within a side; empty where there are no sides."""


class MeasuredBlock(msgspec.Struct, frozen=True, kw_only=True):
    """A block that has ended. Records are in the order of the seats."""

    started_at: str
    """UTC, ISO 8601."""
    wall_s: float
    """From starting the first process to the end of the last."""
    rounds: int
    in_turns: bool
    """Whether the jobs took turns; else each ran alone, one after another."""
    turns: tuple[tuple[int, ...], ...]
    """The places of the seats that trained in each round, in the order of their turns; none if alone."""
    conditions: Conditions
    records: tuple[JobRecord, ...]


class BlockRunner:
    """Runs blocks one after another; a context, which keeps compiled programs and traces between them."""

    def __init__(self, display: Teller, window_steps: Mapping[Cell, int]) -> None:
        """`window_steps` are the steps of the windows of cells that were measured before."""
        self._display = display
        self._window_steps = dict(window_steps)
        self._repeated: set[str] = set()
        """The cells, each with its side, whose programs were compared with their repetition."""
        self._said_alone = False

    def __enter__(self) -> Self:
        self._folder = TemporaryDirectory(prefix="samework-block-")
        self._traces = Traces(Path(self._folder.name), self._display)
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def run(
        self,
        seats: Sequence[Seat],
        *,
        follow: Follow | None = None,
        keep: Callable[[JobRecord], None] = lambda _: None,
        together: bool = False,
        fewest: float = 1.0,
        patience_s: float = inf,
        enough: float = inf,
        deadline: float = inf,
    ) -> MeasuredBlock:
        """Run one block; `keep` gets the record of each job as it ends. The other options are `run_block`'s.

        `follow` gets the place and the event of each job; without it, the display shows the progress.
        On a GPU that admits one process at a time, the jobs run one after another.
        """
        started_at, began = datetime.now(UTC).isoformat(), time.monotonic()
        records: list[JobRecord] = []

        def end(place: int, outcome: Outcome, windows: int) -> None:
            spec = msgspec.structs.replace(seats[place].task.spec, windows=windows)
            records.append(job_record(spec, outcome, started_at=started_at))
            keep(records[-1])

        alone = seats[0].task.spec.cell.device == "gpu" and admits_one_process()
        if alone and not self._said_alone:
            self._said_alone = True
            self._display.say(ALONE)
        outcome = (run_alone if alone else partial(run_block, together=together))(
            [self._job(seat) for seat in seats],
            on_event=follow or self._show(len(seats), seats[0].task.spec.windows),
            on_end=end,
            fewest=fewest,
            patience_s=patience_s,
            enough=enough,
            deadline=deadline,
        )
        self._window_steps = steps_of_windows(records) | self._window_steps
        return MeasuredBlock(
            started_at=started_at,
            wall_s=time.monotonic() - began,
            rounds=outcome.rounds,
            in_turns=outcome.in_turns,
            turns=outcome.turns,
            conditions=outcome.conditions,
            records=tuple(records),
        )

    def _job(self, seat: Seat) -> BlockJob:
        spec = seat.task.spec
        name = ".".join(filter(None, (row_name(spec.cell), seat.side)))
        repeated = name not in self._repeated
        self._repeated.add(name)
        return BlockJob(
            task=seat.task,
            python=seat.python,
            slots=seat.slots,
            window_steps=self._window_steps.get(spec.cell),
            compiled=None if spec.compiles_anew else Path(self._folder.name) / name,
            trace=lambda call_steps: self._traces.path(seat.task, call_steps),
            repeated=repeated,
        )

    def _show(self, jobs: int, windows: int) -> Follow:
        ready, timed, turns = 0, 0, jobs * windows

        def show(_place: int, event: Event) -> None:
            nonlocal ready, timed
            match event:
                case Ready():
                    ready += 1
                    self._display.job(f"{ready} of {jobs} processes are warmed up", ready / jobs)
                case Timed():
                    timed += 1
                    self._display.job(f"turn {timed} of {max(timed, turns)}", min(1.0, timed / turns))
                case Evaluated(point=point, of_epochs=of_epochs):
                    self._display.job(f"epoch {point.epoch:.2f} of {of_epochs:.2f}", point.epoch / of_epochs)

        return show


def row_name(cell: Cell) -> str:
    """Return a name that no other cell of a run has, and that a file or folder can have."""
    ranks = f"{cell.ranks}ranks" if cell.ranks > 1 else ""
    weak = cell.scaling if cell.scaling == "weak" else ""
    return ".".join(filter(None, (cell.workload, cell.backend, cell.mode, ranks, weak)))


def steps_of_windows(jobs: Iterable[JobRecord]) -> dict[Cell, int]:
    """Return the steps that a window of each cell has, by the first of the jobs that has windows."""
    found: dict[Cell, int] = {}
    for job in jobs:
        if job.windows:
            found.setdefault(job.spec.cell, job.windows[0].steps)
    return found
