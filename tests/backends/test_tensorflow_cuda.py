"""Of the CUDA wheels TensorFlow gets cuSOLVER and ptxas; the log says why there is no GPU."""

import ctypes
import importlib.util
import os
import shutil
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from backends.tensorflow_cuda import load_cusolver, loaded_versions, prefer_ptxas, quoted_reasons

SEEN_WITH_THE_WHEELS = """\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795955040.171565    4862 dso_loader.cc:133] Successfully opened dynamic library libcudart.so.12
I0000 00:00:1795955040.528503    4862 dso_loader.cc:144] Could not load dynamic library 'libcusolver.so.11'; \
dlerror: libcusolver.so.11: cannot open shared object file: No such file or directory; LD_LIBRARY_PATH: /x
W0000 00:00:1795955040.548793    4862 gpu_device.cc:2365] Cannot dlopen some GPU libraries. Please make sure \
the missing libraries mentioned above are installed properly if you would like to use GPU.
"""
"""From TensorFlow 2.21.0 and its CUDA wheels, with a driver that claims a GPU (tests/reproducers)."""
SEEN_WITHOUT_A_DRIVER = """\
E0000 00:00:1795954937.231196    4356 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error: \
Failed call to cuInit: UNKNOWN ERROR (303)
"""


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Let the wheel of cuSOLVER seem to be installed, and return what is loaded."""
    seen: list[str] = []
    wheel = ModuleSpec("nvidia.cusolver", None, is_package=True)
    wheel.submodule_search_locations = [str(tmp_path / "nvidia" / "cusolver")]
    monkeypatch.setattr(importlib.util, "find_spec", {"nvidia.cusolver": wheel}.get)
    monkeypatch.setattr(ctypes, "CDLL", seen.append)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return seen


def test_cusolver_is_loaded_from_its_wheel(loaded: list[str], tmp_path: Path) -> None:
    load_cusolver()
    assert loaded == [str(tmp_path / "nvidia" / "cusolver" / "lib" / "libcusolver.so.11")]


def test_a_job_on_the_cpu_loads_no_cuda_library(loaded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    load_cusolver()
    assert loaded == []


def test_without_the_wheel_nothing_is_loaded_and_nothing_raised(
    loaded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_nvidia(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name}")

    for find_spec in (no_nvidia, {}.get):
        monkeypatch.setattr(importlib.util, "find_spec", find_spec)
        load_cusolver()
    assert loaded == []


def test_a_library_that_cannot_be_loaded_is_left_to_tensorflow(
    loaded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(path: str) -> None:
        raise OSError(f"{path}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", refuses)
    load_cusolver()
    assert loaded == []


@pytest.fixture
def wheels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the folder of played wheels; the only `ptxas` on PATH is an old one of the system."""

    def find_spec(name: str) -> ModuleSpec | None:
        if not (tmp_path / "nvidia").exists():
            raise ModuleNotFoundError("No module named 'nvidia'")
        folder = tmp_path / name.replace(".", "/")
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
        return spec if folder.exists() else None

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(assembler(tmp_path / "usr").parent))
    return tmp_path / "nvidia"


def assembler(folder: Path) -> Path:
    """Put a program named ptxas into `folder`/bin."""
    program = folder / "bin" / "ptxas"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("package", ["cuda_nvcc", "cu13"])
def test_the_ptxas_of_a_wheel_is_found_before_the_systems(wheels: Path, package: str) -> None:
    program, before = assembler(wheels / package), os.environ["PATH"]
    prefer_ptxas()
    assert shutil.which("ptxas") == str(program)
    assert os.environ["PATH"] == f"{program.parent}{os.pathsep}{before}"


def test_of_two_wheels_the_one_of_tensorflows_own_cuda_comes_first(wheels: Path) -> None:
    assembler(wheels / "cu13")
    program = assembler(wheels / "cuda_nvcc")
    prefer_ptxas()
    assert shutil.which("ptxas") == str(program)


def test_path_stays_where_no_wheel_has_ptxas_or_no_gpu_may_be_seen(
    wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.environ["PATH"]
    prefer_ptxas()  # there is no wheel
    (wheels / "cuda_nvcc" / "bin").mkdir(parents=True)
    prefer_ptxas()  # there is one, without the program
    assert os.environ["PATH"] == before
    assembler(wheels / "cu13")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    prefer_ptxas()
    assert os.environ["PATH"] == before


def test_an_empty_path_gets_no_empty_folder(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty entry would stand for the current folder."""
    program = assembler(wheels / "cuda_nvcc")
    monkeypatch.delenv("PATH")
    prefer_ptxas()
    assert os.environ["PATH"] == str(program.parent)


class Library:
    """Plays a CUDA library that tells its version."""

    def __init__(self, path: str) -> None:
        self._path = path

    def cudaRuntimeGetVersion(self, into: Any) -> int:  # noqa: N802 - the library's own name
        into._obj.value = 12090
        return 999 if "broken" in self._path else 0

    @property
    def cudnnGetVersion(self) -> Any:  # noqa: N802 - the library's own name
        assert self._path == "/envs/my env/libcudnn.so.9"
        return mock.Mock(return_value=91002)


@pytest.mark.parametrize(
    ("mapped", "versions"),
    [
        (["/nvidia/cuda_runtime/lib/libcudart.so.12"], {"cuda": "12.9", "cudnn": None}),
        (
            ["/envs/libcudnn_graph.so.9", "/envs/my env/libcudnn.so.9", "/envs/libcudart.so.13"],
            {"cuda": "12.9", "cudnn": 91002},
        ),
        (["/broken/libcudart.so.12"], {"cuda": None, "cudnn": None}),
        (["/usr/lib/libc.so.6", "[heap]", ""], {"cuda": None, "cudnn": None}),
    ],
)
def test_the_loaded_libraries_tell_their_versions(
    mapped: list[str], versions: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", Library)
    maps = tmp_path / "maps"
    lines = [f"7f00-7f01 r-xp 00000000 fe:01 7          {path}" for path in mapped]
    maps.write_text("\n".join(lines))
    assert loaded_versions(maps) == versions


def test_without_a_list_of_mapped_files_no_version_is_known(tmp_path: Path) -> None:
    assert loaded_versions(tmp_path / "maps") == {"cuda": None, "cudnn": None}


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (
            SEEN_WITH_THE_WHEELS,
            "its loader says: Could not load dynamic library 'libcusolver.so.11'; dlerror: "
            "libcusolver.so.11: cannot open shared object file: No such file or directory",
        ),
        (
            2 * SEEN_WITHOUT_A_DRIVER,
            "its loader says: failed call to cuInit: INTERNAL: CUDA error: Failed call to cuInit: UNKNOWN "
            "ERROR (303)",
        ),
        (SEEN_WITH_THE_WHEELS.splitlines()[-1], "its loader says: Cannot dlopen some GPU libraries"),
        ("", "its loader gives no reason"),
    ],
)
def test_the_reason_is_in_the_loaders_own_words(log: str, said: str) -> None:
    assert quoted_reasons(log) == said
