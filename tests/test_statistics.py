"""Laws of the statistics, and simulations with fixed seeds where a law is about chance."""

import math
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bench import statistics
from bench.statistics import (
    PairedDifference,
    detectable_difference,
    estimate,
    holm,
    log_throughput,
    p_value,
    paired_difference,
    ratio_interval,
    settled,
    window_rate,
)

RATES = st.floats(min_value=1e-3, max_value=1e7)
LOGS = st.floats(min_value=-5, max_value=15)
P_VALUES = st.lists(st.floats(min_value=0, max_value=1), max_size=12)


# ---- throughput and estimate


@pytest.mark.parametrize(
    ("samples", "seconds"), [(100, 0.0), (100, -1.0), (0, 0.5), (100, math.nan), (100, math.inf)]
)
def test_a_window_without_samples_or_time_has_no_rate(samples, seconds):
    with pytest.raises(ValueError, match="has no rate"):
        window_rate(samples, seconds)


def test_throughput_is_the_median_of_the_latest_ten_windows():
    steady = [100.0, 90.0, 110.0, 100.0, 100.0, 100.0, 95.0, 105.0, 100.0, 1000.0]
    assert log_throughput(steady) == pytest.approx(math.log(100))
    assert log_throughput([1.0] * 10 + steady) == pytest.approx(math.log(100))


@pytest.mark.parametrize("rates", [[], [0.0], [-1.0], [math.nan], [100.0, math.inf]])
def test_throughput_rejects_what_no_window_can_have(rates):
    with pytest.raises(ValueError, match=r"rate|throughput"):
        log_throughput(rates)


@given(st.lists(LOGS, min_size=2, max_size=12))
def test_interval_contains_the_estimate(logs):
    found = estimate(logs)
    assert found.low <= found.value * (1 + 1e-12)
    assert found.high >= found.value * (1 - 1e-12)
    assert found.half_width >= 0


def test_one_block_has_no_interval():
    found = estimate([math.log(250)])
    assert found.value == pytest.approx(250)
    assert (found.low, found.high, found.half_width) == (None, None, None)


@pytest.mark.parametrize("logs", [[], [math.nan], [1.0, math.inf]])
def test_estimate_rejects_nothing_and_what_is_not_finite(logs):
    with pytest.raises(ValueError, match="finite"):
        estimate(logs)


@pytest.mark.parametrize("blocks", [3, 5])
def test_interval_covers_the_truth_as_often_as_it_says(blocks):
    random = np.random.default_rng(7)
    found = [estimate(random.normal(5, 0.02, blocks)) for _ in range(2000)]
    covered = np.mean([one.low <= math.exp(5) <= one.high for one in found])
    # 0.95 give or take four standard errors of a share out of 2000
    assert covered == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 2000))


# ---- pairs


@given(
    st.dictionaries(st.integers(0, 9), LOGS, min_size=2), st.dictionaries(st.integers(0, 9), LOGS, min_size=2)
)
def test_swapping_the_sides_inverts_the_ratio(first, second):
    one, other = paired_difference(first, second), paired_difference(second, first)
    if one is None:
        assert other is None
        return
    assert one.ratio * other.ratio == pytest.approx(1)
    assert p_value(one) == p_value(other)
    low, high = ratio_interval(one)
    assert low <= one.ratio * (1 + 1e-12)
    assert high >= one.ratio * (1 - 1e-12)
    assert ratio_interval(other) == pytest.approx((1 / high, 1 / low))


def test_only_shared_blocks_count_and_two_are_needed():
    assert paired_difference({0: 1.0, 1: 2.0}, {1: 1.0, 2: 9.0}) is None
    assert paired_difference({0: 1.0, 1: 2.0, 5: 99.0}, {0: 0.5, 1: 1.5, 7: 0.0}) == PairedDifference(
        mean=0.5, standard_error=0.0, blocks=2
    )


def test_what_slows_a_whole_block_cancels():
    slow = [0.0, -0.7, -0.2]
    first = {block: 5.0 + shift for block, shift in enumerate(slow)}
    second = {block: 4.9 + shift for block, shift in enumerate(slow)}
    assert ratio_interval(paired_difference(first, second)) == pytest.approx((math.exp(0.1), math.exp(0.1)))


def test_the_p_value_is_that_of_scipys_paired_test():
    first, second = [1.0, 1.1, 1.3, 1.2], [0.9, 1.15, 1.1, 1.0]
    found = paired_difference(dict(enumerate(first)), dict(enumerate(second)))
    expected = stats.ttest_rel(first, second)
    assert p_value(found) == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert ratio_interval(found) == pytest.approx((math.exp(interval.low), math.exp(interval.high)))


def test_without_scatter_any_difference_is_certain_and_none_is_none():
    assert p_value(PairedDifference(mean=0.1, standard_error=0.0, blocks=3)) == 0
    assert p_value(PairedDifference(mean=0.0, standard_error=0.0, blocks=3)) == 1


@pytest.mark.parametrize(("blocks", "alpha"), [(3, 0.05), (3, 0.05 / 3), (5, 0.05)])
def test_the_detectable_difference_is_found_four_times_in_five(blocks, alpha):
    random = np.random.default_rng(11)
    scatter = 0.01
    known = PairedDifference(mean=0.0, standard_error=scatter / math.sqrt(blocks), blocks=blocks)
    effect = math.log1p(detectable_difference(known, alpha))
    differences = random.normal(effect, scatter, (4000, blocks))
    found = stats.ttest_1samp(differences, 0, axis=1).pvalue < alpha
    assert found.mean() == pytest.approx(0.8, abs=4 * math.sqrt(0.8 * 0.2 / 4000))


def test_scatter_without_sense_gives_finite_figures():
    wild = PairedDifference(mean=3.0, standard_error=500.0, blocks=2)
    assert all(
        math.isfinite(value) for value in (*ratio_interval(wild, 0.01), detectable_difference(wild, 0.01))
    )


# ---- Holm


@given(P_VALUES)
def test_holm_keeps_the_order_and_lies_between_raw_and_bonferroni(p_values):
    steps = holm(p_values)
    for p, step in zip(p_values, steps, strict=True):
        assert p <= step.p_adjusted <= min(1.0, len(p_values) * p)
        assert step.rejected == (step.p_adjusted <= 0.05) or math.isclose(step.p_adjusted, 0.05)
    ordered = [
        step.p_adjusted for _, step in sorted(zip(p_values, steps, strict=True), key=lambda pair: pair[0])
    ]
    assert all(before <= after for before, after in pairwise(ordered))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8, unique=True), st.randoms())
def test_holm_does_not_depend_on_the_order_of_its_family(p_values, random):
    shuffled = list(p_values)
    random.shuffle(shuffled)
    before = dict(zip(p_values, holm(p_values), strict=True))
    after = dict(zip(shuffled, holm(shuffled), strict=True))
    assert before == after


@given(
    st.lists(st.tuples(st.floats(-0.3, 0.3), st.floats(0.001, 0.1)), min_size=1, max_size=6),
    st.integers(2, 8),
)
def test_an_interval_excludes_one_exactly_where_holm_rejects(pairs, blocks):
    differences = [PairedDifference(mean=mean, standard_error=error, blocks=blocks) for mean, error in pairs]
    p_values = [p_value(difference) for difference in differences]
    for difference, p, step in zip(differences, p_values, holm(p_values), strict=True):
        low, high = ratio_interval(difference, step.alpha)
        if not math.isclose(p, step.alpha, rel_tol=1e-6):  # at the very edge rounding decides
            assert step.rejected == (low > 1 or high < 1)


def test_holm_on_a_worked_example():
    # Sorted .005, .01, .03, .04 against .05/4, .05/3, .05/2: the third is above, so it and the fourth stay.
    steps = holm([0.01, 0.04, 0.03, 0.005])
    assert [step.p_adjusted for step in steps] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert [step.rejected for step in steps] == [True, False, False, True]
    assert [step.alpha for step in steps] == pytest.approx([0.05 / 3, 0.025, 0.025, 0.0125])


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_holm_rejects_what_is_no_probability(p):
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([p])


def test_holm_holds_the_family_wise_error_rate():
    random = np.random.default_rng(3)
    false_alarms = np.mean([any(step.rejected for step in holm(random.uniform(size=6))) for _ in range(4000)])
    assert false_alarms <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / 4000)


# ---- steady state


def test_fewer_than_five_windows_have_not_settled():
    assert not settled([])
    assert not settled([100.0] * 4)
    assert settled([100.0] * 5)


@pytest.mark.parametrize("windows", [5, 6, 7, 8, 9, 10, 14])
@pytest.mark.parametrize("noise", [0.002, 0.005, 0.01, 0.02, 0.03])
def test_stationary_noise_settles(noise, windows):
    random = np.random.default_rng(windows)
    share = np.mean([settled(np.exp(random.normal(3, noise, windows))) for _ in range(1000)])
    # 4 % of steady rates look like a trend by chance; the rest of the margin is the simulation's own.
    assert share >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / 1000)


@pytest.mark.parametrize("noise", [0.002, 0.01, 0.03])
def test_stationary_noise_settles_within_ten_windows(noise):
    random = np.random.default_rng(5)
    runs = [np.exp(random.normal(3, noise, 10)) for _ in range(1000)]
    assert np.mean([any(settled(run[:count]) for count in range(5, 11)) for run in runs]) >= 0.98


@pytest.mark.parametrize("windows", range(5, 11))
@pytest.mark.parametrize("end", [1.1, 0.9])
def test_a_ramp_of_ten_percent_has_not_settled(windows, end):
    random = np.random.default_rng(windows)
    ramps = np.linspace(1, end, windows) * np.exp(random.normal(0, 0.005, (1000, windows)))
    assert np.mean([settled(ramp) for ramp in ramps]) <= 0.01


def test_a_ramp_is_named_also_when_it_is_looked_at_after_each_window():
    random = np.random.default_rng(9)
    ramps = np.linspace(1, 1.1, 10) * np.exp(random.normal(0, 0.005, (1000, 10)))
    assert np.mean([any(settled(ramp[:count]) for count in range(5, 11)) for ramp in ramps]) <= 0.03


def test_a_step_down_and_a_warm_up_have_not_settled():
    random = np.random.default_rng(13)
    throttled = np.repeat([1.0, 0.95], 5) * np.exp(random.normal(0, 0.005, (500, 10)))
    warming = (1 - 0.2 * np.exp(-np.arange(8) / 2)) * np.exp(random.normal(0, 0.005, (500, 8)))
    assert np.mean([settled(rates) for rates in throttled]) <= 0.02
    assert np.mean([settled(rates) for rates in warming]) <= 0.02


def test_a_dip_that_recovers_has_not_settled_though_it_has_no_trend():
    assert not settled([100.0] * 5 + [96.0, 97.0, 98.0, 99.0, 100.0])


def test_a_drift_is_forgotten_once_ten_steady_windows_follow_it():
    assert not settled([50.0, 60.0, 70.0, 80.0, 90.0, 100.0])
    assert settled([50.0, 60.0, 70.0, 80.0, 90.0] + [100.0] * 10)


def test_tolerance_is_on_the_medians_of_the_halves():
    ramp = [100.0, 100.3, 100.6, 100.9, 101.2, 101.5]  # medians 100.3 and 101.2 differ by 0.9 %
    assert settled(ramp, tolerance=0.01)
    assert not settled(ramp, tolerance=0.008)


@given(st.lists(RATES, min_size=5, max_size=12), st.floats(0.01, 100))
def test_the_unit_of_the_rates_does_not_matter(rates, factor):
    half = min(len(rates), 10) // 2
    latest = np.log(rates[-10:])
    difference = abs(np.median(latest[-half:]) - np.median(latest[:half]))
    if abs(difference - math.log1p(0.01)) > 1e-9:  # at the very edge rounding decides
        scaled = [rate * factor for rate in rates]
        assert settled(rates) == settled(scaled)


def test_the_table_of_t_is_scipys():
    for degrees, value in statistics._TREND_T.items():
        assert value == pytest.approx(stats.t.ppf(0.98, degrees), abs=5e-4)
    assert sorted(statistics._TREND_T) == list(range(3, 9))


def test_a_worker_that_asks_for_the_steady_state_loads_no_scipy():
    code = (
        "import sys; from bench.statistics import settled; settled([1] * 6); sys.exit('scipy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
