"""Which block comes next in a run."""

import numpy as np
import pytest
from synthetic import make_cell, make_header, make_job, make_run, quiet_blocks

from bench.records.schema import BlockRecord
from bench.run.budget import Budget
from bench.run.log import RunLog
from bench.run.plan import PRESETS
from bench.run.schedule import Schedule


@pytest.mark.parametrize(("blocks", "following"), [(3, "mnist-mlp"), (5, "mnist-mlp"), (6, None)])
def test_no_width_ends_a_run_before_six_blocks(blocks: int, following: str | None) -> None:
    """All blocks are equal, so any width would be narrow enough."""
    cells = [make_cell("mnist-mlp", backend) for backend in ("torch", "jax")]
    jobs = [make_job(cell, block) for cell in cells for block in range(blocks)]
    log = RunLog(make_run(make_header(cells), [*quiet_blocks(cells, blocks), *jobs]), unavailable=())
    schedule = Schedule(log, Budget(log, {}), PRESETS["quick"])
    assert schedule.least_precise(set()) == following
    assert schedule.least_precise({"mnist-mlp"}) is None


def test_until_widths_decide_the_workload_with_the_fewest_blocks_is_next() -> None:
    """Else the number of blocks would depend on the widths, and narrow intervals would be too narrow."""
    cells = [make_cell(name, backend) for name in ("mnist-mlp", "mnist-cnn") for backend in ("torch", "jax")]
    random = np.random.default_rng(1)
    scatters = {"mnist-mlp": 0.5, "mnist-cnn": 0.05}
    records = list(quiet_blocks(cells, 8))
    for cell in cells:
        rates = 1000 * np.exp(random.normal(0, scatters[cell.workload], 8))
        records += [make_job(cell, block, rates=[float(rate)] * 20) for block, rate in enumerate(rates)]

    def after(mlp: int, cnn: int) -> str | None:
        kept = {"mnist-mlp": mlp, "mnist-cnn": cnn}
        short = [
            one
            for one in records
            if (one.block if isinstance(one, BlockRecord) else one.spec.block)
            < kept[one.workload if isinstance(one, BlockRecord) else one.spec.cell.workload]
        ]
        log = RunLog(make_run(make_header(cells), short), unavailable=())
        return Schedule(log, Budget(log, {}), PRESETS["quick"]).least_precise(set())

    assert after(3, 4) == "mnist-mlp"
    assert after(4, 3) == "mnist-cnn", "although its interval is narrower"
    assert after(6, 5) == "mnist-cnn"
    assert after(6, 6) == "mnist-mlp", "now the widest interval is next"
    assert after(8, 6) == "mnist-mlp"


def test_a_row_that_was_given_up_does_not_keep_a_run_going() -> None:
    cells = [make_cell("mnist-mlp", backend) for backend in ("torch", "jax", "tensorflow")]
    records = list(quiet_blocks(cells, 6))
    for cell in cells[:2]:
        records += [make_job(cell, block) for block in range(6)]
    records += [make_job(cells[2], 0), make_job(cells[2], 1, status="crashed", rates=())]
    log = RunLog(make_run(make_header(cells), records), unavailable=())
    assert Schedule(log, Budget(log, {}), PRESETS["quick"]).least_precise(set()) is None
