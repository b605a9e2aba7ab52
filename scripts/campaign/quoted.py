"""Tables, and cells of tables, from the Markdown reports that the campaign has written.

`tests/scripts/test_campaign_published.py` derives each of these reports again from the records.
"""

import re
from collections.abc import Iterator, Sequence

import msgspec

from bench.errors import BenchError

_BETWEEN_CELLS = re.compile(r"(?<!\\)\|")
ROW_CELLS = " / "
"""Between the first cells of a row, where one of them alone does not name it."""


class QuoteError(BenchError):
    """A report has no such table, or no such cell."""


class Quoted(msgspec.Struct, frozen=True, kw_only=True):
    """A table of a report. Its cells are Markdown, as the report has them."""

    text: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(report: str) -> Iterator[Quoted]:
    """Yield the tables of a report, in their order."""
    for found in re.finditer(r"(?:^\|.*\|$\n?)+", report, re.MULTILINE):
        text = found[0].rstrip("\n")
        heads, _, *rows = [_cells(line) for line in text.splitlines()]
        yield Quoted(text=text, heads=heads, rows=tuple(rows))


def _cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in _BETWEEN_CELLS.split(line)[1:-1])


def table(report: str, head: str) -> Quoted:
    """Return the first table that has a column of that name; raise QuoteError if there is none."""
    known = list(tables(report))
    for one in known:
        if head in one.heads:
            return one
    heads = dict.fromkeys(name for one in known for name in one.heads)
    raise QuoteError(f"no table has the column {head!r}; there are: {', '.join(heads) or 'no tables'}")


def cell(report: str, row: str, head: str) -> str:
    """Return the cell of a column in the row whose first cells are `row`; raise QuoteError without one.

    Several first cells are joined by " / ", as in `mnist-mlp / JAX jit`.
    """
    found = table(report, head)
    wanted = row.split(ROW_CELLS)
    rows = [one for one in found.rows if _begins(one, wanted)]
    if len(rows) != 1:
        raise QuoteError(f"{len(rows)} rows begin with {row!r}")
    return rows[0][found.heads.index(head)]


def _begins(cells: Sequence[str], wanted: Sequence[str]) -> bool:
    return list(cells[: len(wanted)]) == list(wanted)
