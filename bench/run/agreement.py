"""Whether two runs on one machine reach the same verdicts: what a stranger would find who ran it again."""

from collections.abc import Mapping

import msgspec

from bench.analysis.comparison import Comparison
from bench.analysis.summary import Summary
from bench.workloads.specs import Cell

CALLED = ("faster", "slightly faster", "equivalent")
"""Kinds of verdict that say something; the others say that nothing could be said."""


class Pairing(msgspec.Struct, frozen=True, kw_only=True):
    """What two runs say of one pair of cells; None where a run did not compare them."""

    first: Cell
    second: Cell
    one: Comparison | None
    other: Comparison | None

    @property
    def both_call(self) -> bool:
        """Whether both runs say something, so that they can agree."""
        return all(said is not None and said.kind in CALLED for said in (self.one, self.other))

    @property
    def agree(self) -> bool | None:
        """Whether what both say can be true at once; None where not both say something.

        That one cell is faster by no more than 2 %, and that there is no difference larger than that, can.
        """
        if self.one is None or self.other is None or not self.both_call:
            return None
        kinds = {self.one.kind, self.other.kind}
        if "equivalent" in kinds:
            return "faster" not in kinds
        return self.one.faster == self.other.faster


def compare(one: Summary, other: Summary) -> tuple[Pairing, ...]:
    """Return every pair of cells that either run compares, in the order of the first run's verdicts."""
    said, answered = _comparisons(one), _comparisons(other)
    found = []
    for pair in dict.fromkeys([*said, *answered]):
        comparison = said.get(pair) or answered[pair]
        found.append(
            Pairing(
                first=comparison.faster,
                second=comparison.slower,
                one=said.get(pair),
                other=answered.get(pair),
            )
        )
    return tuple(found)


def _comparisons(summary: Summary) -> Mapping[frozenset[Cell], Comparison]:
    return {
        frozenset((comparison.faster, comparison.slower)): comparison
        for verdict in summary.verdicts
        for comparison in (*verdict.backends, *verdict.modes)
    }
