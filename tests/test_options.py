"""The options that take a path: `~`, `-`, and what is refused."""

import importlib
from pathlib import Path

import click
import msgspec
import pytest
from conftest import Call
from exported import full_run
from two_runs import make_jobs, make_side, save

from bench.cli.main import COMMANDS
from bench.options import PathOption
from bench.records.runs import Run


def commands() -> list[click.Command]:
    found = []
    for lazy in COMMANDS.values():
        module, _, name = lazy.target.partition(":")
        command = getattr(importlib.import_module(module), name)
        found += [command, *getattr(command, "commands", {}).values()]
    return found


def test_every_option_of_a_path_expands_the_home_folder() -> None:
    parameters = [parameter for command in commands() for parameter in command.params]
    kinds = [parameter.type for parameter in parameters if isinstance(parameter.type, click.Path)]
    assert len(kinds) > 20
    assert all(isinstance(kind, PathOption) for kind in kinds)
    places = {"DIR", "FILE", "PATH"}
    assert all(isinstance(one.type, PathOption) for one in parameters if one.metavar in places)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


def saved(results: Path, name: str, run: Run) -> Path:
    header = msgspec.structs.replace(run.header, run_id=name)
    return save(msgspec.structs.replace(run, header=header), results)


@pytest.mark.parametrize(
    ("arguments", "made"),
    [
        (("report", "--results=~/results"), "results/base/report.html"),
        (("report", "--results=~/results", "--output=~/page.html"), "page.html"),
        (("report", "~/results/base", "--format", "markdown"), "results/base/REPORT.md"),
        (("export", "--results=~/results", "--format=csv", "--output=~/x.csv"), "x.csv"),
        (("export", "~/results/base", "--format=asv", "--output=~/asv"), "asv/benchmarks.json"),
        (("compare", "--results=~/results", "base", "head", "--output=~/told.md"), "told.md"),
        (("history", "add", "~/results/base", "--history=~/new/h.jsonl"), "new/h.jsonl"),
        (("compare", "--results=~/results", "base", "head", "--output=~/told.html"), "told.html"),
        (("history", "show", "~/results", "--output=~/history"), "history/report.html"),
        (("show", "mnist", "samples", "--sample", "--output=~/pictures"), "pictures/samples.svg"),
    ],
)
def test_a_tilde_is_the_home_folder_in_every_option(
    arguments: tuple[str, ...], made: str | None, home: Path, call: Call, tmp_path: Path
) -> None:
    run = full_run() if "asv" in str(arguments) else make_side(make_jobs())
    saved(home / "results", "base", run)
    if "compare" in arguments:
        saved(home / "results", "head", make_side(make_jobs(seed=1)))
    said = call(*arguments)
    assert said.status == 0, said
    assert made is None or (home / made).is_file()
    assert not (tmp_path / "~").exists()


def test_the_variable_for_the_data_and_an_interpreter_may_have_a_tilde(
    home: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_DATA", "~/data")
    assert f"there is no {home}/data/mnist" in call("data", "verify", "mnist").err
    assert "there is no file ~/python" in call("list", "--python=torch=~/python").err
    (home / "environment").mkdir()
    call("list", "--python=torch=~/environment").refused(2, "it is a folder; name its bin/python")
    monkeypatch.setenv("BENCH_DATA", "~no-such-user/data")
    call("data", "verify", "mnist").refused(2, "'~no-such-user/data': the home folder is not known")


@pytest.mark.parametrize("form", ["csv", "pytest-benchmark", "parquet"])
def test_a_dash_is_standard_output_with_the_bytes_of_the_file(
    form: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(full_run(), tmp_path / "results")
    call("export", "--format", form, "--output", "file")
    printed: list[bytes] = []
    monkeypatch.setattr("bench.options.click.echo", lambda content, nl: printed.append(content))
    assert call("export", "--format", form, "--output", "-").status == 0
    assert printed == [(tmp_path / "file").read_bytes()]
    assert not (tmp_path / "-").exists()


def test_a_comparison_on_standard_output_is_the_file_and_nothing_else(call: Call, tmp_path: Path) -> None:
    saved(tmp_path / "results", "base", make_side(make_jobs()))
    saved(tmp_path / "results", "head", make_side(make_jobs(seed=1)))
    for more in ([], ["--verdicts"]):
        call("compare", *more, "base", "head", "--output", "file.md")
        said = call("compare", *more, "base", "head", "--output", "-")
        assert said.out == (tmp_path / "file.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("export", "--format", "asv", "--output", "-"), "makes a folder. Name it with --output PATH"),
        (
            ("history", "show", "--output", "-"),
            "standard output cannot be used here. A directory named - is ./-",
        ),
        (("history", "add", "base", "--history", "-"), "A file named - is ./-"),
        (("show", "mnist", "--sample", "--output", "-"), "standard output cannot be used here"),
        (("report", "--results", "-"), "A path named - is ./-"),
        (("run", "--data", "-"), "standard output cannot be used here"),
        (("report", "--results", ""), "the path is empty"),
    ],
)
def test_where_a_dash_makes_no_sense_it_is_refused(
    arguments: tuple[str, ...], words: str, call: Call, tmp_path: Path
) -> None:
    save(full_run(), tmp_path / "results")
    call(*arguments).refused(2, words)
    assert not (tmp_path / "-").exists()
