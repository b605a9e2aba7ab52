"""What can fail at the end of a run fails at its start, and no variable of another program matters."""

import os
import subprocess
import sys
from pathlib import Path

import fakes
import pytest
from conftest import Call
from rich.console import Console
from synthetic import make_cell, make_header, make_run
from test_run_command import SMALL, known

from bench.errors import RecordError
from bench.report.rehearsal import rehearse
from bench.run.report import markdown
from bench.run.report.rehearsal import rehearse_run


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    rehearse(tmp_path / "results")
    assert list((tmp_path / "results").iterdir()) == []
    run = make_run(make_header([make_cell()]), folder=tmp_path / "results")
    rehearse_run(run, Console())
    assert list((tmp_path / "results").iterdir()) == []


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    with pytest.raises(RecordError, match=r"cannot write results to .*results: .*--results"):
        rehearse(tmp_path / "results")


def test_a_chart_that_cannot_be_drawn_stops_a_run_before_it_measures(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(monkeypatch, [fakes.STEADY])

    def breaks(*_: object) -> bytes:
        raise RuntimeError("no room")

    monkeypatch.setattr(markdown, "write_charts", breaks)
    said = call("run", *SMALL)
    assert said.status == 70
    assert "no room" in said.err
    assert "Parity" not in said.out


@pytest.mark.parametrize(
    ("name", "value"),
    [("MPLBACKEND", "module://matplotlib_inline.backend_inline"), ("MATPLOTLIBRC", "/no/such/file")],
)
def test_a_variable_of_another_program_does_not_matter(
    name: str, value: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert call("list").status == 0
    assert name not in os.environ


def test_matplotlib_is_imported_although_jupyter_names_a_module_that_is_not_here() -> None:
    code = (
        "import sys; sys.argv = ['bench', '--version']\nfrom bench.cli.main import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "from bench.recipes.pictures import figures; print('imported')"
    )
    variables = {**os.environ, "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout.endswith("imported\n"), done.stderr
