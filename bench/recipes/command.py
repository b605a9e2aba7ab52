"""The commands that follow recipes and use what they trained: train, evaluate, predict, show, notebooks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console

from bench.datasets import cache as datasets
from bench.errors import UsageError, WriteError
from bench.measuring.selection import Asked, choose_device, used_gpu
from bench.options import (
    EXIT_INTERRUPTED,
    EXIT_MEASURED_FAILURE,
    EXIT_NOT_MEASURED,
    FOLDER,
    PathOption,
    device,
    gpu,
    offline,
    own_python,
    parse_budget,
    parse_pythons,
    precision,
    sample,
    where_data,
)
from bench.paths import refusal
from bench.progress import Display, DownloadProgress, make_display
from bench.recipes.catalog import RECIPES, Recipe, find_recipe, on_dataset
from bench.recipes.checkpoints import find_model, load_model
from bench.recipes.evaluate import evaluate as evaluate_in
from bench.recipes.model import Trained
from bench.recipes.notebooks import Table, plan, read_trainings, run
from bench.recipes.records import Training
from bench.recipes.setup import Place
from bench.recipes.tables import probability_blocks, score_blocks
from bench.recipes.train import Order, folder_name, model_path
from bench.recipes.train import train as follow
from bench.report.rehearsal import rehearse
from bench.report.terminal import print_blocks
from bench.store import resumable, write_durably
from bench.text import clean, duration
from bench.workloads.specs import Workload

where_to_run = (
    click.option("--mode", metavar="NAME", help="Mode. [default: the backend's default mode]"),
    device,
    gpu,
    precision,
    own_python,
    where_data,
    offline,
)  # fmt: skip


def _where(command: Any) -> Any:
    for option in reversed(where_to_run):
        command = option(command)
    return command


def _asked(
    where: dict[str, Any], display: Display, backends: tuple[str, ...], limit: int | None = None
) -> Asked:
    """Choose the device, which can be done once, and return what the options ask for."""
    device = choose_device(where["device"], where["gpu"])
    if used := used_gpu(device):
        display.say(f"GPU: {used}")
    return Asked(
        backends=backends,
        modes=() if where["mode"] is None else (where["mode"],),
        device=device,
        precision=where["precision"],
        pythons=parse_pythons(where["pythons"]),
        sample=where.get("sample", False),
        limit=limit,
    )


def _place(workload: Workload, asked: Asked, where: dict[str, Any], display: Display) -> Place:
    return Place.find(workload, asked, data=where["data"], offline=where["offline"], display=display)


def _load(
    name: str, display: Display, *, limit: int | None, sample: bool, data: Path | None, offline: bool
) -> datasets.Dataset:
    """Return a data set, fetched if it is not there yet."""
    if sample:
        return datasets.load_sample(name, limit)
    cache = datasets.cache_dir(data)
    datasets.fetch(name, cache=cache, offline=offline, progress=DownloadProgress(display))
    return datasets.load(name, cache=cache, limit=limit)


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
    "--folder", type=FOLDER, metavar="DIR",
    help="Folder of this training run. [default: trainings/RECIPE-BACKEND-seed-N]",
)  # fmt: skip
@click.option("--anew", is_flag=True, help="Delete what the folder holds, and start again.")
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
    """Follow a recipe in one framework; write accuracy and loss, checkpoints, and the model.

    The same command continues an interrupted training run from its newest checkpoint.
    """
    found = find_recipe(recipe)
    if dataset is not None:
        found = on_dataset(found, dataset)
    default = Path("trainings") / (folder_name(found.name, backend, seed) + _suffix(limit, where))
    with make_display(Console()) as display:
        place = _place(found.workload, _asked(where, display, (backend,), limit), where, display)
        order = Order(
            recipe=found,
            steps=steps or found.steps,
            cell=place.cells[0],
            seed=seed,
            source=place.source,
            folder=folder or default,
            anew=anew,
        )
        again = f"The same command{' without --anew' if anew else ''} continues."
        try:
            with resumable(again):
                done = follow(order, place, display)
        except KeyboardInterrupt:
            display.say(f"Interrupted; the checkpoints in {order.folder} are kept. {again}")
            return EXIT_INTERRUPTED
    _print_end(order, done)
    return 0


def _suffix(limit: int | None, where: dict[str, Any]) -> str:
    """Return the end of the default folder's name, which names the options that change the training run."""
    parts = [where["mode"], "sample" if where["sample"] else None, f"first-{limit}" if limit else None]
    if where["precision"] != "fp32":
        parts.append(where["precision"])
    return "".join(f"-{part}" for part in parts if part)


def _print_end(order: Order, done: Training) -> None:
    last, model = done.figures[-1], model_path(order)
    click.echo(
        f"{order.recipe.name} in {done.header.backend.title}: {last.step:,} steps, "
        f"{duration(last.train_s)} of training, test accuracy {last.test_accuracy:.4f}"
    )
    if not done.header.sample and done.header.limit is None:
        for published in order.recipe.published:
            click.echo(f"  the notebook: {published.text} ({published.metric})")
    click.echo(f"Model: {model}" if model.is_file() else f"There is no {model}; --anew trains it again.")


@click.command()
@click.argument("model", metavar="MODEL", type=PathOption())
@click.option(
    "--backend", "backends", multiple=True, metavar="NAME",
    help="Framework to load it in; repeat for several. [default: all]",
)  # fmt: skip
@sample
@_where
def evaluate(*, model: Path, backends: tuple[str, ...], **where: Any) -> int:
    """Load a model in any framework, and compare its logits with the float64 reference.

    MODEL is the file that bench train wrote, or the folder of a training run.
    """
    console = Console()
    found = load_model(find_model(model))
    # Evaluation trains on nothing, so it holds out nothing either.
    workload = msgspec.structs.replace(found.about.workload, held_out=0)
    with make_display(console) as display:
        place = _place(workload, _asked(where, display, backends), where, display)
        scores = list(evaluate_in(found, place, display))
    print_blocks(score_blocks(found, scores, place.available.unavailable), console)
    if any(score.difference is not None and not score.within for score in scores):
        return EXIT_MEASURED_FAILURE
    return 0 if all(score.within for score in scores) else EXIT_NOT_MEASURED


@click.command()
@click.argument("model", metavar="MODEL", type=PathOption())
@click.option(
    "--index", type=click.IntRange(min=0), default=0, show_default=True, metavar="N", help="Test image."
)
@sample
@where_data
@offline
def predict(*, model: Path, index: int, **where: Any) -> int:
    """Print the probability of every class for one test image; needs no framework."""
    console = Console()
    found = load_model(find_model(model))
    with make_display(console) as display:
        dataset = _load(found.about.workload.dataset, display, limit=None, **where)
    if index >= len(dataset.test_images):
        raise UsageError(f"--index {index}: the test images are 0 to {len(dataset.test_images) - 1}.")
    (probabilities,) = Trained(found).probabilities(dataset.test_images[index : index + 1])
    print_blocks(probability_blocks(found, dataset, index, probabilities), console)
    return 0


@click.command(epilog="SOURCE is a data set, a recipe, the folder of a training run or the file of a model.")
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
    "--output", type=FOLDER, metavar="DIR",
    help="Folder of the pictures. [default: pictures in the training run's folder, or here]",
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
    r"""Draw a data set, a recipe, a training run or a model as SVG; needs no framework.

    \b
    samples        test images with the names of their classes
    augmentation   a training image and what the network receives
    curves         accuracy and loss over the steps, with the notebook's figures
    distributions  the distribution of every parameter over the steps
    weights        the weights of a softmax regression in the shape of the images
    kernels        the kernels of a convolution: red positive, blue negative
    outputs        the output of a convolution for a test image
    confusion      the confusion matrix of the test images

    Without PICTURE, all that SOURCE has are drawn.
    """
    from bench.recipes import show as showing  # Matplotlib takes half a second to import

    found = showing.find_source(source)
    folder = output or (found.folder or Path()) / "pictures"
    choice = showing.Choice(index=index, layer=layer, channel=channel)
    with make_display(Console()) as display:
        where["sample"] = where["sample"] or found.sample
        dataset = _load(found.dataset, display, limit=found.limit, **where)
        scene = showing.Scene(source=found, dataset=dataset, choice=choice, display=display)
        for name, content in showing.draw(scene, pictures):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                write_durably(folder / f"{name}.svg", content)
            except OSError as error:
                raise WriteError(
                    f"cannot write to {folder}: {refusal(error, folder)}. Name another folder with --output."
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
    "--folder", type=FOLDER, default=Path("trainings"),
    show_default=True, metavar="DIR", help="Folder of the training runs and the report.",
)  # fmt: skip
@click.option("--report-only", is_flag=True, help="Train nothing: report what the folder holds.")
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

    The same command continues interrupted training runs, and does not repeat finished ones.
    """
    from bench.recipes import report as reporting  # Matplotlib takes half a second to import
    from bench.recipes.pictures import figures

    console = Console()
    chosen = [find_recipe(name) for name in dict.fromkeys(recipes)] or list(RECIPES.values())
    budget_s = None if budget is None else parse_budget(budget)
    titles: dict[str, str] = {}
    faults: list[str] = []
    with make_display(console) as display:
        if not report_only:
            places = _places(chosen, backends, where, display)
            titles = {name: info.title for name, info in places[chosen[0].name].available.infos.items()}
            rehearse(folder)
            figures.rehearse()
            try:
                with resumable("The same command continues."):
                    faults = run(plan(chosen, places, folder, seeds), display, budget_s=budget_s)
            except KeyboardInterrupt:
                display.say("Interrupted; what is trained is kept. The same command continues.")
                return EXIT_INTERRUPTED
        table, unreadable = _table(folder, chosen, backends, titles, faults)
        faults += unreadable
        loaded = _datasets(chosen, where, display)
        with resumable("What is trained is kept. Report it with the same command and --report-only."):
            path = reporting.write(folder, table, faults=faults, datasets=loaded, display=display)
    print_blocks(reporting.short(table), console)
    for fault in faults:
        click.echo(f"bench: {clean(fault)}", err=True)
    console.print(f"Report: {path}", soft_wrap=True, highlight=False, markup=False)
    return EXIT_NOT_MEASURED if faults else 0


def _table(
    folder: Path,
    recipes: Sequence[Recipe],
    backends: tuple[str, ...],
    titles: dict[str, str],
    faults: Sequence[str],
) -> tuple[Table, list[str]]:
    """Return the table of what a folder holds, and what in it cannot be read.

    `titles` has the backends that were to be trained in. Raises UsageError, with the faults so far, if the
    folder holds no training run.
    """
    trainings, unreadable = read_trainings(folder)
    if not trainings:
        reasons = [f"there is no training run in {folder}", *faults, *unreadable]
        raise UsageError("; ".join(reasons) + ".")
    trained_in = {one.header.cell.backend: one.header.backend.title for one in trainings}
    known = titles | {name: title for name, title in trained_in.items() if not backends or name in backends}
    return Table(recipes=recipes, titles=dict(sorted(known.items())), trainings=trainings), unreadable


def _places(
    recipes: Sequence[Recipe], backends: tuple[str, ...], where: dict[str, Any], display: Display
) -> dict[str, Place]:
    """Return where each recipe is trained, by its name."""
    asked = _asked(where, display, backends)
    return {recipe.name: _place(recipe.workload, asked, where, display) for recipe in recipes}


def _datasets(
    recipes: Sequence[Recipe], where: dict[str, Any], display: Display
) -> dict[str, datasets.Dataset]:
    """Return the whole data sets of the recipes, by their names."""
    options: dict[str, Any] = {name: where[name] for name in ("data", "offline")}
    options |= {"limit": None, "sample": False}
    names = dict.fromkeys(recipe.workload.dataset for recipe in recipes)
    return {name: _load(name, display, **options) for name in names}
