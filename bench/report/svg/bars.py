"""Draws bars: a row for each, with its name, its interval, and its text at the end."""

from collections.abc import Sequence
from itertools import groupby

import msgspec

from bench.report.chart import Axis, Bar, Bars, Mark
from bench.report.scales import Scale, label, labels, limits, ticks
from bench.report.svg.elements import (
    EDGE,
    NARROW,
    SIZE,
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
from bench.report.svg.looks import SHAPES, UNRANKED, hatch, hatches, marker
from bench.report.svg.palette import ALARM, FAINT, INK, PAPER, RULE, hue, part

_ROW, _NAME_ROW, _HEADING_ROW, _BAR = 25.0, 19.0, 28.0, 16.0
_GAP = 8.0
_LEGEND_ROW = 20.0
_MARK_ROW = 17.0
_AXIS = 40.0
_NAMES_SHARE, _LEAST_PLOT_SHARE = 0.36, 0.3
"""Names take at most, and the plot at least, so much of the width."""
_LONGEST_INTERVAL = 1.5
"""An interval is cut at so many times the largest value, so that it does not make all bars short."""


class _Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Where everything stands."""

    name: str
    """Of the chart, as an identifier."""
    bars: Bars
    scale: Scale | None
    """None if no bar has a value."""
    dots: bool
    """Whether the axis has no 0, from which a bar could begin."""
    width: float
    left: float
    """Where the plot begins."""
    narrow: bool

    @property
    def row(self) -> float:
        return _ROW + (_NAME_ROW if self.narrow else 0.0)


def draw_bars(bars: Bars, name: str, width: float) -> Drawing:
    """Return the drawing; `name` is an identifier that no other chart has."""
    layout = _lay_out(bars, name, width)
    top, legend = _legend(layout)
    top += _MARK_ROW if bars.marks and layout.scale else 0.0
    rows: list[str] = []
    y = top
    for heading, group in groupby(bars.bars, key=lambda bar: bar.group):
        if heading:
            y += _HEADING_ROW
            rows.append(text(shorten(heading, width), 0, y - 8, font_weight="bold"))
        for bar in group:
            rows.append(_row(layout, bar, y))
            y += layout.row
    shapes = [UNRANKED if not bar.ranked else bar.shape % SHAPES for bar in bars.bars]
    axis = _axis(layout, top, y)
    return Drawing(
        height=y + (_AXIS if layout.scale else 4.0),
        content=(hatches(name, () if layout.dots else shapes), *legend, *axis, *rows),
    )


# ---- layout


def _lay_out(bars: Bars, name: str, width: float) -> _Layout:
    values = [_value(bar) for bar in bars.bars]
    known = [value for value in values if value is not None]
    narrow = width < NARROW
    names = max((text_width(bar.name[:200]) for bar in bars.bars), default=0.0)
    left = 1.0 if narrow else min(names, _NAMES_SHARE * width) + _GAP
    axis = bars.axis
    shown = [*known, *(end for bar in bars.bars for end in _ends(bar)), *(mark.value for mark in bars.marks)]
    dots = axis.log or (axis.low is not None and axis.low > 0) or (axis.high is not None and axis.high < 0)
    # Also values beyond a given end are checked.
    limits(shown, log=axis.log, low=None, high=None)
    scale = None
    if known or any(bar.points for bar in bars.bars):
        low, high = _axis_ends(axis, known, shown, dots=dots)
        scale = Scale(low=low, high=high, start=left, end=width, log=axis.log)
        scale = _shortened(bars, scale, width)
    return _Layout(name=name, bars=bars, scale=scale, dots=dots, width=width, left=left, narrow=narrow)


def _axis_ends(
    axis: Axis, known: Sequence[float], shown: Sequence[float], *, dots: bool
) -> tuple[float, float]:
    if dots:
        low, high = limits(shown, log=axis.log, low=axis.low, high=axis.high)
        room = (high / low) ** 0.04 if axis.log else 0.04 * (high - low)
        padded = (low / room, high * room) if axis.log else (low - room, high + room)
        return (padded[0] if axis.low is None else low), (padded[1] if axis.high is None else high)
    longest = _LONGEST_INTERVAL * max((abs(value) for value in known), default=0.0)
    cut = [min(max(value, -longest), longest) for value in shown] if longest else shown
    return limits([0.0, *cut], log=False, low=axis.low, high=axis.high)


def _shortened(bars: Bars, scale: Scale, width: float) -> Scale:
    """Return a scale that leaves room for the text at the end of each bar."""
    room = width - scale.start
    length = room
    for bar in bars.bars:
        ends = [end for end in (_value(bar), *_ends(bar)) if end is not None]
        if ends:
            share = (scale.inside(max(ends)) - scale.start) / room
            said = text_width(_said(bar, scale)[:200])
            length = min(length, (room - said - 2 * _GAP) / max(share, 1e-3))
    length = max(length, _LEAST_PLOT_SHARE * room)
    return msgspec.structs.replace(scale, end=scale.start + min(length, room - _GAP))


def _is_cut(bar: Bar, scale: Scale) -> bool:
    """Say whether a bar is longer than the axis."""
    value = _value(bar)
    return value is not None and value > scale.high * (1 + 1e-9)


def _said(bar: Bar, scale: Scale | None) -> str:
    """Return what stands at the end of a bar."""
    return f"{bar.text}, bar cut" if scale is not None and _is_cut(bar, scale) else bar.text


def _value(bar: Bar) -> float | None:
    """Return the length of a bar; None if no part of it was measured."""
    known = [value for value in bar.parts if value is not None]
    return sum(known) if known else None


def _ends(bar: Bar) -> list[float]:
    return [end for end in (bar.low, bar.high, *bar.points) if end is not None]


# ---- legend and axis


def _legend(layout: _Layout) -> tuple[float, list[str]]:
    """Return the names of the parts with their colours, and the height that they take."""
    if not layout.bars.parts:
        return 0.0, []
    x, y = 0.0, 14.0
    found = []
    for place, name in enumerate(layout.bars.parts):
        said = shorten(name, layout.width - 20)
        wide = 17 + text_width(said) + 18
        if x and x + wide > layout.width:
            x, y = 0.0, y + _LEGEND_ROW
        found.append(tag("rect", x=x, y=y - 10, width=12, height=12, fill=part(place)))
        found.append(text(said, x + 17, y))
        x += wide
    return y + 10, found


def _axis(layout: _Layout, top: float, bottom: float) -> list[str]:
    scale, bars = layout.scale, layout.bars
    if scale is None:
        return []
    axis = bars.axis
    places = axis.ticks or _ticks(scale, axis)
    names = axis.labels or labels(places, axis.unit, log=axis.log)
    grid = "".join(f"M{number(scale.at(place))} {number(top)}V{number(bottom)}" for place in places)
    return [
        tag("path", d=grid, stroke=RULE, fill="none"),
        tag(
            "g",
            *(
                text(name, _inside(scale.at(place), text_width(name, SMALL), layout.width), bottom + 15)
                for name, place in zip(names, places, strict=True)
            ),
            text_anchor="middle",
            font_size=SMALL,
            fill=FAINT,
        ),
        _title(axis.title, scale.start, bottom + 33, layout.width),
        *_marks(bars.marks, scale, layout.width, top, bottom),
    ]


def _inside(middle: float, wide: float, width: float) -> float:
    """Return where the middle of a text stands, so that it is not cut at an edge."""
    return max(wide / 2, min(middle, width - wide / 2))


def _title(title: str, x: float, y: float, width: float) -> str:
    """Return the title of the axis, which begins at `x`, or further left if it would be cut."""
    said = shorten(title, width, SMALL)
    return text(said, max(0.0, min(x, width - text_width(said, SMALL))), y, font_size=SMALL, fill=FAINT)


def _ticks(scale: Scale, axis: Axis) -> tuple[float, ...]:
    """Return as many round values as have room for their labels."""
    widest = max(text_width(name, SMALL) for name in labels((scale.low, scale.high), axis.unit, log=axis.log))
    most = max(2, min(7, int((scale.end - scale.start) / (widest + 24))))
    return ticks(scale.low, scale.high, log=axis.log, most=most, unit=axis.unit)


def _marks(marks: Sequence[Mark], scale: Scale, width: float, top: float, bottom: float) -> list[str]:
    """Return the lines across, each with its text above."""
    ordered = sorted(marks, key=lambda mark: mark.value)
    said = [shorten(mark.text, width / (len(ordered) + 1), SMALL) for mark in ordered]
    wide = max((text_width(one, SMALL) for one in said), default=0.0)
    wishes = [min(scale.inside(mark.value), width - wide / 2) for mark in ordered]
    middles = apart(wishes, wide + _GAP, wide / 2, width - wide / 2)
    found = []
    for mark, one, middle in zip(ordered, said, middles, strict=True):
        x = scale.inside(mark.value)
        found.append(line(x, top - 3, x, bottom, stroke=FAINT, stroke_width=1.4, stroke_dasharray="4 3"))
        found.append(text(one, middle, top - 6, text_anchor="middle", font_size=SMALL, fill=FAINT))
    return found


# ---- a row


def _row(layout: _Layout, bar: Bar, top: float) -> str:
    middle = top + layout.row - _ROW / 2
    base = middle + 0.35 * SIZE
    full = f"{bar.name}: {bar.text}" if bar.text else bar.name
    if layout.narrow:
        name = text(shorten(bar.name, layout.width), 0, top + 14, **EDGE)
    else:
        name = text(shorten(bar.name, layout.left - _GAP), layout.left - _GAP, base, text_anchor="end")
    # A rectangle without colour, so that the tooltip appears everywhere in the row.
    area = tag("rect", x=0, y=top, width=layout.width, height=layout.row, fill="none", pointer_events="all")
    drawn = [tooltip(full), area, name]
    value, scale = _value(bar), layout.scale
    end = layout.left
    if scale is not None:
        points, interval = _points(bar, scale, middle), _interval(bar, scale, middle)
        if value is None:
            drawn += points
        elif layout.dots:
            drawn += [_track(bar, scale, value, middle), *points, *interval, _dot(bar, scale, value, middle)]
        else:
            drawn += [*_bar(layout, bar, scale, middle), *interval, *points]
        ends = [one for one in (value, *_ends(bar)) if one is not None]
        end = max([scale.at(scale.low), *(scale.inside(one) for one in ends)]) if ends else end
    x = end + _GAP
    colour = INK if bar.ranked else ALARM if value is not None else FAINT
    edge = EDGE if layout.bars.marks else {}
    drawn.append(text(shorten(_said(bar, scale), layout.width - x), x, base, fill=colour, **edge))
    return tagged("bar", bar.tags, *drawn)


def _bar(layout: _Layout, bar: Bar, scale: Scale, middle: float) -> list[str]:
    """Return the rectangle of each part, with its hatch."""
    top = middle - _BAR / 2
    shape = bar.shape % SHAPES if bar.ranked else UNRANKED
    found = []
    done = 0.0
    for place, length in enumerate(bar.parts):
        if not length:
            continue
        start, end = scale.inside(done), scale.inside(done + length)
        done += length
        left, wide = min(start, end), abs(end - start)
        colour = part(place) if layout.bars.parts else hue(bar.hue)
        if not bar.ranked and not layout.bars.parts:
            colour = PAPER
        tip = []
        if layout.bars.parts:
            said = label(length, layout.bars.axis.unit)
            tip = [tooltip(f"{bar.name}, {layout.bars.parts[place]}: {said}")]
        found.append(tag("rect", *tip, x=left, y=top, width=wide, height=_BAR, fill=colour))
    overlay = hatch(layout.name, shape)
    if overlay and (not layout.bars.parts or not bar.ranked):
        left, right = sorted((scale.inside(0.0), scale.inside(done)))
        edge = FAINT if shape == UNRANKED else None
        found.append(
            tag("rect", x=left, y=top, width=right - left, height=_BAR, fill=overlay, stroke=edge,
                pointer_events="none")
        )  # fmt: skip
    if _is_cut(bar, scale):
        found.append(_break(scale.end - 14, top))
    return found


def _break(x: float, top: float) -> str:
    """Return the two strokes that mark a bar as cut."""
    bottom = top + _BAR + 2
    path = "".join(
        f"M{number(x + step)} {number(bottom)}L{number(x + step + 6)} {number(top - 2)}"
        for step in (0.0, 5.0)
    )
    return tag("path", d=path, stroke=PAPER, stroke_width=2.5, fill="none")


def _dot(bar: Bar, scale: Scale, value: float, middle: float) -> str:
    colour = hue(bar.hue) if bar.ranked else FAINT
    return marker(scale.inside(value), middle, bar.shape, fill=colour, stroke=PAPER)


def _track(bar: Bar, scale: Scale, value: float, middle: float) -> str:
    """Return a thin line that leads from the name to the dot or its interval."""
    end = scale.inside(value if bar.low is None else min(value, bar.low))
    return line(scale.start, middle, end, middle, stroke=RULE)


def _interval(bar: Bar, scale: Scale, middle: float) -> list[str]:
    """Return the line from end to end, with a cap at each end that lies on the axis."""
    if bar.low is None or bar.high is None:
        return []
    left, right = scale.inside(bar.low), scale.inside(bar.high)
    path = f"M{number(left)} {number(middle)}H{number(right)}"
    for x, value in ((left, bar.low), (right, bar.high)):
        if scale.low * (1 - 1e-9) <= value <= scale.high * (1 + 1e-9):
            path += f"M{number(x)} {number(middle - 4)}V{number(middle + 4)}"
    return [
        tag("path", d=path, stroke=PAPER, stroke_width=4, fill="none", opacity=0.7),
        tag("path", d=path, stroke=INK, stroke_width=1.5, fill="none"),
    ]


def _points(bar: Bar, scale: Scale, middle: float) -> list[str]:
    return [
        tag(
            "circle",
            cx=scale.inside(point),
            cy=middle,
            r=2.7,
            fill=PAPER,
            stroke=hue(bar.hue),
            stroke_width=1.5,
        )
        for point in bar.points
    ]
