"""How often the rule of part 6 fails a program that measures right, and one that does not: a simulation.

    PYTHONPATH=scripts python -m campaign.power [CAMPAIGNS]

Each simulated campaign has 21 replicates of three frameworks on three workloads, and runs of some blocks. All
scatter is normal, on logarithms. What is common to a part or a round meets all its processes alike; pairs
cancel it, so it must not matter. A bias changes one framework in all runs. The limit is that of
`campaign.agreement`, whose comparisons share processes and frameworks: this is what its level is worth.
"""

import sys
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from bench.report.markdown import grid
from campaign.agreement import CONFIDENCE, least_count
from campaign.plan import ROUNDS_A_PART, VALIDATED, VALIDATION_PARTS

FRAMEWORKS = 3
BLOCKS = (3, 3, 3, 16)
"""Blocks of a workload in the three default runs and the run of 90 minutes."""
SCATTERS = ((0.03, 0.02), (0.05, 0.02), (0.065, 0.02), (0.02, 0.03), (0.065, 0.03))
"""Standard deviations over processes and over blocks, of one framework alone."""
COMMON = (0.0, 0.05)
"""Standard deviations over parts, and over the rounds of a part, of what is common to all processes."""
BIASES = (0.0, 0.03, 0.05)

Values = npt.NDArray[np.float64]


def agreed(
    campaigns: int,
    *,
    process_sd: float,
    block_sd: float,
    bias: float,
    common_sd: float = 0.0,
    blocks: Sequence[int] = BLOCKS,
) -> Values:
    """Return how many comparisons agree in each campaign, float64 (campaigns,)."""
    chance, shared = np.random.default_rng(0), np.random.default_rng(1)
    shape = (campaigns, len(VALIDATED), FRAMEWORKS)
    alone = chance.normal(0, process_sd, (*shape, VALIDATION_PARTS, ROUNDS_A_PART))
    alone += shared.normal(0, common_sd, (campaigns, 1, 1, VALIDATION_PARTS, 1))
    alone += shared.normal(0, common_sd, (campaigns, 1, 1, VALIDATION_PARTS, ROUNDS_A_PART))
    alone = alone.reshape(*shape, -1)
    replicates = alone.shape[-1]
    counts = np.zeros(campaigns)
    for size in blocks:
        runs = chance.normal(0, block_sd, (*shape, size))
        runs[:, :, 0] += np.log1p(bias)
        for first, second in combinations(range(FRAMEWORKS), 2):
            by_block = runs[:, :, first] - runs[:, :, second]
            by_replicate = alone[:, :, first] - alone[:, :, second]
            own, other = by_block.var(-1, ddof=1) / size, by_replicate.var(-1, ddof=1) / replicates
            degrees = (own + other) ** 2 / (own**2 / (size - 1) + other**2 / (replicates - 1))
            off = np.abs(by_block.mean(-1) - by_replicate.mean(-1))
            counts += (off <= stdtrit(degrees, (1 + CONFIDENCE) / 2) * np.sqrt(own + other)).sum(1)
    return counts


def failing(
    campaigns: int, *, process_sd: float, block_sd: float, bias: float, common_sd: float = 0.0
) -> float:
    """Return the share of campaigns that the rule fails."""
    least = least_count(len(VALIDATED) * len(list(combinations(range(FRAMEWORKS), 2))) * len(BLOCKS))
    counts = agreed(campaigns, process_sd=process_sd, block_sd=block_sd, bias=bias, common_sd=common_sd)
    return float((counts < least).mean())


def main(campaigns: int) -> None:
    rows = []
    for process_sd, block_sd in SCATTERS:
        for common_sd in COMMON:
            shares = [
                failing(campaigns, process_sd=process_sd, block_sd=block_sd, bias=bias, common_sd=common_sd)
                for bias in BIASES
            ]
            sds = (process_sd, block_sd, common_sd)
            rows.append([*(f"{100 * sd:g} %" for sd in sds), *(f"{100 * share:.1f} %" for share in shares)])
    heads = (
        "own scatter of processes", "of blocks", "common scatter",
        *(f"fails, bias of {100 * bias:g} %" for bias in BIASES),
    )  # fmt: skip
    print(grid(heads, rows))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
