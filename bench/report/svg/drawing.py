"""Puts the drawing of a chart into one SVG element."""

from bench.report.blocks import Chart
from bench.report.chart import Bars
from bench.report.svg.bars import draw_bars
from bench.report.svg.elements import FONT, SIZE, Drawing, escape, identifier, number, tag
from bench.report.svg.lines import draw_lines
from bench.report.svg.palette import INK, PAPER

WIDTH = 760.0


def draw(chart: Chart, *, width: float = WIDTH) -> str:
    """Return a chart as SVG of `width` units; below 480 units names stand above bars and lines.

    Raises ValueError, with the chart's name, for a value that is no number or infinite, and for one that is
    not positive on a logarithmic axis.
    """
    # A page may hold a wide and a narrow drawing of a chart, and no id may occur twice.
    name = identifier(chart.name) + ("" if width == WIDTH else f"_w{width:.0f}")
    try:
        drawing = _content(chart, name, width)
    except ValueError as error:
        raise ValueError(f"cannot draw the chart {escape(chart.name)[:80]}: {error}") from error
    title, about = f"{name}-title", f"{name}-about"
    return tag(
        "svg",
        tag("title", escape(chart.title), id=title),
        tag("desc", escape(chart.about), id=about),
        tag("rect", width=width, height=drawing.height, fill=PAPER, class_="paper"),
        *drawing.content,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {number(width)} {number(drawing.height)}",
        role="img",
        aria_labelledby=title,
        aria_describedby=about,
        class_="chart",
        font_family=FONT,
        font_size=SIZE,
        fill=INK,
    )


def _content(chart: Chart, name: str, width: float) -> Drawing:
    drawn = chart.drawn
    return draw_bars(drawn, name, width) if isinstance(drawn, Bars) else draw_lines(drawn, name, width)
