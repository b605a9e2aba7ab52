"""The command `data`: fetch data sets, or check them."""

from pathlib import Path

import click
from rich.console import Console

from bench.datasets import cache as datasets
from bench.options import offline, where_data
from bench.progress import DownloadProgress, make_display


@click.group(no_args_is_help=False)
def data() -> None:
    """Download data sets, or check them against their digests."""


@data.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@where_data
@click.option(
    "--from", "source", metavar="WHERE", help="Folder or address with the original files, tried first."
)
@offline
def fetch(names: tuple[str, ...], data: Path | None, source: str | None, offline: bool) -> None:
    """Fetch data sets into the cache; by default mnist and cifar10."""
    cache = datasets.cache_dir(data)
    with make_display(Console()) as display:
        for name in names or ("mnist", "cifar10"):
            folder = datasets.fetch(
                name, cache=cache, source=source, offline=offline, progress=DownloadProgress(display)
            )
            display.say(f"{name}: {folder}, digests match")


@data.command("verify")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@where_data
def verify_data(names: tuple[str, ...], data: Path | None) -> None:
    """Check the digests of data sets; by default mnist and cifar10."""
    for name in names or ("mnist", "cifar10"):
        datasets.verify(name, datasets.cache_dir(data))
        click.echo(f"{name}: digests match")
