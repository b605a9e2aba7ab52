"""Synthetic runs in which something went wrong, and one whose every text is hostile."""

from collections.abc import Callable
from pathlib import Path

import msgspec
from synthetic import make_cell, make_header, make_job, make_parity, make_points, make_run, simple_run

from bench.records.runs import Run
from bench.records.schema import UnmeasuredRecord

TORCH = make_cell()
JAX = make_cell(backend="jax", mode="jit")
REFERENCE = make_cell(backend="numpy", mode="float64")
HOSTILE = (
    "a|b\n# c <script>alert(1)</script> `d` **e** [f](http://evil) \x1b[31m\u202e$g^2$ &lt; _h_ =1+1 模型"
)


def hostile_run(folder: Path) -> Run:
    """Return a run in which every text a record can hold is hostile."""
    names = {"workload": HOSTILE, "backend": f"_{HOSTILE}", "mode": f"=cmd {HOSTILE}"}
    cells = [make_cell(**names), make_cell(**{**names, "backend": "=2+5", "mode": "```"})]
    header = make_header(
        cells, titles={cells[0].backend: HOSTILE}, command=("bench", "run", "```\n# x", HOSTILE)
    )
    header = msgspec.structs.replace(
        header,
        run_id=HOSTILE,
        preset=HOSTILE,
        environment=msgspec.structs.replace(header.environment, cpu_model=HOSTILE, variables={"A": HOSTILE}),
    )
    job = make_job(cells[0], 0, epochs=2, points=make_points(0.9, 2, 1.0))
    job = msgspec.structs.replace(job, described={HOSTILE: HOSTILE})
    records = [
        make_parity(cells[0]),
        job,
        *(make_job(cells[0], block) for block in (1, 2)),
        UnmeasuredRecord(cell=cells[1], status="unavailable", error=HOSTILE),
    ]
    return make_run(header, records, folder=folder, rejected=[HOSTILE])


def all_crashed(folder: Path) -> Run:
    jobs = [make_job(cell, block, status="crashed", rates=()) for cell in (TORCH, JAX) for block in range(3)]
    return make_run(make_header([TORCH, JAX]), jobs, folder=folder)


def stopped_at_once(folder: Path) -> Run:
    records = [
        make_parity(TORCH, status="failed", said="logits: not finite", checked=False),
        make_job(TORCH, 0, status="nan_loss", epochs=2, points=make_points(0.9, 2, 1.0)[:1]),
    ]
    return make_run(make_header([TORCH]), records, folder=folder)


def parity_alone(folder: Path) -> Run:
    return make_run(make_header([TORCH]), [make_parity(TORCH, error=0.0)], folder=folder)


BROKEN: dict[str, Callable[[Path], Run]] = {
    "empty": lambda folder: make_run(make_header([]), folder=folder),
    "planned only": lambda folder: make_run(make_header([TORCH, JAX]), folder=folder),
    "all crashed": all_crashed,
    "one block": lambda folder: simple_run({TORCH: [1000], JAX: [900]}, folder=folder),
    "one backend": lambda folder: simple_run({TORCH: [1000, 1001, 999]}, folder=folder),
    "parity alone": parity_alone,
    "stopped at once": stopped_at_once,
    "reference alone": lambda folder: simple_run({REFERENCE: [10, 11, 12]}, folder=folder),
    "hostile": hostile_run,
}
