"""The charts of comparisons: how many times as fast one row is as another, with the interval."""

from collections.abc import Sequence

from bench.analysis.comparison import KIND_WORDS, Comparison, Comparisons
from bench.analysis.statistics import EQUIVALENCE, MARGIN
from bench.analysis.summary import Summary
from bench.records.runs import Run
from bench.report.blocks import Chart, Table
from bench.report.chart import Axis, Bar, Bars, Mark
from bench.report.format import TIMES, cell_name, percent_text, ratio_text
from bench.run.report.charts.rows import Group, Looks, groups_of, looks_of

_ABOUT = (
    "A dot says how many times as fast the first row is as the second; its line is the 95 % interval. Faster "
    f"is claimed at a stricter level, and only beyond a margin: {100 * MARGIN:g} %, or what the order of "
    "turns may change."
)
_FAMILIES = (
    ("backends", "One framework against another"),
    ("modes", "Modes of one framework"),
    ("tuning", "Tuned against as taught"),
)


def ratios(run: Run, summary: Summary) -> list[Chart]:
    """Return a chart of the comparisons for every group of rows in which some were made."""
    looks = looks_of(run, summary)
    charts = []
    for group in groups_of(summary):
        made = group.verdict(summary).made
        if every := [*made.backends, *made.modes, *made.tuning]:
            charts.append(_ratios(group, made, every, looks, summary))
    return charts


def _ratios(
    group: Group, made: Comparisons, every: Sequence[Comparison], looks: Looks, summary: Summary
) -> Chart:
    bars = [
        _bar(one, heading, looks, summary) for family, heading in _FAMILIES for one in getattr(made, family)
    ]
    return Chart(
        name=group.name("ratios"),
        title=f"{group.title}: {_finding(every)}",
        about=_ABOUT,
        drawn=Bars(
            axis=Axis(title="times as fast (logarithmic)", unit="factor", log=True),
            bars=tuple(bars),
            marks=(Mark(value=1.0, text="equally fast"), Mark(value=1 + MARGIN, text="margin")),
        ),
        table=_table(every, looks, summary),
        tags=group.tags,
    )


def _bar(one: Comparison, heading: str, looks: Looks, summary: Summary) -> Bar:
    faster, slower = cell_name(one.faster, summary.titles), cell_name(one.slower, summary.titles)
    return Bar(
        name=f"{faster} / {slower}",
        parts=(one.ratio,),
        text=f"{ratio_text(one.low, one.high)}, {_verdict(one)}",
        low=one.low,
        high=one.high,
        group=heading,
        hue=looks.hue(one.faster),
        shape=looks.shape(one.faster),
        tags={**looks.tags(one.faster), "against": one.slower.backend},
    )


def _verdict(one: Comparison) -> str:
    """Return what is claimed; an interval alone may look as if more could be."""
    if one.kind == "undecided" and one.low > 1 + MARGIN:
        return f"not proven beyond {percent_text(one.margin)}"
    return KIND_WORDS[one.kind]


def _finding(every: Sequence[Comparison]) -> str:
    if all(one.kind == "disturbed" for one in every):
        return "nothing is claimed, because the machine was disturbed"
    proven = sum(one.differs for one in every)
    equal = sum(one.kind == "equivalent" for one in every)
    of = "the one comparison" if len(every) == 1 else f"{len(every)} comparisons"
    if not proven:
        said = f"no difference is proven in {of}"
    else:
        said = f"a difference is proven in {of if len(every) == 1 else f'{proven} of {of}'}"
    return f"{said}; in {equal} none is larger than {percent_text(EQUIVALENCE)}" if equal else said


def _table(every: Sequence[Comparison], looks: Looks, summary: Summary) -> Table:
    return Table(
        heads=("this", "against", "ratio", "95 % interval", "margin", "blocks", "verdict"),
        rows=tuple(
            (
                cell_name(one.faster, summary.titles),
                cell_name(one.slower, summary.titles),
                f"{one.ratio:.3f}{TIMES}",
                ratio_text(one.low, one.high),
                percent_text(one.margin),
                str(one.blocks),
                _verdict(one),
            )
            for one in every
        ),
        numbers=frozenset({2, 3, 4, 5}),
        tags=tuple(looks.tags(one.faster) for one in every),
    )
