"""Pictures: colours mean what they are said to mean, and what is drawn is what was given."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from followed import (
    due_figures,
    make_figure,
    make_figures,
    make_header,
    make_model,
    make_params,
    write_training,
)
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.datasets.cache import load_sample
from bench.errors import UsageError
from bench.recipes.catalog import Published, find_recipe
from bench.recipes.checkpoints import load_model
from bench.recipes.model import Trained
from bench.recipes.pictures import confusion, data, network, tiles, training
from bench.recipes.pictures.figures import settings
from bench.workloads.augmentation import augment, draw
from bench.workloads.catalog import find_workload
from bench.workloads.parameters import Params
from bench.workloads.specs import Architecture, ConvBlock, Workload

SOFTMAX = find_workload("notebook-one-layer")
CNN = msgspec.structs.replace(
    find_workload("notebook-cifar-cnn"),
    architecture=Architecture(convs=(ConvBlock(filters=5, normalise=True), ConvBlock(filters=70, kernel=3))),
)
DIGITS = tuple("0123456789")
WHITE = (1, 1, 1, 1)


@pytest.fixture(autouse=True)
def _drawn_as_reports_are():
    with settings():
        yield


def make_trained(folder: Path, workload: Workload, params: Params | None = None) -> Trained:
    return Trained(load_model(make_model(folder / "net-step-7.safetensors", workload, params=params)))


def panels_of(figure: Figure) -> list[Axes]:
    """Return the panels without the bar that tells the colours."""
    return [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]


def images_of(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(panel.images[0].get_array()) for panel in panels_of(figure)]


def captions_of(figure: Figure) -> list[str]:
    return [panel.get_title() for panel in panels_of(figure)]


def colour(panel: Axes, row: int, column: int) -> tuple[float, ...]:
    """Return how the pixel of a panel is drawn, RGBA from 0 to 1."""
    (image,) = panel.images
    return tuple(image.to_rgba(np.asarray(image.get_array()))[row, column])


def lines(panel: Axes) -> dict[str, list[np.ndarray]]:
    """Return the points (x, y) of every line of a panel, by its marker or style."""
    found: dict[str, list[np.ndarray]] = {}
    for line in panel.lines:
        look = line.get_marker() if line.get_marker() != "None" else line.get_linestyle()
        found.setdefault(str(look), []).append(np.array(line.get_xydata()))
    return found


# Tiles


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (3, 8), (9, 8)])
def test_a_grid_has_as_many_panels_as_were_asked_for(count, columns):
    figure, panels = tiles.grid(count, columns=columns, side_in=0.5, title="t", captions=False)
    assert len(panels) == len(figure.axes) == count
    assert not any(panel.axison for panel in panels)


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.float64, 1.0)])
def test_a_grey_image_is_black_at_zero_and_white_at_its_types_top(dtype, top):
    _, (panel,) = tiles.grid(1, columns=1, side_in=0.5, title="t", captions=True)
    tiles.show_image(panel, np.array([[[0], [top]], [[top / 2], [0]]]).astype(dtype), "a name")
    assert colour(panel, 0, 0) == (0, 0, 0, 1)
    assert colour(panel, 0, 1) == WHITE
    assert colour(panel, 1, 0)[0] == pytest.approx(0.5, abs=0.01)
    assert panel.get_title() == "a name"


def test_signed_values_are_red_above_zero_blue_below_and_on_one_symmetric_scale():
    maps = np.array([[[0.0, 0.5], [1.5, -1.0], [-2.0, 0.0]]])  # two maps of one row
    figure, panels = tiles.grid(2, columns=2, side_in=0.5, title="t", captions=True)
    tiles.show_signed(figure, panels, maps, ["one", "two"])
    assert captions_of(figure) == ["one", "two"]
    for place, panel in enumerate(panels):
        assert panel.images[0].get_clim() == (-2, 2)
        for column, value in enumerate(maps[0, :, place]):
            red, _, blue, _ = colour(panel, 0, column)
            if value:
                assert (red > blue) == (value > 0)
            else:
                assert colour(panel, 0, column) == pytest.approx(WHITE, abs=0.02)
    assert colour(panels[0], 0, 2)[:2] == (0, 0)


def test_maps_of_nothing_but_zero_are_white():
    figure, panels = tiles.grid(1, columns=1, side_in=0.5, title="t", captions=False)
    tiles.show_signed(figure, panels, np.zeros((2, 2, 1)))
    assert colour(panels[0], 1, 1) == pytest.approx(WHITE, abs=0.02)


# The data


@pytest.mark.parametrize(("place", "count"), [(7, 20), (-2, 2)])
def test_samples_are_as_many_test_images_as_there_are_under_the_names_of_their_classes(place, count):
    dataset = load_sample("cifar10")
    first = place % len(dataset.test_images)
    figure, shown = data.samples(dataset, first), slice(first, first + count)
    assert captions_of(figure) == [dataset.class_names[label] for label in dataset.test_labels[shown]]
    np.testing.assert_array_equal(images_of(figure), dataset.test_images[shown])
    assert figure.get_suptitle() == f"cifar10: test images {first} to {first + count - 1}"


def test_where_nothing_is_changed_there_is_no_picture_of_it():
    assert data.augmentation(SOFTMAX, load_sample("mnist"), 0) is None


def test_augmentation_is_drawn_as_it_is_trained_on():
    dataset, spec = load_sample("cifar10"), CNN.augmentation
    figure = data.augmentation(CNN, dataset, 9, seed=3)
    shown, captions = images_of(figure), captions_of(figure)
    draws = draw(spec, dataset.info, batch_size=data.DRAWINGS, seed=3, start=0, steps=1)[0]
    np.testing.assert_array_equal(shown[0], dataset.train_images[9])
    assert len(shown) == len(captions) == data.DRAWINGS + 1
    for pixels, caption, drawn in zip(shown[1:], captions[1:], draws, strict=True):
        expected = augment(dataset.train_images[9:10], drawn[None], spec.crop)[0]
        np.testing.assert_allclose(pixels, expected, atol=1e-12)
        row, column, flip = map(int, drawn[:3])
        assert caption == f"row {row}, column {column}" + (", flipped" if flip else "")
    assert any("flipped" in caption for caption in captions)
    assert dataset.class_names[dataset.train_labels[9]] in figure.get_suptitle()


# The network


@pytest.mark.parametrize(("layer", "channel", "shown"), [(1, 0, 5), (1, 2, 5), (2, 4, network.MOST_KERNELS)])
def test_kernels_are_those_of_the_layer_and_channel(layer, channel, shown, tmp_path):
    figure = network.kernels(make_trained(tmp_path, CNN), layer, channel)
    kernel = make_params(CNN, 1)[f"conv{layer}/kernel"][:, :, channel, :shown]
    found = images_of(figure)
    assert len(found) == shown
    for place, image in enumerate(found):
        np.testing.assert_array_equal(image, kernel[..., place])
    ends = {panel.images[0].get_clim() for panel in panels_of(figure)}
    assert ends == {(-np.abs(kernel).max(), np.abs(kernel).max())}


@pytest.mark.parametrize(("layer", "shown"), [(1, 5), (2, network.MOST_KERNELS)])
def test_outputs_are_the_image_and_what_the_layer_makes_of_it(layer, shown, tmp_path):
    trained, image = make_trained(tmp_path, CNN), load_sample("cifar10").test_images[4]
    seen, *found = images_of(figure := network.outputs(trained, image, layer, "a cat"))
    np.testing.assert_array_equal(seen, image[4:28, 4:28])
    expected = trained.layer_outputs(image[None])[f"conv{layer}"][0, :, :, :shown]
    np.testing.assert_array_equal(np.stack(found, axis=-1), expected)
    assert figure.get_suptitle() == f"conv{layer} of a cat"
    assert {panel.images[0].get_clim() for panel in panels_of(figure)[1:]} == {(0, expected.max())}
    brightest = np.unravel_index(expected.argmax(), expected.shape)
    assert colour(panels_of(figure)[1 + brightest[2]], *brightest[:2]) == WHITE


@pytest.mark.parametrize(
    ("layer", "channel", "said"),
    [
        (3, 0, "net-step-7 has no conv3/kernel; it has conv1/kernel, "),
        (0, 0, "has no conv0/kernel"),
        (1, 3, "conv1/kernel has input channels 0 to 2, not 3"),
        (1, -1, "conv1/kernel has input channels 0 to 2, not -1"),
    ],
)
def test_a_layer_or_channel_that_is_not_there_is_refused(layer, channel, said, tmp_path):
    trained = make_trained(tmp_path, CNN)
    with pytest.raises(UsageError, match=said):
        network.kernels(trained, layer, channel)
    if layer not in (1, 2):
        with pytest.raises(UsageError, match=f"net-step-7 has no conv{layer}"):
            network.outputs(trained, load_sample("cifar10").test_images[0], layer, "a cat")


@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
def test_a_softmaxs_weights_have_the_shape_of_the_images(dataset, tmp_path):
    workload = msgspec.structs.replace(SOFTMAX, dataset=dataset)
    height, width, channels = load_sample(dataset).info.image_shape
    figure = network.softmax_weights(make_trained(tmp_path, workload), DIGITS)
    weights = make_params(workload, 1)["logits/kernel"]
    assert captions_of(figure) == list(DIGITS)
    for number, image in enumerate(images_of(figure)):
        assert image.shape == (height, width)
        pixel = np.ravel_multi_index((5, 9, 0), (height, width, channels))
        assert image[5, 9] == pytest.approx(weights[pixel : pixel + channels, number].mean())


@pytest.mark.parametrize("architecture", [CNN.architecture, Architecture(hidden=(3,))])
def test_other_networks_have_no_weights_in_the_shape_of_images(architecture, tmp_path):
    workload = msgspec.structs.replace(SOFTMAX, architecture=architecture)
    assert network.softmax_weights(make_trained(tmp_path, workload), DIGITS) is None


# Confusion


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=40))
def test_a_confusion_matrix_counts_every_image_once_and_its_diagonal_is_what_is_right(pairs):
    labels, predicted = np.array([one for one, _ in pairs], np.uint8), np.array([two for _, two in pairs])
    found = confusion.confusion_matrix(labels, predicted, 7)
    assert found.shape == (7, 7)
    np.testing.assert_array_equal(found.sum(axis=1), [list(labels).count(n) for n in range(7)])
    np.testing.assert_array_equal(found.sum(axis=0), [list(predicted).count(n) for n in range(7)])
    assert np.trace(found) / found.sum() == pytest.approx((labels == predicted).mean())
    for (label, taken_for), count in np.ndenumerate(found):
        assert count == pairs.count((label, taken_for))


def test_the_picture_of_confusion_has_the_counts_the_names_and_shares_of_the_class():
    names = ("cat", "dog", "cow")
    labels, predicted = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 1, 0])
    figure = confusion.confusion(labels, predicted, names, "net: 67 %")
    (panel,) = panels_of(figure)
    for axis in (panel.xaxis, panel.yaxis):
        assert tuple(tick.get_text() for tick in axis.get_ticklabels()) == names
    said = {text.get_position(): text.get_text() for text in panel.texts}
    assert said == {(0, 0): "3", (1, 0): "1", (0, 1): "1", (1, 1): "1"}  # column, row
    shares = [[0.75, 0.25, 0], [0.5, 0.5, 0], [0, 0, 0]]
    np.testing.assert_allclose(np.asarray(panel.images[0].get_array()), shares)
    assert panel.get_title(loc="left") == "net: 67 %"


def test_many_classes_are_counted_and_drawn_without_names():
    labels, predicted = np.arange(100, dtype=np.uint8), np.arange(100, dtype=np.uint8)  # products overflow
    predicted[3] = 99
    found = confusion.confusion_matrix(labels, predicted, 100)
    assert (found[99, 99], found[3, 99], found[3, 3], found.sum()) == (1, 1, 0, 100)
    (panel,) = panels_of(confusion.confusion(labels, predicted, [f"class {n}" for n in range(100)], "t"))
    assert not panel.texts
    assert not any("class" in tick.get_text() for tick in panel.get_xticklabels())


# Trainings


def test_curves_have_a_cross_at_every_figure_of_the_notebook(tmp_path):
    recipe = find_recipe("one-layer")
    header = make_header(recipe)
    done = write_training(tmp_path / "one", header, due_figures(header))
    figure = training.curves([done], recipe.published, recipe.loss_scale, recipe.loss_unit)
    accuracy, loss, late = panels_of(figure)
    crosses = {tuple(point) for line in lines(accuracy)["x"] for point in line}
    expected = {(1, 0.4307), (1, 0.279), (101, 0.8912), (501, 0.9115), (801, 0.9149), (901, 0.9163)}
    assert crosses == expected
    crosses = {tuple(point) for line in lines(late)["x"] for point in line}
    assert crosses == {point for point in expected if point[0] >= 100}
    crosses = np.array(sorted(tuple(point) for line in lines(loss)["x"] for point in line))
    np.testing.assert_allclose(crosses, [(1, 20985), (901, 2979)])
    assert loss.get_title(loc="left") == "loss (nats, summed over the test images)"


def test_curves_are_the_figures_scaled_and_a_range_is_drawn_from_end_to_end(tmp_path):
    figures = make_figures((1, 101, 201))
    done = write_training(tmp_path / "one", make_header(steps=201), figures)
    promised = Published(step=150, metric="test accuracy", low=0.91, high=0.93, text="91 to 93 %")
    trained_on = Published(step=150, metric="train accuracy", low=0.5, high=0.5, text="50 %")
    accuracy, loss, _ = panels_of(training.curves([done], (promised, trained_on), 100, "nats"))
    for panel, name, scale in ((accuracy, "accuracy", 1), (loss, "loss", 100)):
        for look, split in (("-", "test"), (":", "train")):
            (line,) = lines(panel)[look]
            expected = [(one.step, scale * getattr(one, f"{split}_{name}")) for one in figures]
            np.testing.assert_allclose(line, expected)
    crosses = [line.tolist() for line in lines(accuracy)["x"]]
    assert crosses == [[[150, 0.91], [150, 0.93]], [[150, 0.5]]]
    assert "x" not in lines(loss)


def test_the_accuracy_is_drawn_again_without_its_start(tmp_path):
    figures = [make_figure(0, 0.1), make_figure(50, 0.5), make_figure(100, 0.90), make_figure(1000, 0.92)]
    done = write_training(tmp_path / "one", make_header(steps=1000), figures)
    _, _, late = panels_of(training.curves([done], (), 1, "nats"))
    low, high = late.get_ylim()
    assert 0.8 < low < 0.90 and 0.92 < high < 1  # noqa: PT018
    assert late.get_xlim()[0] == 100
    assert late.get_title(loc="left") == "accuracy from step 100 on"


def test_seeds_are_drawn_as_their_mean_in_a_band_and_each_framework_by_itself(tmp_path):
    def one(backend: str, seed: int, final: float, steps: tuple[int, ...]):
        header = make_header(backend=backend, seed=seed, steps=steps[-1])
        return write_training(tmp_path / f"{backend}-{seed}", header, make_figures(steps, final=final))

    done = [
        one("torch", 1, 0.8, (1, 101, 201)),
        one("jax", 1, 0.5, (1, 101, 201)),
        one("torch", 2, 0.9, (1, 101, 201, 301)),
    ]
    figure = training.curves(done, (), 1, "nats")
    accuracy, _, _ = panels_of(figure)
    jax, torch = lines(accuracy)["-"]
    np.testing.assert_allclose(jax, [(1, 0.1), (101, 0.3), (201, 0.5)])
    of_seeds = np.array([(0.1, 0.45, 0.8), np.linspace(0.1, 0.9, 4)[:3]])
    np.testing.assert_allclose(torch, np.column_stack([(1, 101, 201), of_seeds.mean(0)]))
    (band,) = accuracy.collections
    assert band.get_paths()[0].vertices[:, 1].max() == pytest.approx(0.8)
    entries = [text.get_text() for text in figure.legends[0].get_texts()]
    assert entries == ["JAX (1 seed)", "PyTorch (2 seeds)", "training images"]


def test_distributions_are_drawn_of_every_parameter_from_end_to_end(tmp_path):
    figures = make_figures((1, 101, 201))
    done = write_training(tmp_path / "one", make_header(steps=201), figures)
    panels = panels_of(training.distributions(done))
    assert [panel.get_title(loc="left") for panel in panels] == ["logits/kernel", "logits/bias"]
    for panel, name in zip(panels, figures[0].distributions, strict=True):
        median, least, greatest = lines(panel)["-"]
        for line, place in ((median, 3), (least, 0), (greatest, 6)):
            expected = [(one.step, one.distributions[name].quantiles[place]) for one in figures]
            np.testing.assert_allclose(line, expected)
        assert len(panel.collections) == 2
