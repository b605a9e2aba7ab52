"""The self-test's report: that its table says what was found, on the terminal and in SELFTEST.md."""

import io

import msgspec
import pytest
from rich.console import Console
from simulated import simulate

from bench.report.markdown import document
from bench.selftest import report
from bench.selftest.calibration import calibrate


def printed(test, width: int = 120) -> str:
    file = io.StringIO()
    report.render(test, calibrate(test), Console(file=file, width=width))
    return file.getvalue()


def test_the_table_has_a_row_a_rule_with_counts_and_their_intervals():
    test = simulate()
    found = calibrate(test)
    text = document(report.whole(test, found), frozenset({"selftest"}))
    ours = next(line for line in text.splitlines() if line.startswith("| bench, paired by round"))
    assert "| 0 of 40 (0-9 %) |" in ours
    assert ours.count("20 of 20 (84-100 %)") >= 2
    assert f"{found.rows[0].coverage.hits} of 100" in ours
    for tool in ("pytest-benchmark", "asv", "pyperf", "google/benchmark"):
        assert any(line.startswith(f"| {tool}") for line in text.splitlines())
    assert "The comparison meets all requirements." in text
    assert "![" in text
    assert "](plots/selftest.svg)" in text
    assert "](plots/selftest.svg)" not in document(report.whole(test, found), frozenset())


def test_what_failed_is_said_first_and_loudly():
    test = simulate(process_sd=0.08)
    text = document(report.whole(test, calibrate(test)), frozenset())
    assert "does NOT meet" in text.split("## Rules")[0]
    assert "10 % found in at least 99 % of comparisons" in text
    assert "FAILED" in text
    assert "FAILED" in printed(test)


def test_lost_comparisons_and_rejected_lines_are_named():
    test = simulate(groups=2)
    short = msgspec.structs.replace(test, blocks=test.blocks[:12], rejected=("blocks.jsonl line 13: cut",))
    text = document(report.whole(short, calibrate(short)), frozenset())
    assert "not judged, 2 of 10 blocks can be used" in text
    assert "line 13: cut" in text
    assert "line 13: cut" in printed(short)
    assert "Too little was measured" in text


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_terminal_keeps_its_width_and_loses_no_rule(width: int):
    lines = printed(simulate(groups=2), width).splitlines()
    assert max(len(line) for line in lines) <= width
    assert "pyperf" in "".join(lines)
    if width >= 80:  # every column is there to its last figure
        assert sum(line.endswith(" %") for line in lines[:20]) >= 2


def test_the_tools_that_are_compared_are_named():
    assert "pyperf" in printed(simulate(groups=2))


def test_report_and_chart_are_the_same_to_the_byte_when_written_again(tmp_path):
    test = msgspec.structs.replace(simulate(groups=3), folder=tmp_path)
    path = report.write(test, calibrate(test))
    first = (path.read_bytes(), (tmp_path / "plots" / "selftest.svg").read_bytes())
    report.write(test, calibrate(test))
    assert first == (path.read_bytes(), (tmp_path / "plots" / "selftest.svg").read_bytes())
    assert path.name == "report.html"
    assert (tmp_path / "SELFTEST.md").is_file()


def test_nothing_measured_makes_a_report_and_no_chart(tmp_path):
    empty = msgspec.structs.replace(simulate(groups=1), blocks=(), folder=tmp_path)
    path = report.write(empty, calibrate(empty))
    assert "Too little was measured" in path.read_text()
    assert not (tmp_path / "plots" / "selftest.svg").exists()
