"""When a rate has settled."""

import math
from collections.abc import Sequence

import numpy as np

from bench.analysis.statistics import _finite, _Values

FEWEST_WINDOWS = 5

TOLERANCE = 0.01
"""Parts of a job whose levels differ by no more have the same level, however small the scatter."""

_MEDIAN = 1.2533
"""Standard error of a median over that of a mean, for normal values: sqrt(pi / 2)."""

_LIMIT = 4.2
"""Standard errors by which the parts of a long steady series may differ; set by simulation, see `settled`."""

_MAD = 1.4826
"""Standard deviation of normal values over their median absolute deviation."""


def settled(logs: Sequence[float], others: Sequence[Sequence[float]] = (), latest: int | None = None) -> bool:
    """Say whether training runs at a steady rate, from ln(rate) of a job's windows so far, in order.

    `others` are those of the other jobs of the block, window k of each from the same round; a job that ended
    early is not asked. Only the `latest` windows count, all where None, and five are needed. The job is
    steady if its own rates are level, or if their difference to those of one of the others is level:
    what a shared machine does to all sides of a round is no drift of the job. One other that is level
    with it suffices, because the difference to one that drifts itself drifts too. A series that scatters more
    than twice as much as the quietest of them is not asked, for it would hide a drift.

    A series of n values is level if neither its first third nor its last differs from the rest: if their
    medians differ by at most `TOLERANCE`, or by at most 4.2 + 300 / n² standard errors. The scatter is the
    median absolute deviation from the parts' medians, or from a line through the thirds' where that is less,
    so that neither a step nor a ramp raises it, nor a stall now and then. The limit is set by simulation
    (tests/analysis/test_statistics.py): of 15 windows and more, 95 % of steady series pass also when
    neighbouring windows correlate by a half, and when one in twenty takes three times as long. In 20 windows
    that scatter by 2 %, a first third that is 10 % slower is found in 99 cases of 100; by 4 %, in about half.
    """
    own = _finite(logs)[-latest if latest else 0 :] if len(logs) else np.empty(0)
    if len(own) < FEWEST_WINDOWS:
        return False
    asked = [own]
    for other in others:
        if len(other) >= len(logs):
            asked.append(own - _finite(other)[: len(logs)][-len(own) :])
    levels = [_levels(series) for series in asked]
    quietest = min(scatter for _, scatter in levels)
    return any(level for level, scatter in levels if scatter <= 2 * quietest)


def _levels(series: _Values) -> tuple[bool, float]:
    """Say whether a series is level, and how much it scatters from window to window."""
    count = len(series)
    third = max(1, count // 3)
    parts = ((series[:third], series[third:]), (series[-third:], series[:-third]))
    steps = [float(np.median(part)) - float(np.median(rest)) for part, rest in parts]
    slope = (np.median(series[-third:]) - np.median(series[:third])) / (count - third)
    straight = series - slope * np.arange(count)
    spreads = [float(np.median(np.abs(straight - np.median(straight))))]
    for part, rest in parts:
        deviations = np.concatenate([part - np.median(part), rest - np.median(rest)])
        spreads.append(float(np.median(np.abs(deviations))))
    scatter = _MAD * min(spreads)
    error = _MEDIAN * scatter * math.sqrt(1 / third + 1 / (count - third))
    limit = max(math.log1p(TOLERANCE), (_LIMIT + 300 / count**2) * error)
    return max(map(abs, steps)) <= limit, scatter
