"""From what the user asked to a plan that can run: backends and device here, data on disk, a header."""

import math
import random
import secrets
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec

from bench.datasets.catalog import DATASETS
from bench.errors import RecordError, UsageError
from bench.machine.environment import capture_environment
from bench.measuring.backends import find_backends, footprints
from bench.measuring.design import LEAD_S
from bench.measuring.hosts.session import Hosts
from bench.measuring.ranks.rows import ranked_cells, refuse_what_ranks_exclude, with_distributed_modes
from bench.measuring.ranks.slots import Slot, device_number, hosts_of
from bench.measuring.selection import (
    Asked,
    Available,
    backend_here,
    backends_of_run,
    choose_again,
    choose_backends,
    choose_device,
    chosen_cells,
    chosen_workloads,
    with_requested,
)
from bench.records.runs import Run, create_run, quarantine_rejected, read_run
from bench.records.schema import RunHeader
from bench.run.plan import PLACEBO_SHARE, Preset, find_preset, lessons_seconds, make_plan
from bench.text import duration, listed
from bench.workloads.flops import training_flops
from bench.workloads.specs import Cell, Device, Workload


class RunPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a run measures, and how much of it: the preset, and the values that the user gave instead."""

    asked: Asked
    preset: Preset
    budget_s: float
    target_half_width: float
    seeds: int
    seed: int
    targets: Mapping[str, float] = {}
    """Target accuracies by workload."""
    lead_s: float = LEAD_S

    @property
    def min_blocks(self) -> int:
        """Blocks that a row needs: at least one more than there are seeds.

        The first block shows how fast each cell is, and from that follow the epochs that the others train.
        """
        return max(self.preset.min_blocks, self.seeds + 1)


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a run before its data are fetched."""

    preset: Preset
    cells: tuple[Cell, ...]
    workloads: tuple[Workload, ...]
    available: Available
    sample: bool
    limit: int | None
    begun: Run | None = None
    """The run so far; None: it is new."""
    slots: tuple[Slot, ...] = ()
    """Where the ranks of every job run; empty in a run without ranks."""


def prepare(plan: RunPlan, hosts: Hosts | None = None) -> Prepared:
    """Find the backends and cells of a new run; raise UsageError or UnavailableError where there are none.

    `hosts` has the slots of the ranks; None: they are on this host.
    """
    asked = plan.asked
    refuse_what_ranks_exclude(asked)
    device = choose_device(asked.device, asked.gpu, ranks=bool(asked.ranks))
    registry = find_backends()
    available = choose_backends(registry, asked, device)
    slots: tuple[Slot, ...] = ()
    if asked.ranks:
        available = with_distributed_modes(available, device, named=bool(asked.backends))
        cells = ranked_cells(asked, available, device, plain=True)
        slots = (hosts or Hosts()).slots(device, max(asked.ranks), available, asked.devices)
    else:
        cells = chosen_cells(asked, available, device, plan.preset.modes)
        if plan.preset.taught_on in {cell.workload for cell in cells} and not asked.modes:
            if not asked.backends:
                available = with_requested(registry, available, asked, device)
            cells += _taught_beside(cells, plan, available, device)
    return Prepared(
        preset=plan.preset,
        cells=cells,
        workloads=_with_targets(chosen_workloads(asked), plan.targets),
        available=available,
        sample=asked.sample,
        limit=asked.limit,
        slots=slots,
    )


def _with_targets(workloads: Sequence[Workload], targets: Mapping[str, float]) -> tuple[Workload, ...]:
    """Return the workloads with their targets; raise UsageError for a target of another workload."""
    names = [workload.name for workload in workloads]
    for name in targets:
        if name not in names:
            raise UsageError(f"--target {name}: this run has no such workload; it has {listed(names)}.")
    return tuple(
        msgspec.structs.replace(workload, target_accuracy=targets[workload.name])
        if workload.name in targets
        else workload
        for workload in workloads
    )


def _taught_beside(
    cells: Sequence[Cell], plan: RunPlan, available: Available, device: Device
) -> tuple[Cell, ...]:
    """Return the cells as taught that the preset measures beside the others."""
    workloads = (plan.preset.taught_on,) if plan.preset.taught_on else ()
    asked = msgspec.structs.replace(plan.asked, workloads=workloads, modes=("taught",), backends=())
    return tuple(cell for cell in chosen_cells(asked, available, device, "taught") if cell not in cells)


def prepare_resumed(folder: Path, pythons: Mapping[str, Path], hosts: Hosts | None = None) -> Prepared:
    """Find what a run was begun with; raise RecordError where machine or versions have changed."""
    header = read_run(folder).header
    device = header.cells[0].device
    slots: tuple[Slot, ...] = ()
    if header.ranks:
        choose_device(device, ranks=True)
    else:
        choose_again(device, header.environment)
    available = backends_of_run(find_backends(), header, pythons)
    hosts = hosts or Hosts()
    if hosts.dealt and not header.ranks:
        raise UsageError(f"{header.run_id} has no ranks: go on with it without a launcher, in one process.")
    if header.ranks:
        devices = () if hosts.dealt else header.devices
        slots = hosts.slots(device, max(header.ranks), available, devices)
        _refuse_other_places(header, slots)
    return Prepared(
        preset=find_preset(header.preset),
        cells=header.cells,
        workloads=header.workloads,
        available=available,
        sample=header.sample,
        limit=header.dataset_limit,
        begun=resumed_run(folder, available),
        slots=slots,
    )


def _refuse_other_places(header: RunHeader, slots: Sequence[Slot]) -> None:
    """Raise RecordError if the ranks are not where they were when the run began."""
    begun = header.hosts, header.devices
    here = hosts_of(slots), tuple(map(device_number, slots))
    if begun != here:
        was, now = (
            listed([*hosts, "devices " + ", ".join(map(str, found))]) for hosts, found in (begun, here)
        )
        raise RecordError(
            f"{header.run_id} was begun with its ranks on {was}; now they are on {now}. Figures of different "
            "machines do not mix: start a new run."
        )


def new_run(
    results: Path,
    plan: RunPlan,
    *,
    cells: tuple[Cell, ...],
    workloads: Sequence[Workload],
    available: Available,
    slots: Sequence[Slot] = (),
) -> Run:
    """Make the folder of a new run and write its header."""
    now = datetime.now(UTC)
    step_flops = {workload.name: _step_flops(workload) for workload in workloads}
    expected = partial(
        make_plan, step_flops=step_flops, min_blocks=plan.min_blocks, windows=plan.preset.windows,
        window_s=plan.preset.window_s, budget_s=plan.budget_s, seeds=plan.seeds,
    )  # fmt: skip
    candidates = _quickest(cells, workloads, available, step_flops)
    if slots:  # its rows are compared with each other, and not with those of other frameworks alone
        candidates = []
    placebo = random.Random(f"{plan.seed} placebo").choice(candidates) if candidates else None  # noqa: S311
    if placebo is not None and expected([placebo]).blocks_s > PLACEBO_SHARE * plan.budget_s:
        placebo = None
    usable = {name: info for name, info in available.infos.items() if name not in available.unavailable}
    sizes = footprints(list(usable.values()), plan.asked.pythons)
    gives = plan.preset.lessons and not slots
    teaching = sum(info.lessons is not None for info in usable.values()) if gives else 0
    header = RunHeader(
        run_id=f"run-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}",
        created_at=now.isoformat(timespec="seconds"),
        command=("bench", *sys.argv[1:]),
        preset=plan.preset.name,
        budget_s=plan.budget_s,
        min_blocks=plan.min_blocks,
        target_half_width=plan.target_half_width,
        seeds=plan.seeds,
        lead_s=plan.lead_s,
        placebo=placebo,
        ranks=plan.asked.ranks,
        devices=tuple(map(device_number, slots)),
        hosts=hosts_of(slots),
        planned=expected(
            [*cells, *([placebo] if placebo else [])], lessons_s=lessons_seconds(teaching, plan.budget_s)
        ),
        seed=plan.seed,
        dataset_limit=plan.asked.limit,
        sample=plan.asked.sample,
        cells=cells,
        workloads=tuple(workloads),
        backends=tuple(
            backend_here(info, available.versions[name], sizes.get(name))
            for name, info in available.infos.items()
        ),
        environment=capture_environment(cells[0].device),
    )
    return Run(folder=create_run(results, header), header=header, records=())


def _quickest(
    cells: Sequence[Cell],
    workloads: Sequence[Workload],
    available: Available,
    step_flops: Mapping[str, float],
) -> list[Cell]:
    """Return the tuned cells of the workload with the shortest steps, of those that are ranked."""
    matched = {workload.name for workload in workloads if workload.matched}
    infos = {name: one for name, one in available.infos.items() if name not in available.unavailable}
    tuned = {
        (name, mode.name)
        for name, info in infos.items()
        for mode in info.modes
        if mode.level == "tuned" and not info.reference
    }
    found = [one for one in cells if (one.backend, one.mode) in tuned and one.workload in matched]
    least = min((step_flops[one.workload] for one in found), default=0.0)
    return [one for one in found if step_flops[one.workload] == least]


def _step_flops(workload: Workload) -> float:
    info = workload.seen(DATASETS[workload.dataset].info)
    return training_flops(workload.architecture, info, workload.batch_size)


def ranks_in_words(header: RunHeader) -> str:
    """Return where the processes of a run with ranks run."""
    numbers = ", ".join(map(str, header.ranks))
    if header.cells[0].device == "gpu":
        return f"Ranks: {numbers}. Every process sees one GPU of {len(header.devices)}."
    names = header.hosts or ("",) * len(header.devices)
    cores = ", ".join(f"{host} {core}".strip() for host, core in zip(names, header.devices, strict=True))
    return (
        f"Ranks: {numbers}. Every process has one thread, and one CPU core to which it is pinned, in rows "
        f"of one process too. The cores by rank: {cores}."
    )


def plan_in_words(header: RunHeader) -> str:
    """Return what a run will do and about how long each part takes."""
    plan = header.planned
    parts = [f"parity {duration(plan.parity_s)}", f"{plan.jobs} jobs in blocks {duration(plan.blocks_s)}"]
    if plan.training_s:
        parts.append(f"training for accuracy {duration(plan.training_s)}")
    if plan.refining_s:
        parts.append(f"more blocks {duration(plan.refining_s)}")
    if plan.lessons_s:
        parts.append(f"lessons for a course {duration(plan.lessons_s)}")
    said = f"Plan for {duration(header.budget_s)}: about {', '.join(parts)}."
    if plan.refining_s:
        said += f" It ends sooner once every ratio is known to ±{100 * header.target_half_width:g} %."
    needed_s = plan.parity_s + plan.blocks_s + plan.lessons_s
    if needed_s > header.budget_s:
        said += (
            " That does not fit into the budget, so some rows will have too few blocks to be ranked. Use"
            f" --budget {math.ceil(needed_s / 60)}m or more, or fewer rows (--workload, --backend, --mode)."
        )
    return said


def resumed_run(folder: Path, available: Available) -> Run:
    """Read a run that is to be continued; raise RecordError where machine or versions have changed.

    Lines that cannot be read are moved aside, and named in the run's `rejected`.
    """
    rejected = quarantine_rejected(folder)
    run = msgspec.structs.replace(read_run(folder), rejected=rejected)
    begun, here = run.header.environment, capture_environment(run.header.cells[0].device)
    if not begun.same_machine(here):
        raise RecordError(
            f"{folder.name} was begun on another machine ({begun.in_words()}); "
            f"this is {here.in_words()}. Figures of two machines do not mix: start a new run."
        )
    if changed := begun.changed_variables(here):
        raise RecordError(
            f"{folder.name} was begun with other environment variables: {'; '.join(changed)}. "
            "Set them as they were, or start a new run."
        )
    for backend in run.header.backends:
        if available.versions.get(backend.name, backend.versions) != backend.versions:
            raise RecordError(
                f"{folder.name} was begun with {backend.title} {backend.versions}; "
                f"here is {available.versions[backend.name]}. Start a new run."
            )
    return run
