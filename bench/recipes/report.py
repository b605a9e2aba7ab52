"""The notebooks' figures beside ours, on the terminal and as a report with pictures."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import msgspec
from matplotlib.figure import Figure
from rich.console import Console

from bench.datasets.cache import Dataset
from bench.errors import BenchError, WriteError
from bench.paths import refusal
from bench.progress import Display
from bench.recipes.catalog import Recipe
from bench.recipes.checkpoints import find_model, load_model
from bench.recipes.model import Trained
from bench.recipes.notebooks import Answer, Line, Table
from bench.recipes.pictures import confusion, data, network, training
from bench.recipes.prediction import CONFIDENCE, Band
from bench.recipes.records import Training
from bench.report.charts import settings, svg
from bench.report.markdown import PLOTS, bullets, escape, grid
from bench.store import write_durably, write_text
from bench.text import clean, duration

REPORT = "NOTEBOOKS.md"
TITLE = "The notebooks, reproduced"


def render(table: Table, console: Console) -> None:
    """Print every figure of the notebooks, and below it the result of each framework."""
    widest = max((len(clean(title)) for title in table.titles.values()), default=0)
    for line in table.lines:
        _print(console, f"{line.recipe.name}: {_published(line)}", "bold")
        for answer in line.answers:
            _print(console, f"  {clean(table.titles[answer.backend]):<{widest}}  {_answer(line, answer)}")
    for text in legend():
        _print(console, text, "dim")


def write(
    folder: Path, table: Table, *, faults: Sequence[str], datasets: Mapping[str, Dataset], display: Display
) -> Path:
    """Write the report and its pictures into the folder of the training runs, and return its path.

    A picture that needs a missing model is not drawn; if it was drawn before, the old one is kept.
    """
    try:
        (folder / PLOTS).mkdir(parents=True, exist_ok=True)
        captions = {}
        for picture in _pictures(table, datasets, display):
            captions[picture.name] = picture.caption
            if picture.content is not None:
                write_durably(folder / PLOTS / f"{picture.name}.svg", picture.content)
        blocks = [
            *_blocks(table),
            *(["## What is missing", bullets(faults)] if faults else []),
            "## Pictures",
        ]
        for name, caption in captions.items():
            if (folder / PLOTS / f"{name}.svg").is_file():
                blocks += [f"![{escape(caption)}]({PLOTS}/{name}.svg)", f"*{escape(caption)}.*"]
        path = folder / REPORT
        write_text(path, "\n\n".join(blocks) + "\n")
    except OSError as error:
        raise WriteError(f"cannot write the report to {folder}: {refusal(error, folder)}.") from error
    return path


def legend() -> list[str]:
    """Return the explanation of the table."""
    return [
        "Each of our figures is the mean over seeds ± the standard deviation, with the number of seeds in "
        "parentheses.",
        f"The band, in brackets, is the prediction interval: it contains one more training run with "
        f"{CONFIDENCE:.0%} probability (mean ± t·sd·sqrt(1 + 1/n)). The notebook's figure lies inside or "
        "outside the band. Where the notebook names a range, our mean lies inside or outside the range.",
        "One seed has no band. A share of one batch of 100 images also varies with the images drawn. "
        "Its band includes that; with one seed, the band includes nothing else.",
        "Steps are counted as in the notebook. Where a notebook prints after its update, its step 0 is our "
        "step 1.",
        "About one figure in twenty lies outside by chance. The figures of one training run are not "
        "independent, and neither are the frameworks, which share seeds, weights and batches.",
    ]


def _print(console: Console, text: str, style: str = "") -> None:
    console.print(text, style=style, markup=False, highlight=False, emoji=False)


def _published(line: Line) -> str:
    return f"{line.published.text} ({line.published.metric})"


def _answer(line: Line, answer: Answer) -> str:
    if answer.band is None:
        return f"at step {answer.reached:,} of {line.published.step:,}" if answer.reached else "not trained"
    scale = line.recipe.loss_scale if line.published.metric == "test loss" else 1.0
    digits = 4 if line.published.metric != "test loss" else 0 if scale > 1000 else 2
    return f"{_numbers(answer.band, scale, digits)}: {answer.verdict}"


def _numbers(found: Band, scale: float, digits: int) -> str:
    spread = "" if found.sd is None else f" ± {scale * found.sd:.{digits}f}"
    ends = ""
    if found.low is not None and found.high is not None:
        ends = f" [{scale * found.low:.{digits}f}, {scale * found.high:.{digits}f}]"
    return f"{scale * found.mean:.{digits}f}{spread} ({found.n}){ends}"


def _blocks(table: Table) -> list[str]:
    rows = [
        [line.recipe.name, _published(line), *(_answer(line, answer) for answer in line.answers)]
        for line in table.lines
    ]
    heads = [
        "recipe", "framework", "seeds", "steps", "test accuracy at the end", "highest, at step",
        "training time per seed",
    ]  # fmt: skip
    return [
        f"# {TITLE}",
        "Six recipes from five TensorFlow 1 notebooks, followed in each framework from the same weights and "
        "in the same order of batches. Every figure is in the `figures.jsonl` of its training run's folder.",
        grid(["recipe", "the notebook", *table.titles.values()], rows),
        bullets(legend()),
        "## The training runs",
        grid(heads, _trainings(table), numbers=frozenset({2, 3})),
        "The times are not a benchmark: other programs may have run on the machine.",
        bullets(_machines(table.trainings)),
    ]


def _trainings(table: Table) -> list[list[str]]:
    rows = []
    for recipe in table.recipes:
        of_recipe = table.of_recipe(recipe)
        for backend, title in table.titles.items():
            found = [one for one in of_recipe if one.header.cell.backend == backend]
            if found:
                rows.append([recipe.name, title, *_summary(found)])
    return rows


def _summary(found: Sequence[Training]) -> list[str]:
    """Return the number of seeds, steps, accuracies and time of one recipe in one framework."""
    ends = [one.figures[-1] for one in found]
    unfinished = sum(not one.finished for one in found)
    mean_s = sum(end.train_s for end in ends) / len(ends)
    highest = max((figure for one in found for figure in one.figures), key=lambda f: f.test_accuracy)
    return [
        str(len(found)),
        _range([end.step for end in ends], ",d") + (f" ({unfinished} not finished)" if unfinished else ""),
        _range([end.test_accuracy for end in ends], ".4f"),
        f"{highest.test_accuracy:.4f} at {highest.step:,}",
        duration(mean_s),
    ]


def _range(values: Sequence[float], form: str) -> str:
    low, high = min(values), max(values)
    return f"{low:{form}}" if low == high else f"{low:{form}} to {high:{form}}"


def _machines(trainings: Sequence[Training]) -> list[str]:
    """Return every machine of the training runs, and every framework with its versions."""
    machines = dict.fromkeys(one.header.environment.in_words() for one in trainings)
    versions = dict.fromkeys(
        f"{one.header.backend.title}: "
        + ", ".join(f"{name} {version}" for name, version in one.header.backend.versions.items())
        + f", mode {one.header.cell.mode}, {one.header.cell.precision}"
        for one in trainings
    )
    return [clean(text) for text in (*machines, *sorted(versions))]


class _Picture(msgspec.Struct, frozen=True, kw_only=True):
    """A picture for which the report has a place."""

    name: str
    caption: str
    content: bytes | None
    """None if what it is drawn from is missing."""


def _pictures(table: Table, datasets: Mapping[str, Dataset], display: Display) -> Iterator[_Picture]:
    """Yield the pictures of each recipe; those of one training run show another framework for each."""
    backends = list(table.titles)
    sampled: set[str] = set()
    with settings():
        for number, recipe in enumerate(table.recipes):
            found = table.of_recipe(recipe)
            if not found:
                continue
            display.job(f"pictures of {recipe.name}", None)
            turn = {name: (backends.index(name) - number) % len(backends) for name in backends}
            shown = min(
                found, key=lambda one: (not one.finished, one.header.seed, turn[one.header.cell.backend])
            )
            dataset = datasets[recipe.workload.dataset]
            if dataset.info.name not in sampled:
                sampled.add(dataset.info.name)
                yield _Picture(
                    name=f"samples-{dataset.info.name}",
                    caption=f"{dataset.info.name}: test images",
                    content=svg(data.samples(dataset)),
                )
            drawn = {
                **_of_recipe(recipe, backends, found, dataset),
                **_of_training(shown, dataset, display),
            }
            for (name, caption), figure in drawn.items():
                content = None if figure is None else svg(figure)
                yield _Picture(
                    name=f"{recipe.name}-{name}", caption=f"{recipe.name}: {caption}", content=content
                )


_Drawn: TypeAlias = dict[tuple[str, str], Figure | None]
"""Figures by name and caption."""


def _of_recipe(
    recipe: Recipe, backends: Sequence[str], found: Sequence[Training], dataset: Dataset
) -> _Drawn:
    curves = training.curves(found, recipe.published, recipe.loss_scale, recipe.loss_unit, backends=backends)
    drawn: _Drawn = {("curves", "accuracy and loss, and the notebook's figures"): curves}
    if recipe.workload.augmentation is not None:
        drawn["augmentation", "a training image and what the network receives"] = data.augmentation(
            recipe.workload, dataset, 0
        )
    return drawn


def _of_training(shown: Training, dataset: Dataset, display: Display) -> _Drawn:
    backend, title = shown.header.cell.backend, f"in {shown.header.backend.title}"
    drawn: _Drawn = {
        (f"distributions-{backend}", f"the parameters over the steps {title}"): training.distributions(shown)
    }
    trained = _model(shown)
    architecture = shown.header.workload.architecture
    label = dataset.class_names[dataset.test_labels[0]]
    for layer in range(1, len(architecture.convs) + 1):
        kernels = outputs = None
        if trained is not None:
            kernels = network.kernels(trained, layer, 0)
            outputs = network.outputs(trained, dataset.test_images[0], layer, f"test image 0 ({label})")
        drawn[f"kernels-{layer}-{backend}", f"kernels of convolution {layer} {title}"] = kernels
        drawn[f"outputs-{layer}-{backend}", f"outputs of convolution {layer} {title}"] = outputs
    if not (architecture.convs or architecture.hidden):
        weights = None if trained is None else network.softmax_weights(trained, dataset.class_names)
        drawn[f"weights-{backend}", f"weights of each class {title}"] = weights
    matrix = None
    if trained is not None:
        predicted = trained.logits(dataset.test_images, display).argmax(axis=1)
        matrix = confusion.confusion(dataset.test_labels, predicted, dataset.class_names, trained.name)
    drawn[f"confusion-{backend}", f"confusion matrix {title}"] = matrix
    return drawn


def _model(shown: Training) -> Trained | None:
    """Return the network of a training run, or None if its model is missing or cannot be read."""
    try:
        return Trained(load_model(find_model(shown.folder)))
    except BenchError:
        return None
