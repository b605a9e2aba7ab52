"""The page's sections on speed: who is fastest on each workload, how sure that is, and every throughput."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import msgspec

from bench.analysis.comparison import KIND_WORDS, Comparison, Verdict
from bench.analysis.convergence import is_too_brief
from bench.analysis.costs import Costs
from bench.analysis.statistics import (
    ALPHA,
    EQUIVALENCE,
    EQUIVALENCE_ALPHA,
    FEWEST_FOR_SCATTER,
    MARGIN,
)
from bench.analysis.summary import CellSummary, Summary
from bench.records.runs import Run
from bench.report.blocks import (
    Block,
    Chart,
    Details,
    Group,
    Heading,
    Paragraph,
    Table,
    bullets,
    lean,
)
from bench.report.format import (
    DASH,
    NOTHING,
    PLUS_MINUS,
    TIMES,
    bytes_text,
    cell_name,
    percent,
    percent_text,
    rate_text,
    ratio_text,
    seconds_text,
    width_text,
    workload_name,
)
from bench.run.report import charts
from bench.run.report.sentences import all_of, placebo_sentence, sentences, topic
from bench.run.report.tables import TOO_BRIEF, reported, state
from bench.run.report.tags import RowTags, group_tags, has_ranks
from bench.workloads.specs import Cell


def ranking(run: Run, summary: Summary, costs: Costs, ratios: Sequence[Chart]) -> list[Block]:
    """Return the section that says who is fastest on each workload; `ratios` are charts of comparisons."""
    if not summary.cells:
        return [
            Heading(text="Ranking by workload"),
            Paragraph(text="This run has no rows, so there is nothing to rank."),
        ]
    ranks = has_ranks(summary)
    return [
        Heading(text="Ranking by workload"),
        Paragraph(
            text="Each line compares the framework that is ahead with the next one. The range is the 95 % "
            "interval of how many times as fast it is, and the verdict says whether its lead is proven. A "
            "row is ranked only if it has parity, and only against rows of its level"
            f"{' and with as many ranks' if ranks else ''}."
        ),
        *winners([summary]),
        *([Paragraph(text=f"Placebo: {said}")] if (said := placebo_sentence(summary)) else ()),
        *([overview] if (overview := charts.overview(run, summary)) else ()),
        *_workloads(run, summary, costs, ratios),
    ]


def winners(summaries: Sequence[Summary]) -> list[Table]:
    """Return for each run the first two frameworks of each group of rows, and what is claimed about them."""
    places = {(one.device, one.precision) for summary in summaries for one in summary.verdicts}
    ranks = any(map(has_ranks, summaries))
    return [_winners(summary, alike=len(places) == 1, ranks=ranks) for summary in summaries]


def _winners(summary: Summary, *, alike: bool, ranks: bool) -> Table:
    rows = [
        (*_winner(verdict, summary, alike=alike), *([_ranks(verdict)] if ranks else ()))
        for verdict in summary.verdicts
    ]
    heads = ("workload", "ahead", "times as fast", "as the next", "verdict")
    return Table(
        heads=(*heads, "ranks") if ranks else heads,
        rows=tuple(rows),
        numbers=frozenset({2}),
        flagged=frozenset(
            place for place, verdict in enumerate(summary.verdicts) if not verdict.order or verdict.disturbed
        ),
        tags=tuple(group_tags(one.group, summary) for one in summary.verdicts),
    )


def _ranks(verdict: Verdict) -> str:
    return f"{verdict.ranks} (weak)" if verdict.scaling == "weak" else str(verdict.ranks)


def _winner(verdict: Verdict, summary: Summary, *, alike: bool) -> tuple[str, ...]:
    """Return the row of a workload: the first two frameworks, and what is claimed about them.

    `alike` says that all have one device and precision, which then need no mention.
    """
    workload, titles = workload_name(verdict.workload, verdict.level), summary.titles
    workload += "" if alike else f" ({verdict.device} {verdict.precision})"
    if not verdict.order:
        why = "not the same work: own defaults" if not verdict.matched else "nothing is ranked"
        return (workload, NOTHING, NOTHING, NOTHING, why)
    one = _closest(verdict)
    if one is None:
        first = verdict.order[0]
        several = len({cell.backend for cell in verdict.order}) > 1
        why = "too few blocks to compare" if several else "no other framework is ranked"
        return (workload, cell_name(first, titles), NOTHING, NOTHING, why)
    return (
        workload,
        cell_name(one.faster, titles),
        ratio_text(one.low, one.high),
        cell_name(one.slower, titles),
        _claim(one),
    )


def _claim(one: Comparison) -> str:
    """Return what is claimed of a pair, with the reason if a clear ratio proves nothing."""
    if one.differs:
        return f"proven {KIND_WORDS[one.kind]}"
    if one.kind == "undecided" and one.low > 1 + MARGIN:
        if one.margin > MARGIN:
            return f"not proven: the order of the turns may make {percent_text(one.margin)}"
        return "not proven, as chance may do this among several comparisons"
    return KIND_WORDS[one.kind]


def _closest(verdict: Verdict) -> Comparison | None:
    """Return the comparison of the fastest framework with the next one; None if none was made."""
    made = verdict.made.backends
    if verdict.winner is not None:
        return min((one for one in made if one.faster == verdict.winner), key=lambda one: one.ratio)
    first = [one for one in made if one.faster == verdict.picks[0].cell]
    return min(first or made, key=lambda one: one.ratio, default=None)


_HEADS = (
    "framework",
    "samples/s",
    PLUS_MINUS,
    "of the fastest",
    "status",
    "test accuracy",
    "time to target",
    "first result after",
    "peak memory",
)


def _workloads(run: Run, summary: Summary, costs: Costs, ratios: Sequence[Chart]) -> Iterator[Block]:
    """Yield a block for each group of rows: its rows, and every comparison."""
    tags = RowTags(summary)
    said = reported(run)
    first_results = {one.cell: one.start_up.first_result_s for one in costs.cells}
    groups = groupby(summary.cells, key=lambda row: row.group)
    for verdict, (key, group) in zip(summary.verdicts, groups, strict=True):
        rows = list(group)
        place = group_tags(key, summary)
        chart = next((one for one in ratios if one.tags == place), None)
        yield Group(
            blocks=(
                Heading(text=f"{topic(verdict)} ({key.device} {key.precision})", level=3),
                _rows(rows, first_results, tags, summary),
                *_inputs(rows, said, summary),
                *_how_sure(verdict, summary, chart),
            ),
            tags=place,
        )


def _rows(
    rows: Sequence[CellSummary], first_results: dict[Cell, float | None], tags: RowTags, summary: Summary
) -> Table:
    best = next((row.samples_per_s for row in rows if row.ranked), None)
    cells = [
        (
            cell_name(row.cell, summary.titles),
            rate_text(row.samples_per_s),
            width_text(row.half_width),
            _share(row, best),
            state(row),
            _accuracy(row),
            _to_target(row),
            seconds_text(first_results.get(row.cell)),
            bytes_text(row.peak_rss_bytes),
        )
        for row in rows
    ]
    table = Table(
        heads=_HEADS,
        rows=tuple(cells),
        numbers=frozenset(place for place, head in enumerate(_HEADS) if head not in _TEXTS),
        flagged=frozenset(place for place, row in enumerate(rows) if not row.ranked),
        tags=tuple(tags.of(row.cell) for row in rows),
    )
    return lean(table, {"status": "ok", "time to target": NOTHING, "test accuracy": NOTHING})


def _inputs(
    rows: Sequence[CellSummary], said: Mapping[Cell, Mapping[str, str]], summary: Summary
) -> list[Paragraph]:
    """Say what made the images of rows as taught ready, for those that tell: it may not be what is taught."""
    found = [
        f"{cell_name(row.cell, summary.titles)}: images made ready by {name}."
        for row in rows
        if row.level == "taught" and (name := said.get(row.cell, {}).get("input_transforms"))
    ]
    return [Paragraph(text=" ".join(found), faint=True)] if found else []


_TEXTS = frozenset({"framework", "status"})


def _share(row: CellSummary, best: float | None) -> str:
    if not row.ranked or row.samples_per_s is None or best is None:
        return NOTHING
    return f"{row.samples_per_s / best:.2f}{TIMES}"


def _accuracy(row: CellSummary) -> str:
    if row.epochs is None:
        return NOTHING
    epochs = f"{row.epochs:.3g} epoch{'' if row.epochs == 1 else 's'}"
    return TOO_BRIEF if is_too_brief(row.epochs) else f"{percent(row.test_accuracy, 2)} ({epochs})"


def _to_target(row: CellSummary) -> str:
    if row.seconds_to_target is not None:
        return seconds_text(row.seconds_to_target)
    return "not reached" if row.trained_jobs and row.target_accuracy is not None else NOTHING


def _how_sure(verdict: Verdict, summary: Summary, chart: Chart | None) -> list[Block]:
    """Return every claim of a verdict in words, and the comparisons behind it, folded away."""
    inside: list[Block] = [bullets(sentences(verdict, summary.titles))]
    table = _comparisons(verdict, summary)
    if table is not None:
        inside.append(table if chart is None else msgspec.structs.replace(chart, table=table))
    return [Details(summary="How sure is that? Every comparison with its interval", blocks=tuple(inside))]


def _comparisons(verdict: Verdict, summary: Summary) -> Table | None:
    """Return the comparisons, also with the dropped blocks if there are any; None if none was made."""
    made = all_of(verdict.made)
    heads: tuple[str, ...] = (
        "row", "against", "times as fast", "95 % interval", "plain ratio", "adjusted p",
        "detectable difference", "blocks", "verdict",
    )  # fmt: skip
    rows = [_comparison(one, summary) for one in made]
    if verdict.with_dropped is not None:
        heads = (*heads, "made of")
        rows = [(*row, "without dropped blocks") for row in rows]
        rows += [(*_comparison(one, summary), "all blocks") for one in all_of(verdict.with_dropped)]
    table = Table(heads=heads, rows=tuple(rows), numbers=frozenset(range(2, 8)))
    return lean(table, {"detectable difference": NOTHING}) if rows else None


def _comparison(one: Comparison, summary: Summary) -> tuple[str, ...]:
    return (
        cell_name(one.faster, summary.titles),
        cell_name(one.slower, summary.titles),
        f"{one.ratio:.3f}{TIMES}",
        ratio_text(one.low, one.high),
        f"{one.plain:.3f}{TIMES}{' !' if one.trimming_matters else ''}",
        f"{one.p_adjusted:.2g}",
        NOTHING if one.detectable is None else DASH.join(map(percent_text, one.detectable)),
        str(one.blocks),
        _claim(one),
    )


def throughput(drawn: Sequence[Chart]) -> list[Block]:
    """Return the section on throughput; nothing if there is no chart of it."""
    if not drawn:
        return []
    return [
        Heading(text="Throughput"),
        Paragraph(
            text="Training images per second in steady state. Two rows with overlapping intervals can still "
            "differ for certain: the ranking compares them turn by turn, which is more precise."
        ),
        Group(blocks=tuple(drawn), beside=True),
    ]


def how_compared() -> list[str]:
    """Return how rows are compared, one rule a line."""
    return [
        "The throughput of a block is the mean of its windows without the highest and the lowest fifth. The "
        f"figure of a row is the mean over its blocks (of logarithms). {PLUS_MINUS} is half the width of its "
        "95 % interval by Student's t, from three blocks on.",
        "Two rows are compared turn by turn within each block, so a slow moment of the machine cancels. One "
        "mode stands for each framework: the fastest in the first block in which all of its modes were "
        "sound. That block does not judge it.",
        "A difference is claimed only if it is proven larger than a margin, by a paired t test of "
        f"logarithms. The margin is {100 * MARGIN:g} %, or what the order of the turns may have changed, if "
        "that is larger. Holm's method keeps the chance of any wrong claim in a family of comparisons at "
        f"{100 * ALPHA:g} % at most.",
        f"No difference larger than {100 * EQUIVALENCE:g} % is claimed if two one-sided tests at "
        f"{100 * EQUIVALENCE_ALPHA:g} % rule out a larger one.",
        "The plain ratio is samples over seconds, without trimming. It is marked with ! where it differs "
        f"from the ratio by more than {100 * MARGIN:g} %.",
        "The detectable difference is the smallest one that a measurement like this finds four times in "
        f"five. It is given as a 95 % interval, from {FEWEST_FOR_SCATTER} blocks on.",
        "Rows as taught are ranked apart from tuned rows. Each is also compared with the tuned row of its "
        "framework, which shows what tuning is worth.",
    ]
