"""A device is usable when a backend computed on it, and not because somebody says so."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import fakes
import msgspec
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from played import play

from backends.catalog import NUMPY, TENSORFLOW, TORCH
from backends.info import BackendInfo, UnsupportedGpus
from backends.numpy_backend import NumpyBackend
from bench.cli import main as cli
from bench.machine.gpu import GpuInUse
from bench.measuring import doctor
from bench.measuring.backends import Registry
from bench.workloads.specs import Device

LYING = {
    "fakes:Wrong": "largest relative error 1.0e-02, allowed 1e-05: the values are wrong",
    "fakes:NanLogits": "its logits are not finite",
    "fakes:Elsewhere": "asked to run on cpu, it runs on gpu",
    "fakes:Exits": "ended with status 7",
    "fakes:EndsBadly": "ended with status 9",
    "no_such_framework:Backend": "No module named 'no_such_framework'",
    "fakes:NotHere": "its driver is too old",
}


def play_on_a_small_workload(patch: pytest.MonkeyPatch) -> None:
    play(patch)
    patch.setattr(doctor, "WORKLOAD", fakes.WORKLOAD)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> None:
    play_on_a_small_workload(monkeypatch)


@pytest.fixture(scope="module")
def findings() -> dict[str, doctor.Finding]:
    with pytest.MonkeyPatch.context() as patch:
        play_on_a_small_workload(patch)
        return examined([fakes.info(target, target) for target in LYING])


def examined(infos: list[BackendInfo], devices: Sequence[Device] = ("cpu",)) -> dict[str, doctor.Finding]:
    return {finding.backend: finding for finding in doctor.examine(infos, list(devices), {})}


def diagnose(
    infos: Sequence[BackendInfo], monkeypatch: pytest.MonkeyPatch, broken: dict[str, str], *options: str
) -> int:
    known = Registry(backends={info.name: info for info in infos}, broken=broken)
    monkeypatch.setattr("bench.cli.info.find_backends", lambda: known)
    monkeypatch.setattr("bench.measuring.selection.nvidia_driver_present", lambda: False)
    monkeypatch.setattr("sys.argv", ["bench", "doctor", *options])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_numpy_is_usable_on_the_cpu() -> None:
    """In a process of its own, on the workload that the command takes."""
    finding = examined([NUMPY])["numpy"]
    assert finding.usable, finding
    assert finding.device == "cpu"
    assert finding.said.startswith("ran on cpu, largest relative error ")
    assert finding.facts["dtype"] == "float64"


@pytest.mark.parametrize("target", LYING)
def test_a_backend_that_does_not_do_as_it_says_is_not_usable(
    target: str, findings: dict[str, doctor.Finding]
) -> None:
    finding = findings[target]
    assert not finding.usable
    assert LYING[target] in finding.said
    assert "\n" not in finding.said


def test_a_backend_without_a_gpu_form_is_not_asked_for_one(played: None) -> None:
    assert [finding.device for finding in doctor.examine([NUMPY], ["cpu", "gpu"], {})] == ["cpu"]


def test_the_command_says_usable_and_ends_well(
    played: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert diagnose([NUMPY, fakes.ABSENT], monkeypatch, {}) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("numpy       cpu  usable: ran on cpu") for line in lines)
    assert "absent      -    not installed: no-such-framework or no-such-twin" in lines


def test_a_backend_that_lies_makes_the_command_fail(
    played: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = {"odd": "backend 'odd' (odd:INFO) cannot be used: it raises"}
    assert diagnose([NUMPY, fakes.WRONG], monkeypatch, broken) == 3
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("numpy       cpu  usable: ") for line in lines)
    assert any(line.startswith("wrong       cpu  NOT USABLE: ") for line in lines)
    assert broken["odd"] in lines


def test_a_machine_with_nothing_installed_is_not_well(monkeypatch: pytest.MonkeyPatch) -> None:
    assert diagnose([fakes.ABSENT], monkeypatch, {}) == 3


class Built(NumpyBackend):
    """Says what it was built for."""

    def describe(self) -> fakes.Facts:
        return super().describe() | {"build": "CUDA 13.0"}


def test_the_build_is_said_once(
    played: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert diagnose([fakes.info("built", "test_doctor:Built"), NUMPY], monkeypatch, {}) == 0
    out = capsys.readouterr().out
    assert "built       cpu  usable: built for CUDA 13.0, ran on cpu, largest" in out
    assert "numpy       cpu  usable: ran on cpu, largest" in out
    assert out.count("CUDA 13.0") == 1


# ---- GPUs on which a framework fails

ROOT = Path(__file__).parents[2]
BLACKWELL = GpuInUse(name="NVIDIA GeForce RTX 5090", uuid=None, compute_capability=(12, 0))
HOPPER = GpuInUse(name="NVIDIA H200", uuid=None, compute_capability=(9, 0))


@pytest.mark.parametrize(
    ("info", "versions", "gpu", "warned"),
    [
        (TENSORFLOW, {}, BLACKWELL, True),
        (TENSORFLOW, {"tensorflow": "2.21.0", "keras": "3.15.1"}, BLACKWELL, True),
        (TENSORFLOW, {"tensorflow": "2.22.0", "keras": "3.15.1"}, BLACKWELL, False),
        (TENSORFLOW, {}, HOPPER, False),
        (TENSORFLOW, {}, None, False),
        (TENSORFLOW, {}, GpuInUse(name="unknown", uuid=None), False),
        (TORCH, {}, BLACKWELL, False),
    ],
)
def test_a_framework_that_fails_on_the_gpu_causes_a_warning(
    info: BackendInfo, versions: Mapping[str, str], gpu: GpuInUse | None, warned: bool
) -> None:
    found = doctor.gpu_warnings(info, versions, gpu)
    assert len(found) == warned
    for line in found:
        assert "RTX 5090, compute capability 12.0" in line
        assert "https://github.com/tensorflow/tensorflow/issues/111958" in line
        assert "--backend torch --backend jax" in line
        assert "\n" not in line


def test_the_warning_concerns_the_pinned_version() -> None:
    """Before the installation there is no version to look at, so the warning must concern the pinned one."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    (pinned,) = (next(iter(pin.specifier)).version for pin in pins if pin.name == TENSORFLOW.name)
    for one in TENSORFLOW.unsupported_gpus:
        assert SpecifierSet(one.versions).contains(pinned), f"{pinned} is newer than {one.versions}"


PICKY = UnsupportedGpus(
    versions="<1",
    compute_capability=(12, 0),
    why="it is old",
    links=("https://x.example",),
    remedy="Take jax.",
)


@pytest.mark.parametrize(
    ("options", "warned"),
    [
        ((), True),
        (("--before-install",), True),
        (("--before-install", "--backend", "absent"), True),
        (("--before-install", "--backend", "numpy"), False),
    ],
)
def test_the_command_warns_of_the_gpu_before_anything_is_installed(
    played: None, options: tuple[str, ...], warned: bool, *, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("bench.cli.info.gpu_in_use", lambda: BLACKWELL)
    picky = msgspec.structs.replace(fakes.ABSENT, unsupported_gpus=(PICKY,))
    assert diagnose([NUMPY, picky], monkeypatch, {}, *options) == 0
    out = capsys.readouterr().out
    warning = (
        "WARNING: Absent (versions <1) was reported to fail on this GPU (NVIDIA GeForce RTX 5090, compute "
    )
    assert (warning in out) is warned
    if options:
        assert "usable" not in out
        assert len(out.splitlines()) == warned
    else:
        assert "usable" in out


def test_a_backend_that_does_not_exist_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert diagnose([NUMPY], monkeypatch, {}, "--backend", "nmupy") == 2
    assert "numpy" in capsys.readouterr().err
