"""How the time of a run is best divided between more processes and more windows in each process.

The variance of a mean over processes of windows is (between + within / windows) / processes. A process costs
time to start, a window costs time to train. Source of the formulas: Kalibera and Jones, Rigorous benchmarking
in reasonable time (2013), section 6.
"""

import math
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt


class Components(msgspec.Struct, frozen=True, kw_only=True):
    """The variance of windows and of processes, usually of logarithms of rates."""

    within: float
    """Variance of the windows of one process."""
    between: float
    """Variance of the processes' true means, without what their windows add. An estimate can be negative."""


def variance_components(processes: Sequence[npt.NDArray[np.float64]]) -> Components:
    """Estimate the variance within and between processes from the windows of each.

    The estimates are those of the analysis of variance in one way; with equal numbers of windows they are the
    T squared of Kalibera and Jones. That between processes is right on average, so it is negative where
    processes differ less than their windows let expect. Raises ValueError below two processes or two windows
    in a process.
    """
    sizes = np.array([len(windows) for windows in processes])
    if len(sizes) < 2 or sizes.min() < 2:
        raise ValueError(
            f"variances need two processes of two windows at least; got {sizes.tolist()} windows"
        )
    means = np.array([windows.mean() for windows in processes])
    squares = sum(float(((windows - windows.mean()) ** 2).sum()) for windows in processes)
    within = squares / float((sizes - 1).sum())
    middle = float(np.average(means, weights=sizes))
    of_means = float((sizes * (means - middle) ** 2).sum()) / (len(sizes) - 1)
    usual_size = float(sizes.sum() - (sizes**2).sum() / sizes.sum()) / (len(sizes) - 1)
    return Components(within=within, between=(of_means - within) / usual_size)


def optimal_windows(found: Components, *, process_s: float, window_s: float) -> float:
    """Return the number of windows per process that gives the narrowest interval in a given time.

    It is sqrt(process_s / window_s * within / between), rounded up. `process_s` are the seconds of a process
    without its windows, and `window_s` those of a window. Infinite if processes do not seem to differ.
    """
    if found.between <= 0:
        return math.inf
    return float(max(1, math.ceil(math.sqrt(process_s / window_s * found.within / found.between))))


def time_for_variance(found: Components, windows: float, *, process_s: float, window_s: float) -> float:
    """Return the seconds that a mean of variance 1 takes with so many windows per process.

    Half as many seconds mean that the same precision takes half the time.
    """
    return (found.between + found.within / windows) * (process_s + windows * window_s)
