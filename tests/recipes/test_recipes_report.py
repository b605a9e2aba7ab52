"""The table of the notebooks and what the terminal shows of a model: right, readable, and safe to print."""

import html
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from pathlib import Path

import fakes
import msgspec
import numpy as np
import pytest
from followed import make_figure, make_figures, make_header, make_model, write_training
from rich.console import Console

from bench.datasets import cache
from bench.errors import RecordError
from bench.recipes.catalog import RECIPES, Recipe, figure_steps
from bench.recipes.checkpoints import Model, load_model
from bench.recipes.evaluate import Score
from bench.recipes.notebooks import Table, read_trainings
from bench.recipes.records import Training
from bench.recipes.report import REPORT, legend, short, write
from bench.recipes.tables import probability_blocks, score_blocks
from bench.report import page
from bench.report.format import NOTHING
from bench.report.markdown import PLOTS
from bench.report.terminal import print_blocks
from bench.workloads.specs import Architecture, ConvBlock

SOFTMAX = RECIPES["notebook-one-layer"]
HOSTILE = "[red]Py|Torch[/] <b>*x* \x1b[31m\u202e"


def small_cifar() -> Recipe:
    """Return the recipe of the convolutional network, with a network that is quick to draw."""
    network = Architecture(convs=(ConvBlock(filters=4, normalise=True), ConvBlock(filters=4)), hidden=(8,))
    recipe = RECIPES["notebook-cifar-cnn"]
    return msgspec.structs.replace(
        recipe, workload=msgspec.structs.replace(recipe.workload, architecture=network)
    )


CIFAR = small_cifar()
MEANS = {"torch": 0.9160, "tensorflow": 0.9165}


def trainings_in(folder: Path, *, model: bool = True) -> list[Training]:
    """Write training runs: one layer from three seeds in two frameworks, and unfinished CIFAR-10 in one."""
    for backend, mean in MEANS.items():
        for seed, off in enumerate((-0.001, 0.0, 0.001)):
            header = make_header(SOFTMAX, backend, seed, sample=False)
            steps = figure_steps(SOFTMAX, SOFTMAX.steps)
            figures = [
                make_figure(step, mean + off, before=before)
                for before, step in zip((0, *steps), steps, strict=False)
            ]
            write_training(folder / f"layer-{backend}-{seed}", header, figures, model=model and seed == 0)
    header = make_header(CIFAR, "torch", 0, sample=False)
    write_training(folder / "z-cifar", header, make_figures([0, 1000, 2000]), model=model)
    return read_trainings(folder)[0]


def table_of(
    trainings: Sequence[Training],
    recipes: Sequence[Recipe] = (SOFTMAX, CIFAR),
    titles: Mapping[str, str] | None = None,
) -> Table:
    every = {one.header.cell.backend: one.header.backend.title for one in trainings}
    return Table(recipes=recipes, titles=every if titles is None else titles, trainings=trainings)


def written(folder: Path, table: Table, faults: Sequence[str] = ()) -> str:
    samples = {name: cache.load_sample(name, 40) for name in ("mnist", "cifar10")}
    path = write(folder, table, faults=faults, datasets=samples, display=fakes.Screen())
    assert path == folder / page.NAME
    assert path.is_file()
    return (folder / REPORT).read_text(encoding="utf-8")


def printed(table: Table, width: int = 60) -> str:
    file = StringIO()
    print_blocks(short(table), Console(file=file, width=width))
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of training runs with its report, which tests leave as it is."""
    folder = tmp_path_factory.mktemp("notebooks")
    written(folder, table_of(trainings_in(folder)))
    return folder


@pytest.fixture(scope="module")
def text(folder: Path) -> str:
    return (folder / REPORT).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def table(folder: Path) -> Table:
    return table_of(read_trainings(folder)[0])


def rows_of(text: str, first: str) -> list[list[str]]:
    """Return the cells of the rows of a table that begin with a name."""
    lines = [line.replace("\\", "") for line in text.splitlines()]
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in lines
        if line.startswith(f"| {first} ")
    ]


def answers(text: str) -> dict[str, list[str]]:
    """Return by heading, which names a figure of a notebook, the line of each framework."""
    plain = text.replace("\\", "").replace("**", "")
    parts = (part.partition("\n\n") for part in plain.split("\n### ")[1:])
    return {heading: body.partition("\n\n")[0].replace("- ", "").splitlines() for heading, _, body in parts}


def assert_harmless(shown: str) -> None:
    """Check that nothing in a text can act on a terminal."""
    assert all(char.isprintable() or char == "\n" for char in shown), shown


# The report


def test_the_report_has_every_figure_of_every_recipe_beside_that_of_every_framework(text: str) -> None:
    found = answers(text)
    assert list(found) == [
        f"{recipe.name}: {one.text} ({one.metric})" for recipe in (SOFTMAX, CIFAR) for one in recipe.published
    ]
    rows = {heading.partition(": ")[2].rpartition(" (")[0]: lines for heading, lines in found.items()}
    # sd 0.001 of three seeds; t(2) = 4.3027, times 0.001 sqrt(4/3) is 0.0050.
    assert rows["0.9163 at step 900"] == [
        "TensorFlow: 0.9165 ± 0.0010 (3) [0.9115, 0.9215]: inside",
        "PyTorch: 0.9160 ± 0.0010 (3) [0.9110, 0.9210]: inside",
    ]
    assert rows["0.279 at step 0"][0].endswith(": outside")
    # The loss is 2 (1 - accuracy) + 0.01 per image; the notebook sums it over 10,000 images.
    loss = 10_000 * (2 * (1 - MEANS["tensorflow"]) + 0.01)
    assert rows["2979 at step 900"][0].startswith(f"TensorFlow: {loss:.0f} ± 20 (3) [")
    unfinished = found[next(heading for heading in found if heading.startswith(CIFAR.name))]
    assert unfinished == ["TensorFlow: not trained", "PyTorch: at step 2,000 of 11,120"]


def test_the_report_begins_with_how_many_figures_each_framework_reproduces(text: str) -> None:
    begin = text.replace("\\", "").replace("**", "").splitlines()[2:4]
    figures = len(SOFTMAX.published) + len(CIFAR.published)
    form = re.compile(rf"- (\w+): \d+ of {figures} figures of the notebooks are inside the band; .*\.")
    assert [form.fullmatch(line)[1] for line in begin] == ["TensorFlow", "PyTorch"]
    counted = [int(number) for number in re.findall(r"(\d+) (?:of|outside|with|not)", begin[0])]
    assert sum(counted) == figures


def test_the_report_lists_the_training_runs_with_their_ends_machines_and_versions(text: str) -> None:
    listed = text.partition("## The training runs")[2]
    assert rows_of(listed, SOFTMAX.name) == [
        [SOFTMAX.name, "TensorFlow", "3", "1,000", "0.9155 to 0.9175", "0.9175 at 1", "10 s"],
        [SOFTMAX.name, "PyTorch", "3", "1,000", "0.9150 to 0.9170", "0.9170 at 1", "10 s"],
    ]
    assert rows_of(listed, CIFAR.name) == [
        [CIFAR.name, "PyTorch", "1", "2,000 (1 not finished)", "0.9000", "0.9000 at 2,000", "20 s"]
    ]
    header = make_header("notebook-one-layer", "torch")
    plain = html.unescape(text.replace("\\", ""))
    assert header.environment.in_words() in plain
    for name, version in header.backend.versions.items():
        assert f"PyTorch: {name} {version}" in plain
    assert all(line.split(",")[0] in plain for line in legend())


def test_every_picture_has_a_caption_and_is_an_svg(folder: Path, text: str) -> None:
    linked = re.findall(rf"!\[(.+)\]\({PLOTS}/(.+)\.svg\)\n\n\*(.+)\.\*", text)
    assert len(linked) == text.count("![")
    assert all(alt == caption for alt, _, caption in linked)
    names = [name for _, name, _ in linked]
    assert names == [
        "samples-mnist",
        f"{SOFTMAX.name}-curves",
        *(f"{SOFTMAX.name}-{kind}-tensorflow" for kind in ("distributions", "weights", "confusion")),
        "samples-cifar10",
        *(f"{CIFAR.name}-{kind}" for kind in ("curves", "augmentation", "distributions-torch")),
        *(f"{CIFAR.name}-{kind}-{layer}-torch" for layer in (1, 2) for kind in ("kernels", "outputs")),
        f"{CIFAR.name}-confusion-torch",
    ]
    assert {path.stem for path in (folder / PLOTS).iterdir()} == set(names)
    for name in names:
        assert b"<svg" in (folder / PLOTS / f"{name}.svg").read_bytes()[:600]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make no SVG of a figure, which takes most of the time."""
    monkeypatch.setattr("bench.recipes.pictures.selection.svg", lambda figure: b"new")


@pytest.mark.usefixtures("quick")
def test_a_picture_that_cannot_be_drawn_anew_stays(folder: Path, text: str, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    for path in copy.rglob("*.safetensors"):
        path.unlink()
    assert written(copy, table_of(read_trainings(copy)[0])) == text
    kept = {path.stem for path in (copy / PLOTS).iterdir() if path.read_bytes() != b"new"}
    assert kept == {
        *(f"{SOFTMAX.name}-{kind}-tensorflow" for kind in ("weights", "confusion")),
        *(f"{CIFAR.name}-{kind}-{layer}-torch" for layer in (1, 2) for kind in ("kernels", "outputs")),
        f"{CIFAR.name}-confusion-torch",
    }


@pytest.mark.usefixtures("quick")
def test_a_model_that_cannot_be_read_leaves_out_its_pictures_alone(tmp_path: Path) -> None:
    header = make_header(CIFAR, "torch", 0, sample=False)
    training = write_training(tmp_path / "t", header, make_figures([0, 1000]), model=True)
    next(training.folder.glob("*.safetensors")).write_bytes(b"x")
    pictures = written(tmp_path, table_of([training], [CIFAR])).partition("## Pictures")[2]
    assert "curves" in pictures
    for kind in ("confusion", "kernels", "outputs"):
        assert kind not in pictures


@pytest.mark.usefixtures("quick")
def test_only_the_frameworks_that_are_asked_for_are_shown(tmp_path: Path) -> None:
    table = table_of(trainings_in(tmp_path, model=False), [SOFTMAX], {"torch": "PyTorch"})
    text = written(tmp_path, table)
    assert "TensorFlow" not in text.partition("## Pictures")[2]
    assert "distributions-torch" in text


def test_a_report_of_nothing_has_the_figures_of_the_notebooks_and_what_is_missing(tmp_path: Path) -> None:
    text = written(tmp_path, table_of([]))
    names = [heading for heading in answers(text) if heading.startswith(CIFAR.name)]
    assert names == [f"{CIFAR.name}: {one.text} ({one.metric})" for one in CIFAR.published]
    assert "![" not in text
    assert "What is missing" not in text
    text = written(tmp_path, table_of([]), faults=["a|b: the budget was spent"])
    assert "## What is missing\n\n- a\\|b: the budget was spent\n" in text


def test_a_report_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RecordError, match="cannot write the report to"):
        written(tmp_path / "file", table_of([]))


@pytest.mark.usefixtures("quick")
def test_hostile_names_are_shown_and_not_obeyed(tmp_path: Path) -> None:
    header = make_header(SOFTMAX, "torch", 0, sample=False)
    header = msgspec.structs.replace(
        header,
        backend=msgspec.structs.replace(header.backend, title=HOSTILE, versions={HOSTILE: HOSTILE}),
        environment=msgspec.structs.replace(header.environment, cpu_model=HOSTILE),
    )
    table = table_of([write_training(tmp_path / "t", header, make_figures([1, 901]))], [SOFTMAX])
    text = written(tmp_path, table)
    assert_harmless(text)
    assert "<b>" not in text.replace("\\<", "")
    (row,) = [line for line in text.splitlines() if line.startswith(f"| {SOFTMAX.name}")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 8
    shown = printed(table)
    assert_harmless(shown)
    assert "[red]Py|Torch[/] <b>*x*" in shown, "no markup is taken out"


# The terminal


def test_the_table_fits_a_narrow_terminal_and_ends_with_its_legend(table: Table) -> None:
    lines = printed(table).splitlines()
    assert max(map(len, lines)) <= 60
    place = lines.index("notebook-one-layer: 0.9163 at step 900 (test accuracy)")
    assert lines[place + 1 : place + 3] == [
        "\N{BULLET} TensorFlow: 0.9165 ± 0.0010 (3) [0.9115, 0.9215]: inside",
        "\N{BULLET} PyTorch: 0.9160 ± 0.0010 (3) [0.9110, 0.9210]: inside",
    ]
    assert "\N{BULLET} PyTorch: at step 2,000 of 11,120" in lines
    assert "\N{BULLET} TensorFlow: not trained" in lines
    assert printed(table, 1000).splitlines()[-len(legend()) :] == [f"\N{BULLET} {line}" for line in legend()]
    assert "95% probability" in " ".join(legend())


@pytest.mark.parametrize("width", [20, 60, 200])
def test_no_figure_is_cut_apart_however_narrow_the_terminal(width: int, table: Table) -> None:
    titles = {name: f"{title} with a long name" for name, title in table.titles.items()}
    table = msgspec.structs.replace(table, titles=titles)
    narrow = printed(table, width)
    assert max(map(len, narrow.splitlines())) <= width
    assert narrow.split() == printed(table, 1000).split()


# What the terminal shows of a model


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return load_model(make_model(tmp_path / "notebook-one-layer-step-1000.safetensors", SOFTMAX.workload))


def scored(model: Model, scores: Iterable[Score], unavailable: Mapping[str, str] | None = None) -> str:
    file = StringIO()
    print_blocks(score_blocks(model, list(scores), unavailable or {}), Console(file=file, width=100))
    return file.getvalue()


GOOD = Score(
    backend="torch", title="PyTorch", test_accuracy=0.9163, test_loss=0.29791, difference=3.2e-7, within=True
)


def test_every_framework_has_its_accuracy_its_loss_and_the_error_of_its_logits(model: Model) -> None:
    wrong = msgspec.structs.replace(GOOD, title="Wrong", difference=0.5, within=False)
    failed = Score(backend="jax", title="JAX", error="no room for 9 GiB")
    shown = scored(model, [GOOD, wrong, failed], {"odd": "not installed: odd"})
    assert shown.startswith("notebook-one-layer-step-1000.safetensors, trained in numpy (float64), seed 1\n")
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if line.strip()}
    assert rows["PyTorch"] == ["0.9163", "0.29791", "3.2e-07", "ok"]
    assert rows["Wrong"] == ["0.9163", "0.29791", "5.0e-01", "TOO", "FAR"]
    assert rows["JAX"] == [NOTHING, NOTHING, NOTHING, "failed"]
    assert "\N{BULLET} JAX: no room for 9 GiB" in shown.splitlines()
    assert "\N{BULLET} odd: not installed: odd" in shown.splitlines()


def test_what_a_framework_or_a_model_from_anybody_says_cannot_act_on_the_terminal(model: Model) -> None:
    cell = msgspec.structs.replace(model.about.cell, backend=HOSTILE, mode=HOSTILE)
    hostile = msgspec.structs.replace(model, about=msgspec.structs.replace(model.about, cell=cell))
    failed = Score(backend="x", title=HOSTILE, error=HOSTILE)
    shown = scored(hostile, [GOOD, failed], {HOSTILE: HOSTILE})
    assert_harmless(shown)
    assert "[red]Py|Torch[/] <b>*x*" in shown


def probabilities(model: Model, index: int, shares: Mapping[int, float]) -> str:
    file = StringIO()
    dataset = cache.load_sample("mnist", 20)
    values = np.array([shares.get(number, 0.0) for number in range(10)])
    print_blocks(probability_blocks(model, dataset, index, values), Console(file=file, width=80))
    return file.getvalue()


@pytest.mark.parametrize("right", [True, False])
def test_every_class_has_its_probability_and_the_guess_is_judged(right: bool, model: Model) -> None:
    label = int(cache.load_sample("mnist", 20).test_labels[3])
    other = (label + 1) % 10
    first, second = (label, other) if right else (other, label)
    head, _, *lines, _, last = probabilities(model, 3, {first: 0.75, second: 0.25}).splitlines()
    assert head == "notebook-one-layer-step-1000.safetensors, test image 3 of mnist"
    assert [line.split()[0] for line in lines] == list(cache.load_sample("mnist", 20).class_names)
    assert lines[first].split()[1:3] == ["0.7500", "\N{FULL BLOCK}" * 18]
    assert lines[other if right else label].split()[1:3] == ["0.2500", "\N{FULL BLOCK}" * 6]
    assert [number for number, line in enumerate(lines) if "<- its class" in line] == [label]
    names = cache.load_sample("mnist", 20).class_names
    truth = "which is right" if right else f"which is wrong: it is {names[label]}"
    assert last == f"Predicted: {names[first]}, {truth}."
