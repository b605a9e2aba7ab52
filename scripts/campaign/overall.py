"""The reports over several parts: the reference runs, the validation, and the self-test across frameworks."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from bench.analysis.summary import Summary
from bench.records.runs import Run
from campaign import agreement, crossed_report, figures, log, reference, runs
from campaign.plan import LOADED_RUN, LONG_RUN, PARTS, REPEATED_RUNS
from campaign.records import Part


def of_reference(folder: Path, parts: Sequence[Part] = PARTS) -> str:
    """Return the report of the reference runs."""
    found, cpu = read_runs(folder, parts, (*REPEATED_RUNS, LONG_RUN, LOADED_RUN))
    return reference.report(found, repeated=REPEATED_RUNS, long=LONG_RUN, loaded=LOADED_RUN, cpu=cpu)


def of_validation(folder: Path, parts: Sequence[Part] = PARTS) -> str:
    """Return the report of the validation, which compares with the reference runs."""
    found, cpu = figures.read_agreement(folder, parts)
    return agreement.report(found, cpu=cpu)


def of_crossed(folder: Path, parts: Sequence[Part] = PARTS) -> str:
    """Return the report of the self-test across frameworks."""
    found, cpu = read_runs(folder, parts, (*REPEATED_RUNS, LONG_RUN))
    return crossed_report.report(found, repeated=REPEATED_RUNS, long=LONG_RUN, cpu=cpu)


REPORTS: Mapping[str, Callable[[Path, Sequence[Part]], str]] = MappingProxyType(
    {"REFERENCE.md": of_reference, "VALIDATION.md": of_validation, "CROSSED.md": of_crossed}
)
"""Each raises FigureError if a part that it needs is not done, and RecordError if CPUs are unequal."""


def read_runs(
    folder: Path, parts: Sequence[Part], names: Sequence[str]
) -> tuple[dict[str, tuple[Run, Summary]], str]:
    """Return the runs of these parts, and the CPU of all of them.

    Raises FigureError if a part is not done, and RecordError if CPUs are unequal.
    """
    records = figures.Records(folder, parts)
    used = [records.part(name) for name in names]
    log.refuse_unequal_cpus(used)
    return {name: runs.read(folder / name) for name in names}, used[0].cpu.in_words()
