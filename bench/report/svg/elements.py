"""What charts are built of: SVG elements, text that stays text, and the width of a text."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape as escape_html
from types import MappingProxyType

import msgspec

from bench.report.chart import Tags
from bench.report.svg.palette import PAPER
from bench.text import clean

FONT = "Helvetica, Arial, 'Liberation Sans', sans-serif"
"""Fonts of nearly the same width, so that a text is as wide as `text_width` says."""
SIZE = 13.0
"""Height of the font."""
SMALL = 12.0
NARROW = 480.0
"""A drawing that is narrower has the names of bars and lines above them."""
EDGE: Mapping[str, str | float] = MappingProxyType(
    {"stroke": PAPER, "stroke_width": 5, "paint_order": "stroke"}
)
"""An edge in the colour of the ground: it keeps a text readable where lines cross it."""
ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"

_PLAIN = re.compile(r"[ !#$%(-;=?-~]*")
"""Printable ASCII without what XML or an attribute could take for markup."""
_TAG = re.compile(r"[a-z][a-z0-9-]*")
_NOT_IN_ID = re.compile(r"[^A-Za-z0-9-]")
_WIDTHS: Mapping[str, float] = MappingProxyType(
    {
        char: width
        for width, chars in (
            (0.222, "ijl"),
            (0.278, " .,:;/!I[]ft\\|\N{MIDDLE DOT}"),
            (0.333, "-()r`{}"),
            (0.5, "ckvsxyzJ"),
            (0.556, "0123456789abdeghnopqu_?#$L\N{EN DASH}\N{MICRO SIGN}"),
            (0.584, "+=<>~\N{PLUS-MINUS SIGN}\N{MULTIPLICATION SIGN}\N{ALMOST EQUAL TO}"),
            (0.63, "FTZ"),
            (0.667, "ABEKPSVXY&"),
            (0.722, "CDHNRUw"),
            (0.778, "GOQ"),
            (0.833, "mM"),
            (0.889, "%"),
            (0.944, "W"),
            (1.0, f"@{ELLIPSIS}"),
        )
        for char in chars
    }
)
"""Widths of Arial's characters, in heights of the font."""
_OTHER_WIDTH = 0.65


class Drawing(msgspec.Struct, frozen=True, kw_only=True):
    """The elements of a chart from the top, and the height that they take."""

    height: float
    content: tuple[str, ...]


def number(value: float) -> str:
    """Return a place or a length to a tenth of a unit."""
    text = f"{value:.1f}"
    text = text.removesuffix(".0")
    return "0" if text == "-0" else text


def escape(text: str) -> str:
    """Return text from outside as content or attribute that shows just that text, on one line."""
    return text if _PLAIN.fullmatch(text) else escape_html(clean(text))


def identifier(name: str) -> str:
    """Return a name as part of an id; different names give different ids."""
    return "chart-" + _NOT_IN_ID.sub(lambda found: f"_{ord(found[0]):x}_", name)


def tag(name: str, *content: str, **attributes: str | float | None) -> str:
    """Return an element. The content must be markup already; attributes are escaped.

    `_` in the name of an attribute stands for `-`, and one at its end is dropped. None leaves it out.
    """
    parts = [
        f' {key.rstrip("_").replace("_", "-")}="{escape(value) if isinstance(value, str) else number(value)}"'
        for key, value in attributes.items()
        if value is not None
    ]
    opened = f"<{name}{''.join(parts)}"
    return f"{opened}>{''.join(content)}</{name}>" if content else f"{opened}/>"


def text(said: str, x: float, y: float, **attributes: str | float | None) -> str:
    """Return a text whose base line is at `y`."""
    return tag("text", escape(said), x=x, y=y, **attributes)


def tooltip(said: str) -> str:
    """Return what a browser shows over the element in which it stands."""
    return tag("title", escape(said))


def line(x1: float, y1: float, x2: float, y2: float, **attributes: str | float | None) -> str:
    return tag("path", d=f"M{number(x1)} {number(y1)}L{number(x2)} {number(y2)}", **attributes)


def tagged(kind: str, tags: Tags, *content: str, **attributes: str | float | None) -> str:
    """Return a group of class `kind` that a page finds by its tags.

    Raises ValueError for a tag whose name cannot be that of an attribute.
    """
    for name in tags:
        if not _TAG.fullmatch(name):
            raise ValueError(
                f"the name of a tag is lower-case letters, digits and hyphens; got {name[:80]!r}"
            )
    return tag(
        "g", *content, class_=kind, **{f"data-{name}": said for name, said in tags.items()}, **attributes
    )


def text_width(said: str, size: float = SIZE) -> float:
    """Return about how wide a text is, in units of the drawing."""
    return size * sum(map(_char_width, said))


@cache
def _char_width(char: str) -> float:
    found = _WIDTHS.get(char)
    if found is not None:
        return found
    if unicodedata.combining(char):
        return 0.0
    return 1.0 if unicodedata.east_asian_width(char) in "WF" else _OTHER_WIDTH


def shorten(said: str, room: float, size: float = SIZE) -> str:
    """Return a text that is cut, with an ellipsis, if it is wider than `room`."""
    said = clean(said)
    if text_width(said[:1000], size) <= room and len(said) <= 1000:
        return said
    room -= text_width(ELLIPSIS, size)
    kept = 0
    for char in said:
        room -= size * _char_width(char)
        if room < 0:
            break
        kept += 1
    return said[:kept].rstrip() + ELLIPSIS


def apart(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return places in order that are at least `gap` from one another, as near as is simple to `places`.

    `places` are in order. The result lies between `low` and `high` if that is wide enough, else it goes on
    beyond `high`.
    """
    found: list[float] = []
    for place in places:
        found.append(max(place, low, found[-1] + gap if found else low))
    limit = max(high, low + gap * (len(found) - 1))
    for index in reversed(range(len(found))):
        found[index] = min(found[index], limit)
        limit = found[index] - gap
    return found
