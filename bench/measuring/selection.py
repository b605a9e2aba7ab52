"""From what the user asks for to what can run here: device, backends, workloads, cells."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from backends.info import BackendInfo, Mode
from bench.errors import UnavailableError, UsageError, unknown
from bench.machine.environment import Environment, nvidia_driver_present
from bench.machine.footprint import Footprint
from bench.machine.gpu import PROHIBITED, gpu_in_use
from bench.machine.visible_gpus import VISIBLE, are_hidden, show_one_gpu
from bench.measuring.backends import Registry, installed_versions, named_python
from bench.measuring.interpreters import program_fault
from bench.records.schema import BackendHere, RunHeader
from bench.workloads.catalog import MAIN_WORKLOADS, find_workload, swept
from bench.workloads.specs import Cell, Device, Precision, Workload

GROUPS = ("default", "taught", "tuned", "pipeline", "all")
"""Names that stand for several modes: see `groups`."""


def choose_modes(info: BackendInfo, asked: Sequence[str], preset_modes: str, device: Device) -> list[str]:
    """Return the modes of one backend that run on the device: those asked for, else those of the preset.

    Beside names, those in `GROUPS` may be asked for.
    """
    wanted = set(asked) or {preset_modes}
    return [
        mode.name
        for mode in info.modes
        if device in mode.devices and not mode.distributed and wanted & {mode.name, *groups(mode)}
    ]


def groups(mode: Mode) -> set[str]:
    """Return the groups, among `GROUPS`, that a mode belongs to."""
    found = {"all", mode.level}
    if mode.default:
        found.add("default")
    if (
        mode.pipeline and mode.level == "tuned"
    ):  # a taught mode has a loader too, but is no pair of a tuned one
        found.add("pipeline")
    return found


def choose_cells(
    *,
    workloads: Sequence[str],
    backends: Sequence[BackendInfo],
    modes: Sequence[str],
    preset_modes: str,
    device: Device,
    precision: Precision,
    named: bool,
) -> tuple[Cell, ...]:
    """Return the cells to run; raise UsageError for a mode that no backend has, or not the one named.

    `named` says whether the user named the backends.
    """
    here = {mode.name for info in backends for mode in info.modes if device in mode.devices}
    known = sorted(here | set(GROUPS))
    for mode in modes:
        if any(one.distributed for info in backends for one in info.modes if one.name == mode):
            raise UsageError(
                f"--mode {mode}: several processes train together in that mode. Name their numbers in its "
                "place, such as --ranks 1,2."
            )
        if mode not in known:
            whose = f"modes of {', '.join(info.name for info in backends)} on the {device.upper()}"
            raise unknown("mode", mode, known, whose)
    chosen = {info.name: choose_modes(info, modes, preset_modes, device) for info in backends}
    for info in backends:
        if named and not chosen[info.name]:
            own = ", ".join(choose_modes(info, ["all"], preset_modes, device))
            raise UsageError(f"backend {info.name!r} has no mode {', '.join(modes)}; it has: {own}.")
    return tuple(
        Cell(workload=workload, backend=backend, mode=mode, device=device, precision=precision)
        for workload in workloads
        for backend, names in chosen.items()
        for mode in names
    )


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asks for. Each value is valid; whether the choice can run is not known yet."""

    workloads: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    device: str = "auto"
    gpu: int | None = None
    """Number of the GPU among those that are visible; None: the first."""
    precision: Precision = "fp32"
    pythons: Mapping[str, Path] = {}
    sweep: tuple[int, ...] = ()
    """Batch sizes at which every workload is timed; empty: its own batch size."""
    sample: bool = False
    """Use the shipped sample of each data set."""
    limit: int | None = None
    """Use only so many images of each split; None: all."""
    ranks: tuple[int, ...] = ()
    """The numbers of ranks of a run with ranks; empty: it is none."""
    scaling: Literal["strong", "weak", "both"] = "strong"
    """Whether ranks cut the batch, or train one each."""
    devices: tuple[int, ...] = ()
    """The CPUs or GPUs of the ranks by their numbers; empty: the first ones."""


class Available(msgspec.Struct, frozen=True, kw_only=True):
    """The backends that were asked for, and for each that cannot run here, the reason."""

    infos: dict[str, BackendInfo]
    versions: dict[str, dict[str, str]]
    unavailable: dict[str, str]


def choose_device(asked: str, gpu: int | str | None = None, *, ranks: bool = False) -> Device:
    """Return the device to run on; `auto` is the GPU where there is an NVIDIA driver that shows one.

    `gpu` is the number of a visible GPU, or a UUID; None: the first. From here on CUDA_VISIBLE_DEVICES shows
    only that GPU, to this process and to its workers. So all frameworks use the same one, and the readings
    and the record are of it. With `ranks` it is left as it is: `local_slots` chooses the GPUs. Raises
    UsageError or UnavailableError if there is no such GPU.
    """
    if asked == "cpu":
        if gpu is not None:
            raise UsageError(f"--gpu {gpu} chooses a GPU: leave it out, or leave out --device cpu.")
        return "cpu"
    present = nvidia_driver_present()
    if asked == "auto" and gpu is None and (not present or are_hidden(os.environ)):
        return "cpu"
    if not present:
        raise UnavailableError(
            "device gpu: no NVIDIA driver is loaded here. Use --device cpu, or see bench doctor."
        )
    if not ranks:
        show_one_gpu(gpu)
    used = gpu_in_use()
    if used is not None and used.compute_mode == PROHIBITED:
        raise UnavailableError(
            f"{used.in_words()} is in compute mode {PROHIBITED}: no program may use it. Choose another with "
            "--gpu N, or let programs use it (nvidia-smi -c DEFAULT)."
        )
    return "gpu"


def choose_again(device: Device, begun: Environment) -> None:
    """Choose the device that a run began with, and if it is a GPU, the same one.

    Raises UnavailableError if the GPU is not visible any more.
    """
    choose_device(device, begun.gpu.uuid if begun.gpu else None)


def used_gpu(device: Device) -> str | None:
    """Return what is known of the GPU that workers use, in a line; None on the CPU."""
    if device == "cpu":
        return None
    used = gpu_in_use()
    return used.details() if used else f"{VISIBLE}={os.environ.get(VISIBLE)}, of which NVML reports nothing"


def choose_backends(
    registry: Registry, asked: Asked, device: Device, *, reference: bool = False
) -> Available:
    """Return the backends to run: those named, which must all be usable, or all, some of which may not be.

    With `reference`, all includes the reference backend.
    """
    for name in asked.pythons:
        registry.find(name)
    if asked.backends:
        infos = {name: registry.find(name) for name in dict.fromkeys(asked.backends)}
    else:
        infos = {info.name: info for info in registry.frameworks()}
        if reference:
            infos = dict(registry.backends)
    found = installed_versions(list(infos.values()), asked.pythons)
    unavailable: dict[str, str] = {} if asked.backends else dict(registry.broken)
    for name, info in infos.items():
        missing = found[name][1]
        precisions = info.cpu_precisions if device == "cpu" else info.gpu_precisions
        if missing:
            what = ", ".join(needed.replace("|", " or ") for needed in missing)
            unavailable[name] = (
                f"not installed: {what}. Install it, or name an interpreter that has it: --python {name}=PATH"
            )
        elif asked.precision not in precisions:
            known = ", ".join(precisions) or "none"
            unavailable[name] = f"precision {asked.precision} is not available on {device}; it has: {known}."
        elif (python := named_python(info, asked.pythons)) and (fault := program_fault(python)) is not None:
            unavailable[name] = fault
        if asked.backends and name in unavailable:
            raise UnavailableError(f"backend {name!r}: {unavailable[name]}")
    if not infos.keys() - unavailable.keys():
        reasons = "; ".join(f"{name}: {reason}" for name, reason in unavailable.items())
        raise UnavailableError(f"no backend can run here. {reasons}")
    return Available(
        infos=infos,
        versions={name: versions for name, (versions, _) in found.items()},
        unavailable=unavailable,
    )


def with_requested(registry: Registry, available: Available, asked: Asked, device: Device) -> Available:
    """Return the available backends, and those that run only on request, as far as they can run here."""
    extra = {info.name: info for info in registry.backends.values() if info.on_request}
    known = Registry(backends=available.infos | extra, broken={})
    found = choose_backends(known, msgspec.structs.replace(asked, backends=()), device, reference=True)
    usable = {name: info for name, info in extra.items() if name not in found.unavailable}
    return msgspec.structs.replace(
        available,
        infos=available.infos | usable,
        versions=available.versions | {name: found.versions[name] for name in usable},
    )


def backends_of_run(registry: Registry, header: RunHeader, pythons: Mapping[str, Path]) -> Available:
    """Return the backends that a run began with. One that could not run then may still be missing."""
    names = {backend.name for backend in header.backends}
    known = Registry(
        backends={name: info for name, info in registry.backends.items() if name in names},
        broken={name: reason for name, reason in registry.broken.items() if name in names},
    )
    cell = header.cells[0]
    available = choose_backends(
        known, Asked(precision=cell.precision, pythons=pythons), cell.device, reference=True
    )
    gone = {name: f"backend {name!r} is not registered here any more." for name in names - known.names()}
    return Available(
        infos=available.infos,
        versions={name: {} for name in names} | available.versions,
        unavailable=available.unavailable | gone,
    )


def chosen_workloads(asked: Asked) -> tuple[Workload, ...]:
    """Return the workloads that were asked for, or the main ones, at every batch size of a sweep."""
    workloads = [find_workload(name) for name in dict.fromkeys(asked.workloads or MAIN_WORKLOADS)]
    if asked.sweep:
        workloads = [swept(workload, size) for workload in workloads for size in asked.sweep]
    return tuple(workloads)


def chosen_cells(asked: Asked, available: Available, device: Device, preset_modes: str) -> tuple[Cell, ...]:
    """Return the cells that were asked for, including those of backends that cannot run.

    A workload that augments its images has only cells of modes that can do that. Raises UsageError if none
    is left.
    """
    workloads = {workload.name: workload for workload in chosen_workloads(asked)}
    infos = available.infos.values()
    augmenting = {(info.name, mode.name) for info in infos for mode in info.modes if mode.augments}
    cells = choose_cells(
        workloads=list(workloads),
        backends=list(available.infos.values()),
        modes=asked.modes,
        preset_modes=preset_modes,
        device=device,
        precision=asked.precision,
        named=bool(asked.backends),
    )
    found = tuple(
        cell
        for cell in cells
        if workloads[cell.workload].augmentation is None or (cell.backend, cell.mode) in augmenting
    )
    if cells and not found:
        able = ", ".join(sorted(f"{backend} {mode}" for backend, mode in augmenting)) or "none"
        raise UsageError(
            f"{', '.join(workloads)}: its images are augmented, and no mode that was asked for can do that; "
            f"these can: {able}."
        )
    return found


def backend_here(
    info: BackendInfo, versions: Mapping[str, str], size: Footprint | None = None
) -> BackendHere:
    """Return what a header keeps of a backend; `versions` are those of its distributions."""
    return BackendHere(
        name=info.name,
        title=info.title,
        default_mode=info.default_mode,
        modes={mode.name: mode.summary for mode in info.modes},
        pipeline_modes=tuple(mode.name for mode in info.modes if "pipeline" in groups(mode)),
        levels={mode.name: mode.level for mode in info.modes},
        reference=info.reference,
        building=info.building,
        versions=dict(versions),
        packages=size.packages if size else None,
        installed_bytes=size.bytes if size else None,
    )
