"""What a row costs besides its pace: start-up, a step's parts, memory, energy, use of the machine.

Raw values come from the records, the pace from the row's summary. A figure that no record holds is None.
Nothing is estimated, except the time of a first epoch that was not trained, and that is marked.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import TypeAlias

import msgspec

from bench.analysis.comparison import Comparison, Standing
from bench.analysis.disturbance import UNDISTURBED
from bench.analysis.ranks import distributed_modes
from bench.analysis.statistics import log_throughput
from bench.analysis.summary import CellSummary, Summary, largest_of, median_of
from bench.datasets.catalog import DATASETS
from bench.records.runs import Run
from bench.records.schema import JobRecord, RunHeader
from bench.workloads.flops import StepWork, step_work
from bench.workloads.instruments import Peak, StepSplit
from bench.workloads.precision import fits
from bench.workloads.specs import Cell, Device, Precision, Workload

Place: TypeAlias = tuple[Device, Precision]


class StartUp(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds from starting a process to the end of its first epoch, part by part: medians over the jobs."""

    start_s: float | None
    import_s: float | None
    data_s: float | None
    build_s: float | None
    first_step_s: float | None
    first_epoch_s: float | None
    epoch_measured: bool
    """Whether a whole epoch was trained; if not, its time is derived from the steady pace."""
    bounds: tuple[float, float] | None = None
    """The lowest and the highest sum over the jobs, with the same epoch; None below two jobs."""

    @property
    def parts(self) -> tuple[float | None, ...]:
        """The six times, in chronological order."""
        return (
            self.start_s, self.import_s, self.data_s, self.build_s, self.first_step_s, self.first_epoch_s
        )  # fmt: skip

    @property
    def first_result_s(self) -> float | None:
        """The sum of all parts; None if one is unknown."""
        known = [part for part in self.parts if part is not None]
        return math.fsum(known) if len(known) == len(self.parts) else None


class CellCosts(msgspec.Struct, frozen=True, kw_only=True):
    """What one row costs."""

    cell: Cell
    start_up: StartUp
    epoch_s: float | None
    """Seconds of an epoch at the steady pace."""
    step_s: float | None
    """Seconds of a step at the steady pace."""
    split: StepSplit | None
    """The mean over all steps that were measured part by part."""
    peak_rss_bytes: int | None
    """The largest of all jobs, like the other two fields in bytes."""
    peak_rss_method: str | None
    peak_device_bytes: int | None
    process_device_bytes: int | None
    joules_per_1000: float | None
    """Energy for 1,000 training images; None without a meter."""
    work: StepWork | None
    """Operations and bytes of a step; None if the row computes something else, or the data set is unknown."""
    flops_per_s: float | None
    """Operations of matrix products per second at the steady pace."""
    ceiling: Peak | None
    """The best that any framework of the run reached on this device in this precision; None for a row of
    several ranks, which have several devices."""
    counted_flops: float | None
    """Operations of a step as the framework counts them: the median over the jobs."""

    @property
    def share_of_peak(self) -> float | None:
        """Share of the rate of the machine's best matrix product, as measured in this run: 0.4 for 40 %."""
        if self.flops_per_s is None or self.ceiling is None:
            return None
        return self.flops_per_s / self.ceiling.flops_per_s

    @property
    def share_of_roof(self) -> float | None:
        """Share of what the roofline allows at this row's intensity."""
        if self.flops_per_s is None or self.ceiling is None or self.work is None:
            return None
        return self.flops_per_s / roof(self.ceiling, self.work.intensity)


class BreakEven(msgspec.Struct, frozen=True, kw_only=True):
    """Two modes of one framework on one workload: the one that starts later, and the other."""

    later: Cell
    sooner: Cell
    extra_s: float
    """How much longer `later` takes for building the network and its first step."""
    saved_s: float
    """What it then saves in every epoch; negative if it is slower."""
    epochs: float | None
    """After this many epochs `later` is ahead; None if it never is."""
    by_block: tuple[float | None, ...] = ()
    """The same in each block in which both modes were timed."""

    @property
    def bounds(self) -> tuple[float, float | None] | None:
        """The lowest and the highest over the blocks, None for never; None below two blocks."""
        if len(self.by_block) < 2:
            return None
        known = [epochs for epochs in self.by_block if epochs is not None]
        return (min(known), max(known) if len(known) == len(self.by_block) else None) if known else None


class PipelineRatio(msgspec.Struct, frozen=True, kw_only=True):
    """A mode fed by the framework's own input pipeline, compared with the default mode, fed from memory."""

    pipeline: Cell
    memory: Cell
    comparison: Comparison | None
    """The comparison of the verdicts; None if one of the two is not ranked, or they share too few blocks."""

    @property
    def ratio(self) -> tuple[float, float, float] | None:
        """Throughput from the pipeline divided by that from memory, and its interval: ratio, low, high."""
        return None if self.comparison is None else self.comparison.seen_from(self.pipeline)


class ProductError(msgspec.Struct, frozen=True, kw_only=True):
    """How far a backend's matrix products were from float64."""

    backend: str
    device: Device
    precision: Precision
    error: float

    @property
    def as_asked(self) -> bool:
        """Whether the error fits the precision that was asked for."""
        return fits(self.error, self.precision)


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """All costs of a run, in the order of the summary's rows."""

    cells: tuple[CellCosts, ...]
    break_evens: tuple[BreakEven, ...]
    pipelines: tuple[PipelineRatio, ...]
    products: tuple[ProductError, ...]


def framework_share(jobs: Sequence[JobRecord]) -> float | None:
    """Return the share of the jobs' time that they spent inside their frameworks; None if that is unknown.

    The rest is the start of the interpreter, opening the data, and ending. The scores of evaluations, which
    this program computes, count as the framework's time.
    """
    if not jobs or any(job.windows and job.lead_s is None for job in jobs):
        return None
    return sum(map(_framework_s, jobs)) / sum(job.wall_s for job in jobs)


def read_costs(run: Run, summary: Summary) -> Costs:
    """Derive what every row of a run costs."""
    workloads = {workload.name: workload for workload in run.header.workloads}
    jobs: dict[Cell, list[JobRecord]] = {row.cell: [] for row in summary.cells}
    for job in run.jobs:
        if job.status in ("ok", "no_steady_state"):
            jobs.setdefault(job.spec.cell, []).append(job)
    ceilings = peaks(run.jobs)
    standings = {one.cell: one for one in summary.standings}

    def by_block(cell: Cell) -> Mapping[int, tuple[float, float]]:
        images = images_per_epoch(_trained(cell, workloads[cell.workload]), run.header) or 0
        dropped = summary.screenings.get(cell.workload, UNDISTURBED).dropped
        return _block_costs(standings[cell], jobs[cell], images, dropped)

    cells = tuple(
        _read_cell(
            row,
            jobs[row.cell],
            _trained(row.cell, workloads[row.workload]) if row.workload in workloads else None,
            ceilings,
            run.header,
        )
        for row in summary.cells
    )
    return Costs(
        cells=cells,
        break_evens=tuple(_break_evens(cells, run.header, by_block)),
        pipelines=tuple(_pipelines(run.header, summary)),
        products=product_errors(run.jobs),
    )


def _trained(cell: Cell, workload: Workload) -> Workload:
    """Return a workload with the batch size that the steps of a row train."""
    return msgspec.structs.replace(workload, batch_size=cell.batches * workload.batch_size)


def product_errors(jobs: Iterable[JobRecord]) -> tuple[ProductError, ...]:
    """Return the largest error of each backend's products, by device and precision."""
    found: dict[tuple[str, Place], float] = {}
    for job in jobs:
        if job.peak is not None and job.peak.product_error is not None:
            key = job.spec.cell.backend, (job.spec.cell.device, job.spec.cell.precision)
            found[key] = max(found.get(key, 0.0), job.peak.product_error)
    return tuple(
        ProductError(backend=backend, device=device, precision=precision, error=error)
        for (backend, (device, precision)), error in sorted(found.items())
    )


def peaks(jobs: Iterable[JobRecord]) -> dict[Place, Peak]:
    """Return the machine's peak by device and precision: for each figure the best that any job reached."""
    found: dict[Place, Peak] = {}
    for job in jobs:
        if job.peak is None:
            continue
        place = job.spec.cell.device, job.spec.cell.precision
        best = found.get(place, job.peak)
        found[place] = Peak(
            flops_per_s=max(best.flops_per_s, job.peak.flops_per_s),
            bytes_per_s=max(best.bytes_per_s, job.peak.bytes_per_s),
        )
    return found


def roof(ceiling: Peak, intensity: float) -> float:
    """Return the operations per second that a machine allows at `intensity` operations per byte.

    Source: Williams, Waterman and Patterson, Roofline (2009): min(peak, bandwidth x intensity).
    """
    return min(ceiling.flops_per_s, ceiling.bytes_per_s * intensity)


def break_even(extra_s: float, saved_s: float) -> float | None:
    """Return the epochs after which a later start has paid off: 0 if at once, None if it never does.

    That is where extra_s = epochs x saved_s. A mode that starts no later and is no slower is ahead at once.
    One that is slower in every epoch falls behind in the end, even if it starts earlier.
    """
    if extra_s <= 0 and saved_s >= 0:
        return 0.0
    return extra_s / saved_s if saved_s > 0 else None


def images_per_epoch(workload: Workload, header: RunHeader) -> int | None:
    """Return the images of an epoch without an incomplete last batch; None for an unknown data set."""
    spec = DATASETS.get(workload.dataset)
    if spec is None or (header.sample and spec.sample is None):
        return None
    images = spec.sample.train_size if header.sample and spec.sample else spec.train_size
    images = min(images, header.dataset_limit or images)
    return images // workload.batch_size * workload.batch_size or None


def _framework_s(job: JobRecord) -> float:
    once = (job.import_s, job.build_s, job.first_step_s, job.lead_s, job.closer_s, job.learn_s)
    windows = (*job.warmup, *job.windows)
    return sum(seconds or 0.0 for seconds in once) + sum(window.seconds for window in windows)


def _read_cell(
    row: CellSummary,
    jobs: Sequence[JobRecord],
    workload: Workload | None,
    ceilings: Mapping[Place, Peak],
    header: RunHeader,
) -> CellCosts:
    images = images_per_epoch(workload, header) if workload else None
    epoch_s = images / row.samples_per_s if images and row.samples_per_s else None
    work = _work(row, workload) if workload else None
    pace = row.samples_per_s / workload.batch_size if workload and row.samples_per_s else None
    return CellCosts(
        cell=row.cell,
        start_up=_start_up(jobs, epoch_s),
        epoch_s=epoch_s,
        step_s=1 / pace if pace else None,
        split=_mean_split([job.split for job in jobs if job.split is not None]),
        peak_rss_bytes=largest_of(job.peak_rss_bytes for job in jobs),
        peak_rss_method=next((job.peak_rss_method for job in jobs if job.peak_rss_method), None),
        peak_device_bytes=largest_of(job.peak_device_bytes for job in jobs),
        process_device_bytes=largest_of(job.process_device_bytes for job in jobs),
        joules_per_1000=row.energy_per_1000_j,
        work=work,
        flops_per_s=work.products * pace if work and pace else None,
        # The peak is that of one process, so of one rank.
        ceiling=ceilings.get((row.device, row.precision)) if row.ranks == 1 else None,
        counted_flops=median_of(job.counted_flops for job in jobs),
    )


def _work(row: CellSummary, workload: Workload) -> StepWork | None:
    """Return a step's work; None for the reference (in float64) and for rows that failed parity."""
    spec = DATASETS.get(workload.dataset)
    if spec is None or row.parity_ok is False or row.reference:
        return None
    return step_work(workload, spec.info)


def _start_up(jobs: Sequence[JobRecord], epoch_s: float | None) -> StartUp:
    measured = median_of(_first_epoch(job) for job in jobs)
    first_epoch_s = epoch_s if measured is None else measured
    sums = (
        []
        if first_epoch_s is None
        else [whole + first_epoch_s for job in jobs if (whole := _before_epoch(job))]
    )
    return StartUp(
        start_s=median_of(job.start_s for job in jobs),
        import_s=median_of(job.import_s for job in jobs),
        data_s=median_of(job.data_s for job in jobs),
        build_s=median_of(job.build_s for job in jobs),
        first_step_s=median_of(job.first_step_s for job in jobs if job.spec.compiles_anew),
        first_epoch_s=first_epoch_s,
        epoch_measured=measured is not None,
        bounds=(min(sums), max(sums)) if len(sums) > 1 else None,
    )


def _before_epoch(job: JobRecord) -> float | None:
    """Return the time of a job until its first epoch; None if a part is unknown or was not done anew."""
    parts = (job.start_s, job.import_s, job.data_s, job.build_s, job.first_step_s)
    known = [part for part in parts if part is not None]
    return math.fsum(known) if len(known) == len(parts) and job.spec.compiles_anew else None


def _first_epoch(job: JobRecord) -> float | None:
    """Return the seconds of an epoch without evaluation, up to the first point at epoch 1 or later."""
    point = next((point for point in job.points if point.epoch >= 1), None)
    return None if point is None else point.train_s / point.epoch


def _mean_split(splits: Sequence[StepSplit]) -> StepSplit | None:
    steps = sum(split.steps for split in splits)
    if not steps:
        return None

    def mean(values: Iterable[float]) -> float:
        return math.fsum(value * split.steps for value, split in zip(values, splits, strict=True)) / steps

    return StepSplit(
        steps=steps,
        data_s=mean(split.data_s for split in splits),
        transfer_s=mean(split.transfer_s for split in splits),
        dispatch_s=mean(split.dispatch_s for split in splits),
        device_s=mean(split.device_s for split in splits),
    )


def _block_costs(
    one: Standing, jobs: Sequence[JobRecord], images: int, dropped: frozenset[int]
) -> dict[int, tuple[float, float]]:
    """Return, by block, the seconds for building and the first step, and those of an epoch.

    An epoch is one at the steady pace of the block. Blocks that were dropped do not count, nor jobs that
    found their programs compiled.
    """
    return {
        job.spec.block: (
            job.build_s + job.first_step_s,
            images / math.exp(log_throughput(one.rounds[job.spec.block], one.latest)),
        )
        for job in jobs
        if job.spec.windows
        and job.spec.compiles_anew
        and job.build_s is not None
        and job.first_step_s is not None
        and job.spec.block in one.rounds
        and job.spec.block not in dropped
    }


def _break_evens(
    cells: Sequence[CellCosts],
    header: RunHeader,
    by_block: Callable[[Cell], Mapping[int, tuple[float, float]]],
) -> Iterator[BreakEven]:
    """Compare every two tuned modes of a framework on a workload that are fed from memory, but no ranks.

    What all modes of a framework share, such as its import, is left out: it would only add noise.
    """
    left_out = {
        (backend.name, mode)
        for backend in header.backends
        for mode in backend.modes
        if mode in backend.pipeline_modes or backend.is_taught(mode)
    } | distributed_modes(header)
    families: dict[tuple[str, str, Device, Precision], list[tuple[float, float, Cell]]] = {}
    for one in cells:
        cell, build_s, step_s = one.cell, one.start_up.build_s, one.start_up.first_step_s
        if build_s is None or step_s is None or one.epoch_s is None or (cell.backend, cell.mode) in left_out:
            continue
        family = cell.workload, cell.backend, cell.device, cell.precision
        families.setdefault(family, []).append((build_s + step_s, one.epoch_s, cell))
    for modes in families.values():
        blocks = {cell: by_block(cell) for *_, cell in modes} if len(modes) > 1 else {}
        for (sooner_s, sooner_epoch_s, sooner), (later_s, later_epoch_s, later) in combinations(
            sorted(modes), 2
        ):
            extra_s, saved_s = later_s - sooner_s, sooner_epoch_s - later_epoch_s
            mine, theirs = blocks[later], blocks[sooner]
            yield BreakEven(
                later=later,
                sooner=sooner,
                extra_s=extra_s,
                saved_s=saved_s,
                epochs=break_even(extra_s, saved_s),
                by_block=tuple(
                    break_even(mine[block][0] - theirs[block][0], theirs[block][1] - mine[block][1])
                    for block in sorted(mine.keys() & theirs.keys())
                ),
            )


def _pipelines(header: RunHeader, summary: Summary) -> Iterator[PipelineRatio]:
    """Pair every row fed by a pipeline with its framework's default mode, if both were measured."""
    rows = {row.cell for row in summary.cells if row.samples_per_s is not None}
    here = {backend.name: backend for backend in header.backends}
    compared = {
        frozenset((one.faster, one.slower)): one for verdict in summary.verdicts for one in verdict.made.modes
    }
    for row in summary.cells:
        backend = here.get(row.backend)
        if backend is None or row.mode not in backend.pipeline_modes or row.cell not in rows:
            continue
        memory = msgspec.structs.replace(row.cell, mode=backend.default_mode)
        if memory in rows:
            comparison = compared.get(frozenset((row.cell, memory)))
            yield PipelineRatio(pipeline=row.cell, memory=memory, comparison=comparison)
