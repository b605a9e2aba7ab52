"""Runs over time, printed and as Markdown: a table of the time series, and a sentence for each change point.

Change points are advice: they show where to look and decide nothing.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.errors import WriteError
from bench.history.change_points import RECENT, SEGMENT, ChangePoint
from bench.history.entries import Entry, History, MetricName
from bench.history.time_series import WORDS, MachineHistory, RowHistory, TimeSeries, place_of
from bench.paths import refusal
from bench.report.format import NOTHING, PLUS_MINUS, TIMES, width_text
from bench.report.markdown import PLOTS, bullets, escape, grid
from bench.store import write_durably, write_text
from bench.text import clean

REPORT = "HISTORY.md"
FEWEST = 2 * SEGMENT
"""The smallest number of runs in which a time series can have a change point."""


# ---- on the terminal


def render(
    history: History, metric: MetricName, machines: Sequence[MachineHistory], console: Console
) -> None:
    """Print the history at the console's width; the words are the same with colour and without."""
    _print(console, f"{WORDS[metric].title} of {span(history)}", "bold")
    for machine in machines:
        _print(console, "")
        _print(console, _heading(machine), "bold")
        if machine.mark:
            _print(console, f"NOTE: {machine.mark}", "bold yellow")
        console.print(_table(machine, metric))
    _print(console, "")
    _print(console, _legend(metric), "dim")
    _print(console, "")
    for line in advice(machines, metric):
        _print(console, line)
    for line in left_out(history, machines, most=3):
        _print(console, line, "yellow")


def _table(machine: MachineHistory, metric: MetricName) -> Table:
    """Return the table for the terminal, in which a workload has a line of its own above its rows."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column, head in list(enumerate(_heads(metric)))[1:]:
        table.add_column(Text(head), justify="right" if column in _NUMBERS else "left", overflow="fold")
    for workload, rows in groupby(_rows(machine, metric), key=lambda row: row[0]):
        table.add_row(Text(clean(workload)))
        for row in rows:
            name, *values = map(clean, row[1:])
            table.add_row(Text(f"  {name}"), *map(Text, values))
    return table


def _print(console: Console, text: str, style: str = "") -> None:
    # Text and not markup, so that brackets in a name are printed.
    console.print(Text(clean(text), style=style, overflow="fold"), highlight=False)


# ---- as Markdown


def write(folder: Path, history: History, metric: MetricName, machines: Sequence[MachineHistory]) -> Path:
    """Write the report and a chart for every workload into a folder, and return the report's path."""
    from bench.history import plot

    charts = plot.draw(machines, metric)
    path = folder / REPORT
    try:
        (folder / PLOTS).mkdir(parents=True, exist_ok=True)
        for chart in charts:
            write_durably(folder / PLOTS / f"{chart.name}.svg", chart.content)
        captions = {chart.name: f"{WORDS[metric].title}: {chart.workload}" for chart in charts}
        write_text(path, text(history, metric, machines, captions))
    except OSError as error:
        raise WriteError(
            f"cannot write the history to {folder}: {refusal(error, folder)}. "
            "Name another folder with --output."
        ) from error
    return path


def text(
    history: History, metric: MetricName, machines: Sequence[MachineHistory], captions: Mapping[str, str]
) -> str:
    """Return the history as Markdown; `captions` has the caption of each chart by the chart's name."""
    blocks = [
        f"# {WORDS[metric].title} over time",
        escape(f"{WORDS[metric].title} of {span(history)}: {WORDS[metric].meaning}."),
        "## Where to look",
        bullets(advice(machines, metric)),
    ]
    for machine in machines:
        blocks.append(f"## {escape(_heading(machine))}")
        blocks += [f"**NOTE: {escape(machine.mark)}**"] if machine.mark else []
        blocks.append(grid(_heads(metric), _rows(machine, metric), numbers=_NUMBERS))
    blocks.append(escape(_legend(metric)))
    if captions:
        blocks += ["## Charts", _CHARTS]
        blocks += [f"![{escape(caption)}]({PLOTS}/{name}.svg)" for name, caption in captions.items()]
    if missing := left_out(history, machines):
        blocks += ["## What is left out", bullets(missing)]
    blocks += ["## Runs", _runs(history.entries)]
    return "\n\n".join(blocks) + "\n"


def _runs(entries: Iterable[Entry]) -> str:
    return grid(
        ("run", "begun", "commit", "program", "frameworks"),
        [
            [
                entry.run_id,
                f"{entry.created_at:%Y-%m-%d %H:%M}",
                _commit(entry),
                entry.version,
                _versions(entry),
            ]
            for entry in entries
        ],
    )


_CHARTS = (
    "Each strip shows one row on one machine, with its runs side by side in order of time. Higher is more. "
    f"The axis is logarithmic, and 1{TIMES} is the median named above the strip. A dashed red line is a "
    "change point, and the red lines on either side of it are the medians there. A grey cross is a run in "
    "which the row lacks what a ranking needs; it does not count."
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
    return [sentence for _, sentence in found] + [
        f"{count} time series {what}."
        for count, what in (
            (level, "without a change of level"),
            (short, f"with fewer than {FEWEST} runs, too few to distinguish a change from noise"),
        )
        if count
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


_NUMBERS = frozenset(range(2, 6))


def _heads(metric: MetricName) -> tuple[str, ...]:
    latest = WORDS[metric].unit or "latest"
    return ("workload", "framework", "runs", latest, PLUS_MINUS, "change", "advice")


def _heading(machine: MachineHistory) -> str:
    cell = machine.rows[0].series.cell
    kind = f"; {cell.device} {cell.precision}" if machine.one_kind else ""
    return f"{machine.machine.words} ({machine.machine.hostname}, machine {machine.machine.key}{kind})"


def _rows(machine: MachineHistory, metric: MetricName) -> list[list[str]]:
    return [
        [
            place_of(row.series, kind=not machine.one_kind),
            row.name,
            str(len(row.series.points)),
            WORDS[metric].text(row.series.points[-1].value) if row.series.points else NOTHING,
            _half_width(row.series),
            _change(row.series.change),
            moves(row),
        ]
        for row in machine.rows
    ]


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
        f"{_heads(metric)[3]}: in the newest of them; {interval}change: against the median of all before. "
        f"advice: where the level changed and stayed changed, among the latest {RECENT} runs, by more than "
        f"2 % and by more than the scatter from run to run explains. A change needs {SEGMENT} runs on either "
        "side, so a single outlier is never named. The advice shows where to look and is not a verdict. "
        f"{NOTHING}: not measured."
    )
