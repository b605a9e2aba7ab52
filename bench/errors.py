"""The errors a user can meet, each with the exit status of the command that meets it."""

from difflib import get_close_matches
from typing import ClassVar


class BenchError(Exception):
    """A failure whose message says what was wrong, with which value, and what to do."""

    exit_status: ClassVar[int] = 3


class UsageError(BenchError):
    """The command asked for something that does not exist or makes no sense."""

    exit_status = 2


class DataError(BenchError):
    """A data set could not be had, or is not what its digest says."""


class RecordError(BenchError):
    """A run folder or a record cannot be read or written."""


class ContractError(BenchError):
    """A backend does not keep the contract of `backends.base`."""


class UnavailableError(BenchError):
    """A backend, device or precision cannot be used on this machine."""


class NanLossError(BenchError):
    """Training lost its numbers."""


class NotComparableError(BenchError):
    """What a backend computed is no number, or has another shape than what the reference computed."""


class WrongDeviceError(BenchError):
    """A backend ran somewhere else than it was asked to."""


def unknown(kind: str, value: str, known: list[str], hint: str) -> UsageError:
    """Return the error for a name that is not among `known`, with the nearest one that is."""
    near = get_close_matches(value, known, n=1)
    guess = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known) or 'none'}."
    return UsageError(f"unknown {kind} {value!r}{guess} ({hint})")
