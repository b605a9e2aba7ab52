"""What the driver reports about a GPU is read correctly, and a driver that reports nothing is no error."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from played_nvml import EVENTS, Nvml, process

from bench.machine import gpu
from bench.machine.gpu import GpuInUse, GpuMonitor, GpuReading


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    module = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", module)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    return module


def bytes_of(pid: int) -> int | None:
    with GpuMonitor.open() as monitor:
        return monitor.process_bytes(pid)


def energy() -> int | None:
    with GpuMonitor.open() as monitor:
        return monitor.energy_mj()


def answers(monitor: GpuMonitor) -> tuple[object, object, object]:
    return monitor.read(()), monitor.process_bytes(10), monitor.energy_mj()


def test_a_reading(nvml: Nvml) -> None:
    assert gpu.read_gpu({10}) == GpuReading(
        sm_clock_mhz=1981,
        temperature_c=41,
        power_w=350.5,
        clock_events=("sw_power_cap", "sw_thermal_slowdown"),
        foreign_processes=1,
    )
    assert (nvml.initialised, nvml.shut_down) == (1, 1)


def test_a_monitor_is_initialised_once_and_shut_down_once(nvml: Nvml) -> None:
    with GpuMonitor.open() as monitor:
        assert monitor.energy_mj() == 1000
        assert monitor.read(()) is not None
        assert (nvml.initialised, nvml.shut_down) == (1, 0)
    monitor.close()
    assert (nvml.initialised, nvml.shut_down) == (1, 1)
    assert answers(monitor) == (None, None, None)


@pytest.mark.parametrize("missing", ["nvmlInit", "nvmlDeviceGetCount"])
def test_no_driver(missing: str, nvml: Nvml) -> None:
    nvml.missing = {missing}
    assert answers(GpuMonitor.open()) == (None, None, None)
    assert nvml.initialised == nvml.shut_down


def test_no_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert answers(GpuMonitor.open()) == (None, None, None)
    assert gpu.read_gpu(()) is None


def test_the_real_module_offers_what_is_called() -> None:
    pynvml = pytest.importorskip("pynvml")
    called = list(Nvml().functions)
    assert [name for name in called if not callable(getattr(pynvml, name, None))] == []
    assert (pynvml.NVML_CLOCK_SM, pynvml.NVML_TEMPERATURE_GPU) == (1, 0)
    assert pynvml.NVML_DEVICE_MIG_ENABLE == 1
    modes = ("DEFAULT", "EXCLUSIVE_THREAD", "PROHIBITED", "EXCLUSIVE_PROCESS")
    assert {getattr(pynvml, f"NVML_COMPUTEMODE_{name}"): name for name in modes} == {
        number: name.upper().replace(" ", "_") for number, name in gpu._COMPUTE_MODES.items()
    }
    for bit, name in gpu._CLOCK_EVENTS.items():
        camel = "".join(word.capitalize() for word in name.split("_"))
        assert getattr(pynvml, f"nvmlClocksThrottleReason{camel}") == bit


def test_a_driver_that_denies_everything(nvml: Nvml) -> None:
    needed = {
        "nvmlInit",
        "nvmlShutdown",
        "nvmlDeviceGetCount",
        "nvmlDeviceGetHandleByIndex",
        "nvmlDeviceGetName",
    }
    nvml.missing = nvml.functions.keys() - needed
    nothing = GpuReading(
        sm_clock_mhz=None, temperature_c=None, power_w=None, clock_events=(), foreign_processes=None
    )
    with GpuMonitor.open() as monitor:
        assert answers(monitor) == (nothing, None, None)


@pytest.mark.parametrize("old", ["module", "driver"])
def test_the_old_name_of_clock_events(old: str, nvml: Nvml) -> None:
    if old == "module":
        del nvml.functions[EVENTS]
    nvml.missing = {EVENTS}
    reading = gpu.read_gpu(())
    assert reading is not None
    assert reading.clock_events == ("hw_slowdown",)


@pytest.mark.parametrize(
    ("own", "foreign"),
    [((), 2), ((10,), 1), ((10, 11), 0), ((10, 11, 12), 0), ((99,), None)],
    ids=["none", "one", "all", "one without", "hidden"],
)
def test_foreign_processes(own: tuple[int, ...], foreign: int | None, nvml: Nvml) -> None:
    reading = gpu.read_gpu(own)
    assert reading is not None
    assert reading.foreign_processes == foreign


def test_the_gpus_that_a_process_opened_are_named_whether_they_are_visible_or_not(
    nvml: Nvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    nvml.slices = MIG
    processes = {"device 0 slice 0": [10], "device 0 slice 2": [11], "device 1": [10, 12]}
    nvml.functions["nvmlDeviceGetComputeRunningProcesses"] = lambda handle: [
        process(pid, None) for pid in processes[handle]
    ]
    assert gpu.gpus_opened_by(10) == ("MIG-1111-a", "GPU-9fb42d6f-7d6b")
    assert gpu.gpus_opened_by(11) == ("MIG-2222-b",)
    assert gpu.gpus_opened_by(13) == ()
    assert nvml.initialised == nvml.shut_down == 3
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu.gpus_opened_by(10) == ()


def test_the_memory_of_a_process_is_that_on_all_instances_of_a_gpu(nvml: Nvml) -> None:
    nvml.processes.append(process(10, 25))
    assert (bytes_of(10), bytes_of(11), bytes_of(12)) == (525, 700, None)
    nvml.processes.append(process(10, None))
    assert bytes_of(10) is None


@pytest.mark.parametrize(
    ("visible", "energy_mj"),
    [
        (None, 1000), ("0", 1000), ("1", 2000), (" 1 ,0", 2000), ("1,bad", 2000), ("", None), ("-1", None),
        ("-1,0", None), ("2", None), ("NoDevFiles", None), ("²", None), ("GPU-9fb42d6f-7d6b", 2000),
        ("GPU-9fb", 2000), ("GPU-", None), ("GPU-0", None), ("MIG-9", None), ("MIG-GPU-8932f937/1/0", 1000),
    ],
)  # fmt: skip
def test_the_gpu_is_the_first_that_is_visible(
    visible: str | None, energy_mj: int | None, nvml: Nvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert energy() == energy_mj
    assert nvml.initialised == nvml.shut_down == 1


@pytest.mark.parametrize(
    ("variables", "energy_mj"),
    [
        ({}, None),
        ({"CUDA_VISIBLE_DEVICES": "0"}, None),
        ({"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, 1000),
        ({"CUDA_VISIBLE_DEVICES": "GPU-9"}, 2000),
    ],
)
def test_among_gpus_of_two_kinds_an_index_needs_the_order_of_the_bus(
    variables: dict[str, str], energy_mj: int | None, nvml: Nvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml.names = ["T4", "H100"]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert energy() == energy_mj


def test_names_that_are_bytes(nvml: Nvml, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml.functions["nvmlDeviceGetName"] = lambda _: b"H100"
    nvml.uuids = [b"GPU-1", b"GPU-2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-2")
    assert energy() == 2000
    described = gpu.gpu_in_use()
    assert described is not None
    assert (described.name, described.uuid) == ("H100", "GPU-2")


MIG = {0: ["MIG-1111-a", None, "MIG-2222-b"]}


def test_what_is_recorded_of_a_gpu(nvml: Nvml) -> None:
    nvml.mode = 3
    found = gpu.gpu_in_use()
    assert found == GpuInUse(
        name="H100", uuid="GPU-8932f937-d72c", slice_of=None, pci_bus_id="00000000:00:00.0",
        memory_mib=80 * 1024, compute_mode="exclusive process", cuda="12.8",
        compute_capability=(9, 0),
    )  # fmt: skip
    assert found.in_words() == "H100 (GPU-8932f937)"
    assert found.details() == (
        "H100, GPU-8932f937-d72c, PCI 00000000:00:00.0, 81920 MiB, compute mode exclusive process, "
        "driver supports CUDA 12.8, compute capability 9.0"
    )
    nvml.missing = set(nvml.functions) - {
        "nvmlInit", "nvmlShutdown", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex"
    }  # fmt: skip
    assert gpu.gpu_in_use() == GpuInUse(name="GPU without a name", uuid=None)


def test_of_a_slice_the_memory_is_its_own_and_the_rest_that_of_its_gpu(
    nvml: Nvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml.slices = MIG
    nvml.mode = 3
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-2222-b")
    assert gpu.gpu_in_use() == GpuInUse(
        name="H100 slice", uuid="MIG-2222-b", slice_of="GPU-8932f937-d72c", pci_bus_id="00000000:00:00.0",
        memory_mib=10 * 1024, compute_mode="exclusive process", cuda="12.8",
        compute_capability=(9, 0),
    )  # fmt: skip
    reading = gpu.read_gpu({10})
    assert reading is not None
    assert (reading.power_w, reading.sm_clock_mhz, reading.foreign_processes) == (350.5, 1981, 1)
    assert energy() == 1000
    assert bytes_of(10) == 500


def test_the_processes_of_a_whole_gpu_are_not_those_of_a_slice(
    nvml: Nvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They compute on other slices, which disturb less than others on a whole GPU, and hold other memory."""
    nvml.slices = MIG
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-2222-b")
    asked: list[str] = []

    def processes(handle: str) -> list[object]:
        asked.append(handle)
        raise OSError

    nvml.functions["nvmlDeviceGetComputeRunningProcesses"] = processes
    reading = gpu.read_gpu({10})
    assert reading is not None
    assert reading.foreign_processes is None
    assert bytes_of(10) is None
    assert asked == ["device 0 slice 2"] * 2


@pytest.mark.parametrize(("mode", "alone"), [(0, False), (1, True), (2, False), (3, True), (9, False)])
def test_which_compute_modes_admit_one_process(mode: int, alone: bool, nvml: Nvml) -> None:
    nvml.mode = mode
    assert gpu.admits_one_process() is alone


def test_without_a_driver_nothing_is_known_of_the_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert not gpu.admits_one_process()
    assert gpu.gpu_in_use() is None


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_no_variable_is_an_error(visible: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pynvml", Nvml())
        patch.setenv("CUDA_VISIBLE_DEVICES", visible)
        GpuMonitor.open().close()


@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_every_known_bit_has_its_name(bits: int) -> None:
    assert len(gpu.clock_events(bits)) == (bits & 0x1FF).bit_count()
