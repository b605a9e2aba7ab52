"""Pairs of runs for tests of `bench compare`: what a cell reached in every block, with the change chosen."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from synthetic import make_block, make_cell, make_header, make_job, make_parity, make_points, make_run

from bench.gate.compare import CellComparison, Compared
from bench.gate.metrics import Finding
from bench.records.runs import HEADER, RECORDS, Run
from bench.records.schema import JobRecord, Record, RunHeader
from bench.workloads.specs import Cell

CELL = make_cell()
OTHER = make_cell(backend="jax", mode="jit")
LEARNED = (0.975, 0.976, 0.974)
BLOCKS = 6
_WINDOWS = 5
_MIB = 2**20


def make_jobs(
    factor: float = 1.0,
    *,
    cell: Cell = CELL,
    blocks: int = BLOCKS,
    scatter: float = 0.004,
    seed: int = 0,
    memory: float = 1.0,
    device_memory: float | None = None,
    first_step_s: float = 0.4,
    learned: Sequence[float] = (),
    epochs: int = 3,
    seconds_per_epoch: float = 10.0,
    described: Mapping[str, str | int | None] | None = None,
) -> list[JobRecord]:
    """Return the jobs of a cell, one a block, at about `factor` times 1000 samples/s.

    `learned` are the accuracies of the first blocks' trainings.
    """
    noise = np.random.default_rng(seed)
    jobs = []
    for block in range(blocks):
        rate = 1000.0 * factor * math.exp(noise.normal(0, scatter))
        trained = block < len(learned)
        job = make_job(
            cell,
            block,
            rates=[rate] * _WINDOWS,
            windows=_WINDOWS,
            first_step_s=first_step_s * math.exp(noise.normal(0, 0.02)),
            peak_rss_bytes=round(700 * _MIB * memory * math.exp(noise.normal(0, 0.002))),
            peak_device_bytes=None if device_memory is None else round(900 * _MIB * device_memory) + block,
            points=make_points(learned[block], epochs, seconds_per_epoch * (1 + 0.01 * block))
            if trained
            else (),
            epochs=epochs if trained else 0,
        )
        jobs.append(msgspec.structs.replace(job, described=dict(described or {})))
    return jobs


def make_side(
    *groups: Sequence[JobRecord],
    run_id: str = "base",
    parity: Sequence[Record] | None = None,
    planned: Sequence[Cell] | None = None,
    conditions: Sequence[Mapping[str, object]] = (),
    **header: object,
) -> Run:
    """Return a run of these jobs, parity passed, on a quiet machine but for `conditions` by block.

    What else is named is changed in its header.
    """
    jobs = [job for group in groups for job in group]
    cells = list(dict.fromkeys([*(job.spec.cell for job in jobs), *(planned or ())]))
    records: list[Record] = [make_parity(cell) for cell in cells] if parity is None else list(parity)
    for workload in dict.fromkeys(cell.workload for cell in cells):
        of_it = [cell for cell in cells if cell.workload == workload]
        for block in sorted({job.spec.block for job in jobs if job.spec.cell in of_it}):
            loud = conditions[block] if block < len(conditions) else {}
            records.append(make_block(of_it, block, **loud))
    return make_run(changed_header(make_header(cells), run_id=run_id, **header), [*records, *jobs])


def changed_header(header: RunHeader, **changes: object) -> RunHeader:
    """Return the header with these fields; `environment` is a mapping of its fields that change."""
    environment = changes.pop("environment", {})
    assert isinstance(environment, Mapping)
    return msgspec.structs.replace(
        header, environment=msgspec.structs.replace(header.environment, **environment), **changes
    )


def only(compared: Compared) -> CellComparison:
    (cell,) = compared.cells
    return cell


def finding(one: CellComparison, measure: str) -> Finding:
    return next(found for found in one.findings if found.metric.name == measure)


def kinds(one: CellComparison) -> dict[str, str]:
    return {found.metric.name: found.kind for found in one.findings}


def save(run: Run, results: Path) -> Path:
    """Write a run as `bench run` would, and return its folder."""
    folder = results / run.header.run_id
    folder.mkdir(parents=True)
    (folder / HEADER).write_bytes(msgspec.json.encode(run.header))
    (folder / RECORDS).write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in run.records))
    return folder
