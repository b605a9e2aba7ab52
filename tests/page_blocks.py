"""What a list of blocks says, for tests: its sections, its texts, and its tables."""

from collections.abc import Iterable, Iterator

from bench.report.blocks import (
    Block,
    Bullets,
    Chart,
    Details,
    File,
    Group,
    Heading,
    Listing,
    Picture,
    Table,
)


def flat(blocks: Iterable[Block]) -> Iterator[Block]:
    """Yield all blocks in their order, with those inside groups and details, and the table of each chart."""
    for block in blocks:
        yield block
        match block:
            case Group(blocks=inside) | Details(blocks=inside):
                yield from flat(inside)
            case Chart(table=table):
                yield table
            case _:
                pass


def section(blocks: Iterable[Block], heading: str) -> list[Block]:
    """Return the blocks below the heading that begins with these words, up to the next of its level."""
    found: list[Block] = []
    level = 0
    for block in flat(blocks):
        if level and isinstance(block, Heading) and block.level <= level:
            break
        if level:
            found.append(block)
        elif isinstance(block, Heading) and block.text.startswith(heading):
            level = block.level
    assert level, f"no heading begins with {heading!r}"
    return found


def said(blocks: Iterable[Block]) -> str:
    """Return every text of the blocks, with single spaces."""
    texts: list[str] = []
    for block in flat(blocks):
        match block:
            case Table(heads=heads, rows=rows):
                texts += [*heads, *(cell for row in rows for cell in row)]
            case Bullets(items=items):
                texts += [f"{item.name}: {item.text}" if item.name else item.text for item in items]
            case Chart(title=title, about=about) | Picture(caption=title, name=about):
                texts += [title, about]
            case Details(summary=summary):
                texts.append(summary)
            case Listing(title=title):
                texts.append(title)  # its text is source code
            case File(name=title, text=text):
                texts += [title, text]
            case Group():
                pass
            case _:
                texts.append(block.text)
    return " ".join(" ".join(texts).split())


def tables(blocks: Iterable[Block]) -> list[Table]:
    """Return all tables, with those of charts."""
    return [block for block in flat(blocks) if isinstance(block, Table)]


def table_with(blocks: Iterable[Block], *heads: str) -> Table:
    """Return the first table that has all of these heads."""
    return next(one for one in tables(blocks) if set(heads) <= set(one.heads))


def rows_of(table: Table) -> list[dict[str, str]]:
    """Return the rows of a table, each cell by its head."""
    return [dict(zip(table.heads, row, strict=True)) for row in table.rows]
