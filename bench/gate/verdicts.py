"""Compare the verdicts of two runs of one machine: whether the second run confirms the first."""

from collections.abc import Mapping, Sequence

import msgspec

from bench.analysis.comparison import KIND_WORDS, Comparison
from bench.analysis.summary import Summary
from bench.records.runs import Run
from bench.report.blocks import Block, Heading, Paragraph, Table, bullets
from bench.report.format import DASH, NOTHING, TIMES, cell_name
from bench.workloads.specs import Cell

TITLE = "Do two runs agree?"

CLAIMS = ("faster", "slightly faster", "equivalent")
"""Kinds of comparison that make a claim."""


class Pairing(msgspec.Struct, frozen=True, kw_only=True):
    """The comparison of two cells in both runs; None if a run did not compare them."""

    first: Cell
    second: Cell
    one: Comparison | None
    other: Comparison | None

    @property
    def both_claim(self) -> bool:
        """Whether both runs make a claim, so that they can agree."""
        return all(found is not None and found.kind in CLAIMS for found in (self.one, self.other))

    @property
    def agree(self) -> bool | None:
        """Whether both claims can be true at once; None if not both runs make one.

        "Faster by no more than 2 %" and "no difference larger than 2 %" can both be true.
        """
        if self.one is None or self.other is None or not self.both_claim:
            return None
        kinds = {self.one.kind, self.other.kind}
        if "equivalent" in kinds:
            return "faster" not in kinds
        return self.one.faster == self.other.faster


def pair_verdicts(one: Summary, other: Summary) -> tuple[Pairing, ...]:
    """Return every pair of cells that either run compares, in the order of the first run's verdicts."""
    first, second = _comparisons(one), _comparisons(other)
    found = []
    for pair in dict.fromkeys([*first, *second]):
        comparison = first.get(pair) or second[pair]
        found.append(
            Pairing(
                first=comparison.faster,
                second=comparison.slower,
                one=first.get(pair),
                other=second.get(pair),
            )
        )
    return tuple(found)


def _comparisons(summary: Summary) -> Mapping[frozenset[Cell], Comparison]:
    return {
        frozenset((comparison.faster, comparison.slower)): comparison
        for verdict in summary.verdicts
        for comparison in (*verdict.made.backends, *verdict.made.modes, *verdict.made.tuning)
    }


def blocks(runs: Sequence[Run], pairings: Sequence[Pairing], titles: Mapping[str, str]) -> list[Block]:
    """Return the report on the verdicts of two runs; `titles` are the backends' titles by name."""
    return [
        Heading(text=TITLE, level=1),
        bullets(
            f"{place} run: {run.header.run_id}, begun {run.header.created_at}, "
            f"on {run.header.environment.in_words()}"
            for place, run in zip(("first", "second"), runs, strict=True)
        ),
        agreement(pairings, titles),
        Paragraph(text=LEGEND, faint=True),
        Paragraph(text=in_words(pairings)),
    ]


def agreement(pairings: Sequence[Pairing], titles: Mapping[str, str]) -> Table:
    """Return the verdicts of both runs on every pair."""
    return Table(
        heads=("workload", "pair", "first run", "second run", "agree"),
        rows=tuple(_row(pairing, titles) for pairing in pairings),
        flagged=frozenset(place for place, pairing in enumerate(pairings) if pairing.agree is False),
    )


LEGEND = (
    "A verdict is shown with the 95 % interval of how many times as fast the first row of the pair is. "
    f"Two verdicts agree if both can be true at once; {DASH} if not both make a claim."
)


def in_words(pairings: Sequence[Pairing]) -> str:
    """Return the outcome in a sentence."""
    claimed = [pairing for pairing in pairings if pairing.both_claim]
    agreeing = sum(bool(pairing.agree) for pairing in claimed)
    return (
        f"Of {len(pairings)} pairs of rows both runs make a claim about {len(claimed)}, "
        f"and agree on {agreeing} of these."
    )


def _row(pairing: Pairing, titles: Mapping[str, str]) -> tuple[str, ...]:
    return (
        pairing.first.workload,
        f"{cell_name(pairing.first, titles)} : {cell_name(pairing.second, titles)}",
        _verdict(pairing, pairing.one),
        _verdict(pairing, pairing.other),
        NOTHING if pairing.agree is None else "yes" if pairing.agree else "NO",
    )


def _verdict(pairing: Pairing, comparison: Comparison | None) -> str:
    if comparison is None:
        return "not compared"
    low, high = comparison.low, comparison.high
    words = KIND_WORDS[comparison.kind]
    if comparison.faster != pairing.first:
        low, high = 1 / high, 1 / low
        words = words.replace("faster", "slower", 1) if comparison.differs else words
    return f"{words} ({low:.2f}{DASH}{high:.2f}{TIMES})"
