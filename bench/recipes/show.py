"""The pictures of a training run, a model, a recipe or a data set."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import msgspec
import numpy as np
from matplotlib.figure import Figure

from bench.datasets.cache import Dataset
from bench.datasets.catalog import DATASETS
from bench.errors import UsageError, unknown
from bench.paths import expanded
from bench.progress import Display
from bench.recipes.catalog import IMAGE_LOSS, RECIPES, find_recipe
from bench.recipes.checkpoints import find_model, load_model
from bench.recipes.model import Trained
from bench.recipes.pictures import confusion, data, network, training
from bench.recipes.pictures.figures import settings, svg
from bench.recipes.records import HEADER, Training, read_training
from bench.workloads.specs import Workload


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """What pictures are drawn of; the fields that are None have no pictures."""

    name: str
    dataset: str
    folder: Path | None = None
    """The folder of the training run, or of the model."""
    sample: bool = False
    limit: int | None = None
    workload: Workload | None = None
    trained: Trained | None = None
    training: Training | None = None


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What of a source is drawn."""

    index: int = 0
    """The image whose augmentation and layer outputs are drawn, and the first of the samples."""
    layer: int | None = None
    """The convolution, from 1; None: every one."""
    channel: int = 0


def find_source(name: str) -> Source:
    """Return the training run in a folder, the model in a file, or the recipe or data set of that name.

    Raises UsageError if there is nothing of that name, RecordError if the file or folder cannot be read.
    """
    path = expanded(name)
    if name in DATASETS:
        return Source(name=name, dataset=name)
    if name in RECIPES or f"notebook-{name}" in RECIPES:
        workload = find_recipe(name).workload
        return Source(name=workload.name, dataset=workload.dataset, workload=workload)
    if path.is_dir():
        return _of_training(path)
    if path.exists():
        return _of_model(path)
    raise unknown("source", name, [*DATASETS, *RECIPES], "or the folder of a training run, or a model's file")


def _of_training(folder: Path) -> Source:
    found = read_training(folder)
    ended = any(folder.glob("*-step-*.safetensors"))
    trained = Trained(load_model(find_model(folder))) if ended else None
    return _of_files(folder, found.header.workload if trained is None else trained.workload, trained, found)


def _of_model(path: Path) -> Source:
    trained, folder = Trained(load_model(path)), path.parent
    found = read_training(folder) if (folder / HEADER).is_file() else None
    return _of_files(folder, trained.workload, trained, found)


def _of_files(folder: Path, workload: Workload, trained: Trained | None, found: Training | None) -> Source:
    return Source(
        name=workload.name,
        dataset=workload.dataset,
        folder=folder,
        sample=found is not None and found.header.sample,
        limit=None if found is None else found.header.limit,
        workload=workload,
        trained=trained,
        training=found,
    )


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a picture is drawn from."""

    source: Source
    dataset: Dataset
    choice: Choice
    display: Display


_Pictures: TypeAlias = Iterator[tuple[str, Figure]]


def draw(scene: Scene, wanted: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """Yield name and SVG of every wanted picture, or of every possible one if none is named.

    Raises UsageError if a named picture cannot be drawn of this source.
    """
    for name in wanted:
        if name not in PICTURES:
            raise unknown("picture", name, list(PICTURES), "bench show --help lists them")
    with settings():
        for name, drawer in PICTURES.items():
            if wanted and name not in wanted:
                continue
            found = list(drawer(scene))
            if not found and wanted:
                raise UsageError(
                    f"{name}: {scene.source.name} has nothing of that kind. "
                    "(bench show --help says what each is)"
                )
            for file, figure in found:
                yield file, svg(figure)


def _samples(scene: Scene) -> _Pictures:
    _check_index(scene.choice.index, scene.dataset.test_images, "test")
    yield "samples", data.samples(scene.dataset, scene.choice.index)


def _augmentation(scene: Scene) -> _Pictures:
    index = scene.choice.index
    if scene.source.workload is not None:
        _check_index(index, scene.dataset.train_images, "training")
        figure = data.augmentation(scene.source.workload, scene.dataset, index)
        if figure is not None:
            yield f"augmentation-image-{index}", figure


def _kernels(scene: Scene) -> _Pictures:
    trained, channel = scene.source.trained, scene.choice.channel
    if trained is not None:
        layers = _layers(trained, scene.choice)
        if scene.choice.layer is None:
            layers = network.layers_with(trained, channel) or layers[:1]
        for layer in layers:
            yield f"kernels-conv{layer}-channel-{channel}", network.kernels(trained, layer, channel)


def _outputs(scene: Scene) -> _Pictures:
    trained, dataset, index = scene.source.trained, scene.dataset, scene.choice.index
    if trained is not None:
        _check_index(index, dataset.test_images, "test")
        caption = f"test image {index} ({dataset.class_names[dataset.test_labels[index]]})"
        for layer in _layers(trained, scene.choice):
            figure = network.outputs(trained, dataset.test_images[index], layer, caption)
            yield f"outputs-conv{layer}-image-{index}", figure


def _weights(scene: Scene) -> _Pictures:
    if scene.source.trained is not None:
        figure = network.softmax_weights(scene.source.trained, scene.dataset.class_names)
        if figure is not None:
            yield "weights", figure


def _confusion(scene: Scene) -> _Pictures:
    trained, dataset = scene.source.trained, scene.dataset
    if trained is not None:
        predicted = trained.logits(dataset.test_images, scene.display).argmax(axis=1)
        right = float((predicted == dataset.test_labels).mean())
        title = f"{trained.name}: {right:.2%} of {len(predicted):,} test images"
        yield "confusion", confusion.confusion(dataset.test_labels, predicted, dataset.class_names, title)


def _curves(scene: Scene) -> _Pictures:
    found = scene.source.training
    if found is not None and found.figures:
        recipe = RECIPES.get(found.header.recipe)
        scale, unit = (recipe.loss_scale, recipe.loss_unit) if recipe else (1.0, IMAGE_LOSS)
        # The notebooks' figures are for the whole data set.
        whole = not found.header.sample and found.header.limit is None
        published = recipe.published if recipe and whole else ()
        yield "curves", training.curves([found], published, scale, unit)


def _distributions(scene: Scene) -> _Pictures:
    if scene.source.training is not None and scene.source.training.figures:
        yield "distributions", training.distributions(scene.source.training)


PICTURES: Mapping[str, Callable[[Scene], _Pictures]] = {
    "samples": _samples,
    "augmentation": _augmentation,
    "curves": _curves,
    "distributions": _distributions,
    "weights": _weights,
    "kernels": _kernels,
    "outputs": _outputs,
    "confusion": _confusion,
}


def _layers(trained: Trained, choice: Choice) -> list[int]:
    count = len(trained.workload.architecture.convs)
    if choice.layer is None:
        return list(range(1, count + 1))
    return [choice.layer]


def _check_index(index: int, images: np.ndarray, split: str) -> None:
    if not 0 <= index < len(images):
        raise UsageError(f"there is no {split} image {index}; they are 0 to {len(images) - 1}.")
