"""The exit status of a finished run: whether everything was ranked, and whether something is claimed."""

from typing import Any

import pytest
from synthetic import make_block, make_cell, make_header, make_job, make_parity, make_run, make_workload

from bench.analysis.summary import summarise
from bench.run import command


@pytest.mark.parametrize(("blocks", "status"), [(3, 0), (2, 3), (0, 3)])
def test_own_defaults_are_never_ranked_and_yet_no_failure_once_measured(blocks: int, status: int) -> None:
    cell = make_cell()
    header = make_header([cell], workloads=[make_workload(matched=False)])
    summary = summarise(make_run(header, [make_job(cell, block) for block in range(blocks)]))
    assert command._status(summary, require_target=False) == status


@pytest.mark.parametrize(
    ("rates", "disturbed", "status"),
    [
        ((1.5, 1.0), set(), 0),
        ((1.0, 1.0), set(), 0),  # that no difference was detected is a result
        ((1.5, 1.0), {0}, 0),
        ((1.5, 1.0), {0, 1, 2, 3}, 3),
        ((1.5,), set(), 0),
        ((1.5,), {0, 1, 2, 3}, 3),
    ],
)
def test_a_run_that_claims_nothing_of_a_workload_has_not_decided(
    rates: tuple[float, ...], disturbed: set[int], status: int
) -> None:
    cells = [make_cell(), make_cell(backend="jax", mode="jit")][: len(rates)]
    records: list[Any] = [make_parity(cell) for cell in cells]
    for block in range(5):
        records.append(make_block(cells, block, throttled_share=0.5 if block in disturbed else 0.0))
        records += [
            make_job(cell, block, rates=[1000 * rate * (1 + 0.001 * block * (place - 0.5))] * 5, windows=5)
            for place, (cell, rate) in enumerate(zip(cells, rates, strict=True))
        ]
    summary = summarise(make_run(make_header(cells, min_blocks=5), records))
    assert all(cell.ranked for cell in summary.cells)
    assert command._status(summary, require_target=False) == status
