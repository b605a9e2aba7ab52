"""Rounds and blocks that something else disturbed: which they are, and which are left out of the figures.

The decision uses only what else the machine did, never a rate, so leaving something out cannot favour a
result.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol, TypeVar

import msgspec
import numpy as np

from bench.machine.conditions import Conditions, Taken
from bench.records.schema import BlockRecord

MOST_STEAL = 0.10
"""Share of CPU time in a round. A shared machine loses a few percent all the time, and the turns spread them
over all jobs. Larger losses come and go, so those rounds are left out, and others measured in their place."""
MOST_FOREIGN = 0.10
"""Share of CPU time in a round, beyond the error of the reading. A tenth is a fifth of a core on a machine
with two cores, which is more than daemons need. On a machine with more than five it is half a core, as the
share is then one of the time of five. Older records have only the share of the whole block."""
FEWEST_QUIET = 0.25
"""Share of a block's rounds that must be quiet. With fewer, all rounds count and the block is disturbed."""
MOST_THROTTLED = 0.01
"""Share of time. A job that has used up its quota stops for tens of milliseconds, about as long as a window
takes, and which job is hit is chance. No round is left out for it: the jobs themselves use up the quota, so
the rounds that are left would favour the job that uses up more."""
MOST_CANARY = 1.25
"""The canary's median divided by that of the run. The same product takes this much longer only if the clock,
the caches or the memory differ from other blocks."""
LARGEST_SHARE_DROPPED = 0.2
"""Share of a workload's blocks. If more are disturbed, that is the normal state of the machine."""
LARGEST_SHARE_LOST = 0.5
"""The same for blocks that lack quiet rounds. They are replaced, so more of them can be dropped."""

SLOWDOWNS: Mapping[str, str] = MappingProxyType(
    {
        "sw_power_cap": "its power limit",
        "hw_slowdown": "a slowdown of the hardware",
        "sw_thermal_slowdown": "heat, by the driver",
        "hw_thermal_slowdown": "heat, by the hardware",
        "hw_power_brake_slowdown": "the power supply's brake",
    }
)
"""Reasons for which a GPU lowers its clocks under load, with their names in reports. Idling is not one."""

_UNMEASURED = 2.0
"""Severity of a yes-or-no check that fails: like a value of twice its threshold."""
_LEAST = 1.0
"""Severity of a check without a value: a block that was certainly disturbed is dropped first."""
_UNKNOWN_FOREIGN = "this system does not tell how much CPU time other programs used"


class Flag(msgspec.Struct, frozen=True, kw_only=True):
    """Something that disturbed a block."""

    words: str
    """What happened, with the value and the threshold."""
    severity: float
    """The value divided by its threshold."""
    measured: bool = True
    """Whether there is a value. False if the system gave none, so that nothing can be ruled out."""
    quota: bool = False
    """Whether it is the run's own CPU quota. A quieter machine would not change that."""
    lost: bool = False
    """Whether too few rounds were quiet. A run replaces such a block."""


class Screening(msgspec.Struct, frozen=True, kw_only=True):
    """The blocks of one workload that were disturbed, and which of them are dropped."""

    blocks: int
    """Number of all blocks."""
    tainted: Mapping[int, tuple[str, ...]]
    """The disturbed blocks by number, each with the reasons in words."""
    dropped: frozenset[int]
    """The disturbed blocks that no figure uses."""
    unmeasured: frozenset[int] = frozenset()
    """Blocks that may have been disturbed: a check had no value."""
    throttled: frozenset[int] = frozenset()
    """Blocks that the CPU quota held back."""
    lost: frozenset[int] = frozenset()
    """Blocks with too few quiet rounds, dropped or not; a run replaces them."""

    @property
    def staying(self) -> tuple[int, ...]:
        """The disturbed blocks that are not dropped."""
        return tuple(block for block in sorted(self.tainted) if block not in self.dropped)

    @property
    def disturbed(self) -> bool:
        """Whether more than half of the blocks that are kept were, or may have been, disturbed.

        Then nothing is claimed.
        """
        return 2 * len(self.staying) > self.blocks - len(self.dropped)


UNDISTURBED = Screening(blocks=0, tainted=MappingProxyType({}), dropped=frozenset())
"""For a workload without a record of any block."""


def dropped_blocks(blocks: Sequence[BlockRecord], min_blocks: int) -> dict[str, Screening]:
    """Screen the blocks of a run, workload by workload.

    Blocks that lack quiet rounds are dropped first, at most half of a workload's blocks. Then the worst of
    the others follow, by the largest ratio of a value to its threshold, until a fifth of the blocks is
    dropped, rounded down. At least `min_blocks` remain. If a block was run again, its last record counts.
    """
    latest = {
        (one.workload, one.block): one for one in sorted(blocks, key=lambda one: (one.started_at, one.block))
    }
    usual = run_canary(list(latest.values()))
    found: dict[str, dict[int, tuple[Flag, ...]]] = {}
    for (workload, block), one in latest.items():
        found.setdefault(workload, {})[block] = find_flags(one.conditions, usual)
    return {workload: _screen(flagged, min_blocks) for workload, flagged in found.items()}


def _screen(flagged: Mapping[int, tuple[Flag, ...]], min_blocks: int) -> Screening:
    severities = {block: max(flag.severity for flag in found) for block, found in flagged.items() if found}
    lost = frozenset(block for block, found in flagged.items() if any(flag.lost for flag in found))
    worst = sorted(severities, key=lambda block: (-severities[block], block))
    return Screening(
        blocks=len(flagged),
        tainted={block: tuple(flag.words for flag in flagged[block]) for block in sorted(severities)},
        dropped=_dropped(worst, lost, blocks=len(flagged), min_blocks=min_blocks),
        unmeasured=frozenset(
            block for block, found in flagged.items() if found and not any(flag.measured for flag in found)
        ),
        throttled=frozenset(block for block, found in flagged.items() if any(flag.quota for flag in found)),
        lost=lost,
    )


def _dropped(worst: Sequence[int], lost: Collection[int], *, blocks: int, min_blocks: int) -> frozenset[int]:
    """Return which of the disturbed blocks, the worst first, are dropped."""
    spare = max(0, blocks - min_blocks)
    first = [block for block in worst if block in lost][: min(math.floor(LARGEST_SHARE_LOST * blocks), spare)]
    most = max(len(first), min(math.floor(LARGEST_SHARE_DROPPED * blocks), spare))
    others = [block for block in worst if block not in first]
    return frozenset([*first, *others][:most])


class InRound(Protocol):
    """A window that knows how much CPU time its round lost."""

    @property
    def round_steal(self) -> float | None: ...

    @property
    def round_foreign(self) -> float | None: ...


W = TypeVar("W", bound=InRound)


def is_quiet(taken: Taken) -> bool:
    """Say whether a round counts, by the shares of CPU time that others took in it.

    A share that is unknown rules nothing out here; the block is flagged for it.
    """
    return (taken.steal or 0.0) <= MOST_STEAL and (taken.foreign or 0.0) <= MOST_FOREIGN


def in_quiet_rounds(windows: Sequence[W]) -> list[W]:
    """Return the windows of quiet rounds, or all windows if too few rounds are quiet.

    In the second case the block counts as disturbed. All jobs of a block share the rounds, so the same
    windows of each are left out, whatever their rates.
    """
    quiet = [one for one in windows if is_quiet(Taken(steal=one.round_steal, foreign=one.round_foreign))]
    return quiet if _enough(len(quiet), len(windows)) else list(windows)


def _enough(quiet: int, rounds: int) -> bool:
    return quiet >= FEWEST_QUIET * rounds


def _kept(conditions: Conditions) -> list[int]:
    """Return the rounds that count: the quiet ones, or all if too few are quiet."""
    quiet = [number for number, taken in enumerate(conditions.taken) if is_quiet(taken)]
    rounds = len(conditions.taken)
    return quiet if _enough(len(quiet), rounds) else list(range(rounds))


def run_canary(blocks: Sequence[BlockRecord]) -> float | None:
    """Return the median over blocks of the canary's median in each, in seconds; None without a canary."""
    medians = [canary for one in blocks if (canary := _canary(one.conditions)) is not None]
    return float(np.median(medians)) if medians else None


def _canary(conditions: Conditions) -> float | None:
    """Return the median of the canaries before the rounds that count; None without a canary.

    It is the median of all canaries where the record does not tell what others used in each round, and where
    the jobs did not take turns: there a canary cannot be assigned to a round.
    """
    canary_s, kept = conditions.canary_s, _kept(conditions)
    if conditions.round_foreign and kept and len(canary_s) == len(conditions.taken) + 1:
        canary_s = tuple(canary_s[number] for number in kept)
    return float(np.median(canary_s)) if canary_s else None


def find_flags(conditions: Conditions, run_canary_s: float | None) -> tuple[Flag, ...]:
    """Return what disturbed a block, each with its value, its threshold and how bad it is.

    `run_canary_s` is the value of `run_canary` for the run. Only the rounds that count are judged, and
    whether there are enough of them. If the system does not tell how much CPU time other programs used, that
    is a flag as well: they may have used any amount, so nothing can be claimed.
    """
    found = _round_flags(conditions)
    throttled = conditions.throttled_share
    if throttled is not None and throttled > MOST_THROTTLED:
        words = f"the quota of CPU time held the jobs back {_percent(throttled)} of the time"
        found.append(_too_much(words, throttled, MOST_THROTTLED, quota=True))
    found += _foreign_flags(conditions)
    canary_s = _canary(conditions)
    if canary_s is not None and run_canary_s:
        ratio = canary_s / run_canary_s
        if ratio > MOST_CANARY:
            words = (
                f"the canary took {ratio:.2f} times as long as in the run, more than {MOST_CANARY:g} times"
            )
            found.append(Flag(words=words, severity=ratio / MOST_CANARY))
    return (*found, *_gpu_flags(conditions))


def _too_much(words: str, share: float, most: float, *, quota: bool = False) -> Flag:
    return Flag(words=f"{words}, more than {_percent(most)}", severity=share / most, quota=quota)


def _round_flags(conditions: Conditions) -> list[Flag]:
    """Return the flag of a block with too few quiet rounds, which names who took the time."""
    rounds = len(conditions.taken)
    loud = [taken for taken in conditions.taken if not is_quiet(taken)]
    if _enough(rounds - len(loud), rounds):
        return []
    who = []
    if any((taken.steal or 0.0) > MOST_STEAL for taken in loud):
        who.append(f"the hypervisor gave more than {_percent(MOST_STEAL)} of CPU time to others")
    if any((taken.foreign or 0.0) > MOST_FOREIGN for taken in loud):
        most = f"{_percent(MOST_FOREIGN)} of CPU time, or half a core,"
        who.append(f"other programs used more than {most}")
    words = f"{' or '.join(who)} in {len(loud)} of {rounds} rounds"
    severity = FEWEST_QUIET * rounds / max(1, rounds - len(loud))
    return [Flag(words=words, severity=severity, lost=bool(conditions.round_foreign))]


def _foreign_flags(conditions: Conditions) -> list[Flag]:
    """Return a flag if what other programs used is unknown, or too much in a record without rounds."""
    foreign = conditions.foreign_share
    if conditions.round_foreign:
        known = all(conditions.taken[number].foreign is not None for number in _kept(conditions))
    else:
        known = foreign is not None
    if not known:
        return [Flag(words=_UNKNOWN_FOREIGN, severity=_LEAST, measured=False)]
    if conditions.round_foreign or foreign is None or foreign <= MOST_FOREIGN:
        return []
    return [_too_much(f"other programs used {_percent(foreign)} of CPU time", foreign, MOST_FOREIGN)]


def _gpu_flags(conditions: Conditions) -> list[Flag]:
    readings = [one for one in (conditions.gpu_before, conditions.gpu_after) if one is not None]
    events = sorted({event for one in readings for event in one.clock_events} & SLOWDOWNS.keys())
    found = [
        Flag(words=f"the GPU lowered its clocks: {SLOWDOWNS[name]}", severity=_UNMEASURED) for name in events
    ]
    foreign = max((one.foreign_processes or 0 for one in readings), default=0)
    if foreign:
        others = "one process that was" if foreign == 1 else f"{foreign} processes that were"
        found.append(Flag(words=f"{others} not of this run used the GPU", severity=_UNMEASURED * foreign))
    return found


def _percent(share: float) -> str:
    """Return a share with enough digits to tell it from its threshold: `41 %`, `1.4 %`."""
    return f"{100 * share:.1f}".removesuffix(".0") + " %"
