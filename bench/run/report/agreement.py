"""Two runs beside each other: each verdict on every pair of rows, and whether both can be right."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.analysis.comparison import Comparison
from bench.records.runs import Run
from bench.report.format import DASH, NOTHING, TIMES, cell_name
from bench.report.markdown import bullets, grid
from bench.run.agreement import Pairing
from bench.run.report.tables import KIND_WORDS
from bench.text import clean

_HEADS = ("workload", "pair", "first run", "second run", "agree")


def in_words(pairings: Sequence[Pairing]) -> str:
    """Return the outcome in a sentence."""
    called = [pairing for pairing in pairings if pairing.both_call]
    agreeing = sum(bool(pairing.agree) for pairing in called)
    return (
        f"Of {len(pairings)} pairs of rows both runs say something about {len(called)}, "
        f"and agree on {agreeing} of these."
    )


def text(runs: Sequence[Run], pairings: Sequence[Pairing], titles: dict[str, str]) -> str:
    """Return the comparison of two runs as Markdown."""
    names = bullets(
        f"{place} run: {run.header.run_id}, begun {run.header.created_at}, "
        f"on {run.header.environment.in_words()}"
        for place, run in zip(("first", "second"), runs, strict=True)
    )
    table = grid(_HEADS, _rows(pairings, titles))
    return "\n\n".join(["# Do two runs agree?", names, in_words(pairings), table, _LEGEND]) + "\n"


def render(pairings: Sequence[Pairing], titles: dict[str, str], console: Console) -> None:
    """Print the comparison of two runs."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for head in _HEADS:
        table.add_column(head)
    for row in _rows(pairings, titles):
        table.add_row(*(Text(clean(cell)) for cell in row))
    console.print(table)
    console.print(Text(_LEGEND, style="dim"))
    console.print(Text(in_words(pairings)))


_LEGEND = (
    "Each run's verdict stands with the 95 % interval of how many times as fast the first of the pair is. "
    f"They agree where both can be true at once; {DASH} where either says nothing."
)


def _rows(pairings: Sequence[Pairing], titles: dict[str, str]) -> list[list[str]]:
    return [
        [
            pairing.first.workload,
            f"{cell_name(pairing.first, titles)} : {cell_name(pairing.second, titles)}",
            _said(pairing, pairing.one),
            _said(pairing, pairing.other),
            NOTHING if pairing.agree is None else "yes" if pairing.agree else "NO",
        ]
        for pairing in pairings
    ]


def _said(pairing: Pairing, comparison: Comparison | None) -> str:
    if comparison is None:
        return "not compared"
    low, high = comparison.low, comparison.high
    if comparison.faster != pairing.first:
        low, high = 1 / high, 1 / low
    words = KIND_WORDS[comparison.kind]
    if comparison.differs and comparison.faster != pairing.first:
        words = words.replace("faster", "slower", 1)
    return f"{words} ({low:.2f}{DASH}{high:.2f}{TIMES})"
