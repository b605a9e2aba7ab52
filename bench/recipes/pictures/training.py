"""Pictures of training runs: curves with the notebook's figures, and the distributions of the parameters."""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatter

from bench.recipes.catalog import Published
from bench.recipes.metrics import QUANTILES
from bench.recipes.pictures.figures import COLOURS, GREY, label, legend, make_panels
from bench.recipes.records import Training

MOST_SHOWN = 20
"""At how many steps, evenly spaced, a distribution is drawn at most: more would not be seen in a panel."""


class _Panel(NamedTuple):
    axes: Axes
    metric: str
    """`accuracy` or `loss`."""
    scale: float
    first: float
    """The first step that is shown."""


def curves(
    trainings: Sequence[Training],
    published: Sequence[Published],
    loss_scale: float,
    unit: str,
    *,
    backends: Sequence[str] = (),
) -> Figure:
    """Draw accuracy and loss over the steps: the mean over the seeds, and a band from lowest to highest.

    Lines are solid for test images and dotted for training images; a cross is a figure of the notebook. A
    third panel shows the accuracy from a tenth of the steps on, as the start hides differences at the end.
    `backends` are those of all pictures of a report, so that each has the same colour everywhere.
    """
    figure, (accuracy, loss, late) = make_panels([2.6] * 3, legend=True)
    last = max(one.figures[-1].step for one in trainings)
    panels = (
        _Panel(accuracy, "accuracy", 1.0, 0),
        _Panel(loss, "loss", loss_scale, 0),
        _Panel(late, "accuracy", 1.0, last / 10),
    )
    entries = _draw_backends(panels, trainings, backends)
    entries["training images"] = Line2D([], [], color=GREY, linestyle=":")
    for one in published:
        for panel in panels:
            if one.metric.endswith(panel.metric) and one.step >= panel.first:
                _mark(panel, one)
        entries["the notebook's figure"] = Line2D(
            [], [], color="black", marker="x", linestyle="none", markeredgewidth=1.5
        )
    titles = ("accuracy", f"loss ({unit})", f"accuracy from step {math.ceil(last / 10):,} on")
    for panel, title in zip(panels, titles, strict=True):
        panel.axes.set_title(label(title, 60), loc="left")
        panel.axes.set_xlabel("steps")
        panel.axes.set_xlim(left=panel.first)
    late.set_ylim(_limits(late, last / 10))
    loss.set_yscale("log")
    loss.yaxis.set_major_formatter(LogFormatter())
    loss.yaxis.set_minor_formatter(LogFormatter())  # few labels, and none over many decades
    legend(figure, entries, columns=3)
    return figure


def _draw_backends(
    panels: Sequence[_Panel], trainings: Sequence[Training], backends: Sequence[str]
) -> dict[str, Line2D]:
    """Draw the curves of every backend, and return their entries in the legend."""
    entries: dict[str, Line2D] = {}
    by_backend = sorted(trainings, key=lambda one: one.header.cell.backend)
    for backend, group in groupby(by_backend, key=lambda one: one.header.cell.backend):
        seeds = list(group)
        number = backends.index(backend) if backend in backends else len(entries)
        colour = COLOURS[number % len(COLOURS)]
        width = max(1.0, 3.4 - 0.9 * number)
        for split, line in (("test", "-"), ("train", ":")):
            look = {"color": colour, "linestyle": line, "linewidth": width if line == "-" else 0.9}
            for panel in panels:
                _draw(panel, seeds, split, look)
        title = f"{seeds[0].header.backend.title} ({len(seeds)} seed{'s' if len(seeds) > 1 else ''})"
        entries[label(title, 40)] = Line2D([], [], color=colour, linewidth=width)
    return entries


def _draw(panel: _Panel, seeds: Sequence[Training], split: str, look: Mapping[str, Any]) -> None:
    common = set.intersection(*({figure.step for figure in one.figures} for one in seeds))
    steps, field = sorted(common), f"{split}_{panel.metric}"
    values = np.array(
        [[panel.scale * getattr(f, field) for f in one.figures if f.step in common] for one in seeds]
    )
    if len(seeds) > 1 and look["linestyle"] == "-":
        lowest, highest = values.min(0), values.max(0)
        panel.axes.fill_between(steps, lowest, highest, color=look["color"], alpha=0.15, linewidth=0)
    panel.axes.plot(steps, values.mean(0), **look)


def _limits(panel: Axes, first: float) -> tuple[float, float]:
    """Return the ends of a y axis that holds all lines of a panel from a step on, with a little room."""
    points = np.concatenate([np.asarray(line.get_xydata()) for line in panel.lines])
    values = points[points[:, 0] >= first, 1]
    room = 0.05 * max(float(np.ptp(values)), 0.001)
    return float(values.min()) - room, float(values.max()) + room


def _mark(panel: _Panel, one: Published) -> None:
    low, high = panel.scale * one.low, panel.scale * one.high
    if low == high:
        panel.axes.plot([one.step], [low], "x", color="black", markeredgewidth=1.5, clip_on=False)
    else:
        panel.axes.plot([one.step] * 2, [low, high], "x-", color="black", linewidth=1)


def distributions(training: Training) -> Figure:
    """Draw the distribution of every parameter over the steps: median, two bands, and the extremes."""
    names = list(training.figures[0].distributions)
    figure, panels = make_panels([1.7] * len(names), legend=True)
    last = len(training.figures) - 1
    shown = [
        training.figures[place] for place in np.unique(np.linspace(0, last, MOST_SHOWN).round().astype(int))
    ]
    steps = [one.step for one in shown]
    for panel, name in zip(panels, names, strict=True):
        spread = np.array([one.distributions[name].quantiles for one in shown])
        for low, high, alpha in ((1, 5, 0.2), (2, 4, 0.4)):
            panel.fill_between(
                steps, spread[:, low], spread[:, high], color=COLOURS[0], alpha=alpha, linewidth=0
            )
        panel.plot(steps, spread[:, 3], color=COLOURS[0], linewidth=1.5)
        for end in (0, 6):
            panel.plot(steps, spread[:, end], color=GREY, linewidth=0.7)
        panel.set_title(label(name), loc="left")
    for panel in panels[-2:]:
        panel.set_xlabel("steps")
    inner, outer = (QUANTILES[4] - QUANTILES[2], QUANTILES[5] - QUANTILES[1])
    legend(
        figure,
        {
            "median": Line2D([], [], color=COLOURS[0]),
            f"the middle {inner:.0%}": Line2D([], [], color=COLOURS[0], alpha=0.6, linewidth=6),
            f"the middle {outer:.0%}": Line2D([], [], color=COLOURS[0], alpha=0.2, linewidth=6),
            "least and greatest": Line2D([], [], color=GREY, linewidth=0.7),
        },
    )
    return figure
