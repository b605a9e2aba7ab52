"""What tells rows apart besides colour: hatches, markers and dashes, each by its number."""

import math
from collections.abc import Iterable

from bench.report.svg.elements import number, tag
from bench.report.svg.palette import FAINT, PAPER

SHAPES = 7
"""Shapes repeat after so many."""
UNRANKED = SHAPES
"""The hatch of a bar that does not count."""
_TILE = 8
_HATCHES = (
    "",
    "M-2 2L2 -2M0 8L8 0M6 10L10 6",
    "M4 0V8",
    "M-2 6L2 10M0 0L8 8M6 -2L10 2",
    "M0 4H8",
    "M4 0V8M0 4H8",
    "M0 8L4 0L8 8",
    "M0 0L8 8M0 8L8 0",
)
_DASHES = (None, "7 3", "2 3", "9 3 2 3", "1 4", "13 4", "6 2 1 2 1 2")
_SIDES = ((0, 0.0), (4, 45.0), (3, -90.0), (4, 0.0), (3, 90.0), (5, -90.0), (6, 0.0))
"""Corners of each marker, and the direction of the first; the first marker is a circle."""
_RADII = (4.0, 5.2, 5.4, 5.4, 5.4, 5.0, 4.8)
"""Markers of different shapes look equally large with these."""


def hatches(name: str, shapes: Iterable[int]) -> str:
    """Return the definitions of the hatches that a chart uses; empty if it uses none."""
    used = sorted({shape for shape in shapes if _HATCHES[shape]})
    patterns = [
        tag(
            "pattern",
            tag(
                "path",
                d=_HATCHES[shape],
                stroke=FAINT if shape == UNRANKED else PAPER,
                stroke_width=1 if shape == UNRANKED else 1.6,
                fill="none",
            ),
            id=f"{name}-hatch-{shape}",
            width=_TILE,
            height=_TILE,
            patternUnits="userSpaceOnUse",
        )
        for shape in used
    ]
    return tag("defs", *patterns) if patterns else ""


def hatch(name: str, shape: int) -> str | None:
    """Return the fill of a hatch; None for the shape without one."""
    return f"url(#{name}-hatch-{shape})" if _HATCHES[shape] else None


def dashes(shape: int) -> str | None:
    """Return the dash pattern of a line; None for a solid line."""
    return _DASHES[shape % SHAPES]


def marker(x: float, y: float, shape: int, *content: str, **attributes: str | float | None) -> str:
    """Return a marker around a point. A thin edge in the colour of the ground keeps it apart from others."""
    shape %= SHAPES
    sides, first = _SIDES[shape]
    radius = _RADII[shape]
    if not sides:
        return tag("circle", *content, cx=x, cy=y, r=radius, **attributes)
    corners = [
        (x + radius * math.cos(angle), y + radius * math.sin(angle))
        for angle in (math.radians(first + 360 * corner / sides) for corner in range(sides))
    ]
    path = "L".join(f"{number(left)} {number(top)}" for left, top in corners)
    return tag("path", *content, d=f"M{path}Z", **attributes)
