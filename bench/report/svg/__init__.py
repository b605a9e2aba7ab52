"""Draws a chart as one SVG element, which stands in a page or alone in a file.

The element has real text, its title and description for screen readers, and a tooltip at each bar and point.
Every bar and every series is a group (`<g class="bar">`, `<g class="series">`) with its tags as `data-*`
attributes. Colours are variables of the page with fall-backs, see `bench.report.svg.palette`. No id occurs in
two charts, because all derive from the chart's name. The title is for the printer to show: it is not drawn.
"""

from bench.report.svg.drawing import WIDTH, draw
from bench.report.svg.files import write_charts

__all__ = ["WIDTH", "draw", "write_charts"]
