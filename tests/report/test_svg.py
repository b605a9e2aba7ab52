"""Charts as SVG: everything given is drawn, text stays text, and what cannot be drawn is refused."""

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.report import svg
from bench.report.blocks import Chart, Table
from bench.report.chart import Axis, Bar, Bars, Lines, Mark, Point, Series
from bench.report.svg import palette
from bench.report.svg.elements import apart, escape, identifier, shorten, text_width
from bench.report.svg.looks import SHAPES

NS = "{http://www.w3.org/2000/svg}"
HOSTILE = "</SCRIPT><img onerror=alert(1)> \"'&amp; javascript:x \u202e\x1b[31m\x00 模型 " + "long " * 2000
RATE = Axis(title="samples/s")
EPOCHS = Axis(title="epochs")


def chart_of(drawn: Bars | Lines, name: str = "speed-mnist", **changes: str) -> Chart:
    table = Table(heads=("row",), rows=())
    return Chart(name=name, title="A is faster", about="How to read it.", drawn=drawn, table=table, **changes)


def drawn_of(drawn: Bars | Lines, width: float = svg.WIDTH, **changes: str) -> ET.Element:
    root = ET.fromstring(svg.draw(chart_of(drawn, **changes), width=width))  # noqa: S314 - made right here
    assert root.tag == f"{NS}svg"
    return root


def bar_of(value: float | None = 1000.0, **changes: object) -> Bar:
    given = {"name": "PyTorch eager", "text": "1,000 ±5 %", "low": 950.0, "high": 1050.0, **changes}
    if value is None:
        given |= {"low": None, "high": None}
    return Bar(parts=(value,), **given)  # type: ignore[arg-type] - checked by the tests themselves


def bars_of(*bars: Bar, axis: Axis = RATE, **changes: object) -> Bars:
    return Bars(axis=axis, bars=bars, **changes)  # type: ignore[arg-type]


def line_of(points: list[tuple[float, float]], **changes: object) -> Series:
    return Series(
        **{"name": "PyTorch eager", "points": tuple(Point(x=x, y=y) for x, y in points), **changes}  # type: ignore[arg-type]
    )


def lines_of(*series: Series, x: Axis = EPOCHS, y: Axis = RATE, **changes: object) -> Lines:
    return Lines(x=x, y=y, series=series, **changes)  # type: ignore[arg-type]


def groups(root: ET.Element, kind: str) -> list[ET.Element]:
    return [one for one in root.iter(f"{NS}g") if one.get("class") == kind]


def texts(root: ET.Element) -> list[str]:
    return [one.text or "" for one in root.iter(f"{NS}text")]


def tips(root: ET.Element) -> list[str]:
    return [one.text or "" for one in root.iter(f"{NS}title")]


def rects(group: ET.Element) -> list[ET.Element]:
    """Return the visible rectangles of a bar."""
    return [one for one in group.iter(f"{NS}rect") if one.get("fill") != "none"]


# ---- the whole element


def test_the_element_names_and_describes_itself_by_ids_that_derive_from_its_name():
    root = drawn_of(bars_of(bar_of()))
    assert root.get("role") == "img"
    title, about = root.get("aria-labelledby"), root.get("aria-describedby")
    by_id = {one.get("id"): one.text for one in root.iter() if one.get("id")}
    assert (by_id[title], by_id[about]) == ("A is faster", "How to read it.")
    assert root.get("viewBox", "").startswith("0 0 760 ")
    assert root.get("width") is None


def test_no_id_occurs_in_two_charts_or_in_two_drawings_of_one():
    drawn = lines_of(line_of([(0, 1), (1, 2)]))
    hatched = bars_of(bar_of(shape=1), bar_of(ranked=False))
    ids = [
        one.get("id")
        for root in (
            drawn_of(drawn, name="a b"),
            drawn_of(drawn, name="a-b"),
            drawn_of(drawn, name="a_b"),
            drawn_of(drawn, name="a b", width=360),
            drawn_of(drawn, name="a b-360"),
            drawn_of(drawn, name="a b_w360"),
            drawn_of(hatched, name="c"),
            drawn_of(hatched, name="c", width=360),
        )
        for one in root.iter()
        if one.get("id")
    ]
    assert len(ids) == len(set(ids)) >= 6 * 3 + 2 * 4


@given(st.text(max_size=20), st.text(max_size=20))
def test_different_names_have_different_ids(one, other):
    assert (identifier(one) == identifier(other)) == (one == other)
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", identifier(one))


def test_every_reference_has_its_target_and_none_leads_out():
    content = svg.draw(chart_of(bars_of(bar_of(shape=2), bar_of(ranked=False))))
    content += svg.draw(chart_of(lines_of(line_of([(0, 1), (1, 2)])), "other"))
    ids = set(re.findall(r' id="([^"]*)"', content))
    used = re.findall(r"url\(([^)]*)\)", content)
    assert used
    assert all(one.removeprefix("#") in ids for one in used)
    assert not re.search(r"href|style=|<script|@import", content)


def test_colours_are_variables_with_what_a_file_alone_needs():
    content = svg.draw(chart_of(bars_of(*(bar_of(hue=hue, shape=hue) for hue in range(8)))))
    colours = set(re.findall(r' (?:fill|stroke)="([^"]*)"', content))
    assert all(
        colour == "none"
        or colour.startswith("url(#")
        or re.fullmatch(r"var\((--[a-z0-9-]+), #[0-9a-f]{6}\)", colour)
        for colour in colours
    )
    assert {f"var(--hue-{hue}, {palette.LIGHT[f'--hue-{hue}']})" for hue in range(7)} <= colours


def test_the_dark_palette_has_a_colour_for_every_variable():
    assert palette.DARK.keys() == palette.LIGHT.keys()
    assert palette.declarations(palette.DARK).count(":") == len(palette.DARK)


@pytest.mark.parametrize("colours", [palette.LIGHT, palette.DARK])
def test_text_and_lines_stand_out_from_the_ground(colours):
    paper = colours["--paper"]
    assert contrast(colours["--ink"], paper) > 7
    for name in ("--faint", "--alarm"):
        assert contrast(colours[name], paper) > 4.5
    # Okabe and Ito's light hues are below 3 on white: there, markers, hatches and dashes tell them apart.
    assert sum(contrast(colours[f"--hue-{hue}"], paper) > 3 for hue in range(7)) >= 4


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours by WCAG 2.2."""
    lights = sorted(map(_luminance, (one, other)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def _luminance(colour: str) -> float:
    parts = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_same_chart_is_the_same_text():
    chart = chart_of(bars_of(bar_of(tags={"mode": "eager"})))
    assert svg.draw(chart) == svg.draw(chart)


@pytest.mark.parametrize("width", [360, 760])
def test_hostile_texts_stay_text_and_inside_the_drawing(width):
    tags = {"backend": HOSTILE, "mode": "a"}
    bars = bars_of(
        bar_of(name=HOSTILE, text=HOSTILE, group=HOSTILE, tags=tags),
        bar_of(None, name=HOSTILE, text=HOSTILE),
        axis=Axis(title=HOSTILE[:60]), marks=(Mark(value=500, text=HOSTILE),),
    )  # fmt: skip
    stack = bars_of(Bar(name="a", parts=(1.0, 2.0), text="b"), parts=(HOSTILE, "rest"))
    lines = lines_of(
        line_of([(0, 1), (1, 2)], name=HOSTILE, tags=tags), line_of([(0, 1)], name=HOSTILE, joined=False),
        marks=(Mark(value=1.5, text=HOSTILE),), x_marks=(Mark(value=0.5, text=HOSTILE),),
    )  # fmt: skip
    for drawn in (bars, stack, lines):
        content = svg.draw(chart_of(drawn, HOSTILE), width=width)
        root = ET.fromstring(content)  # noqa: S314 - made right here
        assert {one.tag.removeprefix(NS) for one in root.iter()} <= {
            "svg", "title", "desc", "rect", "text", "g", "path", "circle", "defs", "pattern", "clipPath",
        }  # fmt: skip
        assert "<img" not in content
        assert not any(char in content for char in "\u202e\x1b\x00")
        for begins, ends in extents(root):
            assert begins >= -1
            assert ends <= width + 2


def extents(root: ET.Element) -> Iterator[tuple[float, float]]:
    """Yield the left and the right end of every text."""
    parents = {child: parent for parent in root.iter() for child in parent}
    for one in root.iter(f"{NS}text"):
        size = float(one.get("font-size") or parents[one].get("font-size") or 13)
        anchor = one.get("text-anchor") or parents[one].get("text-anchor")
        wide = text_width(one.text or "", size)
        begins = float(one.get("x", "0")) - {"end": wide, "middle": wide / 2}.get(anchor or "", 0.0)
        yield begins, begins + wide


def test_a_name_that_is_too_long_is_cut_visibly_and_whole_in_the_tooltip():
    name = "PyTorch " + "very " * 40 + "eager"
    root = drawn_of(bars_of(bar_of(name=name)))
    assert any(text.startswith("PyTorch very") and text.endswith("…") for text in texts(root))
    assert any(name in tip for tip in tips(root))


def test_a_tag_whose_name_is_no_attribute_is_refused():
    with pytest.raises(ValueError, match="name of a tag"):
        drawn_of(bars_of(bar_of(tags={'x" onload="alert(1)': "a"})))


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_is_refused_with_the_name_of_the_chart(wrong):
    wrongs = [
        bars_of(bar_of(wrong)),
        bars_of(bar_of(low=wrong)),
        bars_of(bar_of(points=(1.0, wrong))),
        bars_of(bar_of(), marks=(Mark(value=wrong, text="m"),)),
        bars_of(bar_of(), axis=Axis(title="x", high=wrong)),
        lines_of(line_of([(wrong, 1)])),
        lines_of(line_of([(1, wrong)])),
        lines_of(
            line_of([(1, 1), (2, 2)]),
            x=Axis(title="x", low=0.0, high=1.0),
            marks=(Mark(value=wrong, text=""),),
        ),
        lines_of(Series(name="a", points=(Point(x=1, y=1, low=wrong, high=2),))),
    ]
    for drawn in wrongs:
        with pytest.raises(ValueError, match="cannot draw the chart speed-mnist: a chart shows finite"):
            svg.draw(chart_of(drawn))


def test_a_value_without_a_logarithm_is_refused_on_a_logarithmic_axis():
    log = Axis(title="x", log=True)
    for drawn in (bars_of(bar_of(0.0), axis=log), lines_of(line_of([(0, 1)]), x=log)):
        with pytest.raises(ValueError, match="positive numbers only"):
            svg.draw(chart_of(drawn))


# ---- bars


def test_a_bar_has_its_length_its_interval_its_texts_and_its_tags():
    root = drawn_of(
        bars_of(bar_of(1000.0, tags={"mode": "eager"}), bar_of(500.0, low=None, high=None, hue=1))
    )
    first, second = groups(root, "bar")
    assert first.get("data-mode") == "eager"
    assert {"PyTorch eager", "1,000 ±5 %", "samples/s"} <= set(texts(root))
    (long,), (short,) = rects(first), rects(second)
    assert float(long.get("width", 0)) == pytest.approx(2 * float(short.get("width", 0)), abs=0.2)
    intervals = [one for one in first.iter(f"{NS}path") if "H" in (one.get("d") or "")]
    assert len(intervals) == 2  # the line, and what keeps it apart from the bar
    assert not [one for one in second.iter(f"{NS}path") if "H" in (one.get("d") or "")]


def test_a_row_without_a_value_says_why_and_has_no_bar():
    root = drawn_of(bars_of(bar_of(), bar_of(None, text="out of memory")))
    assert "out of memory" in texts(root)
    assert rects(groups(root, "bar")[1]) == []


def test_bars_without_any_value_have_no_axis():
    root = drawn_of(bars_of(bar_of(None, text="crashed"), bar_of(None, text="timed out")))
    assert {"crashed", "timed out"} <= set(texts(root))
    assert "samples/s" not in texts(root)
    assert drawn_of(bars_of()) is not None


@pytest.mark.parametrize("values", [[5.0], [5.0] * 4, [0.0], [1e-9, 1e9], [3.0, -2.0], [1e15]])
@pytest.mark.parametrize("log", [False, True])
def test_any_values_are_drawn_inside(values, log):
    if log and min(values) <= 0:
        return
    bars = [bar_of(value, low=value, high=value) for value in values]
    for width in (360, 760):
        root = drawn_of(bars_of(*bars, axis=Axis(title="x", log=log)), width)
        assert len(groups(root, "bar")) == len(values)
        for group in groups(root, "bar"):
            for one in (*rects(group), *group.iter(f"{NS}circle")):
                left = float(one.get("x") or one.get("cx") or 0)
                assert 0 <= left <= left + float(one.get("width", 0)) <= width


def test_the_text_at_the_end_of_a_bar_is_not_cut_and_stands_inside():
    root = drawn_of(
        bars_of(*(bar_of(value, text=f"{value:,.0f} samples/s, not ranked") for value in (1e3, 1e5)))
    )
    ends = [one for one in root.iter(f"{NS}text") if "not ranked" in (one.text or "")]
    assert len(ends) == 2
    for one in ends:
        assert float(one.get("x", 0)) + text_width(one.text or "") <= 760


def test_shapes_are_hatches_and_a_bar_that_is_not_ranked_is_pale_and_crossed():
    root = drawn_of(bars_of(*(bar_of(shape=shape) for shape in range(SHAPES)), bar_of(ranked=False)))
    fills = [[one.get("fill") for one in rects(group)] for group in groups(root, "bar")]
    assert [len(found) for found in fills] == [1, *[2] * (SHAPES - 1), 2]
    assert len({found[-1] for found in fills[1:]}) == SHAPES
    assert fills[-1][0] == palette.PAPER


def test_parts_stand_one_after_the_other_each_with_its_own_tooltip_and_a_legend():
    stack = bars_of(Bar(name="JAX", parts=(1.0, None, 2.0), text="3 s"), parts=("start", "import", "rest"))
    root = drawn_of(stack)
    first, second = rects(groups(root, "bar")[0])
    assert float(first.get("x", 0)) + float(first.get("width", 0)) == pytest.approx(
        float(second.get("x", 0)), abs=0.2
    )
    assert {"start", "import", "rest"} <= set(texts(root))
    assert {"JAX, start: 1", "JAX, rest: 2"} <= set(tips(root))


def test_a_bar_longer_than_the_axis_is_cut_and_says_so():
    root = drawn_of(
        bars_of(
            bar_of(9.0, low=None, high=None, text="9"),
            bar_of(1.0, low=None, high=None),
            axis=Axis(title="x", high=2.0),
        )
    )
    assert "9, bar cut" in texts(root)
    (whole,) = [
        one for one in groups(root, "bar")[0].iter(f"{NS}rect") if one.get("fill", "").startswith("var(--hue")
    ]
    assert float(whole.get("x", 0)) + float(whole.get("width", 0)) < 760


def test_a_huge_interval_is_cut_so_that_bars_stay_long():
    root = drawn_of(bars_of(bar_of(1.0, low=0.0, high=1000.0, text="1"), bar_of(0.5, low=None, high=None)))
    (bar,) = rects(groups(root, "bar")[0])
    assert float(bar.get("width", 0)) > 200


def test_on_a_logarithmic_axis_a_bar_is_a_dot_of_its_shape():
    axis = Axis(title="times as fast", unit="factor", log=True)
    bars = bar_of(1.2, low=1.1, high=1.3), bar_of(1.4, low=1.3, high=1.5, shape=1)
    root = drawn_of(bars_of(*bars, axis=axis, marks=(Mark(value=1.0, text="equal"),)))
    first, second = groups(root, "bar")
    assert not rects(first)
    assert len(list(first.iter(f"{NS}circle"))) == 1
    assert not list(second.iter(f"{NS}circle"))
    assert "equal" in texts(root)


def test_single_values_are_dots_and_a_group_has_its_heading_once():
    bars = [bar_of(10.0, low=None, high=None, points=(8.0, 12.0), group="A") for _ in range(2)]
    root = drawn_of(bars_of(*bars, bar_of(10.0, group="B")))
    assert [len(list(group.iter(f"{NS}circle"))) for group in groups(root, "bar")] == [2, 2, 0]
    assert [text for text in texts(root) if text in "AB"] == ["A", "B"]


def test_thirty_bars_have_rows_of_their_own():
    root = drawn_of(bars_of(*(bar_of(float(value), name=f"row {value}") for value in range(1, 31))))
    tops = [float(rects(group)[0].get("y", 0)) for group in groups(root, "bar")]
    assert len(tops) == 30
    assert min(after - before for before, after in pairwise(tops)) > 20
    assert float((root.get("viewBox") or "").split()[3]) > max(tops) + 40


def test_texts_of_neighbouring_marks_do_not_overlap():
    marks = (Mark(value=500, text="the one limit"), Mark(value=501, text="the other limit"))
    root = drawn_of(bars_of(bar_of(), marks=marks))
    first, second = (one for one in root.iter(f"{NS}text") if (one.text or "").endswith("limit"))
    room = float(second.get("x", 0)) - float(first.get("x", 0))
    assert room >= (text_width(first.text or "", 12) + text_width(second.text or "", 12)) / 2


# ---- lines


def test_a_line_has_its_points_their_tooltips_and_its_name_beside_the_last():
    root = drawn_of(lines_of(line_of([(0, 10), (1, 20), (2, 30)], tags={"mode": "jit"})))
    (series,) = groups(root, "series")
    assert series.get("data-mode") == "jit"
    assert len([one for one in series.iter(f"{NS}circle") if one.find(f"{NS}title") is not None]) == 3
    assert "PyTorch eager: 1, 20" in tips(series)
    assert "PyTorch eager" in texts(series)
    assert {"epochs", "samples/s"} <= set(texts(root))


def test_a_band_holds_all_intervals_and_without_it_each_point_has_its_own():
    points = tuple(Point(x=x, y=x + 10.0, low=x + 9.0, high=x + 11.0) for x in range(3))
    band, bars = (drawn_of(lines_of(Series(name="a", points=points, band=band))) for band in (True, False))
    assert len([one for one in band.iter(f"{NS}path") if one.get("fill-opacity")]) == 1
    plain = [one for one in groups(bars, "series")[0].iter(f"{NS}path") if one.get("stroke-width") == "1.4"]
    assert len(plain) == 3


def test_lines_of_different_shapes_have_different_dashes_and_markers():
    root = drawn_of(
        lines_of(
            *(line_of([(0, shape), (1, shape)], name=f"s{shape}", shape=shape) for shape in range(SHAPES))
        )
    )
    dashes = [
        {one.get("stroke-dasharray") for one in group.iter(f"{NS}path") if one.get("stroke-width")}
        for group in groups(root, "series")
    ]
    assert all(len(found) == 1 for found in dashes)  # the line, and its piece beside the name
    assert len({found.pop() for found in dashes}) == SHAPES


@pytest.mark.parametrize("count", [12, 30])
def test_names_at_the_right_stand_apart_however_close_their_lines_end(count):
    root = drawn_of(
        lines_of(*(line_of([(0, 1), (1, 2 + 1e-6 * number)], name=f"s{number}") for number in range(count)))
    )
    places = sorted(
        float(one.get("y", 0)) for one in root.iter(f"{NS}text") if re.fullmatch(r"s\d+", one.text or "")
    )
    assert len(places) == count
    assert min(after - before for before, after in pairwise(places)) >= 12
    assert places[-1] < float((root.get("viewBox") or "").split()[3])


def test_on_a_narrow_drawing_the_names_of_lines_stand_above_the_plot():
    drawn = lines_of(
        *(line_of([(0, 1), (1, 2)], name=f"a rather long name {number}") for number in range(9)),
        marks=(Mark(value=1.5, text="target"),),
    )
    root = drawn_of(drawn, 360)
    names = [one for one in root.iter(f"{NS}text") if (one.text or "").startswith("a rather")]
    title = next(one for one in root.iter(f"{NS}text") if one.text == "samples/s")
    assert len(names) == 9
    assert all(float(one.get("y", 0)) < float(title.get("y", 0)) for one in names)
    assert "target" in texts(root)


@given(st.lists(st.floats(0, 300), max_size=20).map(sorted), st.floats(0, 15))
def test_places_that_are_moved_apart_keep_their_order_their_distance_and_their_limits(places, gap):
    found = apart(places, gap, 0, 300)
    assert len(found) == len(places)
    assert all(after - before >= gap - 1e-6 for before, after in pairwise(found))
    assert all(place >= -1e-6 for place in found)
    if places and gap * (len(places) - 1) <= 300:
        assert found[-1] <= 300 + 1e-6


@given(st.lists(st.floats(0, 300), max_size=20).map(sorted))
def test_places_that_are_apart_already_stay(places):
    wide = [place * 3 for place in range(len(places))]
    assert apart(wide, 3, 0, 300) == wide


def test_points_that_are_not_joined_are_named_above_and_drawn_without_a_line():
    root = drawn_of(lines_of(line_of([(0, 1), (1, 2)], joined=False)))
    assert texts(root).count("PyTorch eager") == 1
    assert not [one for one in root.iter(f"{NS}path") if one.get("clip-path")]


def test_a_series_without_a_name_is_drawn_without_one():
    root = drawn_of(lines_of(line_of([(0, 1), (1, 2)]), line_of([(0, 1)], name="", joined=False)))
    assert len(groups(root, "series")) == 2


def test_of_equal_lines_the_later_are_thinner_so_that_all_are_seen():
    root = drawn_of(lines_of(*(line_of([(0, 1), (1, 2)], name=name) for name in "abc")))
    widths = [float(one.get("stroke-width", 0)) for one in root.iter(f"{NS}path") if one.get("clip-path")]
    assert widths == sorted(set(widths), reverse=True)
    assert len(widths) == 3


def test_many_points_have_few_markers_and_the_last_one():
    root = drawn_of(lines_of(line_of([(x, x) for x in range(1000)])))
    circles = [one for one in root.iter(f"{NS}circle") if one.find(f"{NS}title") is not None]
    assert len(circles) <= 24
    assert "PyTorch eager: 999, 999" in tips(root)
    (path,) = [one for one in root.iter(f"{NS}path") if one.get("clip-path")]
    assert (path.get("d") or "").count("L") == 999


def test_points_outside_given_ends_have_no_marker():
    y = Axis(title="accuracy", unit="percent", low=90.0, high=100.0)
    root = drawn_of(lines_of(line_of([(0, 10), (1, 95), (2, 96)]), y=y))
    assert len([one for one in root.iter(f"{NS}circle") if one.find(f"{NS}title") is not None]) == 2


def test_lines_without_points_say_so():
    assert texts(drawn_of(lines_of())) == ["No values."]
    assert texts(drawn_of(lines_of(line_of([])))) == ["No values."]


@pytest.mark.parametrize("points", [[(1, 1)], [(1, 1), (1, 1)], [(0, 5), (1, 5)], [(1e-9, 1e9), (1e9, 1e-9)]])
@pytest.mark.parametrize("log", [False, True])
def test_any_points_are_drawn_inside(points, log):
    points = [(max(x, 1e-9), y) for x, y in points]
    root = drawn_of(lines_of(line_of(points), x=Axis(title="x", log=log), y=Axis(title="y", log=log)))
    for one in root.iter(f"{NS}circle"):
        assert 0 <= float(one.get("cx", -1)) <= 760
        assert 0 <= float(one.get("cy", -1)) <= 400


def test_marks_across_and_up_have_their_texts():
    root = drawn_of(
        lines_of(
            line_of([(0, 1), (1, 2)]),
            marks=(Mark(value=3, text="target"),),
            x_marks=(Mark(value=0.5, text="here"),),
        )
    )
    assert {"target", "here"} <= set(texts(root))


def test_given_labels_stand_at_their_ticks():
    x = Axis(title="run", ticks=(0.0, 2.0), labels=("first", "last"))
    root = drawn_of(lines_of(line_of([(0, 1), (2, 2)]), x=x))
    assert {"first", "last"} <= set(texts(root))


# ---- text


@given(st.text(max_size=200), st.floats(20, 400))
def test_a_shortened_text_fits(said, room):
    short = shorten(said, room)
    assert text_width(short) <= room + 1e-6
    assert "\n" not in short


def test_a_short_text_stays_as_it_is():
    assert shorten("PyTorch eager", 200) == "PyTorch eager"


@given(st.text(max_size=50))
def test_an_escaped_text_is_read_as_one_line_of_that_text(said):
    parsed = ET.fromstring(f'<a b="{escape(said)}">{escape(said)}</a>')  # noqa: S314 - made right here
    assert "<" not in escape(said)
    assert (parsed.text or "") == parsed.get("b", "")
