"""What the campaign keeps of itself: `campaign.json`, and a `part.json` in the folder of each part."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

import msgspec

from bench import store
from bench.errors import RecordError, UsageError
from campaign.records import Part
from campaign.state import Cpu, kinds

SCHEMA = 1
HEADER, PART = "campaign.json", "part.json"
FOLDER = Path("results") / "campaign"
_LOCK = ".lock"

Kept = TypeVar("Kept", bound=msgspec.Struct)
PartStatus: TypeAlias = Literal["running", "interrupted", "failed", "done"]


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """One start of a command of a part."""

    number: int
    """Which command of the plan, from 0."""
    command: tuple[str, ...]
    started_at: str
    """UTC, ISO 8601."""
    wall_s: float
    exit_status: int | None
    """None if it was interrupted."""
    fault: str | None = None
    """Why it counts as failed; None if it did its work."""
    last_lines: tuple[str, ...] = ()
    """What a command that failed, or a benchmark, printed last."""


class PartRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A part that was begun."""

    schema: int = SCHEMA
    name: str
    state: str
    """Of the code: see `campaign.state`."""
    commit: str
    plan: str
    """The digest of the part's plan."""
    cpu: Cpu
    started_at: str
    ended_at: str | None = None
    status: PartStatus
    ran: tuple[Ran, ...] = ()

    def did(self, number: int) -> bool:
        """Whether a command of the plan has done its work."""
        return any(one.number == number and one.exit_status is not None and not one.fault for one in self.ran)

    @property
    def minutes(self) -> float:
        """The time that its commands took, all starts together."""
        return sum(one.wall_s for one in self.ran) / 60


class Amendment(msgspec.Struct, frozen=True, kw_only=True):
    """A change of the plan after the campaign began, with its reason. It is published."""

    part: str
    reason: str
    at: str
    commit: str
    before: str
    """The digest of the part's plan, like the next."""
    after: str


class CampaignHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What the first part fixed."""

    schema: int = SCHEMA
    state: str
    method: str
    """The SHA-256 of what measures beside the program: see `campaign.state.METHOD`."""
    commit: str
    began_at: str
    plan: Mapping[str, str]
    """The digest of each part's plan."""
    amendments: tuple[Amendment, ...] = ()

    def planned(self, part: str) -> str | None:
        """Return the digest that holds for a part: that of its last amendment, or of the beginning."""
        changed = [one.after for one in self.amendments if one.part == part]
        return changed[-1] if changed else self.plan.get(part)


def now() -> str:
    """Return the time, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_header(folder: Path) -> CampaignHeader | None:
    """Return what the first part fixed; None before it."""
    return _read(folder / HEADER, CampaignHeader)


def begin(folder: Path, parts: Iterable[Part], *, state: str, method: str, commit: str) -> CampaignHeader:
    """Fix the state and the plan."""
    header = CampaignHeader(
        state=state,
        method=method,
        commit=commit,
        began_at=now(),
        plan={part.name: part.digest for part in parts},
    )
    write_header(folder, header)
    return header


def write_header(folder: Path, header: CampaignHeader) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    store.write_durably(folder / HEADER, msgspec.json.format(store.encoded(header)) + b"\n")


def read_part(folder: Path, name: str) -> PartRecord | None:
    """Return the record of a part; None if it was not begun."""
    return _read(folder / name / PART, PartRecord)


def read_parts(folder: Path, parts: Sequence[Part]) -> dict[str, PartRecord]:
    """Return the records of the parts that were begun, by name."""
    found = ((part.name, read_part(folder, part.name)) for part in parts)
    return {name: record for name, record in found if record is not None}


def read_tries(folder: Path, parts: Sequence[Part]) -> dict[str, PartRecord]:
    """Return the records of earlier tries, which were kept when their parts began again, by folder."""
    names = (path.parent.name for part in parts for path in sorted(folder.glob(f"{part.name}-try-*/{PART}")))
    found = ((name, read_part(folder, name)) for name in names)
    return {name: record for name, record in found if record is not None}


def write_part(folder: Path, record: PartRecord) -> None:
    place = folder / record.name
    place.mkdir(parents=True, exist_ok=True)
    store.write_durably(place / PART, msgspec.json.format(store.encoded(record)) + b"\n")


def refuse_unequal_cpus(records: Iterable[PartRecord]) -> None:
    """Raise RecordError if parts that are to be pooled or compared ran on unequal CPUs."""
    by_cpu: dict[Cpu, list[str]] = {}
    for record in records:
        by_cpu.setdefault(record.cpu, []).append(record.name)
    if len(kinds(by_cpu)) > 1:
        said = "; ".join(f"{', '.join(names)} on {cpu.in_words()}" for cpu, names in by_cpu.items())
        raise RecordError(f"parts of unequal CPUs are neither pooled nor compared: {said}.")


def due_at(part: Part, records: Mapping[str, PartRecord]) -> datetime | None:
    """Return when a part may begin, so many hours after the end of those it keeps apart from.

    None: it waits for one that has not ended.
    """
    ends = []
    for name in part.apart_from:
        record = records.get(name)
        if record is None or record.ended_at is None:
            return None
        ends.append(datetime.fromisoformat(record.ended_at))
    return max(ends, default=datetime.min.replace(tzinfo=UTC)) + timedelta(hours=part.hours)


def missing(part: Part, records: Mapping[str, PartRecord]) -> list[str]:
    """Return the parts that it needs and that are not done."""
    return [name for name in part.needs if name not in records or records[name].status != "done"]


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the campaign's lock; raise UsageError if another process runs a part."""
    import fcntl  # not on Windows

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError("another process runs a part of this campaign. Wait until it ends.") from error
        yield


def _read(path: Path, kind: type[Kept]) -> Kept | None:
    if not path.is_file():
        return None
    return store.read_header(path, kind, SCHEMA, missing="")
