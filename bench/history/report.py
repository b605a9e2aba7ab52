"""The report on runs over time: a table of the time series, and a sentence for each change point.

Change points are advice: they show where to look and decide nothing.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from bench.errors import WriteError
from bench.history.change_points import FALSE_ALARMS, RECENT, SEGMENT, ChangePoint
from bench.history.charts import charts
from bench.history.entries import Entry, History, MetricName
from bench.history.time_series import WORDS, MachineHistory, RowHistory, TimeSeries, place_of
from bench.paths import refusal
from bench.report import page
from bench.report.blocks import Block, Heading, Note, Paragraph, Table, below, bullets, charts_of, section
from bench.report.format import NOTHING, PLUS_MINUS, percent, width_text
from bench.report.markdown import PLOTS, document
from bench.report.svg import write_charts
from bench.store import write_text

REPORT = "HISTORY.md"
FEWEST = 2 * SEGMENT
"""The smallest number of runs in which a time series can have a change point."""


def write(folder: Path, history: History, metric: MetricName, machines: Sequence[MachineHistory]) -> Path:
    """Write the report as Markdown and as a page, and a chart for every workload, into a folder.

    Return the path of the page.
    """
    blocks = full(history, metric, machines)
    path = folder / page.NAME
    try:
        drawn = write_charts(charts_of(blocks), folder / PLOTS)
        write_text(folder / REPORT, document(blocks, drawn))
        write_text(path, page.document(blocks, title=f"{WORDS[metric].title} over time"))
    except OSError as error:
        raise WriteError(
            f"cannot write the history to {folder}: {refusal(error, folder)}. "
            "Name another folder with --output."
        ) from error
    return path


def short(history: History, metric: MetricName, machines: Sequence[MachineHistory]) -> list[Block]:
    """Return what the terminal shows: the tables, then the advice and what is left out."""
    return [
        Heading(text=f"{WORDS[metric].title} of {span(history)}", level=1),
        *_tables(machines, metric),
        Heading(text=_ADVICE),
        bullets(advice(machines, metric)),
        *below(_LEFT_OUT, bullets(left_out(history, machines, most=3))),
    ]


def full(history: History, metric: MetricName, machines: Sequence[MachineHistory]) -> list[Block]:
    """Return the whole report."""
    drawn = charts(machines, metric)
    return [
        Heading(text=f"{WORDS[metric].title} over time", level=1),
        Paragraph(text=f"{WORDS[metric].title} of {span(history)}: {WORDS[metric].meaning}."),
        Heading(text=_ADVICE),
        bullets(advice(machines, metric)),
        *_tables(machines, metric),
        *(section("Charts", _CHARTS, *drawn) if drawn else []),
        *below(_LEFT_OUT, bullets(left_out(history, machines))),
        Heading(text="Runs"),
        _runs(history.entries),
    ]


def _tables(machines: Sequence[MachineHistory], metric: MetricName) -> list[Block]:
    """Return for every machine a table of each workload, and the legend."""
    found: list[Block] = []
    for machine in machines:
        found.append(Heading(text=_heading(machine)))
        found += [Note(text=machine.mark)] if machine.mark else []
        for place, rows in groupby(
            machine.rows, key=lambda row: place_of(row.series, kind=not machine.one_kind)
        ):
            found.append(Heading(text=place, level=3))
            found.append(
                Table(
                    heads=_heads(metric),
                    rows=tuple(_row(row, metric) for row in rows),
                    numbers=frozenset(range(1, 5)),
                )
            )
    return [*found, Paragraph(text=_legend(metric), faint=True)]


def _runs(entries: Iterable[Entry]) -> Table:
    return Table(
        heads=("run", "begun", "commit", "program", "frameworks"),
        rows=tuple(
            (
                entry.run_id,
                f"{entry.created_at:%Y-%m-%d %H:%M}",
                _commit(entry),
                entry.version,
                _versions(entry),
            )
            for entry in entries
        ),
    )


_ADVICE = "Where to look"
_LEFT_OUT = "What is left out"
_CHARTS = (
    "A chart shows the rows of one workload on one machine, each relative to its own median. Higher is more."
)


# ---- in words


def span(history: History) -> str:
    """Return the number of runs and the days on which the first and the last began."""
    first, last = (history.entries[place].created_at for place in (0, -1))
    if len(history.entries) == 1:
        return f"one run, of {first:%Y-%m-%d}"
    return f"{len(history.entries)} runs, {first:%Y-%m-%d} to {last:%Y-%m-%d}"


def advice(machines: Sequence[MachineHistory], metric: MetricName) -> list[str]:
    """Return a sentence for every change point, the latest first, and the numbers of series without one."""
    found = [
        (
            row.series.points[change.index].entry.created_at,
            _sentence(row, change, metric, machine if len(machines) > 1 else None),
        )
        for machine in machines
        for row in machine.rows
        for change in row.changes
    ]
    found.sort(key=lambda pair: pair[0], reverse=True)
    rows = [row for machine in machines for row in machine.rows]
    short = sum(len(row.series.points) < FEWEST for row in rows)
    level = sum(not row.changes for row in rows) - short
    counts = [
        f"{count} time series {what}."
        for count, what in (
            (level, "without a change of level"),
            (short, f"with fewer than {FEWEST} runs, too few to distinguish a change from noise"),
        )
        if count
    ]
    return [sentence for _, sentence in found] + counts + _false_alarms(len(rows) - short)


def _false_alarms(examined: int) -> list[str]:
    """Return how likely change points are by chance alone; nothing if no time series was examined."""
    if not examined:
        return []
    said = (
        f"By chance alone, at most {percent(FALSE_ALARMS, 0)} of time series without a change get a change "
        "point, if their values are independent"
    )
    if examined == 1:
        return [f"{said}."]
    at_least_one = percent(1 - (1 - FALSE_ALARMS) ** examined, 0)
    return [
        f"{said}; of {examined} time series at least one does with a probability of about {at_least_one}."
    ]


def moves(row: RowHistory) -> str:
    """Return the changes of a row in a few words."""
    if row.changes:
        return ", ".join(_move(change) for change in row.changes)
    return "no change" if len(row.series.points) >= FEWEST else "too few runs"


def left_out(history: History, machines: Sequence[MachineHistory], most: int | None = None) -> list[str]:
    """Return the rows that do not count, by run and reason, and what could not be read.

    `most` limits the names in a line and the number of unreadable lines.
    """
    names: dict[tuple[str, str], list[str]] = {}
    for row in (row for machine in machines for row in machine.rows):
        for point in row.series.excluded:
            why = point.figures.why_not or "no reason recorded"
            names.setdefault((point.entry.run_id, why), []).append(f"{place_of(row.series)} {row.name}")
    lines = []
    for (run_id, why), found in names.items():
        shown = found[:most]
        more = f" and {len(found) - len(shown)} more" if len(shown) < len(found) else ""
        lines.append(f"Does not count in {run_id}: {', '.join(shown)}{more}: {why}.")
    unread = [f"Left out, as it cannot be read: {line}" for line in history.rejected[:most]]
    if len(unread) < len(history.rejected):
        unread.append(f"And {len(history.rejected) - len(unread)} more.")
    return lines + unread


def _sentence(
    row: RowHistory, change: ChangePoint, metric: MetricName, machine: MachineHistory | None
) -> str:
    """Return a change point as a sentence, which names the machine only if it is given."""
    points = row.series.points
    before, after = points[change.index - 1].entry, points[change.index].entry
    words = WORDS[metric]
    where = f" on {machine.machine.hostname} (machine {machine.machine.key})" if machine else ""
    updates = _updates(before, after, row.series.cell.backend)
    return (
        f"{place_of(row.series)}, {row.name}{where}: {words.subject} {_move(change)}, from "
        f"{words.full(math.exp(change.before))} to {words.full(math.exp(change.after))}, between "
        f"{before.run_id} ({_commit(before)}) and {after.run_id} ({_commit(after)})"
        f"{'; in between, ' + ', '.join(updates) if updates else ''}."
    )


def _move(change: ChangePoint) -> str:
    share = width_text(abs(change.ratio - 1))
    return f"{'fell' if change.ratio < 1 else 'rose'} by {share}"


def _updates(before: Entry, after: Entry, backend: str) -> list[str]:
    """Return how the versions of a backend's distributions, and of this program, differ between two runs."""
    earlier, later = (
        {"samework": entry.version}
        | {
            name: version
            for one in entry.frameworks
            if one.name == backend
            for name, version in one.versions.items()
        }
        for entry in (before, after)
    )
    return [
        f"{name} {earlier.get(name, 'absent')} became {later.get(name, 'absent')}"
        for name in dict.fromkeys([*earlier, *later])
        if earlier.get(name) != later.get(name)
    ]


def _commit(entry: Entry) -> str:
    if entry.commit is None:
        return "commit not known"
    return f"commit {entry.commit[:12]}{' with changes' if entry.dirty else ''}"


def _versions(entry: Entry) -> str:
    return ", ".join(
        dict.fromkeys(
            f"{name} {version}" for one in entry.frameworks for name, version in one.versions.items()
        )
    )


# ---- the table


def _heads(metric: MetricName) -> tuple[str, ...]:
    latest = WORDS[metric].unit or "latest"
    return ("framework", "runs", latest, PLUS_MINUS, "change", "advice")


def _heading(machine: MachineHistory) -> str:
    cell = machine.rows[0].series.cell
    kind = f"; {cell.device} {cell.precision}" if machine.one_kind else ""
    return f"{machine.machine.words} ({machine.machine.hostname}, machine {machine.machine.key}{kind})"


def _row(row: RowHistory, metric: MetricName) -> tuple[str, ...]:
    points = row.series.points
    return (
        row.name,
        str(len(points)),
        WORDS[metric].text(points[-1].value) if points else NOTHING,
        _half_width(row.series),
        _change(row.series.change),
        moves(row),
    )


def _half_width(series: TimeSeries) -> str:
    if not series.points:
        return NOTHING
    latest = series.points[-1]
    if latest.low is None or latest.high is None:
        return NOTHING
    return width_text((latest.high - latest.low) / (2 * latest.value))


def _change(ratio: float | None) -> str:
    # + 0.0, so that a change that rounds to zero is not printed as -0.0.
    return NOTHING if ratio is None else f"{round(100 * (ratio - 1), 1) + 0.0:+.1f} %"


def _legend(metric: MetricName) -> str:
    words = WORDS[metric]
    interval = f"{PLUS_MINUS}: half the width of its 95 % interval; " if metric == "speed" else ""
    return (
        f"{words.title}: {words.meaning}. runs: those in which the row has what a ranking needs. "
        f"{_heads(metric)[2]}: in the newest of them; {interval}change: against the median of all before. "
        f"advice: where the level changed and stayed changed, among the latest {RECENT} runs, by more than "
        f"2 % and by more than the scatter from run to run explains. A change needs {SEGMENT} runs on either "
        "side, so a single outlier is never named. The advice shows where to look and is not a verdict. "
        f"{NOTHING}: not measured."
    )
