"""Both reports of a run, tried before anything is measured: a run must not be lost at its end."""

import io
import tempfile
from pathlib import Path

from rich.console import Console

from bench.analysis.summary import summarise
from bench.records.runs import Run


def rehearse_run(run: Run, console: Console) -> None:
    """Make both reports of a run as it is now, without keeping them."""
    from bench.run.report import markdown, terminal

    summary = summarise(run)
    terminal.render(run, summary, Console(file=io.StringIO(), width=console.width))
    with tempfile.TemporaryDirectory(prefix="rehearsal-", dir=run.folder) as folder:
        markdown.write(run, summary, Path(folder))
