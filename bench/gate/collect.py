"""Measure two sides side by side: base and head of a cell take turns, block by block, until all is decided.

Blocks go breadth first, so that a comparison that is cut short has measured everything a little. What the
first series finds worse is measured again, in a second series with seeds of its own, before it counts.
"""

import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

import msgspec

from backends.info import BackendInfo
from bench.errors import RecordError, UnavailableError, UsageError, unknown
from bench.gate.environments import PROJECT, concerned, fetch_code, make_environment, needs_own
from bench.gate.judge import Next, compiles_anew, judge_cell, last_parity, looks, next_step, trains
from bench.gate.records import (
    ONLY_IN_BASE,
    ONLY_IN_HEAD,
    Ab,
    AbBlock,
    AbHeader,
    AbParity,
    AbRecord,
    Series,
    append_ab,
    create_ab,
    find_ab,
    read_ab,
)
from bench.gate.sides import SIDES, Side, SideHere, SideName, SideSpec, code_digest, describe
from bench.machine.environment import capture_environment, source_state
from bench.machine.known_faults import known_faults
from bench.measuring.backends import find_backends, installed_versions, interpreter
from bench.measuring.block import BlockJob, run_block
from bench.measuring.data import Split, prepare_data
from bench.measuring.design import SMALLEST_TRAINING, balanced_order
from bench.measuring.job import job_record
from bench.measuring.parity import plan_parity, verify_cells
from bench.measuring.selection import choose_cells, choose_device
from bench.progress import Display
from bench.records.schema import BackendHere, JobSpec, ParityRecord
from bench.worker.protocol import VERSION, Evaluated, Event, MeasureTask, Ready, Timed
from bench.workloads.specs import Cell, Device, Precision

WORKLOADS = ("mnist-softmax", "mnist-mlp", "mnist-cnn")
"""What is compared when no workload is named: steps of a tenth of a millisecond, of one or two, and of 50."""
WINDOWS = 30
WINDOW_S = 0.05
TRAINING_S = 1.5
"""About how long a training for accuracy takes: equal starts and batches tell a wrong rate or label early."""
MOST_EPOCHS = 1.0
TEST_SAMPLES = 2000
"""Of the test split: equal trainings give equal answers, and a wrong one shows on a fifth of it."""
SECOND_SEEDS = 1000
"""Where the seeds of the second series begin: it shares none with the first."""
BLOCK_GUESS_S = 15.0
"""What a block is thought to take before any has run."""
TIME_LIMIT_S = 300.0
PATIENCE_S = 10.0
"""From a block's first round until none is taken any more for those that the hypervisor disturbed: base and
head meet the same of it, and a gate has an end. About three times what all rounds take."""


class Asking(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asks for."""

    base: SideSpec
    head: SideSpec
    workloads: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    device: str = "auto"
    precision: Precision = "fp32"
    pythons: Mapping[str, Path] = {}
    sample: bool = False
    budget_s: float
    first_blocks: int
    most_blocks: int
    confirm_blocks: int


class Folders(msgspec.Struct, frozen=True, kw_only=True):
    """Where results, data sets, and the code and environments of the sides are."""

    results: Path
    data: Path
    environments: Path


def measure(asked: Asking, *, folders: Folders, resume: str | None, offline: bool, display: Display) -> Ab:
    """Measure all that was asked, or go on with what was begun, and return the whole as read from its file.

    KeyboardInterrupt passes through, with every block so far on disk, after telling how to go on.
    """
    device = choose_device(asked.device)
    sides = make_sides(asked, device, folders=folders, display=display)
    header = _new_header(asked, device, sides)
    begun = None
    if resume is not None:
        begun = read_ab(find_ab(folders.results, resume))
        _refuse_others(begun.header, header)
        # The budget is what this sitting may take.
        header = msgspec.structs.replace(begun.header, budget_s=asked.budget_s)
    splits = prepare_data(
        header.base.workloads, cache=folders.data, sample=header.sample, limit=None, offline=offline,
        display=display,
    )  # fmt: skip
    folder = create_ab(folders.results, header) if begun is None else begun.folder
    display.say(f"Comparison {header.run_id} on {header.environment.in_words()}")
    for name in SIDES:
        display.say(f"  {name}: {in_words(header.side(name))}")
        for one in header.side(name).backends:
            for warning in known_faults(one.versions, device):
                display.say(f"  WARNING: {name}: {warning}")
    for cell, why in header.missing.items():
        display.say(f"  {cell}: {why}")
    try:
        Collector(
            Ab(folder=folder, header=header, records=begun.records if begun else ()),
            sides=sides, splits=splits, display=display,
        ).run()  # fmt: skip
    except KeyboardInterrupt:
        display.say("Interrupted; all finished blocks are kept.")
        display.say(f"Go on with the same command and --resume {header.run_id}")
        raise
    return read_ab(folder)


def in_words(side: SideHere) -> str:
    """Return what a side is, for a person."""
    code = f"commit {side.commit[:10]}" if side.commit else "this code"
    changed = " with changes" if side.dirty else ""
    parts = [f"{code}{changed}"]
    parts += [f"{name} {version}" for one in side.backends for name, version in one.versions.items()]
    parts += [f"{name}={value}" for name, value in side.variables.items()]
    return ", ".join(dict.fromkeys(parts))


# ---- the sides


def make_sides(
    asked: Asking, device: Device, *, folders: Folders, display: Display
) -> Mapping[SideName, Side]:
    """Return both sides, their code fetched and their environments made."""
    specs: dict[SideName, SideSpec] = {"base": asked.base, "head": asked.head}
    if len({(spec.revision, str(spec.pins), str(spec.variables)) for spec in specs.values()}) == 1:
        raise UsageError(
            "base and head are the same: ask for another commit, version or variable with --base or --head."
        )
    registry = find_backends()
    known = {info.name: info for info in registry.frameworks()}
    _refuse_mistaken_variables(specs.values(), registry.backends.values())
    if asked.backends:
        names = list(dict.fromkeys(asked.backends))
        for name in names:
            registry.find(name)
    else:
        names = [
            name
            for name in known
            if any(spec.pins and name in concerned(spec, known) for spec in specs.values())
        ] or list(known)
    sides = {
        name: _make_side(name, spec, names, asked, device, folders=folders, display=display)
        for name, spec in specs.items()
    }
    _refuse_other_protocols(sides)
    return sides


def _refuse_other_protocols(sides: Mapping[SideName, Side]) -> None:
    """Raise RecordError where the workers of base and of head would not do the same when asked the same."""
    base, head = (sides[name].described.protocol for name in SIDES)
    if not base == head == VERSION:
        raise RecordError(
            f"base's workers follow protocol {base}, head's {head} and this program {VERSION}, so they would "
            "not measure alike. Compare commits that are nearer to each other, by the program of one of them."
        )


def _refuse_mistaken_variables(specs: Iterable[SideSpec], infos: Iterable[BackendInfo]) -> None:
    """Raise UsageError for a version that was written as a variable: both sides would be the same."""
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
    backends: Sequence[str],
    asked: Asking,
    device: Device,
    *,
    folders: Folders,
    display: Display,
) -> Side:
    if spec.revision is None:
        source = PROJECT
        commit, dirty = source_state(source)
    else:
        source, commit = fetch_code(spec.revision, folders.environments / "code")
        dirty = False
    registry = find_backends()
    pythons: dict[str, Path] = {}
    for backend in backends:
        if needs_own(spec, source):
            pythons[backend] = make_environment(
                spec, source, backend, device, folder=folders.environments, display=display
            )
        else:
            pythons[backend] = interpreter(registry.find(backend), asked.pythons).absolute()
    described = describe(next(iter(pythons.values())), source)
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
        name=name, spec=spec, source=source, commit=commit, dirty=dirty, pythons=pythons,
        described=described, versions={backend: versions for backend, (versions, _) in found.items()},
    )  # fmt: skip


def _refuse_doubled(name: SideName, info: BackendInfo, present: Mapping[str, str]) -> None:
    """Raise UsageError where two builds of one package lie in one folder: nobody could say which is run."""
    for needed in info.distributions:
        builds = [build for build in needed.split("|") if build in present]
        if len(builds) > 1:
            raise UsageError(
                f"{name}: backend {info.name!r}: {' and '.join(builds)} are builds of one package, and both "
                f"are installed. Ask for the one that is there anyway: {builds[-1]}=={present[builds[0]]}"
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
        backends=tuple(
            BackendHere(
                name=info.name, title=info.title, taught_mode=info.taught_mode,
                modes={mode.name: mode.summary for mode in info.modes}, reference=info.reference,
                versions=dict(side.versions[info.name]),
            )
            for info in side.described.backends.values()
            if info.name in side.pythons
        ),
        workloads=tuple(workload for name, workload in side.described.workloads.items() if name in used),
    )  # fmt: skip


def _cells(side: Side, asked: Asking, device: Device) -> tuple[Cell, ...]:
    return choose_cells(
        workloads=[name for name in asked.workloads or WORKLOADS if name in side.described.workloads],
        backends=[side.described.backends[name] for name in side.pythons if name in side.described.backends],
        modes=asked.modes,
        preset_modes="taught",
        device=device,
        precision=asked.precision,
        named=bool(asked.backends),
    )


def _new_header(asked: Asking, device: Device, sides: Mapping[SideName, Side]) -> AbHeader:
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
    if not asked.backends and not asked.base.pins and not asked.head.pins:
        missing |= _unasked(sides)
    now = datetime.now(UTC)
    return AbHeader(
        run_id=f"ab-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}",
        created_at=now.isoformat(timespec="seconds"),
        command=("bench", *sys.argv[1:]),
        budget_s=asked.budget_s,
        first_blocks=asked.first_blocks,
        most_blocks=asked.most_blocks,
        confirm_blocks=asked.confirm_blocks,
        windows=WINDOWS,
        window_s=WINDOW_S,
        sample=asked.sample,
        cells=cells,
        missing=missing,
        base=_here(sides["base"], cells),
        head=_here(sides["head"], cells),
        environment=capture_environment(),
    )


def _unasked(sides: Mapping[SideName, Side]) -> dict[str, str]:
    """Return, and why, the frameworks that are not compared as one side lacks them or broke them."""
    base, head = (sides[name].described for name in SIDES)
    before, now = (
        {info.name for info in one.backends.values() if not (info.on_request or info.reference)}
        for one in (base, head)
    )
    compared = set(sides["head"].pythons)
    found = dict.fromkeys(sorted(now - before - compared), ONLY_IN_HEAD)
    found |= dict.fromkeys(sorted(before - compared), ONLY_IN_BASE)
    return found | {name: why for name, why in head.broken.items() if name not in base.broken}


def _refuse_others(begun: AbHeader, now: AbHeader) -> None:
    """Raise RecordError where this is another machine, or something else is asked than was begun."""
    if not begun.environment.same_machine(now.environment):
        raise RecordError(
            f"{begun.run_id} was begun on another machine ({begun.environment.in_words()}); "
            f"this is {now.environment.in_words()}. Start a new comparison."
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


# ---- the measuring


class Collector:
    """Measures what is not there yet, and appends each block as it ends."""

    def __init__(
        self, so_far: Ab, *, sides: Mapping[SideName, Side], splits: Mapping[str, Split], display: Display
    ) -> None:
        self._ab, self._sides, self._splits, self._display = so_far, sides, splits, display
        self._header = so_far.header
        self._begun = time.monotonic()

    def run(self) -> None:
        with tempfile.TemporaryDirectory(prefix="samework-compiled-") as folder:
            self._compiled = Path(folder)
            self._prove_parity()
            for wanted in ("block", "confirm"):
                while cells := self._due(wanted):
                    for cell in cells:
                        if self._spent_s() < self._header.budget_s:
                            self._run_block(cell, "first" if wanted == "block" else "second")
                    if self._spent_s() >= self._header.budget_s:
                        self._display.say("The budget is spent; what is still undecided stays so.")
                        return

    def _due(self, wanted: Next) -> list[Cell]:
        return [cell for cell in self._header.cells if next_step(self._ab, cell) == wanted]

    def _append(self, record: AbRecord) -> None:
        append_ab(self._ab.folder, record)
        self._ab = msgspec.structs.replace(self._ab, records=(*self._ab.records, record))

    def _prove_parity(self) -> None:
        """Compare every cell of head with the reference, and where that fails, base too.

        Head is to blame only for what base does right.
        """
        self._prove("head", self._header.cells)
        heads = {cell: last_parity(self._ab, cell, "head") for cell in self._header.cells}
        failed = [cell for cell, record in heads.items() if record is not None and not record.ok]
        self._prove("base", failed)
        for cell in failed:
            self._display.say(f"  {cell}: {judge_cell(self._ab, cell).why}")

    def _prove(self, name: SideName, wanted: Sequence[Cell]) -> None:
        """Compare cells of a side with the reference, as far as that was not done before."""
        # What ran out of time or memory may not do so again.
        proven = {
            one.parity.cell
            for one in self._ab.parity
            if one.side == name and (one.parity.ok or one.parity.checks)
        }
        side = self._sides[name]
        workloads = side.described.workloads
        cells = [cell for cell in wanted if cell not in proven and workloads[cell.workload].matched]
        if not cells:
            return
        self._display.say(f"Parity: {len(cells)} cells of {name} against the float64 reference")

        def note(record: ParityRecord) -> None:
            self._append(AbParity(side=name, parity=record))

        verify_cells(
            plan_parity(cells, workloads, optimizers=False),
            {cell.backend: side.info(cell.backend) for cell in cells},
            side.pythons,
            self._display,
            note,
        )

    def _run_block(self, cell: Cell, series: Series) -> None:
        number = 1 + max((block.block for block in self._ab.blocks_of(cell, series)), default=-1)
        names = [SIDES[place] for place in balanced_order(2, number)]
        epochs = self._epochs(cell) if trains(self._ab, cell, series) else 0.0
        self._show(cell, series, number)
        started_at, began = datetime.now(UTC).isoformat(), time.monotonic()
        jobs = [
            self._job(cell, name, series=series, number=number, place=place, epochs=epochs)
            for place, name in enumerate(names)
        ]
        outcome = run_block(jobs, on_event=self._follow(), together=True, patience_s=PATIENCE_S)
        records = {
            name: job_record(job.task.spec, ended, started_at=started_at)
            for name, job, ended in zip(names, jobs, outcome.outcomes, strict=True)
        }
        self._append(
            AbBlock(
                series=series, block=number, cell=cell, started_at=started_at,
                wall_s=time.monotonic() - began, rounds=outcome.rounds, first=names[0],
                conditions=outcome.conditions, base=records["base"], head=records["head"],
            )
        )  # fmt: skip
        for name, record in records.items():
            if record.status != "ok":
                self._display.say(f"  {cell}, {name}: {record.status}: {record.error}")
        judged = judge_cell(self._ab, cell)
        if next_step(self._ab, cell) != ("block" if series == "first" else "confirm"):
            self._display.say(f"  {cell}: {judged.standing}: {judged.why}")

    def _job(
        self, cell: Cell, name: SideName, *, series: Series, number: int, place: int, epochs: float
    ) -> BlockJob:
        side = self._sides[name]
        anew = compiles_anew(self._ab, cell, series)
        kept = self._compiled / f"{cell.workload}.{cell.backend}.{cell.mode}.{name}"
        spec = JobSpec(
            job_id=f"{cell.workload}.{cell.backend}.{cell.mode}.{series}.{number}.{name}",
            cell=cell,
            workload=side.described.workloads[cell.workload],
            seed=number + (SECOND_SEEDS if series == "second" else 0),
            block=number,
            position=place,
            hash_seed=secrets.randbits(32),
            windows=self._header.windows,
            window_s=self._header.window_s,
            epochs=epochs,
            time_limit_s=TIME_LIMIT_S,
            only_last=True,
            test_samples=TEST_SAMPLES,
            compiles_anew=anew,
        )
        task = MeasureTask(
            backend=side.info(cell.backend), data=self._splits[cell.workload].source, spec=spec
        )
        return BlockJob(
            task=task,
            python=side.pythons[cell.backend],
            window_steps=self._window_steps(cell),
            compiled=None if anew else kept,
        )

    def _window_steps(self, cell: Cell) -> int | None:
        return next(
            (
                job.windows[0].steps
                for block in self._ab.blocks
                if block.cell == cell
                for job in (block.base, block.head)
                if job.windows
            ),
            None,
        )

    def _epochs(self, cell: Cell) -> float:
        """Return the epochs to train, the same in every block: as many as base trains in `TRAINING_S`."""
        blocks = [block for block in self._ab.blocks if block.cell == cell]
        chosen = next((block.base.spec.epochs for block in blocks if block.base.spec.epochs), None)
        if chosen is not None:
            return chosen
        windows = [window for block in blocks for window in block.base.windows]
        if not windows:
            return SMALLEST_TRAINING
        rate = sum(window.samples for window in windows) / sum(window.seconds for window in windows)
        fitting = TRAINING_S * rate / self._splits[cell.workload].train
        return min(MOST_EPOCHS, max(1, int(fitting / SMALLEST_TRAINING)) * SMALLEST_TRAINING)

    # Progress

    def _follow(self) -> Callable[[int, Event], None]:
        ready, timed = 0, 0
        turns = 2 * self._header.windows

        def follow(_place: int, event: Event) -> None:
            nonlocal ready, timed
            match event:
                case Ready():
                    ready += 1
                    self._display.job(f"{ready} of 2 processes are warmed up", ready / 2)
                case Timed():
                    timed += 1
                    self._display.job(f"turn {timed} of {max(timed, turns)}", min(1.0, timed / turns))
                case Evaluated(point=point, of_epochs=of_epochs):
                    self._display.job(f"epoch {point.epoch:.2f} of {of_epochs:.2f}", point.epoch / of_epochs)

        return follow

    def _spent_s(self) -> float:
        return time.monotonic() - self._begun

    def _show(self, cell: Cell, series: Series, number: int) -> None:
        left_s = self._left_s()
        passed_s = self._spent_s()
        again = "again, " if series == "second" else ""
        self._display.overall(
            f"{cell}, {again}block {number + 1}",
            passed_s / (passed_s + left_s) if left_s else 1.0,
            left_s,
        )

    def _left_s(self) -> float:
        """Return the time until every cell is judged the next time."""
        left_s = 0.0
        walls = [block.wall_s for block in self._ab.blocks]
        for cell in self._header.cells:
            step = next_step(self._ab, cell)
            if step is None:
                continue
            series: Series = "first" if step == "block" else "second"
            done = len(self._ab.blocks_of(cell, series))
            wanted = next((look for look in looks(self._ab, series) if look > done), done + 1)
            mine = [block.wall_s for block in self._ab.blocks if block.cell == cell] or walls
            left_s += (wanted - done) * (fmean(mine) if mine else BLOCK_GUESS_S)
        return left_s
