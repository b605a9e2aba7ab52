"""The colours of charts: variables that a page may set, each with the colour of a file that stands alone.

The hues are those of Okabe and Ito, made for every kind of colour vision, without their yellow, which is too
pale for lines. In the dark palette they are lighter.
"""

from collections.abc import Mapping
from types import MappingProxyType

LIGHT: Mapping[str, str] = MappingProxyType(
    {
        "--ink": "#1a1a1a",
        "--faint": "#595959",
        "--rule": "#dcdcdc",
        "--paper": "#ffffff",
        "--alarm": "#b00020",
        "--hue-0": "#0072b2",
        "--hue-1": "#d55e00",
        "--hue-2": "#009e73",
        "--hue-3": "#cc79a7",
        "--hue-4": "#e69f00",
        "--hue-5": "#56b4e9",
        "--hue-6": "#000000",
        "--part-0": "#000000",
        "--part-1": "#0072b2",
        "--part-2": "#56b4e9",
        "--part-3": "#d55e00",
        "--part-4": "#e69f00",
        "--part-5": "#c8c8c8",
    }
)
"""Every variable, with its colour on a light ground. The parts of bars go from dark to light, so that
neighbours also differ without colour."""

DARK: Mapping[str, str] = MappingProxyType(
    {
        "--ink": "#ececec",
        "--faint": "#b4b4b4",
        "--rule": "#3d3d3d",
        "--paper": "#161616",
        "--alarm": "#ff7b8a",
        "--hue-0": "#4aa8e0",
        "--hue-1": "#f58b3c",
        "--hue-2": "#2fc59a",
        "--hue-3": "#e09cc3",
        "--hue-4": "#f2b83a",
        "--hue-5": "#8fd0f5",
        "--hue-6": "#ffffff",
        "--part-0": "#ffffff",
        "--part-1": "#4aa8e0",
        "--part-2": "#8fd0f5",
        "--part-3": "#d55e00",
        "--part-4": "#f2b83a",
        "--part-5": "#6a6a6a",
    }
)
HUES = 7
PARTS = 6


def _use(variable: str) -> str:
    return f"var({variable}, {LIGHT[variable]})"


INK, FAINT, RULE, PAPER, ALARM = map(_use, ("--ink", "--faint", "--rule", "--paper", "--alarm"))


def hue(number: int) -> str:
    """Return the colour of a hue by its number; hues repeat after seven."""
    return _use(f"--hue-{number % HUES}")


def part(number: int) -> str:
    """Return the colour of a part of a bar by its number; they repeat after six."""
    return _use(f"--part-{number % PARTS}")


def declarations(colours: Mapping[str, str]) -> str:
    """Return a palette as the declarations of a CSS rule."""
    return " ".join(f"{name}: {colour};" for name, colour in colours.items())
