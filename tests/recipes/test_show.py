"""What can be shown of what: sources are found, pictures drawn, and what is not there is refused in words."""

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
def names_only(monkeypatch):
    """Make no SVG of a figure, which takes most of the time."""
    monkeypatch.setattr(show, "svg", lambda figure: b"")


@pytest.fixture
def figures(monkeypatch) -> list[Figure]:
    """Keep every figure, in place of its SVG."""
    found: list[Figure] = []
    monkeypatch.setattr(show, "svg", lambda figure: found.append(figure) or b"")
    return found


@pytest.fixture
def cnn(tmp_path) -> Source:
    return find_source(str(make_model(tmp_path / "cnn-step-7.safetensors", CNN)))


@pytest.fixture
def trained(tmp_path) -> Source:
    header = make_header("one-layer", steps=200)
    return find_source(str(write_training(tmp_path / "one", header, due_figures(header), model=True).folder))


# Sources


def test_a_data_set_and_a_recipe_are_found_by_name():
    assert find_source("cifar10") == Source(name="cifar10", dataset="cifar10")
    for name in ("one-layer", "notebook-one-layer"):
        assert find_source(name) == Source(name="notebook-one-layer", dataset="mnist", workload=SOFTMAX)


def test_a_training_is_found_with_its_model_in_its_folder(trained, tmp_path):
    assert trained.folder == tmp_path / "one"
    assert (trained.name, trained.dataset, trained.sample) == ("notebook-one-layer", "mnist", True)
    assert trained.training.header.steps == 200
    assert trained.trained.name == "notebook-one-layer-step-200"
    assert trained.workload == SOFTMAX


def test_a_training_without_a_model_yet_can_be_shown(tmp_path):
    header = make_header("cifar-cnn", limit=500, sample=False)
    source = find_source(str(write_training(tmp_path / "one", header).folder))
    assert (source.trained, source.dataset, source.limit) == (None, "cifar10", 500)
    assert source.training.header == header
    assert source.workload == header.workload


def test_a_model_is_found_by_its_file_with_the_training_it_lies_in(trained, tmp_path):
    other = make_model(tmp_path / "one" / model_name("notebook-one-layer", 100), SOFTMAX)
    source = find_source(str(other))
    assert source.trained.name == "notebook-one-layer-step-100"
    assert source.training == trained.training
    assert find_source(str(tmp_path / "one")).trained.name == "notebook-one-layer-step-200"


def test_a_model_by_itself_has_no_training(cnn, tmp_path):
    assert (cnn.training, cnn.folder, cnn.sample, cnn.limit) == (None, tmp_path, False, None)
    assert (cnn.name, cnn.dataset) == ("notebook-cifar-cnn", "cifar10")


@pytest.mark.parametrize(
    ("name", "near"),
    [("cifra10", "cifar10"), ("notebook-afine", "notebook-affine"), ("nothing/like/it", None)],
)
def test_an_unknown_source_is_refused_with_the_nearest_and_what_else_it_can_be(name, near):
    said = f"did you mean '{near}'" if near else "known: mnist, "
    with pytest.raises(UsageError, match=f"unknown source '{name}'; {said}.*the folder of a training"):
        find_source(name)


def test_a_folder_that_is_no_training_is_refused(tmp_path):
    with pytest.raises(UsageError, match=f"{tmp_path} is no training"):
        find_source(str(tmp_path))


def test_a_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no model")
    with pytest.raises(RecordError, match=f"{tmp_path}/notes.txt cannot be read"):
        find_source(str(tmp_path / "notes.txt"))


# Pictures


def test_a_data_set_has_samples_only(names_only):
    assert list(drawn(find_source("mnist"), index=LAST)) == ["samples"]


def test_a_recipe_that_augments_has_augmentation(names_only):
    assert list(drawn(find_source("cifar-cnn"), index=LAST)) == ["samples", "augmentation-image-59"]
    assert list(drawn(find_source("one-layer"), index=LAST)) == ["samples"]


def test_a_training_of_a_softmax_has_curves_weights_and_confusion(trained, names_only):
    found = drawn(trained, index=LAST)
    assert list(found) == ["samples", "curves", "distributions", "weights", "confusion"]


def test_a_model_of_a_cnn_has_kernels_and_outputs_of_every_layer(cnn, names_only):
    assert list(drawn(cnn, limit=20, index=19)) == [
        "samples",
        "augmentation-image-19",
        "kernels-conv1-channel-0",
        "kernels-conv2-channel-0",
        "outputs-conv1-image-19",
        "outputs-conv2-image-19",
        "confusion",
    ]


def test_a_training_that_has_no_figure_yet_has_no_curves(tmp_path, names_only):
    source = find_source(str(write_training(tmp_path / "one").folder))
    assert list(drawn(source, index=LAST)) == ["samples"]


def test_only_what_is_wanted_is_drawn_each_once_and_in_the_order_of_all(trained, names_only):
    assert list(drawn(trained, "weights", "samples", "weights", index=LAST)) == ["samples", "weights"]


def test_the_layer_and_the_channel_are_those_chosen(cnn, names_only):
    found = drawn(cnn, "kernels", "outputs", layer=2, channel=1, index=3)
    assert list(found) == ["kernels-conv2-channel-1", "outputs-conv2-image-3"]


def test_kernels_of_a_channel_are_drawn_of_the_layers_that_have_it(cnn, names_only):
    assert list(drawn(cnn, "kernels", channel=2)) == ["kernels-conv1-channel-2"]


def test_the_channel_of_the_kernels_does_not_choose_the_outputs(cnn, names_only):
    assert list(drawn(cnn, "outputs", channel=2)) == ["outputs-conv1-image-0", "outputs-conv2-image-0"]


def test_pictures_are_well_formed_and_the_same_to_the_byte(trained):
    wanted = ("samples", "curves", "confusion")
    first, second = drawn(trained, *wanted, index=LAST), drawn(trained, *wanted, index=LAST)
    assert first == second
    assert list(first) == list(wanted)
    for content in first.values():
        assert ET.fromstring(content).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314 - made here


@pytest.mark.parametrize("wanted", [("weigths",), ("samples", "weigths")])
def test_an_unknown_picture_is_refused_with_the_nearest_before_any_is_drawn(wanted):
    with pytest.raises(UsageError, match="unknown picture 'weigths'; did you mean 'weights'"):
        next(show.draw(scene_of(find_source("mnist")), wanted))


@pytest.mark.parametrize(
    ("source", "lacks"),
    [
        ("mnist", set(PICTURES) - {"samples"}),
        ("one-layer", set(PICTURES) - {"samples"}),
        ("cifar-cnn", set(PICTURES) - {"samples", "augmentation"}),
    ],
)
def test_a_picture_that_a_source_does_not_have_is_refused(source, lacks):
    found = find_source(source)
    for name in lacks:
        with pytest.raises(UsageError, match=f"{name}: {found.name} has nothing of that kind"):
            drawn(found, name)


@pytest.mark.parametrize("name", ["kernels", "outputs", "augmentation"])
def test_a_softmax_has_nothing_of_a_cnn(name, trained):
    with pytest.raises(UsageError, match=f"{name}: notebook-one-layer has nothing of that kind"):
        drawn(trained, name)


@pytest.mark.parametrize("name", ["weights", "curves", "distributions"])
def test_a_cnns_model_has_neither_weights_as_images_nor_a_course(name, cnn):
    with pytest.raises(UsageError, match=f"{name}: notebook-cifar-cnn has nothing of that kind"):
        drawn(cnn, name)


@pytest.mark.parametrize(
    ("name", "split"), [("samples", "test"), ("outputs", "test"), ("augmentation", "training")]
)
@pytest.mark.parametrize("index", [LIMIT, -1])
def test_an_image_that_is_not_there_is_refused(name, split, index, cnn):
    with pytest.raises(UsageError, match=f"there is no {split} image {index}; they are 0 to 59"):
        drawn(cnn, name, index=index)


def test_the_last_image_is_there(cnn, names_only):
    wanted = ("samples", "augmentation", "outputs")
    assert len(drawn(cnn, *wanted, index=LAST, layer=1)) == 3


@pytest.mark.parametrize(
    ("choice", "said"),
    [({"layer": 3}, "has no conv3"), ({"layer": 2, "channel": 2}, "channels 0 to 1, not 2")],
)
def test_a_layer_or_channel_that_is_not_there_is_refused(choice, said, cnn):
    with pytest.raises(UsageError, match=said):
        drawn(cnn, "kernels", **choice)


def test_outputs_are_under_the_name_of_the_images_class(cnn, figures):
    drawn(cnn, "outputs", index=3, layer=1)
    dataset = load_sample("cifar10")
    name = dataset.class_names[dataset.test_labels[3]]
    assert figures[0].get_suptitle() == f"conv1 of test image 3 ({name})"


def test_confusion_says_how_many_are_right(tmp_path, figures):
    always_seven = {name: np.zeros_like(value) for name, value in make_params(SOFTMAX).items()}
    always_seven["logits/bias"][7] = 1
    path = make_model(Path(tmp_path) / "net-step-1.safetensors", SOFTMAX, params=always_seven)
    drawn(find_source(str(path)), "confusion", limit=None)
    right = (load_sample("mnist").test_labels == 7).mean()
    panel = figures[0].axes[0]
    assert panel.get_title(loc="left") == f"net-step-1: {right:.2%} of 500 test images"
    shares = np.asarray(panel.images[0].get_array())
    np.testing.assert_array_equal(shares, np.tile(np.arange(10) == 7, (10, 1)))


@pytest.mark.parametrize("sample", [False, True])
def test_curves_of_a_recipe_have_its_published_figures_but_for_the_sample(sample, tmp_path, figures):
    header = make_header("one-layer", steps=200, sample=sample)
    folder = write_training(tmp_path / "one", header, due_figures(header)).folder
    drawn(find_source(str(folder)), "curves")
    crosses = [line for line in figures[0].axes[0].lines if line.get_marker() == "x"]
    published = sum(one.measure != "test loss" for one in find_recipe("one-layer").published)
    assert len(crosses) == (0 if sample else published)


def test_curves_on_another_data_set_have_no_published_figures(tmp_path, figures):
    recipe = on_dataset(find_recipe("one-layer"), "cifar10")
    made = due_figures(make_header("one-layer", steps=200))
    training = write_training(tmp_path / "one", make_header(recipe, steps=200), made)
    assert list(drawn(find_source(str(training.folder)), "curves")) == ["curves"]
    assert not [line for panel in figures[0].axes for line in panel.lines if line.get_marker() == "x"]
