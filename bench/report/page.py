"""Blocks as one HTML file that works everywhere: it needs no other file, no network and no script.

The script of the page only adds to it: choosing, sorting, tooltips, and the state of all that in the address.
Every text is escaped by Jinja2. The page's policy forbids every request, and every script and style but the
two that are inside it. The same blocks always give the same bytes.
"""

import base64
import functools
import hashlib
import importlib.resources
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from bench.report import svg
from bench.report.blocks import (
    Block,
    Chart,
    Details,
    File,
    Group,
    Heading,
    Listing,
    Picture,
    Table,
)
from bench.report.chart import NO_TAGS, Bars, Tags
from bench.report.highlight import python_pieces
from bench.report.svg.palette import DARK, LIGHT, declarations
from bench.text import clean

NAME = "report.html"
"""The file of a page, in the folder of what it reports."""

_POLICY = (
    "default-src 'none'; style-src '{style}'; script-src '{script}'; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)
_NOT_IN_ID = re.compile(r"[^a-z0-9]+")
_LONGEST_ID = 60
_WIDE, _NARROW, _PHONE = 760.0, 560.0, 360.0
"""Widths of a chart in CSS pixels: alone, beside another, and on a phone."""
_LARGEST_SMALL = 20_000
"""Characters of a drawing for a phone, which is there beside the wide one."""
_LONGEST_UNWRAPPED = 18
_DEEPEST = 6
"""HTML has six levels of headings."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a reader can choose by: a key of the blocks' tags."""

    key: str
    label: str
    """What stands above the choice."""
    names: Mapping[str, str] = {}
    """What a value is called, by the value; a value without a name is shown as it is."""


class _Section(msgspec.Struct, kw_only=True):
    """A part of a page with a heading of level 2, and everything up to the next."""

    id: str
    title: str
    tags: Tags
    blocks: list[Block]


def document(
    blocks: Sequence[Block],
    *,
    title: str,
    choices: Sequence[Choice] = (),
    terms: Mapping[str, str] | None = None,
    pictures: Mapping[str, bytes] | None = None,
) -> str:
    """Return the page of a report.

    `title` is that of the window. `choices` are the keys of tags that a reader can choose by; one that has a
    single value in the whole page is not offered. `terms` explains words: each section links the first place
    of a word, or of its plural with an s, to its explanation at the end of the page. `pictures` holds the SVG
    of each picture, by name; a picture that is missing is left out.
    """
    maker = _Maker(terms or {}, pictures or {})
    head, sections = _divided(blocks, maker)
    environment = _environment()
    environment.globals |= maker.functions()
    style, script = _style(), _resource("page.js")
    # Rendered first: what the sections use of the terms decides which are explained at the end.
    body = environment.from_string(_resource("blocks.html")).make_module()
    show = body.show  # type: ignore[attr-defined]
    shown = show(head)
    parts = [(section, show(maker.begin(section))) for section in sections]
    return environment.from_string(_resource("template.html")).render(
        title=clean(title),
        policy=_POLICY.format(style=_digest(style), script=_digest(script)),
        style=Markup(style),  # noqa: S704 - of this package
        script=Markup(script),  # noqa: S704 - of this package
        head=shown,
        sections=parts,
        choices=_offered(blocks, choices),
        terms=maker.explained(),
    )


def _divided(blocks: Iterable[Block], maker: "_Maker") -> tuple[list[Block], list[_Section]]:
    """Return the blocks before the first heading of level 2, and the sections that such headings begin.

    A group that begins with such a heading is a section with the tags of the group.
    """
    head: list[Block] = []
    sections: list[_Section] = []
    for block in blocks:
        match block:
            case Heading(level=2, text=text):
                sections.append(_section(text, NO_TAGS, [], maker))
            case Group(blocks=(Heading(level=2, text=text), *inside), tags=tags):
                sections.append(_section(text, tags, inside, maker))
            case _:
                (sections[-1].blocks if sections else head).append(block)
    return head, sections


def _section(text: str, tags: Tags, blocks: Iterable[Block], maker: "_Maker") -> _Section:
    return _Section(id=maker.new_id(text), title=clean(text), tags=tags, blocks=list(blocks))


def _offered(
    blocks: Iterable[Block], choices: Iterable[Choice]
) -> list[tuple[Choice, list[tuple[str, str]]]]:
    """Return the choices among two values or more, each with its values and their names, in their order."""
    found: dict[str, dict[str, None]] = {choice.key: {} for choice in choices}
    for tags in _all_tags(blocks):
        for key, value in tags.items():
            if key in found:
                found[key][value] = None
    return [
        (choice, [(clean(value), clean(choice.names.get(value, value))) for value in found[choice.key]])
        for choice in choices
        if len(found[choice.key]) > 1
    ]


def _all_tags(blocks: Iterable[Block]) -> Iterator[Tags]:
    for block in blocks:
        match block:
            case Group(blocks=inside, tags=tags):
                yield tags
                yield from _all_tags(inside)
            case Details(blocks=inside):
                yield from _all_tags(inside)
            case Table(tags=rows):
                yield from rows
            case Chart(drawn=drawn, table=table, tags=tags):
                yield tags
                yield from table.tags
                marks = drawn.bars if isinstance(drawn, Bars) else drawn.series
                yield from (mark.tags for mark in marks)


class _Maker:
    """What the template asks while it shows blocks: ids that differ, and terms that were explained."""

    def __init__(self, terms: Mapping[str, str], pictures: Mapping[str, bytes]) -> None:
        self._pictures = pictures
        self._ids: dict[str, int] = {}
        self._terms = {word.lower(): (word, meaning) for word, meaning in terms.items()}
        words = sorted(map(re.escape, terms), key=len, reverse=True)
        self._pattern = re.compile(rf"(?<!\w)({'|'.join(words)})s?(?!\w)", re.IGNORECASE) if words else None
        self._term_ids = {word: self.new_id(f"term {word}") for word in self._terms}
        self._told: set[str] = set()
        """The terms that were linked in this section."""
        self._used: set[str] = set()
        self._level = 1
        self._heading = ""

    def functions(self) -> dict[str, Any]:
        return {
            "kind": lambda block: type(block).__name__,
            "new_id": self.new_id,
            "text": self.text,
            "level": self.level,
            "heading": lambda: self._heading,
            "go_below": self.go_below,
            "tags": _tags,
            "row_tags": lambda table, row: _tags(table.tags[row]) if table.tags else "",
            "draw": lambda chart, wide: _draw(chart, _WIDE if wide else _NARROW),
            "draw_small": _draw_small,
            "pieces": _pieces,
            "lines": _lines,
            "address": _address,
            "picture": self.picture,
            "shared_abouts": _shared_abouts,
            "short_columns": _short_columns,
            "clean": clean,
        }

    def begin(self, section: _Section) -> list[Block]:
        """Begin a section, in which the terms count as not yet explained, and return its blocks."""
        self._told, self._level, self._heading = set(), 2, section.title
        return section.blocks

    def new_id(self, text: str) -> str:
        """Return an id that no other part of the page has."""
        base = _NOT_IN_ID.sub("-", clean(text).lower())[:_LONGEST_ID].strip("-") or "part"
        count = self._ids[base] = self._ids.get(base, 0) + 1
        return base if count == 1 else self.new_id(f"{base[: _LONGEST_ID - 8]} {count}")

    def level(self, block: Heading) -> int:
        """Return the level of a heading without a gap to the one before it, as screen readers need it."""
        self._heading = clean(block.text)
        self._level = min(block.level, self._level + 1, _DEEPEST)
        return self._level

    def go_below(self, heading: str) -> None:
        """Name the tables that follow after `heading`, up to the next heading."""
        self._heading = heading

    def text(self, raw: str) -> Markup:
        """Return a text whose terms link to their explanations, each the first time in a section."""
        shown = clean(raw)
        if self._pattern is None:
            return escape(shown)
        parts: list[Markup] = []
        done = 0
        for found in self._pattern.finditer(shown):
            word = found[1].lower()
            if word in self._told:
                continue
            self._told.add(word)
            self._used.add(word)
            link = Markup('<a class="term" href="#{}" data-tip="{}">{}</a>')
            parts += [
                escape(shown[done : found.start()]),
                link.format(self._term_ids[word], clean(self._terms[word][1]), found[0]),
            ]
            done = found.end()
        return Markup("").join([*parts, escape(shown[done:])])

    def picture(self, block: Picture) -> str:
        """Return a picture as an address that holds all of it; empty if there is none."""
        content = self._pictures.get(block.name)
        return "" if content is None else f"data:image/svg+xml;base64,{base64.b64encode(content).decode()}"

    def explained(self) -> list[tuple[str, str, str]]:
        """Return id, word and meaning of every term that the page uses, in the order of the alphabet."""
        return [
            (self._term_ids[word], self._terms[word][0], clean(self._terms[word][1]))
            for word in sorted(self._used)
        ]


@functools.cache
def _resource(name: str) -> str:
    return (importlib.resources.files("bench.report") / "page" / name).read_text(encoding="utf-8")


def _style() -> str:
    """Return the style of a page, with the colours of charts."""
    dark = f"{declarations(DARK)}\n{_resource('dark.css')}"
    return _resource("page.css").replace("/* light */", declarations(LIGHT)).replace("/* dark */", dark)


def _environment() -> Environment:
    return Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.do"],
    )


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _tags(tags: Tags) -> Markup | str:
    """Return the attribute that holds tags; nothing if there are none."""
    if not tags:
        return ""
    cleaned = {key: clean(value) for key, value in tags.items()}
    return Markup(' data-tags="{}"').format(json.dumps(cleaned, ensure_ascii=False, separators=(",", ":")))


def _draw(chart: Chart, width: float) -> Markup:
    return Markup(svg.draw(chart, width=width))  # noqa: S704 - it escapes its texts itself


def _draw_small(chart: Chart) -> Markup | str:
    """Return the drawing for a phone; nothing if it is so large that the wide one has to do."""
    drawn = _draw(chart, _PHONE)
    return drawn if len(drawn) <= _LARGEST_SMALL else ""


def _shared_abouts(group: Group) -> list[str]:
    """Return how the charts of a group are read, if that is the same for some of them; else nothing."""
    abouts = [block.about for block in group.blocks if isinstance(block, Chart)]
    every = list(dict.fromkeys(abouts))
    return every if len(every) < len(abouts) else []


def _short_columns(table: Table) -> frozenset[int]:
    """Return the columns whose texts are so short that a wrapped one would only look torn."""
    return frozenset(
        place
        for place in range(len(table.heads))
        if place not in table.numbers and all(len(row[place]) <= _LONGEST_UNWRAPPED for row in table.rows)
    )


def _pieces(listing: Listing) -> list[tuple[str, str]]:
    """Return the kinds and texts of a listing's pieces."""
    source = _lines(listing.text)
    return [*python_pieces(source)] if listing.language == "python" else [("", source)]


def _lines(text: str) -> str:
    """Return several lines as they are, without characters that act on a reader."""
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(char)[0] == "C" and char not in "\n\t" else char
        for char in text.replace("\r\n", "\n")
    )


def _address(file: File) -> str:
    """Return the address of a file: its path from the page, or the file itself."""
    if file.content is None:
        # A colon would make the part before it a scheme, such as `javascript:`, and two slashes a host.
        return "/".join(quote(part, safe="") for part in file.name.lstrip("/").split("/"))
    return "data:text/csv;charset=utf-8," + quote(file.content, safe=" ,./:;()+-*@!|=")
