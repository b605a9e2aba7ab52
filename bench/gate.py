"""What a comparison side by side says: cell by cell, and of the whole, with one word for a gate.

A cell is judged by its first series as soon as that has enough blocks. What is worse there is a suspect, and
is a regression only if a second series, measured anew and judged by itself, finds it worse again; else it is
told that it did not repeat. A cell passes only where a loss as large as the tolerance is ruled out.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Literal, TypeAlias

import msgspec

from bench.ab_records import Ab, AbBlock, Series
from bench.differences import work_changes
from bench.measures import (
    ACCURACY,
    DEVICE_MEMORY,
    FEWEST_VALUES,
    FINE,
    FIRST_STEP,
    GATED,
    MEMORY,
    SPEED,
    Finding,
    Measure,
    judge,
    judge_difference,
)
from bench.records import JobRecord, Status
from bench.sides import SideName
from bench.specs import Cell
from bench.statistics import block_difference, log_rate, log_throughput, paired_difference
from bench.taint import find_flags, in_quiet_rounds
from bench.verdicts import listed

Standing: TypeAlias = Literal["fine", "regression", "undecided"]
Next: TypeAlias = Literal["block", "confirm"]

FAILURES = 2
"""Blocks in which only head fails after which that is no mishap, but a regression."""
LOST = 3
"""Blocks of a series that may be lost before no more are measured."""
_SIDES: tuple[SideName, SideName] = ("base", "head")
_NO_FAILURE: tuple[Status, ...] = ("ok", "no_steady_state")


class CellGate(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of one cell."""

    cell: Cell
    standing: Standing
    why: str
    first: tuple[Finding, ...]
    second: tuple[Finding, ...]
    """Of the second series, where there is one."""
    suspects: tuple[str, ...]
    """Names of the measures that the first series finds worse."""
    confirmed: tuple[str, ...]
    """Those that the second finds worse too."""
    not_repeated: tuple[str, ...]
    """Those of which it rules a loss as large as the tolerance out."""
    blocks: int
    """That count, of both series, and that were lost: a process failed, or drifted to the end."""
    lost: int
    disturbed: int
    """Blocks during which something else disturbed the machine."""


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of a whole comparison."""

    cells: tuple[CellGate, ...]
    missing: tuple[str, ...]
    """In words, the cells that only base has: nothing is known of them, so nothing passes."""

    @property
    def standing(self) -> Standing:
        """A regression where a cell has one; fine only where there are cells and every one is fine."""
        found = {cell.standing for cell in self.cells}
        if "regression" in found:
            return "regression"
        return "fine" if found == {"fine"} and not self.missing else "undecided"


def judge_all(ab: Ab) -> Gate:
    """Derive what a comparison says."""
    return Gate(
        cells=tuple(judge_cell(ab, cell) for cell in ab.header.cells),
        missing=tuple(f"{name}: {why}" for name, why in ab.header.missing.items() if why == "only in base"),
    )


def judge_cell(ab: Ab, cell: Cell) -> CellGate:
    """Derive what a comparison says of a cell, by all that was measured so far."""
    series: dict[Series, list[AbBlock]] = {
        "first": ab.blocks_of(cell, "first"), "second": ab.blocks_of(cell, "second"),
    }  # fmt: skip
    both = [*series["first"], *series["second"]]
    first, second = (findings(blocks) for blocks in series.values())
    suspects = tuple(found.measure.name for found in first if found.kind == "worse")
    again = {found.measure.name: found.kind for found in second}
    enough = len(_sound(series["second"])) >= ab.header.confirm_blocks
    confirmed = tuple(name for name in suspects if enough and again.get(name) == "worse")
    not_repeated = tuple(name for name in suspects if enough and again.get(name) in FINE)
    standing, why = _certain(ab, cell) or _judged(
        first, series, suspects=suspects, confirmed=confirmed, not_repeated=not_repeated
    )
    work = work_changes(ab.header.base.workloads, ab.header.head.workloads).get(cell.workload)
    if standing == "fine" and work:
        standing, why = "undecided", f"not the same work: {listed([one.in_words() for one in work])}"
    return CellGate(
        cell=cell,
        standing=standing,
        why=why,
        first=first,
        second=second,
        suspects=suspects,
        confirmed=confirmed,
        not_repeated=not_repeated,
        blocks=len(_sound(both)),
        lost=len(both) - len(_sound(both)),
        disturbed=sum(bool(find_flags(block.conditions, None)) for block in both),
    )


def next_step(ab: Ab, cell: Cell) -> Next | None:
    """Return what is still to be measured of a cell, a block of the first or the second series, or None."""
    header = ab.header
    first, second = ab.blocks_of(cell, "first"), ab.blocks_of(cell, "second")
    if _broken(ab, cell) or _failures(first) >= FAILURES:
        return None
    sound = len(_sound(first))
    if len(first) - sound >= LOST:
        return None
    judged = judge_cell(ab, cell)
    if sound < header.first_blocks:
        return "block"
    if judged.suspects:
        told = len(_sound(second))
        if len(second) - told >= LOST or told >= header.most_blocks:
            return None
        settled = judged.confirmed or set(judged.suspects) <= set(judged.not_repeated)
        return None if told >= header.confirm_blocks and settled else "confirm"
    return "block" if judged.standing == "undecided" and sound < header.most_blocks else None


def trains(ab: Ab, cell: Cell, series: Series) -> bool:
    """Say whether the next block of a cell trains for accuracy; the first one shows how long that takes."""
    found = {one.measure.name: one.kind for one in findings(ab.blocks_of(cell, series))}
    kind = found.get(ACCURACY.name, "undecided")
    if series == "first":
        return bool(ab.blocks_of(cell, "first")) and kind == "undecided"
    return ACCURACY.name in judge_cell(ab, cell).suspects and kind == "undecided"


def findings(blocks: Sequence[AbBlock]) -> tuple[Finding, ...]:
    """Judge every measure that both sides have, by the blocks of one series; speed comes first."""
    sound = _sound(blocks)
    found = [_speed(sound)]
    for measure, values in (
        (FIRST_STEP, _values(sound, "first_step_s", anew=True)),
        (MEMORY, _values(sound, "peak_rss_bytes")),
        (DEVICE_MEMORY, _values(sound, "peak_device_bytes")),
        (ACCURACY, _accuracies(sound)),
    ):
        found.append(judge(measure, *values, paired=True))
    return tuple(one for one in found if one is not None)


def _speed(blocks: Sequence[AbBlock]) -> Finding | None:
    """Judge speed by the differences of both sides round by round."""
    logs = {
        block.block: tuple(
            [log_rate(window.samples, window.seconds) for window in in_quiet_rounds(job.windows)]
            for job in (block.base, block.head)
        )
        for block in blocks
    }
    latest = {block.block: block.base.spec.windows for block in blocks}
    difference = paired_difference(
        {number: block_difference(head, base, latest[number]) for number, (base, head) in logs.items()}
    )
    if difference is None or difference.blocks < FEWEST_VALUES:
        return None
    base, head = (
        math.exp(fmean(log_throughput(sides[side], latest[number]) for number, sides in logs.items()))
        for side in (0, 1)
    )
    return judge_difference(SPEED, difference, base, head)


def _values(
    blocks: Sequence[AbBlock], field: str, *, anew: bool = False
) -> tuple[dict[int, float], dict[int, float]]:
    """Return a field of both sides' jobs by block; with `anew`, of those that compiled everything anew."""
    base, head = (
        {
            block.block: float(value)
            for block in blocks
            for job in [block.job(side)]
            if (value := getattr(job, field)) is not None and (job.spec.compiles_anew or not anew)
        }
        for side in _SIDES
    )
    return base, head


def _accuracies(blocks: Sequence[AbBlock]) -> tuple[dict[int, float], dict[int, float]]:
    base, head = (
        {
            job.spec.seed: job.points[-1].test_accuracy
            for block in blocks
            for job in [block.job(side)]
            if job.spec.epochs and job.points
        }
        for side in _SIDES
    )
    return base, head


def _sound(blocks: Sequence[AbBlock]) -> list[AbBlock]:
    """Return the blocks in which both sides did all they were asked, settled, and have times that can be."""
    return [block for block in blocks if all(_did_all(block.job(side)) for side in _SIDES)]


def _did_all(job: JobRecord) -> bool:
    timed = all(window.samples > 0 and 0 < window.seconds < math.inf for window in job.windows)
    return job.status == "ok" and len(job.windows) >= job.spec.windows > 0 and timed


def _failures(blocks: Sequence[AbBlock]) -> int:
    """Return in how many blocks head failed and base did not."""
    return sum(block.head.status not in _NO_FAILURE and block.base.status in _NO_FAILURE for block in blocks)


def _broken(ab: Ab, cell: Cell) -> str | None:
    """Return in words that head computes something else than the reference; None where it does not."""
    for one in ab.parity:
        if one.side == "head" and one.parity.cell == cell and not one.parity.ok:
            off = [check for check in one.parity.checks if not check.ok]
            worst = max(off, key=lambda check: check.error / check.tolerance, default=None)
            if worst is not None:
                return (
                    f"head does not compute what the reference computes: {worst.kind} off by "
                    f"{worst.error:.1e} at {worst.worst}, {worst.tolerance:.0e} is allowed"
                )
            if one.parity.status in ("failed", "nan_loss", "crashed"):
                return f"head cannot be held to the reference: {one.parity.status}: {one.parity.error}"
    return None


def _certain(ab: Ab, cell: Cell) -> tuple[Standing, str] | None:
    """Return what is said of a cell whatever its figures: head is broken, or not known to be whole."""
    if broken := _broken(ab, cell):
        return "regression", broken
    blocks = ab.blocks_of(cell, "first")
    if _failures(blocks) >= FAILURES:
        failed = next(block.head for block in blocks if block.head.status not in _NO_FAILURE)
        return "regression", f"head fails: {failed.status}: {failed.error}"
    if not any(one.side == "head" and one.parity.cell == cell and one.parity.ok for one in ab.parity):
        return "undecided", "head was not held to the reference"
    return None


def _judged(
    first: Sequence[Finding],
    series: Mapping[Series, Sequence[AbBlock]],
    *,
    suspects: Sequence[str],
    confirmed: Sequence[str],
    not_repeated: Sequence[str],
) -> tuple[Standing, str]:
    """Return what the figures say; `first` are the findings of the first series."""
    blocks = series["first"]
    if confirmed:
        return "regression", f"{listed(confirmed)} got worse, in both series"
    kinds = {found.measure.name: found.kind for found in first}
    waiting = [name for name in suspects if name not in not_repeated]
    if waiting:
        but = "the second does not decide" if series["second"] else "is to be measured again"
        return "undecided", f"{listed(waiting)} got worse in the first series, and {but}"
    open_ = [
        measure.name
        for measure in GATED
        if measure.name not in not_repeated
        and kinds.get(measure.name, "undecided" if _has(measure, blocks) else "same") not in FINE
    ]
    if open_:
        lost = len(blocks) - len(_sound(blocks))
        return "undecided", f"{listed(open_)} undecided{f', {lost} blocks were lost' if lost else ''}"
    told = f"; {listed(not_repeated)} seemed worse at first, and did not repeat" if not_repeated else ""
    return "fine", f"nothing got worse{told}"


def _has(measure: Measure, blocks: Sequence[AbBlock]) -> bool:
    """Say whether a cell has that figure at all, as without a GPU it has no GPU memory."""
    return measure is not DEVICE_MEMORY or any(block.base.peak_device_bytes for block in blocks)
