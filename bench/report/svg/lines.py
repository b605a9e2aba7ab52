"""Draws lines and points over two axes.

The name of a line stands beside its last point. Those of single points stand above, and on a narrow drawing
all names do.
"""

from collections.abc import Sequence

import msgspec

from bench.report.chart import Axis, Lines, Point, Series
from bench.report.scales import Scale, label, labels, limits, ticks
from bench.report.svg.elements import (
    EDGE,
    NARROW,
    SMALL,
    Drawing,
    apart,
    line,
    number,
    shorten,
    tag,
    tagged,
    text,
    text_width,
    tooltip,
)
from bench.report.svg.looks import dashes, marker
from bench.report.svg.palette import FAINT, INK, PAPER, RULE, hue

_HEIGHT = 300.0
_LABEL = 16.0
"""Distance of two names at the right."""
_SWATCH = 24.0
_TOP, _BOTTOM = 26.0, 42.0
_LEGEND_ROW = 20.0
_NAMES_SHARE = 0.32
"""Names at the right take at most so much of the width."""
_THICK, _THIN = 3.4, 1.2
"""Widths of lines, from the first to the last."""
_MOST_MARKERS = 24
"""Markers of one line; with more, they would hide it, and the file would grow."""


class _Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Where everything stands."""

    name: str
    lines: Lines
    x: Scale
    y: Scale
    left: float
    right: float
    top: float
    bottom: float
    names_at: float
    """Where the names at the right begin."""
    beside: frozenset[int]
    """The series whose names stand there."""
    width: float


class _Name(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """A name at the right, which belongs to a series or to a mark."""

    wish: float
    """Where it would best stand."""
    said: str
    series: int | None
    """Which series; None for a mark."""


def draw_lines(lines: Lines, name: str, width: float) -> Drawing:
    """Return the drawing; `name` is an identifier that no other chart has."""
    if not any(series.points for series in lines.series):
        return Drawing(height=30, content=(text("No values.", 0, 19, fill=FAINT),))
    narrow = width < NARROW
    above = [one for one in lines.series if one.points and one.name and (narrow or not one.joined)]
    legend_height, legend = _legend(above, width)
    layout = _lay_out(lines, name, width, top=_TOP + legend_height)
    names = _names(layout)
    wide, high = layout.right - layout.left, layout.bottom - layout.top
    plot = tag("rect", x=layout.left, y=layout.top, width=wide, height=high)
    clip = tag("clipPath", plot, id=f"{name}-clip")
    return Drawing(
        height=layout.bottom + _BOTTOM,
        content=(
            tag("defs", clip),
            *legend,
            *_axes(layout, legend_height),
            *_marks(layout, names),
            *(_series(layout, place, names) for place, one in enumerate(lines.series) if one.points),
        ),
    )


# ---- layout


def _lay_out(lines: Lines, name: str, width: float, *, top: float) -> _Layout:
    points = [point for series in lines.series for point in series.points]
    x_low, x_high = _ends(lines.x, [point.x for point in points], [mark.value for mark in lines.x_marks], 0.0)
    heights = [value for point in points for value in (point.y, point.low, point.high) if value is not None]
    y_low, y_high = _ends(lines.y, heights, [mark.value for mark in lines.marks], 0.05)
    beside = frozenset(
        place
        for place, one in enumerate(lines.series)
        if one.name and one.joined and one.points and width >= NARROW
    )
    said = [lines.series[place].name[:200] for place in beside]
    said += [mark.text for mark in lines.marks if width >= NARROW]
    bottom = top + max(_HEIGHT, len(said) * _LABEL)
    y = Scale(low=y_low, high=y_high, start=bottom, end=top, log=lines.y.log)
    _, y_labels = _ticks(lines.y, y, most=6)
    left = max(text_width(one, SMALL) for one in y_labels) + 10
    wide = max((text_width(one, SMALL) for one in said), default=0.0) + _SWATCH + 6
    names_at = width - min(wide, _NAMES_SHARE * width) if said else width - 14
    right = names_at - 12 if said else names_at
    x = Scale(low=x_low, high=x_high, start=left, end=right, log=lines.x.log)
    return _Layout(
        name=name, lines=lines, x=x, y=y, left=left, right=right, top=top, bottom=bottom, names_at=names_at,
        beside=beside, width=width,
    )  # fmt: skip


def _ends(axis: Axis, values: Sequence[float], marks: Sequence[float], room: float) -> tuple[float, float]:
    """Return the ends of an axis, with some room beyond the values on a side without a given end."""
    limits([*values, *marks], log=axis.log, low=None, high=None)  # also values beyond a given end are checked
    low, high = limits([*values, *marks], log=axis.log, low=axis.low, high=axis.high)
    if axis.log:
        factor = (high / low) ** room
        return (low / factor if axis.low is None else low), (high * factor if axis.high is None else high)
    more = room * (high - low)
    return (low - more if axis.low is None else low), (high + more if axis.high is None else high)


def _ticks(axis: Axis, scale: Scale, most: int) -> tuple[tuple[float, ...], tuple[str, ...]]:
    places = axis.ticks or ticks(scale.low, scale.high, log=axis.log, most=most, unit=axis.unit)
    return places, axis.labels or labels(places, axis.unit, log=axis.log)


def _names(layout: _Layout) -> dict[int | str, float]:
    """Return where each name at the right stands: by the place of its series, or by the text of its mark."""
    wishes = [
        _Name(wish=layout.y.inside(one.points[-1].y), said=one.name, series=place)
        for place, one in enumerate(layout.lines.series)
        if place in layout.beside
    ]
    if layout.width >= NARROW:
        wishes += [
            _Name(wish=layout.y.inside(mark.value), said=mark.text, series=None)
            for mark in layout.lines.marks
        ]
    wishes.sort(key=lambda one: (one.wish, one.said))
    places = apart([one.wish for one in wishes], _LABEL, layout.top, layout.bottom)
    return {
        one.said if one.series is None else one.series: place
        for one, place in zip(wishes, places, strict=True)
    }


# ---- legend and axes


def _legend(series: Sequence[Series], width: float) -> tuple[float, list[str]]:
    """Return the names of series, each after its look, and the height that they take."""
    if not series:
        return 0.0, []
    x, y = 0.0, 14.0
    found = []
    for one in series:
        look = _SWATCH if one.joined else 12.0
        said = shorten(one.name, width - look - 5)
        wide = look + 5 + text_width(said) + 18
        if x and x + wide - 18 > width:
            x, y = 0.0, y + _LEGEND_ROW
        drawn = [tooltip(one.name), *_look(one, x, y - 4.5, look), text(said, x + look + 5, y)]
        found.append(tagged("series", one.tags, *drawn))
        x += wide
    return y + 6, found


def _look(one: Series, x: float, y: float, wide: float) -> list[str]:
    """Return a piece of a series that begins at `x`: its line and its marker."""
    colour = hue(one.hue)
    found = []
    if one.joined:
        found.append(
            line(x, y, x + wide, y, stroke=colour, stroke_width=2, stroke_dasharray=dashes(one.shape))
        )
    if one.marked:
        found.append(marker(x + wide / 2, y, one.shape, fill=colour, stroke=PAPER))
    return found


def _axes(layout: _Layout, legend_height: float) -> list[str]:
    lines = layout.lines
    y_places, y_labels = _ticks(lines.y, layout.y, most=6)
    widest = 40.0 if lines.x.labels is None else max(map(text_width, lines.x.labels))
    most = max(2, min(8, int((layout.right - layout.left) / (widest + 24))))
    x_places, x_labels = _ticks(lines.x, layout.x, most=most)
    grid = "".join(
        f"M{number(layout.left)} {number(layout.y.at(place))}H{number(layout.right)}" for place in y_places
    )
    x_grid = "".join(f"M{number(layout.x.at(place))} {number(layout.bottom)}v4" for place in x_places)
    bottom = f"M{number(layout.left)} {number(layout.bottom)}H{number(layout.right)}"
    base = 0.35 * SMALL
    x_title = shorten(lines.x.title, layout.width, SMALL)
    half = text_width(x_title, SMALL) / 2
    middle = max(half, min((layout.left + layout.right) / 2, layout.width - half))
    return [
        tag("path", d=grid, stroke=RULE, fill="none"),
        tag("path", d=f"{bottom}{x_grid}", stroke=FAINT),
        tag(
            "g",
            *(
                text(said, layout.left - 6, layout.y.at(place) + base)
                for said, place in zip(y_labels, y_places, strict=True)
            ),
            text_anchor="end",
            font_size=SMALL,
            fill=FAINT,
        ),
        tag(
            "g",
            *(
                text(said, layout.x.at(place), layout.bottom + 17)
                for said, place in zip(x_labels, x_places, strict=True)
            ),
            text_anchor="middle",
            font_size=SMALL,
            fill=FAINT,
        ),
        text(shorten(lines.y.title, layout.width, SMALL), 0, legend_height + 13, font_size=SMALL, fill=FAINT),
        text(x_title, middle, layout.bottom + 36, text_anchor="middle", font_size=SMALL, fill=FAINT),
    ]


def _marks(layout: _Layout, names: dict[int | str, float]) -> list[str]:
    """Return the lines across at values of `y`, and those up at values of `x`, with their texts."""
    found = []
    look: dict[str, str | float | None] = {"font_size": SMALL, "fill": FAINT}
    for mark in layout.lines.marks:
        y = layout.y.inside(mark.value)
        path = f"M{number(layout.left)} {number(y)}H{number(layout.right)}"
        if mark.text in names:
            at = names[mark.text]
            path += f"L{number(layout.names_at)} {number(at)}"
            said = shorten(mark.text, layout.width - layout.names_at - 4, SMALL)
            found.append(text(said, layout.names_at + 4, at + 0.35 * SMALL, **look))
        else:
            said = shorten(mark.text, layout.right - layout.left, SMALL)
            found.append(text(said, layout.left + 4, y - 4, **look, **EDGE))
        found.append(tag("path", d=path, stroke=FAINT, stroke_dasharray="4 3", fill="none"))
    ordered = sorted(layout.lines.x_marks, key=lambda mark: mark.value)
    for place, mark in enumerate(ordered):
        x = layout.x.inside(mark.value)
        found.append(line(x, layout.top, x, layout.bottom, stroke=RULE, stroke_dasharray="2 3"))
        said = shorten(mark.text, layout.width - x - 4, SMALL)
        y = layout.bottom - 6 - 14 * (len(ordered) - 1 - place)
        found.append(text(said, x + 4, y, **look, **EDGE))
    return found


# ---- a series


def _series(layout: _Layout, place: int, names: dict[int | str, float]) -> str:
    one = layout.lines.series[place]
    colour = hue(one.hue)
    spots = [(layout.x.at(point.x), layout.y.at(point.y)) for point in one.points]
    clip = f"url(#{layout.name}-clip)"
    drawn = [tooltip(one.name)] if one.name else []
    if one.band:
        drawn.append(_band(layout, one.points, colour, clip))
    if one.joined:
        path = "M" + "L".join(f"{number(x)} {number(y)}" for x, y in spots)
        look: dict[str, str | float | None] = {"fill": "none", "clip_path": clip, "stroke_linejoin": "round"}
        drawn.append(
            tag(
                "path",
                d=path,
                stroke=colour,
                stroke_width=_thickness(layout.lines, place),
                stroke_dasharray=dashes(one.shape),
                **look,
            )
        )
    inside = [
        index
        for index, point in enumerate(one.points)
        if layout.x.low <= point.x <= layout.x.high and layout.y.low <= point.y <= layout.y.high
    ]
    shown = _few(inside) if one.joined else inside
    if not one.band:
        drawn += [_interval(layout, one.points[index], colour) for index in shown]
    if one.marked:
        marks = [_point(layout, one, one.points[index], spots[index]) for index in shown]
        drawn.append(tag("g", *marks, fill=colour, stroke=PAPER))
    if place in names:
        drawn += _name(layout, one, spots[-1], names[place])
    return tagged("series", one.tags, *drawn)


def _thickness(lines: Lines, place: int) -> float:
    """Return the width of a line: the later ones are thinner, so that equal lines all stay visible."""
    joined = [index for index, one in enumerate(lines.series) if one.joined]
    share = (joined.index(place) + 0.5) / len(joined)
    return _THICK + (_THIN - _THICK) * share


def _band(layout: _Layout, points: Sequence[Point], colour: str, clip: str) -> str:
    ended = [point for point in points if point.low is not None and point.high is not None]
    upper = [(layout.x.at(point.x), layout.y.at(point.high or 0.0)) for point in ended]
    lower = [(layout.x.at(point.x), layout.y.at(point.low or 0.0)) for point in reversed(ended)]
    path = "L".join(f"{number(x)} {number(y)}" for x, y in (*upper, *lower))
    return tag("path", d=f"M{path}Z", fill=colour, fill_opacity=0.16, clip_path=clip) if path else ""


def _few(places: Sequence[int]) -> list[int]:
    """Return the places of the points that get a marker: all, or some that are evenly spread."""
    if len(places) <= _MOST_MARKERS:
        return list(places)
    last = _MOST_MARKERS - 1
    return sorted({places[round(step * (len(places) - 1) / last)] for step in range(_MOST_MARKERS)})


def _interval(layout: _Layout, point: Point, colour: str) -> str:
    if point.low is None or point.high is None:
        return ""
    x, low, high = layout.x.at(point.x), layout.y.inside(point.low), layout.y.inside(point.high)
    return line(x, low, x, high, stroke=colour, stroke_width=1.4)


def _point(layout: _Layout, one: Series, point: Point, spot: tuple[float, float]) -> str:
    """Return a point's marker with its tooltip."""
    lines = layout.lines
    values = f"{label(point.x, lines.x.unit)}, {label(point.y, lines.y.unit)}"
    said = point.text or values
    return marker(*spot, one.shape, tooltip(f"{one.name}: {said}" if one.name else said))


def _name(layout: _Layout, one: Series, last: tuple[float, float], at: float) -> list[str]:
    """Return the name of a series beside its last point, with a thin line between them and its look."""
    x = min(max(last[0], layout.left), layout.right)
    y = min(max(last[1], layout.top), layout.bottom)
    start = layout.names_at
    said = shorten(one.name, layout.width - start - _SWATCH - 5, SMALL)
    return [
        line(x + 5, y, start - 2, at, stroke=RULE),
        *_look(one, start, at, _SWATCH),
        text(said, start + _SWATCH + 5, at + 0.35 * SMALL, font_size=SMALL, fill=INK),
    ]
