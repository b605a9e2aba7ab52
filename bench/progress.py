"""Progress output: two bars on a terminal, plain lines if the output is piped.

No thread draws. A display draws only inside a call, so a caller that measures decides when it costs CPU time.
"""

import math
import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from bench.text import duration

DRAW_EVERY_S = 0.25
"""Bars and downloads that change all the time are drawn no more often."""


class Teller(Protocol):
    """Receives the progress of a piece of work. Seconds are wall-clock time."""

    def say(self, text: str) -> None:
        """Print a line that is not overwritten."""

    def overall(self, text: str, done: float, left_s: float | None) -> None:
        """Show the progress of the whole work: `done` from 0 to 1, `left_s` the estimated time left."""

    def job(self, text: str, done: float | None) -> None:
        """Show the progress of the current job: `done` from 0 to 1, or None if unknown."""


class Display(Teller, Protocol):
    """A teller that is a context manager and uses the terminal inside the context."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def make_display(console: Console) -> Display:
    """Return bars for a terminal, and lines for anything else."""
    return _Bars(console) if is_screen(console) else Lines(console)


def is_screen(console: Console) -> bool:
    """Whether the output is a terminal that can move its cursor. FORCE_COLOR does not make a pipe one."""
    return console.is_interactive and console.file.isatty()


class Lines:
    """A line for every tenth of the work, and for every call of `say`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tenth = -1

    def say(self, text: str) -> None:
        self._console.print(plain(text), soft_wrap=True, markup=False, highlight=False, emoji=False)

    def overall(self, text: str, done: float, left_s: float | None) -> None:
        tenth = int(done * 10)
        if tenth > self._tenth:
            self._tenth = tenth
            self.say(f"[{done:4.0%}] {text}{left_text(left_s)}")

    def job(self, text: str, done: float | None) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class _Bars:
    """Two bars, drawn when they change: a few times a second at most, at once where no length is known."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            BarColumn(bar_width=16), TextColumn("{task.percentage:>3.0f}%"),
            # A text that is too long for the line is cut. Without this, Rich shrinks bars and percentages.
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, ratio=1)),
            console=console, transient=True, auto_refresh=False, expand=True,
        )  # fmt: skip
        self._overall: TaskID = self._progress.add_task("", total=1.0)
        self._job: TaskID = self._progress.add_task("", total=1.0, visible=False)
        self._drawn = -math.inf
        """When it was drawn last, in seconds of the monotonic clock."""

    def say(self, text: str) -> None:
        self._progress.console.print(plain(text), markup=False, highlight=False, emoji=False)

    def overall(self, text: str, done: float, left_s: float | None) -> None:
        self._progress.update(
            self._overall, completed=min(done, 1.0), description=plain(text) + left_text(left_s)
        )
        self._draw(at_once=left_s is None)

    def job(self, text: str, done: float | None) -> None:
        self._progress.update(
            self._job, completed=done or 0.0, total=None if done is None else 1.0, visible=bool(text),
            description=plain(text),
        )  # fmt: skip
        self._draw(at_once=done is None)

    def _draw(self, *, at_once: bool) -> None:
        now = time.monotonic()
        if at_once or now - self._drawn >= DRAW_EVERY_S:
            self._drawn = now
            self._progress.refresh()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


def plain(text: str) -> str:
    """Return text without control characters, because the output of a worker can contain anything."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def left_text(left_s: float | None) -> str:
    """Return the time left as the end of a line; empty if it is unknown."""
    return "" if left_s is None else f", about {duration(left_s)} left"


class DownloadProgress:
    """Shows the bytes of a download as progress of the current job, and not too often."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._last = 0.0

    def __call__(self, what: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now - self._last > DRAW_EVERY_S or done == total:
            self._last = now
            size = (
                f"{done / 2**20:.1f} MiB"
                if total is None
                else f"{done / 2**20:.1f} of {total / 2**20:.1f} MiB"
            )
            self._display.job(f"{what}: {size}", done / total if total else None)
