"""Verdicts: what is claimed of a workload, what is not, and the words for both."""

import math
import re

import msgspec
import numpy as np
import pytest
from conftest import draws
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import (
    TITLES,
    WINDOWS,
    disturbed_run,
    make_block,
    make_cell,
    make_header,
    make_job,
    make_parity,
    make_run,
    make_workload,
    simple_run,
)

from bench.analysis.statistics import ALPHA
from bench.analysis.stopping import widest_half_width
from bench.analysis.summary import summarise
from bench.records.schema import BlockRecord
from bench.report.format import percent_text, ratio_text
from bench.run.report.sentences import sentences

TORCH = make_cell()
COMPILED = make_cell(mode="compile")
TENSORFLOW = make_cell(backend="tensorflow", mode="graph")
JAX = make_cell(backend="jax", mode="jit")
REFERENCE = make_cell(backend="numpy", mode="float64")


def said(verdict):
    return tuple(sentences(verdict, TITLES))


# ---- who is faster


def test_a_clear_winner_is_named_with_its_ratio():
    summary = summarise(simple_run({TORCH: [1000, 1004, 998], TENSORFLOW: [900, 905, 897]}))
    (verdict,) = summary.verdicts
    assert verdict.winner == TORCH
    (comparison,) = verdict.made.backends
    assert comparison.differs
    assert comparison.low < comparison.ratio < comparison.high
    assert comparison.ratio == pytest.approx(1.1113, abs=2e-3)
    assert comparison.kind == "faster"
    assert said(verdict)[0].startswith("PyTorch eager trains mnist-cnn 1.11")
    assert said(verdict)[0].endswith("as fast as TensorFlow graph here.")


def run_of_a_drifter(*in_turns):
    """Return a run in which PyTorch has run in and is as fast as JAX, by whether the jobs took turns."""
    rates = {TORCH: [500] * WINDOWS + [1000] * WINDOWS, JAX: [1000] * WINDOWS}
    records = [make_parity(cell) for cell in rates]
    for block, turns in enumerate(in_turns):
        records.append(msgspec.structs.replace(make_block(list(rates), block), in_turns=turns))
        records += [make_job(cell, block, rates=of_cell) for cell, of_cell in rates.items()]
    return make_run(make_header(list(rates)), records)


def test_jobs_that_took_no_turns_are_compared_by_their_own_latest_windows():
    """Alone, a job that drifts takes more windows than the others, and no round is the same for both."""
    (alone,) = summarise(run_of_a_drifter(False, False, False)).verdicts[0].made.backends
    assert alone.ratio == pytest.approx(1.0)
    assert alone.plain == pytest.approx(1.0)
    (together,) = summarise(run_of_a_drifter(True, True, True)).verdicts[0].made.backends
    assert together.ratio == pytest.approx(2.0), "in turns, the rounds that both have count"


@pytest.mark.parametrize(
    ("in_turns", "which"),
    [((False,) * 3, "In all blocks"), ((True, False, True), "In 1 of 3 blocks"), ((True,) * 3, None)],
)
def test_blocks_without_turns_are_named_in_the_report(in_turns, which):
    warnings = summarise(run_of_a_drifter(*in_turns)).warnings
    assert len(warnings) == (which is not None)
    for warning in warnings:
        assert warning.startswith(f"{which} the processes ran one after another and did not take turns")


def test_a_run_goes_on_until_its_ratios_are_precise_also_without_turns():
    run = run_of_a_drifter(False, False, False)
    assert widest_half_width(run.jobs, {0, 1, 2}) == pytest.approx(0.0)
    jobs = [job for job in run.jobs if job.spec.block < 2]
    mixed = widest_half_width(jobs, {0})
    assert mixed > 1, "of a block in turns and one without, the ratios are 2 and 1"


def test_noise_names_no_winner_and_from_six_blocks_on_what_would_be_found():
    few = {TORCH: [1000, 1100, 950], TENSORFLOW: [1010, 1000, 1020]}
    for times, words in (
        (1, r"\d\u00d7\."),
        (2, r"\d\u00d7 \(the smallest difference found four times in five is .*\)\."),
    ):
        (verdict,) = summarise(simple_run({cell: rates * times for cell, rates in few.items()})).verdicts
        assert verdict.winner is None
        (one,) = verdict.made.backends
        assert one.kind == "undecided"
        assert (one.detectable is None) == (times == 1)
        (sentence,) = said(verdict)
        assert sentence.startswith("No detectable difference between PyTorch eager and TensorFlow graph")
        assert re.search(words + "$", sentence)


def rates_of(differences, *, base=1000.0):
    """Return the rates of two cells that differ by these ratios, block by block."""
    return {TORCH: [base * ratio for ratio in differences], TENSORFLOW: [base] * len(differences)}


@pytest.mark.parametrize(
    ("differences", "kind", "words"),
    [
        ([1.10, 1.101, 1.099, 1.10], "faster", "as fast as TensorFlow graph here."),
        (
            [1.0150, 1.0151, 1.0149, 1.0150],
            "slightly faster",
            "as fast as TensorFlow graph here, but by no more than 2 %.",
        ),
        ([1.001, 0.999, 1.002, 0.998], "equivalent", "No difference larger than 2 % between"),
        ([1.0080, 1.0081, 1.0079, 1.0080], "equivalent", "No difference larger than 2 % between"),
        ([1.00, 1.03, 0.97, 1.01], "undecided", "No detectable difference between"),
        ([1.02, 1.05, 1.08, 1.02], "undecided", "No detectable difference between"),
    ],
)
def test_a_comparison_is_of_one_of_four_kinds(differences, kind, words):
    (verdict,) = summarise(simple_run(rates_of(differences))).verdicts
    (comparison,) = verdict.made.backends
    assert comparison.kind == kind
    assert comparison.differs == (kind in ("faster", "slightly faster"))
    assert (verdict.winner is not None) == comparison.differs
    assert words in said(verdict)[0]


def test_rows_are_compared_round_by_round():
    random = np.random.default_rng(8)
    moods = np.exp(random.normal(0, 0.3, (4, WINDOWS)))
    records = [make_parity(TORCH), make_parity(JAX)]
    for block, mood in enumerate(moods):
        records += [
            make_job(cell, block, rates=list(rate * mood)) for cell, rate in ((TORCH, 1000), (JAX, 900))
        ]
    (verdict,) = summarise(make_run(make_header([TORCH, JAX]), records)).verdicts
    assert verdict.made.backends[0].ratio == pytest.approx(1000 / 900)
    assert verdict.made.backends[0].kind == "faster"
    assert verdict.winner == TORCH


def test_a_stall_in_a_few_rounds_of_one_side_moves_no_ratio():
    records = [make_parity(TORCH), make_parity(JAX)]
    for block in range(4):
        stalled = [300.0 if place in (0, 7 + block) else 1000.0 for place in range(WINDOWS)]
        records += [make_job(TORCH, block, rates=stalled), make_job(JAX, block, rates=[900.0] * WINDOWS)]
    (verdict,) = summarise(make_run(make_header([TORCH, JAX]), records)).verdicts
    assert verdict.made.backends[0].ratio == pytest.approx(1000 / 900)


def test_of_two_rows_only_the_rounds_that_count_for_both_and_all_their_jobs_are_compared():
    slow_start = [500.0] * 10 + [1000.0] * 10
    records = [make_parity(TORCH), make_parity(JAX)]
    for block in range(3):
        records += [
            make_job(TORCH, block, rates=slow_start, windows=10 if block == 0 else 20),
            make_job(JAX, block, rates=[900.0] * 20, windows=20),
        ]
    (verdict,) = summarise(make_run(make_header([TORCH, JAX]), records)).verdicts
    assert verdict.made.backends[0].ratio == pytest.approx(1000 / 900)


@pytest.mark.parametrize("order", [(TORCH, JAX), (JAX, TORCH)])
def test_the_interval_holds_the_ratio_whichever_side_is_faster(order):
    rates = dict(zip(order, ([1000, 1040, 960, 1010], [800, 790, 815, 805]), strict=True))
    for run in (simple_run(rates), simple_run(dict(reversed(rates.items())))):
        (comparison,) = summarise(run).verdicts[0].made.backends
        assert comparison.faster == order[0]
        assert 1 < comparison.low < comparison.ratio < comparison.high
        assert comparison.plain == pytest.approx(comparison.ratio)


def test_the_faster_side_of_a_pair_may_be_the_slower_row():
    # JAX has one very slow block that PyTorch lacks, so its row comes last, and it is compared second.
    run = simple_run({TORCH: [1000, 1010, 990], JAX: [1100, 1120, 1095, 10]})
    (comparison,) = summarise(run).verdicts[0].made.backends
    assert comparison.faster == JAX
    assert 1 < comparison.low < comparison.ratio < comparison.high


# ---- blocks that something else disturbed


def test_both_answers_are_given_where_a_dropped_block_changes_one():
    rates = rates_of([1.10, 1.101, 1.099, 1.10, 0.7])
    (verdict,) = summarise(disturbed_run(rates, {4})).verdicts
    assert (verdict.made.backends[0].kind, verdict.made.backends[0].blocks) == ("faster", 4)
    (other,) = verdict.with_dropped.backends
    assert (other.kind, other.blocks) == ("undecided", 5)
    assert said(verdict)[-1] == (
        "The verdict on PyTorch eager and TensorFlow graph on mnist-cnn changes if the dropped blocks are "
        "included: No detectable difference between PyTorch eager and TensorFlow graph "
        f"on mnist-cnn: {ratio_text(other.low, other.high)}."
    )


def test_nothing_is_said_of_a_dropped_block_that_changes_nothing():
    (verdict,) = summarise(disturbed_run(rates_of([1.10, 1.101, 1.099, 1.10, 1.1]), {4})).verdicts
    assert verdict.with_dropped.backends[0].kind == "faster"
    assert len(said(verdict)) == 1
    (quiet,) = summarise(disturbed_run(rates_of([1.10, 1.101, 1.099, 1.10, 1.1]), set())).verdicts
    assert quiet.with_dropped is None


def test_nothing_is_claimed_where_a_check_had_no_value():
    rates = rates_of([1.10, 1.101, 1.099, 1.10])
    run = disturbed_run(rates, set())
    records = [
        msgspec.structs.replace(
            record, conditions=msgspec.structs.replace(record.conditions, foreign_share=None)
        )
        if isinstance(record, BlockRecord)
        else record
        for record in run.records
    ]
    (verdict,) = summarise(msgspec.structs.replace(run, records=tuple(records))).verdicts
    assert verdict.disturbed
    assert {one.kind for one in verdict.made.backends} == {"disturbed"}
    assert said(verdict) == (
        "Nothing is claimed about mnist-cnn: this system does not tell how much CPU time other programs "
        "used, so nothing rules out that they disturbed 4 of its 4 blocks. Run it where /proc can be "
        "read.",
    )


def test_nothing_is_claimed_of_a_workload_that_was_disturbed():
    rates = {**rates_of([1.10, 1.101, 1.099, 1.10, 1.1]), JAX: [500] * 5, COMPILED: [300] * 5}
    summary = summarise(disturbed_run(rates, {0, 1, 2, 3}, min_blocks=5))
    (verdict,) = summary.verdicts
    assert verdict.disturbed
    assert verdict.winner is None
    assert {one.kind for one in (*verdict.made.backends, *verdict.made.modes)} == {"disturbed"}
    assert not any(one.differs for one in (*verdict.made.backends, *verdict.made.modes))
    assert said(verdict) == (
        "Nothing is claimed about mnist-cnn: something else disturbed 4 of its 5 blocks (the hypervisor gave "
        "more than 10 % of CPU time to others in 20 of 20 rounds). Run it again when the machine is quiet.",
    )


@pytest.mark.parametrize("loud", [set(), {0}])
def test_a_quota_is_named_as_the_cause_with_its_own_advice(loud):
    rates = {**rates_of([1.10, 1.101, 1.099, 1.10]), JAX: [500] * 4, COMPILED: [300] * 4}
    run = disturbed_run(rates, loud)
    records = [
        msgspec.structs.replace(one, conditions=msgspec.structs.replace(one.conditions, throttled_share=0.5))
        if isinstance(one, BlockRecord) and one.block not in loud
        else one
        for one in run.records
    ]
    summary = summarise(msgspec.structs.replace(run, records=tuple(records)))
    (found,) = said(summary.verdicts[0])
    if loud:
        assert found.startswith(
            "Nothing is claimed about mnist-cnn: something else disturbed 4 of its 4 blocks"
        )
        assert found.endswith("Raise the CPU quota. Run it again when the machine is quiet.")
    else:
        assert found == (
            "Nothing is claimed about mnist-cnn: a CPU quota held back the jobs of 4 of its 4 blocks. To run "
            "it again does not help: raise the quota, use no more threads than it grants, or end what else "
            "runs under it."
        )


# ---- who is fastest


def test_who_beats_only_some_is_no_winner():
    rates = {TORCH: [1000, 1020, 990], JAX: [1001, 1000, 1012], TENSORFLOW: [500, 505, 500]}
    summary = summarise(simple_run(rates))
    assert [one.differs for one in summary.verdicts[0].made.backends].count(True) == 2
    assert summary.verdicts[0].winner is None


def test_the_faster_side_of_a_pair_is_that_of_the_blocks_both_have():
    run = simple_run({TORCH: [1000, 1003, 5000], JAX: [1100, 1101]}, min_blocks=2)
    (verdict,) = summarise(run).verdicts
    assert verdict.order == (TORCH, JAX)
    (comparison,) = verdict.made.backends
    assert (comparison.faster, comparison.slower, comparison.blocks) == (JAX, TORCH, 2)
    assert comparison.ratio > 1


def test_a_ratio_that_trimming_changes_is_flagged_with_both_values():
    records = [make_parity(TORCH), make_parity(JAX)]
    for block in range(3):
        stalled = [100.0 if place == 7 else 1000.0 for place in range(WINDOWS)]
        records += [make_job(TORCH, block, rates=stalled), make_job(JAX, block, rates=[900.0] * WINDOWS)]
    (verdict,) = summarise(make_run(make_header([TORCH, JAX]), records)).verdicts
    (one,) = verdict.made.backends
    assert one.ratio == pytest.approx(1000 / 900)
    assert one.plain == pytest.approx(20 / 29 * 1000 / 900)
    assert one.trimming_matters
    assert said(verdict)[1] == (
        "Trimming changes 1 of 1 ratios on mnist-cnn by more than 1 %. It changes most that of PyTorch eager "
        "to JAX jit: 1.111\u00d7, and 0.766\u00d7 without trimming."
    )
    (steady,) = summarise(simple_run({TORCH: [1000] * 3, JAX: [900] * 3})).verdicts
    assert not steady.made.backends[0].trimming_matters
    assert len(said(steady)) == 1


def test_every_pair_of_backends_is_compared_by_their_picked_modes():
    rates = {
        TORCH: [1000, 1004, 998, 1001, 999],
        COMPILED: [1200, 1207, 1198, 1201, 1203],
        TENSORFLOW: [900, 905, 897, 901, 902],
        JAX: [1100, 1101, 1102, 1099, 1101],
    }
    (verdict,) = summarise(simple_run(rates)).verdicts
    assert verdict.order == (COMPILED, JAX, TORCH, TENSORFLOW)
    assert [(one.faster, one.slower) for one in verdict.made.backends] == [
        (COMPILED, JAX),
        (COMPILED, TENSORFLOW),
        (JAX, TENSORFLOW),
    ]
    assert [(one.faster, one.slower) for one in verdict.made.modes] == [(COMPILED, TORCH)]
    assert verdict.winner == COMPILED
    assert sorted(one.alpha for one in verdict.made.backends) == pytest.approx([ALPHA / 3, ALPHA / 2, ALPHA])


def test_a_single_backend_has_nothing_to_be_compared_with():
    (verdict,) = summarise(simple_run({TORCH: [1000, 1001, 999]})).verdicts
    assert verdict.winner is None
    assert said(verdict) == (
        "Only PyTorch is ranked on mnist-cnn: there is no framework to compare it with.",
    )


def test_nothing_is_claimed_of_a_backend_that_is_not_ranked():
    run = simple_run({TORCH: [1000, 1004, 998], TENSORFLOW: [900, 905, 897], JAX: [2000]})
    summary = summarise(run)
    (verdict,) = summary.verdicts
    assert verdict.unranked == ("jax",)
    assert "No row of JAX is ranked on mnist-cnn, so nothing is claimed about it." in said(verdict)


def test_cells_without_shared_blocks_are_not_compared():
    summary = summarise(simple_run({TORCH: [1000], TENSORFLOW: [500]}, min_blocks=1))
    (verdict,) = summary.verdicts
    assert verdict.winner is None
    assert verdict.made.backends == ()
    assert "cannot be compared on mnist-cnn: they share fewer than two blocks" in said(verdict)[0]


def test_devices_and_precisions_are_judged_apart():
    gpu = make_cell(device="gpu", precision="tf32")
    verdicts = summarise(simple_run({TORCH: [1000] * 3, gpu: [9000] * 3})).verdicts
    assert {(verdict.device, verdict.precision) for verdict in verdicts} == {("cpu", "fp32"), ("gpu", "tf32")}
    assert all(len(verdict.order) == 1 for verdict in verdicts)


def test_a_level_is_judged_apart_and_rows_as_taught_are_compared_with_tuned_ones_of_their_framework():
    plain = {cell.backend: msgspec.structs.replace(cell, mode="tutorial") for cell in (TORCH, JAX)}
    rates = {
        TORCH: [1000, 1004, 998],
        COMPILED: [2000, 2008, 1996],
        JAX: [1500, 1506, 1497],
        plain["torch"]: [500, 502, 499],
        plain["jax"]: [100, 101, 100],
    }
    tuned, taught = summarise(simple_run(rates)).verdicts
    assert (tuned.level, tuned.winner, tuned.made.tuning) == ("tuned", COMPILED, ())
    assert (taught.level, taught.winner) == ("taught", plain["torch"])
    assert taught.order == tuple(plain.values())
    gains = [(one.faster, one.slower, round(one.ratio)) for one in taught.made.tuning]
    assert gains == [(COMPILED, plain["torch"], 4), (JAX, plain["jax"], 15)]
    assert said(taught)[-1].startswith("JAX jit trains mnist-cnn 1")


def test_a_tuned_row_that_is_not_ranked_is_no_measure_of_tuning():
    plain = msgspec.structs.replace(TORCH, mode="tutorial")
    (taught,) = summarise(simple_run({plain: [500] * 3})).verdicts
    assert taught.made.tuning == ()
    run = simple_run({TORCH: [1000] * 3, plain: [500] * 3})
    proven = [record for record in run.records if record != make_parity(TORCH)]
    tuned, taught = summarise(msgspec.structs.replace(run, records=tuple(proven))).verdicts
    assert (tuned.order, taught.order, taught.made.tuning) == ((), (plain,), ())


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
    for ours, theirs in zip(one.made.backends, other.made.backends, strict=True):
        assert ours.ratio == pytest.approx(theirs.ratio)
        assert ours.p == pytest.approx(theirs.p)


def test_three_equal_backends_are_told_apart_in_one_run_of_a_hundred_at_most():
    random = np.random.default_rng(17)
    claims, times = 0, draws(300, 100)
    for _ in range(times):
        shared = random.normal(0, 0.05, 4)  # what a block does to both sides
        rates = {
            cell: list(1000 * np.exp(shared + random.normal(0, 0.01, 4))) for cell in (TORCH, TENSORFLOW, JAX)
        }
        (verdict,) = summarise(simple_run(rates)).verdicts
        claims += any(one.differs for one in verdict.made.backends)
    # At that rate so many claims come once in a thousand times, with few draws as with all.
    assert claims / times <= ALPHA + 4 * math.sqrt(ALPHA * (1 - ALPHA) / times)


def test_a_workload_of_own_defaults_is_not_ranked_and_says_why():
    header = make_header([TORCH, JAX], workloads=[make_workload(matched=False)])
    jobs = [make_job(cell, block) for cell in (TORCH, JAX) for block in range(3)]
    summary = summarise(make_run(header, jobs))
    (verdict,) = summary.verdicts
    assert (verdict.order, verdict.winner, verdict.made.backends) == ((), None, ())
    assert said(verdict) == (
        "mnist-cnn is trained with each framework's own defaults, which is not the same work: its speed is "
        "not ranked.",
    )


def test_no_verdict_speaks_of_the_reference():
    run = simple_run({TORCH: [1000, 1004, 998], REFERENCE: [5000, 5001, 5002]})
    summary = summarise(run)
    (verdict,) = summary.verdicts
    assert (verdict.order, verdict.unranked, verdict.made.backends) == ((TORCH,), (), ())
    assert said(verdict) == (
        "Only PyTorch is ranked on mnist-cnn: there is no framework to compare it with.",
    )


def test_a_run_of_the_reference_alone_ranks_nothing():
    (verdict,) = summarise(simple_run({REFERENCE: [1000] * 3})).verdicts
    assert said(verdict) == ("No row is ranked on mnist-cnn, so nothing is claimed about its speed.",)


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
