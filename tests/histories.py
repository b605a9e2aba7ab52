"""Histories for tests: runs with chosen figures, one a day."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from synthetic import make_cell, simple_run

from bench import store
from bench.history.entries import Entry, Figures, Framework, History, Machine
from bench.records.runs import RECORDS, Run, create_run
from bench.records.schema import RunHeader
from bench.workloads.specs import Cell

BEGUN = datetime(2026, 5, 1, 10, tzinfo=UTC)
CELL = make_cell()
BOX = Machine(key="0badcafe", words="Example CPU, 16 CPUs, 64 GiB, no GPU", hostname="box")


def make_figures(rate: float | None = 1000.0, cell: Cell = CELL, **changes: Any) -> Figures:
    """Return the figures of a ranked row, with an interval of 1 % on either side."""
    figures = Figures(
        cell=cell,
        ranked=True,
        counts=True,
        why_not=None,
        samples_per_s=rate,
        samples_per_s_low=None if rate is None else 0.99 * rate,
        samples_per_s_high=None if rate is None else 1.01 * rate,
        blocks=3,
        first_step_s=0.4,
        epochs=3.0,
        test_accuracy=0.98,
        trained_jobs=3,
        peak_rss_bytes=700 * 2**20,
        peak_device_bytes=None,
    )
    return msgspec.structs.replace(figures, **changes)


def make_entry(day: int = 0, cells: Sequence[Figures] = (), **changes: Any) -> Entry:
    entry = Entry(
        schema=1,
        run_id=f"run-{day:03d}",
        created_at=BEGUN + timedelta(days=day),
        commit=f"{day:07x}" + "a" * 33,
        dirty=False,
        version="0.1.0",
        machine=BOX,
        frameworks=(Framework(name="torch", title="PyTorch", versions={"torch": "2.13.0"}),),
        mark=None,
        cells=tuple(cells) or (make_figures(),),
    )
    return msgspec.structs.replace(entry, **changes)


def make_history(rates: Sequence[float], cell: Cell = CELL, **changes: Any) -> History:
    """Return a history of one row with these rates, one a day."""
    return History(
        entries=tuple(
            make_entry(day, [make_figures(rate, cell)], **changes) for day, rate in enumerate(rates)
        )
    )


def stepped_rates(before: int = 12, after: int = 8, factor: float = 0.94, seed: int = 0) -> list[float]:
    """Return rates that scatter by 1 % and change by a factor."""
    random = np.random.default_rng(seed)
    rates = 2450 * np.exp(random.normal(0, 0.01, before + after))
    rates[before:] *= factor
    return [float(rate) for rate in rates]


def joined(*histories: History) -> History:
    entries = sorted(
        (entry for one in histories for entry in one.entries), key=lambda entry: entry.created_at
    )
    return History(entries=tuple(entries))


def write_run(results: Path, name: str, rate: float = 1000.0, day: int = 0, **changes: Any) -> Run:
    """Write a run of one row into a folder of that name, and return it."""
    run = make_run_of(name, rate, day, **changes)
    folder = create_run(results, run.header)
    for record in run.records:
        store.append(folder / RECORDS, record)
    return msgspec.structs.replace(run, folder=folder)


def make_run_of(name: str, rate: float = 1000.0, day: int = 0, **changes: Any) -> Run:
    """Return a run of one row with three blocks; `changes` apply to its header."""
    run = simple_run({CELL: [rate, 1.01 * rate, 0.99 * rate]})
    created = (BEGUN + timedelta(days=day)).isoformat()
    header: RunHeader = msgspec.structs.replace(run.header, run_id=name, created_at=created, **changes)
    return msgspec.structs.replace(run, header=header)


def line_of(entry: Entry) -> bytes:
    return msgspec.json.encode(entry) + b"\n"
