"""A self-test judges its blocks in shorter comparisons too; here on simulated windows."""

import pytest
from conftest import draws
from scipy.stats import binomtest
from simulated import simulate

from bench.analysis.statistics import exact_interval
from bench.report.markdown import document
from bench.selftest import nested, report
from bench.selftest.calibration import calibrate, find_trials


def test_ten_blocks_are_three_comparisons_of_three_that_share_no_block():
    (trial, *_), _ = find_trials(simulate(groups=1))
    parts = nested.cut(trial, 3)
    assert [part.base for part in parts] == [trial.base[0:3], trial.base[3:6], trial.base[6:9]]
    assert [part.head for part in parts] == [trial.head[0:3], trial.head[3:6], trial.head[6:9]]
    assert [len(nested.cut(trial, blocks)) for blocks in (4, 6, 10, 11)] == [2, 1, 1, 0]


def test_the_whole_length_gives_what_the_calibration_gives():
    found = calibrate(simulate(groups=3))
    whole = [one.row for one in nested.at_lengths(found, [10])]
    assert whole == [row for row in found.rows if row.name in nested.SHOWN]


def test_fewer_blocks_find_less_and_their_intervals_hold_the_truth_as_often():
    found = nested.at_lengths(calibrate(simulate(groups=draws(60, 30), process_sd=0.015, seed=3)))
    ours = {one.blocks: one.row for one in found if one.row.name == nested.SHOWN[0]}
    assert [row.found[0.05].of for row in ours.values()] == [3 * draws(60, 30), 2 * draws(60, 30)] + 2 * [
        draws(60, 30)
    ]
    assert ours[3].found[0.05].share < ours[6].found[0.05].share <= ours[10].found[0.05].share
    assert ours[3].half_width is not None
    assert ours[10].half_width is not None
    assert ours[3].half_width > 2 * ours[10].half_width
    for row in ours.values():
        assert row.coverage is not None
        assert binomtest(row.coverage.hits, row.coverage.of, 0.95).pvalue > 1e-4


def test_the_report_has_a_table_with_exact_intervals():
    found = calibrate(simulate(groups=2))
    test = simulate(groups=2)
    text = document(report.whole(test, found), frozenset())
    table = text.split("## With fewer blocks")[1].split("## ")[0]
    assert "| 3 | bench, paired by round | 0 of 12 (0-26 %) |" in table
    assert "| 10 | pyperf t test |" in table
    empty = document(report.whole(test, calibrate(simulate(groups=2, blocks=2))), frozenset())
    assert "With fewer blocks" not in empty


@pytest.mark.parametrize(("hits", "of"), [(0, 12), (1, 12), (12, 12), (95, 100)])
def test_the_exact_interval_is_scipys(hits, of):
    expected = binomtest(hits, of).proportion_ci(0.95, method="exact")
    assert exact_interval(hits, of) == pytest.approx((expected.low, expected.high))
    with pytest.raises(ValueError, match="have no rate"):
        exact_interval(of + 1, of)
