"""A small reader of pages for tests: tags, attributes and texts of an HTML file that is well nested."""

from html.parser import HTMLParser
from typing import NamedTuple

_INLINE = {"a", "b", "code", "span", "strong"}
"""Elements between whose texts there is no space."""
_VOID = {"meta", "link", "br", "img", "input", "hr"}


class Element(NamedTuple):
    """A start tag, with the tags around it."""

    tag: str
    attributes: dict[str, str]
    around: tuple[str, ...]


class Page(HTMLParser):
    """A page, read when it is made. Raises AssertionError where an end tag does not fit."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[Element] = []
        self.texts: list[str] = []
        """Every text that is shown, without scripts and styles."""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == [], "some tags are not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), f"an attribute of {tag} is there twice"
        self.elements.append(Element(tag, {name: value or "" for name, value in attrs}, tuple(self._open)))
        if tag not in _VOID:
            self._open.append(tag)
        if tag not in _INLINE:
            self.texts.append(" ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> has no beginning"
        assert self._open.pop() == tag, f"</{tag}> is in the wrong place"
        if tag not in _INLINE:
            self.texts.append(" ")

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self._open):
            self.texts.append(data)

    @property
    def text(self) -> str:
        """Return everything that is shown, with single spaces."""
        return " ".join("".join(self.texts).split())

    def all(self, *tags: str) -> list[Element]:
        return [one for one in self.elements if one.tag in tags]

    def attributes(self, name: str) -> list[str]:
        """Return every value of an attribute."""
        return [one.attributes[name] for one in self.elements if name in one.attributes]
