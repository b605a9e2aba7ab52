"""What a run trains for accuracy, from the rates of its first blocks and what is left of its budget."""

import msgspec
import pytest
from synthetic import make_block, make_cell, make_header, make_job, make_points, make_run

from bench.measuring.data import Split
from bench.run.budget import Budget
from bench.run.log import RunLog
from bench.run.plan import find_preset
from bench.run.schedule import Schedule
from bench.worker.protocol import DataSource

SOFTMAX, MLP, CNN = "mnist-softmax", "mnist-mlp", "mnist-cnn"
RATES = {SOFTMAX: 100_000.0, MLP: 20_000.0, CNN: 1_000.0}
JOB_S = 12.5
"""The seconds that a synthetic job takes."""


def schedule(left_s: float, *, finals=(0.5, 0.5), rates=RATES) -> Schedule:
    """Return the schedule of a run of two frameworks in which two of three blocks are done."""
    cells = [make_cell(name, backend) for name in rates for backend in ("torch", "jax")]
    records = []
    for name, rate in rates.items():
        for block in range(2):
            sides = [cell for cell in cells if cell.workload == name]
            # Accuracies, which no choice may look at.
            records += [
                make_job(cell, block, rates=[rate] * 20, points=make_points(final, 1, 1.0))
                for cell, final in zip(sides, finals, strict=True)
            ]
            records.append(make_block(sides, block))
    header = msgspec.structs.replace(make_header(cells), budget_s=len(cells) * 2 * JOB_S + left_s)
    split = Split(source=DataSource(name="mnist", cache=None, limit=None), train=60_000, test=10_000)
    log = RunLog(make_run(header, records), unavailable=())
    return Schedule(log, Budget(log, dict.fromkeys(rates, split)), find_preset("quick"))


def chosen(left_s: float, **changes) -> dict[str, float]:
    made = schedule(left_s, **changes)
    return {name: made.epochs(name) for name in made.workloads(2)}


BLOCKS_S = 3 * 2 * JOB_S
"""The third block of every workload."""


@pytest.mark.parametrize(
    ("for_training_s", "epochs"),
    [
        (0, {SOFTMAX: 0, MLP: 0, CNN: 0}),
        # Three epochs with 19 evaluations are the work of 4.06 epochs: 4.9, 24 and 487 s for both frameworks.
        (8, {SOFTMAX: 0, MLP: 0, CNN: 0}),  # of which 60 % go to training
        (10, {SOFTMAX: 3, MLP: 0, CNN: 0}),
        (60, {SOFTMAX: 5, MLP: 3, CNN: 0}),
        (400, {SOFTMAX: 5, MLP: 5, CNN: 0}),
        (1000, {SOFTMAX: 5, MLP: 5, CNN: 3}),
    ],
)
def test_a_workload_trains_several_epochs_or_none_and_the_quickest_come_first(for_training_s, epochs):
    assert chosen(BLOCKS_S + for_training_s) == epochs


@pytest.mark.parametrize("finals", [(0.1, 0.99), (0.99, 0.1), (0.9, 0.9)])
def test_the_choice_looks_at_no_accuracy(finals):
    assert chosen(BLOCKS_S + 60, finals=finals) == chosen(BLOCKS_S + 60)


def test_the_choice_follows_the_measured_rates():
    swapped = dict(zip(RATES, reversed(RATES.values()), strict=True))
    assert chosen(BLOCKS_S + 60, rates=swapped) == {SOFTMAX: 0, MLP: 3, CNN: 5}
