"""A page holds all that its blocks say, works without anything else, and shows every text as text."""

import base64
import hashlib
import itertools
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import unquote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pages import Page

from bench.report.blocks import (
    Block,
    Bullets,
    Chart,
    Code,
    Details,
    File,
    Group,
    Heading,
    Item,
    Listing,
    Note,
    Paragraph,
    Picture,
    Table,
    bullets,
    named_bullets,
)
from bench.report.chart import Axis, Bar, Bars
from bench.report.highlight import python_pieces
from bench.report.page import Choice, document
from bench.text import clean

ROOT = Path(__file__).parent.parent.parent
HOSTILE = (
    "</SCRIPT><img src=x onerror=alert(1)><svg/onload=alert(2)> {{ 7*7 }} {% raw %} \" ' ` & &lt; "
    "javascript:alert(3) \x1b[31m\u202eevil\u2066 </style></title>"
)
LONG = "long-name-" * 1000
CHOICES = (
    Choice(key="backend", label="Framework", names={"torch": "PyTorch"}),
    Choice(key="workload", label="Workload"),
)


def chart(name: str = "speed", text: str = "PyTorch eager", **tags: str) -> Chart:
    bar = Bar(name=text, parts=(1.5,), text=text, low=1.0, high=2.0, tags={"backend": "torch"})
    return Chart(
        name=name,
        title=f"Title of {text}",
        about="How it is read.",
        drawn=Bars(axis=Axis(title=text), bars=(bar,)),
        table=table(text),
        tags=tags,
    )


def table(text: str = "PyTorch eager") -> Table:
    return Table(
        heads=("framework", "samples/s"),
        rows=((text, "1,234"), ("JAX jit", "999")),
        numbers=frozenset({1}),
        flagged=frozenset({1}),
        tags=({"backend": "torch", "workload": "a"}, {"backend": "jax", "workload": "b"}),
    )


def every_block(text: str) -> list[Block]:
    """Return a block of every kind, with the same text wherever a block has one."""
    return [
        Heading(text=text, level=1),
        Note(text=text),
        Note(text=text, warning=True),
        Heading(text=text),
        Paragraph(text=text),
        Paragraph(text=text, faint=True),
        bullets([text]),
        named_bullets([(text, text)]),
        table(text),
        Code(text=text),
        Listing(title=text, text=f"x = 1\n{text}"),
        Listing(title=text, text=text, language="text"),
        Group(blocks=(Heading(text=text, level=2), chart(text=text, workload=text)), tags={"workload": text}),
        Details(summary=text, blocks=(Paragraph(text=text),)),
        Group(blocks=(chart("two", text), chart("three", text)), beside=True),
        File(name="run.json", text=text),
        File(name="rows.csv", text=text, content=f"a,b\n{text}\n"),
        Picture(name="picture", caption=text),
    ]


def made(blocks: list[Block]) -> str:
    return document(
        blocks,
        title="A title",
        choices=CHOICES,
        terms={"samples/s": "images per second", "interval": "a range"},
        pictures={"picture": b"<svg xmlns='http://www.w3.org/2000/svg'/>"},
    )


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(made(every_block("Some words about an interval")))


# ---- what is shown


def test_every_text_of_every_block_is_there() -> None:
    marks = iter(range(1000))
    blocks: list[Block] = [
        Heading(text=f"mark{next(marks)}", level=1),
        Paragraph(text=f"mark{next(marks)}"),
        bullets([f"mark{next(marks)}"]),
        named_bullets([(f"mark{next(marks)}", f"mark{next(marks)}")]),
        Code(text=f"mark{next(marks)}"),
        Listing(title=f"mark{next(marks)}", text=f"mark{next(marks)}"),
        table(f"mark{next(marks)}"),
        chart(text=f"mark{next(marks)}"),
        Details(summary=f"mark{next(marks)}", blocks=(Note(text=f"mark{next(marks)}"),)),
        Group(blocks=(Note(text=f"mark{next(marks)}", warning=True),)),
        File(name=f"mark{next(marks)}", text=f"mark{next(marks)}"),
    ]
    shown = Page(made(blocks)).text
    missing = [number for number in range(next(marks)) if not re.search(rf"\bmark{number}\b", shown)]
    assert missing == []


def test_headings_go_down_one_level_at_a_time_and_there_is_one_title(page: Page) -> None:
    levels = [int(one.tag[1]) for one in page.elements if re.fullmatch(r"h[1-6]", one.tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    gap = Page(made([Heading(text="a", level=1), Heading(text="b", level=4), Heading(text="c", level=3)]))
    assert [one.tag for one in gap.all("h1", "h2", "h3", "h4")] == ["h1", "h2", "h3"]


def test_the_page_has_landmarks_captions_and_scopes(page: Page) -> None:
    assert len(page.all("main")) == len(page.all("header")) == len(page.all("nav")) == 1
    assert page.all("html")[0].attributes["lang"] == "en"
    assert page.all("a")[0].attributes["href"] == "#content"
    assert len(page.all("caption")) == len(page.all("table")) > 0
    scopes = Counter(one.attributes.get("scope") for one in page.all("th"))
    assert scopes == {"col": 2 * len(page.all("table")), "row": 2 * len(page.all("table"))}
    assert all(section.attributes["aria-labelledby"] for section in page.all("section"))
    assert [one.attributes["role"] for one in page.elements if one.attributes.get("id") == "shown"] == [
        "status"
    ]
    assert all(picture.attributes["alt"] for picture in page.all("img"))


def test_a_heading_is_named_by_its_words_alone_and_links_to_itself() -> None:
    page = Page(made([Heading(text="One"), Heading(text="Two", level=3)]))
    for heading in page.all("h2", "h3"):
        assert heading.attributes["id"]
    links = [one for one in page.all("a") if one.attributes.get("class") == "here"]
    assert [one.attributes["href"] for one in links] == ["#one", "#two"]
    assert all("aria-label" not in one.attributes for one in links)


def test_a_table_that_is_folded_away_is_named_by_what_folds_it() -> None:
    blocks = [Heading(text="One"), Details(summary="All", blocks=(table(),)), table()]
    page = made(blocks)
    assert re.findall("<caption>(.*?)</caption>", page) == ["One: All", "One"]


def test_no_two_elements_share_an_id_and_every_link_leads_somewhere(page: Page) -> None:
    ids = Counter(page.attributes("id"))
    assert [name for name, count in ids.items() if count > 1] == []
    links = [link for link in page.attributes("href") if link.startswith("#")]
    assert len(links) > 5
    assert {link.removeprefix("#") for link in links} <= set(ids)
    named = [name for value in page.attributes("aria-labelledby") for name in value.split()]
    assert set(named) <= set(ids)


def test_many_headings_of_one_long_text_get_different_ids() -> None:
    page = Page(made([Heading(text=LONG) for _ in range(30)]))
    assert max(Counter(page.attributes("id")).values()) == 1


def test_a_section_is_in_the_contents_with_its_tags() -> None:
    blocks = [Heading(text="One"), Group(blocks=(Heading(text="Two"),), tags={"workload": "a"}), table()]
    page = Page(made(blocks))
    assert [one.attributes["id"] for one in page.all("section")] == ["one", "two", "terms"]
    assert [json.loads(one.attributes.get("data-tags", "{}")) for one in page.all("section", "li")] == [
        {}, {"workload": "a"}, {}, {}, {"workload": "a"}, {},
    ]  # fmt: skip


def test_only_what_differs_can_be_chosen_and_values_have_their_names() -> None:
    page = Page(made([table()]))
    assert [one.attributes["name"] for one in page.all("select")] == ["backend", "workload"]
    assert [one.attributes["value"] for one in page.all("option")] == ["", "torch", "jax", "", "a", "b"]
    assert "Framework all PyTorch jax Workload all a b" in page.text
    assert Page(made([Paragraph(text="x")])).all("select", "form") == []
    assert [one.attributes["name"] for one in Page(made([chart(workload="c"), table()])).all("select")] == [
        "backend", "workload",
    ]  # fmt: skip


def test_a_term_is_explained_once_a_section_and_at_the_end() -> None:
    blocks = [
        Heading(text="One"),
        Paragraph(text="An interval, an Interval and its intervals"),
        Heading(text="Two"),
        Paragraph(text="intervals, not an intervall"),
    ]
    page = Page(made(blocks))
    terms = [one for one in page.all("a") if one.attributes.get("class") == "term"]
    assert [one.attributes["data-tip"] for one in terms] == ["a range", "a range"]
    assert {one.attributes["href"] for one in terms} == {"#term-interval"}
    assert "interval a range" in page.text
    assert "images per second" not in page.text, "only what is used is explained"


def test_how_charts_are_read_is_said_once_if_it_is_the_same_for_all() -> None:
    beside = Group(blocks=(chart("a"), chart("b")), beside=True)
    assert (
        Page(made([beside])).text.count("How it is read.") == 1 + 4
    )  # each drawing tells it to screen readers
    assert Page(made([chart("a"), chart("b")])).text.count("How it is read.") == 2 + 4


def test_a_chart_is_drawn_for_a_phone_too_unless_that_would_make_the_page_large() -> None:
    few, many = chart("few"), chart("many", "x" * 20)
    bars = many.drawn
    assert isinstance(bars, Bars)
    many = msgspec.structs.replace(many, drawn=msgspec.structs.replace(bars, bars=bars.bars * 60))
    plots = [
        one.attributes["class"]
        for one in Page(made([few, many])).all("div")
        if "plot" in one.attributes.get("class", "")
    ]
    assert plots == ["plot wide", "plot phone", "plot wide only"]


def test_a_picture_that_is_missing_is_left_out() -> None:
    blocks = [Picture(name="picture", caption="here"), Picture(name="other", caption="gone")]
    page = Page(made(blocks))
    (image,) = page.all("img")
    assert image.attributes["src"].startswith("data:image/svg+xml;base64,")
    assert "gone" not in page.text


def test_a_file_is_linked_or_inside_the_page() -> None:
    files = [
        File(name="../a b/run.json", text="beside"),
        File(name="rows.csv", text="in it", content="ü,#\n1,&\n"),
    ]
    beside, inside = [one for one in Page(made(files)).all("a") if one.around[-1] == "p"]
    assert beside.attributes == {"href": "../a%20b/run.json"}
    kind, _, content = inside.attributes["href"].partition(",")
    assert (kind, unquote(content)) == ("data:text/csv;charset=utf-8", "ü,#\n1,&\n")
    assert inside.attributes["download"] == "rows.csv"


def test_an_item_links_its_file() -> None:
    page = Page(made([Bullets(items=(Item(name="run.json", text="all", file="run.json"),))]))
    assert "run.json" in [one.attributes["href"] for one in page.all("a")]


# ---- safety


def policy_of(html: str) -> dict[str, str]:
    (content,) = [
        one.attributes["content"]
        for one in Page(html).all("meta")
        if one.attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    return {name: rest for name, _, rest in (part.strip().partition(" ") for part in content.split(";"))}


def test_the_policy_forbids_all_but_the_style_and_the_script_of_the_page() -> None:
    html = made(every_block("text"))
    policy = policy_of(html)
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert policy[directive] == f"'sha256-{digest}'"
    assert "style" not in {name for one in Page(html).elements for name in one.attributes}


def handlers(page: Page) -> list[str]:
    return [name for one in page.elements for name in one.attributes if name.startswith("on")]


def test_hostile_text_stays_text_in_every_block() -> None:
    page, harmless = Page(made(every_block(HOSTILE))), Page(made(every_block("harmless")))
    assert {one.tag for one in page.elements} == {one.tag for one in harmless.elements}
    assert handlers(page) == []
    assert not any(link.lower().startswith(("javascript:", "http")) for link in page.attributes("href"))
    assert clean(HOSTILE) in page.text
    assert "{{ 7*7 }}" in page.text
    assert "\x1b" not in page.text
    assert "\u202e" not in page.text
    assert "\u2066" not in page.text


def test_a_name_of_ten_thousand_letters_stays_whole() -> None:
    assert LONG in Page(made(every_block(LONG))).text


def test_the_path_of_a_file_cannot_be_a_script() -> None:
    page = Page(made([File(name="javascript:alert(1)", text="x"), File(name="//evil/x", text="x")]))
    links = [one.attributes["href"] for one in page.all("a") if one.around[-1] == "p"]
    assert links[0] == "javascript%3Aalert%281%29"
    assert not links[1].startswith("//")


@given(st.text())
def test_any_text_is_shown_as_it_is(text: str) -> None:
    page = Page(document([Paragraph(text=text), Note(text=text), table(text)], title=text))
    said = clean(text)
    assert said in page.text
    assert len(page.all("p")) >= 2


# ---- the same each time, and small


def test_the_same_blocks_give_the_same_bytes_in_another_process() -> None:
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from test_page import every_block, made; import hashlib\n"
        "print(hashlib.sha256(made(every_block('words')).encode()).hexdigest())"
    )
    paths = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    done = subprocess.run(
        [sys.executable, "-c", code, *paths], check=True, capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    html = made(every_block("words"))
    assert made(every_block("words")) == html
    assert done.stdout.strip() == hashlib.sha256(html.encode()).hexdigest()


def test_an_empty_report_is_a_page() -> None:
    page = Page(document([], title="Nothing"))
    assert page.all("main")
    assert page.all("nav", "form") == []


# ---- source code


@given(st.text())
def test_the_pieces_of_a_source_are_the_source(source: str) -> None:
    assert "".join(piece.text for piece in python_pieces(source)) == source


def test_source_is_coloured_by_its_tokens() -> None:
    source = 'def add(x: int) -> str:\n    """Say."""\n    return f"{x.real}" + str(0x1F)  # four\n'
    found = [(kind, text) for kind, text in python_pieces(source) if kind]
    assert ("keyword", "def") in found
    assert ("defined", "add") in found
    assert ("builtin", "int") in found
    assert ("string", '"""Say."""') in found
    assert ("number", "0x1F") in found
    assert ("comment", "# four") in found
    assert ("builtin", "real") not in found


def test_what_is_not_python_has_no_colour() -> None:
    assert [piece.kind for piece in python_pieces("def (:\n  'open\n\tx")] == [""]
