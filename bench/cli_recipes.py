"""The commands that follow recipes and use what they trained: train, evaluate, predict, show, notebooks."""

from pathlib import Path
from typing import Any

import click

from bench.cli_options import (
    EXIT_INTERRUPTED,
    offline,
    own_python,
    parse_pythons,
    sample,
    where_data,
)

where_to_run = (
    click.option("--mode", metavar="NAME", help="Mode. [default: the one its documentation teaches]"),
    click.option(
        "--device", type=click.Choice(["auto", "cpu", "gpu"]), default="auto", show_default=True,
        help="Where to run.",
    ),
    click.option(
        "--precision", type=click.Choice(["fp32", "tf32", "bf16"]), default="fp32", show_default=True,
        help="How matrix products are computed.",
    ),
    own_python,
    sample,
    where_data,
    offline,
)  # fmt: skip


def _where(command: Any) -> Any:
    for option in reversed(where_to_run):
        command = option(command)
    return command


@click.command()
@click.argument("recipe", metavar="RECIPE")
@click.option("--backend", "backend", required=True, metavar="NAME", help="Framework to train in.")
@click.option(
    "--steps", type=click.IntRange(min=1), metavar="N", help="Steps to train. [default: the recipe's]"
)
@click.option("--dataset", metavar="NAME", help="Train on another data set, such as fashion-mnist.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of weights and orders."
)
@click.option(
    "--dataset-limit", "limit", type=click.IntRange(min=1), metavar="N", help="Use only the first N images."
)
@click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
    help="Folder of this training. [default: trainings/RECIPE-BACKEND-seed-N]",
)  # fmt: skip
@click.option("--anew", is_flag=True, help="Throw away what the folder holds, and begin again.")
@_where
def train(
    *,
    recipe: str,
    backend: str,
    steps: int | None,
    dataset: str | None,
    seed: int,
    limit: int | None,
    folder: Path | None,
    anew: bool,
    **where: Any,
) -> int:
    """Follow a recipe in one framework: figures on the way, checkpoints, and a model in the end.

    A training that was interrupted goes on from its newest checkpoint when it is asked for again.
    """
    from rich.console import Console

    from bench import checkpoints
    from bench import train as training
    from bench.durations import duration
    from bench.progress import make_display
    from bench.recipes import find_recipe, on_dataset

    found = find_recipe(recipe)
    if dataset is not None:
        found = on_dataset(found, dataset)
    with make_display(Console()) as display:
        place = training.Place.find(
            found.workload, backends=(backend,), display=display, limit=limit, **_read(where)
        )
        order = training.Order(
            recipe=found,
            steps=steps or found.steps,
            cell=place.cells[0],
            seed=seed,
            source=place.source,
            folder=folder or Path("trainings") / f"{found.name}-{backend}-seed-{seed}",
            anew=anew,
        )
        try:
            done = training.train(order, place, display)
        except KeyboardInterrupt:
            display.say(f"Interrupted; the checkpoints in {order.folder} are kept. The same command goes on.")
            return EXIT_INTERRUPTED
    last = done.figures[-1]
    click.echo(
        f"{found.name} in {done.header.backend.title}: {last.step:,} steps, "
        f"{duration(last.train_s)} of training, test accuracy {last.test_accuracy:.4f}"
    )
    for published in found.published:
        click.echo(f"  the notebook: {published.text} ({published.measure})")
    click.echo(f"Model: {checkpoints.find_model(order.folder)}")
    return 0


def _read(where: dict[str, Any]) -> dict[str, Any]:
    return {**where, "pythons": parse_pythons(where["pythons"])}


COMMANDS = (train,)
