"""When a rate has settled."""

import math
from collections.abc import Sequence

import numpy as np

from bench.analysis.statistics import _finite, _Values

FEWEST_WINDOWS = 5

TOLERANCE = 0.01
"""Parts of a job that differ by no more than this have the same level, however small the scatter."""

_MEDIAN = 1.2533
"""Standard error of a median divided by that of a mean, for normal values: sqrt(pi / 2)."""

_LIMIT = 4.2
"""Standard errors by which the parts of a long steady series may differ; set by simulation, see `settled`."""

_MAD = 1.4826
"""Standard deviation of normal values divided by their median absolute deviation."""


def settled(logs: Sequence[float], others: Sequence[Sequence[float]] = (), latest: int | None = None) -> bool:
    """Say whether training runs at a steady rate, from ln(rate) of a job's windows so far, in order.

    `others` are the same for the other jobs of the block; window k of each is from the same round. A job that
    ended early is ignored. Only the `latest` windows count, or all if None, and five are needed. The job is
    steady if its own rates are level, or if their difference from the rates of one of the others is level: a
    change of a shared machine hits all jobs of a round and is not a drift of this job. One level difference
    is enough, because the difference from a job that drifts would drift too. A series that scatters more than
    twice as much as the quietest one is ignored, because it would hide a drift.

    A series of n values is level if neither its first third nor its last third differs from the rest: if the
    medians differ by at most `TOLERANCE`, or by at most 4.2 + 300 / n² standard errors. The scatter is the
    median absolute deviation from the medians of the parts, or from a line through the medians of the thirds
    if that is smaller, so that neither a step nor a ramp nor an occasional stall increases it. The limit was
    set by simulation (tests/analysis/test_statistics.py): of series with 15 windows or more, 95 % of the
    steady ones pass, even if neighbouring windows have a correlation of one half, or if one window in twenty
    takes three times as long. In 20 windows that scatter by 2 %, a first third that is 10 % slower is found
    in 99 of 100 cases; with a scatter of 4 %, in about half of the cases.
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
    """Return whether a series is level, and how much it scatters from window to window."""
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
