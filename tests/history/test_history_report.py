"""What is said and drawn of runs over time, and that no name can make more of it than a name."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from histories import BOX, CELL, joined, make_entry, make_figures, make_history, stepped_rates
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from rich.console import Console
from synthetic import make_cell

from bench.errors import RecordError
from bench.history import plot
from bench.history.entries import Framework, History, Measure
from bench.history.report import advice, left_out, moves, render, span, text, write
from bench.history.series import Group, groups_of, place_of
from bench.report.charts import GREY, RED, settings
from bench.report.format import NOTHING, TIMES

HOSTILE = 'a<script>alert(1)</script>,"\n\x1b[31m|`[x](y)` $x$ =1+1'
FELL = make_history(stepped_rates())


def printed(
    history: History, measure: Measure = "speed", *, width: int = 100, encoding: str = "utf-8"
) -> str:
    class File(StringIO):
        pass

    File.encoding = encoding  # type: ignore[misc, assignment]
    file = File()
    render(history, measure, groups_of(history, measure), Console(file=file, width=width))
    return file.getvalue()


def said(history: History, measure: Measure = "speed") -> list[str]:
    return advice(groups_of(history, measure), measure)


def markdown(history: History, measure: Measure = "speed", captions: dict[str, str] | None = None) -> str:
    return text(history, measure, groups_of(history, measure), captions or {})


# In words


def test_a_change_is_told_with_its_size_its_runs_and_their_commits() -> None:
    (sentence,) = said(FELL)
    found = re.fullmatch(
        r"mnist-cnn \(cpu fp32\), PyTorch eager: speed fell by (\d\.\d) %, from ([\d,]+) samples/s to "
        r"([\d,]+) samples/s, between run-011 \(commit 000000baaaaa\) and run-012 \(commit 000000caaaaa\)\.",
        sentence,
    )
    assert found, sentence
    share, before, after = (float(number.replace(",", "")) for number in found.groups())
    rates = stepped_rates()
    assert before == round(np.exp(np.median(np.log(rates[:12]))))
    assert after == round(np.exp(np.median(np.log(rates[12:]))))
    assert share == pytest.approx(100 * (1 - after / before), abs=0.1)


def test_a_rise_is_a_rise() -> None:
    (sentence,) = said(make_history(stepped_rates(factor=1.5)))
    assert re.search(r"speed rose by (49|5[01]) %, from", sentence)


def test_what_changed_in_between_is_told() -> None:
    new = {
        "version": "0.2.0",
        "frameworks": (
            Framework(name="jax", title="JAX", versions={"jax": "9"}),
            Framework(name="torch", title="PyTorch", versions={"torch": "2.14.0", "triton": "3"}),
        ),
        "dirty": True,
    }
    entries = [
        msgspec.structs.replace(entry, **new) if place >= 12 else entry
        for place, entry in enumerate(FELL.entries)
    ]
    (sentence,) = said(History(entries=tuple(entries)))
    assert sentence.endswith(
        "and run-012 (commit 000000caaaaa with changes); in between, samework 0.1.0 became 0.2.0, "
        "torch 2.13.0 became 2.14.0, triton absent became 3."
    )


def test_a_commit_that_is_not_known_is_said() -> None:
    entries = tuple(msgspec.structs.replace(entry, commit=None, dirty=None) for entry in FELL.entries)
    assert "between run-011 (commit not known)" in said(History(entries=entries))[0]


def test_the_latest_change_comes_first_and_the_machine_is_named_where_there_are_several() -> None:
    other = make_history(
        stepped_rates(8, 8, seed=1), machine=msgspec.structs.replace(BOX, key="2", hostname="attic")
    )
    first, second = said(joined(FELL, other))
    assert "PyTorch eager on box (machine 0badcafe): speed fell" in first
    assert "PyTorch eager on attic (machine 2): speed fell" in second


def test_series_without_a_change_are_counted_and_so_are_short_ones() -> None:
    level = make_history(stepped_rates(factor=1.0), cell=make_cell(mode="compile"))
    short = make_history([1000.0] * 7, cell=make_cell("mnist-mlp"))
    lines = said(joined(FELL, level, short))
    assert lines[1:] == [
        "1 series without a change of level.",
        "1 series with fewer than 8 runs, too few to tell a change from noise.",
    ]


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        ([1000.0] * 7, "too few runs"),
        ([1000.0] * 8, "no change"),
        ([1000.0] * 4 + [900.0] * 4, "fell by 10 %"),
        ([1000.0] * 5 + [1100.0] * 5 + [900.0] * 5, "rose by 10 %, fell by 18 %"),
        ([1000.0] * 5 + [100.0] + [1000.0] * 5, "no change"),
    ],
)
def test_what_became_of_a_series_in_a_few_words(rates: list[float], words: str) -> None:
    ((one,),) = (group.shown for group in groups_of(make_history(rates), "speed"))
    assert moves(one) == words


def test_how_long_a_history_is() -> None:
    assert span(FELL) == "20 runs, 2026-05-01 to 2026-05-20"
    assert span(make_history([1.0])) == "one run, of 2026-05-01"


def test_rows_that_do_not_count_are_told_by_run_and_reason_with_so_many_names_at_most() -> None:
    cells = [make_cell(mode=mode) for mode in "abcde"]
    lacking = [make_figures(9.0, cell, ranked=False, counts=False, why_not="2 of 3 blocks") for cell in cells]
    history = History(
        entries=(make_entry(0, lacking),), rejected=("h line 1: x", "h line 2: y", "h line 3: z")
    )
    groups = groups_of(history, "speed")
    assert left_out(history, groups, most=2) == [
        "Does not count in run-000: mnist-cnn (cpu fp32) PyTorch a, mnist-cnn (cpu fp32) PyTorch b and 3 "
        "more: 2 of 3 blocks.",
        "Left out, as it cannot be read: h line 1: x",
        "Left out, as it cannot be read: h line 2: y",
        "And 1 more.",
    ]
    every = left_out(history, groups)
    assert len(every) == 4
    assert "PyTorch e: 2 of 3 blocks." in every[0]


def test_the_epochs_of_an_accuracy_are_named() -> None:
    entries = (make_entry(0, [make_figures(epochs=1.0)]), make_entry(1, [make_figures(epochs=2.5)]))
    (group,) = groups_of(History(entries=entries), "accuracy")
    assert [place_of(one.series) for one in group.shown] == [
        "mnist-cnn (cpu fp32, after 1 epoch)",
        "mnist-cnn (cpu fp32, after 2.5 epochs)",
    ]


# Printed


def test_the_table_has_the_latest_value_its_interval_and_the_change() -> None:
    out = printed(make_history([1000.0, 1000.0, 1100.0]))
    (row,) = [line.split() for line in out.splitlines() if line.startswith("  PyTorch eager")]
    assert row == ["PyTorch", "eager", "3", "1,100", "1.0", "%", "+10.0", "%", "too", "few", "runs"]
    assert "Example CPU, 16 CPUs, 64 GiB, no GPU (box, machine 0badcafe; cpu fp32)" in out


def test_a_change_that_rounds_to_nothing_has_no_minus() -> None:
    assert "+0.0 %" in printed(make_history([1000.0, 999.99]))


def test_a_row_that_never_counted_is_shown_without_figures() -> None:
    lacking = make_figures(9.0, ranked=False, counts=False, why_not="2 of 3 blocks")
    out = printed(History(entries=(make_entry(0, [lacking]),)))
    assert re.search(rf"PyTorch eager +0( +{NOTHING}){{3}} +too few runs", out)
    assert "Does not count in run-000: mnist-cnn (cpu fp32) PyTorch eager: 2 of 3 blocks." in out


def test_device_and_precision_stand_in_the_rows_where_they_differ() -> None:
    history = joined(make_history([1.0]), make_history([1.0], cell=make_cell(precision="bf16")))
    out = printed(history)
    assert "mnist-cnn (cpu fp32)" in out
    assert "mnist-cnn (cpu bf16)" in out
    assert "machine 0badcafe)" in out


def test_a_mark_is_shown_above_its_runs() -> None:
    assert "NOTE: made on the sample" in printed(make_history([1.0], mark="made on the sample"))


@pytest.mark.parametrize("width", [20, 80, 200])
def test_no_line_is_wider_than_the_console(width: int) -> None:
    assert max(map(len, printed(FELL, width=width).splitlines())) <= width


def test_a_console_without_unicode_is_written_to() -> None:
    out = printed(make_history([1000.0], cell=make_cell("größe")), encoding="ascii")
    out.encode("ascii")
    assert "+/-" in out


# As Markdown


def test_the_report_has_advice_table_and_runs() -> None:
    made = markdown(FELL, captions={"history-speed-mnist-cnn": "Speed: mnist-cnn"})
    assert made.startswith("# Speed over time\n")
    assert "\n- mnist-cnn (cpu fp32), PyTorch eager: speed fell by " in made
    assert "| workload | framework | runs | samples/s | ± | change | advice |" in made
    assert "![Speed: mnist-cnn](plots/history-speed-mnist-cnn.svg)" in made
    assert "| run-019 | 2026-05-20 10:00 | commit 0000013aaaaa | 0.1.0 | torch 2.13.0 |" in made
    assert made.count("| run-0") == 20


def test_what_is_left_out_stands_in_the_report() -> None:
    history = msgspec.structs.replace(FELL, rejected=("h line 3: *bad*",))
    assert "## What is left out\n\n- Left out, as it cannot be read: h line 3: \\*bad\\*" in markdown(history)
    assert "left out" not in markdown(FELL)


def hostile() -> History:
    cell = make_cell(HOSTILE, HOSTILE, HOSTILE)
    machine = msgspec.structs.replace(BOX, key=HOSTILE, words=HOSTILE, hostname=HOSTILE)
    frameworks = (Framework(name=HOSTILE, title=HOSTILE, versions={HOSTILE: HOSTILE}),)
    made = make_history(
        stepped_rates(), cell=cell, machine=machine, mark=HOSTILE, commit=HOSTILE, version=HOSTILE,
        frameworks=frameworks,
    )  # fmt: skip
    entries = [msgspec.structs.replace(one, run_id=HOSTILE + one.run_id) for one in made.entries]
    lacking = make_figures(9.0, cell, ranked=False, counts=False, why_not=HOSTILE)
    entries.append(make_entry(30, [lacking], mark=HOSTILE, machine=machine))
    return History(entries=tuple(entries), rejected=(HOSTILE,))


def test_hostile_names_stay_names(tmp_path: Path) -> None:
    history = hostile()
    groups = groups_of(history, "speed")
    path = write(tmp_path, history, "speed", groups)
    made = path.read_text(encoding="utf-8")
    for out in (made, printed(history)):
        assert "\x1b" not in out
        assert "alert(1)" in out, "the name is shown"
    assert "<script>" not in made.replace("\\<", "")
    # A bar that is not escaped would make a row longer than its table's heading.
    bars = re.compile(r"(?<!\\)\|")
    heads = ("| workload |", "| run |")
    for block in made.split("\n\n"):
        if block.startswith(heads):
            assert len({len(bars.findall(line)) for line in block.splitlines()}) == 1
    (chart,) = (tmp_path / "plots").iterdir()
    assert re.fullmatch(r"history-speed-[a-z0-9-]+\.svg", chart.name)
    assert ET.fromstring(chart.read_bytes()).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314 - made here
    assert b"<script" not in chart.read_bytes()


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "", ".", "..", "con/../a", "é", "x" * 500])
def test_no_name_of_a_workload_leads_out_of_the_folder(name: str, tmp_path: Path) -> None:
    history = make_history([1.0], cell=make_cell(name))
    write(tmp_path / "out", history, "speed", groups_of(history, "speed"))
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert found[0] == "out/HISTORY.md"
    assert len(found) == 2
    assert re.fullmatch(r"out/plots/history-speed-[a-z0-9-]+\.svg", found[1])


def test_workloads_whose_names_look_alike_to_a_file_have_a_chart_each(tmp_path: Path) -> None:
    history = joined(*(make_history([1.0], cell=make_cell(name)) for name in ("a/b", "a b", "A-B")))
    made = write(tmp_path, history, "speed", groups_of(history, "speed")).read_text(encoding="utf-8")
    names = {path.name for path in (tmp_path / "plots").iterdir()}
    assert len(names) == 3
    assert all(f"(plots/{name})" in made for name in names)


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RecordError, match="Name another folder with --output"):
        write(tmp_path / "file", FELL, "speed", groups_of(FELL, "speed"))


# Charts


def strips(history: History, measure: Measure = "speed") -> list[Axes]:
    with settings():
        return [
            strip
            for _, _, figure in plot.figures(groups_of(history, measure), measure)
            for strip in figure.axes
        ]


def lines_of(strip: Axes, colour: str, style: str | None = None) -> Iterator[Any]:
    for line in strip.lines:
        if to_hex(line.get_color()) == colour.lower() and style in (None, line.get_linestyle()):
            yield line


def test_a_strip_shows_every_value_against_the_median() -> None:
    rates = [1000.0, 1010.0, 990.0, 1100.0]
    (strip,) = strips(make_history(rates))
    (line,) = [line for line in strip.lines if line.get_marker() == "o"]
    assert list(line.get_xdata()) == [0, 1, 2, 3]
    middle = np.log(1000 * 1010) / 2
    np.testing.assert_allclose(line.get_ydata(), np.log(rates) - middle)
    assert strip.get_title(loc="left") == f"PyTorch eager   1{TIMES} = 1,005 samples/s"
    assert "1,100 samples/s" in [text.get_text() for text in strip.texts]
    low, high = strip.get_ylim()
    assert low < min(line.get_ydata())
    assert high > max(line.get_ydata())


def test_an_interval_is_drawn_where_there_is_one() -> None:
    (with_it,), (without,) = strips(make_history([1000.0])), strips(make_history([1000.0]), "first-step")
    (interval,) = [line for line in with_it.lines if line.get_marker() != "o"]
    np.testing.assert_allclose(interval.get_ydata(), np.log([0.99, 1.01]), atol=1e-12)
    assert [line.get_marker() for line in without.lines] == ["o"]


def test_a_change_point_stands_between_its_runs_with_the_medians_of_both_sides() -> None:
    (strip,) = strips(FELL)
    (mark,) = [line for line in lines_of(strip, RED) if len(set(line.get_xdata())) == 1]
    assert set(mark.get_xdata()) == {11.5}
    levels = [line for line in lines_of(strip, RED) if len(set(line.get_xdata())) == 2]
    assert [list(line.get_xdata()) for line in levels] == [[0, 11], [12, 19]]
    logs = np.log(stepped_rates())
    for line, part in zip(levels, (logs[:12], logs[12:]), strict=True):
        assert set(line.get_ydata()) == {float(np.median(part) - np.median(logs))}
    (said_of_it,) = [text.get_text() for text in strip.texts if to_hex(text.get_color()) == RED.lower()]
    assert re.fullmatch(r"\N{MINUS SIGN}\d\.\d %", said_of_it)


def test_a_level_series_has_no_red() -> None:
    (strip,) = strips(make_history(stepped_rates(factor=1.0)))
    assert list(lines_of(strip, RED)) == []


def test_a_run_that_does_not_count_is_a_grey_cross() -> None:
    lacking = make_figures(900.0, ranked=False, counts=False, why_not="2 of 3 blocks")
    (strip,) = strips(History(entries=(make_entry(0), make_entry(1, [lacking]), make_entry(2))))
    (cross,) = [line for line in lines_of(strip, GREY) if line.get_marker() == "x"]
    assert list(cross.get_xdata()) == [1]
    (line,) = [line for line in strip.lines if line.get_marker() == "o"]
    assert list(line.get_xdata()) == [0, 2]


def test_strips_of_a_machine_share_their_runs_and_only_the_last_names_them() -> None:
    later = make_history([1.0] * 3, cell=make_cell(mode="compile"))
    entries = [
        msgspec.structs.replace(entry, cells=(*entry.cells, *other.cells))
        for entry, other in zip(make_history([1.0] * 3).entries, later.entries, strict=True)
    ]
    first, second = strips(History(entries=(*entries, make_entry(3))))
    assert first.get_xlim() == second.get_xlim() == (-0.5, 3.5)
    assert [label.get_text() for label in first.get_xticklabels()] == [""] * 4
    assert [label.get_text() for label in second.get_xticklabels()][-1] == "2026-05-04\n0000003"


@pytest.mark.parametrize("count", [1, 7, 8, 100, 365])
def test_runs_are_named_no_more_than_fit_and_the_latest_always(count: int) -> None:
    (strip,) = strips(make_history([1.0] * count, cell=CELL))
    ticks = list(strip.get_xticks())
    assert 1 <= len(ticks) <= 7
    assert ticks[-1] == count - 1


@pytest.mark.parametrize(
    ("span", "ticks"),
    [
        (0.001, (0.98, 1, 1.02)),
        (np.log(1.03), (0.98, 1, 1.02)),
        (np.log(1.3), (0.8, 1, 1.2)),
        (np.log(1.99), (0.5, 1, 1.5)),
        (np.log(2.1), (0.5, 1, 2)),
        (np.log(70), (1 / 50, 1, 50)),
    ],
)
def test_ticks_are_round_and_inside(span: float, ticks: tuple[float, ...]) -> None:
    assert plot._ticks(span) == pytest.approx(ticks)


def test_the_same_history_gives_the_same_bytes_and_each_workload_a_chart() -> None:
    history = joined(FELL, make_history([1.0], cell=make_cell("mnist-mlp")))
    groups: list[Group] = groups_of(history, "speed")
    charts = plot.draw(groups, "speed")
    assert charts == plot.draw(groups, "speed")
    assert [(chart.name, chart.workload) for chart in charts] == [
        ("history-speed-mnist-cnn", "mnist-cnn"),
        ("history-speed-mnist-mlp", "mnist-mlp"),
    ]
    for chart in charts:
        assert ET.fromstring(chart.content).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314 - made here
