"""Markdown that shows exactly the text that it is given: escaped lines, lists, tables, and whole reports."""

import re
from collections.abc import Iterable, Sequence

from bench.report.blocks import (
    Block,
    Bullets,
    Chart,
    Code,
    Heading,
    Item,
    Note,
    Paragraph,
    Picture,
    Plain,
    Table,
    plain,
)
from bench.text import clean

PLOTS = "plots"
"""The folder of the plots, beside the report."""

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~!&$^])")
"""What Markdown, its extensions or HTML could take for markup."""

_LIST_MARK = re.compile(r"^(\d*)([-+.)])(?=\s|$)")
"""What would begin a list at the start of an item."""


def document(blocks: Iterable[Block], drawn: frozenset[str]) -> str:
    """Return a report as Markdown; `drawn` names the charts and plots that exist, and no other is linked.

    A chart inside a group is left out, like its table.
    """
    parts: list[str] = []
    for block in blocks:
        match block:
            case Picture(name=name, caption=caption):
                parts += plot(name, f"{caption}.", caption, drawn)
            case Chart(name=name, title=title, about=about):
                parts += plot(name, f"{title}. {about}", title, drawn)
            case _:
                parts += map(_part, plain([block]))
    return "\n\n".join(parts) + "\n"


def _part(block: Plain) -> str:
    match block:
        case Heading(text=text, level=level):
            return f"{'#' * level} {escape(text)}"
        case Paragraph(text=text):
            return escape(text)
        case Note(text=text, warning=warning):
            return f"> **Warning.** {escape(text)}" if warning else f"> **{escape(text)}**"
        case Bullets(items=items):
            return "\n".join(f"- {_item(item)}" for item in items)
        case Table(heads=heads, rows=rows, numbers=numbers):
            return grid(heads, rows, numbers=numbers)
        case Code(text=text):
            return code(text)


def _item(item: Item) -> str:
    if not item.name:
        return escape(item.text)
    name = f"**{escape(item.name)}**"
    return f"{f'[{name}]({item.file})' if item.file else name}: {escape(item.text)}"


def escape(raw: str) -> str:
    """Return text from a record as Markdown that shows just that text, on one line."""
    safe = _LIST_MARK.sub(r"\1\\\2", _SPECIAL.sub(r"\\\1", clean(raw)))
    # Addresses become links without any mark around them; an entity in the middle prevents it.
    safe = safe.replace("://", ":&#47;&#47;").replace("@", "&#64;")
    return re.sub(r"\bwww\.", "www&#46;", safe, flags=re.IGNORECASE)


def grid(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: frozenset[int] = frozenset()
) -> str:
    """Return a table of raw text; the columns in `numbers` are aligned right."""
    rules = ["--:" if place in numbers else ":--" for place in range(len(heads))]
    lines = [[escape(head) for head in heads], rules, *([escape(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bullets(lines: Iterable[str]) -> str:
    """Return a list of raw text."""
    return "\n".join(f"- {escape(line)}" for line in lines)


def code(command: str) -> str:
    """Return a shell-quoted command as a code block; its quotes keep it from starting with a fence."""
    return f"```\n{clean(command)}\n```"


def plot(name: str, caption: str, instead: str, drawn: frozenset[str]) -> list[str]:
    """Return a plot and its caption as two blocks; none if it was not drawn.

    `instead` is what a reader gets who cannot see the plot.
    """
    return [f"![{escape(instead)}]({PLOTS}/{name}.svg)", f"*{escape(caption)}*"] if name in drawn else []
