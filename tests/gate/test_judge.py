"""What a comparison side by side says: only what repeats is a regression, and nothing empty ever passes."""

import functools
import math
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest
from conftest import draws
from hypothesis import given, settings
from hypothesis import strategies as st
from sides_by_side import CELL, OTHER, SCATTERS, decided, make_ab, make_block, make_side, proven, unproven

from bench.gate.judge import PASSED, compiles_anew, judge_all, judge_cell, next_step, trains
from bench.records.schema import JobRecord, ParityCheck, Proof
from bench.workloads.catalog import find_workload


def series(change: float, *, name="first", blocks=6, scatter=0.004, seed=1, **more):
    noise = np.random.default_rng(seed).normal(0, scatter, blocks)
    return [
        make_block(number, series=name, change=change, extra=float(noise[number]), **more)
        for number in range(blocks)
    ]


def test_an_unchanged_head_passes_after_the_first_series():
    ab = make_ab([proven(), *series(0.0)])
    judged = judge_cell(ab, CELL)
    assert (judged.conclusion, judged.suspects) == ("fine", ())
    assert next_step(ab, CELL) is None
    assert judge_all(ab).conclusion == "fine"


def test_sides_that_took_no_turns_are_judged_by_their_own_latest_windows():
    """Base took as many windows again, in which it was half as fast, as it drifted."""
    blocks = []
    for block in series(0.0):
        slow = [msgspec.structs.replace(one, seconds=2 * one.seconds) for one in block.base.windows]
        base = msgspec.structs.replace(block.base, windows=(*slow, *block.base.windows))
        blocks.append(msgspec.structs.replace(block, base=base))
    together = judge_cell(make_ab([proven(), *blocks]), CELL).first[0]
    assert together.change == pytest.approx(1.0, abs=0.01)
    apart = [msgspec.structs.replace(block, in_turns=False) for block in blocks]
    alone = judge_cell(make_ab([proven(), *apart]), CELL).first[0]
    assert alone.change == pytest.approx(0.0, abs=0.01)


def test_a_slower_head_is_measured_again_before_it_fails():
    first = [proven(), *series(-0.05)]
    ab = make_ab(first)
    assert next_step(ab, CELL) == "confirm"
    assert judge_cell(ab, CELL).conclusion == "undecided"
    confirmed = make_ab([*first, *series(-0.05, name="second", blocks=10, seed=2)])
    judged = judge_cell(confirmed, CELL)
    assert (judged.conclusion, judged.confirmed) == ("regression", ("speed",))
    assert "speed got worse, in both series" in judged.why
    assert next_step(confirmed, CELL) is None
    assert judge_all(confirmed).conclusion == "regression"


def test_a_loss_that_does_not_repeat_is_told_and_passes():
    ab = make_ab([proven(), *series(-0.05), *series(0.0, name="second", blocks=10, seed=3)])
    judged = judge_cell(ab, CELL)
    assert (judged.conclusion, judged.not_repeated) == ("fine", ("speed",))
    assert "did not repeat" in judged.why
    assert next_step(ab, CELL) is None


def test_a_second_series_that_is_not_complete_decides_nothing():
    for change in (0.0, -0.05):
        second = series(change, name="second", blocks=9, seed=3)
        ab = make_ab([proven(), *series(-0.05), *second])
        assert judge_cell(ab, CELL).conclusion == "undecided"
        assert next_step(ab, CELL) == "confirm"


def test_a_second_series_that_neither_confirms_nor_rules_out_asks_for_more_and_does_not_pass():
    def second(blocks):
        return [make_block(n, series="second", extra=0.1 * (-1) ** n) for n in range(blocks)]

    first = [proven(), *series(-0.05)]
    assert next_step(make_ab([*first, *second(10)]), CELL) == "confirm"
    ended = make_ab([*first, *second(16)])
    assert next_step(ended, CELL) is None
    assert judge_cell(ended, CELL).conclusion == "undecided"
    assert "the second does not decide" in judge_cell(ended, CELL).why


def test_the_second_series_is_judged_by_itself():
    """A first series with a loss and a second without make no loss, however large the first one's was."""
    ab = make_ab([proven(), *series(-0.5), *series(0.0, name="second", blocks=10, seed=3)])
    assert judge_cell(ab, CELL).conclusion == "fine"


def test_a_faster_head_passes():
    assert judge_all(make_ab([proven(), *series(0.1)])).conclusion == "fine"


@pytest.mark.parametrize("blocks", [0, 1, 2, 3, 4, 5])
def test_fewer_blocks_than_were_asked_for_never_pass(blocks):
    ab = make_ab([proven(), *series(0.0, blocks=blocks)])
    assert next_step(ab, CELL) == "block"
    assert judge_all(ab).conclusion == "undecided"
    if blocks >= 3:
        assert f"{blocks} of 6 blocks were measured" in judge_cell(ab, CELL).why


def test_nothing_at_all_never_passes():
    assert judge_all(make_ab([], cells=())).conclusion == "undecided"


def test_a_line_that_cannot_be_read_keeps_the_whole_from_passing():
    ab = make_ab([proven(), *series(0.0)])
    torn = msgspec.structs.replace(ab, rejected=("blocks.jsonl line 7: it is cut off",))
    assert judge_all(torn).conclusion == "undecided"
    assert "line 7" in judge_all(torn).missing[0]
    slower = [*series(-0.05), *series(-0.05, name="second", blocks=10, seed=2)]
    worse = msgspec.structs.replace(make_ab([proven(), *slower]), rejected=torn.rejected)
    assert judge_all(worse).conclusion == "regression"


def test_a_series_is_judged_four_times_at_most_and_by_what_was_there_then():
    noisy = [make_block(number, extra=0.1 * (-1) ** number) for number in range(16)]
    for blocks in range(6, 16):
        ab = make_ab([proven(), *noisy[:blocks]])
        assert next_step(ab, CELL) == "block"
        speed = judge_cell(ab, CELL).first[0]
        assert speed.values == max(look for look in (6, 8, 11) if look <= blocks)
    assert judge_cell(make_ab([proven(), *noisy]), CELL).first[0].values == 16
    calm_later = [*noisy[:6], *series(0.0, blocks=10)[6:]]
    assert judge_cell(make_ab([proven(), *calm_later]), CELL).conclusion == "undecided"


def test_each_look_has_its_share_of_what_an_interval_leaves_out():
    blocks = [proven(), *series(0.0)]
    once, often = (make_ab(blocks, most_blocks=most) for most in (6, 16))
    one, other = (judge_cell(ab, CELL).first[0] for ab in (once, often))
    # Student's quantiles of 5 degrees of freedom at 95 % and at 98 %, which four looks leave of it.
    half_widths = [math.log1p(found.high) - math.log1p(found.low) for found in (one, other)]
    assert half_widths[1] / half_widths[0] == pytest.approx(2.757 / 2.015, rel=1e-2)


def test_a_figure_that_cannot_be_is_undecided_and_no_fault():
    def emptied(blocks):
        return [
            msgspec.structs.replace(one, head=msgspec.structs.replace(one.head, peak_rss_bytes=0))
            for one in blocks
        ]

    judged = judge_cell(make_ab([proven(), *emptied(series(0.0))]), CELL)
    assert (judged.conclusion, judged.why) == ("undecided", "memory undecided")


def test_a_loss_is_found_however_few_blocks_the_first_series_may_have():
    slower = [*series(-0.2), *series(-0.2, name="second", blocks=10, seed=2)]
    assert next_step(make_ab([proven(), *slower[:12]], most_blocks=6), CELL) == "confirm"
    ab = make_ab([proven(), *slower], most_blocks=6)
    assert judge_cell(ab, CELL).conclusion == "regression"
    assert next_step(ab, CELL) is None


def compiled(blocks, anew, first_step=1.0):
    """Return blocks of which so many compile anew; head takes `first_step` times as long for it."""

    def job(one, number, factor):
        spec = msgspec.structs.replace(one.spec, compiles_anew=number < anew)
        return msgspec.structs.replace(one, spec=spec, first_step_s=0.4 * factor)

    return [
        msgspec.structs.replace(
            block, base=job(block.base, number, 1.0), head=job(block.head, number, first_step)
        )
        for number, block in enumerate(blocks)
    ]


def test_three_sound_blocks_compile_anew_and_all_that_confirm_a_later_first_step():
    lost = make_block(0, head_status="no_steady_state")
    ab = make_ab([proven(), *compiled([lost, *series(0.0, blocks=4)[1:]], anew=3)])
    assert compiles_anew(ab, CELL, "first")
    assert not compiles_anew(make_ab([proven(), *compiled(series(0.0), anew=3)]), CELL, "first")
    on_gpu = msgspec.structs.replace(CELL, device="gpu")
    blocks = [msgspec.structs.replace(block, cell=on_gpu) for block in compiled(series(0.0), anew=3)]
    assert compiles_anew(make_ab([proven(), *blocks]), on_gpu, "first")
    slow = compiled(series(0.0), anew=3, first_step=2.0)
    late = make_ab([proven(), *slow])
    assert judge_cell(late, CELL).suspects == ("first step",)
    again = compiled(series(0.0, name="second", blocks=9), anew=9, first_step=2.0)
    assert compiles_anew(make_ab([proven(), *slow, *again]), CELL, "second")


def test_what_was_lost_is_told_with_its_cause():
    lost = make_block(0, head_status="no_steady_state")
    judged = judge_cell(make_ab([proven(), lost, *series(0.0)[1:]]), CELL)
    assert judged.lost_for == "head: no steady state: it is gone"


def test_a_parity_that_ran_out_of_time_is_told_and_a_later_one_counts():
    late = unproven("timeout", "after 300 s")
    judged = judge_cell(make_ab([late, *series(0.0)]), CELL)
    assert judged.conclusion == "undecided"
    assert judged.why.startswith("head could not be compared with the reference: timed out: after 300 s")
    assert next_step(make_ab([late]), CELL) is None
    assert judge_cell(make_ab([late, *series(0.0), proven()]), CELL).conclusion == "fine"


def test_noise_asks_for_more_blocks_up_to_the_most_and_then_stays_undecided():
    noisy = [make_block(number, extra=0.1 * (-1) ** number) for number in range(12)]
    assert next_step(make_ab([proven(), *noisy[:6]]), CELL) == "block"
    ab = make_ab([proven(), *noisy], most_blocks=12)
    assert next_step(ab, CELL) is None
    assert judge_all(ab).conclusion == "undecided"


def test_a_head_that_computes_something_else_fails_however_fast_it_is():
    off = ParityCheck(kind="logits", error=1.0, tolerance=1e-4, worst="logits")
    ab = make_ab([proven(off), proven(side="base"), *series(0.3)])
    judged = judge_cell(ab, CELL)
    assert judged.conclusion == "regression"
    assert "head does not compute what the reference computes" in judged.why
    assert judged.why.endswith("; base agrees with it")
    assert next_step(ab, CELL) is None


OFF = ParityCheck(kind="logits", error=1.0, tolerance=1e-4, worst="logits")
NO_COMPILER = "mode compile needs a C++ compiler"


@pytest.mark.parametrize(
    ("head", "base", "standing", "words"),
    [
        # What base does right and head does not is head's fault, be it a wrong value or an exception.
        (proven(OFF), proven(side="base"), "regression", "base agrees with it"),
        (unproven("failed", "ValueError"), proven(side="base"), "regression", "failed: ValueError"),
        (unproven("crashed", "SIGSEGV"), proven(side="base"), "regression", "crashed: SIGSEGV"),
        (unproven("not_comparable", "not finite"), proven(side="base"), "regression", "not finite"),
        # Head is not to blame for what fails on both sides; the cause is named.
        (
            unproven("unavailable", NO_COMPILER), unproven("unavailable", NO_COMPILER, side="base"),
            "undecided", f"not available here: {NO_COMPILER}; the same for base",
        ),
        (
            unproven("failed", NO_COMPILER), unproven("failed", NO_COMPILER, side="base"),
            "undecided", f"failed: {NO_COMPILER}; the same for base",
        ),
        (proven(OFF), proven(OFF, side="base"), "undecided", "the same for base"),
        (proven(OFF), unproven("failed", "OSError", side="base"), "undecided", "base could not be compared"),
        # Nothing is known of base, or head had no chance.
        (proven(OFF), None, "undecided", "base was not compared with the reference"),
        (unproven("timeout", "300 s"), proven(side="base"), "undecided", "timed out: 300 s"),
    ],
)  # fmt: skip
def test_head_is_to_blame_only_for_what_base_does_right(head, base, standing, words):
    records = [head, *([] if base is None else [base]), *series(0.3)]
    judged = judge_cell(make_ab(records), CELL)
    assert judged.conclusion == standing, judged.why
    assert words in judged.why
    assert next_step(make_ab(records), CELL) is None


def timed(*wrong: str, proofs: bool = True, blocks: int = 6):
    """Return blocks whose jobs compared the programs that they timed; those of the `wrong` sides differ."""
    good = Proof(after_windows=True, steps=20, checks=(msgspec.structs.replace(OFF, error=0.0),), seconds=1.0)

    def proof(side: str, job: JobRecord) -> JobRecord:
        if side in wrong:
            said = "the timed program does not compute what the reference computes"
            bad = msgspec.structs.replace(good, checks=(OFF,))
            return msgspec.structs.replace(
                job, status="not_comparable", error=said, proofs=(bad,), windows=()
            )
        return msgspec.structs.replace(job, proofs=(good,) if proofs else ())

    return [
        msgspec.structs.replace(block, base=proof("base", block.base), head=proof("head", block.head))
        for block in series(0.3, blocks=blocks)
    ]


BOTH_PROVEN = (proven(side="base"), proven())
OF_BASE, OF_HEAD = ("base is not comparable: the timed", "head is not comparable: the timed")


@pytest.mark.parametrize(
    ("records", "standing", "beginning", "end"),
    [
        # By parity.
        ([*BOTH_PROVEN, *timed()], "fine", "nothing got worse", ""),
        ([proven(side="base"), proven(OFF)], "regression", "head does not", "base agrees with it"),
        ([proven(OFF, side="base"), proven()], "undecided", "base does not", "speeds are not compared"),
        ([proven(OFF, side="base"), proven(OFF)], "undecided", "head does not", "the same for base"),
        # By the programs that were timed.
        ([*BOTH_PROVEN, *timed("head")], "regression", OF_HEAD, "base agrees with it"),
        ([*BOTH_PROVEN, *timed("base")], "undecided", OF_BASE, "speeds are not compared"),
        ([*BOTH_PROVEN, *timed("base", "head")], "undecided", OF_HEAD, "the same for base"),
        # One job that differs is enough, whatever the others do.
        ([*BOTH_PROVEN, *timed("head", blocks=1), *timed()[1:]], "regression", OF_HEAD, "agrees with it"),
        ([*BOTH_PROVEN, *timed("base", blocks=1), *timed()[1:]], "undecided", OF_BASE, "are not compared"),
        # Base may have the same fault.
        ([*BOTH_PROVEN, *timed("head", proofs=False)], "undecided", OF_HEAD, "the program that it timed"),
        # Nothing is known of base.
        ([proven(), *timed()], "undecided", "base was not compared with the reference", "are not compared"),
        ([unproven("timeout", "300 s", side="base"), proven(), *timed()], "undecided", "base could not", ""),
    ],
)  # fmt: skip
def test_only_sides_that_are_both_right_are_compared(records, standing, beginning, end):
    ab = make_ab(records)
    ab = msgspec.structs.replace(ab, header=msgspec.structs.replace(ab.header, parity_of_base=True))
    judged = judge_cell(ab, CELL)
    assert judged.conclusion == standing, judged.why
    assert judged.why.startswith(beginning)
    assert end in judged.why
    assert next_step(ab, CELL) is None
    assert bool(judged.first) == (standing == "fine"), "a figure would read as a claim about speed"
    assert judged.suspects == judged.confirmed == ()


def test_a_head_that_was_not_held_to_the_reference_does_not_pass():
    assert judge_all(make_ab(series(0.0))).conclusion == "undecided"


@pytest.mark.parametrize("shift", [-0.05, 0.05])
def test_accuracy_that_differs_has_to_repeat_too(shift):
    first = [proven(), *series(0.0, accuracy=0.9 + shift)]
    assert judge_cell(make_ab(first), CELL).suspects == ("accuracy",)
    again = series(0.0, name="second", blocks=10, accuracy=0.9 + shift)
    assert judge_cell(make_ab([*first, *again]), CELL).confirmed == ("accuracy",)
    other = series(0.0, name="second", blocks=10)
    assert judge_cell(make_ab([*first, *other]), CELL).conclusion == "fine"


def test_without_accuracy_nothing_passes():
    ab = make_ab([proven(), *series(0.0, trained=False)])
    judged = judge_cell(ab, CELL)
    assert judged.conclusion == "undecided"
    assert "accuracy" in judged.why


def test_three_blocks_train_and_more_where_these_did_not_decide():
    assert not trains(make_ab([proven()]), CELL, "first")
    assert trains(make_ab([proven(), *series(0.0, blocks=1, trained=False)]), CELL, "first")
    begun = [*series(0.0, blocks=1, trained=False), *series(0.0, blocks=5)[1:]]
    assert trains(make_ab([proven(), *begun[:3]]), CELL, "first")
    assert not trains(make_ab([proven(), *begun[:4]]), CELL, "first")
    assert not trains(make_ab([proven(), *series(0.0)]), CELL, "first")
    scattered = [make_block(number, accuracy=0.9 + 0.05 * (number % 3 - 1)) for number in range(6)]
    assert not trains(make_ab([proven(), *scattered[:5]]), CELL, "first")
    assert trains(make_ab([proven(), *scattered]), CELL, "first")
    assert not trains(make_ab([proven(), *series(-0.05)]), CELL, "second")
    different = [proven(), *series(0.0, accuracy=0.8)]
    again = series(0.0, name="second", blocks=9, accuracy=0.8)
    assert trains(make_ab([*different, *again]), CELL, "second")


def test_a_head_that_needs_more_memory_fails():
    bigger = {"memory": 1.2}
    ab = make_ab([proven(), *series(0.0, **bigger), *series(0.0, name="second", blocks=10, **bigger)])
    assert judge_cell(ab, CELL).confirmed == ("memory",)


def test_a_head_that_fails_where_base_does_not_is_a_regression():
    ab = make_ab([proven(), *series(0.0, blocks=2, head_status="crashed")])
    judged = judge_cell(ab, CELL)
    assert (judged.conclusion, judged.lost) == ("regression", 2)
    assert "head fails: crashed" in judged.why
    assert next_step(ab, CELL) is None


def test_where_base_fails_too_nothing_can_be_told():
    ab = make_ab([proven(), *series(0.0, blocks=3, head_status="crashed", base_status="crashed")])
    assert judge_cell(ab, CELL).conclusion == "undecided"
    assert next_step(ab, CELL) is None


def test_a_lost_block_is_made_up_for():
    lost = make_block(0, head_status="no_steady_state")
    ab = make_ab([proven(), lost, *series(0.0, blocks=6)[1:]])
    assert next_step(ab, CELL) == "block"
    assert judge_cell(ab, CELL).lost == 1


@pytest.mark.parametrize("seconds", [0.0, math.nan, math.inf, -1.0])
def test_a_block_with_times_that_cannot_be_does_not_count(seconds):
    ab = make_ab([proven(), *series(0.0, blocks=5), make_block(5, seconds=seconds)])
    judged = judge_cell(ab, CELL)
    assert (judged.blocks, judged.lost) == (5, 1)
    assert next_step(ab, CELL) == "block"


def test_a_cell_that_only_base_has_keeps_the_whole_from_passing():
    ab = make_ab([proven(), *series(0.0)], missing={"mnist-mlp torch/eager": "only in base"})
    assert judge_all(ab).conclusion == "undecided"
    new = make_ab([proven(), *series(0.0)], missing={"mnist-mlp torch/eager": "only in head"})
    assert judge_all(new).conclusion == "fine"


def test_a_workload_that_head_defines_anew_is_other_work_and_does_not_pass():
    workload = find_workload("mnist-softmax")
    optimizer = msgspec.structs.replace(workload.optimizer, learning_rate=0.25)
    other = make_side(commit="b" * 40, workloads=(msgspec.structs.replace(workload, optimizer=optimizer),))
    judged = judge_cell(make_ab([proven(), *series(0.0)], head=other), CELL)
    assert judged.conclusion == "undecided"
    assert "not the same work: optimizer.learning_rate" in judged.why
    slower = [*series(-0.05), *series(-0.05, name="second", blocks=10, seed=2)]
    assert judge_cell(make_ab([proven(), *slower], head=other), CELL).conclusion == "regression"
    target = make_side(commit="b" * 40, workloads=(msgspec.structs.replace(workload, target_accuracy=0.5),))
    assert judge_cell(make_ab([proven(), *series(0.0)], head=target), CELL).conclusion == "fine"


def test_one_regression_among_many_fails_the_whole():
    slow = [*series(-0.05), *series(-0.05, name="second", blocks=10, seed=2)]
    other = [msgspec.structs.replace(block, cell=OTHER) for block in series(0.0)]
    ab = make_ab([proven(), proven(cell=OTHER), *slow, *other], cells=(CELL, OTHER))
    assert [one.conclusion for one in judge_all(ab).cells] == ["regression", "fine"]
    assert judge_all(ab).conclusion == "regression"


@functools.cache
def shares(loss: float, side_effect: float = 0.0) -> dict[str, float]:
    """Return how often gates end how, whose blocks scatter as published equal sides do."""
    gates = draws(400, 60)
    ended = Counter(
        decided(loss, SCATTERS[seed % len(SCATTERS)], seed, side_effect=side_effect) for seed in range(gates)
    )
    return {outcome: ended[outcome] / gates for outcome in ("fine", "undecided", "regression")}


@pytest.mark.parametrize(
    ("loss", "side_effect", "passes", "fails"),
    [
        (0.0, 0.0, (0.93, 1.0), (0.0, 0.02)),
        (0.03, 0.0, (0.4, 0.8), (0.12, 0.5)),
        (0.05, 0.0, (0.0, 0.1), (0.82, 1.0)),
        (0.08, 0.0, (0.0, 0.02), (0.95, 1.0)),
        # What makes head slower or faster in all blocks of both series is taken for a property of its code.
        (0.0, 0.025, (0.6, 0.97), (0.02, 0.3)),
    ],
)
def test_what_a_true_loss_passes_with_is_what_the_documentation_says(loss, side_effect, passes, fails):
    found = shares(loss, side_effect)
    assert passes[0] <= found["fine"] <= passes[1], found
    assert fails[0] <= found["regression"] <= fails[1], found
    if not side_effect and loss in PASSED:
        assert found["fine"] == pytest.approx(PASSED[loss], abs=0.15), "the report gives this share"


def test_a_loss_of_the_tolerance_seldom_passes_however_noisy_the_machine():
    """5 % may in each series, and 84 of 1,000 did in all; 43 of 200 did with a look after every block."""
    lost = [decided(0.05, 0.05, seed) for seed in range(200)]
    assert lost.count("fine") <= 30


@settings(max_examples=25)
@given(st.permutations(range(6)), st.floats(-0.1, 0.1))
def test_the_order_of_the_blocks_in_the_file_says_nothing(order, change):
    blocks = series(change)
    there = judge_cell(make_ab([proven(), *blocks]), CELL)
    mixed = judge_cell(make_ab([*(blocks[place] for place in order), proven()]), CELL)
    assert msgspec.structs.asdict(there)["conclusion"] == mixed.conclusion
    assert [found.kind for found in there.first] == [found.kind for found in mixed.first]


def test_a_comparison_is_read_back_as_it_was_written_and_a_cut_line_is_named(tmp_path):
    from bench.gate.records import BLOCKS, append_ab, create_ab, read_ab

    ab = make_ab([proven(), *series(0.0)])
    folder = create_ab(tmp_path, ab.header)
    for record in ab.records:
        append_ab(folder, record)
    assert read_ab(folder) == msgspec.structs.replace(ab, folder=folder)
    path: Path = folder / BLOCKS
    path.write_bytes(path.read_bytes()[:-40])
    cut = read_ab(folder)
    assert len(cut.records) == len(ab.records) - 1
    assert len(cut.rejected) == 1
