"""The command export, as a user meets it."""

import json
from pathlib import Path

import msgspec
import pytest
from conftest import Call
from exported import HOSTILE, acts_on_a_terminal, full_run, with_commit
from synthetic import make_cell, make_header, make_run

from bench.exports.formats import EXPORTS
from bench.records.runs import HEADER, RECORDS, Run, append_record, create_run
from bench.text import clean

NAME = "2026-05-01-quick"


def save(run: Run, results: Path = Path("results")) -> Path:
    """Write a run as `bench run` does; its folder has the name of a run, whatever its header says."""
    folder = create_run(results, msgspec.structs.replace(run.header, run_id=NAME))
    (folder / HEADER).write_bytes(msgspec.json.encode(run.header))
    for record in run.records:
        append_record(folder, record)
    return folder


def test_a_text_is_printed_or_written_to_a_file(call: Call, tmp_path: Path) -> None:
    save(full_run())
    for name, export in EXPORTS.items():
        if export.payload != "text":
            continue
        printed = call("export", "--format", name)
        assert (printed.status, printed.err) == (0, "")
        written = call("export", NAME, "--format", name, "--output", "made.txt")
        assert (written.status, written.out, written.err) == (0, "Export: made.txt\n", "")
        assert (tmp_path / "made.txt").read_text(encoding="utf-8") == printed.out
        assert sorted(path.name for path in tmp_path.iterdir()) == ["made.txt", "results"]
        assert name == "csv" or json.loads(printed.out)


@pytest.mark.parametrize(("name", "is_file"), [("asv", False), ("parquet", True)])
def test_a_folder_or_binary_file_needs_an_output(
    name: str, is_file: bool, call: Call, tmp_path: Path
) -> None:
    save(full_run())
    call("export", "--format", name).refused(2, f"--format {name} makes a", "--output PATH")
    said = call("export", "--format", name, "--output", "made")
    assert (said.status, said.out, said.err) == (0, "Export: made\n", "")
    assert (tmp_path / "made").is_file() is is_file


def test_the_newest_run_is_exported_and_another_one_by_its_name(call: Call) -> None:
    folder = save(full_run(), Path("elsewhere"))
    newest = call("export", "--format", "csv", "--results", "elsewhere")
    named = call("export", str(folder), "--format", "csv")
    assert newest.status == named.status == 0
    assert newest.out == named.out != ""


def test_help_lists_every_format_with_its_line(call: Call) -> None:
    said = call("export", "--help")
    assert said.status == 0
    for name, export in EXPORTS.items():
        (line,) = [line for line in said.out.splitlines() if line.split()[:1] == [name]]
        assert export.summary in line
    assert max(map(len, said.out.splitlines())) <= 100


def test_wrong_usage_is_named(call: Call) -> None:
    save(make_run(make_header([make_cell()])))
    for arguments, words in (
        ((), "--format"),
        (("--format", "asvv"), "unknown format 'asvv'; did you mean 'asv'?"),
        (("run-1", "--format", "csv"), "unknown run 'run-1'"),
        (("--format", "csv", "--results", "nowhere"), "no run in nowhere yet"),
        (("--format", "csv", "surplus", "more"), "more"),
    ):
        call("export", *arguments).refused(2, words)


def test_an_output_that_cannot_be_written_is_named_with_the_reason(call: Call) -> None:
    save(full_run())
    Path("file").touch()
    said = call("export", "--format", "csv", "--output", "file/below")
    said.refused(3, "cannot write file/below: Not a directory. Name another file with --output.")
    assert said.out == ""


def test_lines_that_cannot_be_read_are_named_and_do_not_reach_the_output(call: Call) -> None:
    folder = save(full_run())
    whole = call("export", "--format", "csv").out
    with (folder / RECORDS).open("a", encoding="utf-8") as file:
        file.write('{"record": "\\u0007\\u001b[31m"}\n{"record": "job"')
    said = call("export", "--format", "csv")
    assert (said.status, said.out) == (0, whole)
    lines = said.err.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith(f"bench: {folder}: left out, as it cannot be read: {RECORDS} line ")
        assert acts_on_a_terminal(line) == [], "the reason quotes what was read"


@pytest.mark.parametrize("name", ["asv", "pytest-benchmark", "github-smaller"])
def test_a_hostile_run_without_values_is_named_in_one_clean_line(name: str, call: Call) -> None:
    save(with_commit(make_run(make_header([make_cell()])), run_id=HOSTILE))
    said = call("export", "--format", name, "--output", "out")
    said.refused(2, "there is nothing to export", clean(HOSTILE))
    assert acts_on_a_terminal(said.err) == []
