"""A trained network without its framework computes what the reference computes."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from fakes import Screen
from followed import make_model, make_params
from scipy.signal import correlate

from backends.base import TrainingData
from backends.numpy_backend import NumpyBackend
from bench.datasets.cache import Dataset, load_sample
from bench.recipes.checkpoints import load_model
from bench.recipes.model import Trained
from bench.workloads.augmentation import central_crop
from bench.workloads.catalog import find_workload
from bench.workloads.parameters import Params
from bench.workloads.specs import NORM_EPSILON, Architecture, ConvBlock, Workload

SOFTMAX = find_workload("notebook-one-layer")
MLP = msgspec.structs.replace(SOFTMAX, name="mlp", architecture=Architecture(hidden=(7, 5)))
CNN = msgspec.structs.replace(
    SOFTMAX,
    name="cnn",
    architecture=Architecture(
        convs=(ConvBlock(filters=3), ConvBlock(filters=4, kernel=3, pool=3)), hidden=(6,)
    ),
)
CROPPED = msgspec.structs.replace(
    find_workload("notebook-cifar-cnn"),
    name="cropped",
    architecture=Architecture(
        convs=(
            ConvBlock(filters=3, normalise=True),
            ConvBlock(filters=4, kernel=3),
            ConvBlock(filters=2, normalise=True, pool=1),
        )
    ),
)


def make_trained(workload: Workload, folder: Path, params: Params | None = None) -> Trained:
    return Trained(load_model(make_model(folder / "net-step-7.safetensors", workload, params=params)))


def by_reference(workload: Workload, params: Params, dataset: Dataset, images: np.ndarray) -> np.ndarray:
    data = TrainingData(info=dataset.info, images=dataset.train_images, labels=dataset.train_labels)
    backend = NumpyBackend(workload, data, mode="float64", device="cpu", precision="fp32")
    backend.load_params(params)
    return backend.predict(images)


@pytest.mark.parametrize("workload", [SOFTMAX, MLP, CNN, CROPPED], ids=lambda one: one.name)
def test_logits_and_probabilities_are_those_of_the_reference(workload, tmp_path):
    dataset = load_sample(workload.dataset)
    images = dataset.test_images[:12]
    seen = central_crop(images, 24) if workload is CROPPED else images
    expected = by_reference(workload, make_params(workload, 1), dataset, seen)
    trained = make_trained(workload, tmp_path)
    logits, found = trained.logits(images), trained.probabilities(images)
    assert logits.dtype == np.float64
    np.testing.assert_allclose(logits, expected, rtol=1e-6, atol=1e-7)  # the reference answers in float32
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(found, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), rtol=1e-9)


def test_logits_of_many_images_are_those_of_each(tmp_path):
    images = load_sample("mnist").test_images
    trained = make_trained(SOFTMAX, tmp_path)
    found = trained.logits(images, Screen())
    assert found.shape == (500, 10)
    for index in (0, 249, 250, 499):
        np.testing.assert_allclose(found[index], trained.logits(images[index : index + 1])[0], rtol=1e-9)


def test_probabilities_of_large_logits_are_finite(tmp_path):
    params = {name: 1e4 * value for name, value in make_params(SOFTMAX).items()}
    found = make_trained(SOFTMAX, tmp_path, params).probabilities(load_sample("mnist").test_images[:8])
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)


def by_hand(workload: Workload, params: Params, images: np.ndarray) -> dict[str, np.ndarray]:
    """Return the outputs of all convolutions, by SciPy's correlation, one image and channel at a time."""
    found: dict[str, np.ndarray] = {}
    x = images / 255
    for number, block in enumerate(workload.architecture.convs, start=1):
        layer = f"conv{number}"
        of = {name: params[name].astype(float) for name in params if name.startswith(layer)}
        kernel = of[f"{layer}/kernel"]
        y = np.zeros((*x.shape[:3], block.filters))
        for image, channel, filter_ in np.ndindex(len(x), x.shape[-1], block.filters):
            part = correlate(x[image, :, :, channel], kernel[:, :, channel, filter_], mode="same")
            y[image, :, :, filter_] += part
        if block.normalise:
            y = (y - of[f"{layer}/mean"]) / np.sqrt(of[f"{layer}/variance"] + NORM_EPSILON)
            y = y * of[f"{layer}/scale"] + of[f"{layer}/offset"]
        else:
            y = y + of[f"{layer}/bias"]
        found[layer] = y = np.where(y > 0, y, 0)
        size = y.shape[1] // block.pool
        x = np.zeros((len(y), size, size, block.filters))
        for row, column in np.ndindex(size * block.pool, size * block.pool):
            seen = x[:, row // block.pool, column // block.pool]
            np.maximum(seen, y[:, row, column], out=seen)
    return found


@pytest.mark.parametrize("workload", [CNN, CROPPED], ids=lambda one: one.name)
def test_layer_outputs_are_a_convolution_a_bias_or_normalisation_and_a_relu(workload, tmp_path):
    images = load_sample(workload.dataset).test_images[:2]
    found = make_trained(workload, tmp_path).layer_outputs(images)
    seen = images[:, 4:28, 4:28] if workload is CROPPED else images
    expected = by_hand(workload, make_params(workload, 1), seen)
    assert list(found) == list(expected) == [f"conv{n + 1}" for n in range(len(workload.architecture.convs))]
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-12)
        assert 0 < (found[name] == 0).mean() < 1


def test_a_network_without_convolutions_has_no_layer_outputs(tmp_path):
    trained = make_trained(MLP, tmp_path)
    assert trained.layer_outputs(load_sample("mnist").test_images[:1]) == {}
    assert (trained.name, trained.workload) == ("net-step-7", MLP)
    assert trained.image_shape == (28, 28, 1)


def test_a_network_trained_on_crops_sees_the_middle_of_an_image(tmp_path):
    trained = make_trained(CROPPED, tmp_path)
    images = load_sample("cifar10").test_images[:2]
    np.testing.assert_array_equal(trained.seen(images), images[:, 4:28, 4:28])
    assert trained.image_shape == (24, 24, 3)
    changed = images.copy()
    changed[:, :4] = changed[:, 28:] = 0
    changed[:, :, :4] = changed[:, :, 28:] = 255
    np.testing.assert_array_equal(trained.logits(images), trained.logits(changed))
