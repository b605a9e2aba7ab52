"""What NVIDIA's driver reports about the GPU that a worker uses.

All of it comes through NVML, by the distribution nvidia-ml-py, whose module is `pynvml`. Where there is no
driver, no library, no permission or no such counter, the answer is None, never an error.
"""

import os
from collections.abc import Callable, Collection, Mapping
from types import TracebackType
from typing import Any, TypeVar

import msgspec


class GpuReading(msgspec.Struct, frozen=True, kw_only=True):
    """What the driver reports about the GPU at one moment; None where it reports nothing."""

    sm_clock_mhz: int | None
    temperature_c: int | None
    power_w: float | None
    clock_events: tuple[str, ...]
    """Reasons for which it holds its clocks down."""
    foreign_processes: int | None
    """Processes that compute on it and are none of ours."""


_T = TypeVar("_T")

# The bits of nvmlDeviceGetCurrentClocksEventReasons, from nvml.h.
_CLOCK_EVENTS = {
    0x001: "gpu_idle",
    0x002: "applications_clocks_setting",
    0x004: "sw_power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "sw_thermal_slowdown",
    0x040: "hw_thermal_slowdown",
    0x080: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
}


class GpuMonitor:
    """The driver's view of one GPU, from `open` to `close`; where there is none, every answer is None."""

    def __init__(self, nvml: Any, device: Any) -> None:
        """Take over an initialised module and the handle of a device, or None for both."""
        self._nvml = nvml
        self._device = device

    @classmethod
    def open(cls, variables: Mapping[str, str] | None = None) -> "GpuMonitor":
        """Return a monitor of the first GPU that a program started with these variables can see.

        Without `variables` they are this process's own. Close the monitor, or use it in a `with` statement.
        """
        try:
            import pynvml

            pynvml.nvmlInit()
        except Exception:  # no module, no library, no driver, or one that does not fit the other
            return cls(None, None)
        try:
            device = _first_visible(pynvml, os.environ if variables is None else variables)
        except Exception:  # there are not so many GPUs, or we may not ask
            device = None
        if device is None:
            _answer(pynvml.nvmlShutdown)
            return cls(None, None)
        return cls(pynvml, device)

    def __enter__(self) -> "GpuMonitor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the driver's library; from then on every answer is None."""
        if self._nvml is not None:
            _answer(self._nvml.nvmlShutdown)
        self._nvml = self._device = None

    def read(self, own_pids: Collection[int]) -> GpuReading | None:
        """Return the state of the GPU now, None where there is none; `own_pids` are the run's own workers."""
        if self._nvml is None:
            return None
        power_mw = self._ask("nvmlDeviceGetPowerUsage")
        return GpuReading(
            sm_clock_mhz=self._ask("nvmlDeviceGetClockInfo", self._nvml.NVML_CLOCK_SM),
            temperature_c=self._ask("nvmlDeviceGetTemperature", self._nvml.NVML_TEMPERATURE_GPU),
            power_w=None if power_mw is None else power_mw / 1000,
            clock_events=clock_events(self._clock_event_bits()),
            foreign_processes=self._foreign_processes(own_pids),
        )

    def process_bytes(self, pid: int) -> int | None:
        """Return the GPU memory that a process holds, its context and libraries included.

        None where the driver does not list the process, as in a container that has its own process numbers.
        """
        held = [process.usedGpuMemory for process in self._processes() or () if process.pid == pid]
        # A process that computes on several instances of a GPU is listed once for each.
        return sum(held) if held and None not in held else None

    def energy_mj(self) -> int | None:
        """Return the millijoules drawn by the whole GPU, whoever used it, since its driver was loaded."""
        energy: int | None = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return energy

    def _clock_event_bits(self) -> int:
        # NVML renamed the function with driver 535; each side, module and driver, may know only the old name.
        for name in ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"):
            if (bits := self._ask(name)) is not None:
                return int(bits)
        return 0

    def _foreign_processes(self, own_pids: Collection[int]) -> int | None:
        processes = self._processes()
        if processes is None:
            return None
        pids = {process.pid for process in processes}
        # Our workers hold the GPU. If none of them is listed, the driver knows processes by other numbers
        # than ours, or hides them, as it does from containers.
        if own_pids and not pids & set(own_pids):
            return None
        return len(pids - set(own_pids))

    def _processes(self) -> list[Any] | None:
        processes: list[Any] | None = self._ask("nvmlDeviceGetComputeRunningProcesses")
        return processes

    def _ask(self, function: str, *arguments: object) -> Any:
        if self._nvml is None:
            return None
        return _answer(lambda: getattr(self._nvml, function)(self._device, *arguments))


def read_gpu(own_pids: Collection[int]) -> GpuReading | None:
    """Return the state of the GPU now, None where there is none; `own_pids` are the run's own workers."""
    with GpuMonitor.open() as monitor:
        return monitor.read(own_pids)


def clock_events(bits: int) -> tuple[str, ...]:
    """Return the names of the reasons for which a GPU holds its clocks down, for NVML's bit mask."""
    return tuple(name for bit, name in _CLOCK_EVENTS.items() if bits & bit)


def _answer(call: Callable[[], _T]) -> _T | None:
    try:
        return call()
    except Exception:  # NVMLError, or an AttributeError where the module is too old to know the function
        return None


def _first_visible(nvml: Any, variables: Mapping[str, str]) -> Any:
    """Return the handle of the first GPU that CUDA would show, None where that is none or cannot be told.

    CUDA_VISIBLE_DEVICES holds indices, or UUIDs of which the first digits will do; unset, all are visible.
    https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/environment-variables.html
    """
    first = variables.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if first.startswith("MIG-"):
        return nvml.nvmlDeviceGetHandleByUUID(first)
    devices = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    if first.startswith("GPU-"):
        found = [device for device in devices if _text(nvml.nvmlDeviceGetUUID(device)).startswith(first)]
        return found[0] if len(found) == 1 else None
    if not first.isdecimal():
        return None
    # NVML counts by bus address. CUDA begins with the fastest unless it is told otherwise, so an index means
    # the same GPU to both only where all are of one kind.
    kinds = {_text(nvml.nvmlDeviceGetName(device)) for device in devices}
    if len(kinds) > 1 and variables.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        return None
    return devices[int(first)]


def _text(said: str | bytes) -> str:
    return said.decode() if isinstance(said, bytes) else said  # bytes from versions before 11.515
