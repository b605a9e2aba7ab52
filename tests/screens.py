"""A small terminal for tests: what a person sees after some output, and whether the cursor is visible.

It knows what Rich sends: text, carriage returns, line feeds, movements of the cursor, and erasing. Colours
are left out, and any other sequence is an error.
"""

import io
import re

_SEQUENCE = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])")


class Tty(io.StringIO):
    """A text file that takes itself for a terminal."""

    def isatty(self) -> bool:
        return True


class Seen:
    """The lines of a terminal of a size; lines that scrolled off the top are kept in `above`."""

    def __init__(self, width: int = 80, height: int = 24) -> None:
        self.width, self.height = width, height
        self.above: list[str] = []
        self.cursor = True
        self._lines = [""] * height
        self._row = self._column = 0

    @property
    def lines(self) -> list[str]:
        """The lines that are on the screen, without the empty ones at the end."""
        text = "\n".join(line.rstrip() for line in self._lines).rstrip("\n")
        return text.split("\n") if text else []

    @property
    def everything(self) -> list[str]:
        return [line.rstrip() for line in self.above] + self.lines

    def feed(self, output: str) -> "Seen":
        at = 0
        while at < len(output):
            if found := _SEQUENCE.match(output, at):
                self._act(found[1], found[2])
                at = found.end()
                continue
            self._write(output[at])
            at += 1
        return self

    def _write(self, char: str) -> None:
        if char == "\r":
            self._column = 0
        elif char == "\n":  # a terminal driver returns the carriage, too
            self._column = 0
            self._down()
        else:
            assert char.isprintable(), repr(char)
            if self._column == self.width:
                self._column = 0
                self._down()
            line = self._lines[self._row].ljust(self._column)
            self._lines[self._row] = line[: self._column] + char + line[self._column + 1 :]
            self._column += 1

    def _down(self) -> None:
        if self._row < self.height - 1:
            self._row += 1
        else:
            self.above.append(self._lines.pop(0))
            self._lines.append("")

    def _act(self, parameters: str, letter: str) -> None:
        match parameters, letter:
            case "?25", "l" | "h":
                self.cursor = letter == "h"
            case _, "m":
                pass
            case _, "A":
                self._row = max(0, self._row - int(parameters or 1))
            case "2", "K":
                self._lines[self._row] = ""
            case "2", "J":
                self._lines = [""] * self.height
            case "", "H":
                self._row = self._column = 0
            case _:
                raise AssertionError(f"unknown sequence {parameters!r} {letter!r}")
