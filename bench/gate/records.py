"""The records of a comparison side by side: what was asked, what the sides are, every job of every block.

A comparison is a folder: `ab.json` (an `AbHeader`, written once) and `blocks.jsonl` (an `AbBlock` or an
`AbParity` a line, appended and fsynced as it ends). `bench.gate.judge` derives the verdicts.
"""

from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from bench import store
from bench.gate.sides import SideHere, SideName
from bench.machine.conditions import Conditions
from bench.machine.environment import Environment
from bench.records.schema import SCHEMA, JobRecord, ParityRecord
from bench.workloads.specs import Cell

HEADER = "ab.json"
BLOCKS = "blocks.jsonl"

ONLY_IN_BASE, ONLY_IN_HEAD = "only in base", "only in head"

Series: TypeAlias = Literal["first", "second"]
"""The second series is measured only for cells that the first found worse, and is judged by itself."""


class AbHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for, which sides it compares, and on which machine."""

    schema: int = SCHEMA
    run_id: str
    created_at: str
    command: tuple[str, ...]
    budget_s: float
    first_blocks: int
    """Blocks of a cell before it is judged for the first time."""
    most_blocks: int
    """Blocks of a series after which an undecided cell is not measured further."""
    confirm_blocks: int
    """Blocks of the second series before it is judged for the first time."""
    windows: int
    window_s: float
    sample: bool
    """Whether the shipped samples were used in place of the data sets."""
    parity_of_base: bool = False
    """Whether base is compared with the reference as head is. In older comparisons it was only where head
    failed."""
    cells: tuple[Cell, ...]
    """The cells that both sides have."""
    missing: dict[str, str]
    """The cells and backends that one side does not have, by name, with the reason."""
    base: SideHere
    head: SideHere
    environment: Environment

    def side(self, name: SideName) -> SideHere:
        return self.base if name == "base" else self.head


class AbBlock(msgspec.Struct, frozen=True, kw_only=True, tag="block", tag_field="record"):
    """A block of one cell: a process of each side, which take turns."""

    schema: int = SCHEMA
    series: Series
    block: int
    cell: Cell
    started_at: str
    wall_s: float
    rounds: int
    in_turns: bool = True
    """Whether the jobs took turns; else each ran alone, one after another, and `rounds` is their sum."""
    first: SideName
    """The side whose process was started first."""
    conditions: Conditions
    base: JobRecord
    head: JobRecord

    def job(self, side: SideName) -> JobRecord:
        return self.base if side == "base" else self.head


class AbParity(msgspec.Struct, frozen=True, kw_only=True, tag="parity", tag_field="record"):
    """Whether a cell of a side computes what the reference computes."""

    side: SideName
    parity: ParityRecord


AbRecord: TypeAlias = AbBlock | AbParity


class Ab(msgspec.Struct, frozen=True, kw_only=True):
    """A comparison as read from its folder; `rejected` names every line that could not be read, and why."""

    folder: Path
    header: AbHeader
    records: tuple[AbRecord, ...] = ()
    rejected: tuple[str, ...] = ()

    @property
    def blocks(self) -> tuple[AbBlock, ...]:
        return tuple(record for record in self.records if isinstance(record, AbBlock))

    @property
    def parity(self) -> tuple[AbParity, ...]:
        return tuple(record for record in self.records if isinstance(record, AbParity))

    def blocks_of(self, cell: Cell, series: Series) -> list[AbBlock]:
        return [block for block in self.blocks if (block.cell, block.series) == (cell, series)]


def create_ab(results: Path, header: AbHeader) -> Path:
    """Make the folder of a comparison and write its header; raise RecordError where that cannot be done."""
    return store.create(results / header.run_id, HEADER, header)


def append_ab(folder: Path, record: AbRecord) -> None:
    """Append one record and return only when it is on disk."""
    store.append(folder / BLOCKS, record)


def read_ab(folder: Path) -> Ab:
    """Read a comparison; a line that is cut off or is not a record is left out and named in `rejected`."""
    missing = f"{folder} is not a comparison side by side: it has no {HEADER}."
    header = store.read_header(folder / HEADER, AbHeader, SCHEMA, missing=missing)
    records, rejected = store.read_records(folder / BLOCKS, AbRecord)
    return Ab(folder=folder, header=header, records=records, rejected=rejected)


def find_ab(results: Path, name: str) -> Path:
    """Return the folder of the comparison of that name or path; raise UsageError where there is none."""
    return store.find(results, name, HEADER, "comparison")
