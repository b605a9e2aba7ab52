"""The command `report`: a run, or several beside each other, on the terminal and in files."""

from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console

from bench.analysis.summary import Summary, summarise
from bench.cli import several
from bench.errors import UsageError, WriteError
from bench.options import FILE, where_results
from bench.paths import refusal
from bench.records.runs import RECORDS, Run, find_run, read_run
from bench.report.page import NAME
from bench.report.terminal import print_blocks
from bench.run.report import export, markdown, page, terminal
from bench.store import ARCHIVE, resumable, write_text
from bench.text import clean


@click.command()
@click.argument("names", metavar="[RUN]...", nargs=-1)
@click.option(
    "--format", "form", type=click.Choice(["html", "terminal", "markdown", "json", "verdicts"]),
    default="html", show_default=True,
    help="html prints the run and writes report.html; terminal only prints; markdown writes REPORT.md, json "
    "prints the rows, verdicts the comparisons as JSON.",
)  # fmt: skip
@click.option(
    "--output", type=FILE, metavar="FILE",
    help="File of the page. [default: in the folder of the run; of several runs, in that of the results]",
)  # fmt: skip
@where_results
def report(names: tuple[str, ...], form: str, output: Path | None, results: Path) -> int:
    """Show a run, by default the newest, or several on one page, each compared with the first.

    The page, report.html, is one file that needs no network.
    """
    folders = [find_run(results, name) for name in names] or [find_run(results, None)]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UsageError("a run is named twice. Name each run once.")
    if len(folders) > 1 and form not in ("html", "terminal"):
        raise UsageError(f"--format {form} takes one run. Several runs go into one page: --format html.")
    if output is not None and form != "html":
        raise UsageError(f"--output is for --format html, not for {form}.")
    runs = [_read(folder) for folder in folders]
    summaries = [summarise(run) for run in runs]
    if len(runs) > 1:
        _several(runs, summaries, form, output or results / NAME)
    else:
        _one(runs[0], summaries[0], form, output)
    return 0


def _read(folder: Path) -> Run:
    """Read a run, and say on standard error what of it cannot be read."""
    found = read_run(folder)
    for line in found.rejected:
        click.echo(clean(f"bench: {folder}: left out, as it cannot be read: {line}"), err=True)
    if not found.records:
        said = f"bench: {folder} has no records: {RECORDS} is missing or empty, here and in {ARCHIVE}."
        click.echo(clean(said), err=True)
    return found


def _one(run: Run, summary: Summary, form: str, output: Path | None) -> None:
    match form:
        case "terminal":
            terminal.render(run, summary, Console())
        case "html":
            terminal.render(run, summary, Console())
            path = output or run.folder / NAME
            _write(path, page.document(run, summary, beside=path.parent))
        case "markdown":
            with resumable("--format terminal prints the report."):
                click.echo(f"Report: {markdown.write(run, summary)}")
        case "json":
            click.echo(export.to_json(summary, run))
        case "verdicts":
            click.echo(export.verdicts_to_json(run, summary))


def _several(runs: Sequence[Run], summaries: Sequence[Summary], form: str, path: Path) -> None:
    found = several.compared(runs, summaries)
    print_blocks(found, Console())
    if form == "html":
        _write(path, several.document(found, runs, summaries))


def _write(path: Path, text: str) -> None:
    with resumable("--format terminal prints the report."):
        try:
            write_text(path, text)
        except OSError as error:
            raise WriteError(
                f"cannot write {path}: {refusal(error, path)}. Name another file with --output."
            ) from error
        Console().print(f"Report: {path}", soft_wrap=True, highlight=False, markup=False)
