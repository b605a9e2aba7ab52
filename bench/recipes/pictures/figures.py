"""What all pictures share: colours, settings, panels, labels, and the SVG itself.

The same picture always gives the same SVG, byte for byte. Pictures use Matplotlib's objects directly, never
pyplot and its list of open figures.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

from bench.text import clean

# Okabe and Ito's palette, made for every kind of colour vision, without its yellow: too pale for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#595959"
_FONT = "DejaVu Sans"
_FAMILIES = f"'{_FONT}', Verdana, sans-serif"
"""Fonts for the text of an SVG: if DejaVu Sans is missing, one of the same width, else any."""
_WIDTH_IN = 8.0
_LONGEST_NAME = 30
_RC: Mapping[Any, Any] = MappingProxyType(
    {
        "svg.hashsalt": "samework",  # else the ids inside the file are drawn at random
        "svg.fonttype": "none",  # text stays text: it can be searched and read aloud
        "font.family": _FONT,  # comes with Matplotlib, so that the layout is the same everywhere
        "font.size": 8.5,
        "axes.titlesize": 9.5,
        "axes.titleweight": "bold",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "grid.color": "#E0E0E0",
        "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    }
)

_TAG = re.compile("<[^>]*>")
_UNUSED = re.compile(r' id="[^"]*_\d+"| transform="rotate\(-0 [^"]*\)"')
_DIGITS = re.compile(r' (?:d|x|y)="[^"]*"')
_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_LINES = re.compile(r"M [-\d. ]+\n(?:L [-\d. ]+\n)+")
_INDENT = re.compile(r"\n +(?=<)")


@contextmanager
def settings() -> Iterator[None]:
    """Draw with this module's settings instead of the user's, which are restored at the end."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RC)
        yield


def rehearse() -> None:
    """Draw an empty picture, so that a fault of Matplotlib shows before anything is trained."""
    with settings():
        svg(make_panels([1.0])[0])


def make_panels(heights_in: Sequence[float], *, legend: bool = False) -> tuple[Figure, list[Axes]]:
    """Return a figure with one panel for each height, two in a row, without empty panels."""
    columns = 1 if len(heights_in) == 1 else 2
    rows = [max(heights_in[start : start + columns]) for start in range(0, len(heights_in), columns)]
    figure = Figure(figsize=(_WIDTH_IN, sum(rows) + (0.3 if legend else 0.0)), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False, gridspec_kw={"height_ratios": rows})
    panels = list(grid.flat)
    for unused in panels[len(heights_in) :]:
        unused.remove()
    return figure, panels[: len(heights_in)]


def legend(figure: Figure, entries: Mapping[str, Artist], columns: int = 4) -> None:
    """Put the entries below the panels, at most `columns` in a line."""
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside lower center",
        ncols=min(columns, len(entries)),
        frameon=False,
    )


def svg(figure: Figure) -> bytes:
    FigureCanvasSVG(figure)
    _lay_out(figure)
    file = io.BytesIO()
    # A date or a version would change the file each time it is made.
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return _slim(file.getvalue().decode()).encode()


def _slim(content: str) -> str:
    """Halve the size: name the fonts once instead of at every text, and leave out what is invisible."""
    content = _TAG.sub(lambda tag: _slim_tag(tag[0]), content)
    content = content.replace("</style>", f" text{{font-family: {_FAMILIES}}}</style>", 1)
    return _INDENT.sub("\n", content)


def _slim_tag(tag: str) -> str:
    tag = tag.replace(f" font-family: '{_FONT}';", "")
    tag = _LINES.sub(lambda points: points[0].replace(" \nL ", "\n"), tag)  # after M more points are lines
    return _DIGITS.sub(lambda places: _NUMBER.sub(_two_digits, places[0]), _UNUSED.sub("", tag))


def _two_digits(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}"


def _lay_out(figure: Figure) -> None:
    """Lay the panels out once, rounded to 1e-5: the solver's last digits vary between processes."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")
    for panel in figure.axes:
        left, bottom, width, height = panel.get_position(original=True).bounds
        panel.set_position((round(left, 5), round(bottom, 5), round(width, 5), round(height, 5)))


def label(text: str, longest: int = _LONGEST_NAME) -> str:
    """Return text that Matplotlib draws unchanged, shortened if it is too long for the plot."""
    font = get_font(findfont(_FONT))
    drawn = "".join(char if font.get_char_index(ord(char)) else "?" for char in clean(text))
    # A legend leaves out an entry that begins with an underscore.
    drawn = f" {drawn}" if drawn.startswith("_") else drawn
    return drawn if len(drawn) <= longest else f"{drawn[: longest - 1]}\N{HORIZONTAL ELLIPSIS}"
