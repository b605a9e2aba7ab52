"""What the NVIDIA driver reports about the GPU that a worker uses.

It is read through NVML with the distribution nvidia-ml-py, whose module is `pynvml`. Without a driver, a
library, a permission or a counter, the answer is None, never an error.
"""

import os
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Any, TypeVar

import msgspec


class GpuReading(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the GPU at one moment; None for what the driver does not report."""

    sm_clock_mhz: int | None
    temperature_c: int | None
    power_w: float | None
    clock_events: tuple[str, ...]
    """Reasons for reduced clocks."""
    foreign_processes: int | None
    """The number of processes that compute on it and are not part of this run."""


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
    """One GPU as the driver reports it, from `open` to `close`. Without a GPU, every answer is None."""

    def __init__(self, nvml: Any, device: Any) -> None:
        """Take an initialised module and the handle of a device, or None for both."""
        self._nvml = nvml
        self._device = device

    @classmethod
    def open(cls) -> "GpuMonitor":
        """Return a monitor of the first GPU that CUDA uses in this process.

        Close the monitor, or use it in a `with` statement.
        """
        try:
            import pynvml

            pynvml.nvmlInit()
        except Exception:  # no module, no library, no driver, or versions that do not fit together
            return cls(None, None)
        try:
            device = _first_visible(pynvml)
        except Exception:  # there are fewer GPUs, or no permission
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
        """Release the driver's library. After this, every answer is None."""
        if self._nvml is not None:
            _answer(self._nvml.nvmlShutdown)
        self._nvml = self._device = None

    def read(self, own_pids: Collection[int]) -> GpuReading | None:
        """Return the current state of the GPU; `own_pids` are the run's own workers."""
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
        """Return the bytes of GPU memory that a process holds, including its context and libraries.

        None if the driver does not list the process, as in a container with its own process numbers.
        """
        held = [process.usedGpuMemory for process in self._processes() or () if process.pid == pid]
        # A process that computes on several instances of a GPU is listed once per instance.
        return sum(held) if held and None not in held else None

    def energy_mj(self) -> int | None:
        """Return the millijoules that the whole GPU has drawn since its driver was loaded."""
        energy: int | None = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return energy

    def _clock_event_bits(self) -> int:
        # NVML renamed the function with driver 535. The module or the driver may know only the old name.
        for name in ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"):
            if (bits := self._ask(name)) is not None:
                return int(bits)
        return 0

    def _foreign_processes(self, own_pids: Collection[int]) -> int | None:
        processes = self._processes()
        if processes is None:
            return None
        pids = {process.pid for process in processes}
        # Our workers use the GPU. If none of them is listed, the driver has other process numbers than ours,
        # or hides processes, as it does in containers.
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
    """Return the current state of the GPU, None without one; `own_pids` are the run's own workers."""
    with GpuMonitor.open() as monitor:
        return monitor.read(own_pids)


def clock_events(bits: int) -> tuple[str, ...]:
    """Return the names of the reasons for reduced clocks in NVML's bit mask."""
    return tuple(name for bit, name in _CLOCK_EVENTS.items() if bits & bit)


def _answer(call: Callable[[], _T]) -> _T | None:
    try:
        return call()
    except Exception:  # NVMLError, or AttributeError if the module is too old to have the function
        return None


def _first_visible(nvml: Any) -> Any:
    """Return the handle of the first GPU that CUDA would use; None if there is none or it is uncertain.

    CUDA_VISIBLE_DEVICES holds indices, or UUIDs that may be abbreviated. Unset, it shows all GPUs.
    https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/environment-variables.html
    """
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if first.startswith("MIG-"):
        return nvml.nvmlDeviceGetHandleByUUID(first)
    devices = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    if first.startswith("GPU-"):
        found = [device for device in devices if _text(nvml.nvmlDeviceGetUUID(device)).startswith(first)]
        return found[0] if len(found) == 1 else None
    if not first.isdecimal():
        return None
    # NVML orders GPUs by bus address, CUDA by speed unless CUDA_DEVICE_ORDER is set. So an index means the
    # same GPU to both only if all GPUs are of one kind.
    kinds = {_text(nvml.nvmlDeviceGetName(device)) for device in devices}
    if len(kinds) > 1 and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        return None
    return devices[int(first)]


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name  # bytes from versions before 11.515
