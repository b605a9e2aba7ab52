"""How time is divided between processes and windows: the formulas, and simulations that they are right."""

import math

import numpy as np
import pytest

from bench.analysis.repetitions import Components, optimal_windows, time_for_variance, variance_components


def test_the_components_are_those_of_kalibera_and_jones_where_all_processes_have_equal_windows():
    random = np.random.default_rng(3)
    processes = random.normal(random.normal(0, 0.02, 6)[:, None], 0.1, (6, 30))
    found = variance_components(list(processes))
    within = processes.var(axis=1, ddof=1).mean()
    assert found.within == pytest.approx(within)
    assert found.between == pytest.approx(processes.mean(axis=1).var(ddof=1) - within / 30)


@pytest.mark.parametrize("between", [0.0, 0.05])
def test_the_components_are_right_on_average_also_with_unequal_windows(between):
    random = np.random.default_rng(4)
    found = [
        variance_components([random.normal(mean, 0.1, size) for mean, size in zip(means, sizes, strict=True)])
        for means, sizes in ((random.normal(0, between, 8), random.integers(30, 90, 8)) for _ in range(500))
    ]
    assert np.mean([one.within for one in found]) == pytest.approx(0.01, rel=0.02)
    assert np.mean([one.between for one in found]) == pytest.approx(between**2, rel=0.1, abs=2e-5)


@pytest.mark.parametrize("processes", [[], [np.ones(5)], [np.ones(5), np.ones(1)]])
def test_variances_need_two_processes_of_two_windows(processes):
    with pytest.raises(ValueError, match="two processes of two windows"):
        variance_components(processes)


@pytest.mark.parametrize(
    ("within", "between", "process_s", "windows"),
    [
        (0.01, 0.0001, 4.0, 90),
        (0.01, 0.0004, 4.0, 45),
        (0.0001, 0.01, 4.0, 1),
        (0.01, -0.0001, 4.0, math.inf),
    ],
)
def test_the_optimum_is_that_of_the_formula(within, between, process_s, windows):
    """sqrt(4 / 0.05 * 0.01 / 0.0001) is 89.4."""
    found = Components(within=within, between=between)
    assert optimal_windows(found, process_s=process_s, window_s=0.05) == windows


def test_no_other_number_of_windows_takes_less_time_than_the_optimum():
    found = Components(within=0.01, between=0.0001)
    times = {
        windows: time_for_variance(found, windows, process_s=4.0, window_s=0.05) for windows in range(1, 400)
    }
    best = optimal_windows(found, process_s=4.0, window_s=0.05)
    assert abs(min(times, key=lambda windows: times[windows]) - best) <= 1


def test_the_time_for_a_variance_is_that_of_simulated_means():
    """Of as many processes as fit into an hour, the mean has the variance that the formula gives."""
    random = np.random.default_rng(5)
    found = Components(within=0.01, between=0.0004)
    for windows in (10, 60):
        count = int(3600 / (4.0 + windows * 0.05))
        means = [
            random.normal(random.normal(0, 0.02, count), 0.1 / math.sqrt(windows)).mean() for _ in range(4000)
        ]
        seconds = time_for_variance(found, windows, process_s=4.0, window_s=0.05)
        assert np.var(means) == pytest.approx(seconds / 3600, rel=0.1)
