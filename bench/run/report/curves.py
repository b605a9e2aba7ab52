"""The plots of what was learned: first steps, curves with bands over the seeds, the target, own defaults.

A curve is the mean over the seeds, and its band reaches from the lowest seed to the highest. There is a
marker at every whole epoch, and more evaluations in between.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from bench.analysis.accuracy import Convergence, DefaultsAgainstMatched, WorkloadConvergence, converge
from bench.analysis.convergence import CellConvergence, CurvePoint
from bench.analysis.first_steps import WorkloadFirstSteps, first_steps
from bench.analysis.summary import Summary
from bench.records.runs import Run
from bench.report.charts import GREY, LINES, MARKERS, label, legend, make_panels, name_rows
from bench.report.format import cell_name, percent, seconds_text
from bench.run.report.style import Style
from bench.workloads.specs import Cell


class _Curves(msgspec.Struct, frozen=True, kw_only=True):
    """What a plot of training shows: the axes, a point's coordinates, its band, and the target."""

    x_axis: str
    y_axis: str
    x: Callable[[CurvePoint], float]
    y: Callable[[CurvePoint], tuple[float, float, float]]
    """The mean and the two ends of the band."""
    target: bool = False
    whole_x: bool = False
    from_quarter: bool = False
    """Whether the y axis begins at the lowest training after a quarter of the epochs.

    On an axis that includes the start, all seeds and frameworks would look like one line.
    """


def _accuracy(point: CurvePoint) -> tuple[float, float, float]:
    return 100 * point.test_accuracy, 100 * point.accuracy_low, 100 * point.accuracy_high


def _loss(point: CurvePoint) -> tuple[float, float, float]:
    return point.test_loss, point.loss_low, point.loss_high


_CURVES: Mapping[str, _Curves] = MappingProxyType(
    {
        "accuracy_epochs": _Curves(
            x_axis="epochs",
            y_axis="test accuracy (%)",
            x=lambda point: point.epoch,
            y=_accuracy,
            target=True,
            whole_x=True,
            from_quarter=True,
        ),
        "accuracy_seconds": _Curves(
            x_axis="seconds of training",
            y_axis="test accuracy (%)",
            x=lambda point: point.train_s,
            y=_accuracy,
            target=True,
        ),
        "loss_epochs": _Curves(
            x_axis="epochs", y_axis="test loss (nats)", x=lambda point: point.epoch, y=_loss, whole_x=True
        ),
        "loss_seconds": _Curves(
            x_axis="seconds of training", y_axis="test loss (nats)", x=lambda point: point.train_s, y=_loss
        ),
    }
)
NAMES = ("first_steps", *_CURVES, "to_target", "defaults")


def figures(run: Run, summary: Summary, style: Style) -> dict[str, Figure | None]:
    """Return every plot by name, None if the run has no values for it; call it inside `settings`."""
    learned = converge(run)
    wrong = frozenset(row.cell for row in summary.cells if row.parity_ok is False)
    return {
        "first_steps": _first_steps_figure(first_steps(run), summary, style),
        **{name: _curve_figure(curves, learned, summary, style, wrong) for name, curves in _CURVES.items()},
        "to_target": _to_target_figure(learned, summary, style),
        "defaults": _defaults_figure(learned.defaults, summary, style),
    }


def _curve_figure(
    curves: _Curves, learned: Convergence, summary: Summary, style: Style, wrong: frozenset[Cell]
) -> Figure | None:
    shown = [one for one in learned.workloads if any(cell.curve for cell in one.cells.values())]
    if not shown:
        return None
    figure, panels = make_panels([2.3] * len(shown), legend=True)
    entries: dict[str, Line2D] = {}
    for panel, workload in zip(panels, shown, strict=True):
        for cell in sorted(workload.cells, key=style.place):
            if workload.cells[cell].curve:
                look = _look(cell, style, comparable=cell not in wrong)
                _draw_curve(panel, curves, workload.cells[cell].curve, look)
                name = cell_name(cell, summary.titles) + (" (not comparable)" if cell in wrong else "")
                entries.setdefault(label(name, 45), Line2D([], [], **look))
        if curves.target and workload.target is not None:
            _draw_target(panel, workload.target)
        panel.set_title(_title(workload), loc="left")
        panel.set_xlabel(curves.x_axis)
        panel.set_ylabel(curves.y_axis)
        panel.set_xlim(left=0)
        if curves.from_quarter:
            panel.set_ylim(_limits(curves, workload))
        if curves.whole_x:
            panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    legend(figure, entries)
    return figure


def _look(cell: Cell, style: Style, *, comparable: bool) -> dict[str, Any]:
    return {
        "color": style.colour(cell),
        "linestyle": style.look(cell, LINES),
        "marker": style.look(cell, MARKERS) if comparable else "x",
        "linewidth": style.line_width(cell) if comparable else 0.8,
        "markersize": style.line_width(cell) + 2.5,
    }


def _draw_curve(panel: Axes, curves: _Curves, curve: Sequence[CurvePoint], look: Mapping[str, Any]) -> None:
    x = [curves.x(point) for point in curve]
    middle, low, high = zip(*(curves.y(point) for point in curve), strict=True)
    whole = [place for place, point in enumerate(curve) if point.epoch == round(point.epoch)]
    if low != high:
        panel.fill_between(x, low, high, color=look["color"], alpha=0.15, linewidth=0)
    # If the axis includes the start, the first marker is on its edge, where clipping would halve it.
    panel.plot(x, middle, **look, markevery=[*whole, len(curve) - 1], clip_on=curves.from_quarter)


def _limits(curves: _Curves, workload: WorkloadConvergence) -> tuple[float, float]:
    """Return the ends of a y axis that includes every seed after a quarter of the epochs, and the target."""
    late = [
        end
        for learned in workload.cells.values()
        for point in learned.curve
        if 4 * point.epoch >= learned.curve[-1].epoch
        for end in curves.y(point)
    ]
    shown = late if workload.target is None else [*late, 100 * workload.target]
    room = 0.1 * max(max(shown) - min(shown), 0.1)
    return min(shown) - room, max(shown) + room


def _draw_target(panel: Axes, target: float) -> None:
    panel.axhline(100 * target, color=GREY, linewidth=0.8, linestyle=(0, (2, 2)))
    panel.annotate(
        f"target\n{_target_text(target)}",  # outside the panel, where no curve can cross it
        (1, 100 * target),
        xytext=(3, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="left",
        va="center",
        color=GREY,
    )


def _to_target_figure(learned: Convergence, summary: Summary, style: Style) -> Figure | None:
    shown = [
        one
        for one in learned.workloads
        if any(cell.crossings and (cell.curve or cell.successes) for cell in one.cells.values())
    ]
    if not shown:
        return None
    figure, panels = make_panels([0.75 + 0.23 * len(one.cells) for one in shown], legend=True)
    for panel, workload in zip(panels, shown, strict=True):
        cells = sorted(workload.cells, key=style.place)
        ends = [
            _draw_ways(panel, workload.cells[cell], place, cell, style) for place, cell in enumerate(cells)
        ]
        largest = max(ends) or 1.0
        for place, cell in enumerate(cells):
            panel.annotate(
                _ways_text(workload.cells[cell]),
                (ends[place], place),
                xytext=(7, 0),
                textcoords="offset points",
                va="center",
            )
        panel.set_xlim(0, 1.7 * largest)
        name_rows(panel, [cell_name(cell, summary.titles) for cell in cells])
        panel.set_title(_title(workload), loc="left")
        panel.set_xlabel(f"seconds of training to {_target_text(workload.target or 0.0)}")
    marks: dict[str, Any] = {"color": GREY, "linestyle": "none"}
    entries = {
        "a training": Line2D([], [], marker="o", markersize=4, alpha=0.5, **marks),
        "median": Line2D([], [], marker="|", markersize=12, markeredgewidth=2, **marks),
        "trained so long without reaching it": Line2D([], [], marker=">", mfc="white", markersize=5, **marks),
    }
    legend(figure, entries)
    return figure


def _draw_ways(panel: Axes, cell: CellConvergence, place: int, name: Cell, style: Style) -> float:
    """Draw the trainings of one cell, and return their right end, in seconds."""
    colour = style.colour(name)
    reached = [one.seconds for one in cell.crossings.values() if one is not None]
    if reached:
        panel.plot(reached, [place] * len(reached), "o", color=colour, alpha=0.5, markersize=4, clip_on=False)
    if cell.seconds_to_target is not None:
        panel.plot(cell.seconds_to_target, place, "|", color=colour, markersize=12, markeredgewidth=2)
    # One mark for all trainings that ended without reaching it: they all trained for as long.
    missed = any(cell.crossings.get(seed) is None for seed in cell.accuracies)
    stopped = [cell.curve[-1].train_s] if missed else []
    panel.plot(stopped, [place] * len(stopped), ">", mec=colour, mfc="white", markersize=5)
    return max([*reached, *stopped], default=0.0)


def _ways_text(cell: CellConvergence) -> str:
    trials = len(cell.crossings)
    reached = f"{cell.successes} of {trials}"
    return (
        f"{seconds_text(cell.seconds_to_target)}, {reached}"
        if cell.seconds_to_target is not None
        else reached
    )


def _defaults_figure(
    pairs: Sequence[DefaultsAgainstMatched], summary: Summary, style: Style
) -> Figure | None:
    if not pairs:
        return None
    figure, panels = make_panels([0.95 + 0.42 * len(pair.rows) for pair in pairs], legend=True)
    for panel, pair in zip(panels, pairs, strict=True):
        for place, row in enumerate(pair.rows):
            sides = ((row.matched_point, -0.16, "o", True), (row.defaults_point, 0.16, "s", False))
            for point, offset, marker, filled in sides:
                middle, low, high = _accuracy(point)
                colour = style.colour(row.matched)
                panel.plot([low, high], [place + offset] * 2, color=colour, linewidth=1.2)
                face = colour if filled else "white"
                panel.plot(middle, place + offset, marker, mec=colour, mfc=face, markersize=6.5, mew=1.5)
        name_rows(panel, [cell_name(row.matched, summary.titles) for row in pair.rows])
        panel.set_title(label(f"{pair.matched} ({pair.device} {pair.precision})", 45), loc="left")
        panel.set_xlabel(f"test accuracy (%) after {pair.epoch:g} epoch{'' if pair.epoch == 1 else 's'}")
        panel.xaxis.set_major_locator(MaxNLocator(5))
        panel.margins(x=0.08)
    marks: dict[str, Any] = {"color": GREY, "linestyle": "none", "markersize": 6.5, "mew": 1.5}
    entries = {
        "matched": Line2D([], [], marker="o", **marks),
        "own defaults": Line2D([], [], marker="s", mfc="white", **marks),
        "lowest to highest seed": Line2D([], [], color=GREY, linewidth=1.2),
    }
    legend(figure, entries)
    return figure


def _title(workload: WorkloadConvergence | WorkloadFirstSteps) -> str:
    return label(f"{workload.workload} ({workload.device} {workload.precision})", 45)


def _target_text(target: float) -> str:
    return percent(target, 0 if round(1000 * target) % 10 == 0 else 1)


def _first_steps_figure(found: Sequence[WorkloadFirstSteps], summary: Summary, style: Style) -> Figure | None:
    if not found:
        return None
    figure, panels = make_panels([2.1] * len(found), legend=True)
    entries: dict[str, Artist] = {
        "reference disturbed by rounding": Patch(facecolor=GREY, alpha=0.25, linewidth=0)
    }
    for panel, workload in zip(panels, found, strict=True):
        # A logarithmic axis has no 0: an error of 0 is drawn at the lower end.
        errors = [error for cell in workload.cells.values() for error in (*cell.errors, *cell.rounding)]
        bottom = min((error for error in errors if error > 0), default=1e-9) / 2
        longest = max(workload.cells.values(), key=lambda cell: len(cell.rounding)).rounding
        _draw_disturbed(panel, [max(error, bottom) for error in longest], bottom)
        for cell in sorted(workload.cells, key=style.place):
            look = _look(cell, style, comparable=True)
            shown = [max(error, bottom) for error in workload.cells[cell].errors]
            panel.plot(range(1, len(shown) + 1), shown, **look, markevery=_few(len(shown)), clip_on=False)
            entries.setdefault(label(cell_name(cell, summary.titles), 45), Line2D([], [], **look))
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(numticks=6))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}"))
        panel.minorticks_off()
        panel.set_ylim(bottom, 3 * max([*errors, 10 * bottom]))
        panel.set_xlim(0.5, len(longest) + 0.5)
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        panel.set_title(_title(workload), loc="left")
        panel.set_xlabel("step")
        panel.set_ylabel("relative error of the loss")
    legend(figure, entries)
    return figure


def _draw_disturbed(panel: Axes, errors: Sequence[float], bottom: float) -> None:
    """Draw the errors of the disturbed reference as a band that is one step wide at each step."""
    edges = [0.5, *(step + 0.5 for step in range(1, len(errors) + 1))]
    panel.fill_between(edges, bottom, [*errors, errors[-1]], step="post", color=GREY, alpha=0.25, linewidth=0)


def _few(count: int) -> list[int]:
    """Return the places of at most eight markers, with the first and the last."""
    return sorted({round(place * (count - 1) / 7) for place in range(8)})
