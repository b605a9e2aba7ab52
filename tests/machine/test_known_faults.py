"""Versions that compute wrong values cause a warning wherever they are measured."""

import subprocess
import sys
import tomllib
from pathlib import Path

import fakes
import msgspec
import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from rich.console import Console
from synthetic import make_cell, make_header, make_run
from test_doctor import diagnose

from backends.catalog import NUMPY
from bench.analysis.notices import run_warnings
from bench.analysis.summary import summarise
from bench.machine import known_faults as catalogue
from bench.machine.known_faults import KNOWN_FAULTS, KnownFault, known_faults
from bench.measuring.backends import Registry
from bench.measuring.selection import Asked
from bench.recipes.setup import Place
from bench.report.markdown import document
from bench.run.report import short, terminal
from bench.workloads.catalog import find_workload

ROOT = Path(__file__).parents[2]
REPRODUCER = ROOT / "tests" / "reproducers" / "jax_39103.py"


@pytest.mark.parametrize(
    ("versions", "device", "links"),
    [
        ({"jaxlib": "0.10.1"}, "cpu", []),
        ({"jaxlib": "0.10.2"}, "cpu", ["39103"]),
        ({"jaxlib": "0.10.2"}, "gpu", []),
        ({"jaxlib": "0.11.1"}, "gpu", ["40633"]),
        ({"jaxlib": "0.12.0.1"}, "cpu", []),
        ({"jaxlib": "0.10.2.dev20260601"}, "cpu", []),
        ({"jaxlib": "unknown"}, "cpu", []),
        ({"torch": "2.13.0+cpu"}, "cpu", []),
        ({}, "cpu", []),
    ],
)
def test_a_version_causes_a_warning_on_the_device_on_which_it_is_wrong(
    versions: dict[str, str], device: str, links: list[str]
) -> None:
    found = known_faults(versions, device)  # type: ignore[arg-type]
    assert [link for line in found for link in ("39103", "40633") if link in line] == links
    for line in found:
        assert line.startswith(f"jaxlib {versions['jaxlib']} is known to compute wrong values: ")


@pytest.mark.parametrize("fault", KNOWN_FAULTS, ids=lambda fault: fault.link.rpartition("/")[2])
def test_a_fault_names_a_report_and_versions_that_pip_understands(fault: KnownFault) -> None:
    assert fault.link.startswith("https://github.com/")
    assert not SpecifierSet(fault.versions).contains(Version("999"))


def test_no_pinned_version_is_known_to_be_wrong() -> None:
    pins = [
        line.partition(";")[0].strip().split("==")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line and not line.startswith("#")
    ]
    assert ["jaxlib", "0.10.1"] in pins
    for name, version in pins:
        for device in ("cpu", "gpu"):
            assert known_faults({name: version}, device) == []


def test_a_run_warns_in_the_terminal_and_in_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    cell = make_cell(backend="jax", mode="jit")
    header = make_header([cell])
    (here,) = header.backends
    wrong = msgspec.structs.replace(
        header, backends=(msgspec.structs.replace(here, versions={"jaxlib": "0.10.2"}),)
    )
    assert run_warnings(header) == ()
    (warning,) = run_warnings(wrong)
    assert warning.startswith("JAX: jaxlib 0.10.2 is known to compute wrong values")
    run = make_run(wrong)
    terminal.render(run, summarise(run), Console(width=400))
    assert f"WARNING: {warning}" in capsys.readouterr().out
    text = document(short.in_markdown(run, summarise(run)), frozenset())
    assert "> **Warning.** JAX: jaxlib 0.10.2 is known" in text


@pytest.fixture
def _faulty_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    fault = KnownFault(
        distribution="numpy", versions=">=1", device="cpu", what="all is wrong",
        link="https://github.com/numpy/numpy/issues/1", remedy="install none",
    )  # fmt: skip
    monkeypatch.setattr(catalogue, "KNOWN_FAULTS", (fault,))


@pytest.mark.usefixtures("_faulty_numpy")
def test_the_doctor_warns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("bench.measuring.doctor.WORKLOAD", fakes.WORKLOAD)
    assert diagnose([NUMPY], monkeypatch, {}) == 0
    out = capsys.readouterr().out
    assert "WARNING: numpy " in out
    assert "is known to compute wrong values: all is wrong" in out


@pytest.mark.usefixtures("_faulty_numpy")
def test_a_training_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Registry(backends={"numpy": NUMPY}, broken={})
    monkeypatch.setattr("bench.recipes.setup.find_backends", lambda: known)
    screen = fakes.Screen()
    Place.find(
        find_workload("notebook-softmax-plot"),
        Asked(backends=("numpy",), device="cpu", sample=True),
        data=None,
        offline=True,
        display=screen,
    )
    assert any("WARNING: NumPy: numpy" in line for line in screen.lines), screen.lines


@pytest.mark.framework("jax")
def test_the_installed_jax_reduces_correctly() -> None:
    done = subprocess.run(
        [sys.executable, str(REPRODUCER)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "jit 1073741824, expected 1073741824" in done.stdout


def test_the_reproducer_requires_the_version_that_is_wrong() -> None:
    wanted = [line for line in REPRODUCER.read_text(encoding="utf-8").splitlines() if "dependencies" in line]
    versions = dict(requirement.split("==") for requirement in tomllib.loads(wanted[0][2:])["dependencies"])
    assert known_faults(versions, "cpu")
