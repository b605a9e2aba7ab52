"""Verdicts: which framework is faster on a workload, how sure that is, and whether all learn the same.

A verdict is made from the rows of one workload, device and precision. Only ranked rows are compared, by their
ratios inside the blocks that both have, and a difference is claimed only where Holm's procedure rejects.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

import msgspec

from bench.specs import Cell, Device, Precision
from bench.statistics import (
    PairedDifference,
    detectable_difference,
    holm,
    p_value,
    paired_difference,
    ratio_interval,
)

TIMES = "\N{MULTIPLICATION SIGN}"
DASH = "\N{EN DASH}"


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What a verdict needs to know of one row."""

    cell: Cell
    ranked: bool
    reference: bool
    """Whether its backend is the reference, of which no verdict speaks."""
    parity_ok: bool | None
    logs: Mapping[int, float]
    """ln(samples/s) by block."""
    epochs: float | None
    """After how many epochs the accuracies were taken; None where no job trained to the end."""
    accuracies: Mapping[int, float]
    """Test accuracy by seed, of the jobs that trained to the end."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two cells of one workload, the one that was faster first."""

    faster: Cell
    slower: Cell
    blocks: int
    """Blocks that both have."""
    ratio: float
    low: float
    high: float
    """The interval at the level `alpha`, which Holm's procedure gave this comparison."""
    p: float
    p_adjusted: float
    alpha: float
    detectable: float
    """The relative difference that would have been found four times in five at this level."""
    differs: bool


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What can be said of one workload on one device in one precision."""

    workload: str
    device: Device
    precision: Precision
    order: tuple[Cell, ...]
    """The ranked cells, the fastest first."""
    winner: Cell | None
    """The cell that is detectably faster than the best cell of every other backend."""
    unranked: tuple[str, ...]
    """Backends of the plan that have no ranked row, so that nothing is said of them."""
    backends: tuple[Comparison, ...]
    """Every pair of the backends' best cells: one family of comparisons."""
    modes: tuple[Comparison, ...]
    """Every pair of modes of one backend: one family a backend."""
    accuracy_spread: float | None
    """Largest less smallest test accuracy of the backends after the same epochs, in percentage points."""
    accuracy_epochs: float | None
    sentences: tuple[str, ...]


def cell_name(cell: Cell, titles: Mapping[str, str]) -> str:
    """Return what a cell is called inside its workload: the backend's title and the mode."""
    return f"{titles.get(cell.backend, cell.backend)} {cell.mode}"


def judge(rows: Sequence[Standing], titles: Mapping[str, str]) -> Verdict:
    """Judge the rows of one workload, device and precision, which come ranked first and the fastest first."""
    ranked = [row.cell for row in rows if row.ranked]
    best_of: dict[str, Cell] = {}
    for cell in ranked:
        best_of.setdefault(cell.backend, cell)
    best = list(best_of.values())
    logs = {row.cell: row.logs for row in rows if row.ranked}
    backends = _compare(list(combinations(best, 2)), logs)
    modes = tuple(
        comparison
        for backend in dict.fromkeys(cell.backend for cell in ranked)
        for comparison in _compare(list(combinations([c for c in ranked if c.backend == backend], 2)), logs)
    )
    wins = Counter(comparison.faster for comparison in backends if comparison.differs)
    winner = next((cell for cell in best if len(best) > 1 and wins[cell] == len(best) - 1), None)
    spread, epochs = _accuracy_spread(rows)
    first = rows[0].cell
    asked = dict.fromkeys(row.cell.backend for row in rows if not row.reference)
    unranked = tuple(name for name in asked if name not in best_of)
    sentences = _sentences(first.workload, best, backends, modes, titles)
    if best and unranked:
        names = _listed([titles.get(name, name) for name in unranked])
        sentences.append(f"Nothing is said of {names} on {first.workload}: no row is ranked.")
    if spread is not None:
        sentences.append(
            f"After {epochs:g} epoch{'' if epochs == 1 else 's'} the frameworks' test accuracy on "
            f"{first.workload} differs by "
            f"{spread:.2f} percentage points at most."
        )
    return Verdict(
        workload=first.workload,
        device=first.device,
        precision=first.precision,
        order=tuple(ranked),
        winner=winner,
        unranked=unranked,
        backends=backends,
        modes=modes,
        accuracy_spread=spread,
        accuracy_epochs=epochs,
        sentences=tuple(sentences),
    )


def _compare(
    pairs: Sequence[tuple[Cell, Cell]], logs: Mapping[Cell, Mapping[int, float]]
) -> tuple[Comparison, ...]:
    """Compare the pairs of one family, the faster side first; a pair needs two blocks that both have."""
    found: list[tuple[Cell, Cell, PairedDifference]] = []
    for first, second in pairs:
        difference = paired_difference(logs[first], logs[second])
        if difference is not None and difference.mean < 0:
            first, second = second, first  # noqa: PLW2901 - the faster side goes first
            difference = msgspec.structs.replace(difference, mean=-difference.mean)
        if difference is not None:
            found.append((first, second, difference))
    p_values = [p_value(difference) for _, _, difference in found]
    comparisons = []
    for (faster, slower, difference), p, step in zip(found, p_values, holm(p_values), strict=True):
        low, high = ratio_interval(difference, step.alpha)
        comparisons.append(
            Comparison(
                faster=faster,
                slower=slower,
                blocks=difference.blocks,
                ratio=difference.ratio,
                low=low,
                high=high,
                p=p,
                p_adjusted=step.p_adjusted,
                alpha=step.alpha,
                detectable=detectable_difference(difference, step.alpha),
                differs=step.rejected,
            )
        )
    return tuple(comparisons)


def _accuracy_spread(rows: Sequence[Standing]) -> tuple[float | None, float | None]:
    """Return the spread of test accuracy between frameworks, in percentage points, and after which epochs.

    Only rows that compute what the reference computes are asked, since the others are known to differ, and
    of their jobs only those of seeds that all of them trained with.
    """
    asked = [row for row in rows if row.epochs is not None and row.parity_ok and not row.reference]
    epochs = max((row.epochs or 0.0 for row in asked), default=0.0)
    equal = [row for row in asked if math.isclose(row.epochs or 0.0, epochs)]
    if len({row.cell.backend for row in equal}) < 2:
        return None, None
    shared = sorted(set.intersection(*(set(row.accuracies) for row in equal)))
    if not shared:
        return None, None
    means = [math.fsum(row.accuracies[seed] for seed in shared) / len(shared) for row in equal]
    return 100 * (max(means) - min(means)), epochs


# ---- sentences


def ratio_text(low: float, high: float) -> str:
    """Return an interval of ratios with the digits it takes to keep its ends apart and off 1."""
    for digits in (2, 3, 4):
        ends = f"{low:.{digits}f}", f"{high:.{digits}f}"
        if "1." + "0" * digits not in ends and ends[0] != ends[1]:
            break
    return f"{ends[0]}{TIMES}" if ends[0] == ends[1] else f"{ends[0]}{DASH}{ends[1]}{TIMES}"


def percent_text(share: float) -> str:
    """Return a share as a percentage of two digits or so: `0.8 %`, `12 %`."""
    percent = 100 * share
    if percent > 1000:
        return "over 1000 %"
    return f"{percent:.0f} %" if percent >= 10 else f"{percent:.1f} %"


def _sentences(
    workload: str,
    best: Sequence[Cell],
    backends: Sequence[Comparison],
    modes: Sequence[Comparison],
    titles: Mapping[str, str],
) -> list[str]:
    if not best:
        return [f"No row is ranked on {workload}, so nothing can be said of its speed."]
    sentences = [_sentence(comparison, titles) for comparison in [*backends, *modes]]
    compared = {frozenset((comparison.faster, comparison.slower)) for comparison in backends}
    for pair in combinations(best, 2):
        if frozenset(pair) not in compared:
            first, second = (cell_name(cell, titles) for cell in pair)
            sentences.append(
                f"{first} and {second} cannot be compared on {workload}: they share fewer than two blocks."
            )
    if len(best) == 1:
        title = titles.get(best[0].backend, best[0].backend)
        sentences.append(f"Only {title} is ranked on {workload}: there is no framework to compare it with.")
    return sentences


def _sentence(comparison: Comparison, titles: Mapping[str, str]) -> str:
    faster, slower = cell_name(comparison.faster, titles), cell_name(comparison.slower, titles)
    workload = comparison.faster.workload
    if comparison.differs:
        times = ratio_text(comparison.low, comparison.high)
        return f"{faster} trains {workload} {times} as fast as {slower} here."
    return (
        f"No detectable difference between {faster} and {slower} on {workload} "
        f"(a difference of {percent_text(comparison.detectable)} would have been seen)."
    )


def answer(
    rows: Sequence[Standing], verdicts: Sequence[Verdict], titles: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the run in a few sentences: who is fastest on each workload, and whether all learn the same."""
    several = len({(verdict.device, verdict.precision) for verdict in verdicts}) > 1
    said = [_fastest(verdict, titles, several=several) for verdict in verdicts]
    spreads = [(v.accuracy_spread, v.workload) for v in verdicts if v.accuracy_spread is not None]
    if spreads:
        spread, name = max(spreads)
        said.append(
            f"After equal epochs the frameworks' test accuracy differs by {spread:.2f} percentage points "
            f"at most ({name})."
        )
    checked = [row for row in rows if row.parity_ok is not None]
    if checked:
        passed = sum(row.parity_ok is True for row in checked)
        said.append(
            f"Of {len(checked)} rows held to the float64 reference, {passed} compute the same "
            "within tolerance."
        )
    return tuple(said) or ("Nothing was measured.",)


def _fastest(verdict: Verdict, titles: Mapping[str, str], *, several: bool) -> str:
    """Return who is fastest on one workload, and by how much over the framework that comes next."""
    where = f"{verdict.workload} ({verdict.device} {verdict.precision})" if several else verdict.workload
    backends = [titles.get(name, name) for name in dict.fromkeys(cell.backend for cell in verdict.order)]
    if verdict.winner:
        beaten = [one for one in verdict.backends if one.faster == verdict.winner]
        next_best = min(beaten, key=lambda one: one.ratio)
        among = " of those ranked" if verdict.unranked else ""
        said = (
            f"{cell_name(verdict.winner, titles)} is fastest{among}, "
            f"{ratio_text(next_best.low, next_best.high)} as fast as {cell_name(next_best.slower, titles)}"
        )
    elif len(backends) > 1:
        said = "no framework is detectably faster than every other"
    elif backends:
        said = f"only {backends[0]} is ranked"
    else:
        return f"{where}: nothing is ranked."
    missing = _listed([titles.get(name, name) for name in verdict.unranked]) if verdict.unranked else ""
    return f"{where}: {said}{f' ({missing} not ranked)' if missing else ''}."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
