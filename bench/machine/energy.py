"""The energy that a job draws, read from a meter of the machine; never an estimate."""

import re
from pathlib import Path
from types import TracebackType
from typing import Literal, TypeAlias

from bench.machine.environment import is_count, read_text
from bench.machine.gpu import GpuMonitor
from bench.workloads.specs import Device

Method: TypeAlias = Literal[
    "NVML total energy",
    "NVML total energy of the whole GPU",  # of a MIG slice's GPU, which other slices use as well
    "powercap package energy",
]

_POWERCAP = Path("/sys/class/powercap")
# A top-level zone. `intel-rapl:0:0` is a part of one, and `intel-rapl-mmio:0` lists the same package again.
_TOP_ZONE = re.compile(r"intel-rapl:[0-9]+")


class Meter:
    """A meter of the energy in joules of a device: the whole GPU, or all CPU packages of the machine.

    It includes the energy of everything else that runs there at the same time.
    """

    def __init__(self, gpu: GpuMonitor | None, packages: "tuple[Package, ...]") -> None:
        """Read this GPU's counter, or else the counters of these packages. `open` finds what exists."""
        self._gpu = gpu
        self._packages = packages

    @classmethod
    def open(cls, device: Device, powercap: Path = _POWERCAP) -> "Meter":
        """Return the meter of a device. It reports None if no counter can be read."""
        if device == "gpu":
            gpu = GpuMonitor.open()
            if gpu.energy_mj() is not None:
                return cls(gpu, ())
            gpu.close()
            return cls(None, ())
        packages = tuple(Package(zone) for zone in package_zones(powercap))
        readable = all(package.read_uj() is not None for package in packages)
        return cls(None, packages if readable else ())

    @property
    def method(self) -> Method | None:
        """The counter that it reads; None if there is none."""
        if self._gpu is not None:
            return "NVML total energy of the whole GPU" if self._gpu.is_slice else "NVML total energy"
        return "powercap package energy" if self._packages else None

    def read_j(self) -> float | None:
        """Return the joules drawn since a moment that is the same for all readings of this meter.

        None if no counter can be read. The counter of a CPU package wraps around after a few minutes at full
        power, so read the meter more often than that.
        """
        if self._gpu is not None:
            energy_mj = self._gpu.energy_mj()
            return None if energy_mj is None else energy_mj / 1e3
        drawn = [package.read_uj() for package in self._packages]
        known = [energy_uj for energy_uj in drawn if energy_uj is not None]
        return sum(known) / 1e6 if known and len(known) == len(drawn) else None

    def since(self, before_j: float | None) -> float | None:
        """Return the joules drawn since an earlier reading; None if either reading is None."""
        now_j = self.read_j()
        return None if before_j is None or now_j is None else now_j - before_j

    def __enter__(self) -> "Meter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the GPU's driver."""
        if self._gpu is not None:
            self._gpu.close()


class Package:
    """The energy counter of one CPU package, corrected for its wrap-around."""

    def __init__(self, zone: Path) -> None:
        """Count from the first reading of the zone's counter."""
        self._zone = zone
        self._range_uj = parse_uj(read_text(zone / "max_energy_range_uj"))
        self._last_uj: int | None = None
        self._drawn_uj = 0

    def read_uj(self) -> int | None:
        """Return the microjoules drawn since the first reading; None if the counter cannot be read."""
        now_uj = parse_uj(read_text(self._zone / "energy_uj"))
        if now_uj is None:
            return None
        if self._last_uj is not None:
            step_uj = drawn_uj(self._last_uj, now_uj, self._range_uj)
            if step_uj is None:
                return None
            self._drawn_uj += step_uj
        self._last_uj = now_uj
        return self._drawn_uj


def package_zones(powercap: Path) -> list[Path]:
    """Return the folders under /sys/class/powercap that count the energy of a CPU package, sorted."""
    try:
        zones = sorted(powercap.iterdir())
    except OSError:
        return []
    # A zone named psys counts the packages again, together with the rest of the board.
    return [
        zone
        for zone in zones
        if _TOP_ZONE.fullmatch(zone.name) and read_text(zone / "name").startswith("package")
    ]


def drawn_uj(before: int, after: int, range_uj: int | None) -> int | None:
    """Return the microjoules between two readings of a counter that starts again at 0 after `range_uj`.

    None if the counter went back and its range is unknown or smaller than `before`.
    https://docs.kernel.org/power/powercap/powercap.html
    """
    if after >= before:
        return after - before
    return None if range_uj is None or before > range_uj else range_uj - before + after


def parse_uj(text: str) -> int | None:
    """Return the number in the text of a powercap file; None if it is not a number."""
    word = text.strip()
    return int(word) if is_count(word) else None
