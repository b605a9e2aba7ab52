"""Writes charts as SVG files beside a report."""

from collections.abc import Iterable
from pathlib import Path

from bench.report.blocks import Chart
from bench.report.svg.drawing import draw
from bench.store import write_text


def write_charts(charts: Iterable[Chart], folder: Path) -> frozenset[str]:
    """Write each chart into a folder, which is made if need be, and return the names of the charts.

    Raises OSError if that is refused, and ValueError for a chart that cannot be drawn.
    """
    names = set()
    for chart in charts:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / f"{chart.name}.svg", draw(chart) + "\n")
        names.add(chart.name)
    return frozenset(names)
