"""What the campaign's runs publish, as its own records: ratios of frameworks, with their intervals."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import msgspec

from bench.analysis.carry_over import Effects, largest_move
from bench.analysis.comparison import Comparison, Standing, Verdict
from bench.analysis.statistics import MARGIN, block_difference
from bench.analysis.summary import Summary, summarise
from bench.errors import RecordError
from bench.records.runs import Run, read_run
from campaign.records import FRAMEWORKS

PAIRS = tuple(combinations(sorted(FRAMEWORKS), 2))
FEWEST_BLOCKS = 3
"""A ratio of fewer blocks is not ranked."""


class RunRatio(msgspec.Struct, frozen=True, kw_only=True):
    """How many times as fast as `second` `first` is in a run, in their default modes."""

    run: str
    workload: str
    first: str
    """A backend, like `second`."""
    second: str
    log: float
    """ln of the ratio."""
    standard_error: float
    """Of `log`."""
    degrees: float
    low: float
    """The run's own 95 % interval of the ratio."""
    high: float
    plain_log: float
    """ln of the ratio of samples over seconds, in the same rounds and with nothing trimmed."""
    margin: float = MARGIN
    """A difference is claimed only if it is proven larger."""

    @property
    def blocks(self) -> int:
        return round(self.degrees) + 1


class RatioBlocks(msgspec.Struct, frozen=True, kw_only=True):
    """A published ratio with the difference of each block behind it."""

    ratio: RunRatio
    differences: Mapping[int, float]
    """By block, ln of the ratio; their mean is the published one."""
    effects: tuple[Mapping[int, Effects], Mapping[int, Effects]]
    """By block, what the order of the turns changed for `first` and for `second`."""

    def margin(self, blocks: Collection[int]) -> float:
        """Return the margin that a run of these blocks alone would have."""
        sides = [{at: side[at] for at in blocks if at in side} for side in self.effects]
        return max(MARGIN, largest_move(*sides) or 0.0)


def read(folder: Path) -> tuple[Run, Summary]:
    """Return a run and what is derived from it; raise RecordError if lines of it cannot be read."""
    run = read_run(folder)
    if run.rejected:
        raise RecordError(f"{folder.name} has lines that cannot be read: {'; '.join(run.rejected)}")
    return run, summarise(run)


def default_ratios(name: str, run: Run, summary: Summary) -> tuple[RunRatio, ...]:
    """Return the ratios that a run publishes of its backends' default modes, each pair once.

    `first` comes before `second` in the alphabet. A workload that was disturbed gives none.
    """
    return tuple(_oriented(name, one) for _, one in _default_comparisons(run, summary))


def lacking(
    name: str,
    run: Run,
    summary: Summary,
    ratios: Sequence[RunRatio],
    workloads: Collection[str] | None = None,
) -> tuple[str, ...]:
    """Return in words which pairs of frameworks a run does not give, or not in enough blocks, and why.

    `workloads` names those that are looked at; None: all.
    """
    found = {(one.workload, one.first, one.second): one for one in ratios}
    disturbed = {one.workload for one in summary.verdicts if one.level == "tuned" and one.disturbed}
    said = []
    for workload in run.header.workloads:
        if workloads is not None and workload.name not in workloads:
            continue
        reasons: dict[str, list[str]] = {}
        for pair in PAIRS:
            one = found.get((workload.name, *pair))
            if one is None:
                why = "disturbed" if workload.name in disturbed else "not compared"
            elif one.blocks < FEWEST_BLOCKS:
                why = f"fewer than {FEWEST_BLOCKS} blocks"
            else:
                continue
            reasons.setdefault(why, []).append(" / ".join(pair))
        said += [f"{name}, {workload.name}: {', '.join(pairs)}: {why}" for why, pairs in reasons.items()]
    return tuple(said)


def default_blocks(name: str, run: Run, summary: Summary) -> tuple[RatioBlocks, ...]:
    """Return the same ratios, with the blocks that count for each of them."""
    rows = {row.cell: row for row in summary.standings}
    return tuple(
        _with_blocks(_oriented(name, one), verdict, rows[one.faster], rows[one.slower])
        for verdict, one in _default_comparisons(run, summary)
    )


def _default_comparisons(run: Run, summary: Summary) -> Iterator[tuple[Verdict, Comparison]]:
    modes = {backend.name: backend.default_mode for backend in run.header.backends}
    for verdict in summary.verdicts:
        for one in verdict.made.backends if verdict.level == "tuned" else ():
            default = all(cell.mode == modes[cell.backend] for cell in (one.faster, one.slower))
            if default and one.kind != "disturbed" and one.faster.backend != one.slower.backend:
                yield verdict, one


def _with_blocks(ratio: RunRatio, verdict: Verdict, one: Standing, other: Standing) -> RatioBlocks:
    first, second = sorted((one, other), key=lambda row: row.cell.backend)
    cells = (first.cell, second.cell)
    left_out = verdict.screening.dropped | {pick.block for pick in verdict.picks if pick.cell in cells}
    shared = sorted((first.rounds.keys() & second.rounds.keys()) - left_out)
    return RatioBlocks(
        ratio=ratio,
        differences={
            block: block_difference(
                first.rounds[block],
                second.rounds[block],
                min(first.latest, second.latest),
                in_turns=block not in first.alone | second.alone,
            )
            for block in shared
        },
        effects=(first.effects, second.effects),
    )


def _oriented(name: str, one: Comparison) -> RunRatio:
    turned = one.faster.backend > one.slower.backend
    first, second = (one.slower, one.faster) if turned else (one.faster, one.slower)
    sign = -1.0 if turned else 1.0
    ends = (1 / one.high, 1 / one.low) if turned else (one.low, one.high)
    return RunRatio(
        run=name,
        workload=one.faster.workload,
        first=first.backend,
        second=second.backend,
        log=sign * math.log(one.ratio),
        standard_error=one.standard_error,
        degrees=one.blocks - 1,
        low=ends[0],
        high=ends[1],
        margin=one.margin,
        plain_log=sign * math.log(one.plain),
    )
