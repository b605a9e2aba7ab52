"""The report on runs over time, and that no name in it can act as markup, a path or a terminal code."""

import re
import xml.etree.ElementTree as ET
from io import StringIO
from pathlib import Path

import msgspec
import numpy as np
import pytest
from histories import BOX, joined, make_entry, make_figures, make_history, stepped_rates
from pages import Page
from rich.console import Console
from synthetic import make_cell

from bench.history.entries import Framework, History, MetricName
from bench.history.report import advice, full, left_out, moves, short, span, write
from bench.history.time_series import by_machine, place_of
from bench.report.format import NOTHING
from bench.report.markdown import document
from bench.report.terminal import print_blocks

HOSTILE = 'a<script>alert(1)</script>,"\n\x1b[31m|`[x](y)` $x$ =1+1'
FELL = make_history(stepped_rates())
LACKING = make_figures(9.0, ranked=False, counts=False, why_not="2 of 3 blocks")


def printed(history: History, *, width: int = 100) -> str:
    file = StringIO()
    print_blocks(short(history, "speed", by_machine(history, "speed")), Console(file=file, width=width))
    return file.getvalue()


def said(history: History) -> list[str]:
    return advice(by_machine(history, "speed"), "speed")


def markdown(history: History, metric: MetricName = "speed", drawn: frozenset[str] = frozenset()) -> str:
    return document(full(history, metric, by_machine(history, metric)), drawn)


# In words


def test_a_change_is_reported_with_its_size_its_runs_and_their_commits() -> None:
    sentence, _ = said(FELL)
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


def test_what_changed_in_between_is_named() -> None:
    new = {
        "version": "0.2.0",
        "frameworks": (
            Framework(name="jax", title="JAX", versions={"jax": "9"}),
            Framework(name="torch", title="PyTorch", versions={"torch": "2.14.0", "triton": "3"}),
        ),
        "dirty": True,
    }
    before = [msgspec.structs.replace(entry, commit=None, dirty=None) for entry in FELL.entries[:12]]
    after = [msgspec.structs.replace(entry, **new) for entry in FELL.entries[12:]]
    sentence, _ = said(History(entries=(*before, *after)))
    assert sentence.endswith(
        "between run-011 (commit not known) and run-012 (commit 000000caaaaa with changes); in between, "
        "samework 0.1.0 became 0.2.0, torch 2.13.0 became 2.14.0, triton absent became 3."
    )


def test_the_latest_change_comes_first_and_the_machine_is_named_if_there_are_several() -> None:
    other = make_history(
        stepped_rates(8, 8, seed=1), machine=msgspec.structs.replace(BOX, key="2", hostname="attic")
    )
    first, second, _ = said(joined(FELL, other))
    assert "PyTorch eager on box (machine 0badcafe): speed fell" in first
    assert "PyTorch eager on attic (machine 2): speed fell" in second


def test_series_without_a_change_are_counted_and_so_are_short_ones() -> None:
    level = make_history(stepped_rates(factor=1.0), cell=make_cell(mode="compile"))
    short = make_history([1000.0] * 7, cell=make_cell("mnist-mlp"))
    lines = said(joined(FELL, level, short))
    assert lines[1:] == [
        "1 time series without a change of level.",
        "1 time series with fewer than 8 runs, too few to distinguish a change from noise.",
        "By chance alone, at most 2 % of time series without a change get a change point, if their values "
        "are independent; of 2 time series at least one does with a probability of about 4 %.",
    ]
    assert said(short) == [lines[2]], "nothing was examined"
    assert said(level)[1].endswith("if their values are independent.")


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
def test_the_changes_of_a_row_in_a_few_words(rates: list[float], words: str) -> None:
    ((row,),) = (machine.rows for machine in by_machine(make_history(rates), "speed"))
    assert moves(row) == words


def test_the_span_of_a_history() -> None:
    assert span(FELL) == "20 runs, 2026-05-01 to 2026-05-20"
    assert span(make_history([1.0])) == "one run, of 2026-05-01"


def test_rows_that_do_not_count_are_named_by_run_and_reason_up_to_a_limit() -> None:
    lacking = [msgspec.structs.replace(LACKING, cell=make_cell(mode=mode)) for mode in "abcde"]
    history = History(
        entries=(make_entry(0, lacking),), rejected=("h line 1: x", "h line 2: y", "h line 3: z")
    )
    machines = by_machine(history, "speed")
    assert left_out(history, machines, most=2) == [
        "Does not count in run-000: mnist-cnn (cpu fp32) PyTorch a, mnist-cnn (cpu fp32) PyTorch b and 3 "
        "more: 2 of 3 blocks.",
        "Left out, as it cannot be read: h line 1: x",
        "Left out, as it cannot be read: h line 2: y",
        "And 1 more.",
    ]
    every = left_out(history, machines)
    assert len(every) == 4
    assert "PyTorch e: 2 of 3 blocks." in every[0]


def test_the_epochs_of_an_accuracy_are_named() -> None:
    entries = (make_entry(0, [make_figures(epochs=1.0)]), make_entry(1, [make_figures(epochs=2.5)]))
    (machine,) = by_machine(History(entries=entries), "accuracy")
    assert [place_of(row.series) for row in machine.rows] == [
        "mnist-cnn (cpu fp32, after 1 epoch)",
        "mnist-cnn (cpu fp32, after 2.5 epochs)",
    ]


# Printed


def test_the_table_has_the_latest_value_its_interval_and_the_change() -> None:
    out = printed(make_history([1000.0, 1000.0, 1100.0]))
    (row,) = [line.split() for line in out.splitlines() if line.startswith("PyTorch eager")]
    assert row == ["PyTorch", "eager", "3", "1,100", "1.0", "%", "+10.0", "%", "too", "few", "runs"]
    assert "Example CPU, 16 CPUs, 64 GiB, no GPU (box, machine 0badcafe; cpu fp32)" in out


def test_a_row_that_never_counted_is_shown_without_values() -> None:
    out = printed(History(entries=(make_entry(0, [LACKING]),)))
    assert re.search(rf"PyTorch eager +0( +{NOTHING}){{3}} +too few runs", out)
    assert "Does not count in run-000: mnist-cnn (cpu fp32) PyTorch eager: 2 of 3 blocks." in out


def test_device_and_precision_stand_in_the_rows_if_they_differ() -> None:
    out = printed(joined(make_history([1.0]), make_history([1.0], cell=make_cell(precision="bf16"))))
    for part in ("mnist-cnn (cpu fp32)", "mnist-cnn (cpu bf16)", "machine 0badcafe)"):
        assert part in out


@pytest.mark.parametrize(
    ("history", "words"),
    [
        (make_history([1.0], mark="made on the sample"), "NOTE: made on the sample"),
        (make_history([1000.0, 999.99]), " +0.0 %"),
    ],
    ids=["a mark", "no minus zero"],
)
def test_a_history_is_printed_with(history: History, words: str) -> None:
    assert words in printed(history)


@pytest.mark.parametrize("width", [20, 80, 200])
def test_no_line_is_wider_than_the_console(width: int) -> None:
    assert max(map(len, printed(FELL, width=width).splitlines())) <= width


# As Markdown


def test_the_report_has_advice_table_and_runs() -> None:
    name = "history-speed-mnist-cnn-cpu-fp32-0badcafe"
    made = markdown(FELL, drawn=frozenset({name}))
    assert made.startswith("# Speed over time\n")
    assert "\n- mnist-cnn (cpu fp32), PyTorch eager: speed fell by " in made
    assert "| framework | runs | samples/s | ± | change | advice |" in made
    assert "![mnist-cnn (cpu fp32): speed of PyTorch eager fell by " in made
    assert f"](plots/{name}.svg)" in made
    assert "| run-019 | 2026-05-20 10:00 | commit 0000013aaaaa | 0.1.0 | torch 2.13.0 |" in made
    assert made.count("| run-0") == 20
    assert "left out" not in made


def test_what_is_left_out_stands_in_the_report() -> None:
    history = msgspec.structs.replace(FELL, rejected=("h line 3: *bad*",))
    assert "## What is left out\n\n- Left out, as it cannot be read: h line 3: \\*bad\\*" in markdown(history)


def hostile() -> History:
    cell = make_cell(HOSTILE, HOSTILE, HOSTILE)
    machine = msgspec.structs.replace(BOX, key=HOSTILE, words=HOSTILE, hostname=HOSTILE)
    frameworks = (Framework(name=HOSTILE, title=HOSTILE, versions={HOSTILE: HOSTILE}),)
    made = make_history(
        stepped_rates(), cell=cell, machine=machine, mark=HOSTILE, commit=HOSTILE, version=HOSTILE,
        frameworks=frameworks,
    )  # fmt: skip
    entries = [msgspec.structs.replace(one, run_id=HOSTILE + one.run_id) for one in made.entries]
    lacking = msgspec.structs.replace(LACKING, cell=cell, why_not=HOSTILE)
    entries.append(make_entry(30, [lacking], mark=HOSTILE, machine=machine))
    return History(entries=tuple(entries), rejected=(HOSTILE,))


def test_hostile_names_stay_names(tmp_path: Path) -> None:
    history = hostile()
    path = write(tmp_path, history, "speed", by_machine(history, "speed"))
    made = path.with_name("HISTORY.md").read_text(encoding="utf-8")
    page = Page(path.read_text(encoding="utf-8"))
    assert len(page.all("script")) == 1
    for out in (made, page.text, printed(history)):
        assert "\x1b" not in out
        assert "alert(1)" in out, "the name is shown"
    assert "<script>" not in made.replace("\\<", "")
    # A bar that is not escaped would make a row longer than its table's heading.
    bars = re.compile(r"(?<!\\)\|")
    heads = ("| framework |", "| run |")
    for block in made.split("\n\n"):
        if block.startswith(heads):
            assert len({len(bars.findall(line)) for line in block.splitlines()}) == 1
    (chart,) = (tmp_path / "plots").iterdir()
    assert re.fullmatch(r"history-speed-[a-z0-9-]+\.svg", chart.name)
    assert ET.fromstring(chart.read_bytes()).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314 - made here
    assert b"<script" not in chart.read_bytes()


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "", "..", "é", "x" * 500])
def test_no_name_of_a_workload_leads_out_of_the_folder(name: str, tmp_path: Path) -> None:
    history = make_history([1.0], cell=make_cell(name))
    write(tmp_path / "out", history, "speed", by_machine(history, "speed"))
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert [found[0], found[2]] == ["out/HISTORY.md", "out/report.html"]
    assert len(found) == 3
    assert re.fullmatch(r"out/plots/history-speed-[a-z0-9-]+\.svg", found[1])


def test_workloads_whose_names_look_alike_to_a_file_have_a_chart_each(tmp_path: Path) -> None:
    history = joined(*(make_history([1.0], cell=make_cell(name)) for name in ("a/b", "a b", "A-B")))
    write(tmp_path, history, "speed", by_machine(history, "speed"))
    made = (tmp_path / "HISTORY.md").read_text(encoding="utf-8")
    names = {path.name for path in (tmp_path / "plots").iterdir()}
    assert len(names) == 3
    assert all(f"(plots/{name})" in made for name in names)
