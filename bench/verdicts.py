"""Verdicts: which framework is faster on a workload, how sure that is, and what cannot be said.

A verdict is made from the rows of one workload, device and precision. Only ranked rows are compared, by their
differences inside the rounds and blocks that both have, and a difference is claimed only where Holm's
procedure rejects that it is within `MARGIN`.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal, TypeAlias

import msgspec

from bench.specs import Cell, Device, Precision
from bench.statistics import (
    EQUIVALENCE,
    Difference,
    block_differences,
    bootstrap_interval,
    detectable_difference,
    holm,
    is_equivalent,
    p_value,
    paired_difference,
    ratio_interval,
    trimmed_mean,
)
from bench.taint import Screening

TIMES = "\N{MULTIPLICATION SIGN}"
DASH = "\N{EN DASH}"

Kind: TypeAlias = Literal[
    "faster",  # by more than the margin
    "slightly faster",  # so, and by no more than the bound of equivalence
    "equivalent",  # no difference larger than that bound
    "undecided",
    "disturbed",  # too many blocks were, so nothing is claimed
]


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What a verdict needs to know of one row."""

    cell: Cell
    ranked: bool
    reference: bool
    """Whether its backend is the reference, of which no verdict speaks."""
    matched: bool
    """Whether its workload is the same work for all, and so can be ranked."""
    parity_ok: bool | None
    rounds: Mapping[int, Sequence[float]]
    """ln(samples/s) of every round from the first, by block, of all blocks that were timed and settled."""
    latest: int
    """So many rounds of each block count, the latest."""
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
    """The 95 % interval by Student's t."""
    bootstrap_low: float
    bootstrap_high: float
    """The 95 % interval by hierarchical bootstrap, for comparison."""
    p: float
    """Of the test that the ratio is within `MARGIN` of 1."""
    p_adjusted: float
    alpha: float
    """The level that Holm's procedure gave this comparison."""
    detectable: float
    """The relative difference that would have been found four times in five at this level."""
    kind: Kind

    @property
    def differs(self) -> bool:
        """Whether a difference is claimed."""
        return self.kind in ("faster", "slightly faster")


class Comparisons(msgspec.Struct, frozen=True, kw_only=True):
    """Every comparison of a verdict, made of one choice of blocks."""

    backends: tuple[Comparison, ...]
    """Every pair of the backends' best cells: one family of comparisons."""
    modes: tuple[Comparison, ...]
    """Every pair of modes of one backend: one family a backend."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What can be said of one workload on one device in one precision."""

    workload: str
    device: Device
    precision: Precision
    order: tuple[Cell, ...]
    """The ranked cells, the fastest first."""
    winner: Cell | None
    """The cell that is detectably faster than the best cell of every other backend."""
    matched: bool
    """Whether the workload is the same work for all; where not, nothing of it is ranked."""
    disturbed: bool
    """Whether so many blocks were disturbed that nothing is claimed."""
    unranked: tuple[str, ...]
    """Backends of the plan that have no ranked row, so that nothing is said of them."""
    backends: tuple[Comparison, ...]
    """Every pair of the backends' best cells: one family of comparisons."""
    modes: tuple[Comparison, ...]
    """Every pair of modes of one backend: one family a backend."""
    with_dropped: Comparisons | None
    """The same comparisons of all blocks, those that were dropped included; None where none was."""
    accuracy_spread: float | None
    """Largest less smallest test accuracy of the backends after the same epochs, in percentage points."""
    accuracy_epochs: float | None
    sentences: tuple[str, ...]


def cell_name(cell: Cell, titles: Mapping[str, str]) -> str:
    """Return what a cell is called inside its workload: the backend's title and the mode."""
    return f"{titles.get(cell.backend, cell.backend)} {cell.mode}"


def judge(rows: Sequence[Standing], titles: Mapping[str, str], screening: Screening) -> Verdict:
    """Judge the rows of one workload, device and precision, which come ranked first and the fastest first.

    `screening` is that of the workload's blocks.
    """
    ranked = [row for row in rows if row.ranked]
    best_of: dict[str, Cell] = {}
    for row in ranked:
        best_of.setdefault(row.cell.backend, row.cell)
    best = list(best_of.values())
    disturbed = screening.disturbed and bool(ranked)
    made = _compare(ranked, best, screening.dropped, disturbed=disturbed)
    with_dropped = _compare(ranked, best, frozenset(), disturbed=disturbed) if screening.dropped else None
    wins = Counter(comparison.faster for comparison in made.backends if comparison.differs)
    winner = next((cell for cell in best if len(best) > 1 and wins[cell] == len(best) - 1), None)
    spread, epochs = _accuracy_spread(rows)
    first = rows[0]
    asked = dict.fromkeys(row.cell.backend for row in rows if not row.reference)
    unranked = tuple(name for name in asked if name not in best_of)
    if not first.matched:
        sentences = [
            f"{first.cell.workload} is trained with each framework's own defaults, which is not the same "
            "work: its speed is not ranked."
        ]
    elif disturbed:
        sentences = [_disturbed_sentence(first.cell.workload, screening)]
    else:
        sentences = _sentences(first.cell.workload, best, made, titles)
        sentences += _changed_sentences(made, with_dropped, titles)
    if best and unranked:
        names = listed([titles.get(name, name) for name in unranked])
        sentences.append(f"Nothing is said of {names} on {first.cell.workload}: no row is ranked.")
    return Verdict(
        workload=first.cell.workload,
        device=first.cell.device,
        precision=first.cell.precision,
        order=tuple(row.cell for row in ranked),
        winner=winner,
        matched=first.matched,
        disturbed=disturbed,
        unranked=unranked,
        backends=made.backends,
        modes=made.modes,
        with_dropped=with_dropped,
        accuracy_spread=spread,
        accuracy_epochs=epochs,
        sentences=tuple(sentences),
    )


def _compare(
    ranked: Sequence[Standing], best: Sequence[Cell], dropped: frozenset[int], *, disturbed: bool
) -> Comparisons:
    """Compare the backends' best cells, and the modes of each backend, by all blocks but those dropped."""
    families = {
        backend: [row for row in ranked if row.cell.backend == backend]
        for backend in dict.fromkeys(row.cell.backend for row in ranked)
    }
    return Comparisons(
        backends=_compare_family([row for row in ranked if row.cell in best], dropped, disturbed=disturbed),
        modes=tuple(
            comparison
            for rows in families.values()
            for comparison in _compare_family(rows, dropped, disturbed=disturbed)
        ),
    )


def _compare_family(
    rows: Sequence[Standing], dropped: frozenset[int], *, disturbed: bool
) -> tuple[Comparison, ...]:
    """Compare every pair of a family, the faster side first; a pair needs two blocks that both have."""
    found: list[tuple[Cell, Cell, Difference, tuple[float, float]]] = []
    for one, other in combinations(rows, 2):
        shared = sorted((one.rounds.keys() & other.rounds.keys()) - dropped)
        latest = min(one.latest, other.latest)
        by_block = {
            block: block_differences(one.rounds[block], other.rounds[block], latest) for block in shared
        }
        difference = paired_difference({block: trimmed_mean(by_block[block]) for block in shared})
        bootstrap = bootstrap_interval([by_block[block] for block in shared])
        if difference is None or bootstrap is None:
            continue
        first, second, (low, high) = one.cell, other.cell, bootstrap
        if difference.mean < 0:
            first, second, low, high = second, first, 1 / high, 1 / low
            difference = msgspec.structs.replace(difference, mean=-difference.mean)
        found.append((first, second, difference, (low, high)))
    p_values = [p_value(difference) for _, _, difference, _ in found]
    comparisons = []
    for (faster, slower, difference, bootstrap), p, step in zip(found, p_values, holm(p_values), strict=True):
        low, high = ratio_interval(difference)
        comparisons.append(
            Comparison(
                faster=faster,
                slower=slower,
                blocks=difference.blocks,
                ratio=difference.ratio,
                low=low,
                high=high,
                bootstrap_low=bootstrap[0],
                bootstrap_high=bootstrap[1],
                p=p,
                p_adjusted=step.p_adjusted,
                alpha=step.alpha,
                detectable=detectable_difference(difference, step.alpha),
                kind="disturbed" if disturbed else _kind(difference, claimed=step.rejected),
            )
        )
    return tuple(comparisons)


def _kind(difference: Difference, *, claimed: bool) -> Kind:
    equal = is_equivalent(difference)
    if claimed:
        return "slightly faster" if equal else "faster"
    return "equivalent" if equal else "undecided"


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
    workload: str, best: Sequence[Cell], made: Comparisons, titles: Mapping[str, str]
) -> list[str]:
    if not best:
        return [f"No row is ranked on {workload}, so nothing can be said of its speed."]
    sentences = [_sentence(comparison, titles) for comparison in [*made.backends, *made.modes]]
    compared = {frozenset((comparison.faster, comparison.slower)) for comparison in made.backends}
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
    times = ratio_text(comparison.low, comparison.high)
    seen = f"a difference of {percent_text(comparison.detectable)} would have been seen"
    bound = f"{100 * EQUIVALENCE:g} %"
    if comparison.differs:
        but = f", but by no more than {bound}" if comparison.kind == "slightly faster" else ""
        return f"{faster} trains {workload} {times} as fast as {slower} here{but} ({seen})."
    if comparison.kind == "equivalent":
        what = f"No difference larger than {bound}"
    else:
        what = "No detectable difference"
    return f"{what} between {faster} and {slower} on {workload}: {times} ({seen})."


def _disturbed_sentence(workload: str, screening: Screening) -> str:
    kept = screening.blocks - len(screening.dropped)
    if screening.unmeasured.issuperset(screening.staying):
        why = screening.tainted[screening.staying[0]][0]
        return (
            f"Nothing is claimed about {workload}: {why}, so nothing rules out that they disturbed "
            f"{len(screening.staying)} of its {kept} blocks. Run it where /proc/stat can be read."
        )
    why = listed(list(dict.fromkeys(screening.tainted[block][0] for block in screening.staying))[:2])
    return (
        f"Nothing is claimed about {workload}: something else disturbed {len(screening.staying)} of its "
        f"{kept} blocks ({why}). Run it again when the machine is quiet."
    )


def _changed_sentences(
    made: Comparisons, with_dropped: Comparisons | None, titles: Mapping[str, str]
) -> list[str]:
    """Say where the blocks that were dropped change what is claimed."""
    if with_dropped is None:
        return []
    before = {
        frozenset((one.faster, one.slower)): one for one in [*with_dropped.backends, *with_dropped.modes]
    }
    sentences = []
    for one in [*made.backends, *made.modes]:
        other = before.get(frozenset((one.faster, one.slower)))
        if other is not None and _claim(one) != _claim(other):
            names = f"{cell_name(one.faster, titles)} and {cell_name(one.slower, titles)}"
            sentences.append(
                f"What is said of {names} on {one.faster.workload} hangs on the blocks that were dropped. "
                f"With them it would be: {_sentence(other, titles)}"
            )
    return sentences


def _claim(comparison: Comparison) -> tuple[Kind, Cell | None]:
    return comparison.kind, comparison.faster if comparison.differs else None


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
    if not verdict.matched:
        return f"{where}: not ranked, because each framework trains it with its own defaults."
    if verdict.disturbed:
        return f"{where}: nothing is claimed, because the machine was disturbed."
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
    missing = listed([titles.get(name, name) for name in verdict.unranked]) if verdict.unranked else ""
    return f"{where}: {said}{f' ({missing} not ranked)' if missing else ''}."


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence lists them: `a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
