"""From what the user asked to a plan that can run: backends and device here, data on disk, a header."""

import math
import secrets
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from backends.info import BackendInfo
from bench import datasets
from bench.dataset_specs import DATASETS
from bench.durations import duration
from bench.errors import RecordError, UnavailableError, UsageError
from bench.flops import training_flops
from bench.footprint import Footprint, footprints
from bench.machine import capture_environment, nvidia_driver_present
from bench.plan import Preset, choose_cells, make_plan
from bench.progress import Display, DownloadProgress
from bench.protocol import DataSource
from bench.records import BackendHere, RunHeader
from bench.registry import Registry, installed_versions
from bench.run import Split
from bench.runs import Run, create_run, quarantine_rejected, read_run
from bench.specs import Cell, Device, Precision, Workload
from bench.workloads import MAIN_WORKLOADS, find_workload, swept


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asks for, checked only where a value alone can be wrong."""

    workloads: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    device: str = "auto"
    precision: Precision = "fp32"
    pythons: Mapping[str, Path] = {}
    sweep: tuple[int, ...] = ()
    """Batch sizes at which every workload is timed, in place of its own; none: its own."""


class Available(msgspec.Struct, frozen=True, kw_only=True):
    """The backends that were asked for, and of those that cannot run here, why not."""

    infos: dict[str, BackendInfo]
    versions: dict[str, dict[str, str]]
    unavailable: dict[str, str]


def choose_device(asked: str) -> Device:
    """Return the device to run on; `auto` is the GPU where there is an NVIDIA driver."""
    if asked == "cpu":
        return "cpu"
    present = nvidia_driver_present()
    if asked == "gpu" and not present:
        raise UnavailableError(
            "device gpu: no NVIDIA driver is loaded here. Use --device cpu, or see bench doctor."
        )
    return "gpu" if present else "cpu"


def choose_backends(
    registry: Registry, asked: Asked, device: Device, *, reference: bool = False
) -> Available:
    """Return the backends to run: those named, all of which must be usable, or all, of which some may not be.

    With `reference`, the reference backend belongs to all.
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
            unavailable[name] = f"precision {asked.precision} is not to be had on {device}; it has: {known}."
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


def backends_of_run(registry: Registry, header: RunHeader, pythons: Mapping[str, Path]) -> Available:
    """Return the backends a run was begun with; one that could not run then may still be missing now."""
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
    """Return the cells that were asked for, those of backends that cannot run included.

    Of a workload that augments its images these are only the modes that can; raise UsageError where that
    leaves none.
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
            f"{', '.join(workloads)}: its images are augmented, which no mode that was asked for does; "
            f"these do: {able}."
        )
    return found


def prepare_data(
    workloads: Sequence[Workload],
    *,
    cache: Path,
    sample: bool,
    limit: int | None,
    offline: bool,
    display: Display,
) -> dict[str, Split]:
    """Return for each workload what it trains on, fetched and proven by its digests."""
    splits: dict[str, Split] = {}
    for name in dict.fromkeys(workload.dataset for workload in workloads):
        if sample:
            data = datasets.load_sample(name, limit)
        else:
            datasets.fetch(name, cache=cache, offline=offline, progress=DownloadProgress(display))
            data = datasets.load(name, cache=cache, limit=limit)
        source = DataSource(name=name, cache=None if sample else str(cache), limit=limit)
        splits[name] = Split(source=source, train=len(data.train_labels), test=len(data.test_labels))
    for workload in workloads:
        images = splits[workload.dataset].train
        if images - workload.held_out < workload.batch_size:
            held = f" beside the {workload.held_out} that it holds out" if workload.held_out else ""
            raise UsageError(
                f"{images} training images are less than one batch of {workload.name}, "
                f"{workload.batch_size} images{held}."
            )
    return {workload.name: splits[workload.dataset] for workload in workloads}


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """How much a run is to measure: the preset, and what the user wants otherwise."""

    preset: Preset
    budget_s: float
    target_half_width: float
    seeds: int
    seed: int
    limit: int | None
    sample: bool

    @property
    def min_blocks(self) -> int:
        """Blocks a row needs; where many seeds are wished for, one more than there are seeds.

        The first block shows how fast each cell is, and from that follow the epochs that the others train.
        """
        return max(self.preset.min_blocks, self.seeds + 1)


def new_run(
    results: Path,
    *,
    cells: tuple[Cell, ...],
    workloads: Sequence[Workload],
    available: Available,
    wish: Wish,
    pythons: Mapping[str, Path],
) -> Run:
    """Make the folder of a new run and write its header."""
    now = datetime.now(UTC)
    usable = {name: info for name, info in available.infos.items() if name not in available.unavailable}
    sizes = footprints(list(usable.values()), pythons)
    header = RunHeader(
        run_id=f"run-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}",
        created_at=now.isoformat(timespec="seconds"),
        command=("bench", *sys.argv[1:]),
        preset=wish.preset.name,
        budget_s=wish.budget_s,
        min_blocks=wish.min_blocks,
        target_half_width=wish.target_half_width,
        seeds=wish.seeds,
        planned=make_plan(
            cells,
            step_flops={workload.name: _step_flops(workload) for workload in workloads},
            min_blocks=wish.min_blocks,
            windows=wish.preset.windows,
            window_s=wish.preset.window_s,
            budget_s=wish.budget_s,
            seeds=wish.seeds,
        ),
        seed=wish.seed,
        dataset_limit=wish.limit,
        sample=wish.sample,
        cells=cells,
        workloads=tuple(workloads),
        backends=tuple(
            backend_here(info, available, sizes.get(name)) for name, info in available.infos.items()
        ),
        environment=capture_environment(),
    )
    return Run(folder=create_run(results, header), header=header, records=())


def _step_flops(workload: Workload) -> float:
    info = workload.seen(DATASETS[workload.dataset].info)
    return training_flops(workload.architecture, info, workload.batch_size)


def backend_here(info: BackendInfo, available: Available, size: Footprint | None) -> BackendHere:
    return BackendHere(
        name=info.name,
        title=info.title,
        taught_mode=info.taught_mode,
        modes={mode.name: mode.summary for mode in info.modes},
        pipeline_modes=tuple(mode.name for mode in info.modes if mode.pipeline),
        reference=info.reference,
        versions=available.versions[info.name],
        packages=size.packages if size else None,
        installed_bytes=size.bytes if size else None,
    )


def plan_in_words(header: RunHeader) -> str:
    """Return what a run means to do and about how long each part takes."""
    plan = header.planned
    parts = [f"parity {duration(plan.parity_s)}", f"{plan.jobs} jobs in blocks {duration(plan.blocks_s)}"]
    if plan.training_s:
        parts.append(f"training {duration(plan.training_s)}")
    width = f"±{100 * header.target_half_width:g} %"
    parts.append(f"further blocks where a ratio is not known to {width} {duration(plan.refining_s)}")
    said = f"Plan for {duration(header.budget_s)}: about {', '.join(parts)}."
    needed_s = plan.parity_s + plan.blocks_s
    if needed_s > header.budget_s:
        said += (
            " That is more than the budget, and some rows will have too few blocks to be ranked: give it at"
            f" least --budget {math.ceil(needed_s / 60)}m, or less to do (--workload, --backend, --mode)."
        )
    return said


def resumed_run(folder: Path, available: Available) -> Run:
    """Read a run to go on with; raise RecordError where machine or versions are not those it started with.

    Lines that cannot be read are moved aside, and named in the run's `rejected`.
    """
    rejected = quarantine_rejected(folder)
    run = msgspec.structs.replace(read_run(folder), rejected=rejected)
    here = capture_environment()
    if not run.header.environment.same_machine(here):
        raise RecordError(
            f"{folder.name} was begun on another machine ({run.header.environment.in_words()}); "
            f"this is {here.in_words()}. Figures of two machines do not mix: start a new run."
        )
    for backend in run.header.backends:
        if available.versions.get(backend.name, backend.versions) != backend.versions:
            raise RecordError(
                f"{folder.name} was begun with {backend.title} {backend.versions}; "
                f"here is {available.versions[backend.name]}. Start a new run."
            )
    return run
