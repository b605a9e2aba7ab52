"""Paths: as users write them, as messages hold them, and why the file system refuses one."""

import contextlib
import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.errors import UsageError

_MARK = "bytes:"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (
    *_FULL, errno.EPIPE, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG, errno.ENXIO,
    errno.ESTALE, errno.ENAMETOOLONG, errno.ELOOP, errno.EMFILE, errno.ENFILE, errno.ENODEV,
)  # fmt: skip
_NO_TEMPORARY = "No usable temporary directory"
"""How Python's message begins if no temporary folder can be written."""
_TMPDIR = " Name another folder for temporary files with the variable TMPDIR."


def expanded(text: str) -> Path:
    """Return the path of an option; `~` is the home folder, as in a shell.

    A shell leaves `~` alone in `--results=~/runs` and inside quotes. Raises UsageError for an unknown user.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{text!r}: the home folder is not known. Write the path in full.") from error


def to_text(path: Path) -> str:
    """Return a path as text that JSON can hold, and that `from_text` reads in a process of any locale.

    A name can have bytes that are no text in the locale's encoding. Other names stay as they are.
    """
    text = str(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        readable = False
    else:
        readable = text.isascii() or sys.getfilesystemencoding() == "utf-8"
    if readable:
        return text
    from urllib.parse import quote_from_bytes

    return _MARK + quote_from_bytes(os.fsencode(path))


def from_text(text: str) -> Path:
    """Return the path that `to_text` made a text of."""
    if not text.startswith(_MARK):
        return Path(text)
    from urllib.parse import unquote_to_bytes

    return Path(os.fsdecode(unquote_to_bytes(text.removeprefix(_MARK))))


def refused(error: OSError) -> bool:
    """Whether an error comes from the file system's state and not from a fault of this program."""
    return error.errno in _REFUSED or str(error.strerror).startswith(_NO_TEMPORARY)


def refusal(error: OSError, path: Path | None = None) -> str:
    """Return why the file system refused to write a path; if it is full, with its size.

    Without `path` the message names the file of the error, or the temporary folder if it has none.
    """
    reason = error.strerror or str(error)
    if reason.startswith(_NO_TEMPORARY):
        return f"{reason}.{_TMPDIR}"
    if path is not None:
        return f"{reason}{_space(path)}" if error.errno in _FULL else reason
    if error.filename:
        file = os.fsdecode(error.filename)
        space = _space(Path(file)) if error.errno in _FULL else ""
        what = f"write to {error.filename2} ({file})" if error.filename2 else f"use {file}"
        return f"cannot {what}: {reason}{space}.{advice(Path(file))}"
    looked = "; ".join(f"{what} {place}{_space(place)}" for what, place in _places())
    return f"a file cannot be written: {reason}. Look at {looked}."


def _places() -> Iterator[tuple[str, Path]]:
    """Yield the folders that are written without being named in an option, with what each is."""
    for what, find in (("the temporary folder", tempfile.gettempdir), ("this folder", os.getcwd)):
        with contextlib.suppress(OSError):  # there is none, or it was deleted
            yield what, Path(find())


def advice(path: Path) -> str:
    """Return what to do about a file that cannot be written, if it is a temporary one; else nothing."""
    return _TMPDIR if dict(_places()).get("the temporary folder") in path.absolute().parents else ""


def _space(path: Path) -> str:
    """Return how full the file system is on which a path is or would be; nothing if that is not known."""
    place = next((one for one in (path, *path.absolute().parents) if one.exists()), Path("/"))
    try:
        inodes, usage = os.statvfs(place), shutil.disk_usage(place)
    except OSError:
        return ""
    if not (place.is_file() or place.is_dir()):  # a device
        return ""
    files = "" if inodes.f_favail or not inodes.f_files else ", and no further file fits"
    return f" ({size_text(usage.free)} of {size_text(usage.total)} are free{files})"


def size_text(count: int) -> str:
    """Return a size in bytes as text: `0 B`, `12.5 KiB`, `2.0 GiB`."""
    size, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{count} B" if units[0] == "B" else f"{size:.1f} {units[0]}"
