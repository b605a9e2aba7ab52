"""The decision rules of other tools, at the places where each of them changes its mind."""

import math

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, ttest_ind

from bench.selftest import other_tools
from bench.selftest.other_tools import Processes, Rule

ALL: list[Rule] = [
    other_tools.pytest_benchmark,
    other_tools.asv,
    other_tools.pyperf,
    other_tools.google_benchmark,
]


def noisy(
    seed: int, *, slower: float = 0.0, processes: int = 10, windows: int = 20, sd: float = 0.01
) -> Processes:
    draws = np.random.default_rng(seed).normal(0, sd, (processes, windows))
    return (1e-5 * (1 + slower) * np.exp(draws)).tolist()


@pytest.mark.parametrize("rule", ALL)
def test_a_large_slowdown_is_seen_and_a_speed_up_is_not_one(rule):
    base, head = noisy(1), noisy(2, slower=0.2)
    assert rule(base, head)
    assert not rule(head, base)


@pytest.mark.parametrize("rule", ALL)
def test_equal_values_are_no_difference(rule):
    same = [[1e-5] * 20] * 3
    assert not rule(same, same)


@pytest.mark.parametrize("rule", ALL)
def test_the_unit_of_time_does_not_matter(rule):
    base, head = noisy(3), noisy(4, slower=0.12)
    scaled = [[[1e6 * value for value in process] for process in side] for side in (base, head)]
    assert rule(base, head) == rule(*scaled) is True


def test_pytest_benchmark_looks_at_the_first_process_and_its_five_percent():
    base = [[1.0, 1.0], [1.0, 1.0]]
    assert other_tools.pytest_benchmark(base, [[1.06, 1.06], [0.5, 0.5]])
    assert not other_tools.pytest_benchmark(base, [[1.04, 1.04], [2.0, 2.0]])
    assert not other_tools.pytest_benchmark(base, [[1.0499, 1.0499]])
    # The mean, not the median: one slow round is enough.
    assert other_tools.pytest_benchmark([[1.0] * 5], [[1.0, 1.0, 1.0, 1.0, 1.3]])


def test_asv_needs_its_factor_and_its_test():
    assert other_tools.asv(noisy(1), noisy(2, slower=0.12))
    assert not other_tools.asv(noisy(1), noisy(2, slower=0.08))  # plainly different, and less than its factor
    # More than the factor, by medians, and no more than noise.
    base, head = [[1.0, 1.1, 3.0, 0.5, 0.9, 1.2, 2.0]], [[1.3, 0.8, 1.4, 0.7, 2.5, 1.35, 1.32]]
    assert np.median(head) > 1.1 * np.median(base)
    assert not other_tools.asv(base, head)


@pytest.mark.parametrize(("count", "claimed"), [(5, False), (6, False), (7, True)])
def test_asv_claims_nothing_where_no_p_could_be_small_enough(count, claimed):
    base = [[1.0 + 0.001 * k for k in range(count)]]
    head = [[2.0 + 0.001 * k for k in range(count)]]
    # Two-sided, the smallest p of six against six is 2 / 924, just above 0.002.
    assert (2 / math.comb(2 * count, count) < other_tools.ASV_P) == claimed
    assert other_tools.asv(base, head) == claimed


def test_asv_takes_the_normal_approximation_beyond_twenty_samples():
    rng = np.random.default_rng(0)
    for shift in np.linspace(0.0, 0.8, 9):
        base, head = rng.normal(0, 1, 40), rng.normal(shift, 1, 40)
        wide = [(100 * np.exp(values)).tolist() for values in (base, head)]
        p = mannwhitneyu(base, head, use_continuity=False, method="asymptotic").pvalue
        expected = p < 0.002 and np.median(wide[1]) > 1.1 * np.median(wide[0])
        assert other_tools.asv([wide[0]], [wide[1]]) == expected


@pytest.mark.parametrize("seed", range(20))
def test_pyperf_is_the_pooled_t_test_over_all_values(seed):
    base, head = noisy(seed), noisy(100 + seed, slower=0.002)
    found = ttest_ind(np.ravel(head), np.ravel(base), equal_var=True)
    assert other_tools.pyperf(base, head) == (found.pvalue <= 0.05 and found.statistic > 0)


@pytest.mark.parametrize("seed", range(20))
def test_google_benchmark_is_the_u_test_over_one_process(seed):
    base, head = noisy(seed), noisy(100 + seed, slower=0.006)
    p = mannwhitneyu(base[0], head[0], alternative="two-sided").pvalue
    expected = p < 0.05 and np.median(head[0]) > np.median(base[0])
    assert other_tools.google_benchmark(base, head) == expected
    assert other_tools.google_benchmark([base[0]], [head[0]]) == expected


def test_pyperf_takes_windows_of_one_process_for_independent():
    # The trap that a design by blocks avoids: processes differ by 2 %, their windows hardly.
    rng = np.random.default_rng(5)
    alarms = 0
    for _ in range(100):
        base, head = (
            (1e-5 * np.exp(rng.normal(0, 0.02, (10, 1)) + rng.normal(0, 0.001, (10, 20)))).tolist()
            for _ in range(2)
        )
        alarms += other_tools.pyperf(base, head) or other_tools.pyperf(head, base)
    assert alarms > 40
