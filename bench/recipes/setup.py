"""Where a recipe is followed: the device, the backends with a mode each, and the data on disk."""

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import msgspec

from backends.info import BackendInfo
from bench.datasets.cache import cache_dir
from bench.errors import UsageError, unknown
from bench.machine.known_faults import known_faults
from bench.measuring.backends import find_backends
from bench.measuring.data import prepare_data
from bench.measuring.selection import Asked, Available, choose_backends, choose_device
from bench.progress import Display
from bench.worker.protocol import DataSource
from bench.workloads.specs import Cell, Device, Workload


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A device, the backends that can run on it, and a data set."""

    available: Available
    cells: tuple[Cell, ...]
    """One per backend, in the order in which the backends were named."""
    source: DataSource
    pythons: Mapping[str, Path]

    @classmethod
    def find(
        cls,
        workload: Workload,
        asked: Asked,
        *,
        data: Path | None,
        offline: bool,
        display: Display,
    ) -> Self:
        """Return the place that is asked for, with one mode at most; the data set is fetched if needed.

        Raises UsageError or UnavailableError if a backend, the mode or the device does not exist here.
        """
        found = choose_device(asked.device)
        available = choose_backends(find_backends(), asked, found)
        for name, versions in available.versions.items():
            for warning in known_faults(versions, found):
                display.say(f"WARNING: {available.infos[name].title}: {warning}")
        splits = prepare_data(
            [workload], cache=cache_dir(data), sample=asked.sample, limit=asked.limit, offline=offline,
            display=display,
        )  # fmt: skip
        return cls(
            available=available,
            cells=tuple(
                Cell(
                    workload=workload.name,
                    backend=name,
                    mode=_mode(available.infos[name], next(iter(asked.modes), None), workload, found),
                    device=found,
                    precision=asked.precision,
                )
                for name in available.infos
                if name not in available.unavailable
            ),
            source=splits[workload.name].source,
            pythons=asked.pythons,
        )


def _mode(info: BackendInfo, asked: str | None, workload: Workload, device: Device) -> str:
    modes = {mode.name: mode for mode in info.modes if device in mode.devices}
    name = asked or info.default_mode
    if name not in modes:
        raise unknown(
            f"mode of {info.name} on the {device.upper()}", name, list(modes), "bench list shows all"
        )
    if workload.augmentation is not None and not modes[name].augments:
        augmenting = [mode.name for mode in info.modes if mode.augments and not mode.distributed]
        able = ", ".join(augmenting) or "none"
        raise UsageError(
            f"{info.name} {name} does not augment images, as {workload.name} does; these do: {able}."
        )
    return name
