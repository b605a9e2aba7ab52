"""Runs over time: a file with a line a run, which a CI job carries along, and the series that it holds.

A line holds the figures that `bench.analysis.summary` derives from a run, because the run itself is not
carried along. Each can be derived again from the run that it names. The file has no header: to append, one
needs nothing but its name.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import msgspec

from bench import store
from bench.analysis.summary import CellSummary, summarise
from bench.errors import BenchError, RecordError, UsageError
from bench.records.runs import HEADER, Run, read_run
from bench.records.schema import RunHeader
from bench.workloads.specs import Cell

SCHEMA = 1

Measure: TypeAlias = Literal["speed", "first-step", "accuracy", "memory"]

# What no machine can have is refused where it enters, and so are values whose ratio would overflow.
Positive: TypeAlias = Annotated[float, msgspec.Meta(ge=1e-9, le=1e18)]
End: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]
"""Of an interval, which blocks without sense can make as wide as they please."""
Share: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=10**18)]
Moment: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """The machine of a run."""

    key: str
    """Two runs have the same exactly where `Environment.same_machine` holds."""
    words: str
    hostname: str


class Framework(msgspec.Struct, frozen=True, kw_only=True):
    """A backend of a run, and the version of every distribution that it needs."""

    name: str
    title: str
    versions: dict[str, str]


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one cell in a run, as in `CellSummary`; None where not measured."""

    cell: Cell
    ranked: bool
    counts: bool
    """Whether it has what a ranking needs: it is ranked, or is not only for being the reference or because
    its framework's own defaults are not the same work. No other figure enters a series."""
    why_not: str | None
    """Why the row is not ranked; None if it is."""
    samples_per_s: Positive | None
    samples_per_s_low: End | None
    """Where the 95 % interval begins; None below three blocks, as its end is."""
    samples_per_s_high: End | None
    blocks: Count
    first_step_s: Positive | None
    epochs: Positive | None
    """Epochs after which the accuracy was taken."""
    test_accuracy: Share | None
    trained_jobs: Count
    peak_rss_bytes: Count | None
    peak_device_bytes: Count | None


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the file: one run."""

    schema: int
    run_id: str
    created_at: Moment
    commit: str | None
    dirty: bool | None
    version: str
    """Of this program."""
    machine: Machine
    frameworks: tuple[Framework, ...]
    mark: str | None
    """What sets the run apart from one on the full data sets; such runs make series of their own."""
    cells: tuple[Figures, ...]


class History(msgspec.Struct, frozen=True, kw_only=True):
    """The runs in order of time, each once, and what could not be read."""

    entries: tuple[Entry, ...]
    rejected: tuple[str, ...] = ()
    """Every line or run that is left out, and why."""


# ---- one run


def entry_of(run: Run, host: str | None = None) -> Entry:
    """Return the line of a run; `host` stands in for the machine's own name where one is given."""
    header = run.header
    environment = header.environment
    if host is not None:
        environment = msgspec.structs.replace(environment, hostname=host)
    summary = summarise(run)
    entry = Entry(
        schema=SCHEMA,
        run_id=header.run_id,
        created_at=_moment(header),
        commit=environment.commit,
        dirty=environment.dirty,
        version=environment.version,
        machine=Machine(key=environment.key(), words=environment.in_words(), hostname=environment.hostname),
        frameworks=tuple(
            Framework(name=backend.name, title=backend.title, versions=backend.versions)
            for backend in header.backends
        ),
        mark=summary.mark,
        cells=tuple(_figures(row) for row in summary.cells),
    )
    try:
        return msgspec.convert(msgspec.to_builtins(entry), Entry)  # its constructor asks nothing of a figure
    except msgspec.ValidationError as error:
        raise RecordError(f"run {header.run_id!r} has a figure that no machine can have: {error}") from error


def _moment(header: RunHeader) -> datetime:
    try:
        created = datetime.fromisoformat(header.created_at)
        return (created if created.tzinfo else created.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise RecordError(
            f"run {header.run_id!r} was begun at {header.created_at!r}, which is no date; "
            "mend created_at in its run.json."
        ) from error


def _figures(row: CellSummary) -> Figures:
    return Figures(
        cell=row.cell,
        ranked=row.ranked,
        counts=row.ranked or (row.measured and (row.reference or not row.matched)),
        why_not=row.why_not,
        samples_per_s=row.samples_per_s,
        samples_per_s_low=row.samples_per_s_low,
        samples_per_s_high=row.samples_per_s_high,
        blocks=row.blocks,
        first_step_s=row.first_step_s,
        epochs=row.epochs,
        test_accuracy=row.test_accuracy,
        trained_jobs=row.trained_jobs,
        peak_rss_bytes=row.peak_rss_bytes,
        peak_device_bytes=row.peak_device_bytes,
    )


# ---- the file, and folders of runs


def add(path: Path, entry: Entry) -> bool:
    """Append a run to the file, made where there is none; return False where the file has it already."""
    known = read_file(path)
    if not known.entries and known.rejected and not _looks_like_one(path):
        raise UsageError(
            f"{path} is no history: none of its lines is a run. Name another file with --history."
        )
    if any(before.run_id == entry.run_id for before in known.entries):
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordError(
            f"cannot make {path.parent}: {error.strerror}. Name another file with --history."
        ) from error
    store.append(path, entry)
    return True


def read(where: Path) -> History:
    """Return the history in a file, in a folder of runs, or of the one run whose folder it is."""
    if where.is_dir():
        return read_folder(where)
    if not where.exists():
        raise UsageError(
            f"there is no {where}. Name a file that bench history add wrote, or a folder of runs."
        )
    return read_file(where)


def read_file(path: Path) -> History:
    """Return what a file holds, nothing where there is none; a line that cannot be read is named."""
    entries: list[Entry] = []
    rejected: list[str] = []
    try:
        for number, line in store.lines(path):
            try:
                entries.append(_decode(line))
            except msgspec.DecodeError as error:
                rejected.append(f"{path.name} line {number}: {error}")
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}. Name another file.") from error
    return _in_order(entries, rejected)


def read_folder(folder: Path) -> History:
    """Return the history that the runs in a folder make; one that cannot be read is named."""
    entries: list[Entry] = []
    rejected: list[str] = []
    own = folder / HEADER
    for header in [own] if own.is_file() else sorted(folder.glob(f"*/{HEADER}")):
        try:
            run = read_run(header.parent)
            entries.append(entry_of(run))
        except BenchError as error:
            rejected.append(str(error))
            continue
        rejected += [f"{header.parent.name}/{line}" for line in run.rejected]
    return _in_order(entries, rejected)


class _Schema(msgspec.Struct):
    """As much of a line as tells whether the rest can be read."""

    schema: int


def _decode(line: bytes) -> Entry:
    found = msgspec.json.decode(line, type=_Schema).schema
    if found != SCHEMA:
        raise msgspec.DecodeError(f"it is of schema {found}; this version reads schema {SCHEMA}")
    return msgspec.json.decode(line, type=Entry)


def _looks_like_one(path: Path) -> bool:
    """Whether a file without a whole line may be a history, cut off while its first line was written."""
    begun = b'{"schema":'
    start = path.read_bytes()[: len(begun)]
    return start == begun[: len(start)]


def _in_order(entries: Iterable[Entry], rejected: Sequence[str]) -> History:
    once: dict[str, Entry] = {}
    for entry in entries:
        once.setdefault(entry.run_id, entry)
    ordered = sorted(once.values(), key=lambda entry: (entry.created_at, entry.run_id))
    return History(entries=tuple(ordered), rejected=tuple(rejected))


# ---- series
