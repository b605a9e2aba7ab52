"""cuSOLVER is loaded where a job may see a GPU, and TensorFlow's own words say why there is none."""

import ctypes
import importlib.util
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from backends.tensorflow_cuda import load_cusolver, quoted_reasons

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
