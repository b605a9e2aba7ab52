"""The short report of a run as REPORT.md: one screen, for a pull request or the summary of a CI job."""

from pathlib import Path

from bench.analysis.summary import Summary
from bench.errors import WriteError
from bench.paths import refusal
from bench.records.runs import Run
from bench.report.blocks import charts_of
from bench.report.markdown import PLOTS, document
from bench.report.svg import write_charts
from bench.run.report import short
from bench.store import write_text

REPORT = "REPORT.md"


def write(run: Run, summary: Summary, folder: Path | None = None) -> Path:
    """Write the report with its chart into `folder`, by default the run's own, and return the report's path.

    The same run always gives the same bytes.
    """
    folder = folder or run.folder
    blocks = short.in_markdown(run, summary)
    report = folder / REPORT
    try:
        drawn = write_charts(charts_of(blocks), folder / PLOTS)
        write_text(report, document(blocks, drawn))
    except OSError as error:
        raise WriteError(f"cannot write the report to {folder}: {refusal(error, folder)}.") from error
    return report
