"""The table of the notebooks and what the terminal shows of a model: right, readable, and safe to print."""

import html
import re
import shutil
from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import fakes
import msgspec
import numpy as np
import pytest
from followed import make_figure, make_figures, make_header, make_model, write_training
from rich.console import Console

from bench.datasets import cache
from bench.datasets.cache import Dataset
from bench.errors import RecordError
from bench.recipes.catalog import RECIPES, Recipe, figure_steps
from bench.recipes.checkpoints import Model, load_model
from bench.recipes.evaluate import Score
from bench.recipes.notebooks import read_trainings
from bench.recipes.records import Training
from bench.recipes.report import REPORT, legend, render, write
from bench.recipes.tables import render_probabilities, render_scores
from bench.report.markdown import PLOTS
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


def table(folder: Path, *, model: bool = True) -> list[Training]:
    """Write trainings: one layer over three seeds in two frameworks, and CIFAR-10 on its way in one."""
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


def titles(trainings: list[Training]) -> dict[str, str]:
    return {one.header.cell.backend: one.header.backend.title for one in trainings}


def samples() -> dict[str, Dataset]:
    return {name: cache.load_sample(name, 40) for name in ("mnist", "cifar10")}


def written(folder: Path, trainings: list[Training], **changes: Any) -> str:
    options: dict[str, Any] = {
        "backends": titles(trainings), "trainings": trainings, "datasets": samples(),
        "display": fakes.Screen(), "faults": (), "recipes": [SOFTMAX, CIFAR],
    }  # fmt: skip
    path = write(folder, **options | changes)
    assert path == folder / REPORT
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("notebooks")
    return folder, written(folder, table(folder))


def rows_of(text: str, first: str) -> list[list[str]]:
    """Return the cells of the rows of a table that begin with a name."""
    lines = [line.replace("\\", "") for line in text.splitlines()]
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in lines
        if line.startswith(f"| {first} ")
    ]


# The report


def test_the_report_has_every_figure_of_every_recipe_beside_that_of_every_framework(
    report: tuple[Path, str],
) -> None:
    _, text = report
    heads = next(line for line in text.splitlines() if line.startswith("| recipe"))
    assert re.findall(r"\w[\w ]*", heads) == ["recipe ", "the notebook ", "TensorFlow ", "PyTorch "]
    for recipe in (SOFTMAX, CIFAR):
        rows = rows_of(text, recipe.name)[: len(recipe.published)]
        assert [row[1] for row in rows] == [f"{one.text} ({one.measure})" for one in recipe.published]
    (row,) = (row for row in rows_of(text, SOFTMAX.name) if row[1].startswith("0.9163 at step 900"))
    # sd 0.001 of three seeds; t(2) = 4.3027, times 0.001 sqrt(4/3) is 0.0050.
    assert row[2:] == [
        "0.9165 ± 0.0010 (3) [0.9115, 0.9215]: inside",
        "0.9160 ± 0.0010 (3) [0.9110, 0.9210]: inside",
    ]
    (row,) = (row for row in rows_of(text, SOFTMAX.name) if row[1].startswith("0.279 at"))
    assert row[2].endswith(": outside")


def test_a_loss_is_told_as_the_notebook_has_it(report: tuple[Path, str]) -> None:
    (row,) = (row for row in rows_of(report[1], SOFTMAX.name) if row[1].startswith("2979 at step 900"))
    # The loss is 2 (1 - accuracy) + 0.01, an image; the notebook sums it over 10,000 images.
    assert row[2].startswith(f"{10_000 * (2 * (1 - MEANS['tensorflow']) + 0.01):.0f} ± 20 (3) [")


def test_a_framework_that_has_not_come_so_far_says_how_far_it_is(report: tuple[Path, str]) -> None:
    row, *_ = rows_of(report[1], CIFAR.name)
    assert row[2:] == ["not trained", "at step 2,000 of 11,120"]


def test_the_trainings_are_listed_with_their_ends(report: tuple[Path, str]) -> None:
    listed = report[1].partition("## The trainings")[2]
    assert rows_of(listed, SOFTMAX.name) == [
        [SOFTMAX.name, "TensorFlow", "3", "1,000", "0.9155 to 0.9175", "0.9175 at 1", "10 s"],
        [SOFTMAX.name, "PyTorch", "3", "1,000", "0.9150 to 0.9170", "0.9170 at 1", "10 s"],
    ]
    assert rows_of(listed, CIFAR.name) == [
        [CIFAR.name, "PyTorch", "1", "2,000 (1 not finished)", "0.9000", "0.9000 at 2,000", "20 s"]
    ]


def test_the_report_tells_machines_versions_and_what_a_band_is(report: tuple[Path, str]) -> None:
    _, text = report
    header = make_header("notebook-one-layer", "torch")
    plain = html.unescape(text.replace("\\", ""))
    assert header.environment.in_words() in plain
    for name, version in header.backend.versions.items():
        assert f"PyTorch: {name} {version}" in plain
    assert all(line.split(",")[0] in plain for line in legend())


def test_every_picture_has_a_caption_and_is_an_svg(report: tuple[Path, str]) -> None:
    folder, text = report
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


def test_a_picture_that_cannot_be_drawn_anew_stays(report: tuple[Path, str], tmp_path: Path) -> None:
    folder, text = report
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    for path in copy.rglob("*.safetensors"):
        path.unlink()
    before = {path.name: path.read_bytes() for path in (copy / PLOTS).iterdir()}
    trainings, _ = read_trainings(copy)
    assert written(copy, trainings) == text
    assert {path.name: path.read_bytes() for path in (copy / PLOTS).iterdir()} == before


def test_a_picture_that_was_never_drawn_is_not_linked(tmp_path: Path) -> None:
    text = written(tmp_path, table(tmp_path, model=False), recipes=[CIFAR])
    for kind in ("weights", "confusion", "kernels", "outputs"):
        assert kind not in text.partition("## Pictures")[2]
    assert "curves" in text.partition("## Pictures")[2]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    assert "What is missing" not in written(tmp_path, [])
    text = written(tmp_path, [], faults=["a|b: the budget was spent"])
    assert "## What is missing\n\n- a\\|b: the budget was spent\n" in text


def test_a_model_that_cannot_be_read_leaves_out_its_pictures_alone(tmp_path: Path) -> None:
    trainings = [one for one in table(tmp_path) if one.header.recipe == CIFAR.name]
    next(trainings[0].folder.glob("*.safetensors")).write_bytes(b"x")
    text = written(tmp_path, trainings, recipes=[CIFAR])
    assert "curves" in text
    assert "kernels" not in text


def test_only_the_frameworks_that_are_asked_for_are_told(tmp_path: Path) -> None:
    trainings = [one for one in table(tmp_path, model=False) if one.header.recipe == SOFTMAX.name]
    text = written(tmp_path, trainings, recipes=[SOFTMAX], backends={"torch": "PyTorch"})
    assert "TensorFlow" not in text.partition("## Pictures")[2]
    assert "distributions-torch" in text


def test_a_report_of_nothing_still_has_the_figures_of_the_notebooks(tmp_path: Path) -> None:
    text = written(tmp_path, [])
    assert [row[1] for row in rows_of(text, CIFAR.name)] == [
        f"{one.text} ({one.measure})" for one in CIFAR.published
    ]
    assert "![" not in text


def test_a_report_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RecordError, match="cannot write the report to"):
        written(tmp_path / "file", [])


def test_hostile_names_are_shown_and_not_obeyed(tmp_path: Path) -> None:
    header = make_header(SOFTMAX, "torch", 0, sample=False)
    header = msgspec.structs.replace(
        header,
        backend=msgspec.structs.replace(header.backend, title=HOSTILE, versions={HOSTILE: HOSTILE}),
        environment=msgspec.structs.replace(header.environment, cpu_model=HOSTILE),
    )
    training = write_training(tmp_path / "t", header, make_figures([1, 901]))
    text = written(tmp_path, [training], recipes=[SOFTMAX])
    assert all(char.isprintable() or char == "\n" for char in text)
    assert "<b>" not in text.replace("\\<", "")
    heads = next(line for line in text.splitlines() if line.startswith("| recipe"))
    assert len(re.findall(r"(?<!\\)\|", heads)) == 4
    shown = printed(titles([training]), [training])
    assert all(char.isprintable() or char == "\n" for char in shown)
    assert "[red]Py|Torch[/] <b>*x*" in shown, "no markup is taken out"


# The terminal


def printed(
    backends: Mapping[str, str], trainings: list[Training], *, width: int = 60, recipes: Any = None
) -> str:
    file = StringIO()
    console = Console(file=file, width=width)
    render(recipes or [SOFTMAX, CIFAR], backends, trainings, console)
    return file.getvalue()


def test_the_table_fits_a_narrow_terminal_and_every_framework_has_a_line(report: tuple[Path, str]) -> None:
    trainings, _ = read_trainings(report[0])
    lines = printed(titles(trainings), trainings).splitlines()
    assert max(map(len, lines)) <= 60
    place = lines.index("notebook-one-layer: 0.9163 at step 900 (test accuracy)")
    assert lines[place + 1 : place + 3] == [
        "  TensorFlow  0.9165 ± 0.0010 (3) [0.9115, 0.9215]: inside",
        "  PyTorch     0.9160 ± 0.0010 (3) [0.9110, 0.9210]: inside",
    ]
    assert "  PyTorch     at step 2,000 of 11,120" in lines
    assert "  TensorFlow  not trained" in lines


def words(text: str) -> list[str]:
    return text.split()


@pytest.mark.parametrize("width", [20, 40, 60, 200])
def test_no_figure_is_cut_apart_however_narrow_the_terminal(width: int, report: tuple[Path, str]) -> None:
    trainings, _ = read_trainings(report[0])
    backends = {name: f"{title} with a long name" for name, title in titles(trainings).items()}
    wide = printed(backends, trainings, width=1000)
    narrow = printed(backends, trainings, width=width)
    assert max(map(len, narrow.splitlines())) <= width
    assert words(narrow) == words(wide)


def test_the_legend_comes_last_and_says_how_sure_a_band_is(report: tuple[Path, str]) -> None:
    trainings, _ = read_trainings(report[0])
    shown = printed(titles(trainings), trainings, width=1000).splitlines()
    assert shown[-len(legend()) :] == legend()
    assert "95% probability" in " ".join(legend())


# What the terminal shows of a model


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return load_model(make_model(tmp_path / "notebook-one-layer-step-1000.safetensors", SOFTMAX.workload))


def scored(model: Model, scores: Iterable[Score], unavailable: Mapping[str, str] | None = None) -> str:
    file = StringIO()
    render_scores(model, list(scores), unavailable or {}, Console(file=file, width=100))
    return file.getvalue()


GOOD = Score(
    backend="torch", title="PyTorch", test_accuracy=0.9163, test_loss=0.29791, difference=3.2e-7, within=True
)


def test_every_framework_has_its_accuracy_its_loss_and_how_far_it_is_off(model: Model) -> None:
    wrong = msgspec.structs.replace(GOOD, title="Wrong", difference=0.5, within=False)
    failed = Score(backend="jax", title="JAX", error="no room for 9 GiB")
    shown = scored(model, [GOOD, wrong, failed], {"odd": "not installed: odd"})
    assert shown.startswith("notebook-one-layer-step-1000.safetensors, trained in numpy (float64), seed 1\n")
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if line.strip()}
    assert rows["PyTorch"] == ["0.9163", "0.29791", "3.2e-07"]
    assert rows["Wrong"] == ["0.9163", "0.29791", "5.0e-01", "TOO", "FAR"]
    assert "failed" in shown
    assert "JAX: no room for 9 GiB" in shown.splitlines()
    assert "odd: not installed: odd" in shown.splitlines()


def test_what_a_failed_framework_said_cannot_act_on_the_terminal(model: Model) -> None:
    failed = Score(backend="x", title=HOSTILE, error=HOSTILE)
    shown = scored(model, [failed], {HOSTILE: HOSTILE})
    assert all(char.isprintable() or char == "\n" for char in shown), shown
    assert "[red]Py|Torch[/] <b>*x*" in shown


def test_what_a_model_says_of_itself_cannot_act_on_the_terminal(model: Model) -> None:
    """A model may come from anybody."""
    cell = msgspec.structs.replace(model.about.cell, backend=HOSTILE, mode=HOSTILE)
    hostile = msgspec.structs.replace(model, about=msgspec.structs.replace(model.about, cell=cell))
    shown = scored(hostile, [GOOD])
    assert all(char.isprintable() or char == "\n" for char in shown), shown


def probabilities(model: Model, index: int, shares: Mapping[int, float]) -> str:
    file = StringIO()
    dataset = cache.load_sample("mnist", 20)
    values = np.array([shares.get(number, 0.0) for number in range(10)])
    render_probabilities(model, dataset, index, values, Console(file=file, width=80))
    return file.getvalue()


@pytest.mark.parametrize("right", [True, False])
def test_every_class_has_its_probability_and_the_guess_is_judged(right: bool, model: Model) -> None:
    label = int(cache.load_sample("mnist", 20).test_labels[3])
    other = (label + 1) % 10
    first, second = (label, other) if right else (other, label)
    head, *lines, last = probabilities(model, 3, {first: 0.75, second: 0.25}).splitlines()
    assert head == "notebook-one-layer-step-1000.safetensors, test image 3 of mnist"
    assert [line.split()[0] for line in lines] == list(cache.load_sample("mnist", 20).class_names)
    assert lines[first].split()[1:3] == ["0.7500", "\N{FULL BLOCK}" * 18]
    assert lines[other if right else label].split()[1:3] == ["0.2500", "\N{FULL BLOCK}" * 6]
    assert [number for number, line in enumerate(lines) if "<- its class" in line] == [label]
    names = cache.load_sample("mnist", 20).class_names
    truth = "which is right" if right else f"which is wrong: it is {names[label]}"
    assert last == f"Predicted: {names[first]}, {truth}."
