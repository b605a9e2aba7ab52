"""The page's section with every raw value: the figures and windows of each row, and files to keep."""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from bench.analysis.disturbance import in_quiet_rounds
from bench.analysis.statistics import log_rate, log_throughput
from bench.analysis.summary import CellSummary, Summary
from bench.records.runs import HEADER, RECORDS, Run
from bench.records.schema import STATUS_WORDS, JobRecord, Window
from bench.report.blocks import Block, Details, File, Group, Heading, Paragraph, Table
from bench.report.format import NOTHING, mode_name, rate_text, seconds_text
from bench.run.report.tables import row_name
from bench.run.report.tags import RowTags
from bench.text import clean

MOST_WINDOWS = 20_000
"""A run with more windows would make the page too large: it shows the rate of each block alone."""

_FILES = (
    (HEADER, "what was asked for, on which machine, with which versions"),
    (RECORDS, "every raw value, one record a line"),
)


def raw(run: Run, summary: Summary, *, beside: Path | None) -> list[Block]:
    """Return the section. It links the files of the run that lie in the folder `beside`, if there is one."""
    windows = sum(len(job.windows) for job in run.jobs)
    whole = windows <= MOST_WINDOWS
    jobs: dict[str, list[JobRecord]] = {}
    for job in run.jobs:
        jobs.setdefault(str(job.spec.cell), []).append(job)
    tags = RowTags(summary)
    missing = (
        ""
        if whole
        else f" The run has {windows:,} windows, too many for a page: {RECORDS} has the rate of each."
    )
    return [
        Heading(text="Every raw value"),
        Paragraph(
            text="Open a row to see each of its blocks and windows. Every throughput above follows from "
            f"these values; the records also hold training, times and memory.{missing}"
        ),
        *(File(name=name, text=what) for name, what in _FILES if _lies(beside, name, run)),
        File(name="rows.csv", text="the figures of every row", content=_rows(summary)),
        *(
            Group(
                blocks=(
                    Details(
                        summary=row_name(row.cell, summary),
                        blocks=tuple(_row(jobs.get(str(row.cell), []), row, whole=whole)),
                        bulky=True,
                    ),
                ),
                tags=tags.of(row.cell),
            )
            for row in summary.cells
        ),
    ]


def _lies(beside: Path | None, name: str, run: Run) -> bool:
    """Say whether a file of the run lies in a folder."""
    return beside is not None and beside.resolve() == run.folder.resolve() and (beside / name).is_file()


def _row(jobs: Sequence[JobRecord], row: CellSummary, *, whole: bool) -> Iterator[Block]:
    """Yield the blocks of a row, with every window if the page has room for them."""
    if not jobs:
        yield Paragraph(text=f"No job of this row ran: {row.why_not or 'no reason recorded'}.")
        return
    ordered = sorted(jobs, key=lambda job: (job.spec.block, job.started_at))
    heads = ("block", "seed", "status", "samples/s", "first step", "import", "windows")
    yield Table(
        heads=(*heads, "samples/s of each window") if whole else heads,
        rows=tuple((*_job(job), *((_rates(job.windows),) if whole else ())) for job in ordered),
        numbers=frozenset({0, 1, 3, 4, 5, 6}),
    )
    if whole and any(job.windows for job in ordered):
        name = "-".join((row.workload, row.backend, mode_name(row.cell), row.device, row.precision))
        yield File(
            name=f"{clean(name).replace('/', '-')}.csv",
            text="the windows of this row: block, window, samples, seconds",
            content=_csv(
                ("block", "window", "samples", "seconds"),
                (
                    (job.spec.block + 1, place, window.samples, f"{window.seconds:.5g}")
                    for job in ordered
                    for place, window in enumerate(job.windows, start=1)
                ),
            ),
        )


def _job(job: JobRecord) -> tuple[str, ...]:
    return (
        str(job.spec.block + 1),
        str(job.spec.seed),
        STATUS_WORDS[job.status],
        _throughput(job),
        seconds_text(job.first_step_s),
        seconds_text(job.import_s),
        str(len(job.windows)) if job.windows else NOTHING,
    )


def _throughput(job: JobRecord) -> str:
    """Return the figure of a block, as the summary derives it; a dash if its windows give none."""
    try:
        logs = [log_rate(window.samples, window.seconds) for window in in_quiet_rounds(job.windows)]
    except ValueError:
        return NOTHING
    return rate_text(math.exp(log_throughput(logs, max(1, job.spec.windows)))) if logs else NOTHING


def _rates(windows: Sequence[Window]) -> str:
    return " ".join(
        rate_text(window.samples / window.seconds) if window.seconds > 0 else NOTHING for window in windows
    )


def _rows(summary: Summary) -> str:
    """Return the most important figures of every row as CSV, without any rounding."""
    fields = (
        "workload", "backend", "mode", "level", "device", "precision", "ranks", "scaling", "status", "ranked",
        "parity_ok", "samples_per_s", "samples_per_s_low", "samples_per_s_high", "blocks", "first_step_s",
        "import_s", "epochs", "test_accuracy", "target_accuracy", "seconds_to_target", "peak_rss_bytes",
        "peak_device_bytes", "energy_per_1000_j",
    )  # fmt: skip
    return _csv(fields, ([getattr(row, field) for field in fields] for row in summary.cells))


def _csv(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return file.getvalue()


def _cell(value: object) -> object:
    """Return a value of a table; a text that a spreadsheet would compute gets a quote in front of it."""
    if value is None:
        return ""
    if not isinstance(value, str):
        return value
    text = clean(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
