"""CROSSED.md: the report of the self-test across frameworks, whose rules `campaign.crossed` has."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from bench.analysis.statistics import CONFIDENCE, ratio_interval
from bench.analysis.summary import Summary
from bench.measuring.design import BLOCKS_ANEW
from bench.records.runs import Run
from bench.report.format import NOTHING
from bench.report.markdown import bullets, grid
from campaign.crossed import (
    CUTS,
    DRAWS,
    EFFECTS,
    FALSE_ALARMS,
    FEWEST_OTHERS,
    HELD,
    Counts,
    Family,
    between_runs,
    claims,
    common_blocks,
    counted,
    excess_scatter,
    found_within,
    limits,
    quantile,
    scatter_of,
    simulate_cuts,
    simulate_runs,
    totals,
    within_run,
    wrong_beside,
)
from campaign.runs import FEWEST_BLOCKS, RatioBlocks, default_blocks, default_ratios, lacking

KINDS = (HELD, FALSE_ALARMS, *map(found_within, EFFECTS), *map(wrong_beside, EFFECTS))
FIRST_CUTS, LATER_CUTS = "3: first of each workload", "3: later"


def report(
    runs: Mapping[str, tuple[Run, Summary]],
    *,
    repeated: Sequence[str],
    long: str,
    cpu: str,
    draws: int = DRAWS,
) -> str:
    """Return the report as Markdown, from the runs by their parts' names."""
    ratios = {name: default_ratios(name, *runs[name]) for name in repeated}
    blocks = default_blocks(long, *runs[long])
    by_workload: dict[str, list[RatioBlocks]] = {}
    for one in blocks:
        by_workload.setdefault(one.ratio.workload, []).append(one)
    workloads = {
        name: pairs for name, pairs in by_workload.items() if len(common_blocks(pairs)) >= FEWEST_BLOCKS
    }
    missing = [
        *(line for name in repeated for line in lacking(name, *runs[name], ratios[name])),
        *lacking(long, *runs[long], [one.ratio for one in blocks]),
        *(
            f"{long}, {name}: its pairs share fewer than {FEWEST_BLOCKS} blocks"
            for name in by_workload.keys() - workloads.keys()
        ),
    ]
    families = between_runs(ratios, [one for found in workloads.values() for one in found])
    parts = [
        "# Is the rule right on pairs of frameworks?",
        *_between_parts(families, workloads, missing, long=long, cpu=cpu, draws=draws),
        "## Within the long run",
        *_within_parts(workloads, long, draws),
        "## Comparisons between runs",
        f"The difference is that of a default run and {long}, before it is shrunk. The interval is that of "
        "the shrunk one.",
        _table_of(families),
    ]
    return "\n\n".join(parts) + "\n"


def _between_parts(
    families: Sequence[Family],
    workloads: Mapping[str, Sequence[RatioBlocks]],
    missing: Sequence[str],
    *,
    long: str,
    cpu: str,
    draws: int,
) -> list[str]:
    named = [f"All ran on one CPU: {cpu}.", *(f"missing: {line}" for line in missing)]
    if not families:
        return ["Too little was measured to say.", bullets(named)]
    scatters = {name: scatter_of(found) for name, found in workloads.items()}
    measured, of = counted(families), totals(families)
    chance, excess = simulate_runs(families, scatters, draws=draws)
    bounds = limits(chance)
    held, alarms = int(measured[HELD][0]), int(measured[FALSE_ALARMS][0])
    most = math.sqrt(max(0.0, quantile(excess, (1 + CONFIDENCE) / 2)))
    said = [
        f"{held} of {of[HELD]} intervals hold 0, and at least {bounds.held} have to.",
        f"{alarms} of {of[FALSE_ALARMS]} comparisons are false alarms, and at most {bounds.false_alarms} may "
        "be.",
        f"What separates a default run and {long} adds {100 * excess_scatter(families):.1f} % (a standard "
        "deviation) to the scatter of a pair's ratio that blocks explain. Without any effect between runs "
        f"this estimate is at most {100 * most:.1f} % in {100 * (1 + CONFIDENCE) / 2:g} of 100 campaigns. If "
        "both runs have an equal share, that of one run is smaller by the root of 2.",
        *named,
    ]
    rows = [(name, str(measured[name][0]), str(of[name]), _range(chance[name])) for name in KINDS]
    return [
        "It holds, by the rule that was fixed beforehand." if bounds.hold(measured)[0]
        else "It does NOT hold, by the rule that was fixed beforehand.",
        bullets(said),
        "## Between runs",
        f"Each default run is centred by {long}, so that the truth of each pair is 0. The last column has "
        f"the central 95 % of {draws:,} simulated campaigns of a right program with the same blocks, scatter "
        "and margins, and no effect between runs. A moved framework moves two pairs; a claim of the third, "
        "or in the wrong direction, is a wrong one.",
        grid(("count", "found", "of", "a right program"), rows, numbers=frozenset({1, 2, 3})),
    ]  # fmt: skip


def _within_parts(workloads: Mapping[str, Sequence[RatioBlocks]], long: str, draws: int) -> list[str]:
    groups: dict[str, list[Family]] = {}
    for size in CUTS:
        cuts = [cut for found in workloads.values() for cut in within_run(long, found, size)]
        groups[str(size)] = cuts
        if size == BLOCKS_ANEW:
            groups[FIRST_CUTS] = [cut for cut in cuts if cut.places[0] == 0]
            groups[LATER_CUTS] = [cut for cut in cuts if cut.places[0] != 0]
    chance = simulate_cuts(
        groups, {name: scatter_of(found) for name, found in workloads.items()}, draws=draws
    )
    rows = [(name, str(len(cuts)), *_cells(cuts, chance[name])) for name, cuts in groups.items()]
    short = [
        f"{name}: {len(common_blocks(found))} blocks, so no cut of "
        f"{', '.join(str(size) for size in CUTS if not within_run(long, found, size))}. A cut leaves "
        f"{FEWEST_OTHERS} others."
        for name, found in workloads.items()
        if len(common_blocks(found)) < max(CUTS) + FEWEST_OTHERS
    ]
    lost = [
        f"{one.ratio.workload}, {one.ratio.first} / {one.ratio.second}: "
        f"{len(one.differences) - len(common_blocks(found))} of {len(one.differences)} blocks lack another "
        "framework, and are in no cut."
        for found in workloads.values()
        for one in found
        if len(one.differences) > len(common_blocks(found))
    ]
    return [
        f"Cuts of {long}, each centred by the run's other blocks. This cannot see a bias that all blocks of "
        "the run share: it tests the rule on the scatter that pairs of frameworks have. It has no verdict. "
        "In brackets is the central 95 % of a right program. Cuts share blocks with their centre, so the "
        f"counts depend on each other; the simulation has that too. The first {BLOCKS_ANEW} blocks of a row "
        "compile anew, and later ones share a program, so the cuts of the first blocks that count stand "
        "apart too.",
        grid(("blocks", "cuts", *KINDS), rows, numbers=frozenset(range(1, 2 + len(KINDS)))),
        *([bullets([*short, *lost])] if short or lost else []),
    ]


def _cells(cuts: Sequence[Family], chance: Counts) -> list[str]:
    if not cuts:
        return [NOTHING] * len(KINDS)
    measured, of = counted(cuts), totals(cuts)
    return [f"{measured[name][0]} of {of[name]} ({_range(chance[name])})" for name in KINDS]


def _range(values: npt.NDArray[np.int64]) -> str:
    """Return the central 95 % of the counts."""
    tail = (1 - CONFIDENCE) / 2
    return f"{quantile(values, tail):.0f}-{quantile(values, 1 - tail):.0f}"


def _table_of(families: Sequence[Family]) -> str:
    rows = []
    for family in families:
        claimed = claims(family, [0.0] * len(family.pairs))
        for one, claim in zip(family.pairs, claimed, strict=True):
            low, high = (100 * (end - 1) for end in ratio_interval(one.difference))
            rows.append(
                (family.run, family.workload, " / ".join(one.pair),
                 f"{one.difference.blocks} and {one.centre_blocks}", f"{100 * math.expm1(one.apart):+.1f} %",
                 f"{low:+.1f} to {high:+.1f} %", f"{100 * one.margin:.1f} %",
                 "yes" if one.holds else "NO", "FALSE ALARM" if claim else "no")
            )  # fmt: skip
    heads = ("run", "workload", "pair", "blocks", "difference", "interval", "margin", "holds 0", "claimed")
    return grid(heads, rows)
