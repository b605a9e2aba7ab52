"""What a report says, block by block: a report builds the list once, and each printer prints any such list.

The text in a block is raw, as the records hold it: each printer cleans and escapes it for its own output.
`bench.report.terminal` prints blocks on a terminal, `bench.report.markdown` as Markdown, and
`bench.report.page` as a page.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, TypeAlias

import msgspec

from bench.report.chart import NO_TAGS, Bars, Lines, Tags


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
    file: str = ""
    """A file beside the report that the name links to where that is possible; never a text of a record."""


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
    tags: tuple[Tags, ...] = ()
    """What a reader of a page can choose each row by; empty if rows cannot be chosen."""


class Code(msgspec.Struct, frozen=True, kw_only=True):
    """A command to copy, already quoted for a shell."""

    text: str


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """A chart and the table of what it shows."""

    name: str
    """Unique in the report; the fragment of its address."""
    title: str
    """What it shows in one sentence: the finding, not the axes."""
    about: str
    """How it is read: what a bar, an interval or a band stands for."""
    drawn: Bars | Lines
    table: Table
    tags: Tags = NO_TAGS


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """Source code or the output of a program, shown as it is."""

    title: str
    text: str
    language: Literal["python", "text"] = "python"


class Details(msgspec.Struct, frozen=True, kw_only=True):
    """What only some readers want: a page folds it away, the terminal and Markdown leave it out."""

    summary: str
    blocks: tuple["Block", ...]
    bulky: bool = False
    """Whether it is too long for paper, such as every raw value."""


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A file that a reader of a page can keep: beside the page, or inside it. Only a page shows it."""

    name: str
    """Its path, relative to the page; the name under which a file inside the page is saved."""
    text: str
    """What it holds."""
    content: str | None = None
    """Its text, if it is inside the page; None if it lies beside the page."""


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Blocks that a reader of a page can choose by their tags; elsewhere they stand as they are.

    `beside` puts them side by side where there is room, as for the same program in several frameworks.
    """

    blocks: tuple["Block", ...]
    tags: Tags = NO_TAGS
    beside: bool = False


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """A plot beside the report. A printer leaves it out if it was not drawn or cannot be shown."""

    name: str
    """Of its file, without the suffix."""
    caption: str


Block: TypeAlias = (
    Heading | Paragraph | Note | Bullets | Table | Code | Listing | Chart | Details | Group | Picture | File
)


Plain: TypeAlias = Heading | Paragraph | Note | Bullets | Table | Code
"""A block that every printer can print."""


def plain(blocks: Iterable[Block]) -> Iterator[Plain]:
    """Yield the blocks that text can show; those of groups stand as they are."""
    for block in blocks:
        match block:
            case Group(blocks=inside):
                yield from plain(inside)
            case Listing() | Chart() | Details() | Picture() | File():
                pass
            case _:
                yield block


def charts_of(blocks: Iterable[Block]) -> Iterator[Chart]:
    """Yield the charts among blocks, also those inside groups and details."""
    for block in blocks:
        match block:
            case Chart():
                yield block
            case Group(blocks=inside) | Details(blocks=inside):
                yield from charts_of(inside)
            case _:
                pass


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


def lean(table: Table, dull: Mapping[str, str]) -> Table:
    """Return a table without those columns that say the same dull thing in every row.

    `dull` names columns, by their heads, and what is dull in each: `{"status": "ok"}`.
    """
    kept = [
        place
        for place, head in enumerate(table.heads)
        if head not in dull or any(row[place] != dull[head] for row in table.rows)
    ]
    return msgspec.structs.replace(
        table,
        heads=tuple(table.heads[place] for place in kept),
        rows=tuple(tuple(row[place] for place in kept) for row in table.rows),
        numbers=frozenset(new for new, old in enumerate(kept) if old in table.numbers),
        details=None if table.details is None else sum(old < table.details for old in kept),
    )


def number_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return a table in which every column but the first holds numbers."""
    return Table(
        heads=tuple(heads),
        rows=tuple(tuple(row) for row in rows),
        numbers=frozenset(range(1, len(heads))),
    )
