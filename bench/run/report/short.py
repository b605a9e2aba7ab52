"""The short report of a run: the answer, the rows, what is missing, and where there is more.

The terminal shows it with a table for each workload. REPORT.md has one table of them all, and a picture.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from bench.analysis.comparison import Comparison, GroupKey, Verdict
from bench.analysis.scaling import read_scaling
from bench.analysis.summary import CellSummary, Summary
from bench.records.runs import RECORDS, Run
from bench.report.blocks import (
    Block,
    Bullets,
    Code,
    Heading,
    Item,
    Note,
    Paragraph,
    Table,
    below,
)
from bench.report.format import (
    NOTHING,
    PLUS_MINUS,
    TIMES,
    cell_name,
    mode_name,
    percent,
    rate_text,
    seconds_text,
    width_text,
    workload_name,
)
from bench.run.outlook import in_words, outlook
from bench.run.report import charts, scaling_short
from bench.run.report.answer import LONGEST_NAME, answer
from bench.run.report.sentences import placebo_sentence
from bench.run.report.tables import state
from bench.run.untrained import command_to_train, untrained
from bench.store import ARCHIVE
from bench.text import clean, cut, duration, listed
from bench.workloads.specs import Cell

TITLE = "Which framework trains fastest here?"
PAGE = "report.html"
"""The file of the whole report, beside the records."""
MOST_LINES = 6
"""Most lines about what is missing, of each kind; the page has all."""
LONGEST_REASON = 160
"""Most characters of a reason; the page has all of it."""

_HEADS = ("row", "samples/s", PLUS_MINUS, "vs best", "verdict")
_NUMBERS = frozenset({1, 2, 3})
_LEGEND = (
    f"samples/s: images trained per second. {PLUS_MINUS}: half the width of its 95 % interval. A verdict "
    "compares rows turn by turn, which is more precise; unclear: no difference is proven."
)


def on_terminal(run: Run, summary: Summary) -> list[Block]:
    """Return the report for a terminal: every row, in a table for each workload."""
    return [
        Paragraph(text=_here(run, summary), faint=True),
        *_notes(summary),
        Bullets(items=answer(run, summary)),
        *_tables(summary),
        *_scaling(run, summary),
        *_targets(summary),
        *_placebo(summary),
        *_missing(run, summary),
        *_more(run, summary, folder=True),
    ]


def in_markdown(run: Run, summary: Summary) -> list[Block]:
    """Return the report for one screen: one row for each framework and group, and a picture."""
    rows, others = _chosen(summary)
    of_modes = f" {PAGE} has {others} more rows, of other modes." if others else ""
    legend = Paragraph(text=f"{_LEGEND}{of_modes}", faint=True)
    shown: list[Block] = [_table_of_all(rows, summary), legend] if rows else []
    return [
        Heading(text=TITLE, level=1),
        *_notes(summary),
        Paragraph(text=f"{_here(run, summary)}:"),
        Bullets(items=answer(run, summary)),
        *shown,
        *([picture] if (picture := charts.overview(run, summary)) else ()),
        *_scaling(run, summary),
        *_targets(summary),
        *_placebo(summary),
        *_missing(run, summary),
        *_more(run, summary),
    ]


def _here(run: Run, summary: Summary) -> str:
    """Return in a line where and how it was measured."""
    header = run.header
    kinds = dict.fromkeys(f"{row.device} {row.precision}" for row in summary.cells)
    parts = [header.environment.in_words(), *kinds, f"preset {header.preset}", duration(header.budget_s)]
    threads = header.environment.threads_in_words()
    here = f"{cut(header.run_id, LONGEST_NAME)} on {', '.join(cut(part, LONGEST_REASON) for part in parts)}"
    return f"{here}. {threads}" if threads else here


def _notes(summary: Summary) -> list[Block]:
    return [
        *([Note(text=summary.mark)] if summary.mark else []),
        *(Note(text=warning, warning=True) for warning in summary.warnings),
    ]


# ---- the rows


def _tables(summary: Summary) -> list[Block]:
    """Return a heading and a table for each group of rows, and their legend."""
    names = _names(summary)
    found: list[Block] = []
    for key, group in groupby(summary.cells, key=lambda row: row.group):
        rows = list(group)
        found.append(Heading(text=names[key], level=3))
        found.append(
            Table(
                heads=_HEADS,
                rows=tuple(_every(rows, summary)),
                numbers=_NUMBERS,
                flagged=frozenset(number for number, row in enumerate(rows) if not row.ranked),
                details=3,
            )
        )
    return [*found, Paragraph(text=_LEGEND, faint=True)] if found else []


def _table_of_all(rows: Sequence[CellSummary], summary: Summary) -> Table:
    """Return one table of rows of all workloads, in which each workload is named once."""
    names = _names(summary)
    keys = [row.group for row in rows]
    return Table(
        heads=("workload", *_HEADS),
        rows=tuple(
            (names[key] if key != before else "", *cells)
            for key, before, cells in zip(keys, (None, *keys), _every(rows, summary), strict=False)
        ),
        numbers=frozenset(number + 1 for number in _NUMBERS),
    )


def _names(summary: Summary) -> dict[GroupKey, str]:
    """Return the name of each group of rows: with device and precision if the run has several of them."""
    several = len({(row.device, row.precision) for row in summary.cells}) > 1
    return {
        row.group: _workload(row) + (f" ({row.device} {row.precision})" if several else "")
        for row in summary.cells
    }


def _row(row: CellSummary, summary: Summary) -> str:
    return cut(cell_name(row.cell, summary.titles), LONGEST_NAME)


def _workload(row: CellSummary) -> str:
    key = row.group
    return workload_name(cut(key.workload, LONGEST_NAME), key.level, key.ranks, key.scaling)


def _chosen(summary: Summary) -> tuple[list[CellSummary], int]:
    """Return one row for each framework and group, and how many others there are.

    It is the row that stands for its framework in the verdict; else the first, which is the fastest.
    """
    picked = {pick.cell for verdict in summary.verdicts for pick in verdict.picks}
    chosen: dict[tuple[GroupKey, str], CellSummary] = {}
    for row in summary.cells:
        place = row.group, row.backend
        if place not in chosen or row.cell in picked:
            chosen[place] = row
    kept = {row.cell for row in chosen.values()}
    rows = [row for row in summary.cells if row.cell in kept]
    return rows, len(summary.cells) - len(rows)


def _every(rows: Sequence[CellSummary], summary: Summary) -> Iterator[tuple[str, ...]]:
    """Yield the cells of each row; `rows` have any number of workloads."""
    best = {row.group: row.samples_per_s for row in reversed(summary.cells) if row.ranked}
    verdicts = {cell: verdict for verdict in summary.verdicts for cell in verdict.order}
    for row in rows:
        fastest = best.get(row.group)
        relative = NOTHING
        if row.ranked and row.samples_per_s is not None and fastest is not None:
            relative = f"{row.samples_per_s / fastest:.2f}{TIMES}"
        yield (
            _row(row, summary),
            rate_text(row.samples_per_s),
            width_text(row.half_width),
            relative,
            verdict_words(row, verdicts.get(row.cell)),
        )


def verdict_words(row: CellSummary, verdict: Verdict | None) -> str:
    """Return the verdict on a row in at most three words: against other frameworks, or its own other modes.

    `verdict` is the one in which the row is ranked; None if it is not ranked.
    """
    if not row.ranked or verdict is None:
        return state(row)
    cell = row.cell
    if verdict.disturbed:
        return "disturbed"
    if cell == verdict.winner:
        return "fastest"
    picked = {pick.cell for pick in verdict.picks}
    if cell in picked:
        return _among_frameworks(cell, verdict.made.backends, alone=len(picked) == 1)
    return _among_modes(cell, [one for one in verdict.made.modes if {one.faster, one.slower} & picked])


def _among_frameworks(cell: Cell, made: Sequence[Comparison], *, alone: bool) -> str:
    """Return the verdict on a row that stands for its framework and is not the fastest."""
    kinds = {one.kind for one in made if one.slower == cell and one.differs}
    if kinds:
        return "slower" if "faster" in kinds else "slightly slower"
    own = [one for one in made if cell in (one.faster, one.slower)]
    if not own:
        return "the only one" if alone else "not compared"
    return "unclear" if any(one.kind == "undecided" for one in own) else "joint fastest"


def _among_modes(cell: Cell, made: Sequence[Comparison]) -> str:
    """Return the verdict on a row against the mode that stands for its framework."""
    for one in made:
        if cell not in (one.faster, one.slower):
            continue
        other = one.slower if one.faster == cell else one.faster
        if one.differs:
            return f"{'faster' if one.faster == cell else 'slower'} than {mode_name(other)}"
        if one.kind == "equivalent":
            return f"as fast as {mode_name(other)}"
    return "unclear"


def _targets(summary: Summary) -> list[Block]:
    """Return a line for each workload with a target: how long each row trained to reach it."""
    names = _names(summary)
    lines = []
    for key, group in groupby(summary.cells, key=lambda row: row.group):
        rows = [row for row in group if row.target_accuracy is not None and row.trained_jobs]
        if rows:
            times = [f"{_row(row, summary)} {_to_target(row)}" for row in rows]
            what = f"Training to {percent(rows[0].target_accuracy, 1)} on {names[key]}"
            lines.append(Item(name=what, text=f"{', '.join(times)}."))
    return [Bullets(items=tuple(lines))] if lines else []


def _to_target(row: CellSummary) -> str:
    return "did not reach it" if row.seconds_to_target is None else seconds_text(row.seconds_to_target)


def _scaling(run: Run, summary: Summary) -> list[Block]:
    return scaling_short.short_blocks(run, read_scaling(run, summary), summary.titles)


def _placebo(summary: Summary) -> list[Block]:
    said = placebo_sentence(summary)
    return [] if said is None else [Bullets(items=(Item(name="Placebo", text=said),))]


# ---- what is missing, and where there is more


def _missing(run: Run, summary: Summary) -> list[Block]:
    """Return a line for everything that is missing; nothing if all is there."""
    lines = [
        *_unranked(summary),
        *_failed(summary),
        *_disturbed(summary),
        *_limited([Item(name="Not readable", text=f"{_reason(line)}.") for line in run.rejected]),
    ]
    if names := untrained(run):
        lines.append(
            Item(
                name="Not trained for accuracy",
                text=f"{listed([cut(name, LONGEST_NAME) for name in names])}.",
            )
        )
    return below("Missing", Bullets(items=tuple(lines)))


def _unranked(summary: Summary) -> list[Item]:
    """Return a line for each reason why rows are not ranked, with these rows.

    The reference and rows of own defaults are never ranked, which their verdicts say.
    """
    reasons: dict[str, dict[str, list[str]]] = {}
    every = Counter(map(_workload, summary.cells))
    for row in summary.cells:
        if row.ranked or (row.measured and (row.reference or not row.matched)):
            continue
        places = reasons.setdefault(row.why_not or "no reason recorded", {})
        places.setdefault(_row(row, summary), []).append(_workload(row))
    return _limited(
        [
            Item(name="Not ranked", text=f"{_on(places, every)}: {_reason(why)}.")
            for why, places in reasons.items()
        ]
    )


def _on(places: Mapping[str, Sequence[str]], every: Mapping[str, int]) -> str:
    """Return which rows are meant, from the workloads of each: `JAX jit and PyTorch eager on mnist-cnn`.

    `every` is the number of rows of each workload.
    """
    together: dict[tuple[str, ...], list[str]] = {}
    for name, workloads in places.items():
        together.setdefault(tuple(workloads), []).append(name)
    return "; ".join(
        f"{'every row' if {every[name] for name in on} == {len(names)} else listed(names)} on {listed(on)}"
        for on, names in together.items()
    )


def _failed(summary: Summary) -> list[Item]:
    return _limited(
        [
            Item(
                name="Ranked, with failures",
                text=f"{_row(row, summary)} on {_workload(row)}: {row.failed_jobs} of "
                f"{row.failed_jobs + row.blocks} jobs failed.",
            )
            for row in summary.cells
            if row.ranked and row.failed_jobs
        ]
    )


def _disturbed(summary: Summary) -> list[Item]:
    """Return how many blocks were disturbed, and how many of them were left out."""
    screenings = summary.screenings.values()
    disturbed = sum(len(one.tainted) for one in screenings)
    if not disturbed:
        return []
    blocks = sum(one.blocks for one in screenings)
    dropped = sum(len(one.dropped) for one in screenings)
    were = "was disturbed" if disturbed == 1 else "were disturbed"
    return [
        Item(
            name="Disturbed",
            text=f"{disturbed} of {blocks} blocks {were}; {dropped or 'none'} of them left out.",
        )
    ]


def _limited(lines: list[Item]) -> list[Item]:
    """Return the first lines, and how many more the page has."""
    if len(lines) <= MOST_LINES:
        return lines
    rest = len(lines) - MOST_LINES + 1
    return [*lines[: MOST_LINES - 1], Item(name=lines[0].name, text=f"{rest} more, in {PAGE}.")]


def _reason(said: str) -> str:
    """Return a reason without its full stop, and without its end if it is long."""
    line = clean(said).rstrip(".")
    return line if len(line) <= LONGEST_REASON else f"{cut(line, LONGEST_REASON)} ({PAGE} has all)"


def _more(run: Run, summary: Summary, *, folder: bool = False) -> list[Block]:
    """Return how to get narrower intervals, accuracies, and the rest of the report.

    `folder` says that the report does not lie in the folder of the run, so that it must name it.
    """
    expected = outlook(run, summary)
    archived = not (run.folder / RECORDS).is_file() and (run.folder.parent / ARCHIVE).is_file()
    lines = [
        Item(text="" if expected is None else in_words(expected)),
        Item(name=PAGE, text="charts, learning, costs, parity, and how it was measured.", file=PAGE),
        Item(
            name=RECORDS,
            text=f"every raw value{f', in {ARCHIVE}' if archived else ''}.",
            file=f"../{ARCHIVE}" if archived else RECORDS,
        ),
        *([Item(name="Folder of the run", text=str(run.folder))] if folder and run.folder.name else []),
    ]
    found: list[Block] = [Heading(text="More"), Bullets(items=tuple(line for line in lines if line.text))]
    if names := untrained(run):
        command = command_to_train(run, names, seeds=run.header.seeds)
        found += [Paragraph(text="To train the rest for accuracy:"), Code(text=command)]
    return found
