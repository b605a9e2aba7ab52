"""Pictures of the data: samples with their labels, and what augmentation does to an image."""

import numpy as np
from matplotlib.figure import Figure

from bench.datasets.cache import Dataset
from bench.recipes.pictures.tiles import grid, show_image
from bench.workloads.augmentation import augment, draw
from bench.workloads.specs import Workload

SAMPLES = 20
DRAWINGS = 14


def samples(dataset: Dataset, first: int = 0) -> Figure:
    """Draw up to `SAMPLES` test images from `first` on, each below the name of its class."""
    images = dataset.test_images[first : first + SAMPLES]
    title = f"{dataset.info.name}: test images {first} to {first + len(images) - 1}"
    figure, panels = grid(len(images), columns=10, side_in=0.8, title=title, captions=True)
    for panel, image, number in zip(panels, images, dataset.test_labels[first:], strict=False):
        show_image(panel, image, dataset.class_names[number])
    return figure


def augmentation(workload: Workload, dataset: Dataset, index: int, seed: int = 0) -> Figure | None:
    """Draw a training image and what the network receives; None if the workload does not augment."""
    spec = workload.augmentation
    if spec is None:
        return None
    image = dataset.train_images[index : index + 1]
    draws = draw(spec, dataset.info, batch_size=DRAWINGS, seed=seed, start=0, steps=1)[0]
    changed = augment(np.repeat(image, DRAWINGS, axis=0), draws, spec.crop)
    name = dataset.class_names[dataset.train_labels[index]]
    title = f"{dataset.info.name}: training image {index} ({name}), and as it is trained on"
    figure, panels = grid(DRAWINGS + 1, columns=5, side_in=1.3, title=title, captions=True)
    show_image(panels[0], image[0], "before")
    for panel, pixels, drawn in zip(panels[1:], changed, draws, strict=True):
        flip = ", flipped" if drawn[2] else ""
        show_image(panel, pixels, f"row {drawn[0]:.0f}, column {drawn[1]:.0f}{flip}")
    return figure
