"""Run parity: compute the reference once a workload, then hold every cell of every backend against it."""

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import msgspec

from backends.base import TrainingData
from backends.info import BackendInfo
from bench import datasets, parity
from bench.launch import run_worker
from bench.progress import Display
from bench.protocol import AnyEvent, ParityCase, Verified, VerifyTask
from bench.records import ParityRecord
from bench.registry import interpreter
from bench.specs import Cell, Workload

START_LIMIT_S = 210.0
CASE_LIMIT_S = 30.0
"""A worker that takes longer than its start and so much a cell, for twenty small steps each, hangs."""
OPTIMIZER_WORKLOAD = "mnist-softmax"
"""The network on which the optimizers are checked that the workloads do not use."""


class ParityJob(msgspec.Struct, frozen=True, kw_only=True):
    """A cell and the workload, which may have another optimizer than the cell's own, to check it with."""

    cell: Cell
    workload: Workload


def plan_parity(
    cells: Sequence[Cell], workloads: Mapping[str, Workload], *, optimizers: bool
) -> list[ParityJob]:
    """Return a job a cell, and with `optimizers` those that check all four optimizers in every mode."""
    jobs = [ParityJob(cell=cell, workload=parity.gentle(workloads[cell.workload])) for cell in cells]
    if optimizers:
        network = workloads[OPTIMIZER_WORKLOAD]
        rows = {msgspec.structs.replace(cell, workload=OPTIMIZER_WORKLOAD) for cell in cells}
        jobs += [
            ParityJob(cell=row, workload=msgspec.structs.replace(network, optimizer=spec))
            for row in sorted(rows)
            for spec in parity.OPTIMIZER_CASES
        ]
    return sorted(jobs, key=lambda job: job.cell.backend)  # stable: one process a backend


def verify_cells(
    jobs: Sequence[ParityJob],
    infos: Mapping[str, BackendInfo],
    pythons: Mapping[str, Path],
    display: Display,
    on_record: Callable[[ParityRecord], None],
    *,
    deadline: float = math.inf,
) -> None:
    """Hold every job's cell against the reference; `on_record` gets each result as soon as it is there.

    What has not come by `deadline`, a time of the monotonic clock, is recorded as timed out.
    """
    with tempfile.TemporaryDirectory(prefix="samework-parity-") as folder:
        traces: dict[Workload, Path] = {}
        for job in jobs:
            if job.workload not in traces:
                display.job(f"reference: {job.workload.name} in float64", len(traces) / len(jobs))
                traces[job.workload] = write_reference(job.workload, Path(folder) / f"{len(traces)}.npz")
        done = 0
        for name, group in groupby(jobs, key=lambda job: job.cell.backend):
            remaining = list(group)
            while remaining:
                left_s = max(1.0, deadline - time.monotonic())

                def note(event: AnyEvent) -> None:
                    nonlocal done
                    if isinstance(event, Verified):
                        done += 1
                        display.job(f"parity: {event.cell} {event.optimizer}", done / len(jobs))
                        on_record(_record(event))

                display.job(f"parity: {remaining[0].cell}", done / len(jobs))
                cases = tuple(
                    ParityCase(cell=job.cell, workload=job.workload, trace=str(traces[job.workload]))
                    for job in remaining
                )
                before = done
                outcome = run_worker(
                    VerifyTask(backend=infos[name], cases=cases),
                    python=interpreter(infos[name], pythons),
                    device=remaining[0].cell.device,
                    time_limit_s=min(START_LIMIT_S + CASE_LIMIT_S * len(remaining), left_s),
                    on_event=note,
                )
                remaining = remaining[done - before :]
                if remaining:  # the worker died on this one: the others get a fresh worker
                    stuck = remaining.pop(0)
                    done += 1
                    on_record(
                        ParityRecord(
                            cell=stuck.cell,
                            optimizer=stuck.workload.optimizer.name,
                            status="crashed" if outcome.status == "ok" else outcome.status,
                            error=outcome.error,
                            steps=parity.STEPS,
                        )
                    )


def write_reference(workload: Workload, path: Path) -> Path:
    """Compute the reference trace of a workload on shipped images and write it to `path`."""
    data = parity_data(workload)
    parity.save_trace(path, data, parity.reference_trace(workload, data))
    return path


def parity_data(workload: Workload) -> TrainingData:
    """Return real images to check a workload on: its own shipped sample, or one of the same shape.

    Whether two programs compute the same function does not hang on whose pictures they are given.
    """
    info = datasets.DATASETS[workload.dataset].info
    name = next(
        name
        for name, spec in datasets.DATASETS.items()
        if spec.sample is not None and spec.info.image_shape == info.image_shape
    )
    sample = datasets.load_sample(name)
    return TrainingData(info=info, images=sample.train_images, labels=sample.train_labels)


def _record(event: Verified) -> ParityRecord:
    return ParityRecord(
        cell=event.cell,
        optimizer=event.optimizer,
        status=event.status,
        error=event.error,
        steps=parity.STEPS,
        checks=event.checks,
    )
