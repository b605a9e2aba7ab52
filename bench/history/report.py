"""Runs over time: a table of every series, and in words where its level changed; printed and as Markdown.

Change points are advice: they say where to look, and decide nothing.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.errors import RecordError
from bench.history.change_points import RECENT, SEGMENT, ChangePoint
from bench.history.entries import Entry, History, Measure
from bench.history.series import WORDS, Group, Point, Series, Shown, place_of
from bench.report.format import NOTHING, PLUS_MINUS, TIMES, width_text
from bench.report.markdown import PLOTS, bullets, escape, grid
from bench.report.terminal import print_encodable
from bench.store import write_durably
from bench.text import clean

REPORT = "HISTORY.md"
FEWEST = 2 * SEGMENT
"""Runs from which on a series can have a change point."""


# ---- on the terminal


def render(history: History, measure: Measure, groups: Sequence[Group], console: Console) -> None:
    """Print the history at the console's width; the words are the same with colour and without."""
    print_encodable(console, lambda: _render(history, measure, groups, console))


def _render(history: History, measure: Measure, groups: Sequence[Group], console: Console) -> None:
    _print(console, f"{WORDS[measure].title} of {span(history)}", "bold")
    for group in groups:
        _print(console, "")
        _print(console, _heading(group), "bold")
        if group.mark:
            _print(console, f"NOTE: {group.mark}", "bold yellow")
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for place, head in enumerate(_heads(measure)[1:]):
            table.add_column(
                Text(head), justify="right" if place + 1 in _NUMBERS else "left", overflow="fold"
            )
        for workload, rows in groupby(_rows(group, measure), key=lambda row: row[0]):
            table.add_row(Text(clean(workload)))
            for row in rows:
                name, *figures = map(clean, row[1:])
                table.add_row(Text(f"  {name}"), *map(Text, figures))
        console.print(table)
    _print(console, "")
    _print(console, _legend(measure), "dim")
    _print(console, "")
    for line in advice(groups, measure):
        _print(console, line)
    for line in left_out(history, groups, most=3):
        _print(console, line, "yellow")


def _print(console: Console, text: str, style: str = "") -> None:
    # Text, never markup: a name with brackets in it stays a name.
    console.print(Text(clean(text), style=style, overflow="fold"), highlight=False)


# ---- as Markdown


def write(folder: Path, history: History, measure: Measure, groups: Sequence[Group]) -> Path:
    """Write the report and a chart for every workload into a folder, and return the report's path."""
    from bench.history import plot

    charts = plot.draw(groups, measure)
    path = folder / REPORT
    try:
        (folder / PLOTS).mkdir(parents=True, exist_ok=True)
        for chart in charts:
            write_durably(folder / PLOTS / f"{chart.name}.svg", chart.content)
        captions = {chart.name: f"{WORDS[measure].title}: {chart.workload}" for chart in charts}
        write_durably(path, text(history, measure, groups, captions).encode())
    except OSError as error:
        raise RecordError(
            f"cannot write the history to {folder}: {error.strerror}. Name another folder with --output."
        ) from error
    return path


def text(history: History, measure: Measure, groups: Sequence[Group], captions: Mapping[str, str]) -> str:
    """Return the history as Markdown; `captions` are those of the charts that were drawn, by name."""
    blocks = [
        f"# {WORDS[measure].title} over time",
        escape(f"{WORDS[measure].title} of {span(history)}: {WORDS[measure].meaning}."),
        "## Where to look",
        bullets(advice(groups, measure)),
    ]
    for group in groups:
        blocks.append(f"## {escape(_heading(group))}")
        blocks += [f"**NOTE: {escape(group.mark)}**"] if group.mark else []
        blocks.append(grid(_heads(measure), _rows(group, measure), numbers=_NUMBERS))
    blocks.append(escape(_legend(measure)))
    if captions:
        blocks += ["## Charts", _CHARTS]
        blocks += [f"![{escape(caption)}]({PLOTS}/{name}.svg)" for name, caption in captions.items()]
    if missing := left_out(history, groups):
        blocks += ["## What is left out", bullets(missing)]
    blocks += [
        "## Runs",
        grid(
            ("run", "begun", "commit", "program", "frameworks"),
            [
                [
                    entry.run_id,
                    f"{entry.created_at:%Y-%m-%d %H:%M}",
                    _commit(entry),
                    entry.version,
                    _versions(entry),
                ]
                for entry in history.entries
            ],
        ),
    ]
    return "\n\n".join(blocks) + "\n"


_CHARTS = (
    "A strip is one row on one machine; its runs stand side by side in order of time. Up is more: the axis "
    f"is logarithmic, and 1{TIMES} is the median named beside it. A dashed red line is a change point, with "
    "the medians to either side as red lines; a grey cross is a run whose row lacks what a ranking needs: it "
    "counts for nothing."
)


# ---- in words


def span(history: History) -> str:
    """Return how many runs there are and when they were begun."""
    first, last = (history.entries[place].created_at for place in (0, -1))
    if len(history.entries) == 1:
        return f"one run, of {first:%Y-%m-%d}"
    return f"{len(history.entries)} runs, {first:%Y-%m-%d} to {last:%Y-%m-%d}"


def advice(groups: Sequence[Group], measure: Measure) -> list[str]:
    """Return every change point in a sentence, the latest first, and how many series have none."""
    found = [
        (
            _after(one, change).entry.created_at,
            _sentence(one, change, measure, group if len(groups) > 1 else None),
        )
        for group in groups
        for one in group.shown
        for change in one.changes
    ]
    found.sort(key=lambda pair: pair[0], reverse=True)
    counted = [one for group in groups for one in group.shown]
    short = sum(len(one.series.points) < FEWEST for one in counted)
    level = sum(not one.changes for one in counted) - short
    return [sentence for _, sentence in found] + [
        f"{count} series {what}."
        for count, what in (
            (level, "without a change of level"),
            (short, f"with fewer than {FEWEST} runs, too few to tell a change from noise"),
        )
        if count
    ]


def moves(one: Shown) -> str:
    """Return in a few words what became of a series."""
    if one.changes:
        return ", ".join(_move(change) for change in one.changes)
    return "no change" if len(one.series.points) >= FEWEST else "too few runs"


def left_out(history: History, groups: Sequence[Group], most: int | None = None) -> list[str]:
    """Return which rows of which runs count for nothing, and what could not be read; `most` names of each."""
    rows: dict[tuple[str, str], list[str]] = {}
    for one in (one for group in groups for one in group.shown):
        for point in one.series.apart:
            why = point.figures.why_not or "no reason recorded"
            rows.setdefault((point.entry.run_id, why), []).append(f"{place_of(one.series)} {one.name}")
    lines = []
    for (run_id, why), names in rows.items():
        told = names[:most]
        more = f" and {len(names) - len(told)} more" if len(told) < len(names) else ""
        lines.append(f"Does not count in {run_id}: {', '.join(told)}{more}: {why}.")
    unread = [f"Left out, as it cannot be read: {line}" for line in history.rejected[:most]]
    if len(unread) < len(history.rejected):
        unread.append(f"And {len(history.rejected) - len(unread)} more.")
    return lines + unread


def _sentence(one: Shown, change: ChangePoint, measure: Measure, group: Group | None) -> str:
    points = one.series.points
    before, after = points[change.index - 1].entry, points[change.index].entry
    words = WORDS[measure]
    where = f" on {group.machine.hostname} (machine {group.machine.key})" if group else ""
    became = _became(before, after, one.series.cell.backend)
    return (
        f"{place_of(one.series)}, {one.name}{where}: {words.figure} {_move(change)}, from "
        f"{words.full(math.exp(change.before))} to {words.full(math.exp(change.after))}, between "
        f"{before.run_id} ({_commit(before)}) and {after.run_id} ({_commit(after)})"
        f"{'; in between, ' + ', '.join(became) if became else ''}."
    )


def _after(one: Shown, change: ChangePoint) -> Point:
    return one.series.points[change.index]


def _move(change: ChangePoint) -> str:
    share = width_text(abs(change.ratio - 1))
    return f"{'fell' if change.ratio < 1 else 'rose'} by {share}"


def _became(before: Entry, after: Entry, backend: str) -> list[str]:
    """Return which versions of a framework, and of this program, two runs differ in."""
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


def _heads(measure: Measure) -> tuple[str, ...]:
    latest = WORDS[measure].unit or "latest"
    return ("workload", "framework", "runs", latest, PLUS_MINUS, "change", "advice")


def _heading(group: Group) -> str:
    cell = group.shown[0].series.cell
    kind = f"; {cell.device} {cell.precision}" if group.one_kind else ""
    return f"{group.machine.words} ({group.machine.hostname}, machine {group.machine.key}{kind})"


def _rows(group: Group, measure: Measure) -> list[list[str]]:
    return [
        [
            place_of(one.series, kind=not group.one_kind),
            one.name,
            str(len(one.series.points)),
            WORDS[measure].text(one.series.points[-1].value) if one.series.points else NOTHING,
            _half_width(one.series),
            _change(one.series.change),
            moves(one),
        ]
        for one in group.shown
    ]


def _half_width(one: Series) -> str:
    if not one.points:
        return NOTHING
    latest = one.points[-1]
    if latest.low is None or latest.high is None:
        return NOTHING
    return width_text((latest.high - latest.low) / (2 * latest.value))


def _change(ratio: float | None) -> str:
    # + 0.0, so that a change that rounds to zero is not printed as -0.0.
    return NOTHING if ratio is None else f"{round(100 * (ratio - 1), 1) + 0.0:+.1f} %"


def _legend(measure: Measure) -> str:
    words = WORDS[measure]
    interval = f"{PLUS_MINUS}: half the width of its 95 % interval; " if measure == "speed" else ""
    return (
        f"{words.title}: {words.meaning}. runs: those whose row has what a ranking needs. "
        f"{_heads(measure)[3]}: in the newest of them; {interval}change: against the median of all before. "
        "advice: where the level changed and stayed changed, by more than 2 % and by more than the scatter "
        f"from run to run explains, among the latest {RECENT} runs; a run that stands out alone is none, and "
        f"{SEGMENT} runs on either side are needed. It says where to look, and is no verdict. "
        f"{NOTHING}: no figure."
    )
