"""The file of a history: one line for each run, which a CI job carries from run to run.

A line holds values that `bench.analysis.summary` derives from a run, because the run itself is not carried
along. Each value can be derived again from the run that the line names. The file has no header, so a program
can append to it without reading it.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import msgspec

from bench import store
from bench.analysis.summary import CellSummary, summarise
from bench.errors import BenchError, RecordError, UsageError, WriteError
from bench.paths import refusal
from bench.records.runs import HEADER, Run, read_run
from bench.records.schema import RunHeader
from bench.workloads.specs import Cell

SCHEMA = 1

MetricName: TypeAlias = Literal["speed", "first-step", "accuracy", "memory"]

# The bounds exclude impossible values, and values whose ratio would overflow.
_Positive: TypeAlias = Annotated[float, msgspec.Meta(ge=1e-9, le=1e18)]
_End: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]
"""An end of an interval. It has no upper bound: a few blocks that scatter a lot give an enormous interval."""
_Share: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=10**18)]
_Moment: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """The machine of a run."""

    key: str
    """Two runs have the same key if and only if `Environment.same_machine` is true."""
    words: str
    """Processor, memory and GPUs in words, for a heading."""
    hostname: str


class Framework(msgspec.Struct, frozen=True, kw_only=True):
    """A backend of a run, and the version of every distribution that it needs."""

    name: str
    title: str
    versions: dict[str, str]


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """The values of one row in a run, as in `CellSummary`; None means not measured."""

    cell: Cell
    ranked: bool
    counts: bool
    """Whether the values enter a time series: the row is ranked, or only its kind (the reference, a
    framework's own defaults) keeps it from being ranked."""
    why_not: str | None
    """Why the row is not ranked; None if it is."""
    samples_per_s: _Positive | None
    samples_per_s_low: _End | None
    """Lower end of the 95 % interval; None below three blocks, like the upper end."""
    samples_per_s_high: _End | None
    blocks: _Count
    first_step_s: _Positive | None
    epochs: _Positive | None
    """Epochs after which the accuracy was taken."""
    test_accuracy: _Share | None
    trained_jobs: _Count
    peak_rss_bytes: _Count | None
    peak_device_bytes: _Count | None


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the file: one run."""

    schema: int
    run_id: str
    created_at: _Moment
    commit: str | None
    dirty: bool | None
    version: str
    """Version of this program."""
    machine: Machine
    frameworks: tuple[Framework, ...]
    mark: str | None
    """What distinguishes the run from one on the full data sets. Marked runs have time series of their
    own."""
    cells: tuple[Figures, ...]


class History(msgspec.Struct, frozen=True, kw_only=True):
    """The runs in order of time, each once, and what could not be read."""

    entries: tuple[Entry, ...]
    rejected: tuple[str, ...] = ()
    """Every line or run that is left out, and why."""


# ---- one run


def entry_of(run: Run, host: str | None = None) -> Entry:
    """Return the line of a run; `host`, if given, replaces the machine's own name and the UUID of its GPU.

    Raise RecordError if a value of the run is impossible.
    """
    header = run.header
    environment = header.environment
    if host is not None:
        gpu = environment.gpu and msgspec.structs.replace(environment.gpu, uuid=None)
        environment = msgspec.structs.replace(environment, hostname=host, gpu=gpu)
    summary = summarise(run)
    entry = Entry(
        schema=SCHEMA,
        run_id=header.run_id,
        created_at=_created_at(header),
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
        # msgspec checks the bounds when it converts, not in the constructor.
        return msgspec.convert(msgspec.to_builtins(entry), Entry)
    except msgspec.ValidationError as error:
        raise RecordError(f"run {header.run_id!r} has an impossible value: {error}") from error


def _created_at(header: RunHeader) -> datetime:
    try:
        created = datetime.fromisoformat(header.created_at)
        return (created if created.tzinfo else created.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise RecordError(
            f"run {header.run_id!r} has the start time {header.created_at!r}, which is not a date. "
            "Correct created_at in its run.json."
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
    """Append a run to the file, which is created if missing; return False if the file already has the run."""
    known = read_file(path)
    if not known.entries and known.rejected and not _is_cut_off(path):
        raise UsageError(
            f"{path} is not a history: none of its lines is a run. Name another file with --history."
        )
    if any(before.run_id == entry.run_id for before in known.entries):
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(
            f"cannot make {path.parent}: {refusal(error, path)}. Name another file with --history."
        ) from error
    store.append(path, entry)
    return True


def read(where: Path) -> History:
    """Return the history in a file, in a folder of runs, or in the folder of a single run."""
    if where.is_dir():
        return read_folder(where)
    if not where.exists():
        raise UsageError(
            f"there is no {where}. Name a file that bench history add wrote, or a folder of runs."
        )
    return read_file(where)


def read_file(path: Path) -> History:
    """Return the history in a file: empty if there is no file, and with the unreadable lines listed."""
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
    """Return the history of the runs in a folder, with the unreadable runs listed."""
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
    """The one field that shows whether the rest of a line can be read."""

    schema: int


def _decode(line: bytes) -> Entry:
    found = msgspec.json.decode(line, type=_Schema).schema
    if found != SCHEMA:
        raise msgspec.DecodeError(f"it has schema {found}; this version reads schema {SCHEMA}")
    return msgspec.json.decode(line, type=Entry)


def _is_cut_off(path: Path) -> bool:
    """Whether a file without a complete line may be a history whose first line was cut off."""
    beginning = b'{"schema":'
    start = store.without_mark(path.read_bytes())[: len(beginning)]
    return start == beginning[: len(start)]


def _in_order(entries: Iterable[Entry], rejected: Sequence[str]) -> History:
    once: dict[str, Entry] = {}
    for entry in entries:
        once.setdefault(entry.run_id, entry)
    ordered = sorted(once.values(), key=lambda entry: (entry.created_at, entry.run_id))
    return History(entries=tuple(ordered), rejected=tuple(rejected))
