"""What a run shows while it runs: on a terminal a table of its rows, in a pipe plain lines.

The table has a line for each row of the run, and below them what runs now and the time left. Nothing draws
it but the calls below, and the run makes them between turns. So no window that is timed shares the CPUs with
the drawing.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol, Self

import msgspec
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.live import Live
from rich.text import Text

from bench.progress import Display, Lines, is_screen, left_text, plain
from bench.report.format import PLUS_MINUS

DRAW_EVERY_S = 1.0
"""How often the table is drawn at most while rows take turns, or train for accuracy."""
REMEMBERED = 100
"""Lines that are printed again after the terminal has changed its size."""
_FULL = "\N{BOX DRAWINGS HEAVY HORIZONTAL}"
_BAR = 16
"""Most columns of the bar."""
_GAP = "  "
_MORE = "\N{HORIZONTAL ELLIPSIS}"
_LEAST_NAME = 6


class LiveRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the table. Texts are raw, as the records hold them."""

    workload: str
    name: str
    """Framework and mode."""
    blocks: str
    """Blocks done, such as `2/3`."""
    rate: str = ""
    """Samples/s so far."""
    half_width: str = ""
    fault: str = ""
    """Why the row will not be ranked; shown in place of its figures."""
    running: bool = False
    """Whether it is part of the block that runs now."""


class RunDisplay(Display, Protocol):
    """A display that also shows the rows of a run."""

    def detail(self, text: str) -> None:
        """Print a line, unless the table shows the same."""

    def rows(self, rows: Sequence[LiveRow]) -> None:
        """Show these rows from the next drawing on."""


def make_run_display(console: Console) -> RunDisplay:
    """Return the table for a terminal, and lines for anything else."""
    return LiveTable(console) if is_screen(console) else RunLines(console)


class RunLines(Lines):
    """Lines alone: every detail, and no table."""

    def detail(self, text: str) -> None:
        self.say(text)

    def rows(self, rows: Sequence[LiveRow]) -> None:
        pass


class LiveTable:
    """The table at the bottom of the terminal, below what was said; it is taken away at the end."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._said: deque[str] = deque(maxlen=REMEMBERED)
        self._rows: Sequence[LiveRow] = ()
        self._overall, self._done = "", 0.0
        self._left_s: float | None = None
        """The time left when it was told, at `_told`."""
        self._told = 0.0
        self._job = ""
        self._drawn = -math.inf
        self._size = (0, 0)
        """Columns and lines of what was drawn last."""
        self._live = Live(
            console=console, auto_refresh=False, transient=True, vertical_overflow="crop",
            get_renderable=self._render,
        )  # fmt: skip

    def say(self, text: str) -> None:
        self._said.append(plain(text))
        self._restore()
        self._print(self._said[-1])

    def detail(self, text: str) -> None:
        pass

    def rows(self, rows: Sequence[LiveRow]) -> None:
        self._rows = rows

    def overall(self, text: str, done: float, left_s: float | None) -> None:
        self._overall, self._done = text, min(max(done, 0.0), 1.0)
        self._left_s, self._told = left_s, self._clock()
        self._draw(at_once=True)

    def job(self, text: str, done: float | None) -> None:
        self._job = text
        self._draw(at_once=done is None)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rows, self._overall, self._job = (), "", ""
        self._live.stop()

    def _draw(self, *, at_once: bool) -> None:
        now = self._clock()
        if self._live.is_started and (at_once or now - self._drawn >= DRAW_EVERY_S):
            self._drawn = now
            self._restore()
            self._live.refresh()

    def _restore(self) -> None:
        """Begin on a clear screen if the terminal has become too small for what was drawn.

        It has wrapped or moved the old lines then, and nobody knows where they are.
        """
        width, height = self._console.size
        if self._live.is_started and (width < self._size[0] or height < self._size[1]):
            self._size = (0, 0)
            self._console.clear()
            if self._said:
                self._print("\n".join(list(self._said)[-height:]))

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, emoji=False)

    def _render(self) -> Text:
        width, height = self._console.size
        below = [self._progress(width) if self._overall else "", self._job]
        lines = table_lines(self._rows, [line for line in below if line], width, height - 1)
        self._size = (max((line.cell_len for line in lines), default=0), len(lines))
        return Text("\n", no_wrap=True, overflow="crop", end="").join(lines)

    def _progress(self, width: int) -> str:
        """Return the bar of the whole run and the time left, both moved on since they were told.

        What is done comes last, as the line may be cut.
        """
        done, left = self._done, ""
        if self._left_s is not None:
            left_s = max(0.0, self._left_s - (self._clock() - self._told))
            left = left_text(left_s)
            done = 1 - (1 - done) * left_s / self._left_s if self._left_s > 0 else done
        size = min(_BAR, width // 5)
        return f"{(_FULL * round(size * done)).ljust(size)} {done:4.0%}{left}: {self._overall}"


class _Line(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the table, not yet cut to the width of the terminal."""

    text: str
    style: str = ""
    running: bool = False


def table_lines(rows: Sequence[LiveRow], below: Sequence[str], width: int, height: int) -> list[Text]:
    """Return the table and the lines below it: no line wider than `width`, and at most `height` lines.

    If there is no room for all rows, those of the block that runs now are among the ones that are shown.
    """
    under = [_Line(text=plain(line)) for line in below][: max(1, height)]
    room = height - len(under) - 1  # the empty line above them
    table = _table([_cleaned(row) for row in rows], width) if rows and room > 1 else []
    if table and len(table) > room:
        table = _window(table, room)
    shown = [*table, _Line(text=""), *under] if table else under
    return [Text(_fit(line.text, width).rstrip(), style=line.style) for line in shown]


def _table(rows: Sequence[LiveRow], width: int) -> list[_Line]:
    """Return the head and a line for each row: beside its workload's name, or below it if need be."""
    heads = LiveRow(workload="workload", name="row", blocks="done", rate="samples/s", half_width=PLUS_MINUS)
    every = [heads, *rows]
    figures = [max(map(cell_len, column)) for column in zip(*map(_figures, every), strict=True)]
    workloads = max(cell_len(row.workload) for row in every)
    names = max(cell_len(row.name) for row in every)
    beside = workloads + names + sum(figures) + len(_GAP) * (len(figures) + 1) <= width
    gap, indent = (_GAP, workloads) if beside else (" ", 0)
    if not beside:
        names = max(_LEAST_NAME, min(names, width - len(gap) * (len(figures) + 1) - sum(figures)))
    lines: list[_Line] = []
    before = heads.workload if not beside else None
    for row in every:
        style = "dim" if row is heads else "bold" if row.running else "yellow" if row.fault else ""
        new = row.workload != before
        before = row.workload
        if new and not beside:
            lines.append(_Line(text=row.workload, style=style, running=row.running))
        first = _fit(row.workload if new and beside else "", indent)
        cells = [first, _fit(row.name, names), _right(row.blocks, figures[0])]
        if row.fault:
            cells.append(row.fault)
        else:
            cells += [_right(row.rate, figures[1]), _right(row.half_width, figures[2])]
        lines.append(_Line(text=gap.join(cells), style=style, running=row.running))
    return lines


def _figures(row: LiveRow) -> tuple[str, ...]:
    return row.blocks, row.rate, row.half_width


def _window(table: Sequence[_Line], room: int) -> list[_Line]:
    """Return the head, as many lines as there is room for, and how many are left out."""
    head, *lines = table
    count = max(1, room - 2)
    first = next((place for place, line in enumerate(lines) if line.running), 0)
    start = min(first, max(0, len(lines) - count))
    shown = lines[start : start + count]
    rest = _Line(text=f"{_MORE} {len(lines) - len(shown)} more lines", style="dim")
    return [head, *shown, rest][:room]


def _cleaned(row: LiveRow) -> LiveRow:
    texts = ("workload", "name", "blocks", "rate", "half_width", "fault")
    return msgspec.structs.replace(row, **{name: plain(getattr(row, name)) for name in texts})


def _fit(text: str, width: int) -> str:
    """Return text of exactly so many columns; what is too long ends with an ellipsis."""
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    return f"{set_cell_size(text, width - 1)}{_MORE}" if width > 0 else ""


def _right(text: str, width: int) -> str:
    return " " * (width - cell_len(text)) + text
