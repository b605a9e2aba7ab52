"""How often the rule of part 6 fails a program that measures right, and one that does not: a simulation.

    PYTHONPATH=scripts python -m campaign.power [CAMPAIGNS]

Each simulated campaign has 21 processes of three frameworks on three workloads, and runs of some blocks. All
scatter is normal, on logarithms. A bias changes one framework in all runs. The limit is that of
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
from campaign.plan import PROCESSES_A_PART, VALIDATED, VALIDATION_PARTS

PROCESSES = VALIDATION_PARTS * PROCESSES_A_PART
FRAMEWORKS = 3
BLOCKS = (3, 3, 3, 12)
"""Blocks of a workload in the three default runs and the run of 90 minutes."""
SCATTERS = ((0.03, 0.02), (0.05, 0.02), (0.02, 0.03))
"""Standard deviations over processes and over blocks, of one framework."""
BIASES = (0.0, 0.03, 0.05)

Values = npt.NDArray[np.float64]


def agreed(
    campaigns: int, *, process_sd: float, block_sd: float, bias: float, blocks: Sequence[int] = BLOCKS
) -> Values:
    """Return how many comparisons agree in each campaign, float64 (campaigns,)."""
    chance = np.random.default_rng(0)
    shape = (campaigns, len(VALIDATED), FRAMEWORKS)
    alone = chance.normal(0, process_sd, (*shape, PROCESSES))
    means, errors = alone.mean(-1), alone.var(-1, ddof=1) / PROCESSES
    counts = np.zeros(campaigns)
    for size in blocks:
        runs = chance.normal(0, block_sd, (*shape, size))
        runs[:, :, 0] += np.log1p(bias)
        for first, second in combinations(range(FRAMEWORKS), 2):
            differences = runs[:, :, first] - runs[:, :, second]
            own = differences.var(-1, ddof=1) / size
            sides = errors[:, :, first], errors[:, :, second]
            total = own + sides[0] + sides[1]
            degrees = total**2 / (
                own**2 / (size - 1) + (sides[0] ** 2 + sides[1] ** 2) / (PROCESSES - 1)
            )  # each term keeps its own degrees
            off = np.abs(differences.mean(-1) - (means[:, :, first] - means[:, :, second]))
            counts += (off <= stdtrit(degrees, (1 + CONFIDENCE) / 2) * np.sqrt(total)).sum(1)
    return counts


def failing(campaigns: int, *, process_sd: float, block_sd: float, bias: float) -> float:
    """Return the share of campaigns that the rule fails."""
    least = least_count(len(VALIDATED) * len(list(combinations(range(FRAMEWORKS), 2))) * len(BLOCKS))
    counts = agreed(campaigns, process_sd=process_sd, block_sd=block_sd, bias=bias)
    return float((counts < least).mean())


def main(campaigns: int) -> None:
    rows = [
        (
            f"{100 * process_sd:g} %",
            f"{100 * block_sd:g} %",
            *(
                f"{100 * failing(campaigns, process_sd=process_sd, block_sd=block_sd, bias=bias):.1f} %"
                for bias in BIASES
            ),
        )
        for process_sd, block_sd in SCATTERS
    ]
    heads = ("scatter of processes", "of blocks", *(f"fails, bias of {100 * bias:g} %" for bias in BIASES))
    print(grid(heads, rows))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
