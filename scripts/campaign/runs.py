"""What the campaign's runs publish, as its own records: ratios of frameworks, with their intervals."""

import math
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bench.analysis.comparison import Comparison
from bench.analysis.summary import Summary, summarise
from bench.records.runs import Run, read_run


class RunRatio(msgspec.Struct, frozen=True, kw_only=True):
    """How many times as fast as `second` `first` is in a run, in their default modes."""

    run: str
    workload: str
    first: str
    """A backend, like `second`."""
    second: str
    log: float
    """ln of the ratio."""
    standard_error: float
    """Of `log`."""
    degrees: float
    low: float
    """The run's own 95 % interval of the ratio."""
    high: float
    plain_log: float
    """ln of the ratio of samples over seconds, in the same rounds and with nothing trimmed."""


def read(folder: Path) -> tuple[Run, Summary]:
    """Return a run and what is derived from it."""
    run = read_run(folder)
    return run, summarise(run)


def default_ratios(name: str, run: Run, summary: Summary) -> tuple[RunRatio, ...]:
    """Return the ratios that a run publishes of its backends' default modes, each pair once.

    `first` comes before `second` in the alphabet. A workload that was disturbed gives none.
    """
    modes = {backend.name: backend.default_mode for backend in run.header.backends}
    return tuple(
        _oriented(name, one)
        for one in _comparisons(summary)
        if one.kind != "disturbed"
        and all(cell.mode == modes[cell.backend] for cell in (one.faster, one.slower))
        and one.faster.backend != one.slower.backend
    )


def _comparisons(summary: Summary) -> Iterator[Comparison]:
    for verdict in summary.verdicts:
        if verdict.level == "tuned":
            yield from verdict.made.backends


def _oriented(name: str, one: Comparison) -> RunRatio:
    turned = one.faster.backend > one.slower.backend
    first, second = (one.slower, one.faster) if turned else (one.faster, one.slower)
    sign = -1.0 if turned else 1.0
    ends = (1 / one.high, 1 / one.low) if turned else (one.low, one.high)
    return RunRatio(
        run=name,
        workload=one.faster.workload,
        first=first.backend,
        second=second.backend,
        log=sign * math.log(one.ratio),
        standard_error=one.standard_error,
        degrees=one.blocks - 1,
        low=ends[0],
        high=ends[1],
        plain_log=sign * math.log(one.plain),
    )
