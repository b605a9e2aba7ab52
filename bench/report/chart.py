"""What a chart shows, as data: `bench.report.svg` draws it, and every printer can print its table.

A chart is either bars, one below the other, or lines and points over two axes. Names and texts are raw, as
the records hold them. A hue is the number of a colour, the same for a framework in all charts; a shape is the
number of a marker, a dash pattern and a hatch, so that nothing depends on colour alone.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias

import msgspec

Unit: TypeAlias = Literal["number", "percent", "seconds", "bytes", "factor", "FLOP/s"]
"""How the labels of an axis are written. The values of `percent` are percent, those of `bytes` bytes."""

Tags: TypeAlias = Mapping[str, str]
"""What a reader can choose by, such as `{"workload": "mnist-cnn", "mode": "jit"}`."""

NO_TAGS: Tags = MappingProxyType({})


class Axis(msgspec.Struct, frozen=True, kw_only=True):
    """An axis. Its ends are those of the values, and 0 for bars on a linear axis, if none are given."""

    title: str
    """With the unit, such as `samples/s`."""
    unit: Unit = "number"
    log: bool = False
    low: float | None = None
    high: float | None = None
    ticks: tuple[float, ...] | None = None
    """Where the labels are; None: at round values."""
    labels: tuple[str, ...] | None = None
    """The label of each of `ticks`; None: the values."""


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """A line across the chart at a value, such as a target or a limit."""

    value: float
    text: str


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a chart of bars."""

    name: str
    parts: tuple[float | None, ...]
    """The value, or the parts that make it up, one for each of `Bars.parts`. None: not measured."""
    text: str
    """What stands at the end of the bar, such as `1,023 ±1.5 %`, or why there is no bar."""
    group: str = ""
    """A heading above the first of several bars with the same one; empty: no heading."""
    low: float | None = None
    """Ends of the interval of the value."""
    high: float | None = None
    points: tuple[float, ...] = ()
    """Single values behind the bar's, such as one for each seed, drawn as dots."""
    hue: int = 0
    shape: int = 0
    ranked: bool = True
    """Whether it counts; if not, it is drawn pale and hatched."""
    tags: Tags = NO_TAGS


class Bars(msgspec.Struct, frozen=True, kw_only=True):
    """Bars, the first on top. On an axis without a 0, such as a logarithmic one, a bar is drawn as a dot.

    A bar that is longer than the axis is cut, and marked.
    """

    axis: Axis
    bars: tuple[Bar, ...]
    parts: tuple[str, ...] = ()
    """Names of the parts of every bar, for the legend; empty if a bar is one value."""
    marks: tuple[Mark, ...] = ()


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A value over another one."""

    x: float
    y: float
    low: float | None = None
    """Ends of the interval of `y`."""
    high: float | None = None
    text: str = ""
    """What a reader sees who points at it, after the name of the series; empty: its two values."""


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """Points of the same kind."""

    name: str
    """Empty for a line that belongs to another series, such as one fitted to its points."""
    points: tuple[Point, ...]
    hue: int = 0
    shape: int = 0
    joined: bool = True
    """Whether a line joins the points."""
    marked: bool = True
    """Whether the points have markers."""
    band: bool = False
    """Whether the intervals are drawn as one band, and not as a bar at each point."""
    tags: Tags = NO_TAGS


class Lines(msgspec.Struct, frozen=True, kw_only=True):
    """Lines and points over two axes."""

    x: Axis
    y: Axis
    series: tuple[Series, ...]
    marks: tuple[Mark, ...] = ()
    """Lines across at values of `y`; no two with the same text."""
    x_marks: tuple[Mark, ...] = ()
    """Thin lines up at values of `x`."""
