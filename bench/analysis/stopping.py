"""How precisely the cells of a workload are known so far, which decides where a run goes on and stops."""

import math
from collections import defaultdict
from collections.abc import Collection, Sequence

from bench.analysis.disturbance import in_quiet_rounds
from bench.analysis.statistics import (
    block_difference,
    estimate,
    log_rate,
    log_throughput,
    paired_difference,
    ratio_interval,
)
from bench.records.schema import JobRecord
from bench.workloads.specs import Cell


def widest_half_width(jobs: Sequence[JobRecord], alone: Collection[int] = ()) -> float:
    """Return the widest relative half-width, 0.015 for ±1.5 %, of a workload's ratios to its fastest cell.

    These intervals decide the verdicts. If there is only one cell, it is the half-width of its rate. Infinite
    if two cells share fewer than two blocks. `jobs` are the jobs of one workload that count, and `alone` the
    blocks whose jobs did not take turns.
    """
    logs: dict[Cell, dict[int, list[float]]] = defaultdict(dict)
    windows = max((job.spec.windows for job in jobs), default=0)
    for job in jobs:
        if job.status == "ok" and job.windows:
            rates = [log_rate(window.samples, window.seconds) for window in in_quiet_rounds(job.windows)]
            logs[job.spec.cell][job.spec.block] = rates
    if not logs:
        return 0.0
    rows = {
        cell: estimate([log_throughput(rates, windows) for rates in blocks.values()])
        for cell, blocks in logs.items()
    }
    fastest = max(rows, key=lambda cell: rows[cell].value)
    if len(rows) == 1:
        width = rows[fastest].half_width
        return math.inf if width is None else width
    widths = []
    for cell in rows.keys() - {fastest}:
        shared = logs[fastest].keys() & logs[cell].keys()
        difference = paired_difference(
            {
                block: block_difference(
                    logs[fastest][block], logs[cell][block], windows, in_turns=block not in alone
                )
                for block in shared
            }
        )
        if difference is None:
            return math.inf
        low, high = ratio_interval(difference)
        widths.append((high - low) / (2 * difference.ratio))
    return max(widths)
