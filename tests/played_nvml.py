"""A played driver: the module `pynvml` with GPUs that a test describes."""

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

EVENTS, THROTTLE = "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"
OF_WHOLE_GPUS = (
    "nvmlDeviceGetClockInfo", "nvmlDeviceGetTemperature", "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetComputeMode", "nvmlDeviceGetPciInfo", EVENTS,
    THROTTLE,
)  # fmt: skip
"""Functions that the driver does not answer for a MIG slice."""


class NVMLError(Exception):
    pass


class Nvml(ModuleType):
    """A module `pynvml` with two GPUs that counts how often it was initialised and shut down.

    The handle of a GPU is `device N`, that of its slice M `device N slice M`.
    """

    NVML_CLOCK_SM = 1
    NVML_TEMPERATURE_GPU = 0

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.initialised = self.shut_down = 0
        self.names: list[Any] = ["H100", "H100"]
        self.uuids: list[Any] = ["GPU-8932f937-d72c", "GPU-9fb42d6f-7d6b"]
        self.slices: dict[int, list[str | None]] = {}
        """By GPU in MIG mode, the UUID of the slice in each of its places; None for an empty place."""
        self.mode = 0
        """The compute mode of every GPU."""
        self.processes = [process(10, 500), process(11, 700)]
        self.missing: set[str] = set()
        """Functions for which the driver has no answer."""
        self.functions: dict[str, Callable[..., Any]] = {
            "nvmlInit": self._init,
            "nvmlShutdown": self._shutdown,
            "nvmlSystemGetCudaDriverVersion": lambda: 12080,
            "nvmlDeviceGetCount": lambda: len(self.names),
            "nvmlDeviceGetHandleByIndex": lambda index: f"device {range(len(self.names))[index]}",
            "nvmlDeviceGetHandleByUUID": self._by_uuid,
            "nvmlDeviceGetName": lambda handle: self.names[gpu_of(handle)] + handle.partition(" slice")[1],
            "nvmlDeviceGetUUID": self._uuid,
            "nvmlDeviceGetMigMode": self._mig_mode,
            "nvmlDeviceGetMaxMigDeviceCount": lambda handle: len(self.slices[gpu_of(handle)]),
            "nvmlDeviceGetMigDeviceHandleByIndex": self._slice,
            "nvmlDeviceGetDeviceHandleFromMigDeviceHandle": lambda handle: handle.partition(" slice")[0],
            "nvmlDeviceGetMemoryInfo": lambda handle: _with(total=(10 if _is_slice(handle) else 80) * 2**30),
            "nvmlDeviceGetPciInfo": lambda handle: _with(busId=f"00000000:0{gpu_of(handle)}:00.0".encode()),
            "nvmlDeviceGetCudaComputeCapability": lambda handle: [9, gpu_of(handle)],
            "nvmlDeviceGetComputeMode": lambda handle: self.mode,
            "nvmlDeviceGetClockInfo": lambda handle, kind: 1980 + kind,
            "nvmlDeviceGetTemperature": lambda handle, sensor: 41 + sensor,
            "nvmlDeviceGetPowerUsage": lambda handle: 350_500,
            "nvmlDeviceGetTotalEnergyConsumption": lambda handle: 1000 * (gpu_of(handle) + 1),
            "nvmlDeviceGetComputeRunningProcesses": lambda handle: self.processes,
            EVENTS: lambda handle: 0x4 | 0x20,
            THROTTLE: lambda handle: 0x8,
        }  # fmt: skip

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in self.functions:
            raise AttributeError(name)
        if name in self.missing:
            return self._fail
        if name in OF_WHOLE_GPUS:
            return self._of_whole_gpu(self.functions[name])
        return self.functions[name]

    def _of_whole_gpu(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def ask(handle: str, *arguments: Any) -> Any:
            return self._fail() if _is_slice(handle) else function(handle, *arguments)

        return ask

    def _init(self) -> None:
        self.initialised += 1

    def _shutdown(self) -> None:
        self.shut_down += 1

    def _uuid(self, handle: str) -> Any:
        gpu, _, place = handle.partition(" slice ")
        return self.slices[gpu_of(gpu)][int(place)] if place else self.uuids[gpu_of(gpu)]

    def _by_uuid(self, uuid: str) -> str:
        return "device 0 slice 0" if uuid.startswith("MIG-GPU-") else self._fail()

    def _mig_mode(self, handle: str) -> list[int]:
        if not self.slices:
            self._fail()
        return [int(gpu_of(handle) in self.slices), 0]

    def _slice(self, handle: str, place: int) -> str:
        return f"{handle} slice {place}" if self.slices[gpu_of(handle)][place] else self._fail()

    def _fail(self, *_: object) -> NoReturn:
        raise NVMLError("Function Not Found")


def gpu_of(handle: str) -> int:
    """Return the number of the GPU of a handle."""
    return int(handle.split()[1])


def _is_slice(handle: str) -> bool:
    return "slice" in handle


_with = SimpleNamespace


def process(pid: int, used: int | None) -> SimpleNamespace:
    return SimpleNamespace(pid=pid, usedGpuMemory=used)
