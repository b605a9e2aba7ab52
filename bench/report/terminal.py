"""Printing blocks on a terminal of any width."""

from collections.abc import Iterable, Sequence

import msgspec
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from bench.report.blocks import Block, Bullets, Code, Heading, Item, Note, Paragraph, Plain, Table, plain
from bench.report.format import NOTHING
from bench.text import clean

_NAME_WRAPPED, _WRAPPED = 17, 15
"""Where a table is too wide, names of rows and other texts are wrapped beyond these widths. With them the
most important figures of a run fit into 80 columns."""

_KEPT = chr(0xE000)
"""Stands for a space at which no line may end; no clean text has this character."""


class _Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Widths shared by all tables with the same columns, and which columns stand side by side."""

    widths: tuple[int, ...]
    parts: tuple[tuple[int, ...], ...]
    """Columns of each part, by index. Every part also begins with the first column."""
    gap: int


class _Column(msgspec.Struct, frozen=True, kw_only=True):
    """Widths of a column: with nothing wrapped, with long texts wrapped, and with every text wrapped."""

    natural: int
    wide: int
    least: int


def print_blocks(blocks: Iterable[Block], console: Console) -> None:
    """Print blocks at the console's width; the words are the same with and without colour.

    Charts, pictures and details are left out. Tables with the same heads get the same column widths.
    """
    shown = [_cleaned(block) for block in plain(blocks)]
    alike: dict[tuple[str, ...], list[Table]] = {}
    for block in shown:
        if isinstance(block, Table):
            alike.setdefault(block.heads, []).append(block)
    layouts = {heads: _lay_out(tables, console.width) for heads, tables in alike.items()}
    for before, block in zip((None, *shown), shown, strict=False):
        if before is not None and not _belongs(block, before):
            console.print()
        match block:
            case Table(heads=heads):
                _print_table(block, layouts[heads], console)
            case Bullets(items=items):
                for item in items:
                    _print_item(item, console)
            case Heading(text=text, level=level):
                _print_text(text, "bold underline" if level == 2 else "bold", console)
            case Note(text=text, warning=warning):
                _print_text(f"{'WARNING' if warning else 'NOTE'}: {text}", "bold yellow", console)
            case Paragraph(text=text, faint=faint):
                _print_text(text, "dim" if faint else "", console)
            case Code(text=text):
                console.print(Text(clean(text)), highlight=False, soft_wrap=True)  # one line can be copied


def _belongs(block: Plain, before: Plain) -> bool:
    """Say whether a block follows the one before it without an empty line."""
    return (
        isinstance(before, Heading)
        or (isinstance(before, Note) and isinstance(block, Note))
        or (isinstance(before, Paragraph) and isinstance(block, Code))
    )


def _cleaned(block: Plain) -> Plain:
    """Return a table whose cells are clean, so that they can be measured; any other block as it is."""
    if not isinstance(block, Table):
        return block
    return msgspec.structs.replace(
        block,
        heads=tuple(map(clean, block.heads)),
        rows=tuple(tuple(map(clean, row)) for row in block.rows),
    )


def _print_text(text: str, style: str, console: Console) -> None:
    # Text, never markup: a name with brackets in it stays a name.
    for part in _wrapped(Text(clean(text), style=style, overflow="fold"), console.width, console):
        console.print(part, highlight=False)


def _wrapped(said: Text, width: int, console: Console) -> list[Text]:
    """Return the lines of a text; a number stays with the % behind it."""
    said.plain = said.plain.replace(" %", f"{_KEPT}%")
    parts = said.wrap(console, width)
    for part in parts:
        part.rstrip()
        part.plain = part.plain.replace(_KEPT, " ")
    return list(parts)


def _print_item(item: Item, console: Console) -> None:
    said = Text(overflow="fold")
    if item.name:
        said.append(f"{clean(item.name)}: ", style="bold")
    said.append(clean(item.text))
    for number, part in enumerate(_wrapped(said, console.width - 2, console)):
        console.print(Text("  " if number else "\N{BULLET} ") + part, highlight=False)


def _lay_out(tables: Sequence[Table], width: int) -> _Layout:
    """Fit columns to the console: side by side if they fit, if need be with texts wrapped between words.

    Otherwise the details stand below the rest. A part that is still too wide is cut into parts that fit.
    """
    columns = [_measure(tables, place) for place in range(len(tables[0].heads))]
    wide = [column.wide for column in columns]
    gaps = len(columns) - 1
    gap = 2 if sum(wide) + 2 * gaps <= width else 1
    widths = [column.least for column in columns]
    spare = width - sum(widths) - gap * gaps
    if spare < 0:
        return _Layout(widths=tuple(wide), parts=_cut(wide, tables[0].details, width, gap), gap=gap)
    for goal in (wide, [column.natural for column in columns]):
        for place, size in enumerate(goal):
            wider = min(size - widths[place], spare)
            widths[place] += wider
            spare -= wider
    return _Layout(widths=tuple(widths), parts=(tuple(range(1, len(widths))),), gap=gap)


def _measure(tables: Sequence[Table], place: int) -> _Column:
    """Return how wide a column of alike tables is. Numbers are never wrapped, but their head may be."""
    head = tables[0].heads[place]
    cells = [row[place] for table in tables for row in table.rows]
    natural = max(map(cell_len, (head, *cells)))
    if place in tables[0].numbers:
        least = max(map(cell_len, (*head.split(), *cells)), default=0)
        return _Column(natural=natural, wide=natural, least=least)
    wide = min(natural, _WRAPPED if place else _NAME_WRAPPED)
    words = [word for cell in (head, *cells) for word in cell.split()]
    return _Column(natural=natural, wide=wide, least=min(wide, max(map(cell_len, words), default=0)))


def _cut(widths: Sequence[int], details: int | None, width: int, gap: int) -> tuple[tuple[int, ...], ...]:
    """Return the columns of each part. A new part begins at the details, and where a column does not fit."""
    parts: list[list[int]] = [[]]
    used = widths[0]
    for place, column_width in enumerate(widths[1:], start=1):
        if parts[-1] and (place == details or used + gap + column_width > width):
            parts.append([])
            used = widths[0]
        parts[-1].append(place)
        used += gap + column_width
    return tuple(map(tuple, parts))


def _print_table(table: Table, layout: _Layout, console: Console) -> None:
    for number, part in enumerate(layout.parts):
        # The first part has every row, the others only those with something to show.
        if rows := [
            place
            for place, row in enumerate(table.rows)
            if not number or any(row[column] != NOTHING for column in part)
        ]:
            console.print(_part(table, rows, part, layout))


def _part(table: Table, rows: Sequence[int], part: Sequence[int], layout: _Layout) -> RichTable:
    """Return rows with their names and the columns of one part."""
    drawn = RichTable(box=None, pad_edge=False, padding=(0, layout.gap, 0, 0), header_style="dim")
    chosen = (0, *part)
    for place in chosen:
        drawn.add_column(
            Text(table.heads[place]),
            justify="right" if place in table.numbers else "left",
            width=layout.widths[place],
            overflow="fold",
        )
    for place in rows:
        texts = [Text(table.rows[place][column]) for column in chosen]
        drawn.add_row(*texts, style="yellow" if place in table.flagged else None)
    return drawn
