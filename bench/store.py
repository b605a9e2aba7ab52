"""A folder of raw values: a header written once, and a file with a line a record, safe from a crash.

Where a folder lacks the file with the records, they are read from the archive `records.tar.xz` beside the
folder, if that has them: those of many folders are much smaller in one. `tar -xf` puts them into place.
"""

import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from bench.errors import RecordError, UsageError, unknown

ARCHIVE = "records.tar.xz"

H = TypeVar("H", bound=msgspec.Struct)


class _Schema(msgspec.Struct):
    """As much of a header as tells whether the rest can be read."""

    schema: int


def create(folder: Path, name: str, header: msgspec.Struct) -> Path:
    """Make the folder, write its header, and return it; raise RecordError where that cannot be done."""
    try:
        folder.mkdir(parents=True)
        write_durably(folder / name, msgspec.json.format(msgspec.json.encode(header)) + b"\n")
    except OSError as error:
        raise RecordError(
            f"cannot write results to {folder}: {error.strerror}. "
            "Name another folder with --results DIR, or that of a training with --folder DIR."
        ) from error
    return folder


def find(results: Path, name: str, header: str, kind: str) -> Path:
    """Return the folder with such a header that has this name, or path; raise UsageError where none has."""
    for candidate in (results / name, Path(name)):
        if (candidate / header).is_file():
            return candidate
    known = sorted(path.parent.name for path in results.glob(f"*/{header}"))
    raise unknown(kind, name, known, f"looked in {results}")


def append(path: Path, record: msgspec.Struct) -> None:
    """Append a record, on a line of its own even after one cut off, and return only when it is on disk."""
    try:
        if not path.exists() and (before := content(path)):
            write_durably(path, before)  # from the archive
        with path.open("ab+") as file:
            if end := file.seek(0, os.SEEK_END):
                file.seek(end - 1)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(msgspec.json.encode(record) + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise RecordError(
            f"cannot append to {path}: {error.strerror}. What was measured before is kept."
        ) from error


def read_header(path: Path, kind: type[H], schema: int, *, missing: str) -> H:
    """Read a header of that schema; raise UsageError, saying `missing`, where there is no such file."""
    try:
        content = path.read_bytes()
        # First, as a header of another schema has other fields, and would only be said to lack some.
        found = msgspec.json.decode(content, type=_Schema).schema
        header = msgspec.json.decode(content, type=kind) if found == schema else None
    except FileNotFoundError as error:
        raise UsageError(missing) from error
    except (OSError, msgspec.DecodeError) as error:
        raise RecordError(f"cannot read {path}: {error}") from error
    if header is None:
        raise RecordError(
            f"{path.parent} has records of schema {found}; this version reads schema {schema}. "
            "Read it with the version that made it."
        )
    return header


def read_records(path: Path, kind: Any) -> tuple[tuple[Any, ...], tuple[str, ...]]:
    """Return the records of a file, and of every line that is none, which and why."""
    records: list[Any] = []
    rejected: list[str] = []
    for number, line in lines(path):
        try:
            records.append(msgspec.json.decode(line, type=kind))
        except msgspec.DecodeError as error:
            rejected.append(f"{path.name} line {number}: {error}")
    return tuple(records), tuple(rejected)


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the number, from 1, and the bytes of each line that is not empty; none where there is no file."""
    for number, line in enumerate(content(path).split(b"\n"), start=1):
        if line.strip():
            yield number, line


def content(path: Path) -> bytes:
    """Return what a file of records holds, here or in the archive; nothing where it is in neither."""
    if path.exists():
        return path.read_bytes()
    whole = path.resolve()
    return archived(whole.parent.parent / ARCHIVE).get(f"{whole.parent.name}/{whole.name}", b"")


def archived(archive: Path) -> Mapping[str, bytes]:
    """Return what an archive holds, by folder and file; nothing where there is none."""
    return _members(archive, archive.stat().st_mtime_ns) if archive.is_file() else {}


@lru_cache(maxsize=1)
def _members(archive: Path, _changed_ns: int) -> Mapping[str, bytes]:
    """Return every file of an archive, read once for all the folders beside it."""
    import tarfile

    try:
        import lzma  # not every Python is built with it
    except ImportError as error:
        raise RecordError(
            f"this Python cannot read {archive}: it lacks lzma. Unpack it: tar -xf {archive.name}"
        ) from error
    try:
        whole = BytesIO(lzma.decompress(archive.read_bytes()))  # all of it, so that its checksum is tested
        with tarfile.open(fileobj=whole) as packed:
            files = [(member.name, packed.extractfile(member)) for member in packed if member.isfile()]
            return {name: file.read() for name, file in files if file is not None}
    except (OSError, tarfile.TarError, lzma.LZMAError) as error:
        raise RecordError(f"cannot read {archive}: {error}") from error


def write_durably(path: Path, content: bytes) -> None:
    """Replace a file in one step, so that a reader sees the old or the new content and never a part."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
