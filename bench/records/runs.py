"""Run folders: create one, append records so that a crash loses at most one, and read them back."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bench import store
from bench.errors import UsageError, unknown
from bench.paths import expanded
from bench.records.schema import (
    SCHEMA,
    BlockRecord,
    JobRecord,
    LessonsRecord,
    ParityRecord,
    Record,
    RunHeader,
    UnmeasuredRecord,
)

HEADER = "run.json"
RECORDS = "records.jsonl"
QUARANTINE = "records.quarantined"


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run as read from its folder; `rejected` names every line that could not be read, and why."""

    folder: Path
    header: RunHeader
    records: tuple[Record, ...]
    rejected: tuple[str, ...] = ()

    @property
    def jobs(self) -> tuple[JobRecord, ...]:
        """The jobs of the cells, without those of the placebo."""
        return tuple(one for one in self.records if isinstance(one, JobRecord) and not one.spec.copy)

    @property
    def copies(self) -> tuple[JobRecord, ...]:
        """The jobs of the placebo."""
        return tuple(one for one in self.records if isinstance(one, JobRecord) and one.spec.copy)

    @property
    def blocks(self) -> tuple[BlockRecord, ...]:
        return tuple(record for record in self.records if isinstance(record, BlockRecord))

    @property
    def parity(self) -> tuple[ParityRecord, ...]:
        return tuple(record for record in self.records if isinstance(record, ParityRecord))

    @property
    def unmeasured(self) -> tuple[UnmeasuredRecord, ...]:
        return tuple(record for record in self.records if isinstance(record, UnmeasuredRecord))

    @property
    def lessons(self) -> tuple[LessonsRecord, ...]:
        return tuple(record for record in self.records if isinstance(record, LessonsRecord))


def create_run(results: Path, header: RunHeader) -> Path:
    """Make the run's folder and write its header; raise RecordError where that cannot be done."""
    return store.create(results / header.run_id, HEADER, header)


def append_record(folder: Path, record: Record) -> None:
    """Append one record and return only when it is on disk."""
    store.append(folder / RECORDS, record)


def read_run(folder: Path) -> Run:
    """Read a run; a line that is cut off or not a record is left out and named in `rejected`."""
    missing = f"{folder} is not a run: it has no {HEADER}. (bench report shows the newest run)"
    header = store.read_header(folder / HEADER, RunHeader, SCHEMA, missing=missing)
    records, rejected = store.read_records(folder / RECORDS, Record)
    return Run(folder=folder, header=header, records=records, rejected=rejected)


def quarantine_rejected(folder: Path) -> tuple[str, ...]:
    """Move unreadable lines to another file, so that appending is safe; return what is wrong with them."""
    run = read_run(folder)
    lines = [line for _, line in store.lines(folder / RECORDS)]
    if run.rejected:
        kept, bad = [], []
        for line in lines:
            try:
                msgspec.json.decode(line, type=Record)
                kept.append(line)
            except msgspec.DecodeError:
                bad.append(line)
        for line in bad:
            store.append_line(folder / QUARANTINE, line)
        store.replace_lines(folder / RECORDS, kept)
    elif lines and not store.content(folder / RECORDS).endswith(b"\n"):  # cut off right before the newline
        store.replace_lines(folder / RECORDS, lines)
    return run.rejected


def find_run(results: Path, name: str | None) -> Path:
    """Return the folder of the run of that name or path, or of the newest run where none is named."""
    runs = sorted(
        (path.parent for path in results.glob(f"*/{HEADER}")),
        key=lambda folder: (_created(folder), folder.name),
    )
    if name is None:
        if not runs:
            raise UsageError(f"no run in {results} yet. Make one with: bench run")
        return runs[-1]
    for candidate in (results / name, expanded(name)):
        if (candidate / HEADER).is_file():
            return candidate
    raise unknown("run", name, [folder.name for folder in runs], f"looked in {results}")


class _Created(msgspec.Struct):
    """The part of a header that says when the run began."""

    created_at: str


def _created(folder: Path) -> datetime:
    """Return when a run began, by its header, because a checkout by git gives every file the same age.

    A header that cannot be read makes a run the oldest; reading the run then says what is wrong with it.
    """
    try:
        header = store.without_mark((folder / HEADER).read_bytes())
        created = msgspec.json.decode(header, type=_Created).created_at
        return datetime.fromisoformat(created).astimezone(UTC)
    except (OSError, ValueError):
        return datetime.min.replace(tzinfo=UTC)
