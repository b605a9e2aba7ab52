"""The commands about runs over time: history add, history show."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from bench.history import entries as file
from bench.history import report
from bench.history.time_series import by_machine
from bench.options import EXIT_NOT_MEASURED, FILE, FOLDER, PathOption, where_results
from bench.records.runs import find_run, read_run
from bench.report.terminal import print_blocks
from bench.text import clean


@click.group(no_args_is_help=False)
def history() -> None:
    """Keep the metrics of runs over time, and show where they changed."""


@history.command()
@click.argument("name", metavar="RUN")
@click.option(
    "--history", "path", type=FILE, required=True, metavar="FILE",
    help="File to append to; created if missing.",
)  # fmt: skip
@click.option(
    "--host", metavar="NAME",
    help="Fixed name for the machine, for CI jobs whose machines get a new name each time.",
)  # fmt: skip
@where_results
def add(*, name: str, path: Path, host: str | None, results: Path) -> int:
    """Append the metrics of a run to a file, once; 3 if it has none."""
    run = read_run(find_run(results, name))
    _report_unreadable(f"{run.folder}: ", run.rejected)
    entry = file.entry_of(run, host)
    added = file.add(path, entry)
    known = file.read_file(path)
    _report_unreadable("", known.rejected)
    what = "added to" if added else "is already in"
    count = len(known.entries)
    click.echo(f"Run {clean(entry.run_id)} {what} {path}, which has {count} run{'' if count == 1 else 's'}.")
    if any(cell.samples_per_s is not None for cell in entry.cells):
        return 0
    click.echo("bench: none of its rows was measured.", err=True)
    return EXIT_NOT_MEASURED


@history.command()
@click.argument("where", metavar="[WHERE]", required=False, type=PathOption(), default=Path("results"))
@click.option(
    "--measure", "metric", type=click.Choice(["speed", "first-step", "accuracy", "memory"]), default="speed",
    show_default=True, help="Metric to show.",
)  # fmt: skip
@click.option(
    "--output", type=FOLDER, metavar="DIR",
    help="Also write report.html, HISTORY.md and its charts into this folder.",
)  # fmt: skip
def show(*, where: Path, metric: Any, output: Path | None) -> int:
    """Show how a metric developed from run to run, and where its level changed.

    WHERE is a file that bench history add wrote, or a folder of runs. [default: results]

    A change of level is advice: the exit status stays 0.
    """
    found = file.read(where)
    machines = by_machine(found, metric)
    if not machines:
        _report_unreadable("", found.rejected)
        what = (
            f"none of the runs in {where} has a value of {metric}" if found.entries else f"no run in {where}"
        )
        click.echo(
            f"bench: {what}. (bench run measures a run; bench history add puts it into a file)", err=True
        )
        return EXIT_NOT_MEASURED
    console = Console()
    print_blocks(report.short(found, metric, machines), console)
    if output is not None:
        path = report.write(output, found, metric, machines)
        console.print(f"Report: {path}", soft_wrap=True, highlight=False, markup=False)
    return 0


def _report_unreadable(where: str, rejected: Iterable[str]) -> None:
    for line in rejected:
        click.echo(f"bench: {clean(f'{where}left out, as it cannot be read: {line}')}", err=True)
