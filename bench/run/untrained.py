"""The workloads that a run did not train for accuracy, and a command that trains them."""

import math
import shlex
from collections.abc import Sequence
from statistics import fmean

from bench.datasets.catalog import DATASETS
from bench.records.runs import Run
from bench.records.schema import JobRecord
from bench.run.plan import PARITY_GUESS_S, SEVERAL_EPOCHS, TRAINING_SHARE, training_seconds
from bench.workloads.catalog import SWEPT

ROOM = 1.2
"""The budget of the command is so many times the expected time."""


def untrained(run: Run) -> tuple[str, ...]:
    """Return the workloads that were timed and not trained, although the run was to train for accuracy."""
    if not run.header.seeds:
        return ()
    trained = {job.spec.cell.workload for job in run.jobs if job.spec.epochs}
    timed = {job.spec.cell.workload for job in run.jobs if job.windows}
    return tuple(
        workload.name
        for workload in run.header.workloads
        if workload.name in timed - trained and SWEPT not in workload.name and workload.dataset in DATASETS
    )


def command_to_train(run: Run, workloads: Sequence[str], *, seeds: int, frameworks: int | None = None) -> str:
    """Return a command that trains these workloads for several epochs, with a budget that is enough here.

    The times of this run are taken for it. `frameworks` is the number that the command trains, if the run
    has other than these.
    """
    cells: dict[str, list[JobRecord]] = {}
    for job in run.jobs:
        if job.windows and job.spec.cell.workload in workloads:
            cells.setdefault(str(job.spec.cell), []).append(job)
    blocks = max(run.header.min_blocks, seeds + 1)
    needed_s = sum(
        PARITY_GUESS_S[jobs[0].spec.cell.device]
        + blocks * fmean(job.wall_s - (job.learn_s or 0.0) for job in jobs)
        + seeds * _training_s(jobs) / TRAINING_SHARE
        for jobs in cells.values()
    )
    present = len({jobs[0].spec.cell.backend for jobs in cells.values()})
    if frameworks is not None and present:
        needed_s *= frameworks / present
    words = ["bench", "run", "--preset", run.header.preset]
    for name in workloads:
        words += ["--workload", name]
    minutes = max(1, math.ceil(ROOM * needed_s / 60))
    return shlex.join([*words, "--seeds", str(seeds), "--budget", f"{minutes}m"])


def _training_s(jobs: Sequence[JobRecord]) -> float:
    """Return the seconds in which a cell trains several epochs of the whole data set."""
    workload = jobs[0].spec.workload
    dataset = DATASETS[workload.dataset]
    return training_seconds(
        fmean(window.samples / window.seconds for job in jobs for window in job.windows),
        SEVERAL_EPOCHS,
        train=dataset.train_size - workload.held_out,
        test=dataset.test_size,
        batch_size=workload.batch_size,
    )
