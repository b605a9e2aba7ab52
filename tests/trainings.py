"""Synthetic trainings for tests: jobs that learned over several seeds, with the figures chosen."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np
from synthetic import make_cell, make_header, make_job, make_parity, make_run, make_workload

from bench.records.runs import Run
from bench.records.schema import EpochPoint, JobRecord, ParityCheck, Proof, Status
from bench.workloads.specs import Cell, OptimizerSpec, Workload

CELLS = (make_cell(), make_cell(backend="tensorflow", mode="graph"), make_cell(backend="jax", mode="jit"))
STEPS = 600


def evaluated(epochs: int) -> list[float]:
    """Return the epochs at which a job that trains evaluates: often at first, then after every epoch."""
    tenths = [place / 10 for place in range(11)]
    quarters = [1 + place / 4 for place in range(1, 13)]
    return [epoch for epoch in [*tenths, *quarters, *map(float, range(5, epochs + 1))] if epoch <= epochs]


def make_curve(
    accuracies: Iterable[float], epochs: Sequence[float], seconds_per_epoch: float = 10.0
) -> tuple[EpochPoint, ...]:
    """Return points with these accuracies at these epochs."""
    return tuple(
        EpochPoint(
            epoch=epoch,
            steps=round(STEPS * epoch),
            train_s=seconds_per_epoch * epoch,
            train_loss=1 - accuracy if epoch else None,
            test_loss=2 * (1 - accuracy),
            test_accuracy=accuracy,
        )
        for accuracy, epoch in zip(accuracies, epochs, strict=True)
    )


def make_training(
    cell: Cell,
    seed: int,
    points: tuple[EpochPoint, ...],
    *,
    epochs: float | None = None,
    status: Status = "ok",
    started_at: str | None = None,
) -> JobRecord:
    asked = points[-1].epoch if epochs is None else epochs
    return make_job(
        cell, seed, points=points, epochs=asked, seed=seed, status=status, windows=0, rates=(),
        started_at=started_at,
    )  # fmt: skip


def make_finals(
    cell: Cell, finals: Mapping[int, float], *, epochs: float = 2, seconds_per_epoch: float = 10.0
) -> list[JobRecord]:
    """Return one training a seed that rises from 10 % by equal steps to end at these accuracies.

    It is evaluated after every epoch, and a training of a part of an epoch at its end.
    """
    places = [*map(float, range(int(epochs) + 1)), *([epochs] if epochs % 1 else [])]
    return [
        make_training(cell, seed, make_curve(np.linspace(0.1, final, len(places)), places, seconds_per_epoch))
        for seed, final in finals.items()
    ]


def make_proof(errors: Sequence[float], rounding: Sequence[float]) -> Proof:
    """Return a comparison with the reference in which the losses had these errors."""
    check = ParityCheck(kind="losses", error=max(errors), tolerance=1.0, worst="step 0")
    return Proof(
        after_windows=False, steps=len(errors), checks=(check,), seconds=0.1,
        loss_errors=tuple(map(float, errors)), rounding_errors=tuple(map(float, rounding)),
    )  # fmt: skip


def twins(name: str = "mnist-cnn") -> tuple[Workload, Workload]:
    """Return a matched workload and the one with the frameworks' own defaults."""
    adam = msgspec.structs.replace(
        make_workload(f"{name}-adam", 0.98),
        dataset="mnist",
        optimizer=OptimizerSpec(name="adam", learning_rate=1e-3),
    )
    own = msgspec.structs.replace(adam, name=f"{name}-defaults", matched=False)
    return adam, own


def learning_run(*, seeds: int = 5, epochs: int = 6) -> Run:
    """Return a run of three backends on four workloads, of which two are twins.

    On cifar10-cnn the target is reached by some trainings only, and TensorFlow's last seed diverges; on
    mnist-cnn-defaults the frameworks lie apart. Three of the workloads have proofs of their first steps.
    """
    random = np.random.default_rng(7)
    adam, own = twins()
    workloads = (make_workload("mnist-cnn", 0.97), make_workload("cifar10-cnn", 0.66), adam, own)
    final = {"mnist-cnn": 0.985, "cifar10-cnn": 0.668, adam.name: 0.989, own.name: 0.988}
    pace = {"torch": 14.0, "tensorflow": 17.0, "jax": 13.0}
    apart = {"torch": 0.0, "tensorflow": 0.004, "jax": -0.003}
    jobs: list[JobRecord] = []
    cells = [msgspec.structs.replace(cell, workload=one.name) for one in workloads for cell in CELLS]
    places = evaluated(epochs)
    for cell in cells:
        starts = np.random.default_rng(sum(map(ord, cell.workload)))  # equal in all backends
        for seed in range(seeds):
            end = final[cell.workload] + starts.normal(0, 0.004) + random.normal(0, 0.001)
            end += apart[cell.backend] if cell.workload == own.name else 0.0
            rate = 2.5 + starts.normal(0, 0.2)
            curve = [end - (end - 0.1) * np.exp(-rate * place) * (1 - place / epochs) for place in places]
            points = make_curve(curve, places, pace[cell.backend] * float(np.exp(random.normal(0, 0.02))))
            diverges = (cell.workload, cell.backend, seed) == ("cifar10-cnn", "tensorflow", seeds - 1)
            jobs.append(
                make_training(
                    cell, seed, points[:8] if diverges else points, epochs=epochs,
                    status="nan_loss" if diverges else "ok",
                )
            )  # fmt: skip
    growth = np.exp(np.linspace(0, 8, 40))
    jobs = [
        msgspec.structs.replace(
            job, proofs=(make_proof(2e-7 * growth * np.exp(random.normal(0, 0.5, 40)), 1e-7 * growth),)
        )
        if job.spec.seed == 0 and job.spec.cell.workload != own.name
        else job
        for job in jobs
    ]
    header = make_header(cells, workloads=workloads, seeds=seeds)
    return make_run(header, [*map(make_parity, cells[:9]), *jobs])
