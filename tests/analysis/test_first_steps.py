"""How closely first losses agree with the reference, from the proofs that jobs keep."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import make_cell, make_header, make_job, make_parity, make_run
from trainings import CELLS, make_proof

from bench.analysis.first_steps import MOST_DIGITS, digits, first_steps

TORCH, TENSORFLOW, JAX = CELLS
REFERENCE = make_cell(backend="numpy", mode="float64")


def proven(cell, *errors, rounding=(1e-7, 1e-6, 1e-5), block=0, status="ok"):
    """Return a job with a comparison for each tuple of errors."""
    proofs = tuple(make_proof(one, rounding[: len(one)]) for one in errors)
    return msgspec.structs.replace(make_job(cell, block, status=status), proofs=proofs)


def only(jobs, parity=()):
    cells = list(dict.fromkeys(job.spec.cell for job in jobs))
    (found,) = first_steps(make_run(make_header(cells), [*parity, *jobs]))
    return found


def test_the_largest_error_of_all_comparisons_and_blocks_counts_at_each_step():
    found = only(
        [
            proven(TORCH, (1e-7, 5e-6), (2e-7, 3e-6)),
            proven(TORCH, (3e-7, 1e-6), block=1),
            proven(JAX, (1e-8, 9e-6)),
        ]
    )
    assert found.cells[TORCH].errors == (3e-7, 5e-6)
    assert (found.steps, found.error(1), found.error(2)) == (2, 3e-7, 9e-6)
    assert (found.rounding(1), found.rounding(2)) == (1e-7, 1e-6)


def test_a_larger_batch_has_other_losses_and_takes_no_part():
    two, weak = (make_cell(mode="ddp", ranks=2, scaling=kind) for kind in ("strong", "weak"))
    found = only([proven(TORCH, (1e-7,)), proven(two, (2e-7,)), proven(weak, (3e-7,))])
    assert list(found.cells) == [TORCH, two]


def test_a_workload_is_judged_at_the_last_step_that_all_rows_have():
    """Rows that train several steps in a call have another number of steps."""
    found = only([proven(TORCH, (1e-7, 5e-6, 1e-2)), proven(JAX, (1e-8, 9e-6))])
    assert (found.steps, found.error(2)) == (2, 9e-6)
    assert len(found.cells[TORCH].errors) == 3


@pytest.mark.parametrize(
    ("wrong", "parity"),
    [
        pytest.param(proven(JAX, (0.5, 0.5), status="not_comparable"), [], id="in its timed program"),
        pytest.param(proven(JAX, (0.5, 0.5)), [make_parity(JAX, error=1.0)], id="in small batches"),
        pytest.param(proven(REFERENCE, (0.0, 0.0)), [], id="the reference"),
    ],
)
def test_what_is_not_comparable_and_the_reference_take_no_part(wrong, parity):
    found = only([proven(TORCH, (1e-7, 5e-6)), wrong], parity)
    assert list(found.cells) == [TORCH]
    assert found.error(1) == 1e-7


def test_records_from_before_the_errors_were_kept_give_nothing():
    old = proven(TORCH, (1e-7,))
    bare = tuple(msgspec.structs.replace(proof, loss_errors=(), rounding_errors=()) for proof in old.proofs)
    assert first_steps(make_run(make_header([TORCH]), [msgspec.structs.replace(old, proofs=bare)])) == ()
    assert first_steps(make_run(make_header([TORCH]), [make_job(TORCH)])) == ()


def test_workloads_devices_and_precisions_are_judged_apart():
    cells = [TORCH, make_cell(workload="mnist-mlp"), make_cell(device="gpu"), make_cell(precision="bf16")]
    found = first_steps(make_run(make_header(cells), [proven(cell, (1e-7,)) for cell in cells]))
    assert [(one.workload, one.device, one.precision) for one in found] == [
        ("mnist-cnn", "cpu", "fp32"),
        ("mnist-mlp", "cpu", "fp32"),
        ("mnist-cnn", "gpu", "fp32"),
        ("mnist-cnn", "cpu", "bf16"),
    ]


@pytest.mark.parametrize(
    ("error", "count"),
    [(0.0, MOST_DIGITS), (1e-20, MOST_DIGITS), (9.9e-7, 6), (1.1e-6, 5), (0.3, 0), (1.0, 0), (50.0, 0)],
)
def test_digits_of_an_error(error, count):
    assert digits(error) == count


@given(st.floats(1e-14, 0.9), st.floats(1e-14, 0.9))
def test_a_larger_error_never_has_more_digits_and_each_digit_is_a_tenth(one, other):
    smaller, larger = sorted((one, other))
    assert digits(larger) <= digits(smaller)
    assert larger <= 10.0 ** -digits(larger) * (1 + 1e-9)
    assert math.isclose(10.0 ** -(digits(larger) + 1), larger) or larger > 10.0 ** -(digits(larger) + 1)
