"""The report of a run as REPORT.md with its plots beside it, for a reader who was not there."""

from pathlib import Path

from bench.analysis.summary import Summary
from bench.errors import WriteError
from bench.paths import refusal
from bench.records.runs import Run
from bench.report.markdown import PLOTS, document
from bench.run.report import sections
from bench.store import write_durably, write_text

REPORT = "REPORT.md"


def write(run: Run, summary: Summary, folder: Path | None = None) -> Path:
    """Write the report into `folder`, by default the run's own, and return the report's path.

    The same run always gives the same bytes. A plot of an earlier report is removed if the run has no values
    for it.
    """
    from bench.run.report import plots

    folder = folder or run.folder
    drawn = plots.draw(run, summary)
    report = folder / REPORT
    try:
        (folder / PLOTS).mkdir(parents=True, exist_ok=True)
        for name in plots.NAMES:
            path = folder / PLOTS / f"{name}.svg"
            if name in drawn:
                write_durably(path, drawn[name])
            else:
                path.unlink(missing_ok=True)
        write_text(report, text(run, summary, frozenset(drawn)))
    except OSError as error:
        raise WriteError(f"cannot write the report to {folder}: {refusal(error, folder)}.") from error
    return report


def text(run: Run, summary: Summary, drawn: frozenset[str]) -> str:
    """Return the report; `drawn` names the plots that exist, and no other is linked."""
    return document(sections.whole(run, summary), drawn)
