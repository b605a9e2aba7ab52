"""JSON for the action github-action-benchmark, which draws values by commit, and alerts if one gets worse.

Its two custom tools take a list of {name, value, unit, range, extra}. In one a larger value is better, in the
other a smaller one. The action matches the entries of two commits by their names. A value that is missing
raises no alert. The share of training runs that reached the target is therefore exported next to the seconds:
it falls to 0 when the seconds are no longer known.

The action puts names unescaped into Markdown tables, between backticks, so they contain safe characters only.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from bench.analysis.convergence import CellConvergence, cell_convergence, is_too_brief
from bench.analysis.summary import CellSummary, summarise
from bench.exports.names import data_words, dump, nothing, part, rank_words
from bench.exports.timed import comparable
from bench.records.runs import Run
from bench.records.schema import JobRecord
from bench.report.format import PLUS_MINUS, commit_text
from bench.text import clean
from bench.workloads.specs import Cell


class _Value(msgspec.Struct, frozen=True, kw_only=True):
    what: str
    value: float | None
    """None if it was not measured; it is then left out."""
    unit: str
    half_width: float | None = None


def to_bigger(run: Run) -> str:
    """Return the values of which more is better; raise UsageError if there are none."""
    return _to_json(run, _bigger)


def to_smaller(run: Run) -> str:
    """Return the values of which less is better; raise UsageError if there are none."""
    return _to_json(run, _smaller)


def _bigger(row: CellSummary, learned: CellConvergence | None) -> Iterator[_Value]:
    yield _Value(
        what="throughput",
        # Without a block in steady state, the row's throughput is that of blocks that drifted.
        value=row.samples_per_s if row.blocks else None,
        unit="samples/s",
        half_width=_half(row.samples_per_s_low, row.samples_per_s_high),
    )
    if learned is not None:
        brief = learned.epochs is not None and is_too_brief(learned.epochs)
        yield _Value(
            what="test accuracy",
            value=None if brief else _percent(learned.accuracy),
            unit="%",
            half_width=_percent(_half(learned.accuracy_low, learned.accuracy_high)),
        )
        if learned.crossings:
            yield _Value(
                what="target reached", value=100 * learned.successes / len(learned.crossings), unit="%"
            )


def _smaller(row: CellSummary, learned: CellConvergence | None) -> Iterator[_Value]:
    yield _Value(what="first step", value=row.first_step_s, unit="s")
    yield _Value(what="peak memory", value=_mib(row.peak_rss_bytes), unit="MiB")
    yield _Value(what="peak GPU memory", value=_mib(row.peak_device_bytes), unit="MiB")
    if learned is not None:
        yield _Value(what="time to target", value=learned.seconds_to_target, unit="s")


def _to_json(run: Run, values: Any) -> str:
    jobs: dict[Cell, list[JobRecord]] = defaultdict(list)
    for job in run.jobs:
        jobs[job.spec.cell].append(job)
    entries = [
        _entry(row, value, run)
        for row in summarise(run).cells
        if comparable(row)
        for value in values(row, cell_convergence(jobs[row.cell], row.target_accuracy))
        if value.value is not None
    ]
    if not entries:  # the action fails on an empty list
        raise nothing(run, "value for this format in a row that did not lose parity")
    return dump(entries) + "\n"


def _entry(row: CellSummary, value: _Value, run: Run) -> dict[str, Any]:
    name = f"{part(row.workload)} {part(row.backend)}/{part(row.mode)} {row.device} {row.precision}"
    if ranks := rank_words(row, run.header):
        name += f" {ranks}"
    if data := data_words(run.header):
        name += f" ({data})"
    entry = {"name": f"{name}: {value.what}", "unit": value.unit, "value": value.value}
    if value.half_width is not None:
        # The action reads it with /(\+-|±)\s*\d.+/, and converts it if the unit has changed.
        entry["range"] = f"{PLUS_MINUS} {value.half_width!r}"
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
