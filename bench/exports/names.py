"""Names and values made safe for the tools that read them, in paths, pages and terminals.

The names of this program stay as they are. A changed name gets a digest, so that two names stay different.
"""

import hashlib
import json
import re
from typing import Any

from bench.analysis.summary import CellSummary
from bench.errors import RecordError, UsageError
from bench.records.runs import Run
from bench.records.schema import RunHeader
from bench.report.format import ranks_text
from bench.text import clean

LONGEST = 80
"""Longest part of a path, in characters: file systems allow 255 bytes, and tools join several parts."""
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_@+-]*")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_@+.-]*")
_MARKUP = re.compile(r"[<>&\"'`]")


def shown(name: str) -> str:
    """Return a name as one line without control characters, for tools that print names as they are."""
    line = clean(name)
    return line if line == name and line else f"{line}~{_digest(name)}"


def part(name: str, *, dots: bool = False) -> str:
    """Return a name of ASCII letters, digits and `_@+-` only, safe in a path, HTML or a Markdown table.

    Tools take dots for a hierarchy; `dots` keeps them, as in the names of hosts.
    """
    allowed = _HOST if dots else _PART
    if allowed.fullmatch(name) and len(name) <= LONGEST:
        return name
    kept = "".join(char if allowed.fullmatch(f"_{char}") else "-" for char in name)
    return f"{kept[: LONGEST - 10].strip('-.+@') or 'name'}-{_digest(name)}"


def plain(text: str) -> str:
    """Return text as a short line without markup characters, for a page that takes it for HTML."""
    return _MARKUP.sub("", clean(text))[:LONGEST].strip()


def data_words(header: RunHeader) -> str | None:
    """Return words for the limited data of a run, which its names must include; None for all data."""
    words = ["sample"] if header.sample else []
    if header.dataset_limit is not None:
        words.append(f"first {header.dataset_limit}")
    return " ".join(words) or None


def rank_words(row: CellSummary, header: RunHeader) -> str | None:
    """Return the ranks of a row, which its names must include, such as `2 ranks weak`.

    None in a run without ranks. In a run with ranks a row of one rank says so, too: its process had one core,
    so it is another row than that of the same name in other runs.
    """
    if not header.ranks:
        return None
    return (ranks_text(row.ranks, row.scaling) or "1 rank").replace("(", "").replace(")", "")


def nothing(run: Run, what: str) -> UsageError:
    """Return the error for a run in which there is nothing that a format could hold."""
    return UsageError(f"there is nothing to export: {clean(run.header.run_id)} has no {what}.")


def dump(value: Any, *, indent: int = 2) -> str:
    """Return JSON in ASCII, which no terminal acts on; raise RecordError if a value is not finite."""
    try:
        return json.dumps(value, indent=indent, ensure_ascii=True, allow_nan=False)
    except ValueError as error:
        raise RecordError(
            f"the run cannot be exported: one of its values is not finite ({error})."
        ) from error


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
