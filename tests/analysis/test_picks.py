"""Which mode stands for a framework, and that the block which picks it does not judge it."""

import math

import msgspec
import numpy as np
import pytest
from conftest import draws
from synthetic import TITLES, disturbed_run, make_cell, simple_run

from bench.analysis.comparison import Pick, Standing, judge
from bench.analysis.disturbance import UNDISTURBED
from bench.analysis.summary import summarise
from bench.records.schema import JobRecord
from bench.run.report.sentences import sentences

TORCH = make_cell()
COMPILED = make_cell(mode="compile")
JAX = make_cell(backend="jax", mode="jit")


def said(verdict):
    return tuple(sentences(verdict, TITLES))


def test_the_block_that_picks_a_mode_does_not_judge_it():
    rates = {TORCH: [1000, 1050, 1040, 1060], COMPILED: [1100, 1000, 1010, 990], JAX: [900, 905, 897, 901]}
    (verdict,) = summarise(simple_run(rates)).verdicts
    assert verdict.order[0] == TORCH, "over all blocks it is faster"
    assert verdict.picks == (
        Pick(cell=COMPILED, among=2, block=0),
        Pick(cell=JAX, among=1, block=None),
    )
    (one,) = verdict.made.backends
    assert (one.faster, one.slower, one.blocks) == (COMPILED, JAX, 3)
    assert one.ratio == pytest.approx((1000 * 1010 * 990 / 905 / 897 / 901) ** (1 / 3))
    (modes,) = verdict.made.modes
    assert modes.blocks == 4, "every pair of modes is compared, so nothing was picked"
    assert said(verdict)[-1] == (
        "Chosen on mnist-cnn as the fastest mode of its framework: PyTorch compile (of 2, in block 1). The "
        "block that chose a mode does not judge it against other frameworks."
    )


def test_the_first_block_in_which_all_modes_are_sound_and_that_counts_picks():
    rates = {TORCH: [1000] * 6, COMPILED: [1100] * 6, JAX: [900] * 6}
    run = disturbed_run(rates, {1}, min_blocks=3)
    records = [
        one
        for one in run.records
        if not (isinstance(one, JobRecord) and one.spec.cell == COMPILED and one.spec.block == 0)
    ]
    (verdict,) = summarise(msgspec.structs.replace(run, records=tuple(records))).verdicts
    assert verdict.screening.dropped == {1}
    assert [pick.block for pick in verdict.picks] == [2, None]
    assert verdict.made.backends[0].blocks == 3, "1 was dropped, 2 picked, and 0 lacks the mode"
    assert verdict.with_dropped.backends[0].blocks == 4


@pytest.mark.parametrize(("blocks", "compared"), [(1, False), (2, False), (3, True)])
def test_after_picking_two_blocks_must_be_left(blocks, compared):
    rates = {TORCH: [1000] * blocks, COMPILED: [1100] * blocks, JAX: [900] * blocks}
    (verdict,) = summarise(simple_run(rates, min_blocks=1)).verdicts
    assert verdict.picks[0] == Pick(cell=COMPILED, among=2, block=0)
    assert bool(verdict.made.backends) == compared
    assert (verdict.winner is not None) == compared
    words = "they share fewer than two blocks besides those that chose a mode"
    assert any(words in sentence for sentence in said(verdict)) != compared


def test_the_best_of_five_equal_modes_is_not_favored():
    """Picked and judged by the same blocks, it would seem faster by 1.3 to 1.7 %."""
    random = np.random.default_rng(5)
    times, blocks, scatter = draws(2000, 400), 4, 0.03
    cells = [make_cell(mode=f"mode-{number}") for number in range(5)]
    found, naive = [], []
    for _ in range(times):
        logs = random.normal(0, scatter, (6, blocks))
        rows = [standing_of(cell, of_cell) for cell, of_cell in zip([*cells, JAX], logs, strict=True)]
        rows.sort(key=lambda row: -np.mean([rounds[0] for rounds in row.rounds.values()]))
        (one,) = judge(rows, UNDISTURBED).made.backends
        found.append(math.log(one.ratio) * (-1 if one.faster == JAX else 1))
        naive.append(logs[:5].mean(axis=1).max() - logs[5].mean())
    error = scatter * math.sqrt(2 / (blocks - 1) / times)
    assert np.mean(found) == pytest.approx(0, abs=4 * error)
    assert np.mean(naive) > 0.012


def standing_of(cell, logs):
    return Standing(
        cell=cell, level="tuned", ranked=True, reference=False, matched=True, parity_ok=True,
        rounds={block: (float(log),) for block, log in enumerate(logs)}, latest=1, accuracies={},
    )  # fmt: skip


def test_a_taught_row_is_compared_with_a_tuned_one_by_the_blocks_that_did_not_pick_it():
    plain = msgspec.structs.replace(TORCH, mode="tutorial")
    rates = {TORCH: [1000] * 4, COMPILED: [2000] * 4, plain: [500] * 4}
    _, taught = summarise(simple_run(rates)).verdicts
    (gain,) = taught.made.tuning
    assert (gain.faster, gain.slower, gain.blocks) == (COMPILED, plain, 3)
