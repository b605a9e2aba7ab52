"""The page's section on what does not count: rows that are not ranked, disturbed blocks, unreadable lines."""

from bench.analysis.disturbance import MOST_FOREIGN, MOST_STEAL, is_quiet
from bench.analysis.summary import Summary
from bench.records.runs import Run
from bench.report.blocks import Block, Details, Heading, Paragraph, Table, bullets
from bench.report.format import cell_name
from bench.run.report.tables import taint_lines
from bench.run.report.tags import RowTags
from bench.run.untrained import untrained
from bench.text import listed


def left_out(run: Run, summary: Summary) -> list[Block]:
    """Return the section."""
    return [
        Heading(text="What was left out, and why"),
        *_rows(summary),
        *_untrained(run),
        *_disturbed(run, summary),
        *_unreadable(run),
    ]


def _rows(summary: Summary) -> list[Block]:
    tags = RowTags(summary)
    unranked = [row for row in summary.cells if not row.ranked]
    failed = [row for row in summary.cells if row.ranked and row.failed_jobs]
    if not summary.cells:
        return [Paragraph(text="This run has no rows.")]
    if not unranked and not failed:
        return [Paragraph(text="Every planned row was timed and ranked.")]
    rows = [(row, "not ranked", row.why_not or "no reason recorded") for row in unranked]
    rows += [
        (row, "ranked", f"{row.failed_jobs} of its jobs failed, {row.blocks} blocks count") for row in failed
    ]
    return [
        Table(
            heads=("workload", "framework", "device", "result", "why"),
            rows=tuple(
                (
                    row.workload,
                    cell_name(row.cell, summary.titles),
                    f"{row.device} {row.precision}",
                    result,
                    why,
                )
                for row, result, why in rows
            ),
            tags=tuple(tags.of(row.cell) for row, _, _ in rows),
        )
    ]


def _untrained(run: Run) -> list[Block]:
    names = untrained(run)
    return [Paragraph(text=f"Not trained for accuracy, for want of time: {listed(names)}.")] if names else []


def _disturbed(run: Run, summary: Summary) -> list[Block]:
    found = taint_lines(summary)
    head = Heading(text="Disturbed blocks", level=3)
    if not found:
        if not summary.screenings:
            return [head, Paragraph(text="No block was run.")]
        rounds = [taken for block in run.blocks for taken in block.conditions.taken]
        loud = sum(not is_quiet(taken) for taken in rounds)
        of_rounds = (
            f" Of {len(rounds):,} rounds of turns, {loud:,} were disturbed and do not count." if loud else ""
        )
        return [head, Paragraph(text=f"No block was disturbed, and none was dropped.{of_rounds}")]
    dropped = sum(len(screening.dropped) for screening in summary.screenings.values())
    every = sum(screening.blocks for screening in summary.screenings.values())
    unknown = any(screening.unmeasured for screening in summary.screenings.values())
    were = "were disturbed, or may have been" if unknown else "were disturbed"
    rules = (
        f"A round is left out and repeated if other programs used more than {100 * MOST_FOREIGN:g} % of the "
        "CPU time in it, or half a core where there are more than five, or if the hypervisor gave more than "
        f"{100 * MOST_STEAL:g} % to other machines.",
        "A block is disturbed if too few of its rounds are left, or if something else on the machine "
        "exceeded a threshold. This is decided without looking at any rate. If the system does not tell how "
        "much CPU time other programs used, the block counts as disturbed.",
        "The worst blocks are dropped: at most a fifth of a workload's blocks, or half if they lack rounds, "
        "and never so many that too few remain. If more than half of the kept blocks are disturbed, nothing "
        "is claimed about the workload.",
    )
    return [
        head,
        Paragraph(text=f"Of {every} blocks, {len(found)} {were}. Dropped: {dropped}."),
        Table(heads=("block", "what happened"), rows=tuple(found)),
        Details(summary="How disturbed blocks are found", blocks=(bullets(rules),)),
    ]


def _unreadable(run: Run) -> list[Block]:
    if not run.rejected:
        return []
    return [
        Heading(text="Lines of the record file that could not be read", level=3),
        bullets(run.rejected),
    ]
