"""Comparisons side by side for tests: blocks as they would be kept, with the change of head chosen."""

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from synthetic import make_cell, make_conditions, make_header, make_job, make_parity, make_points

from bench.gate.judge import judge_cell, next_step
from bench.gate.metrics import Conclusion
from bench.gate.records import Ab, AbBlock, AbHeader, AbParity, AbRecord, Series
from bench.gate.sides import SideHere, SideName
from bench.records.schema import BackendHere, JobRecord, ParityCheck, Status, Window
from bench.workloads.catalog import find_workload
from bench.workloads.specs import Cell

CELL = make_cell("mnist-softmax")
OTHER = make_cell("mnist-softmax", "jax", "jit")
RATE = 1000.0
SCATTERS = (0.013, 0.020, 0.025, 0.033, 0.040)
"""Standard deviations of the difference of equal sides over the blocks of a series: the quantiles 10, 25, 50,
75 and 90 % of the 105 series in results/gate-cpu-2-core/unchanged (tests/benchmarks/gate_power.py)."""
WINDOWS = 6


def make_side(**changed: object) -> SideHere:
    torch = BackendHere(
        name="torch", title="PyTorch", default_mode="eager", modes={}, reference=False,
        versions={"torch": "2.13.0"},
    )  # fmt: skip
    facts: dict[str, object] = {
        "asked": (), "commit": "a" * 40, "dirty": False, "variables": {}, "pins": {}, "backends": (torch,),
        "workloads": (find_workload("mnist-softmax"),),
    }  # fmt: skip
    return SideHere(**{**facts, **changed})


def make_ab(
    records: Sequence[AbRecord],
    *,
    cells: tuple[Cell, ...] = (CELL,),
    missing: dict[str, str] | None = None,
    most_blocks: int = 16,
    base: SideHere | None = None,
    head: SideHere | None = None,
) -> Ab:
    header = AbHeader(
        run_id="ab-x", created_at="2026-01-01T00:00:00+00:00", command=("bench", "ab"), budget_s=3600.0,
        first_blocks=6, most_blocks=most_blocks, confirm_blocks=10, windows=WINDOWS, window_s=0.05,
        sample=False, cells=cells, missing=missing or {}, base=base or make_side(),
        head=head or make_side(commit="b" * 40), environment=make_header([CELL]).environment,
    )  # fmt: skip
    return Ab(folder=Path("results/ab-x"), header=header, records=tuple(records))


def make_block(
    number: int,
    *,
    series: Series = "first",
    change: float = 0.0,
    extra: float = 0.0,
    accuracy: float = 0.9,
    trained: bool = True,
    memory: float = 1.0,
    base_status: Status = "ok",
    head_status: Status = "ok",
    seconds: float = 0.1,
    cell: Cell = CELL,
) -> AbBlock:
    """Return a block in which head's logarithm of samples/s is larger by `change` and, by chance, `extra`."""
    base = _job(number, RATE, 0.9, base_status, 1.0, trained=trained, seconds=seconds, cell=cell)
    head = _job(
        number, RATE * math.exp(change + extra), accuracy, head_status, memory,
        trained=trained, seconds=seconds, cell=cell,
    )  # fmt: skip
    return AbBlock(
        series=series, block=number, cell=cell, started_at=f"2026-01-01T00:00:{number:02}+00:00", wall_s=10.0,
        rounds=WINDOWS, first="base" if number % 2 else "head", conditions=make_conditions(), base=base,
        head=head,
    )  # fmt: skip


def _job(
    number: int,
    rate: float,
    accuracy: float,
    status: Status,
    memory: float,
    *,
    trained: bool,
    seconds: float,
    cell: Cell,
) -> JobRecord:
    windows = tuple(
        Window(steps=1, samples=100, seconds=seconds * 1000.0 / rate * (1 + 0.001 * place))
        for place in range(WINDOWS)
    )
    job = make_job(
        cell, number, status=status, error=None if status == "ok" else "it is gone", windows=WINDOWS,
        epochs=1 if trained else 0, points=make_points(accuracy, 1, 1.0) if trained else (),
        peak_rss_bytes=round(memory * 2**29), seed=number,
    )  # fmt: skip

    return msgspec.structs.replace(job, windows=windows if status == "ok" else ())


def proven(check: ParityCheck | None = None, *, cell: Cell = CELL, side: SideName = "head") -> AbParity:
    record = make_parity(cell)
    if check is not None:
        record = msgspec.structs.replace(record, checks=(check,))
    return AbParity(side=side, parity=record)


def unproven(status: Status, error: str, *, side: SideName = "head", cell: Cell = CELL) -> AbParity:
    """Return that nothing was compared with the reference, and why."""
    record = msgspec.structs.replace(make_parity(cell), status=status, error=error, checks=())
    return AbParity(side=side, parity=record)


def decided(loss: float, scatter: float, seed: int, *, side_effect: float = 0.0) -> Conclusion:
    """Return how a gate ends whose blocks are drawn as it asks for them, by its own rules.

    Head takes `loss` more time for the same steps, 0.05 for 5 %. The difference of its logarithm of samples/s
    scatters from block to block with the standard deviation `scatter`. A side effect, such as the place of a
    process in memory, makes head faster or slower by that share in all blocks of both series.
    """
    chance = np.random.default_rng([seed, round(1e4 * loss), round(1e4 * scatter), round(1e4 * side_effect)])
    change = -math.log1p(loss) + float(chance.choice((-1, 1))) * math.log1p(side_effect)
    records: list[AbRecord] = [proven(), proven(side="base")]

    def measure(series: Series, numbers: range) -> None:
        for number in numbers:
            extra = float(chance.normal(0, scatter))
            records.append(make_block(number, series=series, change=change, extra=extra))

    # The first 6 blocks, and the first 10 of a second series, have to be there before anything is judged.
    measure("first", range(6))
    while (step := next_step(ab := make_ab(records), CELL)) is not None:
        series: Series = "first" if step == "block" else "second"
        number = len(ab.blocks_of(CELL, series))
        measure(series, range(number, 10 if series == "second" and not number else number + 1))
    return judge_cell(ab, CELL).conclusion
