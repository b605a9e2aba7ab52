"""Blocks that something else disturbed: which they are, and which of them are left out of the figures.

The decision uses only what else the machine did, never a rate, so leaving a block out cannot favour a result.
"""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol, TypeVar

import msgspec
import numpy as np

from bench.machine.conditions import Conditions
from bench.records.schema import BlockRecord

MOST_STEAL = 0.10
"""Share of CPU time in a round. A shared machine loses a few percent all the time, and the turns spread them
over all jobs. Larger losses come and go, so those rounds are left out, and others measured in their place."""
FEWEST_QUIET = 0.25
"""Share of a block's rounds that must be quiet. With fewer, all rounds count and the block is disturbed."""
MOST_THROTTLED = 0.01
"""Share of time. A job that has used up its quota stops for tens of milliseconds, about as long as a window
takes, and which job is hit is chance."""
MOST_FOREIGN = 0.10
"""Share of CPU time: a fifth of a core on a machine with two cores, which is more than daemons need."""
MOST_CANARY = 1.25
"""The canary's median divided by that of the run. The same product takes this much longer only if the clock,
the caches or the memory differ from other blocks."""
LARGEST_SHARE_DROPPED = 0.2
"""Share of a workload's blocks. If more are disturbed, that is the normal state of the machine."""

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

    The worst blocks are dropped first, by the largest ratio of a value to its threshold. At most a fifth of a
    workload's blocks is dropped, rounded down, and at least `min_blocks` remain. If a block was run again,
    its last record counts.
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
    most = min(math.floor(LARGEST_SHARE_DROPPED * len(flagged)), max(0, len(flagged) - min_blocks))
    worst = sorted(severities, key=lambda block: (-severities[block], block))
    return Screening(
        blocks=len(flagged),
        tainted={block: tuple(flag.words for flag in flagged[block]) for block in sorted(severities)},
        dropped=frozenset(worst[:most]),
        unmeasured=frozenset(
            block for block, found in flagged.items() if found and not any(flag.measured for flag in found)
        ),
        throttled=frozenset(block for block, found in flagged.items() if any(flag.quota for flag in found)),
    )


class InRound(Protocol):
    """A window that knows how much CPU time its round lost."""

    @property
    def round_steal(self) -> float | None: ...


W = TypeVar("W", bound=InRound)


def is_quiet(round_steal: float | None) -> bool:
    """Say whether a round counts, by the share of CPU time that the hypervisor gave to others in it."""
    return round_steal is None or round_steal <= MOST_STEAL


def in_quiet_rounds(windows: Sequence[W]) -> list[W]:
    """Return the windows of quiet rounds, or all windows if too few rounds are quiet.

    In the second case the block counts as disturbed. All jobs of a block share the rounds, so the same
    windows of each are left out, whatever their rates.
    """
    quiet = [window for window in windows if is_quiet(window.round_steal)]
    return quiet if len(quiet) >= FEWEST_QUIET * len(windows) else list(windows)


def run_canary(blocks: Sequence[BlockRecord]) -> float | None:
    """Return the median over blocks of the canary's median in each, in seconds; None without a canary."""
    medians = [float(np.median(one.conditions.canary_s)) for one in blocks if one.conditions.canary_s]
    return float(np.median(medians)) if medians else None


def find_flags(conditions: Conditions, run_canary_s: float | None) -> tuple[Flag, ...]:
    """Return what disturbed a block, each with its value, its threshold and how bad it is.

    `run_canary_s` is the value of `run_canary` for the run. If the system does not tell how much CPU time
    other programs used, that is a flag as well: they may have used any amount, so nothing can be claimed.
    """
    found = _steal_flags(conditions)
    throttled, foreign = conditions.throttled_share, conditions.foreign_share
    if throttled is not None and throttled > MOST_THROTTLED:
        words = f"the quota of CPU time held the jobs back {_percent(throttled)} of the time"
        found.append(_too_much(words, throttled, MOST_THROTTLED, quota=True))
    if foreign is not None and foreign > MOST_FOREIGN:
        found.append(_too_much(f"other programs used {_percent(foreign)} of CPU time", foreign, MOST_FOREIGN))
    if foreign is None:
        found.append(Flag(words=_UNKNOWN_FOREIGN, severity=_LEAST, measured=False))
    if conditions.canary_s and run_canary_s:
        ratio = float(np.median(conditions.canary_s)) / run_canary_s
        if ratio > MOST_CANARY:
            words = (
                f"the canary took {ratio:.2f} times as long as in the run, more than {MOST_CANARY:g} times"
            )
            found.append(Flag(words=words, severity=ratio / MOST_CANARY))
    return (*found, *_gpu_flags(conditions))


def _too_much(words: str, share: float, most: float, *, quota: bool = False) -> Flag:
    return Flag(words=f"{words}, more than {_percent(most)}", severity=share / most, quota=quota)


def _steal_flags(conditions: Conditions) -> list[Flag]:
    rounds = len(conditions.round_steal)
    loud = sum(not is_quiet(share) for share in conditions.round_steal)
    if rounds - loud >= FEWEST_QUIET * rounds:
        return []
    words = (
        f"the hypervisor gave more than {_percent(MOST_STEAL)} of CPU time to others "
        f"in {loud} of {rounds} rounds"
    )
    return [Flag(words=words, severity=FEWEST_QUIET * rounds / max(1, rounds - loud))]


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
