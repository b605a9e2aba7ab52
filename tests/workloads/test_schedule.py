"""When a network that learns is evaluated."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bench.workloads.schedule import evaluation_steps


def test_often_at_first_and_every_epoch_later() -> None:
    steps = evaluation_steps(600 * 7, 600)
    epochs = [step / 600 for step in steps]
    assert epochs[:11] == [tenth / 10 for tenth in range(11)]
    assert epochs[11:15] == [1.25, 1.5, 1.75, 2.0]
    assert epochs[-4:] == [4.0, 5.0, 6.0, 7.0]


def test_a_training_that_ends_inside_an_epoch_is_evaluated_there() -> None:
    assert evaluation_steps(150, 600) == [0, 60, 120, 150]


@given(st.integers(1, 20_000), st.integers(1, 2000))
def test_it_begins_before_the_first_step_and_ends_after_the_last(last: int, steps_per_epoch: int) -> None:
    steps = evaluation_steps(last, steps_per_epoch)
    assert (steps[0], steps[-1]) == (0, last)
    assert steps == sorted(set(steps))
    first_epoch = [step for step in steps if step <= steps_per_epoch]
    gaps = [after - before for before, after in pairwise(first_epoch)]
    assert max(gaps, default=1) <= steps_per_epoch / 10 + 1
