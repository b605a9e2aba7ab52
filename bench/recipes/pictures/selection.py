"""Which pictures the report on the notebooks has, and what each is drawn from."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import msgspec
from matplotlib.figure import Figure

from bench.datasets.cache import Dataset
from bench.errors import BenchError
from bench.progress import Display
from bench.recipes.catalog import Recipe
from bench.recipes.checkpoints import find_model, load_model
from bench.recipes.model import Trained
from bench.recipes.notebooks import Table
from bench.recipes.pictures import confusion, data, network, training
from bench.recipes.pictures.figures import settings, svg
from bench.recipes.records import Training


class Drawing(msgspec.Struct, frozen=True, kw_only=True):
    """A picture for which the report has a place."""

    name: str
    caption: str
    content: bytes | None
    """None if what it is drawn from is missing."""


def drawings(table: Table, datasets: Mapping[str, Dataset], display: Display) -> Iterator[Drawing]:
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
                yield Drawing(
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
                yield Drawing(
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
