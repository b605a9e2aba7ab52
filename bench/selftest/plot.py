"""The self-test's plot: what every comparison estimated, against what is true."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.report.charts import COLOURS, GREY, RED, legend, settings, svg
from bench.selftest.calibration import Calibration, Judged

_GAP = 2
"""Places left free between two slowdowns."""
_SIZE_IN = (8.0, 3.4)


def draw(calibration: Calibration) -> bytes | None:
    """Return the SVG; None where nothing could be judged."""
    if not calibration.judged:
        return None
    with settings():
        return svg(figure(calibration))


def figure(calibration: Calibration) -> Figure:
    """Return the plot, its comparisons grouped by what was injected and sorted by what was estimated."""
    drawn = Figure(figsize=_SIZE_IN, layout="constrained")
    panel = drawn.subplots()
    place = 0
    middles: list[float] = []
    names: list[str] = []
    for injected in sorted({judged.trial.injected for judged in calibration.judged}):
        group = sorted(
            (judged for judged in calibration.judged if judged.trial.injected == injected),
            key=lambda judged: judged.judgement.ratio,
        )
        ends = (place - 0.8, place + len(group) - 0.2)
        panel.plot(ends, [100 * injected] * 2, color=GREY, linewidth=1.2, zorder=1)
        for judged in group:
            _draw_one(panel, place, judged)
            place += 1
        middles.append(sum(ends) / 2)
        names.append(f"{100 * injected:.0f} % slower" if injected else "equal")
        place += _GAP
    panel.set_xticks(middles, names)
    panel.tick_params(axis="x", length=0)
    panel.grid(visible=False, axis="x")
    panel.set_ylabel("estimated slowdown (%)")
    entries = {
        "a difference was claimed": Line2D([], [], color=COLOURS[0], marker="o", markersize=4),
        "none was": Line2D([], [], color=COLOURS[0], marker="o", markersize=4, markerfacecolor="white"),
        "its interval leaves out the truth": Line2D([], [], color=RED, marker="o", markersize=4),
        "truth": Line2D([], [], color=GREY),
    }
    legend(drawn, entries)
    return drawn


def _draw_one(panel: Axes, place: int, judged: Judged) -> None:
    found = judged.judgement
    colour = COLOURS[0] if judged.covered else RED
    panel.plot([place] * 2, [100 * (found.low - 1), 100 * (found.high - 1)], color=colour, linewidth=1.0)
    panel.plot(
        place,
        100 * (found.ratio - 1),
        marker="o",
        markersize=3.5,
        color=colour,
        markerfacecolor=colour if found.claimed else "white",
        linestyle="none",
    )
