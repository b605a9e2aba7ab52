"""The plots of a report: speed and memory as bars, parity as dots, and those of two other modules.

`curves` draws what was learned, `cost_plots` the other costs.

Plots and panels without any value are left out.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import msgspec
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from bench.analysis.summary import CellSummary, Summary
from bench.records.runs import Run
from bench.records.schema import ParityRecord
from bench.report.charts import (
    GREY,
    HATCHES,
    MARKERS,
    ON_LINES,
    RED,
    UNRANKED_HATCH,
    label,
    legend,
    make_panels,
    name_rows,
    settings,
    svg,
)
from bench.report.format import PLUS_MINUS, bytes_text, cell_name, rate_text, width_text
from bench.run.report import cost_plots, curves
from bench.run.report.style import Group, Style, groups_of, style_of
from bench.run.report.tables import state
from bench.workloads.specs import Cell


class _Bars(msgspec.Struct, frozen=True, kw_only=True):
    """What a plot with one bar for each cell shows."""

    axis: str
    value: Callable[[CellSummary], float | None]
    text: Callable[[CellSummary], str]
    interval: Callable[[CellSummary], tuple[float, float] | None] = lambda _: None


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
NAMES = (*_BARS, *curves.NAMES, *cost_plots.NAMES, "parity")
"""Every plot that a run can have."""


def draw(run: Run, summary: Summary) -> dict[str, bytes]:
    """Return, by name, the SVG of every plot for which the run has values."""
    with settings():
        return {name: svg(figure) for name, figure in figures(run, summary).items()}


def figures(run: Run, summary: Summary) -> dict[str, Figure]:
    """Return, by name, every plot for which the run has values; call it inside `settings`."""
    style = style_of(run, summary)
    groups = groups_of(summary)
    drawn = {
        **{name: _bar_figure(bars, groups, summary, style) for name, bars in _BARS.items()},
        **curves.figures(run, summary, style),
        **cost_plots.figures(run, summary, style),
        "parity": _parity_figure(run.parity, groups, summary, style),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _bar_figure(bars: _Bars, groups: Sequence[Group], summary: Summary, style: Style) -> Figure | None:
    shown = [(title, rows) for title, rows in groups if any(bars.value(row) is not None for row in rows)]
    if not shown:
        return None
    figure, panels = make_panels([0.75 + 0.23 * len(rows) for _, rows in shown])
    for panel, (title, rows) in zip(panels, shown, strict=True):
        _draw_bars(panel, bars, rows, summary, style)
        panel.set_title(label(title), loc="left")
        panel.set_xlabel(bars.axis)
    return figure


def _draw_bars(panel: Axes, bars: _Bars, rows: Sequence[CellSummary], summary: Summary, style: Style) -> None:
    largest = max(bars.value(row) or 0.0 for row in rows)
    for place, row in enumerate(rows):
        value = bars.value(row)
        if value is None:
            said = state(row) if row.samples_per_s is None else "not measured"
            panel.text(0.01 * largest, place, label(said), va="center", color=GREY, style="italic")
        else:
            end = _draw_bar(panel, bars, row, value, place=place, style=style)
            panel.annotate(
                label(_bar_text(bars, row), 60),
                (min(end, 1.2 * largest), place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                color="black" if row.ranked else RED,
                bbox=ON_LINES,
            )
    # The space to the right is for the text at the ends of the bars.
    panel.set_xlim(0, (1.75 if all(row.ranked for row in rows) else 2.2) * largest)
    name_rows(panel, [cell_name(row.cell, summary.titles) for row in rows])
    panel.xaxis.set_major_locator(MaxNLocator(4))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def _draw_bar(panel: Axes, bars: _Bars, row: CellSummary, value: float, *, place: int, style: Style) -> float:
    """Draw a bar and its interval, and return their right end."""
    panel.barh(
        place,
        value,
        height=0.72,
        facecolor=style.colour(row.cell) if row.ranked else "white",
        edgecolor="white" if row.ranked else GREY,
        hatch=style.look(row.cell, HATCHES) if row.ranked else UNRANKED_HATCH,
        linewidth=0.6,
    )
    interval = bars.interval(row)
    if interval is None:
        return value
    low, high = interval
    panel.errorbar(value, place, xerr=[[value - low], [high - value]], color="black", capsize=2.5, lw=1)
    return high


def _bar_text(bars: _Bars, row: CellSummary) -> str:
    """Return the text at the end of a bar."""
    if not row.ranked:
        return f"{bars.text(row)}, {state(row)}"
    if bars.interval(row) is None:
        return bars.text(row)
    return f"{bars.text(row)} {PLUS_MINUS}{width_text(row.half_width)}"


# ---- parity


class _Checks(msgspec.Struct, frozen=True, kw_only=True):
    """What all panels of the plot of parity share."""

    by_cell: Mapping[Cell, Sequence[ParityRecord]]
    markers: Mapping[str, str]
    """By kind of check."""
    left: float
    """Ends of the axis, in tolerances."""
    right: float


def _parity_figure(
    records: Sequence[ParityRecord], groups: Sequence[Group], summary: Summary, style: Style
) -> Figure | None:
    checks = _read_checks(records)
    shown = [(title, [row.cell for row in rows if row.cell in checks.by_cell]) for title, rows in groups]
    shown = [(title, cells) for title, cells in shown if cells]
    if not shown:
        return None
    figure, panels = make_panels([0.75 + 0.23 * len(cells) for _, cells in shown], legend=True)
    for panel, (title, cells) in zip(panels, shown, strict=True):
        _draw_checks(panel, cells, checks, style)
        name_rows(panel, [cell_name(cell, summary.titles) for cell in cells], grid=True)
        panel.set_title(label(title), loc="left")
        panel.set_xlabel("largest error / tolerance")
    entries: dict[str, Artist] = {
        kind: Line2D([], [], marker=marker, color=GREY, linestyle="none", markersize=6)
        for kind, marker in checks.markers.items()
    }
    entries["tolerance"] = Line2D([], [], color=RED, linewidth=1)
    legend(figure, entries, columns=len(entries))
    return figure


def _read_checks(records: Sequence[ParityRecord]) -> _Checks:
    by_cell: dict[Cell, list[ParityRecord]] = {}
    for record in records:
        if record.checks:
            by_cell.setdefault(record.cell, []).append(record)
    every = [check for found in by_cell.values() for record in found for check in record.checks]
    kinds = dict.fromkeys(check.kind for check in every)
    shares = [check.error / check.tolerance for check in every if check.error > 0]
    return _Checks(
        by_cell=by_cell,
        markers={kind: MARKERS[place % len(MARKERS)] for place, kind in enumerate(kinds)},
        # A logarithmic axis has no 0: an error of 0 is drawn at a tenth of the smallest.
        left=min([0.1, *shares]) / 10,
        right=max([1.0, *shares]) * 10,
    )


def _draw_checks(panel: Axes, cells: Sequence[Cell], checks: _Checks, style: Style) -> None:
    panel.axvline(1, color=RED, linewidth=1)
    dots = [
        (place, cell, check)
        for place, cell in enumerate(cells)
        for record in checks.by_cell[cell]
        for check in record.checks
    ]
    for place, cell, check in dots:
        panel.plot(
            max(check.error / check.tolerance, checks.left),
            place,
            marker=checks.markers[check.kind],
            color=style.colour(cell) if check.ok else RED,
            markeredgecolor="white",
            markeredgewidth=0.5,
            markersize=6,
            linestyle="none",
            clip_on=False,
        )
    panel.set_xscale("log")
    panel.set_xlim(checks.left, checks.right)
    panel.xaxis.set_major_locator(LogLocator(numticks=5))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.minorticks_off()


def _mib(count: int | None) -> float | None:
    return None if count is None else count / 2**20
