"""Judge a comparison side by side: each cell, and the whole.

A cell is judged by its first series, at a few fixed numbers of blocks (`LOOKS`). A metric that is worse there
is a suspect. It is a regression only if a second series, measured anew and judged by itself, finds it worse
again; otherwise the report states that it did not repeat. A cell passes only if a loss as large as the
tolerance is ruled out.
"""

import contextlib
import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from types import MappingProxyType
from typing import Literal, TypeAlias

import msgspec

from bench.analysis.disturbance import find_flags, in_quiet_rounds
from bench.analysis.statistics import (
    EQUIVALENCE_ALPHA,
    block_difference,
    level_of_looks,
    log_rate,
    log_throughput,
    paired_difference,
)
from bench.gate.changes import work_changes
from bench.gate.metrics import (
    ACCURACY,
    DEVICE_MEMORY,
    FEWEST_VALUES,
    FINE,
    FIRST_STEP,
    GATED,
    MEMORY,
    SPEED,
    Conclusion,
    Finding,
    Metric,
    judge,
    judge_difference,
)
from bench.gate.records import ONLY_IN_HEAD, Ab, AbBlock, Series
from bench.gate.sides import SIDES, SideName
from bench.measuring import design
from bench.records.schema import JobRecord, ParityRecord, Status, fault_in_words
from bench.text import listed
from bench.workloads.specs import Cell

Next: TypeAlias = Literal["block", "confirm"]

LOOKS = (0.0, 0.2, 0.5, 1.0)
"""When a series is judged: shares of the way from the fewest blocks to the most. Judging after every block,
and stopping as soon as a cell passes, would pass a loss of the tolerance too often (docs/regression.md)."""
FAILURES = 2
"""Number of blocks in which only head fails that makes a regression."""
PASSED: Mapping[float, float] = MappingProxyType({0.03: 0.61, 0.05: 0.03})
"""The share of simulated gates that pass a true loss of speed, by the loss, with 6 to 16 blocks that scatter
as those of published equal sides do (docs/trials.md)."""
LOST = 3
"""Number of lost blocks of a series after which no more are measured."""
_NO_FAILURE: tuple[Status, ...] = ("ok", "no_steady_state")


class CellGate(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on one cell."""

    cell: Cell
    conclusion: Conclusion
    why: str
    first: tuple[Finding, ...]
    second: tuple[Finding, ...]
    """Those of the second series, if there is one. Each series is judged by its blocks up to the last
    look, before the first look by all of them."""
    suspects: tuple[str, ...]
    """Names of the metrics that the first series finds worse."""
    confirmed: tuple[str, ...]
    """The suspects that the second series finds worse too."""
    not_repeated: tuple[str, ...]
    """The suspects for which the second series rules out a loss as large as the tolerance."""
    blocks: int
    """Number of sound blocks of both series."""
    lost: int
    """Number of the other blocks, in which a process failed or did not settle."""
    lost_for: str
    """The reason for the last lost block, in words."""
    disturbed: int
    """Number of blocks that something else disturbed, or that a CPU quota held back."""
    throttled: int = 0
    """Number of those that a CPU quota held back."""


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on a whole comparison."""

    cells: tuple[CellGate, ...]
    missing: tuple[str, ...]
    """What only base has or cannot be read, in words. Nothing is known about it, so the comparison does not
    pass."""

    @property
    def conclusion(self) -> Conclusion:
        """A regression if any cell has one; fine only if there are cells and every one is fine."""
        found = {cell.conclusion for cell in self.cells}
        if "regression" in found:
            return "regression"
        return "fine" if found == {"fine"} and not self.missing else "undecided"


def judge_all(ab: Ab) -> Gate:
    """Judge every cell of a comparison."""
    return Gate(
        cells=tuple(judge_cell(ab, cell) for cell in ab.header.cells),
        missing=(
            *(f"{name}: {why}" for name, why in ab.header.missing.items() if why != ONLY_IN_HEAD),
            *(f"a line that cannot be read: {line}" for line in ab.rejected),
        ),
    )


def judge_cell(ab: Ab, cell: Cell) -> CellGate:
    """Derive the verdict on a cell from all that was measured so far."""
    series: dict[Series, list[AbBlock]] = {
        "first": ab.blocks_of(cell, "first"), "second": ab.blocks_of(cell, "second"),
    }  # fmt: skip
    both = [*series["first"], *series["second"]]
    looked, enough = (bool(_last_look(ab, name, blocks)) for name, blocks in series.items())
    wrong = unlike_reference(ab, cell) is not None  # figures of a wrong program would read as a claim
    first, second = (() if wrong else findings(ab, name, blocks) for name, blocks in series.items())
    suspects = tuple(found.metric.name for found in first if looked and found.kind == "worse")
    again = {found.metric.name: found.kind for found in second}
    confirmed = tuple(name for name in suspects if enough and again.get(name) == "worse")
    not_repeated = tuple(name for name in suspects if enough and again.get(name) in FINE)
    conclusion, why = _certain(ab, cell) or _judged(
        first, series, suspects=suspects, confirmed=confirmed, not_repeated=not_repeated
    )
    if conclusion == "fine" and not looked:
        sound = len(_sound(series["first"]))
        conclusion, why = "undecided", f"{sound} of {ab.header.first_blocks} blocks were measured"
    work = work_changes(ab.header.base.workloads, ab.header.head.workloads).get(cell.workload)
    if conclusion == "fine" and work:
        conclusion, why = "undecided", f"not the same work: {listed([one.in_words() for one in work])}"
    flagged = [find_flags(block.conditions, None) for block in both]
    return CellGate(
        cell=cell,
        conclusion=conclusion,
        why=why,
        first=first,
        second=second,
        suspects=suspects,
        confirmed=confirmed,
        not_repeated=not_repeated,
        blocks=len(_sound(both)),
        lost=len(both) - len(_sound(both)),
        lost_for=next((_loss(block) for block in reversed(both) if not is_sound(block)), ""),
        disturbed=sum(bool(flags) for flags in flagged),
        throttled=sum(any(flag.quota for flag in flags) for flags in flagged),
    )


def next_step(ab: Ab, cell: Cell) -> Next | None:
    """Return what is measured next for a cell: a block of the first or the second series, or None."""
    first, second = ab.blocks_of(cell, "first"), ab.blocks_of(cell, "second")
    if _certain(ab, cell) is not None:
        return None  # its figures would not change the verdict
    sound = len(_sound(first))
    if len(first) - sound >= LOST:
        return None
    first_looks, second_looks = looks(ab, "first"), looks(ab, "second")
    if sound not in first_looks:
        return "block" if sound < first_looks[-1] else None
    judged = judge_cell(ab, cell)
    if judged.suspects:
        told = len(_sound(second))
        if len(second) - told >= LOST or told >= second_looks[-1]:
            return None
        settled = judged.confirmed or set(judged.suspects) <= set(judged.not_repeated)
        return None if told in second_looks and settled else "confirm"
    return "block" if judged.conclusion == "undecided" and sound < first_looks[-1] else None


def looks(ab: Ab, series: Series) -> list[int]:
    """Return the counts of sound blocks at which a series is judged."""
    header = ab.header
    fewest = header.first_blocks if series == "first" else header.confirm_blocks
    most = max(fewest, header.most_blocks)
    return sorted({fewest + int((most - fewest) * share) for share in LOOKS})


def left_out_by(ab: Ab, series: Series) -> float:
    """Return the probability that the interval leaves out, at both ends together.

    A loss as large as the tolerance may pass with a probability of `EQUIVALENCE_ALPHA` in all looks together,
    as in the two one-sided tests of `is_equivalent`.
    """
    return 2 * level_of_looks(tuple(looks(ab, series)), EQUIVALENCE_ALPHA)


def _last_look(ab: Ab, series: Series, blocks: Sequence[AbBlock]) -> int:
    """Return the number of sound blocks at the last look at a series; 0 before the first look."""
    sound = len(_sound(blocks))
    return max((look for look in looks(ab, series) if look <= sound), default=0)


def compiles_anew(ab: Ab, cell: Cell, series: Series) -> bool:
    """Whether the next block of a cell compiles everything anew.

    It always does on a GPU, and if the first step is a suspect.
    """
    if series == "second" and FIRST_STEP.name in judge_cell(ab, cell).suspects:
        return True
    sound = _sound(ab.blocks_of(cell, series))
    return design.compiles_anew(cell.device, sum(block.base.spec.compiles_anew for block in sound))


def trains(ab: Ab, cell: Cell, series: Series) -> bool:
    """Whether the next block of a cell trains for accuracy. The first block shows how long that takes."""
    if series == "second":
        return ACCURACY.name in judge_cell(ab, cell).suspects
    blocks = ab.blocks_of(cell, "first")
    if len(_accuracies(_sound(blocks))[0]) < FEWEST_VALUES:
        return bool(blocks)
    found = {one.metric.name: one.kind for one in findings(ab, series, blocks)}
    return bool(_last_look(ab, series, blocks)) and found.get(ACCURACY.name) == "undecided"


def findings(ab: Ab, series: Series, blocks: Sequence[AbBlock]) -> tuple[Finding, ...]:
    """Judge every metric that both sides have, by the blocks of one series; speed comes first."""
    sound = _sound(blocks)
    sound = sound[: _last_look(ab, series, blocks) or len(sound)]
    left_out = left_out_by(ab, series)
    found = [_speed(sound, left_out)]
    for metric, values in (
        (FIRST_STEP, _values(sound, "first_step_s", anew=True)),
        (MEMORY, _values(sound, "peak_rss_bytes")),
        (DEVICE_MEMORY, _values(sound, "peak_device_bytes")),
        (ACCURACY, _accuracies(sound)),
    ):
        with contextlib.suppress(ValueError):  # for an impossible figure, such as memory of 0 bytes
            found.append(judge(metric, *values, paired=True, left_out=left_out))
    return tuple(one for one in found if one is not None)


def _speed(blocks: Sequence[AbBlock], left_out: float) -> Finding | None:
    """Judge speed by the differences of both sides round by round."""
    logs = {
        block.block: tuple(
            [log_rate(window.samples, window.seconds) for window in in_quiet_rounds(job.windows)]
            for job in (block.base, block.head)
        )
        for block in blocks
    }
    latest = {block.block: block.base.spec.windows for block in blocks}
    in_turns = {block.block: block.in_turns for block in blocks}
    difference = paired_difference(
        {
            number: block_difference(head, base, latest[number], in_turns=in_turns[number])
            for number, (base, head) in logs.items()
        }
    )
    if difference is None or difference.blocks < FEWEST_VALUES:
        return None
    base, head = (
        math.exp(fmean(log_throughput(sides[side], latest[number]) for number, sides in logs.items()))
        for side in (0, 1)
    )
    return judge_difference(SPEED, difference, base, head, left_out=left_out)


def _values(
    blocks: Sequence[AbBlock], field: str, *, anew: bool = False
) -> tuple[dict[int, float], dict[int, float]]:
    """Return a field of both sides' jobs by block; with `anew`, only of jobs that compiled anew."""
    base, head = (
        {
            block.block: float(value)
            for block in blocks
            for job in [block.job(side)]
            if (value := getattr(job, field)) is not None and (job.spec.compiles_anew or not anew)
        }
        for side in SIDES
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
        for side in SIDES
    )
    return base, head


def _sound(blocks: Sequence[AbBlock]) -> list[AbBlock]:
    """Return the blocks in which both sides took all windows, settled, and have plausible times."""
    return [block for block in blocks if is_sound(block)]


def is_sound(block: AbBlock) -> bool:
    return all(_did_all(block.job(side)) for side in SIDES)


def _loss(block: AbBlock) -> str:
    """Return the reason in words why a block was lost."""
    side = next(side for side in SIDES if not _did_all(block.job(side)))
    job = block.job(side)
    return (
        f"{side}: {fault_in_words(job.status, job.error)}"
        if job.status != "ok"
        else f"{side}: it lacks times, or has impossible ones"
    )


def _did_all(job: JobRecord) -> bool:
    timed = all(window.samples > 0 and 0 < window.seconds < math.inf for window in job.windows)
    return job.status == "ok" and len(job.windows) >= job.spec.windows > 0 and timed


def _failures(blocks: Sequence[AbBlock]) -> int:
    """Return in how many blocks head failed and base did not."""
    return sum(block.head.status not in _NO_FAILURE and block.base.status in _NO_FAILURE for block in blocks)


def last_parity(ab: Ab, cell: Cell, side: SideName) -> ParityRecord | None:
    """Return the last comparison of a side's cell with the reference; None if there was none."""
    found = [one.parity for one in ab.parity if one.side == side and one.parity.cell == cell]
    return found[-1] if found else None


def _certain(ab: Ab, cell: Cell) -> tuple[Conclusion, str] | None:
    """Return the verdict on a cell that does not depend on its figures; None if the figures decide."""
    if (unlike := unlike_reference(ab, cell)) is not None:
        return unlike
    blocks = ab.blocks_of(cell, "first")
    if _failures(blocks) >= FAILURES:
        failed = next(block.head for block in blocks if block.head.status not in _NO_FAILURE)
        return "regression", f"head fails: {fault_in_words(failed.status, failed.error)}"
    compared = last_parity(ab, cell, "head") is not None
    return None if compared else ("undecided", "head was not compared with the reference")


class _Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How one side of a cell compares with the reference."""

    state: Literal["right", "wrong", "failed", "unknown"]
    """`failed`: it raised or crashed when it was compared; `unknown`: it was not or could not be compared."""
    fault: str = ""
    """What is wrong, in words; empty if nothing is."""
    timed: bool = False
    """Whether the state is also that of the program that was timed."""


def unlike_reference(ab: Ab, cell: Cell) -> tuple[Conclusion, str] | None:
    """Return the verdict on a cell if not both sides agree with the reference; None if both do.

    Head is worse only if base agrees. If both sides fail, as a mode without its compiler does, the machine or
    both sides are at fault. Nothing is claimed about the speed of a side that computes something else.
    """
    base, head = (_standing(ab, cell, side) for side in SIDES)
    if head.state == "right":
        known = base.state != "unknown" or ab.header.parity_of_base
        if base.state == "right" or not known:
            return None
        return (
            "undecided",
            f"base {base.fault}; head agrees with the reference. Their speeds are not compared",
        )
    if last_parity(ab, cell, "head") is None and head.state == "unknown":
        return None  # the comparison was cut short before this cell's turn
    said = f"head {head.fault}"
    if base.state == "right" and head.timed and not base.timed:
        return "undecided", f"{said}; base did not compare the program that it timed"
    if base.state != "right":
        same = "the same for base" if base.fault == head.fault else f"base {base.fault}"
        return "undecided", f"{said}; {same}"
    return ("undecided", said) if head.state == "unknown" else ("regression", f"{said}; base agrees with it")


def _standing(ab: Ab, cell: Cell, side: SideName) -> _Standing:
    """Return how a side of a cell compares with the reference, by its parity and by its timed programs."""
    record = last_parity(ab, cell, side)
    if record is not None and record.lost:
        return _Standing(state="wrong", fault=_fault(record))
    jobs = [block.job(side) for block in ab.blocks if block.cell == cell]
    wrong = next((job for job in jobs if job.status == "not_comparable"), None)
    if wrong is not None:
        return _Standing(state="wrong", fault=f"is not comparable: {wrong.error}", timed=True)
    if record is None:
        return _Standing(state="unknown", fault="was not compared with the reference")
    if record.ok:
        return _Standing(state="right", timed=any(job.proofs for job in jobs))
    raised = record.status in ("failed", "crashed")
    return _Standing(state="failed" if raised else "unknown", fault=_fault(record))


def _fault(record: ParityRecord) -> str:
    """Return in words how a cell differs from the reference, or why it was not compared."""
    off = [check for check in record.checks if not check.ok]
    worst = max(off, key=lambda check: check.error / check.tolerance, default=None)
    if worst is not None:
        return (
            f"does not compute what the reference computes: {worst.kind} off by {worst.error:.1e} at "
            f"{worst.worst}, {worst.tolerance:.0e} is allowed"
        )
    return f"could not be compared with the reference: {fault_in_words(record.status, record.error)}"


def _judged(
    first: Sequence[Finding],
    series: Mapping[Series, Sequence[AbBlock]],
    *,
    suspects: Sequence[str],
    confirmed: Sequence[str],
    not_repeated: Sequence[str],
) -> tuple[Conclusion, str]:
    """Return the verdict of the figures; `first` are the findings of the first series."""
    blocks = series["first"]
    if confirmed:
        return "regression", f"{listed(confirmed)} got worse, in both series"
    kinds = {found.metric.name: found.kind for found in first}
    waiting = [name for name in suspects if name not in not_repeated]
    if waiting:
        but = "the second does not decide" if series["second"] else "is to be measured again"
        return "undecided", f"{listed(waiting)} got worse in the first series, and {but}"
    open_ = [
        metric.name
        for metric in GATED
        if metric.name not in not_repeated
        and kinds.get(metric.name, "undecided" if _has(metric, blocks) else "same") not in FINE
    ]
    if open_:
        lost = len(blocks) - len(_sound(blocks))
        return "undecided", f"{listed(open_)} undecided{f', {lost} blocks were lost' if lost else ''}"
    told = f"; {listed(not_repeated)} seemed worse at first, and did not repeat" if not_repeated else ""
    return "fine", f"nothing got worse{told}"


def _has(metric: Metric, blocks: Sequence[AbBlock]) -> bool:
    """Whether a cell has that figure at all: without a GPU it has no GPU memory."""
    return metric is not DEVICE_MEMORY or any(
        block.job(side).peak_device_bytes is not None for block in blocks for side in SIDES
    )
