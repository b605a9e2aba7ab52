"""Printing where the terminal, or the file in its place, takes fewer characters than Unicode has."""

from collections.abc import Callable

from rich.console import Console

_ASCII = str.maketrans(
    {
        "\N{EN DASH}": "-",
        "\N{MINUS SIGN}": "-",
        "\N{BULLET}": "-",
        "\N{PLUS-MINUS SIGN}": "+/-",
        "\N{MULTIPLICATION SIGN}": "x",
        "\N{RIGHTWARDS ARROW}": "->",
    }
)


def print_encodable(console: Console, draw: Callable[[], None]) -> None:
    """Call `draw`, which prints on the console, and write what it printed in what the console can encode."""
    if console.encoding.lower().startswith("utf"):
        draw()
        return
    with console.capture() as captured:
        draw()
    plain = captured.get().translate(_ASCII).encode(console.encoding, "replace").decode(console.encoding)
    console.file.write(plain)
