"""The commands history add and history show, as a user meets them."""

from pathlib import Path

import msgspec
import pytest
from conftest import Call
from histories import line_of, make_entry, make_figures, make_history, make_run_of, write_run

from bench.history.entries import read_file

HOSTILE = 'a<script>alert(1)</script>,"\n\x1b[31m|`[x](y)` =1+1'


def test_a_run_is_added_from_its_folder_and_shown(call: Call, tmp_path: Path) -> None:
    write_run(tmp_path / "results", "first", 1000.0)
    write_run(tmp_path / "results", "second", 1100.0, 1)
    assert call("history", "add", "first", "--history", "h.jsonl").out == (
        "Run first added to h.jsonl, which has 1 run.\n"
    )
    again = call("history", "add", "first", "--history", "h.jsonl")
    assert (again.status, again.err) == (0, "")
    assert again.out == "Run first is already in h.jsonl, which has 1 run.\n"
    assert "which has 2 runs" in call("history", "add", "second", "--history", "h.jsonl").out
    shown = call("history", "show", "h.jsonl")
    assert (shown.status, shown.err) == (0, "")
    assert "Speed of 2 runs, 2026-05-01 to 2026-05-02" in shown.out
    assert "+10.0 %" in shown.out
    assert call("history", "show").out == shown.out, "the folder of the runs gives the same"


def test_a_run_of_another_folder_is_added_under_a_fixed_name(call: Call, tmp_path: Path) -> None:
    run = write_run(tmp_path / "elsewhere", "first")
    options = ("--history", "h", "--host", "ci", "--results", "elsewhere")
    assert call("history", "add", "first", *options).status == 0
    (entry,) = read_file(tmp_path / "h").entries
    assert entry.machine.hostname == "ci"
    assert "is already in" in call("history", "add", str(run.folder), "--history", "h").out


def test_a_change_of_level_is_advice_and_no_failure(call: Call, tmp_path: Path) -> None:
    (tmp_path / "h").write_bytes(b"".join(map(line_of, make_history([1000.0] * 8 + [500.0] * 8).entries)))
    said = call("history", "show", "h", "--output", "out")
    assert said.status == 0
    assert "speed fell by 50 %" in said.out
    assert "Report: out/report.html" in said.out
    assert (tmp_path / "out" / "HISTORY.md").is_file()
    (chart,) = (tmp_path / "out" / "plots").iterdir()
    assert chart.name.startswith("history-speed-mnist-cnn-cpu-fp32-")
    assert chart.read_text().startswith("<svg")


@pytest.mark.parametrize(
    ("metric", "word"),
    [("speed", "1,000 "), ("first-step", "400 ms"), ("accuracy", "98.00 %"), ("memory", "700 MiB")],
)
def test_each_metric_can_be_shown(metric: str, word: str, call: Call, tmp_path: Path) -> None:
    (tmp_path / "h").write_bytes(line_of(make_entry()))
    assert word in call("history", "show", "h", "--measure", metric).out


def test_nothing_to_show_is_status_3(call: Call, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "results").mkdir()
    (tmp_path / "slow").write_bytes(line_of(make_entry(0, [make_figures(None)])))
    for arguments in (["empty"], [], ["slow"]):
        call("history", "show", *arguments).refused(3, "history add")
    call("history", "show", "slow").refused(3, "none of the runs in slow has a value of speed")


def test_wrong_usage_is_status_2(call: Call, tmp_path: Path) -> None:
    write_run(tmp_path / "results", "first")
    (tmp_path / "other").write_text("# Read me")
    call("history", "show", "nowhere").refused(2, "there is no nowhere", "Name a file")
    call("history", "show", "--measure", "beauty").refused(2, "beauty")
    call("history", "add", "frist", "--history", "h").refused(2, "did you mean 'first'?")
    call("history", "add", "first").refused(2, "--history")
    call("history", "add", "first", "--history", "results").refused(2, "is a directory")
    call("history", "add", "first", "--history", "other").refused(2, "other is not a history")
    call("history", "show", "results", "--output", "other").refused(2, "other")


def test_a_file_that_cannot_be_written_is_named(call: Call, tmp_path: Path) -> None:
    write_run(tmp_path / "results", "first")
    (tmp_path / "file").touch()
    call("history", "add", "first", "--history", "file/h").refused(3, "Name another file with --history")
    call("history", "show", "--output", "file/out").refused(3, "Name another folder with --output")


def test_a_damaged_line_is_named_by_both_commands(call: Call, tmp_path: Path) -> None:
    write_run(tmp_path / "results", "first")
    (tmp_path / "h").write_bytes(line_of(make_entry()) + b'{"schema":1,"run\x1b[31m')
    added = call("history", "add", "first", "--history", "h")
    added.refused(0, "left out, as it cannot be read: h line 2")
    shown = call("history", "show", "h")
    assert (shown.status, shown.err) == (0, "")
    assert "Left out, as it cannot be read: h line 2" in shown.out


def test_a_hostile_name_of_a_run_is_harmless_when_it_is_added(call: Call, tmp_path: Path) -> None:
    header = msgspec.structs.replace(make_run_of("x").header, run_id=HOSTILE)
    folder = tmp_path / "results" / "x"
    folder.mkdir(parents=True)
    (folder / "run.json").write_bytes(msgspec.json.encode(header))
    said = call("history", "add", "x", "--history", "h")
    assert (said.status, said.err) == (3, "bench: none of its rows was measured.\n")
    assert "\x1b" not in said.out
    assert said.out.count("\n") == 1
    assert (tmp_path / "h").read_bytes().count(b"\n") == 1
