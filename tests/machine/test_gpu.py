"""What the driver reports about a GPU is read correctly, and a driver that reports nothing is no error."""

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

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
        self.functions: dict[str, Callable[..., Any]] = {
            "nvmlInit": self._init,
            "nvmlShutdown": self._shutdown,
            "nvmlDeviceGetCount": lambda: len(self.names),
            "nvmlDeviceGetHandleByIndex": lambda index: f"device {range(len(self.names))[index]}",
            "nvmlDeviceGetHandleByUUID": self._by_uuid,
            "nvmlDeviceGetName": lambda device: self.names[int(device[-1])],
            "nvmlDeviceGetUUID": lambda device: self.uuids[int(device[-1])],
            "nvmlDeviceGetClockInfo": lambda device, kind: 1980 + kind,
            "nvmlDeviceGetTemperature": lambda device, sensor: 41 + sensor,
            "nvmlDeviceGetPowerUsage": lambda device: 350_500,
            "nvmlDeviceGetTotalEnergyConsumption": {"device 0": 1000, "device 1": 2000, "MIG-9": 3000}.get,
            "nvmlDeviceGetComputeRunningProcesses": lambda device: self.processes,
            EVENTS: lambda device: 0x4 | 0x20,
            THROTTLE: lambda device: 0x8,
        }

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in self.functions:
            raise AttributeError(name)
        if name in self.missing:
            return self._fail
        return self.functions[name]

    def _init(self) -> None:
        self.initialised += 1

    def _shutdown(self) -> None:
        self.shut_down += 1

    def _by_uuid(self, uuid: str) -> str:
        return uuid if uuid.startswith("MIG-") else self._fail()

    def _fail(self, *_: object) -> NoReturn:
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
    called = list(Nvml().functions)
    assert [name for name in called if not callable(getattr(pynvml, name, None))] == []
    assert (pynvml.NVML_CLOCK_SM, pynvml.NVML_TEMPERATURE_GPU) == (1, 0)
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
        ("GPU-9fb", 2000), ("GPU-", None), ("GPU-0", None), ("MIG-9", 3000),
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
