"""A device is usable when a backend computed on it, and not because somebody says so."""

from collections.abc import Sequence

import fakes
import pytest
from played import play

from backends.catalog import NUMPY
from backends.info import BackendInfo
from bench.cli import main as cli
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


def diagnose(infos: Sequence[BackendInfo], monkeypatch: pytest.MonkeyPatch, broken: dict[str, str]) -> int:
    known = Registry(backends={info.name: info for info in infos}, broken=broken)
    monkeypatch.setattr("bench.cli.info.find_backends", lambda: known)
    monkeypatch.setattr("bench.measuring.selection.nvidia_driver_present", lambda: False)
    monkeypatch.setattr("sys.argv", ["bench", "doctor"])
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
