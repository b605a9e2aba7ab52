"""A run on the terminal: tables, then what they mean in words, then what is missing and why."""

from rich.console import Console

from bench.analysis.summary import Summary
from bench.records.runs import Run
from bench.report.terminal import print_blocks
from bench.run.report import sections


def render(run: Run, summary: Summary, console: Console) -> None:
    """Print the run at the console's width; the words are the same with colour and without."""
    print_blocks(sections.short(run, summary), console)
