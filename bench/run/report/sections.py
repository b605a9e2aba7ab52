"""The sections of a run's report as blocks: all for REPORT.md, the most important for the terminal."""

import shlex

from bench.analysis.comparison import KIND_WORDS, Comparison, Verdict
from bench.analysis.disturbance import MOST_FOREIGN, MOST_STEAL
from bench.analysis.statistics import (
    ALPHA,
    EQUIVALENCE,
    EQUIVALENCE_ALPHA,
    FEWEST_FOR_SCATTER,
    MARGIN,
)
from bench.analysis.summary import Summary
from bench.records.runs import Run
from bench.report.blocks import (
    Block,
    Code,
    Heading,
    Note,
    Paragraph,
    Picture,
    Table,
    below,
    bullets,
    named_bullets,
    section,
)
from bench.report.format import (
    DASH,
    NOTHING,
    PLUS_MINUS,
    TIMES,
    cell_name,
    commit_text,
    percent_text,
    ratio_text,
    versions_text,
)
from bench.run.outlook import in_words, outlook
from bench.run.report import carry_over, convergence, costs, parity
from bench.run.report.sentences import all_of, answer, placebo_sentence, sentences, topic
from bench.run.report.tables import (
    LABELS,
    QUESTION,
    conditions_text,
    plan_text,
    remark_lines,
    speed_blocks,
    taint_lines,
    unranked_lines,
)
from bench.text import duration

_REJECTED = "Lines of the record file that could not be read and are left out"
_DEFAULT = " (the default mode: its documentation teaches it first)"
_MORE = (
    "REPORT.md has more: every comparison with its intervals, the first steps, learning curves, accuracies, "
    "the time to a first result, where a step's time goes, memory, energy, the share of the peak, and parity."
)


def whole(run: Run, summary: Summary) -> list[Block]:
    """Return the whole report, for a reader who was not there."""
    return [
        *_head(summary),
        Paragraph(text=f"On {run.header.environment.in_words()}:"),
        bullets((*answer(summary), *convergence.answer(run, summary.titles))),
        *_machine(run),
        *_speed(summary),
        *_comparisons(summary),
        *_placebo(summary),
        *_outlook(run, summary),
        *carry_over.blocks(summary),
        *convergence.blocks(run, summary),
        *costs.blocks(run, summary),
        *parity.blocks(run, summary),
        *_tainted(summary),
        *_missing(run, summary),
        Heading(text="What the labels mean"),
        named_bullets((name, f"{meaning}.") for name, meaning in LABELS),
        *_modes(run),
        *_again(run),
    ]


def short(run: Run, summary: Summary) -> list[Block]:
    """Return the tables of speed, the verdicts, and what is missing and why."""
    header = run.header
    facts = [
        ("Run", f"{header.run_id}, preset {header.preset}, budget {duration(header.budget_s)}"),
        ("Machine", header.environment.in_words()),
        ("Threads", header.environment.threads_in_words() or ""),
        ("Conditions", conditions_text(run) or ""),
    ]
    return [
        *_head(summary),
        named_bullets((name, said) for name, said in facts if said),
        *speed_blocks(summary),
        *_legend(summary),
        Heading(text="Verdict"),
        bullets(answer(summary)),
        *(block for verdict in summary.verdicts for block in _verdict(verdict, summary)),
        *_placebo(summary),
        *below("Does it learn the same thing?", bullets(convergence.answer(run, summary.titles))),
        *below("Disturbed blocks", named_bullets(taint_lines(summary))),
        *below("Not ranked or not measured", named_bullets(unranked_lines(summary))),
        *below("Remarks", named_bullets(remark_lines(summary))),
        *below(_REJECTED, bullets(run.rejected)),
        Paragraph(text=_MORE, faint=True),
        *_outlook(run, summary),
    ]


def _outlook(run: Run, summary: Summary) -> list[Block]:
    """Return how long a run would have to be for narrow intervals; nothing if nothing is compared."""
    found = outlook(run, summary)
    return [] if found is None else [Paragraph(text=in_words(found))]


def _head(summary: Summary) -> list[Block]:
    return [
        Heading(text=QUESTION, level=1),
        *([Note(text=summary.mark)] if summary.mark else []),
        *(Note(text=warning, warning=True) for warning in summary.warnings),
    ]


def _legend(summary: Summary) -> list[Block]:
    """Return what the columns mean, if there is a table."""
    if not summary.cells:
        return []
    meanings = [
        "samples/s: steady-state throughput",
        f"{PLUS_MINUS}: half the width of its 95 % interval",
        "relative: to the fastest ranked row",
    ]
    if any(row.target_accuracy is not None for row in summary.cells):
        meanings.append("to target: seconds of training until the target accuracy was reached")
    return [Paragraph(text=f"{'; '.join([*meanings, f'{NOTHING}: no figure'])}.", faint=True)]


def _verdict(verdict: Verdict, summary: Summary) -> list[Block]:
    return [
        Heading(text=f"{topic(verdict)} ({verdict.device} {verdict.precision})", level=3),
        bullets(sentences(verdict, summary.titles)),
    ]


def _placebo(summary: Summary) -> list[Block]:
    said = placebo_sentence(summary)
    return [] if said is None else [Paragraph(text=said)]


def _machine(run: Run) -> list[Block]:
    header = run.header
    environment = header.environment
    facts = [
        ("run", header.run_id),
        ("started", header.created_at),
        ("preset", f"{header.preset}, time budget {duration(header.budget_s)}, seed {header.seed}"),
        ("plan", plan_text(run)),
        ("machine", environment.in_words()),
        ("threads", environment.threads_in_words()),
        ("system", f"{environment.system}, {environment.python}, host {environment.hostname}"),
        ("GPU", environment.gpu.details() if environment.gpu else None),
        ("GPU driver", environment.gpu_driver),
        ("variables", ", ".join(f"{name}={value}" for name, value in environment.variables.items())),
        ("conditions", conditions_text(run)),
        ("frameworks", versions_text(header)),
        ("this program", commit_text(run)),
        ("command", shlex.join(header.command)),
    ]
    return [
        Heading(text="Where and how"),
        Table(heads=("what", "here"), rows=tuple((name, said) for name, said in facts if said)),
        *_reported(run),
    ]


def _reported(run: Run) -> list[Block]:
    """Return, for every backend and mode, the settings that all its jobs reported with the same value."""
    titles = {backend.name: backend.title for backend in run.header.backends}
    common: dict[str, dict[str, str]] = {}
    for job in run.jobs:
        said = {key: str(value) for key, value in job.described.items() if value is not None}
        if said:
            before = common.setdefault(cell_name(job.spec.cell, titles), said)
            for key in [key for key in before if said.get(key) != before[key]]:
                del before[key]
    found = named_bullets(
        (name, "; ".join(f"{key} {value}" for key, value in sorted(said.items())))
        for name, said in sorted(common.items())
        if said
    )
    return [Paragraph(text="What the frameworks reported while they ran:"), found] if found.items else []


def _speed(summary: Summary) -> list[Block]:
    return section(
        "Training speed",
        "Each framework and mode trained each workload in several blocks, each time in a fresh "
        "process. All processes of a block are alive at the same time and take turns of about a "
        "fifth of a second, so that a slow moment of the machine affects all of them. The figure of "
        "a block is the mean of its turns without the highest and the lowest fifth; start-up and "
        "evaluation are excluded. The table shows the mean over the blocks (of logarithms); "
        f"{PLUS_MINUS} is half the width of its 95 % interval by Student's t, from three blocks on. A "
        "longer bar is faster. The colour of a bar is the framework and its hatch the mode; a grey "
        "crosshatched bar is not ranked.",
        Picture(
            name="speed", caption="Throughput of every framework and mode with its interval, by workload"
        ),
        *speed_blocks(summary),
    )


def _comparisons(summary: Summary) -> list[Block]:
    return section(
        "Who is faster, and how sure that is",
        "A ratio says how many times as fast the first row is as the second. It is computed from the "
        "differences in each turn of each block, so it can be much more precise than the rows "
        "themselves. One mode of each framework is compared with that of every other framework, "
        "and the modes of one framework with each other. Where several modes of a framework are ranked, it "
        "is the one that was the fastest in the first block in which all of them were sound. Only the other "
        "blocks judge it: chance favors the fastest of several in the block that chose it. Rows as taught "
        "are the plain loops of the "
        "frameworks' own tutorials. They are ranked apart from tuned rows, and each is also compared "
        "with the tuned row of its framework that was chosen so, which shows what tuning is worth. A "
        "difference is "
        f"claimed only if it is proven larger than {100 * MARGIN:g} % (paired t test of logarithms "
        "against that margin): chance alone, such as a process's place in memory, makes about that "
        "much difference. Holm's method sets the levels in each of these families, so that the "
        f"probability of any wrong claim in a family is at most {100 * ALPHA:g} %. A pair has no "
        f"difference larger than {100 * EQUIVALENCE:g} % if two one-sided tests at "
        f"{100 * EQUIVALENCE_ALPHA:g} % rule out a larger one. The intervals have 95 % confidence and are "
        "those of Student's t over the blocks. The plain ratio is that of samples over seconds, without "
        "trimming; where it differs from the ratio by more than "
        f"{100 * MARGIN:g} % it is marked with an exclamation mark. The detectable difference is the "
        "smallest one that a measurement like this finds four times in five. It follows from the scatter "
        f"between blocks, so it is given as a 95 % interval, and only from {FEWEST_FOR_SCATTER} blocks on.",
        *(
            block
            for verdict in summary.verdicts
            for block in (*_verdict(verdict, summary), *_comparison_table(verdict, summary))
        ),
    )


_HEADS = (
    "this",
    "against",
    "ratio",
    "interval",
    "plain",
    "adjusted p",
    "detectable",
    "blocks",
    "verdict",
)


def _comparison_table(verdict: Verdict, summary: Summary) -> list[Block]:
    """Return the comparisons, also with the dropped blocks if there are any; nothing if none was made."""
    made = all_of(verdict.made)
    heads: tuple[str, ...] = _HEADS
    rows = [_comparison(one, summary) for one in made]
    if verdict.with_dropped is not None:
        of_all = all_of(verdict.with_dropped)
        heads = (*heads, "made of")
        rows = [(*row, "without dropped blocks") for row in rows]
        rows += [(*_comparison(one, summary), "all blocks") for one in of_all]
    elif not made:
        return []
    return [Table(heads=heads, rows=tuple(rows), numbers=frozenset(range(2, 8)))]


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
        KIND_WORDS[one.kind],
    )


def _tainted(summary: Summary) -> list[Block]:
    head = section(
        "Blocks dropped",
        f"A round is left out and repeated if other programs used more than {100 * MOST_FOREIGN:g} % of the "
        f"CPU time in it, or if the hypervisor gave more than {100 * MOST_STEAL:g} % to other machines. A "
        "block is disturbed if too few of its rounds are left, or if something else on the machine exceeded "
        "a threshold while its jobs took turns. This is decided without looking at any rate. The worst "
        "blocks are dropped: at most a fifth of a workload's blocks, or half if they lack rounds, and never "
        "so many that too few remain. The other disturbed blocks are kept, and are named here. If more than "
        "half of the kept blocks are disturbed, nothing is claimed about the workload. If the system does "
        "not tell how much CPU time other programs used, the block counts as disturbed.",
    )
    found = taint_lines(summary)
    if not found:
        none = "No block was disturbed, and none was dropped." if summary.screenings else "No block was run."
        return [*head, Paragraph(text=none)]
    dropped = sum(len(screening.dropped) for screening in summary.screenings.values())
    every = sum(screening.blocks for screening in summary.screenings.values())
    unknown = any(screening.unmeasured for screening in summary.screenings.values())
    were = "were disturbed, or may have been" if unknown else "were disturbed"
    return [
        *head,
        Paragraph(text=f"Of {every} blocks, {len(found)} {were}. Dropped: {dropped}."),
        named_bullets(found),
    ]


def _missing(run: Run, summary: Summary) -> list[Block]:
    blocks: list[Block] = [Heading(text="What was not measured or not ranked, and why")]
    unranked, remarks = unranked_lines(summary), remark_lines(summary)
    every = Paragraph(text="Every planned row was measured and ranked.")
    blocks.append(named_bullets(unranked) if unranked else every)
    if remarks:
        blocks += [
            Paragraph(text="Ranked, although some jobs failed:"),
            named_bullets(remarks),
        ]
    if run.rejected:
        blocks += [Paragraph(text=f"{_REJECTED}:"), bullets(run.rejected)]
    return blocks


def _modes(run: Run) -> list[Block]:
    used = {(cell.backend, cell.mode) for cell in run.header.cells}
    lines = [
        (f"{backend.title} {mode}", meaning + (_DEFAULT if mode == backend.default_mode else ""))
        for backend in run.header.backends
        for mode, meaning in backend.modes.items()
        if (backend.name, mode) in used
    ]
    heading = Paragraph(text="The modes, with the frameworks' own names:")
    return [heading, named_bullets(lines)] if lines else []


def _again(run: Run) -> list[Block]:
    return [
        Heading(text="Run it again"),
        Code(text=shlex.join(run.header.command)),
        Paragraph(
            text=f"with {commit_text(run)} and {versions_text(run.header) or 'no framework installed'}. To "
            "make this report again from the records beside it, which hold every raw value:"
        ),
        Code(text=f"bench report {shlex.quote(run.folder.name)} --format markdown"),
    ]
