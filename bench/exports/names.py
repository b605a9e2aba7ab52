"""Names and figures made safe for the tools that get them: what reaches a path, a page, a terminal, a log.

Names that this program gives come through unchanged. What becomes of others is told apart by a digest, so
that two names stay two.
"""

import hashlib
import json
import re
from typing import Any

from bench.errors import RecordError, UsageError
from bench.records.runs import Run
from bench.records.schema import RunHeader
from bench.text import clean

LONGEST = 80
"""Characters of a part of a path: file systems take 255 bytes, and tools put several parts into one."""
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_@+-]*")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_@+.-]*")
_MARKUP = re.compile(r"[<>&\"'`]")


def shown(name: str) -> str:
    """Return a name as one line that no terminal acts on, for tools that print what they read as it is."""
    line = clean(name)
    return line if line == name and line else f"{line}~{_digest(name)}"


def part(name: str, *, dots: bool = False) -> str:
    """Return a name of ASCII letters, digits and `_@+-` alone: part of a path, of HTML, of a Markdown table.

    Dots, which tools take for a hierarchy, are kept where asked, as in the names of hosts.
    """
    allowed = _HOST if dots else _PART
    if allowed.fullmatch(name) and len(name) <= LONGEST:
        return name
    kept = "".join(char if allowed.fullmatch(f"_{char}") else "-" for char in name)
    return f"{kept[: LONGEST - 10].strip('-.+@') or 'name'}-{_digest(name)}"


def plain(text: str) -> str:
    """Return a line of text for a page that takes it for HTML: shortened, and without a sign of markup."""
    return _MARKUP.sub("", clean(text))[:LONGEST].strip()


def data_words(header: RunHeader) -> str | None:
    """Return what a run was made on if not on all data: none of its figures may have a full run's name."""
    words = ["sample"] if header.sample else []
    if header.dataset_limit is not None:
        words.append(f"first {header.dataset_limit}")
    return " ".join(words) or None


def nothing(run: Run, what: str) -> UsageError:
    """Return the error for a run without anything that a format could hold."""
    return UsageError(f"there is nothing to export: {clean(run.header.run_id)} has no {what}.")


def dump(value: Any, *, indent: int | None = 2) -> str:
    """Return JSON of ASCII alone, so that no name in it can act on a terminal; a figure must be finite."""
    try:
        return json.dumps(value, indent=indent, ensure_ascii=True, allow_nan=False)
    except ValueError as error:
        raise RecordError(
            f"the run cannot be exported: one of its figures is not finite ({error})."
        ) from error


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
