"""The records of a self-test: what was measured, on which machine, and the windows of every block.

A self-test is a folder: `selftest.json` (a `SelfTestHeader`, written once) and `blocks.jsonl` (one
`SelfTestBlock` a line, appended and fsynced as each block ends).
"""

from pathlib import Path

import msgspec

from bench import store
from bench.machine.conditions import Conditions
from bench.machine.environment import Environment
from bench.records.schema import LEAD_S, SCHEMA, BackendHere, Status
from bench.workloads.specs import Cell, Workload

HEADER = "selftest.json"
BLOCKS = "blocks.jsonl"


class SelfTestSide(msgspec.Struct, frozen=True, kw_only=True):
    """One of the processes of a block. All train the same cell; some are slowed."""

    name: str
    injected: float | None
    """Share by which a wrapper makes training take longer; None: there is no wrapper."""


SIDES = (
    SelfTestSide(name="A", injected=None),
    SelfTestSide(name="B", injected=None),
    SelfTestSide(name="C", injected=0.0),
    SelfTestSide(name="slower by 3 %", injected=0.03),
    SelfTestSide(name="slower by 5 %", injected=0.05),
    SelfTestSide(name="slower by 10 %", injected=0.10),
)
TRIALS = (("A", "B"), ("A", "C"), ("B", "slower by 3 %"), ("C", "slower by 5 %"), ("B", "slower by 10 %"))
"""The pairs of sides that are compared; the slower one is the second."""


class Timing(msgspec.Struct, frozen=True, array_like=True):
    """A window as a row of five numbers, which are those of `bench.records.schema.Window`."""

    steps: int
    samples: int
    seconds: float
    round_steal: float | None = None
    round_foreign: float | None = None


class SideRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What one process of a block did."""

    side: str
    injected: float | None
    hash_seed: int
    status: Status
    error: str | None
    windows: tuple[Timing, ...]
    """Window k of every side of a block comes from round k, if the sides took turns."""


class SelfTestBlock(msgspec.Struct, frozen=True, kw_only=True):
    """A block: a process of every side, which take turns."""

    schema: int = SCHEMA
    group: int
    block: int
    started_at: str
    """UTC, ISO 8601."""
    wall_s: float
    """From starting the first process to the end of the last."""
    rounds: int
    in_turns: bool = True
    """Whether the jobs took turns; else each ran alone, one after another, and `rounds` is their sum."""
    conditions: Conditions
    sides: tuple[SideRecord, ...]
    """In the order in which the processes were started."""


class SelfTestHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for, with which backends, and on which machine."""

    schema: int = SCHEMA
    run_id: str
    created_at: str
    command: tuple[str, ...]
    groups: tuple[Cell, ...]
    """The cell that each group of comparisons trains."""
    blocks: int
    """Blocks of a group."""
    windows: int
    """Timed windows at least; up to twice as many are taken while a rate has not settled."""
    window_s: float
    lead_s: float = LEAD_S
    """Seconds of training before each window that do not count."""
    workloads: tuple[Workload, ...]
    backends: tuple[BackendHere, ...]
    environment: Environment

    def workload(self, cell: Cell) -> Workload:
        return next(workload for workload in self.workloads if workload.name == cell.workload)


class SelfTest(msgspec.Struct, frozen=True, kw_only=True):
    """A self-test as read from its folder; `rejected` names every line that could not be read, and why."""

    folder: Path
    header: SelfTestHeader
    blocks: tuple[SelfTestBlock, ...]
    rejected: tuple[str, ...] = ()


def create_selftest(results: Path, header: SelfTestHeader) -> Path:
    """Make the folder of a self-test and write its header; raise RecordError where that cannot be done."""
    return store.create(results / header.run_id, HEADER, header)


def append_block(folder: Path, block: SelfTestBlock) -> None:
    """Append one block and return only when it is on disk."""
    store.append(folder / BLOCKS, block)


def read_selftest(folder: Path) -> SelfTest:
    """Read a self-test; a line that is cut off or is not a block is left out and named in `rejected`."""
    missing = f"{folder} is not a self-test: it has no {HEADER}."
    header = store.read_header(folder / HEADER, SelfTestHeader, SCHEMA, missing=missing)
    blocks, rejected = store.read_records(folder / BLOCKS, SelfTestBlock)
    return SelfTest(folder=folder, header=header, blocks=blocks, rejected=rejected)


def find_selftest(results: Path, name: str) -> Path:
    """Return the folder of the self-test of that name or path; raise UsageError where there is none."""
    return store.find(results, name, HEADER, "self-test")
