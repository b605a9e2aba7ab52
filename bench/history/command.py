"""The commands about runs over time: history add, history show."""

from pathlib import Path
from typing import Any

import click
from rich.console import Console

from bench.history import entries as keeping
from bench.history import report as reporting
from bench.history.entries import add as append
from bench.history.entries import entry_of, read_file
from bench.history.series import groups_of
from bench.options import EXIT_NOT_MEASURED, where_results
from bench.records.runs import find_run, read_run
from bench.text import clean


@click.group(no_args_is_help=False)
def history() -> None:
    """Keep the figures of runs over time, and show where they changed."""


@history.command()
@click.argument("name", metavar="RUN")
@click.option(
    "--history", "path", type=click.Path(path_type=Path, dir_okay=False), required=True, metavar="FILE",
    help="File to append to, made where there is none.",
)  # fmt: skip
@click.option(
    "--host", metavar="NAME",
    help="Name to take for the machine's own, where every job runs on a machine of a new name.",
)  # fmt: skip
@where_results
def add(*, name: str, path: Path, host: str | None, results: Path) -> int:
    """Append the figures of a run to a file, once; 3 where it has none."""
    found = read_run(find_run(results, name))
    for line in found.rejected:
        said = f"{found.folder}: left out, as it cannot be read: {line}"
        click.echo(f"bench: {clean(said)}", err=True)
    entry = entry_of(found, host)
    added = append(path, entry)
    known = read_file(path)
    for line in known.rejected:
        click.echo(f"bench: left out, as it cannot be read: {clean(line)}", err=True)
    what = "added to" if added else "is already in"
    count = len(known.entries)
    click.echo(f"Run {clean(entry.run_id)} {what} {path}, which has {count} run{'' if count == 1 else 's'}.")
    if any(cell.samples_per_s is not None for cell in entry.cells):
        return 0
    click.echo("bench: no row of it has a figure.", err=True)
    return EXIT_NOT_MEASURED


@history.command()
@click.argument(
    "where", metavar="[WHERE]", required=False, type=click.Path(path_type=Path), default=Path("results")
)
@click.option(
    "--measure", type=click.Choice(["speed", "first-step", "accuracy", "memory"]), default="speed",
    show_default=True, help="Figure to show.",
)  # fmt: skip
@click.option(
    "--output", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
    help="Write HISTORY.md and its charts into this folder, too.",
)  # fmt: skip
def show(*, where: Path, measure: Any, output: Path | None) -> int:
    """Show how figures went from run to run, and where their level changed.

    WHERE is a file that bench history add wrote, or a folder of runs. [default: results]

    A change of level is advice: the exit status is 0 all the same.
    """
    found = keeping.read(where)
    groups = groups_of(found, measure) if found.entries else []
    if not groups:
        for line in found.rejected:
            click.echo(f"bench: left out, as it cannot be read: {clean(line)}", err=True)
        what = (
            f"none of the runs in {where} has a figure of {measure}"
            if found.entries
            else f"no run in {where}"
        )
        click.echo(
            f"bench: {what}. (bench history add puts runs into a file; bench run makes them)", err=True
        )
        return EXIT_NOT_MEASURED
    console = Console()
    reporting.render(found, measure, groups, console)
    if output is not None:
        path = reporting.write(output, found, measure, groups)
        console.print(f"Report: {path}", soft_wrap=True, highlight=False, markup=False)
    return 0
