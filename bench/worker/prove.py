"""What a worker does to prove a backend: compare it with the reference trace, or probe a device."""

import os

import numpy as np

from backends.base import Backend, TrainingData
from bench.errors import NotComparableError
from bench.machine.gpu import gpus_opened_by
from bench.parity.checks import check_parity, relative_error
from bench.parity.reference import (
    evaluated_images,
    load_trace,
    parity_batch,
    parity_workload,
    start_params,
)
from bench.paths import from_text
from bench.worker.failures import in_a_line, print_if_unforeseen, status_of
from bench.worker.protocol import Described, Emit, ParityCase, Probed, ProbeTask, Verified, VerifyTask
from bench.worker.timed_loop import build, place_in
from bench.workloads.ranks import Place
from bench.workloads.specs import Workload

OPENED = "gpus_opened"
"""The fact that names the GPUs on which a worker has opened a context, by their UUIDs."""


def verify(task: VerifyTask, backend_class: type[Backend], emit: Emit) -> None:
    """Compare every case with its reference trace; a case that fails does not stop the others."""
    for case in task.cases:
        emit(verified(case, backend_class, place_in(task.backend, case.cell, task.place)))


def verified(case: ParityCase, backend_class: type[Backend], place: Place | None = None) -> Verified:
    """Return what the comparison of a case found, or why it failed. `place` is that of `place_in`."""
    cell, workload = case.cell, case.workload

    def make(workload: Workload, data: TrainingData) -> Backend:
        return build(backend_class, workload, data, cell, place)

    try:
        data, trace = load_trace(from_text(case.trace))
        batch = parity_batch(cell.ranks)
        checks = check_parity(make, workload, data, trace, cell.precision, batch=batch)
    except Exception as error:
        print_if_unforeseen(error)
        return Verified(
            cell=cell,
            optimizer=workload.optimizer.name,
            status=status_of(error),
            error=in_a_line(error),
            checks=(),
        )
    return Verified(cell=cell, optimizer=workload.optimizer.name, status="ok", error=None, checks=checks)


def probe(task: ProbeTask, backend_class: type[Backend], emit: Emit) -> None:
    """Compute the logits of a convolutional network and compare them with the reference's."""
    cell, workload = task.case.cell, parity_workload(task.case.workload)
    data, trace = load_trace(from_text(task.case.trace))
    backend = build(backend_class, workload, data, cell)
    backend.load_params(start_params(workload, data))
    error = relative_error(backend.predict(evaluated_images(workload, data)), trace.logits)
    if not np.isfinite(error):
        raise NotComparableError("its logits are not finite, or not of the reference's shape")
    emit(Probed(error=error))
    facts = backend.describe()
    if cell.device == "gpu":
        facts = {**facts, OPENED: ", ".join(gpus_opened_by(os.getpid())) or None}
    emit(Described(facts=facts))
