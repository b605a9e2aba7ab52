"""Charts beside a report: each is a file of its own, which the report links."""

import io
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from rich.console import Console

from bench.report import svg
from bench.report.blocks import Chart, Details, Group, Paragraph, charts_of, number_table
from bench.report.chart import Axis, Bar, Bars
from bench.report.markdown import document
from bench.report.terminal import print_blocks


def chart_of(name: str = "speed", value: float = 1.0) -> Chart:
    return Chart(
        name=name,
        title="A <b>is</b> faster",
        about="A longer bar is faster.",
        drawn=Bars(axis=Axis(title="samples/s"), bars=(Bar(name="A", parts=(value,), text="1"),)),
        table=number_table(("row", "samples/s"), [("A", "1")]),
    )


def test_charts_are_found_at_any_depth_in_their_order():
    blocks = [
        chart_of("a"),
        Group(blocks=(Paragraph(text="x"), Details(summary="more", blocks=(chart_of("b"),)), chart_of("c"))),
    ]
    assert [chart.name for chart in charts_of(blocks)] == ["a", "b", "c"]


def test_each_chart_is_a_file_with_the_drawing(tmp_path: Path):
    folder = tmp_path / "plots"
    assert svg.write_charts([chart_of("a"), chart_of("b")], folder) == {"a", "b"}
    assert sorted(path.name for path in folder.iterdir()) == ["a.svg", "b.svg"]
    content = (folder / "a.svg").read_text(encoding="utf-8")
    assert content == svg.draw(chart_of("a")) + "\n"
    assert ET.fromstring(content).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314 - made right here


def test_without_charts_there_is_no_folder(tmp_path: Path):
    assert svg.write_charts([], tmp_path / "plots") == frozenset()
    assert not (tmp_path / "plots").exists()


def test_a_chart_that_cannot_be_drawn_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match="cannot draw the chart speed"):
        svg.write_charts([chart_of(value=float("nan"))], tmp_path)


def test_markdown_links_a_chart_if_it_was_drawn_and_a_terminal_leaves_it_out():
    assert document([chart_of()], frozenset({"speed"})) == (
        "![A \\<b\\>is\\</b\\> faster](plots/speed.svg)\n\n"
        "*A \\<b\\>is\\</b\\> faster. A longer bar is faster.*\n"
    )
    assert document([chart_of(), Paragraph(text="x")], frozenset()) == "x\n"
    file = io.StringIO()
    print_blocks([chart_of(), Paragraph(text="x")], Console(file=file))
    assert file.getvalue() == "x\n"
