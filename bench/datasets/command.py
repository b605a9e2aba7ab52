"""The command `data`: fetch data sets, check them, or write them as IDX files."""

from pathlib import Path

import click
from rich.console import Console

from bench.datasets import cache as datasets
from bench.datasets.idx import write_idx
from bench.options import FOLDER, offline, sample, where_data
from bench.progress import DownloadProgress, make_display
from bench.text import clean


@click.group(no_args_is_help=False)
def data() -> None:
    """Download data sets, check them against their digests, or write them as IDX files."""


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


@data.command()
@click.argument("name")
@click.argument("folder", type=FOLDER)
@sample
@where_data
@offline
def export(*, name: str, folder: Path, sample: bool, data: Path | None, offline: bool) -> None:
    """Write MNIST or Fashion-MNIST as the four IDX files in which it is published, fetched if needed."""
    if sample:
        dataset = datasets.load_sample(name)
    else:
        cache = datasets.cache_dir(data)
        with make_display(Console()) as display:
            datasets.fetch(name, cache=cache, offline=offline, progress=DownloadProgress(display))
        dataset = datasets.load(name, cache=cache)
    write_idx(dataset, folder)
    click.echo(clean(f"{name}: four IDX files in {folder}"))
