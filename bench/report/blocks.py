"""What a report says, block by block: a report builds the list once, and each printer prints any such list.

The text in a block is raw, as the records hold it: each printer cleans and escapes it for its own output.
`bench.report.terminal` prints blocks on a terminal, `bench.report.markdown` as Markdown.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

import msgspec


class Heading(msgspec.Struct, frozen=True, kw_only=True):
    """A heading; level 1 is the title."""

    text: str
    level: Literal[1, 2, 3, 4] = 2


class Paragraph(msgspec.Struct, frozen=True, kw_only=True):
    text: str
    faint: bool = False
    """Whether it explains and does not report, such as a legend; shown dim where that is possible."""


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """What a reader must know before the figures, such as that the data set was limited."""

    text: str
    warning: bool = False
    """Whether something is wrong, and not only special."""


class Item(msgspec.Struct, frozen=True, kw_only=True):
    text: str
    name: str = ""
    """What the text is about; shown in front of it. Empty if the text stands alone."""


class Bullets(msgspec.Struct, frozen=True, kw_only=True):
    items: tuple[Item, ...]


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of text; the first column names the row."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[int] = frozenset()
    """Columns of numbers: aligned right, never wrapped."""
    flagged: frozenset[int] = frozenset()
    """Rows that stand out by colour where that is possible. A cell of the row must say the same in words."""
    details: int | None = None
    """First of the less important columns: a narrow terminal shows them in a table below the others."""


class Code(msgspec.Struct, frozen=True, kw_only=True):
    """A command to copy, already quoted for a shell."""

    text: str


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """A plot beside the report. A printer leaves it out if it was not drawn or cannot be shown."""

    name: str
    """Of its file, without the suffix."""
    caption: str


Block: TypeAlias = Heading | Paragraph | Note | Bullets | Table | Code | Picture


def section(heading: str, text: str, *blocks: Block, level: Literal[2, 3, 4] = 2) -> list[Block]:
    """Return a heading, a paragraph, and the blocks that follow."""
    return [Heading(text=heading, level=level), Paragraph(text=text), *blocks]


def bullets(lines: Iterable[str]) -> Bullets:
    """Return a list of lines."""
    return Bullets(items=tuple(Item(text=line) for line in lines))


def named_bullets(lines: Iterable[tuple[str, str]]) -> Bullets:
    """Return a list of names, each with the text about it."""
    return Bullets(items=tuple(Item(name=name, text=text) for name, text in lines))


def below(heading: str, found: Bullets) -> list[Block]:
    """Return a list below a heading; nothing if the list is empty."""
    return [Heading(text=heading), found] if found.items else []


def number_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return a table in which every column but the first holds numbers."""
    return Table(
        heads=tuple(heads),
        rows=tuple(tuple(row) for row in rows),
        numbers=frozenset(range(1, len(heads))),
    )
