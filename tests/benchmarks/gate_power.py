"""How often does the gate pass a true loss, and fail a head without one? Simulated, by the gate's own rules.

    PYTHONPATH=. python tests/benchmarks/gate_power.py [GATES]

Each gate judges one row. Its blocks scatter as in one of the published comparisons of equal sides
(`results/gate-cpu-2-core/unchanged`), drawn by chance. Every row of the table has GATES gates (1,000).
"""

import math
import statistics
import sys
from collections import Counter
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from sides_by_side import decided  # noqa: E402

from bench.analysis.disturbance import in_quiet_rounds  # noqa: E402
from bench.analysis.statistics import block_difference, log_rate  # noqa: E402
from bench.gate.judge import is_sound  # noqa: E402
from bench.gate.records import HEADER, AbBlock, Series, read_ab  # noqa: E402
from bench.report.markdown import grid  # noqa: E402

PUBLISHED = ROOT / "results" / "gate-cpu-2-core" / "unchanged"
FEWEST = 6
"""Blocks of a series whose scatter is used."""
LOSSES = (0.0, 0.03, 0.05, 0.08)
SIDE_EFFECTS = (0.0, 0.005, 0.015, 0.025)
OUTCOMES = ("fine", "undecided", "regression")


def difference(block: AbBlock) -> float:
    """Return by how much head's logarithm of samples/s was larger in a block."""
    base, head = (
        [log_rate(window.samples, window.seconds) for window in in_quiet_rounds(job.windows)]
        for job in (block.base, block.head)
    )
    return block_difference(head, base, block.base.spec.windows, in_turns=block.in_turns)


def published_series() -> list[list[float]]:
    """Return the differences of equal sides by block, for every series that is long enough."""
    found = []
    kinds: tuple[Series, ...] = ("first", "second")
    for folder in sorted(path.parent for path in PUBLISHED.glob(f"*/{HEADER}")):
        ab = read_ab(folder)
        for cell in ab.header.cells:
            for series in kinds:
                blocks = [block for block in ab.blocks_of(cell, series) if is_sound(block)]
                if len(blocks) >= FEWEST:
                    found.append([difference(block) for block in blocks])
    return found


def persistent(series: list[list[float]]) -> tuple[float, float]:
    """Return the standard deviation of what all blocks of a series share, and its upper 95 % limit.

    It is what the means of the series scatter more than their blocks explain; the limit is by bootstrap.
    """
    excess = np.array([statistics.fmean(one) ** 2 - statistics.variance(one) / len(one) for one in series])
    drawn = np.random.default_rng(0).choice(excess, (10_000, len(excess))).mean(axis=1)
    return tuple(math.sqrt(max(0.0, value)) for value in (excess.mean(), np.quantile(drawn, 0.95)))  # type: ignore[return-value]


def main(gates: int) -> None:
    series = published_series()
    scatters = [statistics.stdev(one) for one in series]
    low, middle, high = np.quantile(scatters, (0.1, 0.5, 0.9))
    print(f"{len(series)} series; standard deviation over blocks {100 * middle:.1f} % (median), from "
          f"{100 * low:.1f} to {100 * high:.1f} % in the middle four fifths")  # fmt: skip
    shared, limit = persistent(series)
    print(f"shared by all blocks of a series: {100 * shared:.1f} %, at most {100 * limit:.1f} %")
    rows = []
    for side_effect in SIDE_EFFECTS:
        for loss in LOSSES:
            chance = np.random.default_rng([round(1e4 * loss), round(1e4 * side_effect)])
            drawn = chance.choice(scatters, gates)
            ended = Counter(
                decided(loss, float(scatter), seed, side_effect=side_effect)
                for seed, scatter in enumerate(drawn)
            )
            shares = [f"{100 * ended[outcome] / gates:.1f} %" for outcome in OUTCOMES]
            rows.append([f"{100 * side_effect:g} %", f"{100 * loss:g} %", *shares])
            print(" ".join(rows[-1]), flush=True)
    print(grid(("side effect", "true loss", "passes", "undecided", "fails"), rows))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
