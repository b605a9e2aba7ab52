"""Which pictures can be drawn of a training, a model, a recipe or a data set, and drawing them."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import msgspec
import numpy as np
from matplotlib.figure import Figure

from bench.datasets.cache import Dataset
from bench.datasets.catalog import DATASETS
from bench.errors import UsageError, unknown
from bench.progress import Display
from bench.recipes.catalog import IMAGE_LOSS, RECIPES, find_recipe
from bench.recipes.checkpoints import find_model, load_model
from bench.recipes.model import Trained
from bench.recipes.pictures import confusion, data, network, training
from bench.recipes.records import HEADER, Training, read_training
from bench.report.charts import settings, svg
from bench.workloads.specs import Workload


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """What pictures are to be of; the more of it is there, the more can be drawn."""

    name: str
    dataset: str
    folder: Path | None = None
    """Where the training lies."""
    sample: bool = False
    limit: int | None = None
    workload: Workload | None = None
    trained: Trained | None = None
    training: Training | None = None


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What of a source is to be drawn."""

    index: int = 0
    """The image whose augmentation and layer outputs are drawn, and the first of the samples."""
    layer: int | None = None
    """The convolution, from 1; None: every."""
    channel: int = 0


def find_source(name: str) -> Source:
    """Return the training in a folder, the model in a file, or the recipe or data set of that name."""
    path = Path(name)
    if name in DATASETS:
        return Source(name=name, dataset=name)
    if name in RECIPES or f"notebook-{name}" in RECIPES:
        workload = find_recipe(name).workload
        return Source(name=workload.name, dataset=workload.dataset, workload=workload)
    if path.exists():
        if path.is_dir() and not (path / HEADER).is_file():
            raise UsageError(f"{path} is no training: it has no {HEADER}. (bench train makes one)")
        return _of_files(path)
    raise unknown("source", name, [*DATASETS, *RECIPES], "or the folder of a training, or a model's file")


def _of_files(path: Path) -> Source:
    folder = path if path.is_dir() else path.parent
    found = read_training(folder) if (folder / HEADER).is_file() else None
    trained = None
    if path.is_file() or any(path.glob("*-step-*.safetensors")):
        trained = Trained(load_model(find_model(path)))
    workload = trained.workload if trained is not None else found.header.workload if found else None
    if workload is None:
        raise UsageError(f"{path} is no model.")
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
    """All that a picture is drawn from."""

    source: Source
    dataset: Dataset
    choice: Choice
    display: Display


_Pictures: TypeAlias = Iterator[tuple[str, Figure]]


def draw(scene: Scene, wanted: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """Yield name and SVG of every picture that is wanted, or of all that can be drawn where none is named.

    Raises UsageError where a picture is named that cannot be drawn of this source.
    """
    for name in wanted:
        if name not in PICTURES:
            raise unknown("picture", name, list(PICTURES), "bench show --help tells them")
    with settings():
        for name, drawer in PICTURES.items():
            if wanted and name not in wanted:
                continue
            found = list(drawer(scene))
            if not found and wanted:
                raise UsageError(
                    f"{name}: {scene.source.name} has nothing of that kind. "
                    "(bench show --help tells what each is)"
                )
            for file, figure in found:
                yield file, svg(figure)


def _samples(scene: Scene) -> _Pictures:
    _check_index(scene.choice.index, scene.dataset.test_images, "test")
    yield "samples", data.samples(scene.dataset, scene.choice.index)


def _augmentation(scene: Scene) -> _Pictures:
    if scene.source.workload is not None:
        _check_index(scene.choice.index, scene.dataset.train_images, "training")
        if (
            figure := data.augmentation(scene.source.workload, scene.dataset, scene.choice.index)
        ) is not None:
            yield f"augmentation-image-{scene.choice.index}", figure


def _kernels(scene: Scene) -> _Pictures:
    if scene.source.trained is not None:
        channel, layers = scene.choice.channel, _layers(scene.source.trained, scene.choice)
        if scene.choice.layer is None:
            layers = network.layers_with(scene.source.trained, channel) or layers[:1]
        for layer in layers:
            figure = network.kernels(scene.source.trained, layer, scene.choice.channel)
            yield f"kernels-conv{layer}-channel-{scene.choice.channel}", figure


def _outputs(scene: Scene) -> _Pictures:
    if scene.source.trained is not None:
        _check_index(scene.choice.index, scene.dataset.test_images, "test")
        name = scene.dataset.class_names[scene.dataset.test_labels[scene.choice.index]]
        for layer in _layers(scene.source.trained, scene.choice):
            caption = f"test image {scene.choice.index} ({name})"
            figure = network.outputs(
                scene.source.trained, scene.dataset.test_images[scene.choice.index], layer, caption
            )
            yield f"outputs-conv{layer}-image-{scene.choice.index}", figure


def _weights(scene: Scene) -> _Pictures:
    if scene.source.trained is not None:
        figure = network.softmax_weights(scene.source.trained, scene.dataset.class_names)
        if figure is not None:
            yield "weights", figure


def _confusion(scene: Scene) -> _Pictures:
    if scene.source.trained is not None:
        predicted = scene.source.trained.logits(scene.dataset.test_images, scene.display).argmax(axis=1)
        right = float((predicted == scene.dataset.test_labels).mean())
        title = f"{scene.source.trained.name}: {right:.2%} of {len(predicted):,} test images"
        yield (
            "confusion",
            confusion.confusion(scene.dataset.test_labels, predicted, scene.dataset.class_names, title),
        )


def _curves(scene: Scene) -> _Pictures:
    if scene.source.training is not None and scene.source.training.figures:
        header = scene.source.training.header
        recipe = RECIPES.get(header.recipe)
        told = (recipe.published, recipe.loss_scale, recipe.loss_unit) if recipe else ((), 1.0, IMAGE_LOSS)
        if header.sample or header.limit is not None:  # what a notebook got from all images is no measure
            told = ((), *told[1:])
        yield "curves", training.curves([scene.source.training], *told)


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
