"""What can be shown of what: sources are found, pictures drawn, and what is missing is refused."""

import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec
import numpy as np
import pytest
from fakes import Screen
from followed import due_figures, make_header, make_model, make_params, write_training
from matplotlib.figure import Figure

from bench.datasets.cache import load_sample
from bench.errors import RecordError, UsageError
from bench.recipes import show
from bench.recipes.catalog import find_recipe, on_dataset
from bench.recipes.checkpoints import model_name
from bench.recipes.show import PICTURES, Choice, Scene, Source, find_source
from bench.workloads.catalog import find_workload
from bench.workloads.specs import Architecture, ConvBlock

SOFTMAX = find_workload("notebook-one-layer")
CNN = msgspec.structs.replace(
    find_workload("notebook-cifar-cnn"),
    architecture=Architecture(convs=(ConvBlock(filters=2, pool=4), ConvBlock(filters=3, kernel=3))),
)
LIMIT = 60
LAST = LIMIT - 1  # samples from here on are one image, and soon drawn


def scene_of(source: Source, limit: int | None = LIMIT, **choice: int | None) -> Scene:
    dataset = load_sample(source.dataset, limit)
    return Scene(source=source, dataset=dataset, choice=Choice(**choice), display=Screen())


def drawn(source: Source, *wanted: str, limit: int | None = LIMIT, **choice: int | None) -> dict[str, bytes]:
    return dict(show.draw(scene_of(source, limit, **choice), wanted))


@pytest.fixture
def figures(monkeypatch) -> list[Figure]:
    """Keep every figure, in place of its SVG, which takes most of the time."""
    found: list[Figure] = []
    monkeypatch.setattr(show, "svg", lambda figure: found.append(figure) or b"")
    return found


@pytest.fixture(scope="module")
def cnn(tmp_path_factory) -> Source:
    return find_source(str(make_model(tmp_path_factory.mktemp("cnn") / "cnn-step-7.safetensors", CNN)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Source:
    """Return a training run of a softmax regression, with two models."""
    header = make_header("one-layer", steps=200)
    folder = tmp_path_factory.mktemp("trained") / "one"
    write_training(folder, header, due_figures(header), model=True)
    make_model(folder / model_name("notebook-one-layer", 100), SOFTMAX)
    return find_source(str(folder))


def begun(folder: Path) -> Source:
    """Return a training run that has neither a figure nor a model yet."""
    return find_source(str(write_training(folder, make_header("one-layer", limit=500, sample=False)).folder))


# Sources


def test_a_data_set_and_a_recipe_are_found_by_name():
    assert find_source("cifar10") == Source(name="cifar10", dataset="cifar10")
    for name in ("one-layer", "notebook-one-layer"):
        assert find_source(name) == Source(name="notebook-one-layer", dataset="mnist", workload=SOFTMAX)


def test_a_training_is_found_by_its_folder_and_by_its_model(trained):
    assert (trained.name, trained.dataset, trained.sample) == ("notebook-one-layer", "mnist", True)
    assert (trained.workload, trained.training.header.steps) == (SOFTMAX, 200)
    assert trained.trained.name == "notebook-one-layer-step-200"
    older = find_source(str(trained.folder / model_name("notebook-one-layer", 100)))
    assert older.trained.name == "notebook-one-layer-step-100"
    assert (older.folder, older.training) == (trained.folder, trained.training)


def test_a_training_without_a_model_and_a_model_without_a_training_can_be_shown(cnn, tmp_path):
    source = begun(tmp_path / "one")
    assert (source.trained, source.dataset, source.limit, source.sample) == (None, "mnist", 500, False)
    assert source.workload == source.training.header.workload == SOFTMAX
    assert (cnn.training, cnn.sample, cnn.limit) == (None, False, None)
    assert (cnn.name, cnn.dataset, cnn.workload) == ("notebook-cifar-cnn", "cifar10", CNN)


@pytest.mark.parametrize(
    ("name", "near"),
    [("cifra10", "cifar10"), ("notebook-afine", "notebook-affine"), ("nothing/like/it", None)],
)
def test_an_unknown_source_is_refused_with_the_nearest_and_what_else_it_can_be(name, near):
    said = f"did you mean '{near}'" if near else "known: mnist, "
    with pytest.raises(UsageError, match=f"unknown source '{name}'; {said}.*the folder of a training run"):
        find_source(name)


def test_a_folder_that_is_no_training_and_a_file_that_is_no_model_are_refused(tmp_path):
    with pytest.raises(UsageError, match=f"{tmp_path} is not a training run"):
        find_source(str(tmp_path))
    (tmp_path / "notes.txt").write_text("no model")
    with pytest.raises(RecordError, match=f"{tmp_path}/notes.txt cannot be read"):
        find_source(str(tmp_path / "notes.txt"))


# Pictures


def test_every_picture_that_a_source_has_is_drawn(trained, cnn, tmp_path, figures):
    assert list(drawn(find_source("mnist"), index=LAST)) == ["samples"]
    assert list(drawn(find_source("one-layer"), index=LAST)) == ["samples"]
    assert list(drawn(find_source("cifar-cnn"), index=LAST)) == ["samples", "augmentation-image-59"]
    assert list(drawn(begun(tmp_path / "one"), index=LAST)) == ["samples"]
    found = ["samples", "curves", "distributions", "weights", "confusion"]
    assert list(drawn(trained, index=LAST)) == found
    assert list(drawn(cnn, limit=20, index=19)) == [
        "samples",
        "augmentation-image-19",
        "kernels-conv1-channel-0",
        "kernels-conv2-channel-0",
        "outputs-conv1-image-19",
        "outputs-conv2-image-19",
        "confusion",
    ]


def test_only_what_is_wanted_is_drawn_each_once_and_in_the_order_of_all(trained, figures):
    assert list(drawn(trained, "weights", "samples", "weights", index=LAST)) == ["samples", "weights"]


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ({"layer": 2, "channel": 1, "index": 3}, ["kernels-conv2-channel-1", "outputs-conv2-image-3"]),
        (
            {"channel": 2},  # which only the first layer has; outputs do not depend on it
            ["kernels-conv1-channel-2", "outputs-conv1-image-0", "outputs-conv2-image-0"],
        ),
    ],
)
def test_the_layer_the_channel_and_the_image_are_those_chosen(choice, names, cnn, figures):
    assert list(drawn(cnn, "kernels", "outputs", **choice)) == names
    dataset, index = load_sample("cifar10"), choice.get("index", 0)
    name = dataset.class_names[dataset.test_labels[index]]
    assert figures[-1].get_suptitle() == f"conv2 of test image {index} ({name})"


def test_pictures_are_well_formed_and_the_same_to_the_byte(trained):
    wanted = ("samples", "curves")
    first, second = drawn(trained, *wanted, index=LAST), drawn(trained, *wanted, index=LAST)
    assert first == second
    assert list(first) == list(wanted)
    for content in first.values():
        assert ET.fromstring(content).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314 - made here


@pytest.mark.parametrize("wanted", [("weigths",), ("samples", "weigths")])
def test_an_unknown_picture_is_refused_with_the_nearest_before_any_is_drawn(wanted):
    with pytest.raises(UsageError, match="unknown picture 'weigths'; did you mean 'weights'"):
        next(show.draw(scene_of(find_source("mnist")), wanted))


def test_a_picture_that_a_source_does_not_have_is_refused(trained, cnn):
    lacks = [
        (find_source("mnist"), set(PICTURES) - {"samples"}),
        (find_source("cifar-cnn"), set(PICTURES) - {"samples", "augmentation"}),
        (trained, {"kernels", "outputs", "augmentation"}),
        (cnn, {"weights", "curves", "distributions"}),
    ]
    for source, names in lacks:
        for name in names:
            with pytest.raises(UsageError, match=f"{name}: {source.name} has nothing of that kind"):
                drawn(source, name)


@pytest.mark.parametrize(
    ("name", "split"), [("samples", "test"), ("outputs", "test"), ("augmentation", "training")]
)
def test_an_image_that_is_not_there_is_refused_and_the_last_is_drawn(name, split, cnn, figures):
    for index in (LIMIT, -1):
        with pytest.raises(UsageError, match=f"there is no {split} image {index}; they are 0 to 59"):
            drawn(cnn, name, index=index)
    assert len(drawn(cnn, name, index=LAST, layer=1)) == 1


def test_confusion_says_how_many_are_right(tmp_path, figures):
    always_seven = {name: np.zeros_like(value) for name, value in make_params(SOFTMAX).items()}
    always_seven["logits/bias"][7] = 1
    path = make_model(tmp_path / "net-step-1.safetensors", SOFTMAX, params=always_seven)
    drawn(find_source(str(path)), "confusion", limit=None)
    right = (load_sample("mnist").test_labels == 7).mean()
    panel = figures[0].axes[0]
    assert panel.get_title(loc="left") == f"net-step-1: {right:.2%} of 500 test images"
    shares = np.asarray(panel.images[0].get_array())
    np.testing.assert_array_equal(shares, np.tile(np.arange(10) == 7, (10, 1)))


@pytest.mark.parametrize(
    ("dataset", "sample", "crosses"), [("mnist", False, 6), ("mnist", True, 0), ("cifar10", False, 0)]
)
def test_curves_have_the_published_figures_of_the_whole_data_set_of_the_notebook(
    dataset, sample, crosses, tmp_path, figures
):
    made = due_figures(make_header("one-layer", steps=200))
    header = make_header(on_dataset(find_recipe("one-layer"), dataset), steps=200, sample=sample)
    drawn(find_source(str(write_training(tmp_path / "one", header, made).folder)), "curves")
    accuracy = figures[0].axes[0]
    assert len([line for line in accuracy.lines if line.get_marker() == "x"]) == crosses
