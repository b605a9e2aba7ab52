"""Compute from the published raw values what trimming changes, and how many windows a process should have.

    python scripts/published_scatter.py trimming
    python scripts/published_scatter.py windows

Both look at pairs of rows of a workload without telling which rows they are, so that no rule is chosen by
whom it favors. docs/trials.md says what was decided by them.
"""

import argparse
import math
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the checkout counts, from wherever this is called

from bench.analysis.comparison import Standing  # noqa: E402
from bench.analysis.repetitions import optimal_windows, time_for_variance, variance_components  # noqa: E402
from bench.analysis.statistics import block_difference, block_differences, plain_difference  # noqa: E402
from bench.analysis.summary import summarise  # noqa: E402
from bench.records.runs import Run, read_run  # noqa: E402

RUNS = {
    "default modes": ("guest-avx512", "guest-avx512-2"),
    "all modes": ("campaign/modes-mnist-softmax", "campaign/modes-mnist-mlp", "campaign/modes-mnist-cnn"),
}
"""The published runs of three frameworks on a machine that nothing else disturbed on purpose."""
FEWEST = 3


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """Two ranked rows of one workload of a run, without their names."""

    workload: str
    windows: int
    rounds: tuple[npt.NDArray[np.float64], ...]
    """By block, the differences of the rounds that count."""
    trimmed: npt.NDArray[np.float64]
    """By block."""
    plain: npt.NDArray[np.float64]
    process_s: float
    """Seconds that a block of the two costs without its windows and without training for accuracy."""
    window_s: float
    """Seconds of a round of the two, with what precedes their windows."""


def pairs(run: Run) -> Iterator[Pair]:
    summary = summarise(run)
    for one, other in combinations(summary.standings, 2):
        alike = one.cell.workload == other.cell.workload and one.level == other.level
        dropped = summary.screenings[one.cell.workload].dropped
        shared = sorted((one.rounds.keys() & other.rounds.keys()) - dropped)
        if alike and one.ranked and other.ranked and len(shared) >= FEWEST:
            yield pair_of(run, one, other, shared)


def pair_of(run: Run, one: Standing, other: Standing, shared: list[int]) -> Pair:
    latest = min(one.latest, other.latest)
    sides = [(one.rounds[block], other.rounds[block], latest) for block in shared]
    jobs = [
        job
        for job in run.jobs
        if job.spec.cell in (one.cell, other.cell) and job.spec.block in shared and job.status == "ok"
    ]
    turns = [sum(window.seconds for window in job.windows) + (job.lead_s or 0.0) for job in jobs]
    others = [
        job.wall_s - (job.learn_s or 0.0) - (job.closer_s or 0.0) - turn
        for job, turn in zip(jobs, turns, strict=True)
    ]
    return Pair(
        workload=one.cell.workload,
        windows=latest,
        rounds=tuple(block_differences(*side) for side in sides),
        trimmed=np.array([block_difference(*side) for side in sides]),
        plain=np.array([plain_difference(*side) for side in sides]),
        process_s=2 * float(np.mean(others)),
        window_s=2 * float(np.mean([turn / len(job.windows) for turn, job in zip(turns, jobs, strict=True)])),
    )


def root_mean_square(values: list[float]) -> float:
    return math.sqrt(float(np.mean(np.square(values))))


def trimming(found: list[Pair]) -> None:
    trimmed = [float(pair.trimmed.std(ddof=1)) for pair in found]
    plain = [float(pair.plain.std(ddof=1)) for pair in found]
    moved = np.array([abs(math.expm1(float((pair.plain - pair.trimmed).mean()))) for pair in found])
    print(f"{len(found)} pairs of rows, {sum(len(pair.trimmed) for pair in found)} blocks")
    print(
        "scatter of a pair from block to block, root mean square: "
        f"trimmed {100 * root_mean_square(trimmed):.2f} %, plain {100 * root_mean_square(plain):.2f} %"
    )
    fewer = sum(one < other for one, other in zip(trimmed, plain, strict=True))
    print(f"median: trimmed {100 * np.median(trimmed):.2f} %, plain {100 * np.median(plain):.2f} %")
    print(f"trimmed scatters less in {fewer} of {len(found)}")
    print(
        f"the ratio moves by more than 1 % in {100 * (moved > 0.01).mean():.0f} % of the pairs, by "
        f"{100 * moved.max():.1f} % at most, by {100 * np.median(moved):.2f} % as the median"
    )


def windows(found: list[Pair]) -> None:
    print("workload: pairs, windows, scatter within and between, processes and round, optimum")
    for name in dict.fromkeys(pair.workload for pair in found):
        report(name, [pair for pair in found if pair.workload == name])
    report("all", found)


def report(name: str, found: list[Pair]) -> None:
    """Print the optimum of these pairs by their mean variances, and what it would gain."""
    parts = [variance_components(pair.rounds) for pair in found]
    mean = msgspec.structs.replace(
        parts[0],
        within=float(np.mean([part.within for part in parts])),
        between=float(np.mean([part.between for part in parts])),
    )
    process_s = float(np.mean([pair.process_s for pair in found]))
    window_s = float(np.mean([pair.window_s for pair in found]))
    asked = float(np.mean([pair.windows for pair in found]))
    between = math.copysign(math.sqrt(abs(mean.between)), mean.between)
    told = (
        f"{name}: {len(found)} pairs, {asked:.0f} windows, {100 * math.sqrt(mean.within):.1f} %, "
        f"{100 * between:.2f} %, {process_s:.1f} s, {window_s:.3f} s"
    )
    best = optimal_windows(mean, process_s=process_s, window_s=window_s)
    if math.isinf(best):
        print(f"{told}, no optimum: processes do not seem to differ")
        return
    now, then = (
        time_for_variance(mean, count, process_s=process_s, window_s=window_s) for count in (asked, best)
    )
    print(f"{told}, optimum {best:.0f}, {100 * (1 - then / now):.1f} % less time for the same precision")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("question", choices=("trimming", "windows"))
    asked = parser.parse_args()
    for group, names in RUNS.items():
        print(f"{group}:")
        found = [pair for name in names for pair in pairs(read_run(ROOT / "results" / name))]
        trimming(found) if asked.question == "trimming" else windows(found)


if __name__ == "__main__":
    main()
