"""A run on the terminal: tables, then what they mean in words, then what is missing and why."""

from collections.abc import Sequence

import msgspec
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from bench.analysis.summary import Summary
from bench.records.runs import Run
from bench.report.format import NOTHING, PLUS_MINUS
from bench.report.terminal import print_encodable
from bench.run.report.sentences import answer, sentences
from bench.run.report.tables import (
    QUESTION,
    Table,
    conditions_text,
    remark_lines,
    tables,
    taint_lines,
    unranked_lines,
)
from bench.text import clean, duration

_NAME_WRAPPED, _WRAPPED = 17, 15
"""A row's name, and any other text, is wrapped beyond this width. With these the figures that matter most fit
into 80 columns."""
_LEGEND = (
    f"samples/s: steady-state throughput; {PLUS_MINUS}: half the width of its 95 % interval; relative: to "
    "the fastest ranked row; to target: seconds of training until the target accuracy was seen; "
    f"{NOTHING}: no figure."
)

_MORE = (
    "REPORT.md has more: every comparison with its intervals, learning curves and tests of accuracy, the "
    "cost of a first result, where a step's time goes, memory, energy, the share of the peak, and parity."
)


class _Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Widths shared by all tables, and which columns stand together."""

    widths: tuple[int, ...]
    parts: tuple[tuple[int, ...], ...]
    """Indices of columns, without the first, which every part begins with."""
    gap: int


def render(run: Run, summary: Summary, console: Console) -> None:
    """Print the run at the console's width; the words are the same with colour and without."""
    print_encodable(console, lambda: _render(run, summary, console))


def _render(run: Run, summary: Summary, console: Console) -> None:
    _header(run, summary, console)
    drawn = [_cleaned(table) for table in tables(summary)]
    if drawn:
        layout = _lay_out(drawn, console.width)
        for table in drawn:
            _print(console, "")
            _print(console, table.title, "bold")
            for number, part in enumerate(layout.parts):
                # Every row stands in the first part; in the others only where there is something to show.
                if rows := [
                    row for row in range(len(table.ranked)) if not number or _shows(table, row, part)
                ]:
                    console.print(_part(table, rows, part, layout))
        _print(console, "")
        _print(console, _LEGEND, "dim")
    _heading(console, "Verdict")
    _items(console, answer(summary))
    for verdict in summary.verdicts:
        _print(console, "")
        _print(console, f"{verdict.workload} ({verdict.device} {verdict.precision})", "bold")
        _items(console, sentences(verdict, summary.titles))
    _list(console, "Disturbed blocks", [f"{name} {what}" for name, what in taint_lines(summary)])
    _list(console, "Not ranked or not measured", [f"{name}: {why}" for name, why in unranked_lines(summary)])
    _list(console, "Remarks", [f"{name}: {remark}" for name, remark in remark_lines(summary)])
    _list(console, "Lines of the record file that could not be read and are left out", run.rejected)
    _print(console, "")
    _print(console, _MORE, "dim")


def _header(run: Run, summary: Summary, console: Console) -> None:
    header = run.header
    _print(console, QUESTION, "bold")
    if summary.mark:
        _print(console, f"NOTE: {summary.mark}", "bold yellow")
    _print(console, f"Run {header.run_id}: preset {header.preset}, budget {duration(header.budget_s)}.")
    _print(console, f"Machine: {header.environment.in_words()}.")
    conditions = conditions_text(run)
    if conditions:
        _print(console, f"Conditions: {conditions}.")
    for warning in summary.warnings:
        _print(console, f"WARNING: {warning}", "bold yellow")


def _cleaned(table: Table) -> Table:
    return msgspec.structs.replace(
        table,
        columns=tuple(
            msgspec.structs.replace(column, cells=tuple(clean(cell) for cell in column.cells))
            for column in table.columns
        ),
    )


def _lay_out(drawn: Sequence[Table], width: int) -> _Layout:
    """Fit the columns of all tables to the console: side by side if they fit, else the costs below the rest.

    Where either is still too wide, it is cut into parts that fit.
    """
    widths = []
    for index, columns in enumerate(zip(*(table.columns for table in drawn), strict=True)):
        widest = max(cell_len(cell) for column in columns for cell in (column.title, *column.cells))
        most = _WRAPPED if index else _NAME_WRAPPED
        widths.append(widest if columns[0].number else min(widest, most))
    costs = [column.cost for column in drawn[0].columns]
    in_one = sum(widths) + len(widths) - 1 <= width
    gap = 2 if sum(widths) + 2 * (len(widths) - 1) <= width else 1
    parts: list[list[int]] = [[]]
    used = widths[0]
    for index, column_width in enumerate(widths[1:], start=1):
        costs_begin = not in_one and costs[index] and not costs[index - 1]
        if parts[-1] and (costs_begin or used + gap + column_width > width):
            parts.append([])
            used = widths[0]
        parts[-1].append(index)
        used += gap + column_width
    return _Layout(widths=tuple(widths), parts=tuple(tuple(part) for part in parts), gap=gap)


def _shows(table: Table, row: int, part: Sequence[int]) -> bool:
    return any(table.columns[index].cells[row] != NOTHING for index in part)


def _part(table: Table, rows: Sequence[int], part: Sequence[int], layout: _Layout) -> RichTable:
    """Return rows with their names and the columns of one part; a row that is not ranked is coloured."""
    drawn = RichTable(box=None, pad_edge=False, padding=(0, layout.gap, 0, 0), header_style="dim")
    chosen = [0, *part]
    for index in chosen:
        column = table.columns[index]
        drawn.add_column(
            Text(column.title),
            justify="right" if column.number else "left",
            width=layout.widths[index],
            overflow="fold",
        )
    for row in rows:
        texts = [Text(table.columns[index].cells[row]) for index in chosen]
        drawn.add_row(*texts, style=None if table.ranked[row] else "yellow")
    return drawn


def _heading(console: Console, text: str) -> None:
    _print(console, "")
    _print(console, text, "bold underline")


def _list(console: Console, heading: str, lines: Sequence[str]) -> None:
    if lines:
        _heading(console, heading)
        _items(console, lines)


def _items(console: Console, lines: Sequence[str]) -> None:
    for line in lines:
        wrapped = Text(clean(line), overflow="fold").wrap(console, console.width - 2)
        for number, part in enumerate(wrapped):
            part.rstrip()
            console.print(Text("  " if number else "\N{BULLET} ") + part, highlight=False)


def _print(console: Console, text: str, style: str = "") -> None:
    # Text, never markup: a name with brackets in it stays a name.
    console.print(Text(clean(text), style=style, overflow="fold"), highlight=False)
