"""A footprint is the closure of all requirements, with each file counted once, and never too small."""

import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from backends.catalog import NUMPY
from backends.info import BackendInfo
from bench.machine import footprint as module
from bench.machine.footprint import Footprint, footprint
from bench.measuring.backends import footprints


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of distributions, the only one on the path."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return tmp_path


def install(
    site: Path,
    name: str,
    requires: Sequence[str] = (),
    files: dict[str, int] | None = None,
    listed: bool = True,
) -> None:
    """Create a distribution with files of these sizes in bytes; METADATA and RECORD are not listed."""
    folder = site / f"{name.replace('-', '_')}-1.0.dist-info"
    folder.mkdir()
    metadata = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0"]
    (folder / "METADATA").write_text("\n".join(metadata + [f"Requires-Dist: {line}" for line in requires]))
    for path, size in (files or {}).items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_bytes(b"x" * size)
    if listed:
        (folder / "RECORD").write_text("".join(f"{path},,\n" for path in files or {}))


def test_a_framework_and_all_that_it_needs(site: Path) -> None:
    unreadable = ["pytz (>dev)", "???", "other; future_marker == '1'", "other; sys_platform ~= 'x'"]
    requires = [*unreadable, "Middle_Part>=1", "absent", "other; python_version < '3'"]
    install(site, "frame", requires, {"frame/a.py": 100})
    install(site, "middle.part", ["leaf", "frame"], {"middle/b.so": 20})
    install(site, "leaf", [], {"leaf.py": 3})
    install(site, "other", [], {"other.py": 1000})
    assert footprint(["frame"]) == Footprint(packages=3, bytes=123)
    assert footprint(["leaf", "Middle-part"]) == Footprint(packages=3, bytes=123)
    assert footprint(["absent"]) == Footprint(packages=0, bytes=0)


def test_the_first_installed_alternative(site: Path) -> None:
    install(site, "frame-cpu", [], {"cpu.py": 1})
    assert footprint(["frame|frame-cpu|nothing"]) == Footprint(packages=1, bytes=1)
    install(site, "frame", [], {"gpu.py": 10})
    assert footprint(["frame|frame-cpu|nothing"]) == Footprint(packages=1, bytes=10)


def test_a_file_counts_once_bytecode_and_missing_files_do_not(site: Path) -> None:
    install(site, "one", ["two"], {"shared.py": 5, "one.py": 7, "__pycache__/one.cpython-311.pyc": 900})
    install(site, "two", [], {"shared.py": 5, "gone.py": 50, "./one.py": 7})
    (site / "gone.py").unlink()
    assert footprint(["one"]) == Footprint(packages=2, bytes=12)
    install(site, "frame", ["one", "unlisted"], {"frame.py": 5})
    install(site, "unlisted", listed=False)
    assert footprint(["frame"]) == Footprint(packages=4, bytes=None)


@pytest.mark.parametrize("requires", [["plain", "plugin[cuda]"], ["plugin[cuda]", "plain"]])
def test_the_extras_of_a_requirement_are_followed(requires: list[str], site: Path) -> None:
    """Whether the plug-in is met with its extra first, or without."""
    install(site, "frame", [*requires, "opt; extra == 'all'"], {"frame.py": 1})
    install(site, "plugin", ["cublas; extra == 'cuda'", "docs; extra == 'docs'"], {"plugin.py": 10})
    install(site, "plain", ["plugin"], {"plain.py": 5})
    for name, size in {"cublas": 100, "docs": 1000, "opt": 10_000}.items():
        install(site, name, [], {f"{name}.py": size})
    assert footprint(["frame"]) == Footprint(packages=4, bytes=116)
    assert footprint(["plain"]) == Footprint(packages=2, bytes=15)


def test_an_extra_that_was_requested_and_is_complete_counts(site: Path) -> None:
    requires = ["cuda-plugin; extra == 'cuda'", "tpu-plugin; extra == 'tpu'", "opt; extra == 'opt'"]
    install(site, "frame", requires, {"frame.py": 1})
    install(site, "cuda-plugin", [], {"cuda.py": 10})
    install(site, "opt", [], {"opt.py": 100})  # installed for another package: none requires frame[opt]
    assert footprint(["frame"]) == Footprint(packages=1, bytes=1)
    install(site, "harness", ["Frame[cuda]; extra == 'frame-gpu'", "frame[tpu]; extra == 'frame-tpu'"])
    assert module.asked_extras("frame") == {"cuda"}
    assert footprint(["frame"]) == Footprint(packages=2, bytes=11)


def info(name: str, *distributions: str) -> BackendInfo:
    return msgspec.structs.replace(NUMPY, name=name, distributions=distributions)


def test_every_backend_is_asked_in_its_own_interpreter() -> None:
    here = footprint(["numpy"])
    assert here.packages == 1
    assert here.bytes is not None
    assert here.bytes > 2**20
    infos = [info("mine", "numpy"), info("theirs", "numpy"), info("absent", "no-such-distribution")]
    assert footprints(infos, {"theirs": Path(sys.executable)}) == {"mine": here, "theirs": here}


@pytest.mark.parametrize(
    "script",
    ["exit 3", "echo '{}'", "printf '\\377'", "exec sleep 60"],
    ids=["fails", "lacks", "garbles", "hangs"],
)
def test_an_interpreter_may_do_anything(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr("bench.measuring.backends._LIMIT_S", 0.5)
    assert footprints([info("theirs", "numpy")], {"theirs": python}) == {}
    assert footprints([info("theirs", "numpy")], {"theirs": tmp_path / "nowhere"}) == {}
