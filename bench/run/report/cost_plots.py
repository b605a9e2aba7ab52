"""The plots of what a run costs: time to a first result, a step's parts, the roofline, the batch-size sweep.

In the two plots of parts a colour is a part; in the other two it is the framework, as in all other plots.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from bench.analysis.costs import CellCosts, Costs, Place, read_costs, roof
from bench.analysis.summary import Summary
from bench.analysis.sweep import Sweep, leave_out_sweep, read_sweeps
from bench.records.runs import Run
from bench.report.charts import (
    COLOURS,
    GREY,
    LINES,
    MARKERS,
    label,
    legend,
    make_panels,
    name_rows,
)
from bench.report.format import cell_name, scaled, seconds_text, short_time
from bench.run.report.costs import ABOUT
from bench.run.report.style import Group, Style, groups_of
from bench.workloads.instruments import Peak
from bench.workloads.specs import Cell

NAMES = ("first_result", "step_split", "roofline", "sweep")

# From dark to light, so that neighbours also differ without colour.
_START_PARTS: Mapping[str, str] = MappingProxyType(
    {
        "start": "#000000",
        "import": COLOURS[0],
        "data": COLOURS[5],
        "build": COLOURS[1],
        "first step": COLOURS[4],
        "first epoch": "#D9D9D9",
    }
)
_STEP_PARTS: Mapping[str, str] = MappingProxyType(
    {"data": COLOURS[0], "transfer": COLOURS[4], "dispatch": COLOURS[5], "device": "#D9D9D9"}
)
_MOST_SIZES = 8
"""Largest number of batch sizes named on the axis of a sweep."""
_WIDE = 20.0
"""The axis of a sweep is logarithmic if the fastest is this many times the slowest; else it begins at 0."""
_LONGEST_BAR = 4.0
"""A bar is cut at this many times the length of the middle one."""

_Parts: TypeAlias = Sequence[float | None]
_Bar: TypeAlias = tuple[str, _Parts, str]
"""A row's name, its parts, and the text at its end."""


def figures(run: Run, summary: Summary, style: Style) -> dict[str, Figure | None]:
    """Return every plot by name, None if the run has no values for it; call it inside `settings`."""
    costs = read_costs(run, summary)
    kept = leave_out_sweep(summary)
    groups = [(title, [row for row in rows if row.cell in kept]) for title, rows in groups_of(summary)]
    return {
        "first_result": _first_result(costs, groups, summary),
        "step_split": _step_split(costs, groups, summary),
        "roofline": _roofline(costs, kept, summary, style),
        "sweep": _sweep(read_sweeps(summary), summary, style),
    }


def _first_result(costs: Costs, groups: Sequence[Group], summary: Summary) -> Figure | None:
    bars: dict[Cell, _Bar] = {}
    for one in costs.cells:
        start_up = one.start_up
        if any(part is not None for part in start_up.parts):
            about = "" if start_up.epoch_measured else f"{ABOUT} "
            whole = start_up.first_result_s
            text = "not all parts known" if whole is None else f"{about}{seconds_text(whole)}"
            bars[one.cell] = cell_name(one.cell, summary.titles), start_up.parts, text
    return _stacks(bars, groups, _START_PARTS, "seconds")


def _step_split(costs: Costs, groups: Sequence[Group], summary: Summary) -> Figure | None:
    """Draw shares, since steps may differ a hundredfold; the time is written at the end of the bar."""
    bars: dict[Cell, _Bar] = {}
    for one in costs.cells:
        split = one.split
        if split is not None:
            parts = (split.data_s, split.transfer_s, split.dispatch_s, split.device_s)
            whole = math.fsum(parts)
            shares = [100 * part / whole if whole else 0.0 for part in parts]
            bars[one.cell] = cell_name(one.cell, summary.titles), shares, short_time(whole)
    return _stacks(bars, groups, _STEP_PARTS, "% of the step")


def _stacks(
    bars: Mapping[Cell, _Bar], groups: Sequence[Group], colours: Mapping[str, str], axis: str
) -> Figure | None:
    """Return one panel for each group, with one bar for each row that consists of its parts."""
    shown = [(title, [bars[row.cell] for row in rows if row.cell in bars]) for title, rows in groups]
    shown = [(title, found) for title, found in shown if found]
    if not shown:
        return None
    figure, panels = make_panels([0.75 + 0.23 * len(found) for _, found in shown], legend=True)
    for panel, (title, found) in zip(panels, shown, strict=True):
        _draw_stacks(panel, found, list(colours.values()))
        panel.set_title(label(title), loc="left")
        panel.set_xlabel(axis)
    legend(figure, {part: Patch(facecolor=colour) for part, colour in colours.items()}, columns=len(colours))
    return figure


def _draw_stacks(panel: Axes, found: Sequence[_Bar], colours: Sequence[str]) -> None:
    """Draw the bars. A bar that would make all others too short is cut, and its text says so."""
    ends = sorted(_sum(parts) for _, parts, _ in found)
    longest = min(ends[-1], _LONGEST_BAR * ends[len(ends) // 2]) or 1.0
    for place, (_, parts, text) in enumerate(found):
        left = 0.0
        for part, colour in zip(parts, colours, strict=True):
            width = min(part or 0.0, longest - left)
            panel.barh(place, width, left=left, height=0.72, color=colour, linewidth=0)
            left += width
        panel.annotate(
            label(f"{text}, bar cut" if _sum(parts) > longest * (1 + 1e-9) else text),
            (left, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
        )
    panel.set_xlim(0, 1.6 * longest)  # the space to the right is for the text
    name_rows(panel, [name for name, _, _ in found])
    panel.xaxis.set_major_locator(FixedLocator(_ticks(longest)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def _ticks(longest: float) -> list[float]:
    """Return about five ticks from 0 to `longest`, a sum: for shares it is 100 except for rounding."""
    end = float(f"{longest:.9g}")
    ticks = MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(0, end)
    return [float(tick) for tick in ticks if tick <= end]


def _sum(parts: _Parts) -> float:
    return math.fsum(part for part in parts if part is not None)


def _roofline(costs: Costs, kept: frozenset[Cell], summary: Summary, style: Style) -> Figure | None:
    groups: dict[Place, tuple[Peak, list[CellCosts]]] = {}
    for one in costs.cells:
        if (
            one.cell in kept
            and one.work is not None
            and one.flops_per_s is not None
            and one.ceiling is not None
        ):
            place = one.cell.device, one.cell.precision
            groups.setdefault(place, (one.ceiling, []))[1].append(one)
    if not groups:
        return None
    figure, panels = make_panels([3.6] * len(groups), legend=True)
    entries: dict[str, Line2D] = {}
    for panel, ((device, precision), (ceiling, found)) in zip(panels, groups.items(), strict=True):
        _draw_roof(panel, found, ceiling)
        for one in found:
            look: dict[str, Any] = {
                "color": style.colour(one.cell),
                "marker": style.look(one.cell, MARKERS),
                "markeredgecolor": "white",
                "markeredgewidth": 0.5,
                "markersize": 6.5,
                "linestyle": "none",
            }
            panel.plot([one.work.intensity if one.work else math.nan], [one.flops_per_s or math.nan], **look)
            entries.setdefault(label(cell_name(one.cell, summary.titles), 45), Line2D([], [], **look))
        product, copy = scaled(ceiling.flops_per_s, "FLOP/s"), scaled(ceiling.bytes_per_s, "B/s")
        panel.set_title(f"{device} {precision}: best product {product}, best copy {copy}", loc="left")
    legend(figure, entries)
    return figure


def _draw_roof(panel: Axes, found: Sequence[CellCosts], ceiling: Peak) -> None:
    """Draw the machine's limits, and name the workload of every intensity below its points."""
    points = [(one.work.intensity, one.flops_per_s, one.cell.workload) for one in found if one.work]
    names: dict[float, list[str]] = {}
    lowest: dict[float, float] = {}
    for intensity, reached, workload in points:
        if workload not in names.setdefault(intensity, []):
            names[intensity].append(workload)
        lowest[intensity] = min(reached or math.inf, lowest.get(intensity, math.inf))
    ridge = ceiling.flops_per_s / ceiling.bytes_per_s
    left, right = min(*names, ridge) / 4, max(*names, ridge) * 4
    bottom, top = (
        min(lowest.values()) / 40,
        max(*(reached or 0.0 for _, reached, _ in points), ceiling.flops_per_s) * 2,
    )
    line = np.geomspace(left, right, 200)
    panel.plot(line, [roof(ceiling, float(value)) for value in line], color="black", linewidth=1.6)
    _name_intensities(panel, names, lowest, _apart(list(names), left, right))
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlim(left, right)
    panel.set_ylim(bottom, top)
    panel.xaxis.set_major_locator(LogLocator(numticks=6))
    panel.yaxis.set_major_locator(LogLocator(numticks=8))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: scaled(value, "FLOP/s")))
    panel.minorticks_off()
    panel.set_xlabel("FLOP per byte (matrix products, least traffic)")


def _name_intensities(
    panel: Axes, names: Mapping[float, Sequence[str]], lowest: Mapping[float, float], places: Sequence[float]
) -> None:
    """Write the workloads of each intensity near the axis, with a line up to its lowest point."""
    for place, intensity in zip(places, names, strict=True):
        panel.annotate(
            label(", ".join(names[intensity]), 26),
            (intensity, lowest[intensity] * 0.7),
            xytext=(place, 0.02),
            textcoords=("data", "axes fraction"),
            rotation=90,
            ha="center",
            va="bottom",
            color=GREY,
            fontsize=7.5,
            arrowprops={"arrowstyle": "-", "color": "#BFBFBF", "linewidth": 0.6},
        )


def _apart(places: Sequence[float], left: float, right: float) -> list[float]:
    """Return places of labels on a logarithmic axis at which they do not overlap."""
    least = math.log(right / left) / 26
    order = sorted(range(len(places)), key=lambda index: places[index])
    found = [math.log(place) for place in places]
    for before, index in pairwise(order):
        found[index] = max(found[index], found[before] + least)
    return [math.exp(place) for place in found]


def _sweep(sweeps: Sequence[Sweep], summary: Summary, style: Style) -> Figure | None:
    groups: dict[str, list[Sweep]] = {}
    for one in sweeps:
        title = f"{one.cell.workload} ({one.cell.device} {one.cell.precision})"
        groups.setdefault(title, []).append(one)
    if not groups:
        return None
    figure, panels = make_panels([2.6] * len(groups), legend=True)
    entries: dict[str, Line2D] = {}
    for panel, (title, found) in zip(panels, groups.items(), strict=True):
        for one in sorted(found, key=lambda one: style.place(one.cell)):
            look = _draw_sweep(panel, one, style)
            entries.setdefault(label(cell_name(one.cell, summary.titles), 45), Line2D([], [], **look))
        points = [point for one in found for point in one.points]
        sizes = sorted({point.batch_size for point in points})
        rates = [point.samples_per_s for point in points]
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_locator(FixedLocator(sizes[:: math.ceil(len(sizes) / _MOST_SIZES)]))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        if max(rates) > _WIDE * min(rates):
            panel.set_yscale("log")
            panel.yaxis.set_minor_locator(NullLocator())
        else:
            panel.set_ylim(0, 1.08 * max(rates))
            panel.yaxis.set_major_locator(MaxNLocator(5))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        panel.set_title(label(title), loc="left")
        panel.set_xlabel("batch size")
        panel.set_ylabel("samples/s")
    legend(figure, entries)
    return figure


def _draw_sweep(panel: Axes, one: Sweep, style: Style) -> dict[str, Any]:
    """Draw the measurements as markers and the fitted line as a curve; return their look."""
    colour, marker = style.colour(one.cell), style.look(one.cell, MARKERS)
    line_style = style.look(one.cell, LINES)
    batches = [point.batch_size for point in one.points]
    rates = [point.samples_per_s for point in one.points]
    panel.plot(batches, rates, color=colour, marker=marker, markersize=5, linestyle="none")
    line = one.line
    if line is not None and line.good:
        smooth = np.geomspace(batches[0], batches[-1], 100)
        fitted = smooth / (line.overhead_s + line.per_image_s * smooth)
        panel.plot(smooth, fitted, color=colour, linewidth=1.2, linestyle=line_style)
    else:
        panel.plot(batches, rates, color=colour, linewidth=0.8, linestyle=(0, (1, 2)))
    return {"color": colour, "marker": marker, "markersize": 5, "linewidth": 1.2, "linestyle": line_style}
