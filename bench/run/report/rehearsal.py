"""Try all reports of a run before anything is measured, so that a fault at the end does not lose the run."""

import io
import tempfile
from pathlib import Path

from rich.console import Console

from bench.analysis.summary import summarise
from bench.records.runs import Run


def rehearse_run(run: Run, console: Console) -> None:
    """Make all reports of a run in its current state, and discard them."""
    from bench.run.report import markdown, page, terminal

    summary = summarise(run)
    terminal.render(run, summary, Console(file=io.StringIO(), width=console.width))
    with tempfile.TemporaryDirectory(prefix="rehearsal-", dir=run.folder) as folder:
        markdown.write(run, summary, Path(folder))
        page.write(run, summary, Path(folder))
