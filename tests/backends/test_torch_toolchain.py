"""A compiled mode of PyTorch refuses a machine on which it cannot work, and names the remedy."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from backends.torch_toolchain import is_noexec, require_toolchain
from bench.errors import UnavailableError

MOUNTS = {
    place: options.split(",")
    for _, place, _, options, *_ in map(str.split, Path("/proc/mounts").read_text().splitlines())
    if Path(place).is_dir()
}
"""What is mounted on this machine, with its options; of two mounts in one place the later is seen."""


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the only folder with programs; the cache is on a file system that lets code run."""
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "not" / "made" / "yet"))
    mounted(monkeypatch, noexec=False)
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "Python.h").touch()
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path / "include"))
    return programs


def mounted(monkeypatch: pytest.MonkeyPatch, *, noexec: bool) -> None:
    flags = os.ST_NOEXEC if noexec else 0
    monkeypatch.setattr(os, "statvfs", lambda _folder: SimpleNamespace(f_flag=flags))


def install(programs: Path, name: str) -> None:
    (programs / name).write_text("#!/bin/sh\n")
    (programs / name).chmod(0o755)


@pytest.mark.parametrize(("gpu", "name"), [(False, "g++"), (True, "gcc"), (True, "clang")])
def test_the_usual_compiler_will_do(machine: Path, gpu: bool, name: str) -> None:
    install(machine, name)
    require_toolchain("compile-step", gpu=gpu)


@pytest.mark.parametrize(("gpu", "variable"), [(False, "CXX"), (True, "CC")])
def test_the_compiler_that_is_named_will_do(
    machine: Path, gpu: bool, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(machine, "mine")
    monkeypatch.setenv(variable, "mine")
    require_toolchain("compile-step", gpu=gpu)


@pytest.mark.parametrize(
    ("gpu", "variables", "words"),
    [
        (False, {}, "mode compile-step of PyTorch needs a C++ compiler, and g++ is not found: install g++"),
        (True, {}, "needs a C compiler, and gcc is not found: install gcc"),
        (False, {"CXX": "icpx"}, "CXX is icpx, which is not found: install g++"),
    ],
)
def test_without_a_compiler_the_remedy_is_named(
    machine: Path, gpu: bool, variables: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(machine, "clang++")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UnavailableError) as refused:
        require_toolchain("compile-step", gpu=gpu)
    assert words in str(refused.value)


def test_without_the_headers_of_python_the_remedy_is_named(
    machine: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(machine, "g++")
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    with pytest.raises(UnavailableError, match=r"Python\.h is not found: install Python's headers"):
        require_toolchain("compile-step", gpu=False)


def test_a_cache_from_which_no_code_may_run_is_refused(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(machine, "g++")
    mounted(monkeypatch, noexec=True)
    with pytest.raises(UnavailableError, match=r"mounted with noexec: set TMPDIR"):
        require_toolchain("compile-step", gpu=False)


def test_the_real_file_system_is_asked_for_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    assert is_noexec(tmp_path / "a" / "b") == is_noexec(tmp_path)
    for mount, options in MOUNTS.items():
        assert is_noexec(Path(mount)) == ("noexec" in options), mount
