"""Folders of raw values: a header that is written once, and a file with one record a line.

If a folder lacks the file with the records, they are read from the archive `records.tar.xz` beside the
folder. The records of many folders are much smaller in one archive. `tar -xf` unpacks them to where they
belong.
"""

import codecs
import contextlib
import os
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from io import BytesIO, RawIOBase
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec

from bench.errors import RecordError, UsageError, WriteError, unknown
from bench.paths import expanded, refusal, refused
from bench.text import readable

ARCHIVE = "records.tar.xz"
LAST_READERS: Mapping[int, str] = MappingProxyType({1: "cdcd1c67c1"})
"""For each schema that is not read any more, the last commit of this program that reads it."""

H = TypeVar("H", bound=msgspec.Struct)


class _Schema(msgspec.Struct):
    """The part of a header that says whether the rest can be read."""

    schema: int


def create(folder: Path, name: str, header: msgspec.Struct) -> Path:
    """Make the folder, write its header, and return the folder; raise WriteError if that fails.

    A folder without a header would be no run, so none is left behind.
    """
    made = False
    try:
        folder.mkdir(parents=True)
        made = True
        write_durably(folder / name, msgspec.json.format(encoded(header)) + b"\n")
    except OSError as error:
        if made:
            shutil.rmtree(folder, ignore_errors=True)
        raise WriteError(
            f"cannot write results to {folder}: {refusal(error, folder)}. "
            "Name another folder with --results DIR; for a training, with --folder DIR."
        ) from error
    return folder


def encoded(record: msgspec.Struct) -> bytes:
    r"""Return a record as JSON. A byte of a path that is no text is written as `\xff`."""
    try:
        return msgspec.json.encode(record)
    except UnicodeEncodeError:
        return msgspec.json.encode(_readable(msgspec.to_builtins(record)))


def _readable(value: Any) -> Any:
    """Return a value that `msgspec.to_builtins` made, with every text readable."""
    if isinstance(value, str):
        return readable(value)
    if isinstance(value, dict):
        return {readable(key): _readable(one) for key, one in value.items()}
    return [_readable(one) for one in value] if isinstance(value, list | tuple) else value


def find(results: Path, name: str, header: str, kind: str) -> Path:
    """Return the folder with this name or path that has such a header; raise UsageError if there is none."""
    for candidate in (results / name, expanded(name)):
        if (candidate / header).is_file():
            return candidate
    known = sorted(path.parent.name for path in results.glob(f"*/{header}"))
    raise unknown(kind, name, known, f"looked in {results}")


def name_of(folder: Path) -> str:
    """Return what names a run on the command line: its name, and --results if it is needed."""
    where = "" if folder.parent == Path("results") else f" --results {shlex.quote(str(folder.parent))}"
    return f"{shlex.quote(folder.name)}{where}"


@contextlib.contextmanager
def resumable(how: str) -> Iterator[None]:
    """Add how to go on to an error by which the file system, or standard output, ended the work."""
    try:
        yield
    except WriteError as error:
        raise WriteError(f"{error} {how}") from error
    except OSError as error:
        if not refused(error):
            raise
        raise WriteError(f"{refusal(error)} {how}") from error
    except SystemExit as ended:  # rich raises it
        if not isinstance(ended.__context__, BrokenPipeError):
            raise
        raise WriteError(f"nobody reads standard output any more. {how}") from ended


def append(path: Path, record: msgspec.Struct) -> None:
    """Append a record, on a new line even if the last one is cut off; return only when it is on disk.

    Raises WriteError if that fails; the file is then as it was before.
    """
    append_line(path, encoded(record))


def append_line(path: Path, line: bytes) -> None:
    """Append a line as `append` does."""
    try:
        if not path.exists() and (before := content(path)):
            write_durably(path, before)  # from the archive
        with path.open("ab+", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            if end:
                file.seek(end - 1)
                line = line if file.read(1) == b"\n" else b"\n" + line
            try:
                _write_all(file, line + b"\n")
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(end)  # half a line would be no record
                raise
    except OSError as error:
        raise WriteError(
            f"cannot append to {path}: {refusal(error, path)}. What was measured before is kept."
        ) from error


def replace_lines(path: Path, kept: Iterable[bytes]) -> None:
    """Replace the lines of a file of records; raise WriteError, with the old ones in place, if that fails."""
    try:
        write_durably(path, b"".join(line + b"\n" for line in kept))
    except OSError as error:
        raise WriteError(f"cannot write {path}: {refusal(error, path)}. Its lines are kept.") from error


def _write_all(file: RawIOBase, content: bytes) -> None:
    """Write all the bytes: a disk that is nearly full takes some of them without an error."""
    while content:
        content = content[file.write(content) or 0 :]


def read_header(path: Path, kind: type[H], schema: int, *, missing: str) -> H:
    """Read a header of that schema; raise UsageError with the text `missing` if there is no such file."""
    try:
        content = without_mark(path.read_bytes())
        # First, because a header of another schema has other fields, and the error would only name one of
        # them.
        found = msgspec.json.decode(content, type=_Schema).schema
        header = msgspec.json.decode(content, type=kind) if found == schema else None
    except FileNotFoundError as error:
        raise UsageError(missing) from error
    except (OSError, msgspec.DecodeError) as error:
        raise RecordError(f"cannot read {path}: {error}") from error
    if header is None:
        raise RecordError(
            f"{path.parent} has records of schema {found}; this version reads schema {schema}. "
            + (
                f"The last version that reads them is commit {LAST_READERS[found]}."
                if found in LAST_READERS
                else "Update this program: a newer version made them."
            )
        )
    return header


def read_records(path: Path, kind: Any) -> tuple[tuple[Any, ...], tuple[str, ...]]:
    """Return the records of a file, and for each line that is not a record, its number and the reason."""
    records: list[Any] = []
    rejected: list[str] = []
    for number, line in lines(path):
        try:
            records.append(msgspec.json.decode(line, type=kind))
        except msgspec.DecodeError as error:
            rejected.append(f"{path.name} line {number}: {error}")
    return tuple(records), tuple(rejected)


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the number, from 1, and the bytes of each line that is not empty; nothing if there is no file.

    Files that were joined can have a byte-order mark in any line.
    """
    for number, whole in enumerate(content(path).split(b"\n"), start=1):
        if (line := without_mark(whole)).strip():
            yield number, line


def without_mark(content: bytes) -> bytes:
    """Return text in UTF-8 without the byte-order mark that some editors put at its start."""
    return content.removeprefix(codecs.BOM_UTF8)


def content(path: Path) -> bytes:
    """Return the content of a file of records, from the folder or the archive; empty if neither has it."""
    if path.exists():
        return path.read_bytes()
    whole = path.resolve()
    return archived(whole.parent.parent / ARCHIVE).get(f"{whole.parent.name}/{whole.name}", b"")


def archived(archive: Path) -> Mapping[str, bytes]:
    """Return the content of an archive, by folder and file; empty if there is no archive."""
    return _members(archive, archive.stat().st_mtime_ns) if archive.is_file() else {}


@lru_cache(maxsize=1)
def _members(archive: Path, _changed_ns: int) -> Mapping[str, bytes]:
    """Return every file of an archive. It is kept, so that it is read once for all folders beside it."""
    import tarfile

    try:
        import lzma  # not every Python is built with it
    except ImportError as error:
        raise RecordError(
            f"this Python cannot read {archive}: it lacks lzma. Unpack it: tar -xf {archive.name}"
        ) from error
    try:
        whole = BytesIO(lzma.decompress(archive.read_bytes()))  # all of it, so that its checksum is verified
        with tarfile.open(fileobj=whole) as packed:
            files = [(member.name, packed.extractfile(member)) for member in packed if member.isfile()]
            return {name: file.read() for name, file in files if file is not None}
    except (OSError, tarfile.TarError, lzma.LZMAError) as error:
        raise RecordError(f"cannot read {archive}: {error}") from error


def write_durably(path: Path, content: bytes) -> None:
    """Replace a file in one step, so that a reader sees the old or the new content and never a part.

    Raises OSError if that fails. The old content is then still there, and no part of the new one.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe or a device has no old content
        path.write_bytes(content)
        return
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)  # it would only fill the disk
        raise


def write_text(path: Path, text: str) -> None:
    """Replace a text file, in UTF-8, as `write_durably` does."""
    write_durably(path, readable(text).encode())
