"""The self-test's measurements: the same training compared with itself, and with itself made slower.

A group is one cell and several blocks; a block has a process for every side (`SIDES`), and all of them take
turns as the jobs of a run do. What comes of it is derived from the raw file by `bench.selftest.calibration`.
"""

import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path
from statistics import fmean

import msgspec

from backends.info import BackendInfo
from bench.errors import RecordError
from bench.machine.environment import Environment, capture_environment
from bench.measuring import block as turns
from bench.measuring.backends import Registry, find_backends, interpreter
from bench.measuring.block import BlockJob
from bench.measuring.data import prepare_data
from bench.measuring.design import balanced_order
from bench.measuring.process import Outcome
from bench.measuring.selection import Asked, Available, choose_backends, choose_device, chosen_cells
from bench.progress import Display
from bench.records.schema import BackendHere, JobSpec
from bench.selftest.records import (
    SIDES,
    SelfTest,
    SelfTestBlock,
    SelfTestHeader,
    Side,
    SideRecord,
    Timing,
    append_block,
    create_selftest,
    find_selftest,
    read_selftest,
)
from bench.text import duration
from bench.worker.protocol import DataSource, Event, MeasureTask, Ready, Timed
from bench.workloads.catalog import find_workload
from bench.workloads.specs import Cell

WORKLOADS = ("mnist-softmax", "mnist-mlp", "mnist-cnn")
"""What is measured when no workload is named: steps of a tenth of a millisecond, of one or two, and of 50."""
START_GUESS_S = 5.0
"""What a process is thought to take until it is warmed up, before any has."""
TIME_LIMIT_S = 300.0
"""A process is stopped that works longer than this; waiting for its turn does not count."""


class Asking(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asks for."""

    backends: tuple[str, ...] = ()
    workloads: tuple[str, ...] = ()
    comparisons: int = 20
    """Groups: each gives two comparisons of equals, and one with every slowdown."""
    blocks: int = 10
    windows: int = 60
    """As many as in a run."""
    window_s: float = 0.05
    pythons: Mapping[str, Path] = {}


def measure(
    asked: Asking, *, results: Path, cache: Path, resume: str | None, offline: bool, display: Display
) -> SelfTest:
    """Measure all that was asked, or go on with what was begun, and return the whole as read from its file.

    KeyboardInterrupt passes through, with every block so far on disk, after telling how to go on.
    """
    registry = find_backends()
    begun = None if resume is None else read_selftest(find_selftest(results, resume))
    if begun is None:
        available, header = _new_header(registry, asked)
    else:
        header = begun.header
        available = _backends_again(registry, header, asked.pythons)
    splits = prepare_data(
        header.workloads, cache=cache, sample=False, limit=None, offline=offline, display=display
    )
    folder = create_selftest(results, header) if begun is None else begun.folder
    display.say(f"Self-test {header.run_id} on {header.environment.in_words()}")
    try:
        Collector(
            SelfTest(folder=folder, header=header, blocks=begun.blocks if begun else ()),
            infos=available.infos,
            pythons=asked.pythons,
            sources={name: split.source for name, split in splits.items()},
            display=display,
        ).run()
    except KeyboardInterrupt:
        display.say("Interrupted; all finished blocks are kept.")
        display.say(f"Go on with: bench selftest --resume {header.run_id}")
        raise
    return read_selftest(folder)


def _new_header(registry: Registry, asked: Asking) -> tuple[Available, SelfTestHeader]:
    device = choose_device("auto")
    here = Asked(backends=asked.backends, workloads=asked.workloads or WORKLOADS, pythons=asked.pythons)
    available = choose_backends(registry, here, device)
    cells = [
        cell
        for cell in chosen_cells(here, available, device, "taught")
        if cell.backend not in available.unavailable
    ]
    used = {cell.backend for cell in cells}
    now = datetime.now(UTC)
    header = SelfTestHeader(
        run_id=f"selftest-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}",
        created_at=now.isoformat(timespec="seconds"),
        command=("bench", *sys.argv[1:]),
        groups=tuple(islice(cycle(cells), asked.comparisons)),
        blocks=asked.blocks,
        windows=asked.windows,
        window_s=asked.window_s,
        workloads=tuple(find_workload(name) for name in dict.fromkeys(cell.workload for cell in cells)),
        backends=tuple(
            BackendHere(
                name=info.name,
                title=info.title,
                taught_mode=info.taught_mode,
                modes={mode.name: mode.summary for mode in info.modes},
                reference=info.reference,
                versions=available.versions[info.name],
            )
            for info in available.infos.values()
            if info.name in used
        ),
        environment=capture_environment(),
    )
    return available, header


def _backends_again(registry: Registry, header: SelfTestHeader, pythons: Mapping[str, Path]) -> Available:
    """Return the backends a self-test was begun with; raise RecordError where they or the machine changed."""
    _refuse_another_machine(header, capture_environment())
    names = tuple(backend.name for backend in header.backends)
    available = choose_backends(registry, Asked(backends=names, pythons=pythons), header.groups[0].device)
    for backend in header.backends:
        if available.versions[backend.name] != backend.versions:
            raise RecordError(
                f"{header.run_id} was begun with {backend.title} {backend.versions}; "
                f"here is {available.versions[backend.name]}. Start a new self-test."
            )
    return available


def _refuse_another_machine(header: SelfTestHeader, here: Environment) -> None:
    if not header.environment.same_machine(here):
        raise RecordError(
            f"{header.run_id} was begun on another machine ({header.environment.in_words()}); "
            f"this is {here.in_words()}. Figures of two machines do not mix: start a new self-test."
        )


class Collector:
    """Measures the blocks that are not there yet, group by group, and appends each as it ends."""

    def __init__(
        self,
        so_far: SelfTest,
        *,
        infos: Mapping[str, BackendInfo],
        pythons: Mapping[str, Path],
        sources: Mapping[str, DataSource],
        display: Display,
    ) -> None:
        self._folder, self._header = so_far.folder, so_far.header
        self._infos, self._pythons, self._sources = infos, pythons, sources
        self._display = display
        self._walls: dict[Cell, list[float]] = {}
        self._window_steps: dict[Cell, int] = {}
        self._done: set[tuple[int, int]] = set()
        for block in so_far.blocks:
            self._note(block)
        self._given_up: set[Cell] = set()
        self._begun = time.monotonic() - sum(block.wall_s for block in so_far.blocks)

    def run(self) -> None:
        groups, blocks = len(self._header.groups), self._header.blocks
        self._display.say(
            f"{groups} groups of {blocks} blocks, {len(SIDES)} processes each that take turns of "
            f"{self._header.window_s:g} s: about {duration(self._left_s())}"
        )
        for group, cell in enumerate(self._header.groups):
            for block in range(blocks):
                if (group, block) not in self._done and cell not in self._given_up:
                    self._show(f"group {group + 1} of {groups}, {cell}, block {block + 1} of {blocks}")
                    self._measure(group, block, cell)

    def _measure(self, group: int, block: int, cell: Cell) -> None:
        started_at, began = datetime.now(UTC).isoformat(), time.monotonic()
        # Every side stands in every place equally often, so that who starts first is nobody's advantage.
        sides = [SIDES[place] for place in balanced_order(len(SIDES), group + block)]
        jobs = [self._job(group, block, place, cell, side) for place, side in enumerate(sides)]
        outcome = turns.run_block(jobs, on_event=self._follow(len(jobs)), together=True)
        record = SelfTestBlock(
            group=group,
            block=block,
            started_at=started_at,
            wall_s=time.monotonic() - began,
            rounds=outcome.rounds,
            conditions=outcome.conditions,
            sides=tuple(
                _side_record(side, job, ended)
                for side, job, ended in zip(sides, jobs, outcome.outcomes, strict=True)
            ),
        )
        append_block(self._folder, record)
        self._note(record)
        for side in record.sides:
            if side.status != "ok":
                self._display.say(f"  {cell}, {side.side}: {side.status}: {side.error}")
        if not any(side.windows for side in record.sides):
            self._display.say(f"  {cell}: no process trained at all; it is not tried again")
            self._given_up.add(cell)

    def _job(self, group: int, block: int, place: int, cell: Cell, side: Side) -> BlockJob:
        info = self._infos[cell.backend]
        spec = JobSpec(
            job_id=f"{cell.workload}.{cell.backend}.{cell.mode}.{group}.{block}.{place}",
            cell=cell,
            workload=self._header.workload(cell),
            seed=group * self._header.blocks + block,
            block=block,
            position=place,
            hash_seed=secrets.randbits(32),
            windows=self._header.windows,
            window_s=self._header.window_s,
            epochs=0.0,
            time_limit_s=TIME_LIMIT_S,
        )
        task = MeasureTask(backend=info, data=self._sources[cell.workload], spec=spec, slowdown=side.injected)
        return BlockJob(
            task=task, python=interpreter(info, self._pythons), window_steps=self._window_steps.get(cell)
        )

    # Progress

    def _follow(self, jobs: int) -> Callable[[int, Event], None]:
        ready, timed = 0, 0
        turns = jobs * self._header.windows

        def follow(_place: int, event: Event) -> None:
            nonlocal ready, timed
            match event:
                case Ready():
                    ready += 1
                    self._display.job(f"{ready} of {jobs} processes are warmed up", ready / jobs)
                case Timed():
                    timed += 1
                    self._display.job(f"turn {timed} of {max(timed, turns)}", min(1.0, timed / turns))

        return follow

    def _note(self, block: SelfTestBlock) -> None:
        self._done.add((block.group, block.block))
        for side in block.sides:
            if side.windows:
                self._window_steps.setdefault(self._header.groups[block.group], side.windows[0].steps)
        self._walls.setdefault(self._header.groups[block.group], []).append(block.wall_s)

    def _show(self, text: str) -> None:
        passed_s, left_s = time.monotonic() - self._begun, self._left_s()
        self._display.overall(text, passed_s / (passed_s + left_s), left_s)

    def _left_s(self) -> float:
        return sum(
            self._expected_s(cell)
            for group, cell in enumerate(self._header.groups)
            for block in range(self._header.blocks)
            if (group, block) not in self._done and cell not in self._given_up
        )

    def _expected_s(self, cell: Cell) -> float:
        """Return what a block of a cell takes, by its own blocks, else by any, else by a guess."""
        walls = self._walls.get(cell) or [wall for walls in self._walls.values() for wall in walls]
        # Two processes start at a time.
        guess_s = len(SIDES) * (START_GUESS_S / 2 + self._header.windows * self._header.window_s)
        return fmean(walls) if walls else guess_s


def _side_record(side: Side, job: BlockJob, outcome: Outcome) -> SideRecord:
    windows: Sequence[Timing] = [
        Timing(window.steps, window.samples, window.seconds, window.round_steal)
        for window in (event.window for event in outcome.events if isinstance(event, Timed))
    ]
    return SideRecord(
        side=side.name,
        injected=side.injected,
        hash_seed=job.task.spec.hash_seed,
        status=outcome.status,
        error=outcome.error,
        windows=tuple(windows),
    )
