"""The standard streams: every text can be shown on them, and a write that fails names its stream."""

import codecs
import contextlib
import io
import os
import sys
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TextIO

from bench.text import readable

_STAND_IN, _ASCII = "samework-stand-in", "samework_ascii"
SPELLINGS: Mapping[str, str] = MappingProxyType(
    {
        "\N{EN DASH}": "-",
        "\N{EM DASH}": "-",
        "\N{MINUS SIGN}": "-",
        "\N{BULLET}": "-",
        "\N{MIDDLE DOT}": "*",
        "\N{PLUS-MINUS SIGN}": "+/-",
        "\N{MULTIPLICATION SIGN}": "x",
        "\N{RIGHTWARDS ARROW}": "->",
        "\N{ALMOST EQUAL TO}": "~",
        "\N{SQUARE ROOT}": "sqrt",
        "\N{MICRO SIGN}": "u",
        "\N{FULL BLOCK}": "#",
        "\N{BOX DRAWINGS HEAVY HORIZONTAL}": "#",
    }
)
"""What stands for a character of this program on a stream that cannot encode it."""


def prepare() -> None:
    """Make sure that all three streams are open, and let the two of output show every text."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed, as by `>&-`; the next file would get its number, and the output with it
            os.open(os.devnull, os.O_RDWR)
    codecs.register_error(_STAND_IN, stand_in)
    with contextlib.suppress(LookupError):
        codecs.unregister(_find_ascii)
    codecs.register(_find_ascii)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper):
            continue
        stream.reconfigure(errors=_STAND_IN)
        if stream is getattr(sys, f"__{name}__"):
            setattr(sys, name, _guarded(stream, "standard output" if name == "stdout" else "standard error"))


def stand_in(error: UnicodeError) -> tuple[str, int]:
    r"""Return what is written in place of characters that cannot be encoded: a spelling in ASCII, or `?`.

    A byte of a file's name that is no text is written as `\xff`.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_spelling, error.object[error.start : error.end])), error.end


def _spelling(char: str) -> str:
    if (shown := readable(char)) != char:
        return shown
    decomposed = unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode()
    return SPELLINGS.get(char) or decomposed or "?"


def _find_ascii(name: str) -> codecs.CodecInfo | None:
    """Find the codec of ASCII under a name of its own.

    Click takes a stream in ASCII for a mistake of the system, and writes UTF-8 to it.
    """
    if name != _ASCII:
        return None
    ascii_codec = codecs.lookup("ascii")
    return codecs.CodecInfo(
        ascii_codec.encode,
        ascii_codec.decode,
        incrementalencoder=ascii_codec.incrementalencoder,
        incrementaldecoder=ascii_codec.incrementaldecoder,
        name=_ASCII,
    )


class _Named(io.FileIO):
    """The bytes of a standard stream; an error names the stream as its file."""

    def __init__(self, number: int, said: str) -> None:
        super().__init__(number, "w", closefd=False)
        self._said = said

    def write(self, content: bytes) -> int | None:  # type: ignore[override]  # a buffer in typeshed
        try:
            return super().write(content)
        except OSError as error:
            error.filename, error.filename2 = _place(self.fileno()), self._said
            raise


def _place(number: int) -> str:
    """Return the file that a descriptor writes to, as far as the system tells; else an empty text."""
    try:
        return str(Path(f"/proc/self/fd/{number}").readlink())
    except OSError:
        return ""


def _guarded(stream: io.TextIOWrapper, said: str) -> TextIO:
    encoding = stream.encoding
    with contextlib.suppress(LookupError):
        encoding = _ASCII if codecs.lookup(encoding).name == "ascii" else encoding
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Named(stream.fileno(), said)),  # type: ignore[type-var]  # as of `write`
        encoding=encoding,
        errors=_STAND_IN,
        line_buffering=stream.line_buffering or stream.write_through,
    )


def finish() -> None:
    """Write what is buffered, and drop what cannot be written: Python would end with another status."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            discard(stream)
        except ValueError:  # closed
            pass


def discard(stream: TextIO) -> None:
    """Let everything that is still to come on a stream, and what is buffered, go nowhere."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
