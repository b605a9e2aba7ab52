"""From an exception in a worker to the status of its job and a line for its record."""

import contextlib
import errno
import os
import traceback

from bench.errors import BenchError, NanLossError, NotComparableError, UnavailableError, WrongDeviceError
from bench.paths import refusal
from bench.records.schema import Status

_LONGEST = 300
_FULL = os.strerror(errno.ENOSPC)
_OUT_OF_MEMORY_SIGNS = ("out of memory", "resource_exhausted", "cannot allocate memory")


def status_of(error: Exception) -> Status:
    """Return the status of a job that ended with this exception."""
    text = f"{type(error).__name__}: {error}".lower()
    full = _FULL.lower() in text  # a disk, which XLA calls an exhausted resource
    match error:
        case NanLossError():
            return "nan_loss"
        case NotComparableError():
            return "not_comparable"
        case WrongDeviceError():
            return "wrong_device"
        case UnavailableError():
            return "unavailable"
        case _ if isinstance(error, MemoryError) or (
            any(sign in text for sign in _OUT_OF_MEMORY_SIGNS) and not full
        ):
            return "out_of_memory"
    return "failed"


def print_if_unforeseen(error: Exception) -> None:
    """Print the traceback of an exception that is not a BenchError; the record keeps it."""
    if not isinstance(error, BenchError):
        with contextlib.suppress(OSError):  # a full disk may be the error itself
            traceback.print_exception(error)


def in_a_line(error: Exception) -> str:
    """Return the message of an exception in at most 300 characters, then the size of a disk if it is full."""
    text = str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"
    line = " ".join(text.split())[:_LONGEST]
    if isinstance(error, BenchError) or _FULL not in text:
        return line
    # A framework that compiles wraps the error, and names no path.
    return f"{line}: {refusal(OSError(errno.ENOSPC, _FULL))}"
