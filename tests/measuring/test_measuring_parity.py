"""`bench verify`: what is checked, on which images, and that one cell's death is no other's."""

import sys
from io import StringIO
from itertools import groupby
from types import MappingProxyType

import msgspec
import numpy as np
import psutil
import pytest
import ranked
from conftest import INFOS, TESTS
from fakes import python_path
from played import play
from rich.console import Console

from backends import catalog
from bench.datasets.catalog import DATASETS
from bench.measuring import parity as verify
from bench.measuring.parity import ParityJob, parity_data, plan_parity, verify_cells, write_reference
from bench.measuring.process import Worker
from bench.measuring.ranks.slots import local_slots
from bench.parity import reference, tolerances
from bench.progress import make_display
from bench.workloads.catalog import MAIN_WORKLOADS, WORKLOADS
from bench.workloads.specs import Cell


def make_cell(workload="mnist-softmax", backend="numpy", mode="float64", device="cpu", precision="fp32"):
    return Cell(workload=workload, backend=backend, mode=mode, device=device, precision=precision)


@pytest.fixture
def display():
    with make_display(Console(file=StringIO())) as shown:
        yield shown


def run(jobs, infos, display):
    records = []
    verify_cells(jobs, infos, {}, display, records.append)
    return records


# ---- what is checked

CELLS = [
    make_cell(workload, backend, mode)
    for workload in ("mnist-cnn", "cifar10-softmax")
    for backend, mode in (("torch", "eager"), ("jax", "jit"), ("torch", "compile"))
]


def test_every_cell_gets_a_job_with_its_own_workload():
    jobs = plan_parity(CELLS, WORKLOADS, optimizers=False)
    assert sorted(str(job.cell) for job in jobs) == sorted(map(str, CELLS))
    for job in jobs:
        assert job.workload == reference.gentle(WORKLOADS[job.cell.workload])


def test_jobs_of_a_backend_stand_together_in_the_order_of_the_cells():
    jobs = plan_parity(CELLS, WORKLOADS, optimizers=True)
    assert [name for name, _ in groupby(jobs, key=lambda job: job.cell.backend)] == ["jax", "torch"]
    torch = [job.cell for job in jobs if job.cell.backend == "torch"]
    assert torch[:4] == [cell for cell in CELLS if cell.backend == "torch"]


def test_every_mode_is_checked_with_every_optimizer_once():
    jobs = plan_parity(CELLS, WORKLOADS, optimizers=True)
    extra = [job for job in jobs if job.cell.workload == verify.OPTIMIZER_WORKLOAD]
    assert len(jobs) == len(CELLS) + len(extra)
    found = sorted((job.cell.backend, job.cell.mode, job.workload.optimizer.name) for job in extra)
    assert found == sorted(
        (backend, mode, spec.name)
        for backend, mode in (("torch", "eager"), ("jax", "jit"), ("torch", "compile"))
        for spec in reference.OPTIMIZER_CASES
    )
    for job in extra:
        assert job.workload.optimizer in reference.OPTIMIZER_CASES
        assert job.workload.architecture == WORKLOADS[verify.OPTIMIZER_WORKLOAD].architecture


def test_the_cases_cover_every_optimizer_at_a_decaying_rate():
    plain, of_tensorflow_1 = reference.OPTIMIZER_CASES[:4], reference.OPTIMIZER_CASES[4:]
    assert sorted(spec.name for spec in plain) == ["adam", "momentum", "rmsprop", "sgd"]
    assert all(spec.decay_rate < 1 and spec.decay_steps < reference.STEPS for spec in plain)
    told = [(spec.name, spec.epsilon_hat, spec.initial_square) for spec in of_tensorflow_1]
    assert told == [("adam", True, 0.0), ("rmsprop", False, 1.0)]


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_images_are_of_the_right_shape_and_the_labels_are_classes(name):
    workload = WORKLOADS[name]
    data = parity_data(workload)
    assert data.info == DATASETS[workload.dataset].info
    assert data.images.shape[1:] == data.info.image_shape
    assert (data.images.dtype, data.labels.dtype) == (np.uint8, np.uint8)
    assert (
        len(data.images) == len(data.labels) >= max(reference.TEST_IMAGES, reference.STEPS * reference.BATCH)
    )
    assert data.labels.max() < data.info.classes
    assert len(np.unique(data.labels)) >= 10
    assert data.images.std() > 10, "pictures, not blanks"


def test_a_reference_is_written_where_it_was_asked_for(tmp_path):
    workload = WORKLOADS["mnist-softmax"]
    path = write_reference(workload, tmp_path / "trace.npz")
    assert path == tmp_path / "trace.npz"
    data, trace = reference.load_trace(path)
    expected = reference.reference_trace(workload, parity_data(workload))
    np.testing.assert_array_equal(trace.losses, expected.losses)
    np.testing.assert_array_equal(data.images, parity_data(workload).images)


# ---- workers: real ones where a process dies or is started in another way, else played


def test_the_reference_agrees_with_itself_in_a_worker(display):
    jobs = plan_parity([make_cell()], WORKLOADS, optimizers=True)
    records = run(jobs, INFOS, display)
    cases = ["sgd", "momentum", "adam", "rmsprop", "adam", "rmsprop"]
    assert [record.optimizer for record in records] == ["sgd", *cases]
    for record, job in zip(records, jobs, strict=True):
        assert record.ok, record
        assert record.cell == job.cell
        assert record.steps == reference.STEPS
        assert [check.kind for check in record.checks] == list(tolerances.TOLERANCES["fp32"])


def fake(name: str):
    """Return the backend of that name in `broken`, called numpy so that its cells are like any others."""
    return {"numpy": msgspec.structs.replace(catalog.NUMPY, target=f"broken:{name}")}


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[ParityJob]:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    jobs = plan_parity([make_cell()], WORKLOADS, optimizers=True)[:5]
    assert [job.workload.optimizer.name for job in jobs] == ["sgd", "sgd", "momentum", "adam", "rmsprop"]
    return jobs


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch)


def test_a_worker_that_dies_in_one_case_leaves_the_others_verified(jobs, display):
    records = run(jobs, fake("DiesInAdam"), display)
    assert [record.status for record in records] == ["ok", "ok", "ok", "crashed", "ok"]
    crashed = records[3]
    assert crashed.optimizer == "adam"
    assert "SIGKILL" in crashed.error
    assert not crashed.ok
    assert not crashed.checks
    assert all(record.ok for record in records if record is not crashed)


def test_a_case_that_raises_leaves_the_others_verified(jobs, display, played):
    records = run(jobs, fake("RaisesInAdam"), display)
    assert [record.status for record in records] == ["ok", "ok", "ok", "failed", "ok"]
    assert records[3].error == "ValueError: Adam is not at home"
    assert not records[3].ok


def test_a_case_that_hangs_is_stopped_and_the_others_are_verified(jobs, display, played):
    records = run(jobs, fake("HangsInAdam"), display)
    assert [record.status for record in records] == ["ok", "ok", "ok", "timeout", "ok"]
    assert "stopped at its limit" in records[3].error


def test_a_wrong_answer_is_a_record_that_is_not_ok(jobs, display, played):
    records = run(jobs[2:3], fake("MomentumRateInside"), display)
    assert [record.status for record in records] == ["ok"]
    assert not records[0].ok
    assert next(check.kind for check in records[0].checks if not check.ok) == "steps"


def test_a_nan_is_a_failed_record(jobs, display, played):
    records = run(jobs[:1], fake("GoesNan"), display)
    assert [record.status for record in records] == ["not_comparable"]
    assert "gradient at logits/bias" in records[0].error


def test_a_backend_that_cannot_be_imported_is_unavailable_in_every_case(jobs, display, played):
    records = run(jobs[:2], fake("NotThere"), display)
    assert [record.status for record in records] == ["failed", "failed"]
    assert all("broken:NotThere is no class" in record.error for record in records)
    infos = {"numpy": msgspec.structs.replace(catalog.NUMPY, target="nowhere:NotThere")}
    assert [record.status for record in run(jobs[:1], infos, display)] == ["unavailable"]


def test_a_backend_is_run_by_the_interpreter_that_was_named_for_it(jobs, display, tmp_path):
    python, seen = tmp_path / "python", tmp_path / "seen"
    python.write_text(f'#!/bin/sh\necho >> {seen}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    records = []
    verify_cells(jobs[:1], INFOS, {"numpy": python}, display, records.append)
    assert [record.ok for record in records] == [True]
    assert seen.read_text() == "\n"


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("cpu", ["begin numpy", "begin twin", "end twin", "end numpy"]),
        ("gpu", ["begin numpy", "end numpy", "begin twin", "end twin"]),
    ],
)
def test_backends_are_verified_side_by_side_where_they_share_no_memory(
    device, expected, display, monkeypatch
):
    seen = []

    class Seen(Worker):
        def __init__(self, task, **options):
            self.backend = task.backend.name
            super().__init__(task, **options)

        def __enter__(self):
            seen.append(f"begin {self.backend}")
            return super().__enter__()

        def __exit__(self, *error):
            seen.append(f"end {self.backend}")
            super().__exit__(*error)

    monkeypatch.setattr(verify, "Worker", Seen)
    infos = INFOS | {"twin": msgspec.structs.replace(catalog.NUMPY, name="twin")}
    jobs = plan_parity(
        [make_cell(backend=name, device=device) for name in ("numpy", "twin")], WORKLOADS, optimizers=False
    )
    records = run(jobs, infos, display)
    assert [record.cell.backend for record in records] == ["numpy", "twin"]
    assert seen == expected


def test_an_interruption_leaves_no_worker_behind(jobs, display):
    here = psutil.Process()
    running = []

    def interrupt(_):
        running.extend(here.children())
        raise KeyboardInterrupt

    infos = INFOS | {"twin": msgspec.structs.replace(catalog.NUMPY, name="twin")}
    twin = ParityJob(cell=make_cell(backend="twin"), workload=jobs[0].workload)
    with pytest.raises(KeyboardInterrupt):
        verify_cells([*jobs, twin], infos, {}, display, interrupt)
    assert len(running) == 2
    assert here.children() == []


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.framework(name)) for name in ("tensorflow", "torch", "jax")]
)
def test_a_gpu_that_is_not_there_is_unavailable(name, display, monkeypatch):
    """Never silently the CPU. An empty list of visible devices takes the GPU away where there is one.

    The tests of conformance ask every mode of every backend, in a process that is started for the CPU.
    """
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    info = INFOS[name]
    cell = make_cell("mnist-softmax", name, info.default_mode, device="gpu")
    job = ParityJob(cell=cell, workload=WORKLOADS["mnist-softmax"])
    (record,) = run([job], MappingProxyType(INFOS), display)
    assert record.status == "unavailable", record.error
    assert not record.ok
    assert "GPU" in record.error


def test_the_main_workloads_can_all_be_planned():
    cells = [make_cell(workload) for workload in MAIN_WORKLOADS]
    assert [job.cell for job in plan_parity(cells, WORKLOADS, optimizers=False)] == cells


# ---- ranks


def test_a_batch_of_parity_is_one_that_the_ranks_divide():
    assert [reference.parity_batch(ranks) for ranks in (1, 2, 4, 8, 3, 5, 10, 16)] == [
        8,
        8,
        8,
        8,
        9,
        10,
        10,
        16,
    ]


@pytest.fixture
def in_ranks(monkeypatch: pytest.MonkeyPatch):
    """Return what verifies cells of a backend in ranks."""
    monkeypatch.setenv("PYTHONPATH", python_path())

    def verified(kind: str, rows, display):
        info = ranked.info(kind)
        cells = [
            msgspec.structs.replace(make_cell(backend=info.name, mode=mode), ranks=ranks)
            for mode, ranks in rows
        ]
        jobs = plan_parity(cells, WORKLOADS, optimizers=False)
        records = []
        slots = local_slots("cpu", max(ranks for _, ranks in rows), shared=True)
        verify_cells(jobs, {info.name: info}, {}, display, records.append, slots=slots)
        return {(record.cell.mode, record.cell.ranks): record for record in records}

    return verified


def test_every_number_of_ranks_is_proven_by_so_many_processes(in_ranks, display):
    rows = [("together", 3), ("plain", 1), ("together", 1), ("together", 2)]
    records = in_ranks("Together", rows, display)
    assert set(records) == set(rows)
    assert all(record.ok for record in records.values()), records


@pytest.mark.parametrize(
    ("kind", "quantity"),
    [("SumsForMeans", "gradient"), ("KeepsItsGradient", "gradient"), ("SameShard", "loss")],
)
def test_ranks_that_do_not_train_together_as_they_should_are_found_out(kind, quantity, in_ranks, display):
    records = in_ranks(kind, [("together", 2), ("together", 1)], display)
    assert records["together", 1].ok
    lost = records["together", 2]
    assert lost.lost
    assert quantity in {check.kind for check in lost.checks if not check.ok}


def test_a_rank_that_fails_is_named_and_leaves_the_other_rows_verified(in_ranks, display):
    records = in_ranks("RaisesInRank", [("plain", 1), ("together", 2)], display)
    assert records["plain", 1].ok
    assert records["together", 2].status == "failed"
    assert records["together", 2].error == "rank 1 of 2: failed: ValueError: no such shape"
