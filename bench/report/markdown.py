"""The report of a run as REPORT.md with its plots beside it, for a reader who was not there."""

import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.errors import RecordError
from bench.records import ParityCheck, ParityRecord
from bench.report import (
    LABELS,
    NOTHING,
    PLUS_MINUS,
    QUESTION,
    Table,
    clean,
    commit_text,
    conditions_text,
    duration_text,
    percent,
    remark_lines,
    row_name,
    seconds_text,
    tables,
    unranked_lines,
    versions_text,
)
from bench.runs import Run
from bench.summary import STATUS_WORDS, Summary, summarise
from bench.verdicts import TIMES, Comparison, cell_name, ratio_text

REPORT = "REPORT.md"
PLOTS = "plots"

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~!&$^])")
"""What Markdown, its extensions or HTML could take for more than itself."""

_LIST_MARK = re.compile(r"^(\d*)([-+.)])(?=\s|$)")
"""What would begin a list where the text begins an item."""


def write(run: Run, folder: Path | None = None) -> Path:
    """Write the report into a folder, the run's own where none is named, and return the report's path.

    Written twice from the same run it is the same to the byte. A plot left from before that this run has no
    values for is taken away.
    """
    from bench.report import plots  # Matplotlib takes a second to import

    folder = folder or run.folder
    summary = summarise(run)
    drawn = plots.draw(run, summary)
    path = folder / REPORT
    try:
        (folder / PLOTS).mkdir(parents=True, exist_ok=True)
        for name in plots.NAMES:
            plot = folder / PLOTS / f"{name}.svg"
            if name in drawn:
                plot.write_bytes(drawn[name])
            else:
                plot.unlink(missing_ok=True)
        path.write_text(text(run, summary, frozenset(drawn)), encoding="utf-8", newline="\n")
    except OSError as error:
        raise RecordError(f"cannot write the report to {folder}: {error.strerror}.") from error
    return path


def text(run: Run, summary: Summary, drawn: frozenset[str]) -> str:
    """Return the report; `drawn` names the plots that exist, and no other is linked."""
    blocks = [
        f"# {QUESTION}",
        *([f"> **{escape(summary.mark)}**"] if summary.mark else []),
        f"On {escape(run.header.environment.in_words())}:",
        _bullets(summary.answer),
        *_machine(run),
        *_speed(summary, drawn),
        *_comparisons(summary),
        *_learning(summary, drawn),
        *_costs(drawn),
        *_parity(run, summary, drawn),
        *_missing(run, summary),
        "## What the labels mean",
        _bullets_escaped(f"**{escape(name)}**: {escape(meaning)}." for name, meaning in LABELS),
        *_modes(run),
        *_again(run),
    ]
    return "\n\n".join(blocks) + "\n"


def escape(raw: str) -> str:
    """Return text from a record as Markdown that shows just that text, on one line."""
    safe = _LIST_MARK.sub(r"\1\\\2", _SPECIAL.sub(r"\\\1", clean(raw)))
    # Addresses become links without any mark around them; an entity in the middle prevents it.
    safe = safe.replace("://", ":&#47;&#47;").replace("@", "&#64;")
    return re.sub(r"\bwww\.", "www&#46;", safe, flags=re.IGNORECASE)


def _machine(run: Run) -> list[str]:
    header = run.header
    environment = header.environment
    facts = [
        ("run", header.run_id),
        ("started", header.created_at),
        ("preset", f"{header.preset}, time budget {duration_text(header.budget_s)}, seed {header.seed}"),
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
        _grid(["what", "here"], [[name, said] for name, said in facts if said]),
    ]
    told = _told(run)
    if told:
        blocks += ["What the frameworks said of themselves while they ran:", _bullets_escaped(told)]
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
        "Each framework trained each workload in rounds called blocks, every time in a fresh process. A "
        "block's figure is the median over timed windows of steady training, without start-up and "
        f"evaluation; the table gives the mean over the blocks (of logarithms), and {PLUS_MINUS} is half "
        "the width of its 95 % interval by Student's t, given from three blocks on. A longer bar is faster; "
        "the colour tells the framework and the hatch the mode; a bar in grey crosshatch is not ranked.",
        *_plot("speed", "Throughput of every framework and mode with its interval, by workload", drawn),
    ]
    for table in tables(summary):
        blocks += [f"### {escape(table.title)}", _table(table)]
    return blocks


def _comparisons(summary: Summary) -> list[str]:
    blocks = [
        "## Who is faster, and how sure that is",
        "Two rows are compared by the ratio of their throughputs inside each block that both have "
        "(paired t test on logarithms). The best mode of each framework is compared with that of every "
        "other, and the modes of one framework with each other; inside each of these families the levels "
        "are set by Holm's method, and the interval of each ratio is made at its own level. A difference "
        "is claimed only where the interval leaves out 1. The last column is the difference that would "
        "have been found four times in five.",
    ]
    for verdict in summary.verdicts:
        blocks += [
            f"### {escape(f'{verdict.workload} ({verdict.device} {verdict.precision})')}",
            _bullets(verdict.sentences),
        ]
        if verdict.backends or verdict.modes:
            blocks.append(_comparison_table([*verdict.backends, *verdict.modes], summary))
    return blocks


def _comparison_table(comparisons: Sequence[Comparison], summary: Summary) -> str:
    rows = [
        [
            cell_name(one.faster, summary.titles),
            cell_name(one.slower, summary.titles),
            f"{one.ratio:.3f}{TIMES}",
            ratio_text(one.low, one.high),
            percent(1 - one.alpha, 1),
            f"{one.p_adjusted:.2g}",
            str(one.blocks),
            "faster" if one.differs else "no detectable difference",
            percent(one.detectable, 1),
        ]
        for one in comparisons
    ]
    heads = ["this", "against", "ratio", "interval", "level", "adjusted p", "blocks", "verdict", "detectable"]
    return _grid(heads, rows, numbers=frozenset({2, 3, 4, 5, 6, 8}))


def _learning(summary: Summary, drawn: frozenset[str]) -> list[str]:
    blocks = ["## Does it learn the same thing?"]
    trained = [row for row in summary.cells if row.trained_jobs]
    if not trained:
        return [*blocks, "No job of this run trained to its end, so nothing is said of accuracy."]
    blocks.append(
        "After the timed windows the network is set back to the same initial weights in every framework, "
        "trained with the same batches in the same order, and evaluated on the whole test split at every "
        "marker, first before any training. Curves that lie on each other mean that the frameworks learn "
        "the same; against seconds of training (evaluation left out) the faster one runs ahead. Seconds to "
        "target are those of the first evaluation at the target; a job that never got there is said so, "
        "not left out."
    )
    for name, alt in (
        ("accuracy_epochs", "Test accuracy against epochs, by workload"),
        ("accuracy_seconds", "Test accuracy against seconds of training, by workload"),
        ("loss_epochs", "Test loss against epochs, by workload"),
        ("loss_seconds", "Test loss against seconds of training, by workload"),
    ):
        blocks += _plot(name, alt, drawn)
    rows = [
        [
            row_name(row.cell, summary),
            NOTHING if row.epochs is None else f"{row.epochs:g}",
            percent(row.test_accuracy, 2),
            percent(row.target_accuracy, 0),
            NOTHING if row.epochs_to_target is None else f"{row.epochs_to_target:g}",
            seconds_text(row.seconds_to_target),
            NOTHING if row.target_accuracy is None else f"{row.jobs_at_target} of {row.trained_jobs}",
        ]
        for row in trained
    ]
    heads = [
        "row",
        "epochs",
        "test accuracy",
        "target",
        "epochs to it",
        "seconds to it",
        "jobs that got there",
    ]
    blocks.append(_grid(heads, rows, numbers=frozenset(range(1, 7))))
    return blocks


def _costs(drawn: frozenset[str]) -> list[str]:
    return [
        "## What it costs besides",
        "The first step is the first call of a training step in a fresh process: tracing and "
        "compilation, then one step; the bar is the median over the processes. Memory is the largest "
        "resident memory of the process up to the end of its timed windows, and on a GPU what the "
        "framework's own allocator held at most. "
        "Shorter is better. The figures are in the tables above.",
        *_plot("first_step", "Seconds of the first training step, by workload", drawn),
        *_plot("memory", "Largest resident memory of the process, by workload", drawn),
        *_plot("gpu_memory", "Largest memory of the framework's allocator on the GPU, by workload", drawn),
    ]


def _parity(run: Run, summary: Summary, drawn: frozenset[str]) -> list[str]:
    blocks = ["## Is it the same work?"]
    if not run.parity:
        return [*blocks, "No row was held to the reference in this run, so no row is ranked."]
    blocks.append(
        "Before a row is ranked, its framework is held to a reference in float64: from the same weights "
        "and batches it must give the same logits, loss, gradients, parameters after one step and after "
        "many, and losses on the way. Each figure is the largest relative error of its kind over the "
        "tolerance; a dot to the right of the red line fails, and such a row is shown but never ranked."
    )
    blocks += _plot("parity", "Largest error over tolerance of every kind of check, by workload", drawn)
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
    blocks.append(_grid(heads, rows, numbers=frozenset(range(2, 2 + len(kinds)))))
    blocks.append("Each cell reads error / tolerance, both relative.")
    return blocks


def _check_text(record: ParityRecord, kind: str) -> str:
    found: list[ParityCheck] = [check for check in record.checks if check.kind == kind]
    return ", ".join(f"{check.error:.1e} / {check.tolerance:.0e}" for check in found) or NOTHING


def _missing(run: Run, summary: Summary) -> list[str]:
    blocks = ["## What was not measured or not ranked, and why"]
    unranked = unranked_lines(summary)
    blocks.append(
        _bullets_escaped(f"**{escape(name)}**: {escape(why)}" for name, why in unranked)
        if unranked
        else "Every planned row was measured and ranked."
    )
    remarks = remark_lines(summary)
    if remarks:
        blocks.append("Ranked all the same, with jobs that failed:")
        blocks.append(_bullets_escaped(f"**{escape(name)}**: {escape(remark)}" for name, remark in remarks))
    if run.rejected:
        blocks.append("Lines of the record file that could not be read and are left out:")
        blocks.append(_bullets(run.rejected))
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
    return ["The modes, under the frameworks' own names:", _bullets_escaped(lines)] if lines else []


def _again(run: Run) -> list[str]:
    return [
        "## Run it again",
        _code(shlex.join(run.header.command)),
        f"with {escape(commit_text(run))} and "
        f"{escape(versions_text(run.header) or 'no framework installed')}. This report is made from the "
        "records beside it, which hold every raw value, by:",
        _code(f"bench report {shlex.quote(run.header.run_id)}"),
    ]


def _plot(name: str, alt: str, drawn: frozenset[str]) -> list[str]:
    return [f"![{alt}]({PLOTS}/{name}.svg)", f"*{alt}.*"] if name in drawn else []


def _table(table: Table) -> str:
    numbers = frozenset(place for place, column in enumerate(table.columns) if column.number)
    rows = [[column.cells[row] for column in table.columns] for row in range(len(table.ranked))]
    return _grid([column.title for column in table.columns], rows, numbers=numbers)


def _grid(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: frozenset[int] = frozenset()
) -> str:
    """Return a table of raw text; the columns in `numbers` are set flush right."""
    rules = ["--:" if place in numbers else ":--" for place in range(len(heads))]
    lines = [[escape(head) for head in heads], rules, *([escape(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _bullets(lines: Iterable[str]) -> str:
    return _bullets_escaped(escape(line) for line in lines)


def _bullets_escaped(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _code(command: str) -> str:
    """Return a shell-quoted command as a code block, which quoting keeps from beginning with a fence."""
    return f"```\n{clean(command)}\n```"
