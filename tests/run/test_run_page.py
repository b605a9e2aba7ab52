"""The page of a run, and of several: complete for any run, safe, repeatable, and small."""

import csv
import io
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import msgspec
import pytest
from broken_runs import (
    BROKEN,
    HOSTILE,
    JAX,
    TORCH,
    hostile_run,
)
from page_blocks import flat, rows_of, said, section, table_with
from pages import Page
from synthetic import realistic_run, simple_run
from two_runs import changed_header, make_jobs, make_side

from bench.analysis.summary import summarise
from bench.cli import several
from bench.errors import WriteError
from bench.records.runs import HEADER, RECORDS, Run
from bench.report.blocks import File, Group, Heading, Table, charts_of
from bench.run.report import page, raw
from bench.run.report.answer import answer
from bench.text import clean

LARGEST_BYTES = 1_500_000
RUNS: dict[str, Callable[[Path], Run]] = {**BROKEN, "realistic": realistic_run}


def page_of(run: Run) -> Page:
    return Page(page.document(run, summarise(run), beside=run.folder))


@pytest.mark.parametrize("name", RUNS)
def test_every_run_has_a_page_with_all_sections(name: str, tmp_path: Path) -> None:
    run = RUNS[name](tmp_path)
    found = page_of(run)
    levels = [int(one.tag[1]) for one in found.elements if one.tag in {"h1", "h2", "h3", "h4"}]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert levels.count(2) >= 11
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    ids = found.attributes("id")
    assert len(ids) == len(set(ids))
    words = said(page.blocks(run, summarise(run), beside=run.folder)).split()
    assert not {"nan", "None"} & set(words)


@pytest.mark.parametrize("name", ["hostile", "realistic"])
def test_the_answer_and_every_row_with_its_reason_is_there(name: str, tmp_path: Path) -> None:
    run = RUNS[name](tmp_path)
    summary = summarise(run)
    text = page_of(run).text
    for item in answer(run, summary):
        assert clean(item.text) in text
    for row in summary.cells:
        if row.why_not:
            assert clean(row.why_not) in text
    assert clean(run.header.environment.in_words()) in text
    assert "parity" in text


def test_a_hostile_run_brings_no_element_and_no_link_of_its_own(tmp_path: Path) -> None:
    hostile, harmless = page_of(hostile_run(tmp_path)), page_of(realistic_run(tmp_path))
    assert {one.tag for one in hostile.elements} <= {one.tag for one in harmless.elements}
    assert not [name for one in hostile.elements for name in one.attributes if name.startswith("on")]
    links = [link for link in hostile.attributes("href") if not link.startswith(("#", "data:"))]
    assert links == []
    assert clean(HOSTILE) in hostile.text
    assert "\u202e" not in hostile.text


def test_the_same_run_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    run = realistic_run(tmp_path)
    first = page.write(run, summarise(run)).read_bytes()
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from bench.run.report import page; from synthetic import realistic_run\n"
        "from bench.analysis.summary import summarise\n"
        "run = realistic_run(Path(sys.argv[2])); page.write(run, summarise(run))"
    )
    arguments = [str(Path(__file__).parents[1]), str(tmp_path)]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, timeout=300)
    assert (tmp_path / "report.html").read_bytes() == first
    assert len(first) < LARGEST_BYTES


def test_a_folder_that_cannot_be_written_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    run = simple_run({TORCH: [1000] * 3}, folder=tmp_path)
    with pytest.raises(WriteError, match="cannot write the report to"):
        page.write(run, summarise(run))


# ---- what a reader can choose


def test_every_row_and_every_chart_can_be_chosen_by_its_workload() -> None:
    run = realistic_run()
    blocks = page.blocks(run, summarise(run))
    for table in (one for one in flat(blocks) if isinstance(one, Table) and "workload" in one.heads):
        named = [tags["workload"] for tags in table.tags]
        assert named == [row[table.heads.index("workload")] for row in table.rows if named]
    assert all({"workload"} <= set(chart.tags) for chart in charts_of(blocks) if chart.name != "overview")
    metrics = {one.tags["metric"] for one in blocks if isinstance(one, Group) and "metric" in one.tags}
    assert metrics == {
        "throughput", "accuracy", "time to accuracy", "first result", "memory and energy",
        "share of the peak", "batch size",
    }  # fmt: skip


def test_the_choices_are_named_as_readers_know_them(tmp_path: Path) -> None:
    found = page_of(realistic_run(tmp_path))
    assert "Framework all" in found.text
    assert "PyTorch" in found.text
    values = {one.attributes["value"] for one in found.all("option")}
    assert {"torch", "jax", "tensorflow", "throughput"} <= values


# ---- raw values


def test_every_window_of_every_row_is_there_and_can_be_kept(tmp_path: Path) -> None:
    run = realistic_run(tmp_path)
    summary = summarise(run)
    blocks = section(page.blocks(run, summary, beside=tmp_path), "Every raw value")
    files = {one.name: one.content for one in blocks if isinstance(one, File) and one.content is not None}
    rows = list(csv.DictReader(io.StringIO(files["rows.csv"])))
    assert len(rows) == len(summary.cells)
    assert float(rows[0]["samples_per_s"]) == summary.cells[0].samples_per_s
    windows = [
        line
        for name, text in files.items()
        if name != "rows.csv"
        for line in csv.DictReader(io.StringIO(text))
    ]
    assert len(windows) == sum(len(job.windows) for job in run.jobs)
    table = table_with(blocks, "samples/s of each window")
    first = rows_of(table)[0]
    assert len(first["samples/s of each window"].split()) == int(first["windows"])


def test_a_run_with_very_many_windows_shows_the_rate_of_each_block_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(raw, "MOST_WINDOWS", 10)
    run = realistic_run()
    blocks = section(page.blocks(run, summarise(run)), "Every raw value")
    assert "too many for a page" in said(blocks)
    assert not any("samples/s of each window" in one.heads for one in flat(blocks) if isinstance(one, Table))


def test_only_files_that_lie_beside_the_page_are_linked(tmp_path: Path) -> None:
    run = realistic_run(tmp_path)
    assert "run.json" not in page_of(run).attributes("href")
    for name in (HEADER, RECORDS):
        (tmp_path / name).write_text("")
    assert {HEADER, RECORDS} <= set(page_of(run).attributes("href"))
    elsewhere = Page(page.document(run, summarise(run), beside=tmp_path.parent))
    assert HEADER not in elsewhere.attributes("href")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x"])
def test_a_spreadsheet_computes_nothing_of_a_name(text: str) -> None:
    run = simple_run({msgspec.structs.replace(TORCH, mode=text): [1000] * 3})
    found = page_of(run)
    (content,) = [
        unquote(one.attributes["href"])
        for one in found.all("a")
        if one.attributes.get("download") == "rows.csv"
    ]
    row = next(csv.DictReader(io.StringIO(content.partition(",")[2])))
    assert row["mode"] == f"'{text}"


# ---- several runs


def side(run_id: str, factor: float = 1.0, **header: object) -> Run:
    jobs = [make_jobs(factor, cell=TORCH), make_jobs(cell=JAX, seed=1)]
    return make_side(*jobs, run_id=run_id, **header)


def test_several_runs_stand_on_one_page_with_what_changed_between_them() -> None:
    runs = [side("first"), side("second", 0.8), side("third", environment={"hostname": "elsewhere"})]
    summaries = [summarise(run) for run in runs]
    blocks = several.compared(runs, summaries)
    heads = [one.text for one in blocks if isinstance(one, Heading)]
    assert heads[1:3] == ["The runs", "Fastest by workload, run by run"]
    assert {"Run 2 against run 1", "Run 3 against run 1"} <= set(heads)
    same = said(section(blocks, "Run 2 against run 1"))
    assert "slower" in same
    assert "different machines" not in same
    other = said(section(blocks, "Run 3 against run 1"))
    assert "The runs are of different machines, so their figures are not compared" in other
    winners = rows_of(table_with(blocks, "run", "times as fast"))
    assert [row["run"] for row in winners] == ["1", "2", "3"]

    found = Page(several.document(blocks, runs, summaries))
    ids = found.attributes("id")
    assert len(ids) == len(set(ids))
    run_choice = [
        one.attributes["value"]
        for one in found.all("option")
        if one.attributes["value"] in {"first", "third"}
    ]
    assert run_choice == ["first", "third"]
    assert len(found.all("h1")) == 1
    tagged = [
        json.loads(one.attributes["data-tags"]).get("run")
        for one in found.all("section")
        if "data-tags" in one.attributes
    ]
    assert tagged == ["first", "second", "third"]


def test_runs_of_one_name_and_hostile_runs_can_stand_on_one_page(tmp_path: Path) -> None:
    runs = [hostile_run(tmp_path), hostile_run(tmp_path), side("x")]
    summaries = [summarise(run) for run in runs]
    found = Page(several.document(several.compared(runs, summaries), runs, summaries))
    assert not [name for one in found.elements for name in one.attributes if name.startswith("on")]
    assert len(found.attributes("id")) == len(set(found.attributes("id")))


def test_another_machine_is_told_from_the_same_one() -> None:
    first = side("a")
    assert several._same_machine(first, side("b"))
    header = changed_header(first.header, environment={"cpu_model": "another"})
    assert not several._same_machine(first, msgspec.structs.replace(first, header=header))
