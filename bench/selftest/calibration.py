"""How good the measuring is: rates of false alarms, detection and coverage, from a self-test's windows.

A comparison pairs two sides whose true difference is known. Every decision rule, ours and those of other
tools, judges every comparison, on the same windows.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Literal, TypeAlias

import msgspec

from bench.analysis.disturbance import in_quiet_rounds
from bench.analysis.statistics import (
    ALPHA,
    PairJudgement,
    block_difference,
    exact_interval,
    judge_pair,
    log_rate,
    log_throughput,
    success_interval,
)
from bench.selftest import other_tools
from bench.selftest.other_tools import Processes
from bench.selftest.records import SIDES, TRIALS, SelfTest, SelfTestBlock, SideRecord
from bench.workloads.specs import Cell

FEWEST_BLOCKS = 3
"""A trial with fewer usable blocks is not judged, because an interval needs them."""
INJECTED = tuple(side.injected for side in SIDES if side.injected)
"""The slowdowns, the smallest first."""
MUST_FIND = {0.05: 0.9, 0.10: 0.99}
"""The required share of trials in which a slowdown is found, by the slowdown."""
COVERAGE = (0.90, 0.98)
"""The share of correct 95 % intervals that contain the truth lies between these."""
FEWEST_FOR_FINDING = 10
"""The requirements on detection hold from so many blocks on. With fewer, missing a slowdown is not a
fault."""
FAMILY = 3
"""Pairs of the frameworks of a run, which are one family of comparisons."""

SelfTestStatus: TypeAlias = Literal["held", "failed", "unmeasured"]


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """How often something happened."""

    hits: int
    of: int

    @property
    def share(self) -> float:
        return self.hits / self.of if self.of else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the true share."""
        return success_interval(self.hits, self.of) if self.of else (0.0, 1.0)


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison of two sides of a group, over the blocks in which both took all their windows."""

    group: int
    cell: Cell
    head_side: str
    injected: float
    """Share by which `head` was made slower; 0 if both sides are the same."""
    base: tuple[tuple[float, ...], ...]
    """Seconds a sample, by block and by round; `head` has those of the same rounds."""
    head: tuple[tuple[float, ...], ...]


class Judge(msgspec.Struct, frozen=True, kw_only=True):
    """A decision rule and its name."""

    name: str
    slower: other_tools.Rule
    judge: Callable[[Processes, Processes], PairJudgement] | None = None
    """The rule with an interval, if it has one; the ratio is seconds of head to seconds of base."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """The results of one rule."""

    name: str
    false_alarms: Rate
    """Trials of equal sides in which one was called slower than the other."""
    found: dict[float, Rate]
    """Trials in which the slowed side was called slower, by the injected slowdown."""
    coverage: Rate | None
    """Intervals that contain the truth; None for a rule without intervals."""
    half_width: float | None
    """Half the width of the intervals, relative, median over trials: 0.012 for 1.2 %."""


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """A trial and the verdict of our rule."""

    trial: Trial
    judgement: PairJudgement

    @property
    def covered(self) -> bool:
        """Whether the 95 % interval contains the truth."""
        return _covers(self.judgement, self.trial)


class Criterion(msgspec.Struct, frozen=True, kw_only=True):
    """A requirement on our rule."""

    demand: str
    found: str
    held: bool | None
    """Whether the measured rate meets it; None if the rate does not, but too little was measured to tell that
    the true one does not either."""


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """All that is derived from a self-test; the first row is our own rule."""

    rows: tuple[Row, ...]
    judged: tuple[Judged, ...]
    criteria: tuple[Criterion, ...]
    lost: tuple[str, ...]
    """Trials that could not be judged, or that lack a block, in words."""
    total_s: float
    trial_s: float
    """Time of a trial: the share of two sides in the time of their group's blocks."""

    @property
    def status(self) -> SelfTestStatus:
        """Whether all requirements were held, one failed, or too little was measured."""
        if any(criterion.held is False for criterion in self.criteria):
            return "failed"
        return "unmeasured" if any(criterion.held is None for criterion in self.criteria) else "held"


def paired_by_round(base: Processes, head: Processes) -> PairJudgement:
    """Judge as a run does: differences round by round, their trimmed mean by block, a test over blocks."""
    return _judge(
        block_difference(_logs(first), _logs(second), len(first))
        for first, second in zip(base, head, strict=True)
    )


def in_a_family(base: Processes, head: Processes) -> bool:
    """Say whether head is slower by the first step of Holm's procedure over the pairs of a run.

    The smallest p value of a family of m is tested at a level of 1/m of the family's.
    """
    judged = paired_by_round(base, head)
    return judged.p <= ALPHA / FAMILY and judged.ratio > 1


def unpaired_by_round(base: Processes, head: Processes) -> PairJudgement:
    """Judge the differences of the processes' figures by the same test, without pairing windows."""
    return _judge(
        log_throughput(_logs(first), len(first)) - log_throughput(_logs(second), len(second))
        for first, second in zip(base, head, strict=True)
    )


def _judge(differences: Iterable[float]) -> PairJudgement:
    judged = judge_pair(dict(enumerate(differences)))
    if judged is None:
        raise ValueError("a pair is judged by two blocks at least")
    return judged


def _logs(seconds: Sequence[float]) -> list[float]:
    """Return ln(samples/s) of windows from their seconds a sample."""
    return [log_rate(1, value) for value in seconds]


def _slower(judge: Callable[[Processes, Processes], PairJudgement]) -> other_tools.Rule:
    def slower(base: Processes, head: Processes) -> bool:
        judged = judge(base, head)
        return judged.claimed and judged.ratio > 1

    return slower


JUDGES = (
    Judge(name="bench, paired by round", slower=_slower(paired_by_round), judge=paired_by_round),
    Judge(name="the same, as the first of three pairs", slower=in_a_family),
    Judge(name="the same, not paired by round", slower=_slower(unpaired_by_round), judge=unpaired_by_round),
    Judge(name="pytest-benchmark mean:5%", slower=other_tools.pytest_benchmark),
    Judge(name="asv factor 1.1 and U test", slower=other_tools.asv),
    Judge(name="pyperf t test", slower=other_tools.pyperf),
    Judge(name="google/benchmark U test", slower=other_tools.google_benchmark),
)
"""Our rule first, then those of other tools."""


def calibrate(test: SelfTest) -> Calibration:
    """Judge every trial of a self-test by every rule."""
    trials, lost = find_trials(test)
    rows = tuple(judged_by(judge, trials) for judge in JUDGES)
    judged = tuple(Judged(trial=trial, judgement=paired_by_round(trial.base, trial.head)) for trial in trials)
    total_s = sum(block.wall_s for block in test.blocks)
    groups = len({block.group for block in test.blocks})
    return Calibration(
        rows=rows,
        judged=judged,
        criteria=_criteria(rows[0], test, len(trials)),
        lost=lost,
        total_s=total_s,
        trial_s=total_s / groups * 2 / len(SIDES) if groups else 0.0,
    )


def find_trials(test: SelfTest) -> tuple[tuple[Trial, ...], tuple[str, ...]]:
    """Return the trials that can be judged, and in words those that cannot or that lack a block."""
    by_group: dict[int, dict[int, SelfTestBlock]] = {}
    for block in test.blocks:
        by_group.setdefault(block.group, {})[block.block] = block
    trials: list[Trial] = []
    lost: list[str] = []
    for group, cell in enumerate(test.header.groups):
        blocks = [block for _, block in sorted(by_group.get(group, {}).items())]
        if not blocks:
            lost.append(f"group {group + 1} ({cell}): not measured")
            continue
        for base, head in TRIALS:
            pairs = [pair for block in blocks if (pair := _pair(block, base, head, test.header.windows))]
            name = f"group {group + 1} ({cell}), {base} and {head}"
            if len(pairs) < FEWEST_BLOCKS:
                lost.append(f"{name}: not judged, {len(pairs)} of {test.header.blocks} blocks can be used")
                continue
            if len(pairs) < test.header.blocks:
                lost.append(f"{name}: judged by {len(pairs)} of {test.header.blocks} blocks")
            injected = next(side.injected for side in SIDES if side.name == head)
            trials.append(
                Trial(
                    group=group,
                    cell=cell,
                    head_side=head,
                    injected=injected or 0.0,
                    base=tuple(pair[0] for pair in pairs),
                    head=tuple(pair[1] for pair in pairs),
                )
            )
    return tuple(trials), tuple(lost)


def _pair(
    block: SelfTestBlock, base: str, head: str, windows: int
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return the seconds a sample of both sides in the latest rounds of both; None if one failed."""
    sides = {side.side: side for side in block.sides if side.status == "ok"}
    if base not in sides or head not in sides:
        return None
    found = [_costs(sides[side])[-windows:] for side in (base, head)]
    if not block.in_turns:  # each side has its own rounds, and may have lost more of them than the other
        shared = min(map(len, found))
        found = [costs[len(costs) - shared :] for costs in found]
    return (found[0], found[1]) if found[0] and len(found[0]) == len(found[1]) else None


def _costs(side: SideRecord) -> tuple[float, ...]:
    return tuple(window.seconds / window.samples for window in in_quiet_rounds(side.windows))


def judged_by(judge: Judge, trials: Sequence[Trial]) -> Row:
    """Return how often a rule was right about these comparisons."""
    equal = [trial for trial in trials if not trial.injected]
    alarms = sum(
        judge.slower(trial.base, trial.head) or judge.slower(trial.head, trial.base) for trial in equal
    )
    found = {}
    for injected in INJECTED:
        slowed = [trial for trial in trials if trial.injected == injected]
        hits = sum(judge.slower(trial.base, trial.head) for trial in slowed)
        found[injected] = Rate(hits=hits, of=len(slowed))
    coverage = half_width = None
    if judge.judge is not None and trials:
        judged = [judge.judge(trial.base, trial.head) for trial in trials]
        covered = sum(_covers(one, trial) for one, trial in zip(judged, trials, strict=True))
        coverage = Rate(hits=covered, of=len(trials))
        half_width = median((one.high - one.low) / (2 * one.ratio) for one in judged)
    return Row(
        name=judge.name,
        false_alarms=Rate(hits=alarms, of=len(equal)),
        found=found,
        coverage=coverage,
        half_width=half_width,
    )


def _covers(judgement: PairJudgement, trial: Trial) -> bool:
    return judgement.low <= 1 + trial.injected <= judgement.high


def _criteria(row: Row, test: SelfTest, trials: int) -> tuple[Criterion, ...]:
    """Compare the rates of our rule with the requirements."""
    planned = len(test.header.groups) * len(TRIALS)
    enough = test.header.blocks >= FEWEST_FOR_FINDING
    demands = [
        _demand(f"false alarms in at most {100 * ALPHA:.0f} % of comparisons", row.false_alarms, 0.0, ALPHA),
        *(
            _demand(
                f"{100 * injected:.0f} % found in at least {100 * least:.0f} % of comparisons",
                row.found[injected],
                least,
                1.0,
                judged=enough,
            )
            for injected, least in MUST_FIND.items()
        ),
    ]
    if row.coverage is not None:
        low, high = COVERAGE
        demand = f"{100 * low:.0f} to {100 * high:.0f} % of the 95 % intervals hold the truth"
        demands.append(_demand(demand, row.coverage, low, high))
    demands.append(
        Criterion(
            demand="every comparison judged", found=f"{trials} of {planned}", held=trials == planned or None
        )
    )
    return tuple(demands)


def _demand(demand: str, rate: Rate, low: float, high: float, *, judged: bool = True) -> Criterion:
    """Require that the true share lies between `low` and `high`.

    It fails only if the whole exact interval lies outside: few comparisons of a right program often give a
    share that does.
    """
    held = None
    if rate.of and judged:
        least, most = exact_interval(rate.hits, rate.of)
        held = True if low <= rate.share <= high else False if most < low or least > high else None
    return Criterion(demand=demand, found=f"{rate.hits} of {rate.of}", held=held)
