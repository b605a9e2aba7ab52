"""Measure a self-test: the same training compared with itself, and with itself made slower.

A group is one cell and several blocks; a block has a process for every side (`SIDES`), and all of them take
turns as the jobs of a run do. What comes of it is derived from the raw file by `bench.selftest.calibration`.
"""

import secrets
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path
from statistics import fmean

import msgspec

from backends.info import BackendInfo
from bench import store
from bench.errors import RecordError
from bench.machine.environment import Environment, capture_environment, commit_notes
from bench.measuring.backends import Registry, find_backends, interpreter
from bench.measuring.block_runner import BlockRunner, Seat
from bench.measuring.data import prepare_data
from bench.measuring.design import LEAD_S, WINDOW_S, WINDOWS, balanced_order
from bench.measuring.selection import (
    Asked,
    Available,
    backend_here,
    choose_again,
    choose_backends,
    choose_device,
    chosen_cells,
)
from bench.progress import Display
from bench.records.schema import JobRecord, JobSpec, fault_in_words
from bench.selftest.records import (
    SIDES,
    SelfTest,
    SelfTestBlock,
    SelfTestHeader,
    SelfTestSide,
    SideRecord,
    Timing,
    append_block,
    create_selftest,
    find_selftest,
    read_selftest,
)
from bench.text import duration
from bench.worker.protocol import DataSource, MeasureTask
from bench.workloads.catalog import find_workload
from bench.workloads.specs import Cell

WORKLOADS = ("mnist-softmax", "mnist-mlp", "mnist-cnn")
"""The default workloads, with steps of a tenth of a millisecond, of one or two, and of 50."""
START_GUESS_S = 5.0
"""Expected time until a process is warmed up, before any has been."""
TIME_LIMIT_S = 300.0
"""A process that works longer than this is stopped; waiting for its turn does not count."""


class SelfTestPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a self-test measures, and how much of it."""

    asked: Asked
    comparisons: int = 20
    """Groups: each gives two comparisons of equals, and one with every slowdown."""
    blocks: int = 10
    windows: int = WINDOWS
    """As many as in a run."""
    window_s: float = WINDOW_S


def measure(
    plan: SelfTestPlan, *, results: Path, cache: Path, resume: str | None, offline: bool, display: Display
) -> SelfTest:
    """Measure all that was asked for, or continue a self-test, and return it as read from its file.

    KeyboardInterrupt is raised again, after a message that says how to continue. Every finished block is on
    disk by then.
    """
    registry = find_backends()
    begun = None if resume is None else read_selftest(find_selftest(results, resume))
    if begun is None:
        available, header = _new_header(registry, plan)
    else:
        header = begun.header
        available = _backends_again(registry, header, plan.asked.pythons)
    splits = prepare_data(
        header.workloads, cache=cache, sample=False, limit=None, offline=offline, display=display
    )
    folder = create_selftest(results, header) if begun is None else begun.folder
    display.say(f"Self-test {header.run_id} on {header.environment.in_words()}")
    if threads := header.environment.threads_in_words():
        display.say(f"Threads: {threads}")
    for note in commit_notes(header.environment):
        display.say(note)
    again = f"Go on with: bench selftest --resume {store.name_of(folder)}"
    try:
        with store.resumable(again):
            Collector(
                SelfTest(folder=folder, header=header, blocks=begun.blocks if begun else ()),
                infos=available.infos,
                pythons=plan.asked.pythons,
                sources={name: split.source for name, split in splits.items()},
                display=display,
            ).run()
    except KeyboardInterrupt:
        display.say("Interrupted; all finished blocks are kept.")
        display.say(again)
        raise
    return read_selftest(folder)


def _new_header(registry: Registry, plan: SelfTestPlan) -> tuple[Available, SelfTestHeader]:
    asked = msgspec.structs.replace(plan.asked, workloads=plan.asked.workloads or WORKLOADS)
    device = choose_device(asked.device, asked.gpu)
    available = choose_backends(registry, asked, device)
    cells = [
        cell
        for cell in chosen_cells(asked, available, device, "default")
        if cell.backend not in available.unavailable
    ]
    used = {cell.backend for cell in cells}
    now = datetime.now(UTC)
    header = SelfTestHeader(
        run_id=f"selftest-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}",
        created_at=now.isoformat(timespec="seconds"),
        command=("bench", *sys.argv[1:]),
        groups=tuple(islice(cycle(cells), plan.comparisons)),
        blocks=plan.blocks,
        windows=plan.windows,
        window_s=plan.window_s,
        lead_s=LEAD_S,
        workloads=tuple(find_workload(name) for name in dict.fromkeys(cell.workload for cell in cells)),
        backends=tuple(
            backend_here(info, available.versions[info.name])
            for info in available.infos.values()
            if info.name in used
        ),
        environment=capture_environment(device),
    )
    return available, header


def _backends_again(registry: Registry, header: SelfTestHeader, pythons: Mapping[str, Path]) -> Available:
    """Return the backends a self-test was begun with; raise RecordError where they or the machine changed."""
    device = header.groups[0].device
    choose_again(device, header.environment)
    _refuse_another_machine(header, capture_environment(device))
    names = tuple(backend.name for backend in header.backends)
    available = choose_backends(registry, Asked(backends=names, pythons=pythons), device)
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
    if changed := header.environment.changed_variables(here):
        raise RecordError(
            f"{header.run_id} was begun with other environment variables: {'; '.join(changed)}. "
            "Set them as they were, or start a new self-test."
        )


class Collector:
    """Measures the missing blocks, group by group, and records each as it ends."""

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
        self._done: set[tuple[int, int]] = set()
        steps: dict[Cell, int] = {}
        for block in so_far.blocks:
            self._note(block)
            for side in block.sides:
                if side.windows:
                    steps.setdefault(self._header.groups[block.group], side.windows[0].steps)
        self._blocks = BlockRunner(display, steps)
        self._given_up: set[Cell] = set()
        self._begun = time.monotonic() - sum(block.wall_s for block in so_far.blocks)

    def run(self) -> None:
        groups, blocks = len(self._header.groups), self._header.blocks
        self._display.say(
            f"{groups} groups of {blocks} blocks, {len(SIDES)} processes each that take turns of "
            f"{self._header.window_s:g} s: about {duration(self._left_s())}"
        )
        with self._blocks:
            for group, cell in enumerate(self._header.groups):
                for block in range(blocks):
                    if (group, block) not in self._done and cell not in self._given_up:
                        self._show(f"group {group + 1} of {groups}, {cell}, block {block + 1} of {blocks}")
                        self._measure(group, block, cell)

    def _measure(self, group: int, block: int, cell: Cell) -> None:
        # Every side is in every place equally often, so that no side profits from starting first.
        sides = [SIDES[place] for place in balanced_order(len(SIDES), group + block)]
        seats = [self._seat(group, block, place, cell, side) for place, side in enumerate(sides)]
        measured = self._blocks.run(seats, together=True)
        record = SelfTestBlock(
            group=group,
            block=block,
            started_at=measured.started_at,
            wall_s=measured.wall_s,
            rounds=measured.rounds,
            in_turns=measured.in_turns,
            conditions=measured.conditions,
            sides=tuple(_side_record(*one) for one in zip(sides, measured.records, strict=True)),
        )
        append_block(self._folder, record)
        self._note(record)
        for side in record.sides:
            if side.status != "ok":
                self._display.say(f"  {cell}, {side.side}: {fault_in_words(side.status, side.error)}")
        if not any(side.windows for side in record.sides):
            self._display.say(f"  {cell}: no process trained at all; it is not tried again")
            self._given_up.add(cell)

    def _seat(self, group: int, block: int, place: int, cell: Cell, side: SelfTestSide) -> Seat:
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
            lead_s=self._header.lead_s,
            epochs=0.0,
            time_limit_s=TIME_LIMIT_S,
        )
        task = MeasureTask(backend=info, data=self._sources[cell.workload], spec=spec, slowdown=side.injected)
        return Seat(task=task, python=interpreter(info, self._pythons))

    # Progress

    def _note(self, block: SelfTestBlock) -> None:
        self._done.add((block.group, block.block))
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
        """Return the expected time of a block of a cell, by its own blocks, else by all, else by a guess."""
        walls = self._walls.get(cell) or [wall for walls in self._walls.values() for wall in walls]
        # Two processes start at a time.
        guess_s = len(SIDES) * (START_GUESS_S / 2 + self._header.windows * self._header.window_s)
        return fmean(walls) if walls else guess_s


def _side_record(side: SelfTestSide, job: JobRecord) -> SideRecord:
    return SideRecord(
        side=side.name,
        injected=side.injected,
        hash_seed=job.spec.hash_seed,
        status=job.status,
        error=job.error,
        windows=tuple(
            Timing(one.steps, one.samples, one.seconds, one.round_steal, one.round_foreign)
            for one in job.windows
        ),
    )
