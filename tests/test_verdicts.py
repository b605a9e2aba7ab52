"""Verdicts: what is claimed of a workload, what is not, and the words for both."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import make_cell, make_header, make_job, make_parity, make_points, make_run, simple_run

from bench.summary import summarise
from bench.verdicts import percent_text, ratio_text

TORCH = make_cell()
COMPILED = make_cell(mode="compile")
TENSORFLOW = make_cell(backend="tensorflow", mode="graph")
JAX = make_cell(backend="jax", mode="jit")
REFERENCE = make_cell(backend="numpy", mode="float64")


# ---- who is faster


def test_a_clear_winner_is_named_with_its_ratio():
    summary = summarise(simple_run({TORCH: [1000, 1004, 998], TENSORFLOW: [900, 905, 897]}))
    (verdict,) = summary.verdicts
    assert verdict.winner == TORCH
    (comparison,) = verdict.backends
    assert comparison.differs
    assert comparison.low < comparison.ratio < comparison.high
    assert comparison.ratio == pytest.approx(1.1113, abs=2e-3)
    assert verdict.sentences[0].startswith("PyTorch eager trains mnist-cnn 1.")
    assert verdict.sentences[0].endswith("as fast as TensorFlow graph here.")
    assert "is fastest" in summary.answer[0]


def test_noise_names_no_winner_but_what_would_have_been_seen():
    (verdict,) = summarise(simple_run({TORCH: [1000, 1100, 950], TENSORFLOW: [1010, 1000, 1020]})).verdicts
    assert verdict.winner is None
    assert "No detectable difference between" in verdict.sentences[0]
    assert "would have been seen" in verdict.sentences[0]


def test_who_beats_only_some_is_no_winner():
    rates = {TORCH: [1000, 1020, 990], JAX: [1001, 1000, 1012], TENSORFLOW: [500, 505, 500]}
    summary = summarise(simple_run(rates))
    assert [one.differs for one in summary.verdicts[0].backends].count(True) == 2
    assert summary.verdicts[0].winner is None
    assert summary.answer[0] == "mnist-cnn: no framework is detectably faster than every other."


def test_the_faster_side_of_a_pair_is_that_of_the_blocks_both_have():
    run = simple_run({TORCH: [1000, 1003, 5000], JAX: [1100, 1101]}, min_blocks=2)
    (verdict,) = summarise(run).verdicts
    assert verdict.order == (TORCH, JAX)
    (comparison,) = verdict.backends
    assert (comparison.faster, comparison.slower, comparison.blocks) == (JAX, TORCH, 2)
    assert comparison.ratio > 1


def test_every_pair_of_backends_is_compared_by_their_best_modes():
    rates = {
        TORCH: [1000, 1004, 998],
        COMPILED: [1200, 1207, 1198],
        TENSORFLOW: [900, 905, 897],
        JAX: [1100, 1101, 1102],
    }
    (verdict,) = summarise(simple_run(rates)).verdicts
    assert verdict.order == (COMPILED, JAX, TORCH, TENSORFLOW)
    assert [(one.faster, one.slower) for one in verdict.backends] == [
        (COMPILED, JAX),
        (COMPILED, TENSORFLOW),
        (JAX, TENSORFLOW),
    ]
    assert [(one.faster, one.slower) for one in verdict.modes] == [(COMPILED, TORCH)]
    assert verdict.winner == COMPILED
    assert sorted(one.alpha for one in verdict.backends) == pytest.approx([0.05 / 3, 0.025, 0.05])


def test_a_single_backend_has_nothing_to_be_compared_with():
    (verdict,) = summarise(simple_run({TORCH: [1000, 1001, 999]})).verdicts
    assert verdict.winner is None
    assert verdict.sentences == (
        "Only PyTorch is ranked on mnist-cnn: there is no framework to compare it with.",
    )


def test_nothing_is_claimed_of_a_backend_that_is_not_ranked():
    run = simple_run({TORCH: [1000, 1004, 998], TENSORFLOW: [900, 905, 897], JAX: [2000]})
    summary = summarise(run)
    (verdict,) = summary.verdicts
    assert verdict.unranked == ("jax",)
    assert "Nothing is said of JAX on mnist-cnn: no row is ranked." in verdict.sentences
    assert "(JAX not ranked)" in summary.answer[0]


def test_cells_without_shared_blocks_are_not_compared():
    summary = summarise(simple_run({TORCH: [1000], TENSORFLOW: [500]}, min_blocks=1))
    (verdict,) = summary.verdicts
    assert verdict.winner is None
    assert verdict.backends == ()
    assert "cannot be compared on mnist-cnn: they share fewer than two blocks" in verdict.sentences[0]


def test_devices_and_precisions_are_judged_apart():
    gpu = make_cell(device="gpu", precision="tf32")
    verdicts = summarise(simple_run({TORCH: [1000] * 3, gpu: [9000] * 3})).verdicts
    assert {(verdict.device, verdict.precision) for verdict in verdicts} == {("cpu", "fp32"), ("gpu", "tf32")}
    assert all(len(verdict.order) == 1 for verdict in verdicts)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(100, 10000), min_size=3, max_size=5),
    st.lists(st.floats(100, 10000), min_size=3, max_size=5),
)
def test_what_the_backends_are_called_does_not_matter(first, second):
    one = summarise(simple_run({TORCH: first, JAX: second})).verdicts[0]
    other = summarise(simple_run({JAX: first, TORCH: second})).verdicts[0]
    renamed = {TORCH: JAX, JAX: TORCH, None: None}
    if first != second:
        assert other.winner == renamed[one.winner]
    for ours, theirs in zip(one.backends, other.backends, strict=True):
        assert ours.ratio == pytest.approx(theirs.ratio)
        assert ours.p == pytest.approx(theirs.p)


def test_two_equal_backends_are_told_apart_in_at_most_one_run_of_twenty():
    random = np.random.default_rng(17)
    winners = 0
    for _ in range(300):
        shared = random.normal(0, 0.05, 4)  # what a block does to both sides
        rates = {
            cell: list(1000 * np.exp(shared + random.normal(0, 0.01, 4))) for cell in (TORCH, TENSORFLOW, JAX)
        }
        winners += summarise(simple_run(rates)).verdicts[0].winner is not None
    assert winners / 300 <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / 300)


def test_no_verdict_speaks_of_the_reference():
    run = simple_run({TORCH: [1000, 1004, 998], REFERENCE: [5000, 5001, 5002]})
    summary = summarise(run)
    (verdict,) = summary.verdicts
    assert (verdict.order, verdict.unranked, verdict.backends) == ((TORCH,), (), ())
    assert verdict.sentences == (
        "Only PyTorch is ranked on mnist-cnn: there is no framework to compare it with.",
    )
    assert summary.answer[0] == "mnist-cnn: only PyTorch is ranked."


def test_a_run_of_the_reference_alone_ranks_nothing():
    (verdict,) = summarise(simple_run({REFERENCE: [1000] * 3})).verdicts
    assert verdict.sentences == ("No row is ranked on mnist-cnn, so nothing can be said of its speed.",)


# ---- whether all learn the same


def test_the_accuracy_spread_leaves_out_the_reference():
    finals = {TORCH: 0.97, JAX: 0.972, REFERENCE: 0.99}
    records = [make_parity(cell) for cell in finals]
    records += [
        make_job(cell, 0, epochs=2, points=make_points(final, 2, 10)) for cell, final in finals.items()
    ]
    (verdict,) = summarise(make_run(make_header(list(finals)), records)).verdicts
    assert verdict.accuracy_spread == pytest.approx(0.2)


def test_no_accuracy_spread_without_a_shared_seed():
    records = [make_parity(cell) for cell in (TORCH, JAX)]
    records += [
        make_job(cell, 0, epochs=2, points=make_points(0.9, 2, 10), seed=seed)
        for seed, cell in enumerate((TORCH, JAX))
    ]
    (verdict,) = summarise(make_run(make_header([TORCH, JAX]), records)).verdicts
    assert (verdict.accuracy_spread, verdict.accuracy_epochs) == (None, None)


def test_the_accuracy_spread_leaves_out_rows_that_fail_parity():
    rows = {TORCH: 0.97, TENSORFLOW: 0.975, JAX: 0.5}
    records = [make_parity(cell, error=1e-1 if cell == JAX else 1e-6) for cell in rows]
    records += [make_job(cell, 0, epochs=2, points=make_points(final, 2, 10)) for cell, final in rows.items()]
    (verdict,) = summarise(make_run(make_header(list(rows)), records)).verdicts
    assert verdict.accuracy_spread == pytest.approx(0.5)
    assert verdict.accuracy_epochs == 2


def test_the_accuracy_spread_is_of_shared_seeds():
    records = [make_parity(cell) for cell in (TORCH, JAX)]
    for cell, finals in {TORCH: [0.97, 0.93], JAX: [0.972]}.items():
        records += [
            make_job(cell, block, epochs=2, points=make_points(final, 2, 10))
            for block, final in enumerate(finals)
        ]
    (verdict,) = summarise(make_run(make_header([TORCH, JAX]), records)).verdicts
    assert verdict.accuracy_spread == pytest.approx(0.2)


# ---- words


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (1.05, 1.12, "1.05\u20131.12\u00d7"),
        (1.003, 1.094, "1.003\u20131.094\u00d7"),
        (1.3011, 1.3049, "1.301\u20131.305\u00d7"),
        (2.0, 2.0, "2.0000\u00d7"),
    ],
)
def test_a_ratio_is_written_with_the_digits_it_takes(low, high, text):
    assert ratio_text(low, high) == text


@pytest.mark.parametrize(("share", "text"), [(0.008, "0.8 %"), (0.124, "12 %"), (50.0, "over 1000 %")])
def test_a_share_is_written_with_two_digits(share, text):
    assert percent_text(share) == text
