"""The report of a run as REPORT.md with its plots beside it, for a reader who was not there."""

import shlex
from pathlib import Path

from bench.analysis.comparison import Comparison
from bench.analysis.statistics import ALPHA, EQUIVALENCE, EQUIVALENCE_ALPHA, MARGIN
from bench.analysis.summary import STATUS_WORDS, Summary
from bench.errors import RecordError
from bench.records.runs import Run
from bench.records.schema import ParityCheck, ParityRecord
from bench.report.format import (
    NOTHING,
    PLUS_MINUS,
    TIMES,
    cell_name,
    commit_text,
    percent,
    ratio_text,
    versions_text,
)
from bench.report.markdown import PLOTS, bullets, bullets_escaped, code, escape, grid, plot
from bench.run.report import convergence, costs
from bench.run.report.sentences import answer, sentences
from bench.run.report.tables import (
    KIND_WORDS,
    LABELS,
    QUESTION,
    Table,
    conditions_text,
    plan_text,
    remark_lines,
    row_name,
    tables,
    taint_lines,
    unranked_lines,
)
from bench.text import duration

REPORT = "REPORT.md"


def write(run: Run, summary: Summary, folder: Path | None = None) -> Path:
    """Write the report into a folder, the run's own where none is named, and return the report's path.

    Written twice from the same run it is the same to the byte. A plot left from before that this run has no
    values for is taken away.
    """
    from bench.run.report import cost_plots, plots

    folder = folder or run.folder
    drawn = {**plots.draw(run, summary), **cost_plots.draw(run, summary)}
    report = folder / REPORT
    try:
        (folder / PLOTS).mkdir(parents=True, exist_ok=True)
        for name in (*plots.NAMES, *cost_plots.NAMES):
            path = folder / PLOTS / f"{name}.svg"
            if name in drawn:
                path.write_bytes(drawn[name])
            else:
                path.unlink(missing_ok=True)
        report.write_text(text(run, summary, frozenset(drawn)), encoding="utf-8", newline="\n")
    except OSError as error:
        raise RecordError(f"cannot write the report to {folder}: {error.strerror}.") from error
    return report


def text(run: Run, summary: Summary, drawn: frozenset[str]) -> str:
    """Return the report; `drawn` names the plots that exist, and no other is linked."""
    blocks = [
        f"# {QUESTION}",
        *([f"> **{escape(summary.mark)}**"] if summary.mark else []),
        *(f"> **Warning.** {escape(warning)}" for warning in summary.warnings),
        f"On {escape(run.header.environment.in_words())}:",
        bullets(answer(summary)),
        *_machine(run),
        *_speed(summary, drawn),
        *_comparisons(summary),
        *convergence.blocks(run, summary, drawn),
        *costs.blocks(run, summary, drawn),
        *_parity(run, summary, drawn),
        *_tainted(summary),
        *_missing(run, summary),
        "## What the labels mean",
        bullets_escaped(f"**{escape(name)}**: {escape(meaning)}." for name, meaning in LABELS),
        *_modes(run),
        *_again(run),
    ]
    return "\n\n".join(blocks) + "\n"


def _machine(run: Run) -> list[str]:
    header = run.header
    environment = header.environment
    facts = [
        ("run", header.run_id),
        ("started", header.created_at),
        ("preset", f"{header.preset}, time budget {duration(header.budget_s)}, seed {header.seed}"),
        ("plan", plan_text(run)),
        ("machine", environment.in_words()),
        ("system", f"{environment.system}, {environment.python}, host {environment.hostname}"),
        ("GPU driver", environment.gpu_driver),
        ("variables", ", ".join(f"{name}={value}" for name, value in environment.variables.items())),
        ("conditions", conditions_text(run)),
        ("frameworks", versions_text(header)),
        ("this program", commit_text(run)),
        ("command", shlex.join(header.command)),
    ]
    blocks = [
        "## Where and how",
        grid(["what", "here"], [[name, said] for name, said in facts if said]),
    ]
    told = _told(run)
    if told:
        blocks += ["What the frameworks reported while they ran:", bullets_escaped(told)]
    return blocks


def _told(run: Run) -> list[str]:
    """Return, for every backend and mode, what all its jobs said alike."""
    titles = {backend.name: backend.title for backend in run.header.backends}
    common: dict[str, dict[str, str]] = {}
    for job in run.jobs:
        said = {key: str(value) for key, value in job.described.items() if value is not None}
        if said:
            before = common.setdefault(cell_name(job.spec.cell, titles), said)
            for key in [key for key in before if said.get(key) != before[key]]:
                del before[key]
    return [
        f"**{escape(name)}**: {escape('; '.join(f'{key} {value}' for key, value in sorted(said.items())))}"
        for name, said in sorted(common.items())
        if said
    ]


def _speed(summary: Summary, drawn: frozenset[str]) -> list[str]:
    blocks = [
        "## Training speed",
        "Each framework and mode trained each workload in rounds called blocks, every time in a fresh "
        "process. The processes of a block all live side by side and take turns of about a "
        "twentieth of a second, so that what slows the machine meets all of them alike. A block's figure is "
        "the mean of its turns without the highest and the lowest fifth; start-up and evaluation are not in "
        f"it. The table gives the mean over the blocks (of logarithms), and {PLUS_MINUS} is half the width "
        "of its 95 % interval by Student's t, given from three blocks on. A longer bar is faster; the "
        "colour tells the framework and the hatch the mode; a bar in grey crosshatch is not ranked.",
        *plot("speed", "Throughput of every framework and mode with its interval, by workload", drawn),
    ]
    for table in tables(summary):
        blocks += [f"### {escape(table.title)}", _table(table)]
    return blocks


def _comparisons(summary: Summary) -> list[str]:
    blocks = [
        "## Who is faster, and how sure that is",
        "Read a ratio as how many times as fast the first row is as the second. It is taken turn by turn and "
        "block by block, so it can be far more precise than the rows themselves. The best mode of each "
        "framework is compared with that of every other, and the modes of one framework with each other. A "
        f"difference is claimed only where it is proven larger than {100 * MARGIN:g} %, which is about what "
        "the chance of a process's place in memory makes (paired t test of logarithms against that margin). "
        "The levels inside each of these families are set by Holm's method, so that the chance of any wrong "
        f"claim in a family is {100 * ALPHA:g} % at most. No difference larger than {100 * EQUIVALENCE:g} % "
        f"is said where two one-sided tests at {100 * EQUIVALENCE_ALPHA:g} % rule a larger one out, each "
        "pair by itself. Both intervals are of 95 %: the first by Student's t, as the decision is; the "
        "second by a bootstrap of blocks, and of turns inside them, for comparison. The detectable "
        "difference is what would have been found four times in five.",
    ]
    for verdict in summary.verdicts:
        blocks += [
            f"### {escape(f'{verdict.workload} ({verdict.device} {verdict.precision})')}",
            bullets(sentences(verdict, summary.titles)),
        ]
        made = [*verdict.backends, *verdict.modes]
        if verdict.with_dropped is not None:
            rows = [[*_comparison(one, summary), "without dropped blocks"] for one in made]
            of_all = [*verdict.with_dropped.backends, *verdict.with_dropped.modes]
            rows += [[*_comparison(one, summary), "all blocks"] for one in of_all]
            blocks.append(grid([*_HEADS, "made of"], rows, numbers=_NUMBERS))
        elif made:
            blocks.append(grid(_HEADS, [_comparison(one, summary) for one in made], numbers=_NUMBERS))
    return blocks


_HEADS = (
    "this",
    "against",
    "ratio",
    "interval",
    "bootstrap",
    "adjusted p",
    "detectable",
    "blocks",
    "verdict",
)
_NUMBERS = frozenset(range(2, 8))


def _comparison(one: Comparison, summary: Summary) -> list[str]:
    return [
        cell_name(one.faster, summary.titles),
        cell_name(one.slower, summary.titles),
        f"{one.ratio:.3f}{TIMES}",
        ratio_text(one.low, one.high),
        ratio_text(one.bootstrap_low, one.bootstrap_high),
        f"{one.p_adjusted:.2g}",
        percent(one.detectable, 1),
        str(one.blocks),
        KIND_WORDS[one.kind],
    ]


def _parity(run: Run, summary: Summary, drawn: frozenset[str]) -> list[str]:
    blocks = ["## Is it the same work?"]
    if not run.parity:
        return [*blocks, "No row was compared with the reference in this run, so no row is ranked."]
    blocks.append(
        "Before a row is ranked, its framework is compared with a reference in float64: from the same "
        "weights and batches it must give the same logits, loss, gradients, parameters after one step and "
        "after many, and losses on the way. Each figure is the largest relative error of its kind over the "
        "tolerance; a dot to the right of the red line fails, and such a row is shown but never ranked."
    )
    blocks += plot("parity", "Largest error over tolerance of every kind of check, by workload", drawn)
    kinds = list(dict.fromkeys(check.kind for record in run.parity for check in record.checks))
    places = {row.cell: place for place, row in enumerate(summary.cells)}
    rows = [
        [
            row_name(record.cell, summary),
            record.optimizer,
            *(_check_text(record, kind) for kind in kinds),
            "ok" if record.ok else "fails" if record.checks else STATUS_WORDS[record.status],
        ]
        for record in sorted(run.parity, key=lambda record: places[record.cell])
    ]
    heads = ["row", "optimizer", *kinds, "parity"]
    blocks.append(grid(heads, rows, numbers=frozenset(range(2, 2 + len(kinds)))))
    blocks.append("Each cell reads error / tolerance, both relative.")
    return blocks


def _check_text(record: ParityRecord, kind: str) -> str:
    found: list[ParityCheck] = [check for check in record.checks if check.kind == kind]
    return ", ".join(f"{check.error:.1e} / {check.tolerance:.0e}" for check in found) or NOTHING


def _tainted(summary: Summary) -> list[str]:
    blocks = [
        "## Blocks dropped",
        "A block is disturbed where something else passed a threshold while its jobs took turns, which is "
        "decided without a look at any rate. The worst are dropped, at most a fifth of a workload's blocks "
        "and never below the number it needs; the others stay, and are named here. Where more than half of "
        "the blocks that stay are disturbed, nothing is claimed of the workload. A block of which the system "
        "does not tell what other programs used may have been disturbed, and counts as if it was.",
    ]
    found = taint_lines(summary)
    if not found:
        return [
            *blocks,
            "No block was disturbed, and none was dropped." if summary.screenings else "No block was run.",
        ]
    dropped = sum(len(screening.dropped) for screening in summary.screenings.values())
    every = sum(screening.blocks for screening in summary.screenings.values())
    unknown = any(screening.unmeasured for screening in summary.screenings.values())
    were = "were disturbed, or may have been" if unknown else "were disturbed"
    blocks.append(f"Of {every} blocks {len(found)} {were}, and {dropped} of these dropped:")
    return [*blocks, bullets_escaped(f"**{escape(name)}**: {escape(what)}" for name, what in found)]


def _missing(run: Run, summary: Summary) -> list[str]:
    blocks = ["## What was not measured or not ranked, and why"]
    unranked = unranked_lines(summary)
    blocks.append(
        bullets_escaped(f"**{escape(name)}**: {escape(why)}" for name, why in unranked)
        if unranked
        else "Every planned row was measured and ranked."
    )
    remarks = remark_lines(summary)
    if remarks:
        blocks.append("Ranked all the same, with jobs that failed:")
        blocks.append(bullets_escaped(f"**{escape(name)}**: {escape(remark)}" for name, remark in remarks))
    if run.rejected:
        blocks.append("Lines of the record file that could not be read and are left out:")
        blocks.append(bullets(run.rejected))
    return blocks


def _modes(run: Run) -> list[str]:
    used = {(cell.backend, cell.mode) for cell in run.header.cells}
    lines = [
        f"**{escape(f'{backend.title} {mode}')}**: {escape(meaning)}"
        + (" (what its own documentation teaches first)" if mode == backend.taught_mode else "")
        for backend in run.header.backends
        for mode, meaning in backend.modes.items()
        if (backend.name, mode) in used
    ]
    return ["The modes, under the frameworks' own names:", bullets_escaped(lines)] if lines else []


def _again(run: Run) -> list[str]:
    return [
        "## Run it again",
        code(shlex.join(run.header.command)),
        f"with {escape(commit_text(run))} and "
        f"{escape(versions_text(run.header) or 'no framework installed')}. This report is made from the "
        "records beside it, which hold every raw value, by:",
        code(f"bench report {shlex.quote(run.folder.name)} --format markdown"),
    ]


def _table(table: Table) -> str:
    numbers = frozenset(place for place, column in enumerate(table.columns) if column.number)
    rows = [[column.cells[row] for column in table.columns] for row in range(len(table.ranked))]
    return grid([column.title for column in table.columns], rows, numbers=numbers)
