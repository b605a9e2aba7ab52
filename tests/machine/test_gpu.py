"""What the driver reports about a GPU is read correctly, and a driver that reports nothing is no error."""

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.machine import gpu
from bench.machine.gpu import GpuMonitor, GpuReading

EVENTS, THROTTLE = "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"


class NVMLError(Exception):
    pass


class Nvml(ModuleType):
    """A module `pynvml` with two GPUs that counts how often it was initialised and shut down."""

    NVML_CLOCK_SM = 1
    NVML_TEMPERATURE_GPU = 0

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.initialised = self.shut_down = 0
        self.names: list[Any] = ["H100", "H100"]
        self.uuids: list[Any] = ["GPU-8932f937-d72c", "GPU-9fb42d6f-7d6b"]
        self.processes = [process(10, 500), process(11, 700)]
        self.missing: set[str] = set()
        """Functions for which the driver has no answer."""

    def nvmlInit(self) -> None:  # noqa: N802
        self._check("nvmlInit")
        self.initialised += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.shut_down += 1
        self._check("nvmlShutdown")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        self._check("nvmlDeviceGetCount")
        return len(self.names)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        assert type(index) is int
        return f"device {index}"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if not uuid.startswith("MIG-"):
            raise NVMLError("Not Found")
        return uuid

    def nvmlDeviceGetName(self, device: str) -> Any:  # noqa: N802
        return self.names[int(device[-1])]

    def nvmlDeviceGetUUID(self, device: str) -> Any:  # noqa: N802
        return self.uuids[int(device[-1])]

    def nvmlDeviceGetClockInfo(self, device: str, kind: int) -> int:  # noqa: N802
        self._check("nvmlDeviceGetClockInfo")
        return 1980 + kind

    def nvmlDeviceGetTemperature(self, device: str, sensor: int) -> int:  # noqa: N802
        self._check("nvmlDeviceGetTemperature")
        return 41 + sensor

    def nvmlDeviceGetPowerUsage(self, device: str) -> int:  # noqa: N802
        self._check("nvmlDeviceGetPowerUsage")
        return 350_500

    def nvmlDeviceGetTotalEnergyConsumption(self, device: str) -> int:  # noqa: N802
        self._check("nvmlDeviceGetTotalEnergyConsumption")
        return {"device 0": 1000, "device 1": 2000}.get(device, 3000)

    def nvmlDeviceGetComputeRunningProcesses(self, device: str) -> list[SimpleNamespace]:  # noqa: N802
        self._check("nvmlDeviceGetComputeRunningProcesses")
        return self.processes

    def nvmlDeviceGetCurrentClocksEventReasons(self, device: str) -> int:  # noqa: N802
        self._check(EVENTS)
        return 0x4 | 0x20

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, device: str) -> int:  # noqa: N802
        self._check(THROTTLE)
        return 0x8

    def _check(self, function: str) -> None:
        if function in self.missing:
            raise NVMLError("Function Not Found")


def process(pid: int, used: int | None) -> SimpleNamespace:
    return SimpleNamespace(pid=pid, usedGpuMemory=used)


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
    called = [name for name in vars(Nvml) if name.startswith("nvml")]
    assert len(called) > 10
    assert [name for name in called if not callable(getattr(pynvml, name, None))] == []
    assert (pynvml.NVML_CLOCK_SM, pynvml.NVML_TEMPERATURE_GPU) == (1, 0)
    for bit, name in gpu._CLOCK_EVENTS.items():
        camel = "".join(word.capitalize() for word in name.split("_"))
        assert getattr(pynvml, f"nvmlClocksThrottleReason{camel}") == bit


def test_a_driver_that_denies_everything(nvml: Nvml) -> None:
    nvml.missing = {name for name in dir(Nvml) if name.startswith("nvmlDeviceGet")} - {"nvmlDeviceGetCount"}
    nothing = GpuReading(
        sm_clock_mhz=None, temperature_c=None, power_w=None, clock_events=(), foreign_processes=None
    )
    with GpuMonitor.open() as monitor:
        assert answers(monitor) == (nothing, None, None)


def without_the_function(nvml: Nvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Nvml, EVENTS)


def with_an_old_driver(nvml: Nvml, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml.missing = {EVENTS}


@pytest.mark.parametrize("age", [without_the_function, with_an_old_driver])
def test_the_old_name_of_clock_events(
    age: Callable[[Nvml, pytest.MonkeyPatch], None], nvml: Nvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    age(nvml, monkeypatch)
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
        ("GPU-9fb", 2000), ("GPU-", None), ("GPU-0", None), ("MIG-9fb42d6f", 3000),
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
    nvml.names, nvml.uuids = [b"H100", b"H100"], [b"GPU-1", b"GPU-2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-2")
    assert energy() == 2000


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_no_variable_is_an_error(visible: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pynvml", Nvml())
        patch.setenv("CUDA_VISIBLE_DEVICES", visible)
        GpuMonitor.open().close()


@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_every_known_bit_has_its_name(bits: int) -> None:
    assert len(gpu.clock_events(bits)) == (bits & 0x1FF).bit_count()
