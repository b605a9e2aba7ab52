"""The command that writes a run in the formats of other tools: export."""

from pathlib import Path

import click

from bench.exports import formats
from bench.exports.formats import EXPORTS
from bench.options import STDOUT, PathOption, print_exactly, where_results
from bench.records.runs import find_run, read_run
from bench.text import clean


class _WithFormats(click.Command):
    """A command whose help ends with the list of formats."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002

        with formatter.section("Formats"):
            formatter.write_dl([(name, one.summary) for name, one in EXPORTS.items()])


@click.command(cls=_WithFormats)
@click.argument("name", metavar="[RUN]", required=False)
@click.option("--format", "form", required=True, metavar="NAME", help="Format: one of those below.")
@click.option(
    "--output", type=PathOption(stdout=True), metavar="PATH",
    help="File or folder to write; - prints a file. [default: print it, if it is text]",
)  # fmt: skip
@where_results
def export(*, name: str | None, form: str, output: Path | None, results: Path) -> int:
    """Write a run, by default the newest, in the format of another tool."""
    chosen = formats.find_export(form)
    found = read_run(find_run(results, name))
    for line in found.rejected:
        click.echo(clean(f"bench: {found.folder}: left out, as it cannot be read: {line}"), err=True)
    if output is None:
        print_exactly(formats.as_text(chosen, found))
    elif output == STDOUT:
        print_exactly(formats.as_file(chosen, found))
    else:
        formats.write(chosen, found, output)
        click.echo(clean(f"Export: {output}"))
    return 0
