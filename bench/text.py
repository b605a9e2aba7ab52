"""Make texts from files safe to print, and format lists and durations."""

import unicodedata
from collections.abc import Sequence


def clean(text: str) -> str:
    """Return one line of text without control, format, private or unassigned characters."""
    return " ".join(
        "".join(
            " "
            if char.isspace()
            else "\N{REPLACEMENT CHARACTER}"
            if unicodedata.category(char)[0] == "C"
            else char
            for char in text
        ).split()
    )


def readable(text: str) -> str:
    r"""Return a text in which a byte of a file's name that is no text is written as `\xff`."""
    return "".join(f"\\x{ord(char) - 0xDC00:02x}" if "\udc80" <= char <= "\udcff" else char for char in text)


def clean_lines(text: str) -> str:
    """Return a text of several lines, with `clean` applied to each."""
    return "\n".join(clean(line) for line in text.splitlines())


def cut(text: str, longest: int) -> str:
    """Return one clean line of at most so many characters; what is left out is marked by an ellipsis."""
    line = clean(text)
    return line if len(line) <= longest else f"{line[: longest - 1].rstrip()}\N{HORIZONTAL ELLIPSIS}"


def listed(names: Sequence[str]) -> str:
    """Return names as in a sentence: `a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def duration(seconds: float) -> str:
    """Return a duration as text: `42 s`, `15 min`, `3 min 05 s`, `1 h 20 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
