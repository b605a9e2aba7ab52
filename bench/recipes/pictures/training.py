"""Pictures of trainings: curves with the notebook's figures, and how parameters spread over the steps."""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatter

from bench.recipes.catalog import Published
from bench.recipes.metrics import QUANTILES
from bench.recipes.records import Training
from bench.report.charts import COLOURS, GREY, label, legend, make_panels

MOST_SHOWN = 20
"""Steps at which the spread of a parameter is drawn, evenly taken: a panel is not wider."""


def curves(
    trainings: Sequence[Training],
    published: Sequence[Published],
    loss_scale: float,
    unit: str,
    *,
    backends: Sequence[str] = (),
) -> Figure:
    """Draw accuracy and loss over the steps: the mean over the seeds, and a band from lowest to highest.

    The line of the test images is whole, that of the training images dotted; a cross is a notebook's figure.
    The accuracy is drawn a second time from a tenth of the steps on, as the start leaves no room to tell the
    end.
    `backends`: all that the pictures beside this one show, so that each has one colour.
    """
    figure, panels = make_panels([2.6] * 3, legend=True)
    accuracy, loss, late = panels
    drawn = ((accuracy, "accuracy", 1.0), (loss, "loss", loss_scale), (late, "accuracy", 1.0))
    last = max(one.figures[-1].step for one in trainings)
    entries: dict[str, Line2D] = {}
    by_backend = sorted(trainings, key=lambda one: one.header.cell.backend)
    for backend, group in groupby(by_backend, key=lambda one: one.header.cell.backend):
        seeds = list(group)
        number = backends.index(backend) if backend in backends else len(entries)
        colour = COLOURS[number % len(COLOURS)]
        width = max(1.0, 3.4 - 0.9 * number)
        for field, line in (("test", "-"), ("train", ":")):
            for panel, measure, scale in drawn:
                look = {"color": colour, "linestyle": line, "linewidth": width if line == "-" else 0.9}
                _draw(panel, seeds, f"{field}_{measure}", scale, look)
        title = f"{seeds[0].header.backend.title} ({len(seeds)} seed{'s' if len(seeds) > 1 else ''})"
        entries[label(title, 40)] = Line2D([], [], color=colour, linewidth=width)
    entries["training images"] = Line2D([], [], color=GREY, linestyle=":")
    for one in published:
        for panel, measure, scale in drawn:
            if one.measure.endswith(measure) and (panel is not late or one.step >= last / 10):
                _mark(panel, one, scale)
        entries["the notebook's figure"] = Line2D(
            [], [], color="black", marker="x", linestyle="none", markeredgewidth=1.5
        )
    titles = ("accuracy", f"loss ({unit})", f"accuracy from step {math.ceil(last / 10):,} on")
    for panel, said in zip(panels, titles, strict=True):
        panel.set_title(label(said, 60), loc="left")
        panel.set_xlabel("steps")
        panel.set_xlim(left=0)
    late.set_xlim(left=last / 10)
    late.set_ylim(_limits(late, last / 10))
    loss.set_yscale("log")
    loss.yaxis.set_major_formatter(LogFormatter())
    loss.yaxis.set_minor_formatter(LogFormatter())  # few, and none where there are many decades
    legend(figure, entries, columns=3)
    return figure


def _draw(panel: Axes, seeds: Sequence[Training], field: str, scale: float, look: Mapping[str, Any]) -> None:
    common = set.intersection(*({figure.step for figure in one.figures} for one in seeds))
    steps = sorted(common)
    values = np.array([[scale * getattr(f, field) for f in one.figures if f.step in common] for one in seeds])
    if len(seeds) > 1 and look["linestyle"] == "-":
        panel.fill_between(steps, values.min(0), values.max(0), color=look["color"], alpha=0.15, linewidth=0)
    panel.plot(steps, values.mean(0), **look)


def _limits(panel: Axes, first: float) -> tuple[float, float]:
    """Return the ends of a y axis that holds all lines of a panel from a step on, with a little room."""
    points = np.concatenate([np.asarray(line.get_xydata()) for line in panel.lines])
    values = points[points[:, 0] >= first, 1]
    room = 0.05 * max(float(np.ptp(values)), 0.001)
    return float(values.min()) - room, float(values.max()) + room


def _mark(panel: Axes, one: Published, scale: float) -> None:
    if one.low == one.high:
        panel.plot([one.step], [scale * one.low], "x", color="black", markeredgewidth=1.5, clip_on=False)
    else:
        panel.plot([one.step] * 2, [scale * one.low, scale * one.high], "x-", color="black", linewidth=1)


def distributions(training: Training) -> Figure:
    """Draw every parameter's median, two bands and ends over the steps."""
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
