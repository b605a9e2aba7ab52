"""Pictures of trainings: curves with the notebook's figures, and how parameters spread over the steps."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatter

from bench.recipes import Published
from bench.report.drawing import COLOURS, GREY, label, legend, make_panels
from bench.trainings import QUANTILES, Training


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
    `backends`: all that the pictures beside this one show, so that each has one colour.
    """
    figure, panels = make_panels([2.8, 2.8], legend=True)
    entries: dict[str, Line2D] = {}
    by_backend = sorted(trainings, key=lambda one: one.header.cell.backend)
    for backend, group in groupby(by_backend, key=lambda one: one.header.cell.backend):
        seeds = list(group)
        number = backends.index(backend) if backend in backends else len(entries)
        colour = COLOURS[number % len(COLOURS)]
        width = max(1.0, 3.4 - 0.9 * number)
        for field, line in (("test", "-"), ("train", ":")):
            for panel, measure, scale in ((panels[0], "accuracy", 1.0), (panels[1], "loss", loss_scale)):
                look = {"color": colour, "linestyle": line, "linewidth": width if line == "-" else 0.9}
                _draw(panel, seeds, f"{field}_{measure}", scale, look)
        title = f"{seeds[0].header.backend.title} ({len(seeds)} seed{'s' if len(seeds) > 1 else ''})"
        entries[label(title, 40)] = Line2D([], [], color=colour, linewidth=width)
    entries["training images"] = Line2D([], [], color=GREY, linestyle=":")
    for one in published:
        panel, scale = (panels[1], loss_scale) if one.measure == "test loss" else (panels[0], 1.0)
        _mark(panel, one, scale)
        entries["the notebook's figure"] = Line2D(
            [], [], color="black", marker="x", linestyle="none", markeredgewidth=1.5
        )
    for panel, said in zip(panels, ("accuracy", f"loss ({unit})"), strict=True):
        panel.set_title(label(said, 60), loc="left")
        panel.set_xlabel("steps")
        panel.set_xlim(left=0)
    panels[1].set_yscale("log")
    panels[1].yaxis.set_major_formatter(LogFormatter())
    panels[1].yaxis.set_minor_formatter(LogFormatter())  # few, and none where there are many decades
    legend(figure, entries, columns=3)
    return figure


def _draw(panel: Axes, seeds: Sequence[Training], field: str, scale: float, look: Mapping[str, Any]) -> None:
    common = set.intersection(*({figure.step for figure in one.figures} for one in seeds))
    steps = sorted(common)
    values = np.array([[scale * getattr(f, field) for f in one.figures if f.step in common] for one in seeds])
    if len(seeds) > 1 and look["linestyle"] == "-":
        panel.fill_between(steps, values.min(0), values.max(0), color=look["color"], alpha=0.15, linewidth=0)
    panel.plot(steps, values.mean(0), **look)


def _mark(panel: Axes, one: Published, scale: float) -> None:
    if one.low == one.high:
        panel.plot([one.step], [scale * one.low], "x", color="black", markeredgewidth=1.5, clip_on=False)
    else:
        panel.plot([one.step] * 2, [scale * one.low, scale * one.high], "x-", color="black", linewidth=1)


def distributions(training: Training) -> Figure:
    """Draw every parameter's median, two bands and ends over the steps."""
    names = list(training.figures[0].distributions)
    figure, panels = make_panels([1.7] * len(names), legend=True)
    steps = [one.step for one in training.figures]
    for panel, name in zip(panels, names, strict=True):
        spread = np.array([one.distributions[name].quantiles for one in training.figures])
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
