"""Prepare two sides for measuring: their code and environments, the cells, and the header of the record."""

import secrets
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from backends.info import BackendInfo
from bench.errors import RecordError, UnavailableError, UsageError, unknown
from bench.gate.environments import (
    PROJECT,
    concerned,
    copy_code,
    fetch_code,
    holds_pinned,
    make_environment,
    needs_own,
)
from bench.gate.records import ONLY_IN_BASE, ONLY_IN_HEAD, AbHeader
from bench.gate.sides import SIDES, Side, SideHere, SideName, SideSpec, code_digest, code_variables, describe
from bench.machine.environment import capture_environment, source_state
from bench.measuring.backends import Registry, find_backends, installed_versions, interpreter
from bench.measuring.interpreters import program_fault
from bench.measuring.selection import Asked, backend_here, choose_cells
from bench.progress import Display
from bench.worker.protocol import VERSION
from bench.workloads.specs import Cell, Device

WORKLOADS = ("mnist-softmax", "mnist-mlp", "mnist-cnn")
"""What is compared when no workload is named: steps of a tenth of a millisecond, of one or two, and of 50."""
WINDOWS = 30
WINDOW_S = 0.05


class AbPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a comparison side by side measures, and how much of it."""

    asked: Asked
    base: SideSpec
    head: SideSpec
    budget_s: float
    first_blocks: int
    most_blocks: int
    confirm_blocks: int


class Folders(msgspec.Struct, frozen=True, kw_only=True):
    """Where results, data sets, and the code and environments of the sides are."""

    results: Path
    data: Path
    environments: Path


def in_words(side: SideHere) -> str:
    """Return a side in words: its code, versions and variables."""
    code = f"commit {side.commit[:10]}" if side.commit else "this code"
    changed = " with changes" if side.dirty else ""
    parts = [f"{code}{changed}"]
    parts += [f"{name} {version}" for one in side.backends for name, version in one.versions.items()]
    parts += [f"{name}={value}" for name, value in side.variables.items()]
    return ", ".join(dict.fromkeys(parts))


def make_sides(
    plan: AbPlan, device: Device, *, folders: Folders, place: Path, display: Display
) -> Mapping[SideName, Side]:
    """Return both sides, their code copied into the folder `place` and their environments made."""
    specs: dict[SideName, SideSpec] = {"base": plan.base, "head": plan.head}
    if len({(spec.revision, str(spec.pins), str(spec.variables)) for spec in specs.values()}) == 1:
        raise UsageError(
            "base and head are the same: ask for another commit, version or variable with --base or --head."
        )
    registry = find_backends()
    _refuse_mistaken_variables(specs.values(), registry.backends.values())
    infos = _compared(registry, plan.asked.backends, specs.values())
    named = {info.name: interpreter(info, plan.asked.pythons).absolute() for info in infos}
    codes = {name: _find_code(spec, folders) for name, spec in specs.items()}
    apart = any(needs_own(spec, codes[name].folder) for name, spec in specs.items())
    sides: dict[SideName, Side] = {}
    for name, spec in specs.items():
        source = codes[name].folder
        made = (
            _make_environments(spec, source, infos, named, device, folders=folders, display=display)
            if apart
            else {}
        )
        pythons = {**named, **made}
        sides[name] = _make_side(
            name, spec, codes[name], pythons=pythons, made=tuple(made), place=place / name
        )
    _refuse_other_protocols(sides)
    return sides


def _compared(registry: Registry, asked: Sequence[str], specs: Iterable[SideSpec]) -> list[BackendInfo]:
    """Return the backends that are compared: those asked for, those whose versions a side names, or all."""
    if asked:
        return [registry.find(name) for name in dict.fromkeys(asked)]
    known = {info.name: info for info in registry.frameworks()}
    versioned = {name for spec in specs if spec.pins for name in concerned(spec, known)}
    return [info for info in known.values() if info.name in versioned] or list(known.values())


class _Code(msgspec.Struct, frozen=True, kw_only=True):
    """The code of a side, in the folder where it was found."""

    folder: Path
    commit: str | None
    dirty: bool | None


def _find_code(spec: SideSpec, folders: Folders) -> _Code:
    if spec.revision is None:
        commit, dirty = source_state(PROJECT)
        return _Code(folder=PROJECT, commit=commit, dirty=dirty)
    folder, commit = fetch_code(spec.revision, folders.environments / "code")
    return _Code(folder=folder, commit=commit, dirty=False)


def _make_environments(
    spec: SideSpec,
    source: Path,
    infos: Sequence[BackendInfo],
    named: Mapping[str, Path],
    device: Device,
    *,
    folders: Folders,
    display: Display,
) -> dict[str, Path]:
    """Make the environments of a side where one side needs its own; return their interpreters by backend.

    The other side gets environments too: two that were made in different ways differ in speed although they
    hold the same packages (docs/trials.md). An interpreter in `named` that holds other versions than those
    that the code pins is kept, because these versions are what is asked for.
    """
    made = {}
    for info in infos:
        if not needs_own(spec, source):
            versions, _ = installed_versions([info], named)[info.name]
            if not holds_pinned(versions, source):
                continue
        made[info.name] = make_environment(
            spec, source, info.name, device, folder=folders.environments, display=display
        )
    return made


def _refuse_other_protocols(sides: Mapping[SideName, Side]) -> None:
    """Raise RecordError if the workers of base and head follow different protocols."""
    base, head = (sides[name].described.protocol for name in SIDES)
    if not base == head == VERSION:
        raise RecordError(
            f"base's workers follow protocol {base}, head's {head} and this program {VERSION}, so they would "
            "not measure the same. Compare nearer commits, with the program of one of them."
        )


def _refuse_mistaken_variables(specs: Iterable[SideSpec], infos: Iterable[BackendInfo]) -> None:
    """Raise UsageError for a version that was written as a variable, as both sides would be the same."""
    packages = {name for info in infos for name in (info.name, *info.packages)}
    for spec in specs:
        for name, value in spec.variables.items():
            if name.lower() in packages or value.startswith("="):
                raise UsageError(
                    f"{name}={value} would set a variable; a version is written {name}=={value.strip('= ')}."
                )


def _make_side(
    name: SideName,
    spec: SideSpec,
    code: _Code,
    *,
    pythons: Mapping[str, Path],
    made: tuple[str, ...],
    place: Path,
) -> Side:
    """Return a side that can be measured. Its workers run a copy of its code in the new folder `place`."""
    _refuse_unable(name, pythons, code.folder)
    described = describe(next(iter(pythons.values())), code.folder)
    registry = find_backends()
    found = installed_versions(
        [info for backend, info in described.backends.items() if backend in pythons], pythons
    )
    for backend, (present, missing) in found.items():
        _refuse_doubled(name, registry.find(backend), present)
        if missing:
            raise UnavailableError(
                f"{name}: backend {backend!r}: not installed: {', '.join(missing).replace('|', ' or ')}. "
                f"Install it, leave the backend out, or name an interpreter that has it: --python "
                f"{backend}=PATH"
            )
    return Side(
        name=name, spec=spec, source=copy_code(code.folder, place), commit=code.commit, dirty=code.dirty,
        pythons=pythons, made=made, described=described,
        versions={backend: versions for backend, (versions, _) in found.items()},
    )  # fmt: skip


def _refuse_unable(name: SideName, pythons: Mapping[str, Path], source: Path) -> None:
    """Raise UnavailableError for an interpreter that lacks what the side's workers import."""
    if not (source / "bench" / "worker" / "__main__.py").is_file():  # a commit from before there was one
        return
    for backend, python in pythons.items():
        fault = program_fault(python, variables=code_variables(source), source=source)
        if fault is not None:
            raise UnavailableError(f"{name}: backend {backend!r}: {fault}")


def _refuse_doubled(name: SideName, info: BackendInfo, present: Mapping[str, str]) -> None:
    """Raise UsageError if two builds of one package are installed, as it is not known which one runs."""
    for needed in info.distributions:
        builds = [build for build in needed.split("|") if build in present]
        if len(builds) > 1:
            raise UsageError(
                f"{name}: backend {info.name!r}: {' and '.join(builds)} are builds of one package, and both "
                f"are installed. Ask for the one that is installed anyway: {builds[-1]}=={present[builds[0]]}"
            )


def _here(side: Side, cells: Sequence[Cell]) -> SideHere:
    used = {cell.workload for cell in cells}
    return SideHere(
        asked=side.spec.asked,
        commit=side.commit,
        dirty=side.dirty,
        code=code_digest(side.source),
        variables=dict(side.spec.variables),
        pins=dict(side.spec.pins),
        made=side.made,
        backends=tuple(
            backend_here(info, side.versions[info.name])
            for info in side.described.backends.values()
            if info.name in side.pythons
        ),
        workloads=tuple(workload for name, workload in side.described.workloads.items() if name in used),
    )  # fmt: skip


def _cells(side: Side, asked: Asked, device: Device) -> tuple[Cell, ...]:
    return choose_cells(
        workloads=[name for name in asked.workloads or WORKLOADS if name in side.described.workloads],
        backends=[side.described.backends[name] for name in side.pythons if name in side.described.backends],
        modes=asked.modes,
        preset_modes="default",
        device=device,
        precision=asked.precision,
        named=bool(asked.backends),
    )


def new_header(plan: AbPlan, device: Device, sides: Mapping[SideName, Side]) -> AbHeader:
    """Return the header of a new comparison; raise UsageError for a workload that cannot be compared."""
    asked = plan.asked
    known = {name for side in sides.values() for name in side.described.workloads}
    for name in asked.workloads:
        if name not in known:
            raise unknown("workload", name, sorted(known), "bench list shows all")
    for side in sides.values():
        for name in asked.workloads:
            if name in side.described.workloads and not side.described.workloads[name].matched:
                raise UsageError(
                    f"{name} trains by each framework's own defaults, which have no reference, so it "
                    f"could never pass. Take {name.removesuffix('-defaults')}."
                )
    base, head = (_cells(sides[name], asked, device) for name in SIDES)
    cells = tuple(cell for cell in base if cell in head)
    missing = {str(cell): ONLY_IN_BASE for cell in base if cell not in head}
    missing |= {str(cell): ONLY_IN_HEAD for cell in head if cell not in base}
    if not asked.backends and not plan.base.pins and not plan.head.pins:
        missing |= _unasked(sides)
    now = datetime.now(UTC)
    return AbHeader(
        run_id=f"ab-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}",
        created_at=now.isoformat(timespec="seconds"),
        command=("bench", *sys.argv[1:]),
        budget_s=plan.budget_s,
        first_blocks=plan.first_blocks,
        most_blocks=plan.most_blocks,
        confirm_blocks=plan.confirm_blocks,
        windows=WINDOWS,
        window_s=WINDOW_S,
        sample=asked.sample,
        parity_of_base=True,
        cells=cells,
        missing=missing,
        base=_here(sides["base"], cells),
        head=_here(sides["head"], cells),
        environment=capture_environment(device),
    )


def _unasked(sides: Mapping[SideName, Side]) -> dict[str, str]:
    """Return the frameworks that one side lacks or broke, and which are not compared, with the reason."""
    base, head = (sides[name].described for name in SIDES)
    before, now = (
        {info.name for info in one.backends.values() if not (info.on_request or info.reference)}
        for one in (base, head)
    )
    compared = set(sides["head"].pythons)
    found = dict.fromkeys(sorted(now - before - compared), ONLY_IN_HEAD)
    found |= dict.fromkeys(sorted(before - compared), ONLY_IN_BASE)
    return found | {name: why for name, why in head.broken.items() if name not in base.broken}


def refuse_others(begun: AbHeader, now: AbHeader) -> None:
    """Raise RecordError on another machine or with other sides, and UsageError with other options."""
    if not begun.environment.same_machine(now.environment):
        raise RecordError(
            f"{begun.run_id} was begun on another machine ({begun.environment.in_words()}); "
            f"this is {now.environment.in_words()}. Start a new comparison."
        )
    if changed := begun.environment.changed_variables(now.environment):
        raise RecordError(
            f"{begun.run_id} was begun with other environment variables: {'; '.join(changed)}. "
            "Set them as they were, or start a new comparison."
        )
    for name in SIDES:
        before, here = begun.side(name), now.side(name)
        if before != here:
            edited = "; its code has been edited since" if in_words(before) == in_words(here) else ""
            raise RecordError(
                f"{begun.run_id} was begun with another {name}: {in_words(before)}; "
                f"here it is {in_words(here)}{edited}. Start a new comparison."
            )
    for what in ("cells", "first_blocks", "most_blocks", "confirm_blocks", "sample"):
        if getattr(begun, what) != getattr(now, what):
            raise UsageError(
                f"{begun.run_id} was begun with other {what.replace('_', ' ')}. Go on with the same command "
                "and --resume, or start a new comparison."
            )
