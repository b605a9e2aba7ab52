"""An interpreter that cannot run this program is found out before anything is measured."""

import json
import sys
from pathlib import Path

import fakes
import pytest
from commits import ROOT
from conftest import Call

from bench.errors import UsageError
from bench.measuring.interpreters import program_fault
from bench.worker.protocol import VERSION

SMALL = ("--sample", "--workload", "mnist-softmax", "--device", "cpu")


def bare(folder: Path) -> Path:
    """Return an interpreter without installed packages; it claims that NumPy is there."""
    versions = json.dumps({"numpy": "2.4.6", "torch": "2.13.0", "keras": "3"})
    return fakes.program(
        folder / "python",
        [f'case "$*" in *metadata*) echo \'{versions}\';; *) exec {sys.executable} -S "$@";; esac'],
    )


def test_this_interpreter_can() -> None:
    assert program_fault(Path(sys.executable)) is None


def test_without_this_program_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.chdir(ROOT)  # the current folder is not what is installed
    python = bare(tmp_path)
    assert program_fault(python) == (
        f"{python} cannot run samework: ModuleNotFoundError: No module named 'bench'. "
        f"Install it there: {python} -m pip install {ROOT}"
    )
    assert "No module named 'msgspec'" in (program_fault(python, variables={"PYTHONPATH": str(ROOT)}) or "")
    assert (program_fault(python, source=tmp_path) or "").endswith("there, beside the framework.")


def test_another_version_of_this_program_is_refused(tmp_path: Path) -> None:
    answer = json.dumps({"protocol": VERSION + 1})
    python = fakes.program(tmp_path / "python", [f"echo '{answer}'"])
    assert f"another version of it, with protocol {VERSION + 1} and not {VERSION}" in (
        program_fault(python) or ""
    )


@pytest.mark.parametrize("script", ["exit 1", "echo nonsense", "echo []"])
def test_what_is_no_interpreter_is_refused(script: str, tmp_path: Path) -> None:
    python = fakes.program(tmp_path / "python", [script])
    with pytest.raises(UsageError, match="does not run as a Python interpreter"):
        program_fault(python)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("list",), 0),
        (("doctor",), 3),
        (("run", *SMALL, "--backend", "numpy"), 3),
        (("verify", "--workload", "mnist-softmax", "--backend", "numpy"), 3),
        (("ab", "--base", "OMP_NUM_THREADS=1", *SMALL, "--backend", "numpy"), 3),
        (("train", "one-layer", "--sample", "--backend", "numpy"), 3),
    ],
)
def test_every_command_tells_it_up_front(
    arguments: tuple[str, ...], status: int, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH")
    monkeypatch.setattr("bench.measuring.doctor.examine", lambda *_: [])
    python = bare(tmp_path)
    said = call(*arguments, "--python", f"numpy={python}")
    assert said.status == status, said
    assert f"{python} cannot run samework: ModuleNotFoundError: No module named" in said.out + said.err
    assert f"{python} -m pip install {ROOT}" in said.out + said.err
    assert not list(tmp_path.glob("results/*"))
    assert "Traceback" not in said.err
