"""The errors that a user can see, each with the exit status of the command."""

from difflib import get_close_matches
from typing import ClassVar


class BenchError(Exception):
    """A failure. The message says what is wrong, with which value, and what to do."""

    exit_status: ClassVar[int] = 3


class UsageError(BenchError):
    """The command asked for something that does not exist or makes no sense."""

    exit_status = 2


class DataError(BenchError):
    """A data set cannot be fetched or read, or does not match its digests."""


class RecordError(BenchError):
    """A run folder or a record cannot be read or written."""


class WriteError(RecordError):
    """A file, or standard output, cannot be written. What was written before is kept."""


class ContractError(BenchError):
    """A backend breaks the contract of `backends.base`."""


class UnavailableError(BenchError):
    """A backend, device or precision cannot be used on this machine."""


class NanLossError(BenchError):
    """The loss is not finite."""


class NotComparableError(BenchError):
    """The values of a backend are not finite, or their shape differs from that of the reference."""


class WrongDeviceError(BenchError):
    """A backend ran on another device than requested."""


def unknown(kind: str, value: str, known: list[str], hint: str) -> UsageError:
    """Return the error for a name that is not in `known`, with the most similar known name."""
    near = get_close_matches(value, known, n=1)
    guess = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known) or 'none'}."
    return UsageError(f"unknown {kind} {value!r}{guess} ({hint})")
