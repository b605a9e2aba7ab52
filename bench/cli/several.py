"""Several runs on one page: machines and commits, whether their claims agree, what changed, each run."""

from collections.abc import Iterable, Sequence

import msgspec

from bench.analysis.summary import Summary
from bench.gate import report as gate
from bench.gate.compare import compare
from bench.gate.verdicts import LEGEND, agreement, in_words, pair_verdicts
from bench.records.runs import Run
from bench.report import page
from bench.report.blocks import (
    Block,
    Bullets,
    Chart,
    Details,
    Group,
    Heading,
    Item,
    Note,
    Paragraph,
    Table,
    named_bullets,
)
from bench.report.chart import Tags
from bench.report.format import commit_text, versions_text
from bench.run.report import page as run_page
from bench.run.report import ranking
from bench.run.report.tags import choices, has_ranks
from bench.run.report.terms import terms_of

_TITLE = "What differs between these runs?"
_DEEPEST = 4


def document(found: Sequence[Block], runs: Sequence[Run], summaries: Sequence[Summary]) -> str:
    """Return the page: what `compared` found, and every section of each run, below a heading of its own."""
    blocks = list(found)
    for number, (run, summary) in enumerate(zip(runs, summaries, strict=True), start=1):
        prefix = f"run-{number}"
        whole = Details(
            summary="All sections of this run",
            blocks=tuple(_lowered(run_page.sections(run, summary), prefix)),
            bulky=True,
        )
        blocks.append(
            Group(
                blocks=(
                    Heading(text=f"Run {number}: {run.header.run_id}"),
                    *_lowered(run_page.head(run, summary), prefix),
                    whole,
                ),
                tags={"run": run.header.run_id},
            )
        )
    title = f"{len(runs)} runs: {_TITLE}"
    return page.document(blocks, title=title, choices=choices(summaries), terms=terms_of(runs))


def _lowered(blocks: Iterable[Block], prefix: str) -> list[Block]:
    """Return blocks with their headings one level lower, and with charts whose names begin with a prefix."""
    found: list[Block] = []
    for block in blocks:
        match block:
            case Heading(level=level):
                found.append(msgspec.structs.replace(block, level=min(level + 1, _DEEPEST)))
            case Group(blocks=inside) | Details(blocks=inside):
                found.append(msgspec.structs.replace(block, blocks=tuple(_lowered(inside, prefix))))
            case Chart(name=name):
                found.append(msgspec.structs.replace(block, name=f"{prefix}-{name}"))
            case _:
                found.append(block)
    return found


def compared(runs: Sequence[Run], summaries: Sequence[Summary]) -> list[Block]:
    """Return what differs between runs; each is compared with the first."""
    found: list[Block] = [
        Heading(text=_TITLE, level=1),
        Bullets(items=tuple(_answers(runs, summaries))),
        Heading(text="The runs"),
        _runs(runs),
        Heading(text="Fastest by workload, run by run"),
        _winners(runs, summaries),
    ]
    for number, (run, summary) in enumerate(zip(runs[1:], summaries[1:], strict=True), start=2):
        found += _against_first(runs[0], summaries[0], run, summary, number)
    return found


def _answers(runs: Sequence[Run], summaries: Sequence[Summary]) -> Iterable[Item]:
    """Yield whether the claims of each run agree with those of the first."""
    for number, (run, summary) in enumerate(zip(runs[1:], summaries[1:], strict=True), start=2):
        where = "same machine" if _same_machine(runs[0], run) else "another machine"
        said = in_words(pair_verdicts(summaries[0], summary))
        yield Item(name=f"Runs 1 and {number} ({where})", text=said)


def _same_machine(first: Run, other: Run) -> bool:
    return first.header.environment.same_machine(other.header.environment)


def _runs(runs: Sequence[Run]) -> Table:
    return Table(
        heads=("run", "begun", "machine", "this program", "frameworks", "preset"),
        rows=tuple(
            (
                f"{number}: {run.header.run_id}",
                run.header.created_at.replace("T", " ")[:16],
                run.header.environment.in_words(),
                commit_text(run),
                versions_text(run.header),
                run.header.preset,
            )
            for number, run in enumerate(runs, start=1)
        ),
        tags=tuple({"run": run.header.run_id} for run in runs),
    )


def _winners(runs: Sequence[Run], summaries: Sequence[Summary]) -> Table:
    """Return the rankings of all runs in one table, workload by workload."""
    ranks = any(map(has_ranks, summaries))
    tables = [ranking.winners(summary, ranks=ranks) for summary in summaries]
    places: dict[tuple[str, ...], int] = {}
    keyed: list[tuple[int, int, tuple[str, ...], Tags]] = []
    for number, (run, table) in enumerate(zip(runs, tables, strict=True), start=1):
        for row, tags in zip(table.rows, table.tags, strict=True):
            place = places.setdefault((row[0], *row[5:]), len(places))  # workload, level, device, ranks
            keyed.append((place, number, row, {**tags, "run": run.header.run_id}))
    lines = [
        ((row[0], str(number), *row[1:]), tags)
        for _, number, row, tags in sorted(keyed, key=lambda one: one[:2])
    ]
    heads = tables[0].heads
    return Table(
        heads=(heads[0], "run", *heads[1:]),
        rows=tuple(row for row, _ in lines),
        numbers=frozenset({1, *(place + 1 for place in tables[0].numbers)}),
        tags=tuple(tags for _, tags in lines),
    )


def _against_first(
    first: Run, first_summary: Summary, run: Run, summary: Summary, number: int
) -> list[Block]:
    """Return what differs between the first run and another one: claims, and figures of one machine."""
    pairings = pair_verdicts(first_summary, summary)
    titles = {**first_summary.titles, **summary.titles}
    claims: list[Block] = [
        Paragraph(text=in_words(pairings)),
        Details(
            summary="Every claim of both runs",
            blocks=(agreement(pairings, titles), Paragraph(text=LEGEND, faint=True)),
        ),
    ]
    head = Heading(text=f"Run {number} against run 1")
    if not _same_machine(first, run):
        said = (
            "The runs are of different machines, so their figures are not compared: each says how fast its "
            "own machine is. Their claims can be compared."
        )
        return [head, Note(text=said), *claims]
    view = gate.view_of_runs(compare(first, run))
    return [
        head,
        *claims,
        Heading(text="What changed from run 1", level=3),
        Paragraph(text=f"As bench compare judges it: {view.conclusion}."),
        *_figures(view),
        Details(
            summary="Why, row by row",
            blocks=(Bullets(items=tuple(Item(text=one) for one in view.sentences)),),
        ),
        Details(
            summary="What differs in the environment, and remarks",
            blocks=(Bullets(items=tuple(Item(text=one) for one in (*view.changes, *view.remarks))),),
        ),
    ]


def _figures(view: gate.View) -> list[Block]:
    """Return every figure that was compared, and what the columns mean; nothing if there is none."""
    return [gate.figures(view), named_bullets(gate.legend(view))] if view.rows else []
