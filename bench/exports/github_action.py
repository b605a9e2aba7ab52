"""JSON for the action github-action-benchmark, which draws figures by commit, and warns where one is worse.

Its two custom tools take a list of {name, value, unit, range, extra}; in one a larger value is better, in the
other a smaller one, so each figure is in the one it belongs to. Entries of two commits are the same figure if
their names are equal; a figure that is gone raises no alarm, which is why the share of trainings that reached
their target stands beside the seconds it took, and falls to 0 where these are no longer to be had.

Names are put into Markdown tables, between backticks, as they stand: they are made of safe characters alone.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from bench.analysis.convergence import CellConvergence, cell_convergence
from bench.analysis.summary import CellSummary, summarise
from bench.exports.names import data_words, dump, nothing, part
from bench.exports.timed import comparable
from bench.records.runs import Run
from bench.records.schema import JobRecord
from bench.report.format import PLUS_MINUS, commit_text
from bench.text import clean
from bench.workloads.specs import Cell


class _Figure(msgspec.Struct, frozen=True, kw_only=True):
    what: str
    value: float | None
    """None where it was not measured: it is left out, and never 0."""
    unit: str
    half_width: float | None = None


def to_bigger(run: Run) -> str:
    """Return the figures of which more is better; raise UsageError where there is none."""
    return _to_json(run, _bigger)


def to_smaller(run: Run) -> str:
    """Return the figures of which less is better; raise UsageError where there is none."""
    return _to_json(run, _smaller)


def _bigger(row: CellSummary, learned: CellConvergence | None) -> Iterator[_Figure]:
    yield _Figure(
        what="throughput",
        # Without a block that settled, the row's figure is of those that drifted.
        value=row.samples_per_s if row.blocks else None,
        unit="samples/s",
        half_width=_half(row.samples_per_s_low, row.samples_per_s_high),
    )
    if learned is not None:
        yield _Figure(
            what="test accuracy",
            value=_percent(learned.accuracy),
            unit="%",
            half_width=_percent(_half(learned.accuracy_low, learned.accuracy_high)),
        )
        if learned.crossings:
            yield _Figure(
                what="target reached", value=100 * learned.successes / len(learned.crossings), unit="%"
            )


def _smaller(row: CellSummary, learned: CellConvergence | None) -> Iterator[_Figure]:
    yield _Figure(what="first step", value=row.first_step_s, unit="s")
    yield _Figure(what="peak memory", value=_mib(row.peak_rss_bytes), unit="MiB")
    yield _Figure(what="peak GPU memory", value=_mib(row.peak_device_bytes), unit="MiB")
    if learned is not None:
        yield _Figure(what="time to target", value=learned.seconds_to_target, unit="s")


def _to_json(run: Run, figures: Any) -> str:
    jobs: dict[Cell, list[JobRecord]] = defaultdict(list)
    for job in run.jobs:
        jobs[job.spec.cell].append(job)
    entries = [
        _entry(row, figure, run)
        for row in summarise(run).cells
        if comparable(row)
        for figure in figures(row, cell_convergence(jobs[row.cell], row.target_accuracy))
        if figure.value is not None
    ]
    if not entries:  # the action fails on an empty list
        raise nothing(run, "figure for it of a cell that was not shown to be wrong")
    return dump(entries) + "\n"


def _entry(row: CellSummary, figure: _Figure, run: Run) -> dict[str, Any]:
    name = f"{part(row.workload)} {part(row.backend)}/{part(row.mode)} {row.device} {row.precision}"
    if data := data_words(run.header):
        name += f" ({data})"
    entry = {"name": f"{name}: {figure.what}", "unit": figure.unit, "value": figure.value}
    if figure.half_width is not None:
        # The action reads it back by /(\+-|±)\s*\d.+/ and converts it where the unit has changed.
        entry["range"] = f"{PLUS_MINUS} {figure.half_width!r}"
    return entry | {"extra": "\n".join(clean(line) for line in _remarks(row, run))}


def _remarks(row: CellSummary, run: Run) -> Iterable[str]:
    yield f"blocks: {row.blocks}"
    yield f"ranked: {'yes' if row.ranked else f'no: {row.why_not}'}"
    if row.mark:
        yield row.mark
    yield f"run: {run.header.run_id}"
    yield f"samework {commit_text(run)}"
    for backend in run.header.backends:
        if backend.name == row.backend and backend.versions:
            yield ", ".join(f"{name} {version}" for name, version in backend.versions.items())


def _half(low: float | None, high: float | None) -> float | None:
    return None if low is None or high is None else (high - low) / 2


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _mib(count: int | None) -> float | None:
    return None if count is None else count / 2**20
