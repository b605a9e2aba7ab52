"""The plots of a report, as SVG that is the same to the byte whenever it is made from the same run.

A backend has one colour, and a mode one hatch, marker and line, in all of them. A plot without a single value
is not made, and neither is such a panel. Matplotlib's objects are used directly, never its list of figures.
"""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from types import MappingProxyType
from typing import Any, TypeAlias

import matplotlib as mpl
import msgspec
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from bench.records import EpochPoint, JobRecord, ParityRecord
from bench.report import PLUS_MINUS, bytes_text, clean, percent, rate_text, seconds_text, state, width_text
from bench.runs import Run
from bench.specs import Cell
from bench.summary import CellSummary, Summary
from bench.verdicts import cell_name

# Okabe and Ito's palette, told apart with any colour vision; its yellow is left out, too pale for lines.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_HATCHES = ("", "///", "...", "\\\\\\", "ooo", "---", "+++")
_MARKERS = ("o", "s", "^", "D", "v", "P", "h")
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 3)))
_GREY = "#595959"
_RED = "#B00020"
_UNRANKED_HATCH = "xxxx"
_FONT = "DejaVu Sans"
_WIDTH_IN = 8.0
_LONGEST_NAME = 30
_RC: Mapping[Any, Any] = MappingProxyType(
    {
        "svg.hashsalt": "samework",  # else the ids inside the file are drawn at random
        "svg.fonttype": "path",  # looks the same where the font is not installed
        "font.family": _FONT,  # comes with Matplotlib
        "font.size": 8.5,
        "axes.titlesize": 9.5,
        "axes.titleweight": "bold",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "grid.color": "#E0E0E0",
        "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    }
)

_Group: TypeAlias = tuple[str, list[CellSummary]]


class _Style(msgspec.Struct, frozen=True, kw_only=True):
    """How every backend and mode of a run looks."""

    backends: tuple[str, ...]
    modes: Mapping[str, tuple[str, ...]]
    """The modes of each backend, in the order in which looks are given out."""

    def colour(self, cell: Cell) -> str:
        return _COLOURS[self.backends.index(cell.backend) % len(_COLOURS)]

    def look(self, cell: Cell, looks: Sequence[Any]) -> Any:
        return looks[self.modes[cell.backend].index(cell.mode) % len(looks)]

    def place(self, cell: Cell) -> tuple[int, int]:
        return self.backends.index(cell.backend), self.modes[cell.backend].index(cell.mode)

    def line_width(self, cell: Cell) -> float:
        """Return a width that shrinks from backend to backend, so that equal curves all stay in sight."""
        return max(1.0, 3.6 - 1.1 * self.backends.index(cell.backend))


class _Bars(msgspec.Struct, frozen=True, kw_only=True):
    """What a plot with one bar a cell shows."""

    axis: str
    value: Callable[[CellSummary], float | None]
    text: Callable[[CellSummary], str]
    interval: Callable[[CellSummary], tuple[float, float] | None] = lambda _: None


class _Curves(msgspec.Struct, frozen=True, kw_only=True):
    """What a plot of training shows: a point's place, and whether the target is drawn."""

    x_axis: str
    y_axis: str
    x: Callable[[EpochPoint], float]
    y: Callable[[EpochPoint], float]
    target: bool = False
    whole_x: bool = False


_BARS: Mapping[str, _Bars] = MappingProxyType(
    {
        "speed": _Bars(
            axis="samples/s",
            value=lambda row: row.samples_per_s,
            text=lambda row: rate_text(row.samples_per_s),
            interval=lambda row: (
                None
                if row.samples_per_s_low is None or row.samples_per_s_high is None
                else (row.samples_per_s_low, row.samples_per_s_high)
            ),
        ),
        "first_step": _Bars(
            axis="seconds",
            value=lambda row: row.first_step_s,
            text=lambda row: seconds_text(row.first_step_s),
        ),
        "memory": _Bars(
            axis="MiB",
            value=lambda row: _mib(row.peak_rss_bytes),
            text=lambda row: bytes_text(row.peak_rss_bytes),
        ),
        "gpu_memory": _Bars(
            axis="MiB",
            value=lambda row: _mib(row.peak_device_bytes),
            text=lambda row: bytes_text(row.peak_device_bytes),
        ),
    }
)
_CURVES: Mapping[str, _Curves] = MappingProxyType(
    {
        "accuracy_epochs": _Curves(
            x_axis="epochs",
            y_axis="test accuracy (%)",
            x=lambda point: point.epoch,
            y=lambda point: 100 * point.test_accuracy,
            target=True,
            whole_x=True,
        ),
        "accuracy_seconds": _Curves(
            x_axis="seconds of training",
            y_axis="test accuracy (%)",
            x=lambda point: point.train_s,
            y=lambda point: 100 * point.test_accuracy,
            target=True,
        ),
        "loss_epochs": _Curves(
            x_axis="epochs",
            y_axis="test loss (nats)",
            x=lambda point: point.epoch,
            y=lambda point: point.test_loss,
            whole_x=True,
        ),
        "loss_seconds": _Curves(
            x_axis="seconds of training",
            y_axis="test loss (nats)",
            x=lambda point: point.train_s,
            y=lambda point: point.test_loss,
        ),
    }
)
NAMES = (*_BARS, *_CURVES, "parity")
"""Every plot there can be."""


def draw(run: Run, summary: Summary) -> dict[str, bytes]:
    """Return, by name, the SVG of every plot for which the run holds values."""
    with settings():
        return {name: _svg(figure) for name, figure in figures(run, summary).items()}


@contextmanager
def settings() -> Iterator[None]:
    """Draw with this module's settings, whatever the user's own are; they are put back at the end."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RC)
        yield


def figures(run: Run, summary: Summary) -> dict[str, Figure]:
    """Return, by name, every plot for which the run holds values; to be called inside `settings`."""
    style = _style(run, summary)
    groups = [
        (f"{workload} ({device} {precision})", list(rows))
        for (workload, device, precision), rows in groupby(
            summary.cells, key=lambda row: (row.workload, row.device, row.precision)
        )
    ]
    jobs: dict[Cell, list[JobRecord]] = {}
    for job in run.jobs:
        if job.points and job.points[-1].steps > 0:  # the first point is taken before training
            jobs.setdefault(job.spec.cell, []).append(job)
    drawn = {
        **{name: _bar_figure(bars, groups, summary, style) for name, bars in _BARS.items()},
        **{name: _curve_figure(curves, groups, jobs, summary, style) for name, curves in _CURVES.items()},
        "parity": _parity_figure(run.parity, groups, summary, style),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _style(run: Run, summary: Summary) -> _Style:
    cells = [row.cell for row in summary.cells]
    here = {backend.name: tuple(backend.modes) for backend in run.header.backends}
    backends = tuple(dict.fromkeys([*here, *sorted(cell.backend for cell in cells)]))
    modes = {
        name: tuple(
            dict.fromkeys([*here.get(name, ()), *sorted(cell.mode for cell in cells if cell.backend == name)])
        )
        for name in backends
    }
    return _Style(backends=backends, modes=modes)


def _bar_figure(bars: _Bars, groups: Sequence[_Group], summary: Summary, style: _Style) -> Figure | None:
    shown = [(title, rows) for title, rows in groups if any(bars.value(row) is not None for row in rows)]
    if not shown:
        return None
    figure, panels = _panels([0.75 + 0.23 * len(rows) for _, rows in shown])
    for panel, (title, rows) in zip(panels, shown, strict=True):
        _draw_bars(panel, bars, rows, summary, style)
        panel.set_title(_label(title), loc="left")
        panel.set_xlabel(bars.axis)
    return figure


def _draw_bars(
    panel: Axes, bars: _Bars, rows: Sequence[CellSummary], summary: Summary, style: _Style
) -> None:
    largest = max(bars.value(row) or 0.0 for row in rows)
    for place, row in enumerate(rows):
        value = bars.value(row)
        if value is None:
            said = state(row) if row.samples_per_s is None else "not measured"
            panel.text(0.01 * largest, place, _label(said), va="center", color=_GREY, style="italic")
            continue
        panel.barh(
            place,
            value,
            height=0.72,
            facecolor=style.colour(row.cell) if row.ranked else "white",
            edgecolor="white" if row.ranked else _GREY,
            hatch=style.look(row.cell, _HATCHES) if row.ranked else _UNRANKED_HATCH,
            linewidth=0.6,
        )
        end, text, interval = value, bars.text(row), bars.interval(row)
        if interval is not None:
            low, high = interval
            panel.errorbar(
                value, place, xerr=[[value - low], [high - value]], color="black", capsize=2.5, lw=1
            )
            end = high
            if row.ranked:
                text += f" {PLUS_MINUS}{width_text(row.half_width)}"
        if not row.ranked:
            text += f", {state(row)}"
        panel.annotate(
            _label(text, 60),
            (min(end, 1.2 * largest), place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color="black" if row.ranked else _RED,
            # A wide interval reaches under its own figure, which must stay legible.
            bbox={"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 0.8},
        )
    # The room to the right is for what stands at the bars' ends.
    panel.set_xlim(0, (1.75 if all(row.ranked for row in rows) else 2.2) * largest)
    panel.set_ylim(len(rows) - 0.4, -0.6)
    panel.set_yticks(range(len(rows)), [_label(cell_name(row.cell, summary.titles)) for row in rows])
    panel.tick_params(axis="y", length=0)
    panel.grid(visible=False, axis="y")
    panel.xaxis.set_major_locator(MaxNLocator(4))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def _curve_figure(
    curves: _Curves,
    groups: Sequence[_Group],
    jobs: Mapping[Cell, Sequence[JobRecord]],
    summary: Summary,
    style: _Style,
) -> Figure | None:
    shown = [(title, [row for row in rows if row.cell in jobs]) for title, rows in groups]
    shown = [(title, rows) for title, rows in shown if rows]
    if not shown:
        return None
    figure, panels = _panels([2.3] * len(shown), legend=True)
    entries: dict[str, Line2D] = {}
    for panel, (title, rows) in zip(panels, shown, strict=True):
        for row in sorted(rows, key=lambda row: style.place(row.cell)):
            comparable = row.parity_ok is not False
            look: dict[str, Any] = {
                "color": style.colour(row.cell),
                "linestyle": style.look(row.cell, _LINES),
                "marker": style.look(row.cell, _MARKERS) if comparable else "x",
                "linewidth": style.line_width(row.cell) if comparable else 0.8,
                "markersize": style.line_width(row.cell) + 2.5,
            }
            for job in jobs[row.cell]:
                x, y = zip(*((curves.x(point), curves.y(point)) for point in job.points), strict=True)
                panel.plot(x, y, **look, clip_on=False)  # the first marker stands on the edge
            name = cell_name(row.cell, summary.titles) + ("" if comparable else " (not comparable)")
            entries.setdefault(_label(name, 45), Line2D([], [], **look))
        target = rows[0].target_accuracy
        if curves.target and target is not None:
            panel.axhline(100 * target, color=_GREY, linewidth=0.8, linestyle=(0, (2, 2)))
            panel.annotate(
                f"target {percent(target, 0)}",
                (0.03, 100 * target),  # to the left, where the curves have not risen yet
                xycoords=("axes fraction", "data"),
                ha="left",
                va="top",
                color=_GREY,
            )
        panel.set_title(_label(title), loc="left")
        panel.set_xlabel(curves.x_axis)
        panel.set_ylabel(curves.y_axis)
        panel.set_xlim(left=0)
        if curves.whole_x:
            panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside lower center",
        ncols=min(4, len(entries)),
        frameon=False,
    )
    return figure


def _parity_figure(
    records: Sequence[ParityRecord], groups: Sequence[_Group], summary: Summary, style: _Style
) -> Figure | None:
    checked: dict[Cell, list[ParityRecord]] = {}
    for record in records:
        if record.checks:
            checked.setdefault(record.cell, []).append(record)
    shown = [(title, [row.cell for row in rows if row.cell in checked]) for title, rows in groups]
    shown = [(title, cells) for title, cells in shown if cells]
    if not shown:
        return None
    kinds = list(
        dict.fromkeys(check.kind for found in checked.values() for one in found for check in one.checks)
    )
    markers = {kind: _MARKERS[place % len(_MARKERS)] for place, kind in enumerate(kinds)}
    shares = [
        check.error / check.tolerance
        for found in checked.values()
        for record in found
        for check in record.checks
        if check.error > 0
    ]
    # A logarithmic axis has no 0: an error of 0 stands at a tenth of the smallest.
    left, right = min([0.1, *shares]) / 10, max([1.0, *shares]) * 10
    figure, panels = _panels([0.75 + 0.23 * len(cells) for _, cells in shown], legend=True)
    for panel, (title, cells) in zip(panels, shown, strict=True):
        panel.axvline(1, color=_RED, linewidth=1)
        for place, cell in enumerate(cells):
            for record in checked[cell]:
                for check in record.checks:
                    panel.plot(
                        max(check.error / check.tolerance, left),
                        place,
                        marker=markers[check.kind],
                        color=style.colour(cell) if check.ok else _RED,
                        markeredgecolor="white",
                        markeredgewidth=0.5,
                        markersize=6,
                        linestyle="none",
                        clip_on=False,
                    )
        panel.set_xscale("log")
        panel.set_xlim(left, right)
        panel.xaxis.set_major_locator(LogLocator(numticks=5))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.minorticks_off()
        panel.set_ylim(len(cells) - 0.4, -0.6)
        panel.set_yticks(range(len(cells)), [_label(cell_name(cell, summary.titles)) for cell in cells])
        panel.tick_params(axis="y", length=0)
        panel.set_title(_label(title), loc="left")
        panel.set_xlabel("largest error / tolerance")
    entries = [
        Line2D([], [], marker=marker, color=_GREY, linestyle="none", markersize=6)
        for marker in markers.values()
    ]
    entries.append(Line2D([], [], color=_RED, linewidth=1))
    figure.legend(
        entries, [*kinds, "tolerance"], loc="outside lower center", ncols=len(entries), frameon=False
    )
    return figure


def _panels(heights_in: Sequence[float], *, legend: bool = False) -> tuple[Figure, list[Axes]]:
    """Return a figure with one panel for each height, two in a row, and none without a use."""
    columns = 1 if len(heights_in) == 1 else 2
    rows = [max(heights_in[start : start + columns]) for start in range(0, len(heights_in), columns)]
    figure = Figure(figsize=(_WIDTH_IN, sum(rows) + (0.3 if legend else 0.0)), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False, gridspec_kw={"height_ratios": rows})
    panels = list(grid.flat)
    for unused in panels[len(heights_in) :]:
        unused.remove()
    return figure, panels[: len(heights_in)]


def _svg(figure: Figure) -> bytes:
    FigureCanvasSVG(figure)
    file = io.BytesIO()
    # A date or a version in the file would make every regeneration a change.
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()


def _label(text: str, longest: int = _LONGEST_NAME) -> str:
    """Return text that Matplotlib draws as it stands, shortened where it would push the plot away."""
    font = get_font(findfont(_FONT))
    drawn = "".join(char if font.get_char_index(ord(char)) else "?" for char in clean(text))
    # A legend leaves out what begins with an underscore.
    drawn = f" {drawn}" if drawn.startswith("_") else drawn
    return drawn if len(drawn) <= longest else f"{drawn[: longest - 1]}\N{HORIZONTAL ELLIPSIS}"


def _mib(count: int | None) -> float | None:
    return None if count is None else count / 2**20
