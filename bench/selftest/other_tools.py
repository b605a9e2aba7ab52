"""The decision rules of other benchmarking tools, reimplemented from their sources.

A rule decides whether `head` is slower than `base`. A side is a sequence of processes, and a process is a
sequence of the seconds a sample of its windows. A window is what the tool calls a value, a sample, a round or
a repetition. All of the tools measure one side after the other; these windows
were taken by turns, so their rules are shown here on better data than they collect themselves.
"""

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Processes: TypeAlias = Sequence[Sequence[float]]
Rule: TypeAlias = Callable[[Processes, Processes], bool]

PYTEST_BENCHMARK_SHARE = 0.05
ASV_FACTOR = 1.1
ASV_P = 0.002
ASV_EXACT_UP_TO = 20
PYPERF_CONFIDENCE = 0.95
GOOGLE_ALPHA = 0.05


def pytest_benchmark(base: Processes, head: Processes) -> bool:
    """Whether `--benchmark-compare-fail=mean:5%` fails.

    Source: pytest-benchmark, utils.py, `PercentageRegressionCheck` and `parse_compare_fail`: it fails where
    the field's value is more than so many percent above that of the stored run. There is no field or
    threshold by default; 5 % of the mean is what projects commonly ask for.

    Adapted: a stored run is one process, so the first process of each side is compared, and no other.
    """
    return _mean(head[0]) / _mean(base[0]) - 1 > PYTEST_BENCHMARK_SHARE


def asv(base: Processes, head: Processes) -> bool:
    """Whether `asv continuous` and `asv compare` call `head` worse, with their factor of 1.1.

    Source: asv, commands/compare.py, `_is_result_better`, and asv_runner, statistics.py, `is_different`: the
    median of all samples is more than 1.1 times that of the base, and a Mann-Whitney U test over the samples
    has p < 0.002, two-sided; exact for up to 20 samples a side, else normal without correction for
    continuity.

    Adapted: the samples of all processes are taken together, as asv takes those of its rounds. With too few
    samples for so small a p, asv looks whether 99 % intervals overlap; here no difference is claimed then.
    """
    first, second = _pooled(base), _pooled(head)
    if 1 / math.comb(len(first) + len(second), min(len(first), len(second))) >= ASV_P:
        return False
    exact = max(len(first), len(second)) <= ASV_EXACT_UP_TO
    p = _u_test(first, second, "exact" if exact else "asymptotic", continuity=False)
    return p < ASV_P and float(np.median(first)) < float(np.median(second)) / ASV_FACTOR


def pyperf(base: Processes, head: Processes) -> bool:
    """Whether `pyperf compare_to` calls `head` significantly slower.

    Source: pyperf, _utils.py, `is_significant` and `tscore`, and _compare.py, `CompareResult`: a two-sided
    two-sample t test of Student, with the variances pooled, over all values of all processes at 95 %; by
    default (`--min-speed` not given) however small the difference is.

    Adapted: the critical value is computed, where pyperf has a table of it. pyperf takes three values from
    each of twenty processes; here it is given all windows there are.
    """
    from scipy.special import stdtrit

    first, second = _pooled(base), _pooled(head)
    degrees = len(first) + len(second) - 2
    if degrees < 1:
        return False
    difference = float(second.mean() - first.mean())
    squares = float(((first - first.mean()) ** 2).sum() + ((second - second.mean()) ** 2).sum())
    error = math.sqrt(squares / degrees * (1 / len(first) + 1 / len(second)))
    critical = float(stdtrit(degrees, 1 - (1 - PYPERF_CONFIDENCE) / 2))
    return difference > 0 and difference >= critical * error


def google_benchmark(base: Processes, head: Processes) -> bool:
    """Whether `compare.py benchmarks` of google/benchmark shows a significant U test, and `head` slower.

    Source: google/benchmark, tools/gbench/report.py, `calc_utest`, and tools/compare.py: SciPy's two-sided
    Mann-Whitney U test over the repetitions, alpha 0.05 by default; nine repetitions or more are advised.

    Adapted: all repetitions of a benchmark are made in one process, so the windows of the first process of
    each side are compared, and no other. The tool tests CPU time as well; here there is wall time only. It
    leaves the direction to its reader, who is taken to look at the medians.
    """
    first, second = np.asarray(base[0]), np.asarray(head[0])
    p = _u_test(first, second, "auto", continuity=True)
    return p < GOOGLE_ALPHA and float(np.median(second)) > float(np.median(first))


def _u_test(
    first: npt.NDArray[np.float64], second: npt.NDArray[np.float64], method: str, *, continuity: bool
) -> float:
    """Return the two-sided p value of the Mann-Whitney U test; 1 if all values are the same."""
    from scipy.stats import mannwhitneyu

    if np.ptp(np.concatenate([first, second])) == 0:
        return 1.0  # SciPy would divide by a scatter of 0
    found = mannwhitneyu(first, second, use_continuity=continuity, alternative="two-sided", method=method)
    return float(found.pvalue)


def _pooled(processes: Processes) -> npt.NDArray[np.float64]:
    return np.concatenate([np.asarray(process, dtype=np.float64) for process in processes])


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
