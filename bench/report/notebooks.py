"""The table of the notebooks: their figures beside ours, on the terminal and as a report with pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from bench.bands import CONFIDENCE, Band
from bench.checkpoints import find_model, load_model
from bench.datasets import Dataset
from bench.durations import duration
from bench.errors import RecordError
from bench.notebooks import Answer, Line, lines, of_recipe
from bench.pictures import confusion, data, network
from bench.pictures import training as of_training
from bench.progress import Display
from bench.recipes import Recipe
from bench.report import clean
from bench.report.drawing import settings, svg
from bench.report.markup import PLOTS, bullets, escape, grid
from bench.trained import Trained
from bench.trainings import Training

REPORT = "NOTEBOOKS.md"
TITLE = "The notebooks, reproduced"


def render(
    recipes: Sequence[Recipe], backends: Mapping[str, str], trainings: Sequence[Training], console: Console
) -> None:
    """Print every figure of the notebooks, and below it what each framework came to.

    `backends` gives the titles of the frameworks by their names, in order.
    """
    widest = max((len(clean(title)) for title in backends.values()), default=0)
    for line in lines(recipes, list(backends), trainings):
        _print(console, f"{line.recipe.name}: {_published(line)}", "bold")
        for answer in line.answers:
            _print(console, f"  {clean(backends[answer.backend]):<{widest}}  {_answer(line, answer)}")
    for text in legend():
        _print(console, text, "dim")


def write(
    folder: Path,
    recipes: Sequence[Recipe],
    *,
    backends: Mapping[str, str],
    trainings: Sequence[Training],
    datasets: Mapping[str, Dataset],
    display: Display,
) -> Path:
    """Write the report and its pictures into the folder of the trainings, and return its path.

    What needs a model that is not there is not drawn anew; a picture that was drawn before stays.
    """
    try:
        (folder / PLOTS).mkdir(parents=True, exist_ok=True)
        captions = dict(_draw(folder, recipes, trainings, datasets, display))
        path = folder / REPORT
        text = _text(folder, recipes, backends, trainings, captions)
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise RecordError(f"cannot write the report to {folder}: {error.strerror}.") from error
    return path


def legend() -> list[str]:
    """Return what the table's figures mean."""
    return [
        "A figure of ours is the mean over seeds ± their standard deviation, and in brackets how many seeds.",
        f"The band, in square brackets, holds one more run with {CONFIDENCE:.0%} probability: mean ± t·sd·"
        "sqrt(1 + 1/n). The notebook's figure, or the range that its text names, lies inside or outside.",
        "One seed has no band: a value is then not judged, a range by our one value. A share of one batch of "
        "100 images scatters by their draw alone; that is in its band.",
    ]


def _print(console: Console, text: str, style: str = "") -> None:
    console.print(text, style=style, markup=False, highlight=False, emoji=False)


def _published(line: Line) -> str:
    return f"{line.published.text} ({line.published.measure})"


def _answer(line: Line, answer: Answer) -> str:
    if answer.band is None:
        return f"at step {answer.reached:,} of {line.published.step:,}" if answer.reached else "not trained"
    scale = line.recipe.loss_scale if line.published.measure == "test loss" else 1.0
    digits = 4 if line.published.measure != "test loss" else 0 if scale > 1000 else 2
    return f"{_numbers(answer.band, scale, digits)}: {answer.verdict}"


def _numbers(found: Band, scale: float, digits: int) -> str:
    spread = "" if found.sd is None else f" ± {scale * found.sd:.{digits}f}"
    ends = ""
    if found.low is not None and found.high is not None:
        ends = f" [{scale * found.low:.{digits}f}, {scale * found.high:.{digits}f}]"
    return f"{scale * found.mean:.{digits}f}{spread} ({found.n}){ends}"


def _text(
    folder: Path,
    recipes: Sequence[Recipe],
    backends: Mapping[str, str],
    trainings: Sequence[Training],
    captions: Mapping[str, str],
) -> str:
    rows = [
        [line.recipe.name, _published(line), *(_answer(line, answer) for answer in line.answers)]
        for line in lines(recipes, list(backends), trainings)
    ]
    blocks = [
        f"# {TITLE}",
        "Six trainings of five TensorFlow 1 notebooks, followed in each framework from the same weights and "
        "in the same order of batches. Every figure is in the `figures.jsonl` of its training's folder.",
        grid(["recipe", "the notebook", *backends.values()], rows),
        bullets(legend()),
        "## The trainings",
        grid(
            ["recipe", "framework", "seeds", "steps", "test accuracy at the end", "time of training, a seed"],
            _trainings(recipes, backends, trainings),
            numbers=frozenset({2, 3}),
        ),
        "The times are not a benchmark: they are of whatever else the machine did.",
        bullets(_machines(trainings)),
        "## Pictures",
    ]
    for name, caption in captions.items():
        if (folder / PLOTS / f"{name}.svg").is_file():
            blocks += [f"![{escape(caption)}]({PLOTS}/{name}.svg)", f"*{escape(caption)}.*"]
    return "\n\n".join(blocks) + "\n"


def _trainings(
    recipes: Sequence[Recipe], backends: Mapping[str, str], trainings: Sequence[Training]
) -> list[list[str]]:
    rows = []
    for recipe in recipes:
        for backend, title in backends.items():
            found = of_recipe(trainings, recipe, backend)
            if not found:
                continue
            ends = [one.figures[-1] for one in found]
            accuracies = [end.test_accuracy for end in ends]
            mean_s = sum(end.train_s for end in ends) / len(ends)
            rows.append(
                [
                    recipe.name,
                    title,
                    str(len(found)),
                    _range([end.step for end in ends], ",d"),
                    _range(accuracies, ".4f"),
                    duration(mean_s),
                ]
            )
    return rows


def _range(values: Sequence[float], form: str) -> str:
    low, high = min(values), max(values)
    return f"{low:{form}}" if low == high else f"{low:{form}} to {high:{form}}"


def _machines(trainings: Sequence[Training]) -> list[str]:
    """Return every machine, and every framework with its versions, that the trainings name."""
    machines = dict.fromkeys(one.header.environment.in_words() for one in trainings)
    versions = dict.fromkeys(
        f"{one.header.backend.title}: "
        + ", ".join(f"{name} {version}" for name, version in one.header.backend.versions.items())
        + f", mode {one.header.cell.mode}, {one.header.cell.precision}"
        for one in trainings
    )
    return [clean(text) for text in (*machines, *sorted(versions))]


def _draw(
    folder: Path,
    recipes: Sequence[Recipe],
    trainings: Sequence[Training],
    datasets: Mapping[str, Dataset],
    display: Display,
) -> list[tuple[str, str]]:
    """Draw what can be drawn; return name and caption of every picture that the report has a place for."""
    captions: list[tuple[str, str]] = []

    def add(name: str, caption: str, figure: object) -> None:
        captions.append((name, caption))
        if figure is not None:
            (folder / PLOTS / f"{name}.svg").write_bytes(svg(figure))  # type: ignore[arg-type]

    with settings():
        for recipe in recipes:
            found = of_recipe(trainings, recipe)
            if not found:
                continue
            name, dataset = recipe.name, datasets[recipe.workload.dataset]
            display.job(f"pictures of {name}", None)
            curves = of_training.curves(found, recipe.published, recipe.loss_scale, recipe.loss_unit)
            add(f"{name}-curves", f"{name}: accuracy and loss, and the notebook's figures", curves)
            first = min(found, key=lambda one: (one.header.seed, -one.figures[-1].step))
            spread = of_training.distributions(first)
            title = f"{name} in {first.header.backend.title}"
            add(f"{name}-distributions", f"{title}: how the parameters spread over the steps", spread)
            add(f"{name}-samples", f"{name}: test images", data.samples(dataset))
            if recipe.workload.augmentation is not None:
                changed = data.augmentation(recipe.workload, dataset, 0)
                add(f"{name}-augmentation", f"{name}: an image before and after augmentation", changed)
            trained = _model(first)
            for layer in range(1, len(recipe.workload.architecture.convs) + 1):
                kernels = network.kernels(trained, layer, 0) if trained else None
                add(f"{name}-kernels-{layer}", f"{title}: kernels of convolution {layer}", kernels)
                label = dataset.class_names[dataset.test_labels[0]]
                outputs = (
                    network.outputs(trained, dataset.test_images[0], layer, f"test image 0 ({label})")
                    if trained
                    else None
                )
                add(f"{name}-outputs-{layer}", f"{title}: outputs of convolution {layer}", outputs)
            if not recipe.workload.architecture.convs:
                weights = network.softmax_weights(trained, dataset.class_names) if trained else None
                add(f"{name}-weights", f"{title}: weights of each class", weights)
            matrix = None
            if trained:
                predicted = trained.logits(dataset.test_images, display).argmax(axis=1)
                matrix = confusion.confusion(dataset.test_labels, predicted, dataset.class_names, title)
            add(f"{name}-confusion", f"{title}: what is taken for what", matrix)
    return captions


def _model(training: Training) -> Trained | None:
    if not any(training.folder.glob("*-step-*.safetensors")):
        return None
    return Trained(load_model(find_model(training.folder)))
