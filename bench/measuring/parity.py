"""Check parity: compute the reference once for each workload, then compare every cell with it."""

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import groupby
from pathlib import Path

import msgspec

from backends.base import TrainingData
from backends.info import BackendInfo
from bench.datasets import cache
from bench.datasets.catalog import DATASETS
from bench.measuring.backends import interpreter
from bench.measuring.process import AnyWorker, Worker
from bench.measuring.ranks.group import Group
from bench.measuring.ranks.slots import Slot, sharing
from bench.parity.reference import (
    BATCH,
    OPTIMIZER_CASES,
    STEPS,
    gentle,
    parity_batch,
    reference_trace,
    save_trace,
)
from bench.paths import to_text
from bench.progress import Display
from bench.records.schema import ParityRecord
from bench.worker.protocol import Event, ParityCase, Verified, VerifyTask
from bench.workloads.specs import Cell, Workload

START_LIMIT_S = 210.0
CASE_LIMIT_S = 30.0
"""Time limits for a worker's start, and for the twenty small steps of each cell. Longer means that it
hangs."""
OPTIMIZER_WORKLOAD = "mnist-softmax"
"""The network on which all optimizers are checked, also those that no workload uses."""


class ParityJob(msgspec.Struct, frozen=True, kw_only=True):
    """A cell, and the workload to check it with, which may have another optimizer than the cell's own."""

    cell: Cell
    workload: Workload

    @property
    def traced(self) -> tuple[Workload, int]:
        """The workload and the batch size of its reference."""
        return self.workload, parity_batch(self.cell.ranks)


def plan_parity(
    cells: Sequence[Cell], workloads: Mapping[str, Workload], *, optimizers: bool
) -> list[ParityJob]:
    """Return one job for each cell; with `optimizers`, also jobs for all four optimizers in every mode."""
    jobs = [ParityJob(cell=cell, workload=gentle(workloads[cell.workload])) for cell in cells]
    if optimizers:
        network = workloads[OPTIMIZER_WORKLOAD]
        rows = {msgspec.structs.replace(cell, workload=OPTIMIZER_WORKLOAD) for cell in cells}
        jobs += [
            ParityJob(cell=row, workload=msgspec.structs.replace(network, optimizer=spec))
            for row in sorted(rows)
            for spec in OPTIMIZER_CASES
        ]
    return sorted(jobs, key=lambda job: job.cell.backend)  # stable


def verify_cells(
    jobs: Sequence[ParityJob],
    infos: Mapping[str, BackendInfo],
    pythons: Mapping[str, Path],
    display: Display,
    on_record: Callable[[ParityRecord], None],
    *,
    slots: Sequence[Slot] = (),
    deadline: float = math.inf,
) -> None:
    """Compare every job's cell with the reference; `on_record` gets each result as soon as it is known.

    Each backend gets one process, or with `slots` one for each rank of each number of ranks: rank r is in
    slot r. On the CPU the processes of all backends run side by side, because most of their work (importing,
    tracing, compiling) uses one core. On a GPU they run one after another, because its memory may not hold
    several, and so do ranks, which fill the cores.
    A job without a result at `deadline`, a time of the monotonic clock, is recorded as timed out.
    """

    def process(job: ParityJob) -> tuple[str, int, bool]:
        """Return what all jobs of one process share. An engine must start before anything is computed."""
        return job.cell.backend, job.cell.ranks, infos[job.cell.backend].distributes(job.cell.mode)

    with tempfile.TemporaryDirectory(prefix="samework-parity-") as folder:
        traces: dict[tuple[Workload, int], Path] = {}
        for job in jobs:
            if job.traced not in traces:
                display.job(f"reference: {job.workload.name} in float64", len(traces) / len(jobs))
                path = Path(folder) / f"{len(traces)}.npz"
                traces[job.traced] = write_reference(job.workload, path, job.traced[1])
        proof = _Proof(
            count=len(jobs), traces=traces, infos=infos, pythons=pythons, display=display,
            on_record=on_record, slots=slots, deadline=deadline,
        )  # fmt: skip
        groups = [tuple(group) for _, group in groupby(sorted(jobs, key=process), key=process)]
        beside = not slots and all(job.cell.device == "cpu" for job in jobs)
        for together in [groups] if beside else [[group] for group in groups]:
            with ExitStack() as stack:
                begun = [(stack.enter_context(proof.begin(group)), group) for group in together]
                for worker, group in begun:
                    proof.follow(worker, group)


class _Proof:
    """Starts workers that compare the jobs of one backend with the reference, and records the results."""

    def __init__(
        self,
        *,
        count: int,
        traces: Mapping[tuple[Workload, int], Path],
        infos: Mapping[str, BackendInfo],
        pythons: Mapping[str, Path],
        display: Display,
        on_record: Callable[[ParityRecord], None],
        slots: Sequence[Slot],
        deadline: float,
    ) -> None:
        """`count` is the number of all jobs, for the progress."""
        self._count, self._traces, self._infos, self._pythons = count, traces, infos, pythons
        self._display, self._on_record = display, on_record
        self._slots, self._deadline = slots, deadline
        self._done = 0

    def begin(self, jobs: Sequence[ParityJob]) -> AnyWorker:
        info = self._infos[jobs[0].cell.backend]
        cases = tuple(
            ParityCase(cell=job.cell, workload=job.workload, trace=to_text(self._traces[job.traced]))
            for job in jobs
        )
        left_s = max(1.0, self._deadline - time.monotonic())
        slots = self._slots[: jobs[0].cell.ranks]
        limit_s = (START_LIMIT_S + CASE_LIMIT_S * len(jobs)) * sharing(slots)
        begin: Callable[..., AnyWorker] = partial(Group, slots=slots) if slots else Worker
        return begin(
            VerifyTask(backend=info, cases=cases),
            python=interpreter(info, self._pythons),
            device=jobs[0].cell.device,
            time_limit_s=min(limit_s, left_s),
            deadline=max(self._deadline, time.monotonic() + 1.0),
            on_event=self._note,
        )

    def follow(self, worker: AnyWorker, jobs: Sequence[ParityJob]) -> None:
        """Wait until all jobs are done. If a worker dies during one, the jobs after it get a fresh worker."""
        left = self._finish(worker, jobs)
        while left:
            with self.begin(left) as fresh:
                left = self._finish(fresh, left)

    def _finish(self, worker: AnyWorker, jobs: Sequence[ParityJob]) -> Sequence[ParityJob]:
        """Wait until the worker ends. If it died during a job, record that and return the jobs after it."""
        before = self._done
        self._display.job(f"parity: {jobs[0].cell}", before / self._count)
        outcome = worker.finish()
        left = jobs[self._done - before :]
        if not left:
            return ()
        self._done += 1
        self._on_record(
            ParityRecord(
                cell=left[0].cell,
                optimizer=left[0].workload.optimizer.name,
                status="crashed" if outcome.status == "ok" else outcome.status,
                error=outcome.error,
                steps=STEPS,
            )
        )
        return left[1:]

    def _note(self, event: Event) -> None:
        if isinstance(event, Verified):
            self._done += 1
            self._display.job(f"parity: {event.cell} {event.optimizer}", self._done / self._count)
            self._on_record(_record(event))


def write_reference(workload: Workload, path: Path, batch: int = BATCH) -> Path:
    """Compute the reference trace of a workload on shipped images, write it to `path`, and return `path`.

    `batch` is its batch size.
    """
    data = parity_data(workload)
    save_trace(path, data, reference_trace(workload, data, batch))
    return path


def parity_data(workload: Workload) -> TrainingData:
    """Return real images to check a workload on: its own shipped sample, or another of the same shape.

    Whether two programs compute the same function does not depend on which images they get.
    """
    info = DATASETS[workload.dataset].info
    name = next(
        name
        for name, spec in DATASETS.items()
        if spec.sample is not None and spec.info.image_shape == info.image_shape
    )
    sample = cache.load_sample(name)
    return TrainingData(info=info, images=sample.train_images, labels=sample.train_labels)


def _record(event: Verified) -> ParityRecord:
    return ParityRecord(
        cell=event.cell,
        optimizer=event.optimizer,
        status=event.status,
        error=event.error,
        steps=STEPS,
        checks=event.checks,
    )
