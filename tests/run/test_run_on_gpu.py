"""Commands on a played GPU: the one that was asked for is used, named and recorded, and no other."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn
from unittest import mock

import fakes
import msgspec
import pytest
from conftest import Call
from pages import Page
from played_nvml import EVENTS, Nvml, gpu_of, process
from test_run_command import known

from bench.errors import UsageError
from bench.measuring.block_runner import ALONE
from bench.records.runs import read_run
from bench.records.schema import BlockRecord

pytestmark = [pytest.mark.measures, pytest.mark.long]

SMALL = ("--sample", "--dataset-limit", "300", "--workload", fakes.WORKLOAD)


@pytest.fixture
def gpus(call: Call, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nvml]:
    """Return a driver with two GPUs, which commands that `call` runs find."""
    driver = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    monkeypatch.setattr("bench.measuring.selection.nvidia_driver_present", lambda: True)
    with mock.patch.dict(os.environ):
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        os.environ.pop("CUDA_DEVICE_ORDER", None)
        yield driver


@pytest.fixture
def on_gpu(gpus: Nvml, monkeypatch: pytest.MonkeyPatch) -> Nvml:
    """Let there be two backends that play frameworks on a GPU."""
    known(
        monkeypatch,
        [fakes.info(name, "fakes:OnGpu", gpu_precisions=("fp32",)) for name in ("one", "other")],
    )
    gpus.functions[EVENTS] = lambda _handle: 0  # else its lower clocks disturb every block
    return gpus


COMMANDS = (
    ("run",), ("verify",), ("ab", "--base", "HEAD"), ("selftest",), ("doctor",), ("notebooks",),
    ("train", "one-layer", "--backend", "torch"),
)  # fmt: skip


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: arguments[0])
@pytest.mark.usefixtures("gpus")
def test_every_command_that_chooses_a_device_chooses_a_gpu(
    arguments: tuple[str, ...], call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(wanted: object) -> NoReturn:
        raise UsageError(f"GPU {wanted} is asked for")

    monkeypatch.setattr("bench.measuring.selection.show_one_gpu", end)
    call(*arguments, "--gpu", "7").refused(2, "GPU 7 is asked for")
    call(*arguments).refused(2, "GPU None is asked for")


def test_a_number_that_no_gpu_has_is_wrong_usage(call: Call, gpus: Nvml) -> None:
    call("verify", "--gpu", "7").refused(2, "--gpu 7: there is no such GPU", "0 H100 (GPU-8932f937), 1 H100")
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    assert gpus.initialised == gpus.shut_down


@pytest.mark.parametrize("mode", [0, 3])
def test_a_run_uses_one_gpu_and_takes_turns_if_it_can(
    mode: int, call: Call, on_gpu: Nvml, tmp_path: Path
) -> None:
    on_gpu.mode = mode
    said = call("run", *SMALL, "--gpu", "1")
    assert said.status == 0, said
    uuid = on_gpu.uuids[1]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == uuid
    (folder,) = (tmp_path / "results").glob("run-*")
    run = read_run(folder)
    assert run.header.environment.gpu is not None
    assert run.header.environment.gpu.uuid == uuid
    assert {job.status for job in run.jobs} == {"ok"}
    assert {job.described["energy_meter"] for job in run.jobs} == {"NVML total energy"}
    blocks = [record for record in run.records if isinstance(record, BlockRecord)]
    assert [block.in_turns for block in blocks] == [mode == 0] * 2
    assert {block.conditions.gpu_after is None for block in blocks} == {False}
    report = (folder / "report.html").read_text()
    assert f"H100, {uuid}, PCI 00000000:01:00.0" in run.header.environment.gpu.details()
    assert run.header.environment.gpu.in_words() in report
    assert "H100 (GPU-9fb42d6f)" in said.out
    alone = "In all blocks the processes ran one after another"
    assert (ALONE in said.out.replace("\n", " ")) == (alone in Page(report).text) == (mode == 3)


def test_the_gpu_of_a_verification_and_of_the_doctor_is_named(call: Call, on_gpu: Nvml) -> None:
    said = call("verify", "--workload", fakes.WORKLOAD, "--gpu", "1")
    assert said.status == 0, said
    assert f"GPU: H100, {on_gpu.uuids[1]}, PCI" in said.out
    del os.environ["CUDA_VISIBLE_DEVICES"]
    said = call("doctor", "--gpu", "1")
    lines = said.out.splitlines()
    assert f"GPU 0     H100, {on_gpu.uuids[0]}" in lines
    assert f"GPU 1     H100, {on_gpu.uuids[1]}" in lines
    assert any(line.startswith(f"GPU used  H100, {on_gpu.uuids[1]}, PCI") for line in lines)
    assert any(line.startswith("one         gpu  usable: ran on") for line in lines), said
    assert said.status == 0


@pytest.mark.parametrize("both", [False, True])
def test_a_framework_that_opens_another_gpu_as_well_is_not_usable(
    both: bool, call: Call, on_gpu: Nvml
) -> None:
    """Played workers have the process number of the test."""
    on_gpu.functions["nvmlDeviceGetComputeRunningProcesses"] = lambda handle: [
        process(os.getpid(), 500) for _ in range(int(both or gpu_of(handle) == 1))
    ]
    said = call("doctor", "--gpu", "1")
    first, second = on_gpu.uuids
    fault = f"but it opened {first}, {second}, and not {second} alone"
    assert said.status == (3 if both else 0)
    assert said.out.count("NOT USABLE") == said.out.count(fault) == (2 if both else 0)
    assert said.out.count(f"gpus_opened {second}") == (0 if both else 2)


def test_an_older_run_on_a_gpu_is_not_resumed_on_one_that_may_be_another(
    call: Call, on_gpu: Nvml, tmp_path: Path
) -> None:
    assert call("run", *SMALL).status == 0
    (header,) = (tmp_path / "results").glob("run-*/run.json")
    stored = msgspec.json.decode(header.read_bytes())
    del stored["environment"]["gpu"]
    header.write_bytes(msgspec.json.encode(stored))
    call("run", "--resume", header.parent.name).refused(
        3, "begun on another machine", "this is", "GPU-8932f937"
    )
