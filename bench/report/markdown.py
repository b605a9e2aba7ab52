"""Markdown that shows just the text it is given: escaped lines, lists and tables."""

import re
from collections.abc import Iterable, Sequence

from bench.text import clean

PLOTS = "plots"
"""The folder of the plots, beside the report."""

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~!&$^])")
"""What Markdown, its extensions or HTML could take for more than itself."""

_LIST_MARK = re.compile(r"^(\d*)([-+.)])(?=\s|$)")
"""What would begin a list where the text begins an item."""


def escape(raw: str) -> str:
    """Return text from a record as Markdown that shows just that text, on one line."""
    safe = _LIST_MARK.sub(r"\1\\\2", _SPECIAL.sub(r"\\\1", clean(raw)))
    # Addresses become links without any mark around them; an entity in the middle prevents it.
    safe = safe.replace("://", ":&#47;&#47;").replace("@", "&#64;")
    return re.sub(r"\bwww\.", "www&#46;", safe, flags=re.IGNORECASE)


def grid(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: frozenset[int] = frozenset()
) -> str:
    """Return a table of raw text; the columns in `numbers` are set flush right."""
    rules = ["--:" if place in numbers else ":--" for place in range(len(heads))]
    lines = [[escape(head) for head in heads], rules, *([escape(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bullets(lines: Iterable[str]) -> str:
    """Return a list of raw text."""
    return bullets_escaped(escape(line) for line in lines)


def bullets_escaped(lines: Iterable[str]) -> str:
    """Return a list of lines that are Markdown already."""
    return "\n".join(f"- {line}" for line in lines)


def code(command: str) -> str:
    """Return a shell-quoted command as a code block, which quoting keeps from beginning with a fence."""
    return f"```\n{clean(command)}\n```"


def plot(name: str, alt: str, drawn: frozenset[str]) -> list[str]:
    """Return a plot with its caption, as blocks; none where it was not drawn."""
    return [f"![{alt}]({PLOTS}/{name}.svg)", f"*{alt}.*"] if name in drawn else []
