"""Workloads that a run did not train: which they are, and the command that trains them."""

import shlex

import msgspec
import pytest
from page_blocks import said, section
from synthetic import make_cell, make_header, make_job, make_points, make_run

from bench.analysis.summary import summarise
from bench.options import parse_budget
from bench.run.plan import TRAINING_SHARE, training_seconds
from bench.run.report import page
from bench.run.untrained import ROOM, command_to_train, untrained
from bench.workloads.catalog import find_workload

QUICK, SLOW = make_cell("mnist-softmax"), make_cell("mnist-cnn")


def job(cell, block=0, *, epochs=0, **changes):
    points = make_points(0.9, epochs, 10.0) if epochs else ()
    workload = find_workload(cell.workload.partition("@")[0])
    workload = msgspec.structs.replace(workload, name=cell.workload)
    return make_job(cell, block, epochs=epochs, points=points, workload=workload, **changes)


def run_of(jobs, *, seeds=1, blocks=3):
    cells = list(dict.fromkeys(job.spec.cell for job in jobs))
    workloads = {job.spec.workload.name: job.spec.workload for job in jobs}
    return make_run(
        make_header(cells, seeds=seeds, workloads=list(workloads.values()), min_blocks=blocks), jobs
    )


@pytest.mark.parametrize(
    ("jobs", "seeds", "names"),
    [
        ([job(QUICK, epochs=3), job(SLOW)], 1, ("mnist-cnn",)),
        ([job(QUICK), job(SLOW)], 1, ("mnist-softmax", "mnist-cnn")),
        ([job(QUICK, epochs=3), job(SLOW, epochs=3)], 1, ()),
        ([job(QUICK), job(SLOW)], 0, ()),  # nobody asked for training
        ([job(make_cell("mnist-softmax@64"))], 1, ()),  # a sweep
        ([job(QUICK, rates=(), windows=0)], 1, ()),  # not even timed: the report says so elsewhere
    ],
)
def test_a_workload_is_untrained_if_it_was_timed_and_training_was_asked_for(jobs, seeds, names):
    assert untrained(run_of(jobs, seeds=seeds)) == names


def test_the_command_has_a_budget_that_covers_blocks_and_training():
    jobs = [job(cell, block) for cell in (SLOW, make_cell("mnist-cnn", "jax", "jit")) for block in range(3)]
    words = shlex.split(command_to_train(run_of(jobs), ["mnist-cnn"], seeds=1))
    assert words[:-1] == [
        "bench", "run", "--preset", "quick", "--workload", "mnist-cnn", "--seeds", "1", "--budget",
    ]  # fmt: skip
    # Of each of the two rows: 3 blocks of 12.5 s, the guess of 4 s for parity, and the training.
    training_s = training_seconds(1000.0, 3, train=60_000, test=10_000, batch_size=100)
    needed_s = 2 * (3 * 12.5 + 4 + training_s / TRAINING_SHARE)
    assert ROOM * needed_s <= parse_budget(words[-1]) < ROOM * needed_s + 60


def test_more_seeds_need_more_blocks_and_more_time():
    run = run_of([job(SLOW, block) for block in range(3)])
    minutes = [
        parse_budget(command_to_train(run, ["mnist-cnn"], seeds=seeds).split()[-1]) for seeds in (1, 2, 10)
    ]
    assert minutes == sorted(set(minutes))
    twice = parse_budget(command_to_train(run, ["mnist-cnn"], seeds=10, frameworks=2).split()[-1])
    assert twice == pytest.approx(2 * minutes[-1], abs=60)


def test_the_page_says_what_was_not_trained_and_how_to_train_it():
    run = run_of([job(QUICK, epochs=3), job(SLOW)])
    found = said(section(page.blocks(run, summarise(run)), "Learning"))
    assert "Not trained for accuracy, because the budget left too little time: mnist-cnn." in found
    assert command_to_train(run, ["mnist-cnn"], seeds=1) in found
    trained = run_of([job(QUICK, epochs=3), job(SLOW, epochs=3)])
    assert "Not trained" not in said(page.blocks(trained, summarise(trained)))
