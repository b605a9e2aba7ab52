"""Simulate how often the statistics of a report err: intervals, picks and change points.

    python scripts/simulate_statistics.py stopping
    python scripts/simulate_statistics.py picking
    python scripts/simulate_statistics.py changes
    python scripts/simulate_statistics.py outlook

docs/trials.md says what was decided by them. The tests draw the same simulations with fewer draws.
"""

import argparse
import math
import sys
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the checkout counts, from wherever this is called

from bench.analysis.comparison import Standing, pick_each_backend  # noqa: E402
from bench.analysis.statistics import (  # noqa: E402
    blocks_for,
    degrees_of_sum,
    paired_difference,
    ratio_interval,
    scatter_factors,
)
from bench.history.change_points import RECENT, change_points  # noqa: E402
from bench.run.plan import FEWEST_TO_STOP, MOST_BLOCKS  # noqa: E402
from bench.workloads.specs import Cell  # noqa: E402

TARGET = 0.015
SCATTERS = (0.005, 0.01, 0.015, 0.02, 0.03, 0.05)


def stopping(draws: int) -> None:
    """Print the coverage of a ratio's interval at the block at which a run stops."""
    print("blocks    scatter of a block: coverage of the 95 % interval, of those that stopped at the minimum")
    for fewest in (3, FEWEST_TO_STOP, 8, 10):
        told = [f"{fewest:>6}  "]
        for scatter in SCATTERS:
            covered, early = [], []
            for one in np.random.default_rng(1).normal(0, scatter, (draws, MOST_BLOCKS)):
                blocks, (low, high) = stop(one, fewest)
                covered.append(low <= 1 <= high)
                if blocks == fewest:
                    early.append(covered[-1])
            told.append(f"{100 * scatter:g} %: {np.mean(covered):.3f}, {np.mean(early or [math.nan]):.3f} ")
        print("  ".join(told), flush=True)


def stop(values: npt.NDArray[np.float64], fewest: int) -> tuple[int, tuple[float, float]]:
    """Return the blocks after which a run with this minimum stops, and the interval of the ratio then."""
    for blocks in count(fewest):
        difference = paired_difference(dict(enumerate(values[:blocks].tolist())))
        if difference is None:
            raise ValueError(f"an interval needs two blocks, not {blocks}")
        low, high = ratio_interval(difference)
        if (high - low) / (2 * difference.ratio) <= TARGET or blocks == len(values):
            return blocks, (low, high)
    raise AssertionError


def picking(draws: int) -> None:
    """Print by how much a framework's best mode of five equal ones seems to be faster than an equal row."""
    random = np.random.default_rng(2)
    for blocks in (3, 4, 8):
        of_all, of_others = [], []
        for _ in range(draws):
            logs = random.normal(0, 0.03, (6, blocks))
            means = logs[:5].mean(axis=1)
            of_all.append(means.max() - logs[5].mean())
            rows = [standing(f"mode-{row}", logs[row]) for row in range(5)]
            (pick,) = pick_each_backend(rows)
            row = logs[int(pick.cell.mode[5:])]
            others = [block for block in range(blocks) if block != pick.block]
            of_others.append((row - logs[5])[others].mean())
        for name, found in (("picked and judged by all blocks", of_all), ("picked by one block", of_others)):
            error = np.std(found) / math.sqrt(draws)
            print(
                f"{blocks} blocks, {name}: {100 * np.mean(found):+.2f} % (standard error {100 * error:.2f})"
            )


def standing(mode: str, logs: npt.NDArray[np.float64]) -> Standing:
    return Standing(
        cell=Cell(workload="w", backend="b", mode=mode, device="cpu", precision="fp32"),
        level="tuned", ranked=True, reference=False, matched=True, parity_ok=True,
        rounds={block: (float(log),) for block, log in enumerate(logs)}, latest=1, epochs=None, accuracies={},
    )  # fmt: skip


SCATTER = 0.05
"""So wide that the smallest change that is named, 2 %, hides no false alarm."""
NOISES: Mapping[str, Callable[[np.random.Generator, int], npt.NDArray[np.float64]]] = {
    "normal": lambda random, size: random.normal(0, SCATTER, size),
    "one in twenty a spike": lambda random, size: (
        random.normal(0, SCATTER, size)
        + (random.random(size) < 0.05) * random.choice([-1, 1], size) * random.uniform(0.05, 3, size)
    ),
    "neighbors correlate by 0.3": lambda random, size: correlated(random, size, 0.3),
    "Student's t, 3 degrees": lambda random, size: SCATTER * random.standard_t(3, size),
    "neighbors correlate by 0.5": lambda random, size: correlated(random, size, 0.5),
}


def correlated(random: np.random.Generator, size: int, by: float) -> npt.NDArray[np.float64]:
    """Return normal values, each of which correlates with the one before it."""
    drawn = random.normal(0, SCATTER, size)
    for place in range(1, size):
        drawn[place] = by * drawn[place - 1] + math.sqrt(1 - by**2) * drawn[place]
    return drawn


def changes(draws: int) -> None:
    """Print the share of time series without a change that are flagged, once and at any of their runs."""
    for name, made in NOISES.items():
        for size in (8, 20, 50, RECENT):
            random = np.random.default_rng(3)
            times = draws if size < RECENT else max(1, draws // 4)  # they take ten times as long
            flagged = sum(bool(change_points(made(random, size).tolist())) for _ in range(times))
            print(f"{name}, {size} runs: {flagged} of {times}, {100 * flagged / times:.2f} %", flush=True)
    for name in ("normal", "one in twenty a spike"):
        random = np.random.default_rng(4)
        times = max(1, draws // 5)
        ever = sum(
            any(change_points(series[:size]) for size in range(8, 51))
            for series in (NOISES[name](random, 50).tolist() for _ in range(times))
        )
        print(
            f"{name}, looked at after each of 8 to 50 runs: {ever} of {times} flagged once or more",
            flush=True,
        )


def outlook(draws: int) -> None:
    """Print how often the interval of the time to an aim holds the true time.

    Six workloads of three equal ratios; the scatter and the time of a block differ from workload to workload.
    """
    random = np.random.default_rng(5)
    scatters = np.array([0.02, 0.03, 0.04, 0.05, 0.06, 0.08])
    block_s = np.array([20.0, 20.0, 40.0, 20.0, 25.0, 60.0])
    true_s = total_s(scatters, block_s)
    for blocks in (3, 4, 6, 10):
        hits, ratios = 0, []
        for _ in range(draws):
            rows = random.normal(0, scatters[:, None, None] / math.sqrt(2), (6, 3, blocks))
            pairs = np.stack([rows[:, 0] - rows[:, 1], rows[:, 1] - rows[:, 2], rows[:, 0] - rows[:, 2]], 1)
            found = np.sqrt(pairs.var(axis=2, ddof=1).mean(axis=1))
            degrees = degrees_of_sum((block_s * found**2).tolist(), [2 * (blocks - 1)] * 6)
            low, high = (total_s(factor * found, block_s) for factor in scatter_factors(degrees))
            hits += low <= true_s <= high
            ratios.append((total_s(found, block_s) / true_s, high / low))
        middle, width = np.median(np.array(ratios), axis=0)
        print(
            f"{blocks} blocks: the interval holds the true time in {100 * hits / draws:.1f} %; medians: the "
            f"estimate is {middle:.2f} times the true time, the upper end {width:.1f} times the lower",
            flush=True,
        )


def total_s(scatters: npt.NDArray[np.float64], block_s: npt.NDArray[np.float64]) -> float:
    blocks = [max(FEWEST_TO_STOP, blocks_for(float(scatter), 0.03)) for scatter in scatters]
    return float((block_s * blocks).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    questions = {"stopping": stopping, "picking": picking, "changes": changes, "outlook": outlook}
    parser.add_argument("question", choices=questions)
    parser.add_argument("--draws", type=int, default=2000)
    asked = parser.parse_args()
    questions[asked.question](asked.draws)


if __name__ == "__main__":
    main()
