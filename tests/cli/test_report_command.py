"""The command `report`: what it prints and writes for one run and for several, and what it refuses."""

from pathlib import Path

import msgspec
from conftest import Call
from two_runs import make_jobs, make_side, save


def two_runs(results: Path) -> None:
    for number, name in enumerate(("base", "head")):
        save(make_side(make_jobs(seed=number), run_id=name), results)


def test_one_run_is_printed_and_written_as_a_page(call: Call, tmp_path: Path) -> None:
    two_runs(tmp_path / "results")
    said = call("report", "base")
    assert said.status == 0, said
    assert said.out.splitlines()[-1] == "Report: results/base/report.html"
    assert "PyTorch" in said.out
    assert "<h1" in (tmp_path / "results" / "base" / "report.html").read_text()
    assert not (tmp_path / "results" / "base" / "REPORT.md").exists()


def test_on_the_terminal_alone_nothing_is_written(call: Call, tmp_path: Path) -> None:
    two_runs(tmp_path / "results")
    for names in (("base",), ("base", "head")):
        said = call("report", *names, "--format", "terminal")
        assert said.status == 0, said
        assert "Report:" not in said.out
    assert not list(tmp_path.rglob("*.html"))


def test_several_runs_are_compared_and_written_on_one_page(call: Call, tmp_path: Path) -> None:
    two_runs(tmp_path / "results")
    said = call("report", "base", "head")
    assert said.status == 0, said
    assert said.out.splitlines()[-1] == "Report: results/report.html"
    assert "Run 2 against run 1" in said.out
    html = (tmp_path / "results" / "report.html").read_text()
    assert html.count("<h1") == 1
    assert "Run 2: head" in html
    said = call("report", "base", "head", "--output", "both.html")
    assert said.out.splitlines()[-1] == "Report: both.html"
    assert (tmp_path / "both.html").read_text() == html


def test_what_makes_no_sense_is_refused(call: Call, tmp_path: Path) -> None:
    two_runs(tmp_path / "results")
    call("report", "base", "base").refused(2, "named twice")
    call("report", "base", "head", "--format", "json").refused(2, "takes one run")
    call("report", "base", "--format", "json", "--output", "x").refused(2, "--output is for --format html")
    call("report", "base", "nead").refused(2, "did you mean 'head'")


def test_a_page_that_cannot_be_written_is_named_after_the_run_was_printed(call: Call, tmp_path: Path) -> None:
    two_runs(tmp_path / "results")
    (tmp_path / "results" / "base" / "report.html").mkdir()
    said = call("report", "base")
    assert said.status == 3
    assert "PyTorch" in said.out
    assert "cannot write" in said.err
    assert "--format terminal prints the report." in said.err


def test_a_line_that_cannot_be_read_is_named_for_each_run(call: Call, tmp_path: Path) -> None:
    two_runs(tmp_path / "results")
    for name in ("base", "head"):
        with (tmp_path / "results" / name / "records.jsonl").open("a") as file:
            file.write("{broken\n")
    said = call("report", "base", "head", "--format", "terminal")
    assert said.err.count("left out, as it cannot be read") == 2


def test_runs_of_two_machines_stand_side_by_side_without_a_comparison_of_figures(
    call: Call, tmp_path: Path
) -> None:
    two_runs(tmp_path / "results")
    other = make_side(make_jobs(seed=2), run_id="other", environment={"cpu_model": "Another CPU"})
    save(msgspec.structs.replace(other), tmp_path / "results")
    said = call("report", "base", "other")
    assert said.status == 0, said
    assert "The runs are of different machines" in " ".join(said.out.split())
