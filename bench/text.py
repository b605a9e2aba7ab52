"""Making a text that comes from elsewhere, such as a name in a file, safe to print."""

import unicodedata


def clean(text: str) -> str:
    """Return one line of text in which nothing is a control, format, private or unassigned character."""
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


def clean_lines(text: str) -> str:
    """Return a text of several lines, each of them clean."""
    return "\n".join(clean(line) for line in text.splitlines())
