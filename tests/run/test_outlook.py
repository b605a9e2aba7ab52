"""How long a run would have to be: the time, its interval, and the sentence."""

import math
import re

import msgspec
import numpy as np
import pytest
from conftest import draws
from synthetic import make_cell, make_header, make_job, make_parity, make_points, make_run, simple_run

from bench.analysis.statistics import blocks_for
from bench.analysis.summary import summarise
from bench.records.runs import Run
from bench.records.schema import JobRecord
from bench.run.outlook import AIM, Outlook, in_words, outlook
from bench.run.plan import FEWEST_TO_STOP, MOST_BLOCKS, PRESETS, TRAINING_SHARE

NAMES = ("torch", "jax", "tensorflow")
BLOCK_S = 3 * 12.5
"""Three jobs of `make_job`."""


def run_of(scatter: float, blocks: int, *, workloads: int = 1, seed: int = 0, seeds: int = 0) -> Run:
    """Return a run of three equal rows whose ratios scatter so much from block to block."""
    random = np.random.default_rng(seed)
    cells = [make_cell(f"mnist-{name}", backend) for name in "abcdef"[:workloads] for backend in NAMES]
    rates = {cell: 1000 * np.exp(random.normal(0, scatter / math.sqrt(2), blocks)) for cell in cells}
    records = [
        make_job(cell, block, rates=[float(rate)] * 20)
        for cell, of_cell in rates.items()
        for block, rate in enumerate(of_cell)
    ]
    header = make_header(cells, seeds=seeds)
    return make_run(header, [*map(make_parity, cells), *records])


def found(run: Run) -> Outlook:
    told = outlook(run, summarise(run))
    assert told is not None
    return told


def test_the_time_is_that_of_the_blocks_that_a_ratio_needs() -> None:
    run = run_of(0.05, 10)
    told = found(run)
    variances = [one.scatter**2 for one in summarise(run).verdicts[0].made.backends]
    assert len(variances) == 3
    blocks = blocks_for(math.sqrt(sum(variances) / 3), AIM)
    assert told.blocks == {"mnist-a": blocks}
    assert FEWEST_TO_STOP < blocks < MOST_BLOCKS
    assert told.budget_s == pytest.approx(run.header.planned.parity_s + blocks * BLOCK_S)
    assert told.budget_s_low < told.budget_s < told.budget_s_high


def test_training_takes_its_share_of_the_time_until_all_epochs_are_trained() -> None:
    plain, training = run_of(0.05, 10), run_of(0.05, 10, seeds=1)
    blocks = found(plain).blocks["mnist-a"]
    required_s = plain.header.planned.parity_s + plain.header.min_blocks * BLOCK_S
    further_s = (blocks - plain.header.min_blocks) * BLOCK_S
    assert found(training).budget_s == pytest.approx(required_s + further_s / (1 - TRAINING_SHARE))
    jobs = [
        msgspec.structs.replace(
            make_job(
                job.spec.cell, job.spec.block, rates=[1000.0] * 20, epochs=1, points=make_points(0.9, 1, 1)
            ),
            windows=job.windows,
            learn_s=2.0,
            wall_s=14.5,
        )
        if job.spec.block == 2
        else job
        for job in training.jobs
    ]
    trained = msgspec.structs.replace(training, records=(*training.parity, *jobs))
    all_s = PRESETS["quick"].epochs * 3 * 2.0
    assert found(trained).budget_s == pytest.approx(required_s + further_s + all_s)


def test_a_run_that_is_precise_enough_says_so() -> None:
    told = found(run_of(0.001, 4))
    assert told.reached
    assert in_words(told) == "Every ratio of this run is known to ±3 % or better."


def test_three_blocks_of_one_workload_cannot_tell() -> None:
    told = found(run_of(0.05, 3))
    assert (told.reached, told.budget_s, told.blocks) == (False, None, {})
    assert told.enough_s == pytest.approx(60 + 6 * BLOCK_S)
    assert in_words(told) == (
        "This run has too few blocks to say how long ±3 % on every ratio would take. A run of about 5 "
        "minutes has enough: the same command with --budget 5m."
    )


def test_several_workloads_together_can_tell_what_one_cannot() -> None:
    told = found(run_of(0.05, 4, workloads=6))
    assert told.budget_s is not None
    minutes = r"For ±3 % on every ratio, run about (\d+) minutes \(95 % interval: (\d+) to (\d+)\): "
    matched = re.fullmatch(minutes + r"the same command with --budget (\d+)m\.", in_words(told))
    assert matched is not None
    about, low, high, budget = map(int, matched.groups())
    assert low < about == budget < high
    assert 60 * about >= told.budget_s


def test_what_no_run_can_reach_is_named() -> None:
    told = found(run_of(0.5, 12))
    assert told.budget_s is None
    assert told.beyond == ["mnist-a"]
    assert in_words(told) == (
        f"For ±3 % on every ratio a run would need about {told.blocks['mnist-a']} blocks of mnist-a; a run "
        "takes at most 30."
    )


def test_a_workload_that_lacks_blocks_keeps_a_run_from_telling() -> None:
    run = run_of(0.05, 10, workloads=2)
    short = tuple(
        one
        for one in run.records
        if not (isinstance(one, JobRecord) and one.spec.cell.workload == "mnist-b" and one.spec.block)
    )
    told = found(msgspec.structs.replace(run, records=short))
    assert (told.reached, told.budget_s, told.blocks) == (False, None, {})
    assert told.enough_s == pytest.approx(60 + 2 * 6 * BLOCK_S), "its blocks are counted too"
    wrong = tuple(
        make_parity(job.spec.cell, error=1.0) for job in run.jobs if job.spec.cell.workload == "mnist-b"
    )
    lost = msgspec.structs.replace(run, records=(*short, *wrong))
    assert set(found(lost).blocks) == {"mnist-a"}, "more blocks would not make it comparable"


def test_nothing_is_said_where_nothing_is_compared() -> None:
    run = simple_run({make_cell(): [1000, 1100, 900]})
    assert outlook(run, summarise(run)) is None


def test_the_interval_holds_the_true_time_nearly_as_often_as_it_says() -> None:
    true = run_of(0.05, 4, workloads=6)
    blocks = max(FEWEST_TO_STOP, blocks_for(0.05, AIM))
    true_s = true.header.planned.parity_s + 6 * blocks * BLOCK_S
    held, times = 0, draws(200, 40)
    for seed in range(times):
        told = found(run_of(0.05, 4, workloads=6, seed=seed))
        held += told.budget_s is not None and told.budget_s_low <= true_s <= told.budget_s_high
    assert held / times >= 0.9 - 4 * math.sqrt(0.9 * 0.1 / times)
