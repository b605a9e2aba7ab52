"""Whether two runs say the same, and what counts as saying something."""

import msgspec
import pytest
from synthetic import make_cell, simple_run

from bench.analysis.summary import summarise
from bench.gate.verdicts import blocks, in_words, pair_verdicts
from bench.report.markdown import document

TORCH, JAX = make_cell(backend="torch"), make_cell(backend="jax", mode="jit")
EVEN = [1000, 1003, 998, 1001, 1002]


def summary_of(torch: list[float], jax: list[float]):
    return summarise(simple_run({TORCH: torch, JAX: jax}))


def times(factor: float) -> list[float]:
    return [rate * factor for rate in EVEN]


NOISY = [1000.0, 600.0, 1500.0, 900.0, 1300.0]


@pytest.mark.parametrize(
    ("one", "other", "agree"),
    [
        (times(1.2), times(1.3), True),
        (times(1.2), times(0.8), False),
        (times(1.0), times(1.2), False),
        (times(1.0), times(1.003), True),
        (NOISY, times(1.2), None),
        (NOISY, NOISY, None),
    ],
)
def test_two_runs_agree_where_both_can_be_right(one, other, agree):
    (pairing,) = pair_verdicts(summary_of(one, times(1)), summary_of(other, times(1)))
    assert pairing.agree is agree
    assert pairing.both_claim is (agree is not None)


def test_the_order_of_the_runs_does_not_matter():
    one, other = summary_of(times(1.2), times(1)), summary_of(times(0.8), times(1))
    assert (
        [p.agree for p in pair_verdicts(one, other)]
        == [p.agree for p in pair_verdicts(other, one)]
        == [False]
    )


def test_a_pair_that_one_run_lacks_is_shown_and_not_counted():
    one = summary_of(times(1.2), times(1))
    other = summarise(simple_run({TORCH: times(1)}))
    (pairing,) = pair_verdicts(one, other)
    assert pairing.other is None
    assert pairing.agree is None
    assert in_words([pairing]) == (
        "Of 1 pairs of rows both runs make a claim about 0, and agree on 0 of these."
    )


def test_a_disagreement_stands_out_in_the_text():
    runs = [simple_run({TORCH: times(factor), JAX: times(1)}) for factor in (1.2, 0.8)]
    hostile = msgspec.structs.replace(runs[1].header, run_id="<script>|x")
    runs[1] = msgspec.structs.replace(runs[1], header=hostile)
    summaries = [summarise(run) for run in runs]
    said = document(blocks(runs, pair_verdicts(*summaries), summaries[0].titles), frozenset())
    assert "| NO |" in said
    assert "faster (1.20" in said
    assert "slower (0.80" in said
    assert "<script>" not in said
