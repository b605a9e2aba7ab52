"""What the NVIDIA driver reports about the GPU that a worker uses.

It is read through NVML with the distribution nvidia-ml-py, whose module is `pynvml`. Without a driver, a
library, a permission or a counter, the answer is None, never an error.
"""

import os
from collections.abc import Collection
from types import TracebackType
from typing import Any

import msgspec

from bench.machine.visible_gpus import (
    VisibleGpu,
    answer,
    as_text,
    choose_gpu,
    open_nvml,
    opened_nvml,
    short_uuid,
    visible_gpus,
)


class GpuReading(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the GPU at one moment; None for what the driver does not report."""

    sm_clock_mhz: int | None
    temperature_c: int | None
    power_w: float | None
    clock_events: tuple[str, ...]
    """Reasons for reduced clocks."""
    foreign_processes: int | None
    """The number of processes that compute on it and are not part of this run."""


class GpuInUse(msgspec.Struct, frozen=True, kw_only=True):
    """The GPU, or the MIG slice of one, that all workers use; None for what the driver does not report."""

    name: str
    uuid: str | None
    slice_of: str | None = None
    """UUID of the GPU that it is a MIG slice of; None for a whole GPU."""
    pci_bus_id: str | None = None
    memory_mib: int | None = None
    """Of the slice, if it is one."""
    compute_mode: str | None = None
    cuda: str | None = None
    """The newest version of CUDA that the driver supports."""
    compute_capability: tuple[int, int] | None = None
    """The version of its instructions, as major and minor number: (9, 0) of an H100."""

    def in_words(self) -> str:
        """Return its name and the beginning of its UUID."""
        return f"{self.name} ({short_uuid(self.uuid)})" if self.uuid else self.name

    def details(self) -> str:
        """Return everything that is known of it, in a line."""
        said = [
            ("", self.name),
            ("", self.uuid),
            ("MIG slice of ", self.slice_of),
            ("PCI ", self.pci_bus_id),
            ("", None if self.memory_mib is None else f"{self.memory_mib} MiB"),
            ("compute mode ", self.compute_mode),
            ("driver supports CUDA ", self.cuda),
            ("compute capability ", self.compute_capability and "{}.{}".format(*self.compute_capability)),
        ]
        return ", ".join(f"{what}{value}" for what, value in said if value is not None)


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
PROHIBITED = "prohibited"
_ALONE = ("exclusive thread", "exclusive process")
"""Compute modes in which only one process at a time can use a GPU."""
_COMPUTE_MODES = {0: "default", 1: _ALONE[0], 2: PROHIBITED, 3: _ALONE[1]}
"""The values of nvmlComputeMode_t, from nvml.h."""


class GpuMonitor:
    """One GPU as the driver reports it, from `open` to `close`. Without a GPU, every answer is None.

    What the driver does not report about a MIG slice, such as power and clocks, is that of the whole GPU.
    """

    def __init__(self, nvml: Any, gpu: VisibleGpu | None) -> None:
        """Take an initialised module and a GPU, or None for both."""
        self._nvml = nvml
        self._gpu = gpu

    @classmethod
    def open(cls) -> "GpuMonitor":
        """Return a monitor of the first GPU that CUDA uses in this process.

        Close the monitor, or use it in a `with` statement.
        """
        nvml = open_nvml()
        if nvml is None:
            return cls(None, None)
        gpu = answer(lambda: choose_gpu(nvml, os.environ))  # None if there is no such GPU, or no permission
        if gpu is None:
            answer(nvml.nvmlShutdown)
            return cls(None, None)
        return cls(nvml, gpu)

    def __enter__(self) -> "GpuMonitor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the driver's library. After this, every answer is None."""
        if self._nvml is not None:
            answer(self._nvml.nvmlShutdown)
        self._nvml = self._gpu = None

    @property
    def is_slice(self) -> bool:
        """Whether it is a MIG slice of a GPU."""
        return self._gpu is not None and self._gpu.parent is not None

    def describe(self) -> GpuInUse | None:
        """Return what does not change while a run lasts."""
        if self._gpu is None:
            return None
        parent = self._gpu.parent
        slice_of = None if parent is None else answer(lambda: as_text(self._nvml.nvmlDeviceGetUUID(parent)))
        memory = self._ask_itself("nvmlDeviceGetMemoryInfo")
        capability = self._ask("nvmlDeviceGetCudaComputeCapability")
        return GpuInUse(
            name=self._gpu.name,
            uuid=self._gpu.uuid,
            slice_of=slice_of,
            pci_bus_id=answer(lambda: as_text(self._ask("nvmlDeviceGetPciInfo").busId)),
            memory_mib=None if memory is None else int(memory.total) // 2**20,
            compute_mode=self.compute_mode(),
            cuda=answer(lambda: _cuda_version(self._nvml.nvmlSystemGetCudaDriverVersion())),
            compute_capability=None if capability is None else (int(capability[0]), int(capability[1])),
        )

    def compute_mode(self) -> str | None:
        """Return which processes may use it: `default`, `exclusive process` or `prohibited`."""
        return _COMPUTE_MODES.get(self._ask("nvmlDeviceGetComputeMode"))

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

    def is_used_by(self, pid: int) -> bool:
        """Whether the driver lists a process that computes on it."""
        return any(process.pid == pid for process in self._processes() or ())

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
        # The whole GPU would list the processes of other slices, which hold other memory.
        processes: list[Any] | None = self._ask_itself("nvmlDeviceGetComputeRunningProcesses")
        return processes

    def _ask(self, function: str, *arguments: object) -> Any:
        """Ask about the GPU or the slice, and if there is no answer about a slice, about its GPU."""
        found = self._ask_itself(function, *arguments)
        if found is None and self._gpu is not None and self._gpu.parent is not None:
            parent = self._gpu.parent
            return answer(lambda: getattr(self._nvml, function)(parent, *arguments))
        return found

    def _ask_itself(self, function: str, *arguments: object) -> Any:
        if self._gpu is None:
            return None
        handle = self._gpu.handle
        return answer(lambda: getattr(self._nvml, function)(handle, *arguments))


def read_gpu(own_pids: Collection[int]) -> GpuReading | None:
    """Return the current state of the GPU, None without one; `own_pids` are the run's own workers."""
    with GpuMonitor.open() as monitor:
        return monitor.read(own_pids)


def gpu_in_use() -> GpuInUse | None:
    """Return the first GPU that CUDA shows to this process; None if there is none, or without NVML."""
    with GpuMonitor.open() as monitor:
        return monitor.describe()


def admits_one_process() -> bool:
    """Whether the compute mode of the GPU lets only one process at a time use it."""
    with GpuMonitor.open() as monitor:
        return monitor.compute_mode() in _ALONE


def gpus_opened_by(pid: int) -> tuple[str, ...]:
    """Return the UUIDs of the GPUs and slices that a process computes on, visible to CUDA or not.

    It is empty if the driver does not list the process, as in a container with its own process numbers.
    """
    with opened_nvml() as nvml:
        found = None if nvml is None else answer(lambda: visible_gpus(nvml, {}))
        return tuple(one.uuid for one in found or () if one.uuid and GpuMonitor(nvml, one).is_used_by(pid))


def clock_events(bits: int) -> tuple[str, ...]:
    """Return the names of the reasons for reduced clocks in NVML's bit mask."""
    return tuple(name for bit, name in _CLOCK_EVENTS.items() if bits & bit)


def _cuda_version(number: int) -> str:
    """Return a version as NVML encodes it, 1000 times the major plus 10 times the minor: 12080 is 12.8."""
    return f"{number // 1000}.{number % 1000 // 10}"
