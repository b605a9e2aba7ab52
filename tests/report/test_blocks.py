"""Blocks on a terminal and as Markdown: both tell all that a block holds, and no text acts on its reader."""

import io
import re
from collections.abc import Sequence
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.cells import cell_len
from rich.console import Console

from bench.report.blocks import (
    Block,
    Bullets,
    Code,
    Heading,
    Item,
    Note,
    Paragraph,
    Picture,
    Table,
    bullets,
    lean,
    named_bullets,
    number_table,
)
from bench.report.format import NOTHING, PLUS_MINUS
from bench.report.markdown import document, escape
from bench.report.terminal import print_blocks
from bench.text import clean

HOSTILE = (
    "a|b\n# c <script>alert(1)</script> `d` **e** [f](http://evil) \x1b[31m\u202e$g^2$ &lt; _h_ =1+1 模型"
)
RATES = Table(
    heads=("framework", "samples/s", "status", "import", "memory"),
    rows=(
        ("PyTorch eager", "1,234", "ok", "1.50 s", "700 MiB"),
        ("JAX jit", NOTHING, "not available here", NOTHING, NOTHING),
    ),
    numbers=frozenset({1, 3, 4}),
    flagged=frozenset({1}),
    details=3,
)
BLOCKS = (
    Heading(text="The title", level=1),
    Note(text="on a sample"),
    Note(text="a wrong version", warning=True),
    Paragraph(text="Some words, which are long enough to be wrapped on a narrow terminal."),
    Heading(text="Figures"),
    Heading(text="mnist-cnn (cpu fp32)", level=3),
    RATES,
    Paragraph(text=f"{PLUS_MINUS}: an interval", faint=True),
    bullets(["one line", "another line"]),
    Paragraph(text="Reasons:"),
    named_bullets([("a row", "the reason, which is long enough to be wrapped, too")]),
    Code(text="bench run --preset quick"),
)


def on_terminal(blocks: Sequence[Block], width: int = 80, **options) -> str:
    file = io.StringIO()
    print_blocks(blocks, Console(file=file, width=width, **options))
    return file.getvalue()


def html(text: str) -> str:
    # GitHub's links without any mark need a package that is not here; see the test of addresses.
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)


def texts(blocks: Sequence[Block]) -> list[str]:
    """Return every text of the blocks, pictures left out."""
    found: list[str] = []
    for block in blocks:
        if isinstance(block, Table):
            found += [*block.heads, *(cell for row in block.rows for cell in row)]
        elif hasattr(block, "items"):
            found += [part for item in block.items for part in (item.name, item.text) if part]
        elif not isinstance(block, Picture):
            found.append(block.text)
    return found


# ---- both printers


@pytest.mark.parametrize(
    "block", [Paragraph(text="It is at most 95 % here"), bullets(["It is at most 95 % here"])]
)
@pytest.mark.parametrize("width", range(8, 30))
def test_a_number_stays_on_one_line_with_its_percent_sign(block: Block, width: int) -> None:
    printed = on_terminal([block], width)
    assert "95 %" in printed
    assert " ".join(printed.replace("\N{BULLET}", "").split()) == "It is at most 95 % here"
    assert all(line == line.rstrip() for line in printed.splitlines())


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_a_terminal_of_any_width_shows_every_text_and_no_line_is_wider(width: int) -> None:
    printed = on_terminal(BLOCKS, width)
    lines = [line for line in printed.splitlines() if not line.startswith("bench run")]  # is not wrapped
    assert max(map(cell_len, lines)) <= width
    squeezed = re.sub(r"[\s\N{BULLET}]", "", printed)  # a cell may be wrapped in the middle of a word
    # On a narrow terminal the lines of two wrapped cells alternate.
    for text in texts([block for block in BLOCKS if width >= 80 or block is not RATES]):
        assert re.sub(r"\s", "", text) in squeezed
    assert "\x1b" not in printed


def test_each_block_has_its_form_in_markdown() -> None:
    assert document(BLOCKS, frozenset()).splitlines() == [
        "# The title",
        "",
        "> **on a sample**",
        "",
        "> **Warning.** a wrong version",
        "",
        "Some words, which are long enough to be wrapped on a narrow terminal.",
        "",
        "## Figures",
        "",
        "### mnist-cnn (cpu fp32)",
        "",
        "| framework | samples/s | status | import | memory |",
        "| :-- | --: | :-- | --: | --: |",
        "| PyTorch eager | 1,234 | ok | 1.50 s | 700 MiB |",
        f"| JAX jit | {NOTHING} | not available here | {NOTHING} | {NOTHING} |",
        "",
        f"{PLUS_MINUS}: an interval",
        "",
        "- one line",
        "- another line",
        "",
        "Reasons:",
        "",
        "- **a row**: the reason, which is long enough to be wrapped, too",
        "",
        "```",
        "bench run --preset quick",
        "```",
    ]


def test_each_block_has_its_form_on_the_terminal() -> None:
    assert on_terminal(BLOCKS, 80).splitlines() == [
        "The title",
        "NOTE: on a sample",
        "WARNING: a wrong version",
        "",
        "Some words, which are long enough to be wrapped on a narrow terminal.",
        "",
        "Figures",
        "mnist-cnn (cpu fp32)",
        "framework      samples/s  status              import   memory",
        "PyTorch eager      1,234  ok                  1.50 s  700 MiB",
        f"JAX jit                {NOTHING}  not available here       {NOTHING}        {NOTHING}",
        "",
        f"{PLUS_MINUS}: an interval",
        "",
        "\N{BULLET} one line",
        "\N{BULLET} another line",
        "",
        "Reasons:",
        "",
        "\N{BULLET} a row: the reason, which is long enough to be wrapped, too",
        "",
        "bench run --preset quick",
    ]


def with_text(text: str) -> list[Block]:
    return [
        Heading(text=text),
        Note(text=text),
        Paragraph(text=text),
        named_bullets([(text, text)]),
        number_table([text, "b"], [[text, text]]),
        Picture(name="p", caption=text),
    ]


def test_hostile_text_stays_text() -> None:
    blocks = with_text(HOSTILE)
    text = document(blocks, frozenset({"p"}))
    shown, harmless = html(text), html(document(with_text("harmless"), frozenset({"p"})))
    assert re.findall(r"<(\w+)", shown) == re.findall(r"<(\w+)", harmless)
    assert shown.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 10  # a picture has it as text and caption
    # A renderer pads and cuts rows in silence, so the bars are counted in the source.
    (table,) = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()} == {3}
    printed = on_terminal(blocks, 2000)
    assert printed.count("[f](http://evil)") == printed.count("<script>") == 8  # brackets are no markup
    for output in (text, printed):
        assert "\x1b" not in output
        assert "\u202e" not in output


# ---- pictures


def test_a_picture_is_linked_only_if_it_was_drawn_and_left_out_of_a_terminal() -> None:
    picture = Picture(name="speed", caption="How fast")
    assert document([picture], frozenset({"speed"})) == "![How fast](plots/speed.svg)\n\n*How fast.*\n"
    assert document([picture, Paragraph(text="x")], frozenset()) == "x\n"
    assert on_terminal([picture, Paragraph(text="x")]) == "x\n"


def test_an_item_links_the_file_beside_the_report_that_it_is_about() -> None:
    page = Bullets(items=(Item(name="report_1.html", text="all", file="report_1.html"),))
    assert document([page], frozenset()) == "- [**report\\_1.html**](report_1.html): all\n"
    assert on_terminal([page]) == "\N{BULLET} report_1.html: all\n"


def test_a_command_stands_right_below_the_paragraph_that_introduces_it() -> None:
    assert on_terminal([Paragraph(text="Try:"), Code(text="bench list")]) == "Try:\nbench list\n"


def test_a_long_item_is_wrapped_and_indented() -> None:
    assert on_terminal([bullets(["one two three four"])], 14) == "\N{BULLET} one two\n  three four\n"


# ---- tables on a terminal


def test_details_stand_below_where_a_table_is_too_wide_without_rows_that_have_none() -> None:
    lines = [line.split() for line in on_terminal([RATES], 40).splitlines()]
    assert lines == [
        ["framework", "samples/s", "status"],
        ["PyTorch", "eager", "1,234", "ok"],
        ["JAX", "jit", NOTHING, "not", "available"],
        ["here"],
        ["framework", "import", "memory"],
        ["PyTorch", "eager", "1.50", "s", "700", "MiB"],
    ]


def test_texts_are_wrapped_between_words_before_a_table_is_split() -> None:
    lines = [line.split() for line in on_terminal([RATES], 50).splitlines()]
    assert lines == [
        ["framework", "samples/s", "status", "import", "memory"],
        ["PyTorch", "eager", "1,234", "ok", "1.50", "s", "700", "MiB"],
        ["JAX", "jit", NOTHING, "not", NOTHING, NOTHING],
        ["available"],
        ["here"],
    ]


def test_a_number_is_never_wrapped_and_its_head_may_be() -> None:
    table = number_table(["row", "of the best one"], [["a", "12,345"]])
    assert [line.split() for line in on_terminal([table], 10).splitlines()] == [
        ["of", "the"], ["best"], ["row", "one"], ["a", "12,345"],
    ]  # fmt: skip


def test_tables_with_the_same_heads_have_the_same_widths() -> None:
    short = number_table(["row", "figure"], [["a", "1"]])
    long = number_table(["row", "figure"], [["a much longer name", "1,234,567"]])
    heads = {line for line in on_terminal([short, long, short]).splitlines() if line.startswith("row")}
    assert heads == {on_terminal([long]).splitlines()[0]} != {on_terminal([short]).splitlines()[0]}


def test_a_long_text_takes_the_room_that_is_left() -> None:
    table = Table(heads=("what", "here"), rows=(("machine", " ".join(["word"] * 20)),))
    lines = on_terminal([table], 60).splitlines()
    assert 3 <= len(lines) <= 4
    assert max(map(len, lines)) > 50


def test_colour_changes_no_word_and_marks_a_flagged_row() -> None:
    coloured = on_terminal(BLOCKS, force_terminal=True, color_system="truecolor")
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == on_terminal(BLOCKS)
    row = {name: next(line for line in coloured.splitlines() if name in line) for name in ("PyTorch", "JAX")}
    assert "\x1b[33m" in row["JAX"]
    assert "\x1b" not in row["PyTorch"]


# ---- clean, escape


@given(st.text())
def test_cleaned_text_is_one_line_without_controls(text: str) -> None:
    cleaned = clean(text)
    assert cleaned.isprintable()
    assert cleaned == clean(cleaned)


def test_cleaned_text_keeps_what_can_be_read() -> None:
    assert clean("a\x1b[31mb\r\nc\td \u202e\u200b\ud800") == "a\ufffd[31mb c d \ufffd\ufffd\ufffd"
    assert clean("Größe 模型 ½") == "Größe 模型 ½"


@given(st.text())
def test_escaped_text_renders_as_itself(raw: str) -> None:
    assert unescape(html(f"x {escape(raw)}")) == f"<p>x {clean(raw)}".rstrip() + "</p>\n"


@pytest.mark.parametrize(
    "raw", ["http://evil.test", "https://evil.test", "www.evil.test", "a@evil.test", "WWW.evil.test"]
)
def test_no_address_becomes_a_link_of_its_own(raw: str) -> None:
    # The rule of GitHub's extended autolinks: a scheme, www. or an at sign must stand in the source.
    assert not re.search(r"://|www\.|@", escape(raw), flags=re.IGNORECASE)


@pytest.mark.parametrize("start", ["- a", "+ a", "1. a", "1) a", "# a", "> a"])
def test_a_name_at_the_start_of_an_item_begins_no_other_block(start: str) -> None:
    assert html(f"- {escape(start)}") == f"<ul>\n<li>{start.replace('>', '&gt;')}</li>\n</ul>\n"


def test_a_lean_table_leaves_out_columns_that_say_nothing() -> None:
    table = Table(
        heads=("framework", "status", "rate", "interval"),
        rows=(("a", "ok", "1", NOTHING), ("b", "ok", "2", "1 to 3")),
        numbers=frozenset({2, 3}),
        details=2,
    )
    found = lean(table, {"status": "ok", "interval": NOTHING})
    assert found.heads == ("framework", "rate", "interval")
    assert found.rows == (("a", "1", NOTHING), ("b", "2", "1 to 3"))
    assert found.numbers == {1, 2}
    assert found.details == 1
    assert lean(table, {"status": "failed", "framework": "a"}) == table
