"""The commands that follow recipes and use what they trained: train, evaluate, predict, show, notebooks."""

from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console

from bench.datasets import cache as datasets
from bench.errors import RecordError, UsageError
from bench.options import (
    EXIT_INTERRUPTED,
    EXIT_MEASURED_FAILURE,
    EXIT_NOT_MEASURED,
    device,
    offline,
    own_python,
    parse_budget,
    parse_pythons,
    precision,
    sample,
    where_data,
)
from bench.progress import DownloadProgress, make_display
from bench.recipes import notebooks as table
from bench.recipes.catalog import RECIPES, find_recipe, on_dataset
from bench.recipes.checkpoints import find_model, load_model
from bench.recipes.evaluate import evaluate as evaluate_in
from bench.recipes.model import Trained
from bench.recipes.setup import Place
from bench.recipes.tables import render_probabilities, render_scores
from bench.recipes.train import Order, folder_name, model_path
from bench.recipes.train import train as follow
from bench.report.rehearsal import rehearse
from bench.store import write_durably
from bench.text import clean, duration

where_to_run = (
    click.option("--mode", metavar="NAME", help="Mode. [default: the one its documentation teaches]"),
    device,
    precision,
    own_python,
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
@sample
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
    found = find_recipe(recipe)
    if dataset is not None:
        found = on_dataset(found, dataset)
    with make_display(Console()) as display:
        place = Place.find(found.workload, backends=(backend,), display=display, limit=limit, **_read(where))
        order = Order(
            recipe=found,
            steps=steps or found.steps,
            cell=place.cells[0],
            seed=seed,
            source=place.source,
            folder=folder
            or Path("trainings") / (folder_name(found.name, backend, seed) + _apart(limit, where)),
            anew=anew,
        )
        try:
            done = follow(order, place, display)
        except KeyboardInterrupt:
            again = "The same command without --anew" if anew else "The same command"
            display.say(f"Interrupted; the checkpoints in {order.folder} are kept. {again} goes on.")
            return EXIT_INTERRUPTED
    last = done.figures[-1]
    click.echo(
        f"{found.name} in {done.header.backend.title}: {last.step:,} steps, "
        f"{duration(last.train_s)} of training, test accuracy {last.test_accuracy:.4f}"
    )
    if not done.header.sample and limit is None:
        for published in found.published:
            click.echo(f"  the notebook: {published.text} ({published.measure})")
    model = model_path(order)
    click.echo(f"Model: {model}" if model.is_file() else f"There is no {model}; --anew trains it again.")
    return 0


def _apart(limit: int | None, where: dict[str, Any]) -> str:
    """Return what tells the folder of an unusual training from that of the recipe as it stands."""
    parts = [where["mode"], "sample" if where["sample"] else None, f"first-{limit}" if limit else None]
    if where["precision"] != "fp32":
        parts.append(where["precision"])
    return "".join(f"-{part}" for part in parts if part)


@click.command()
@click.argument("model", metavar="MODEL", type=click.Path(path_type=Path))
@click.option(
    "--backend", "backends", multiple=True, metavar="NAME",
    help="Framework to load it in; repeat for several. [default: all]",
)  # fmt: skip
@sample
@_where
def evaluate(*, model: Path, backends: tuple[str, ...], **where: Any) -> int:
    """Load a model in any framework, and compare its logits with the float64 reference.

    MODEL is the file that bench train wrote, or the folder of a training.
    """
    console = Console()
    found = load_model(find_model(model))
    # Evaluation trains on nothing, and so has nothing to hold out.
    workload = msgspec.structs.replace(found.about.workload, held_out=0)
    with make_display(console) as display:
        place = Place.find(workload, backends=backends, display=display, limit=None, **_read(where))
        scores = list(evaluate_in(found, place, display))
    render_scores(found, scores, place.available.unavailable, console)
    if any(score.difference is not None and not score.within for score in scores):
        return EXIT_MEASURED_FAILURE
    return 0 if all(score.within for score in scores) else EXIT_NOT_MEASURED


@click.command()
@click.argument("model", metavar="MODEL", type=click.Path(path_type=Path))
@click.option(
    "--index", type=click.IntRange(min=0), default=0, show_default=True, metavar="N", help="Test image."
)
@sample
@where_data
@offline
def predict(*, model: Path, index: int, **where: Any) -> int:
    """Print the probability of every class for one test image; no framework is needed."""
    console = Console()
    found = load_model(find_model(model))
    with make_display(console) as display:
        dataset = _load(found.about.workload, display, limit=None, **where)
    if index >= len(dataset.test_images):
        raise UsageError(f"--index {index}: the test images are 0 to {len(dataset.test_images) - 1}.")
    (probabilities,) = Trained(found).probabilities(dataset.test_images[index : index + 1])
    render_probabilities(found, dataset, index, probabilities, console)
    return 0


@click.command(epilog="Run it on a data set, a recipe, a training's folder or a model's file.")
@click.argument("source", metavar="SOURCE")
@click.argument("pictures", nargs=-1, metavar="[PICTURE]...")
@click.option(
    "--index", type=click.IntRange(min=0), default=0, show_default=True, metavar="N",
    help="Image to augment and to show layers of, and the first of the samples.",
)  # fmt: skip
@click.option("--layer", type=click.IntRange(min=1), metavar="N", help="Convolution. [default: every]")
@click.option(
    "--channel", type=click.IntRange(min=0), default=0, show_default=True, metavar="N",
    help="Input channel of the kernels.",
)  # fmt: skip
@click.option(
    "--output", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
    help="Folder of the pictures. [default: pictures in the training's folder, or here]",
)  # fmt: skip
@sample
@where_data
@offline
def show(
    *,
    source: str,
    pictures: tuple[str, ...],
    index: int,
    layer: int | None,
    channel: int,
    output: Path | None,
    **where: Any,
) -> int:
    r"""Draw a data set, a recipe, a training or a model, as SVG; no framework is needed.

    \b
    samples        test images with the names of their classes
    augmentation   a training image, and what the network sees of it
    curves         accuracy and loss over the steps, with the notebook's figures
    distributions  how every parameter spreads over the steps
    weights        a softmax regression's weights in the shape of the images
    kernels        a convolution's kernels: red positive, blue negative
    outputs        what a convolution makes of a test image
    confusion      what is taken for what among the test images

    Without a PICTURE all are drawn that SOURCE has.
    """
    from bench.recipes import show as showing  # Matplotlib takes half a second to import

    found = showing.find_source(source)
    folder = output or (found.folder or Path()) / "pictures"
    choice = showing.Choice(index=index, layer=layer, channel=channel)
    with make_display(Console()) as display:
        where["sample"] = where["sample"] or found.sample
        dataset = _load(found, display, limit=found.limit, **where)
        scene = showing.Scene(source=found, dataset=dataset, choice=choice, display=display)
        for name, content in showing.draw(scene, pictures):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                write_durably(folder / f"{name}.svg", content)
            except OSError as error:
                raise RecordError(
                    f"cannot write to {folder}: {error.strerror}. Name another folder with --output."
                ) from error
            display.say(str(folder / f"{name}.svg"))
    return 0


@click.command()
@click.option(
    "--recipe", "recipes", multiple=True, metavar="NAME", help="Recipe; repeat for several. [default: all]"
)
@click.option(
    "--backend", "backends", multiple=True, metavar="NAME",
    help="Framework; repeat for several. [default: all]",
)  # fmt: skip
@click.option(
    "--seeds", type=click.IntRange(min=1), metavar="N",
    help="Seeds of each recipe. [default: 20, 8, 1, 3, 1 and 20, in the order of bench list]",
)  # fmt: skip
@click.option(
    "--budget", metavar="TIME", help="Stop after about so long, such as 90s, 15m or 2h. [default: none]"
)
@click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False), default=Path("trainings"),
    show_default=True, metavar="DIR", help="Folder of the trainings and the report.",
)  # fmt: skip
@click.option("--report-only", is_flag=True, help="Train nothing: report the trainings there are.")
@_where
def notebooks(
    *,
    recipes: tuple[str, ...],
    backends: tuple[str, ...],
    seeds: int | None,
    budget: str | None,
    folder: Path,
    report_only: bool,
    **where: Any,
) -> int:
    """Follow all recipes in all frameworks over several seeds, and compare with the notebooks' figures.

    What is trained already is not trained again, and what was interrupted goes on.
    """
    from bench.recipes import report as reporting  # Matplotlib takes half a second to import

    console = Console()
    chosen = [find_recipe(name) for name in dict.fromkeys(recipes)] or list(RECIPES.values())
    budget_s = None if budget is None else parse_budget(budget)
    faults: list[str] = []
    with make_display(console) as display:
        titles: dict[str, str] = {}
        if not report_only:
            places = {
                recipe.name: Place.find(
                    recipe.workload,
                    backends=backends,
                    display=display,
                    limit=None,
                    sample=False,
                    **_read(where),
                )
                for recipe in chosen
            }
            titles = {name: info.title for name, info in places[chosen[0].name].available.infos.items()}
            rehearse(folder)
            try:
                faults = table.run(table.plan(chosen, places, folder, seeds), display, budget_s=budget_s)
            except KeyboardInterrupt:
                display.say("Interrupted; what is trained is kept. The same command goes on.")
                return EXIT_INTERRUPTED
        trainings, unreadable = table.read_trainings(folder)
        faults += unreadable
        titles |= {
            one.header.cell.backend: one.header.backend.title
            for one in trainings
            if not backends or one.header.cell.backend in backends
        }
        if not trainings:
            raise UsageError("; ".join([f"there is no training in {folder}", *faults]) + ".")
        loaded = {
            name: _load(
                recipe.workload,
                display,
                limit=None,
                sample=False,
                data=where["data"],
                offline=where["offline"],
            )
            for recipe in chosen
            if (name := recipe.workload.dataset)
        }
        titles = dict(sorted(titles.items()))
        path = reporting.write(
            folder,
            chosen,
            backends=titles,
            trainings=trainings,
            faults=faults,
            datasets=loaded,
            display=display,
        )
    reporting.render(chosen, titles, trainings, console)
    for fault in faults:
        click.echo(f"bench: {clean(fault)}", err=True)
    console.print(f"Report: {path}", soft_wrap=True, highlight=False, markup=False)
    return EXIT_NOT_MEASURED if faults else 0


def _load(
    what: Any, display: Any, *, limit: int | None, sample: bool, data: Path | None, offline: bool
) -> Any:
    """Return the data set that a workload or a source names, fetched where it is not there."""
    if sample:
        return datasets.load_sample(what.dataset, limit)
    cache = datasets.cache_dir(data)
    datasets.fetch(what.dataset, cache=cache, offline=offline, progress=DownloadProgress(display))
    return datasets.load(what.dataset, cache=cache, limit=limit)


def _read(where: dict[str, Any]) -> dict[str, Any]:
    return {**where, "pythons": parse_pythons(where["pythons"])}
