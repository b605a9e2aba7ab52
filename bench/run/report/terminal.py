"""A run on the terminal: the answer, the rows, and what is missing."""

from rich.console import Console

from bench.analysis.summary import Summary
from bench.records.runs import Run
from bench.report.terminal import print_blocks
from bench.run.report import short


def render(run: Run, summary: Summary, console: Console) -> None:
    """Print the run at the console's width; the words are the same with colour and without."""
    print_blocks(short.on_terminal(run, summary), console)
