"""A trained network as the NumPy reference computes it, which needs no framework."""

import numpy as np
import numpy.typing as npt

from backends.numpy_backend import forward, layer_outputs
from bench.datasets.catalog import DATASETS
from bench.progress import Display
from bench.recipes.checkpoints import Model
from bench.workloads.augmentation import seen_images

_IMAGES_AT_ONCE = 250


class Trained:
    """A trained network; it takes images as the data set has them, uint8 (n, height, width, channels)."""

    def __init__(self, model: Model) -> None:
        self.name = model.path.stem
        self.workload = model.about.workload
        self.params = {name: value.astype(np.float64) for name, value in model.params.items()}
        self.image_shape = self.workload.seen(DATASETS[self.workload.dataset].info).image_shape

    def seen(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return the images as the network sees them in evaluation."""
        return seen_images(self.workload, images)

    def probabilities(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """Return softmax probabilities, float64 (n, classes)."""
        logits = self.logits(images)
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        found: npt.NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
        return found

    def logits(
        self, images: npt.NDArray[np.uint8], display: Display | None = None
    ) -> npt.NDArray[np.float64]:
        """Return logits, float64 (n, classes)."""
        parts = []
        for start in range(0, len(images), _IMAGES_AT_ONCE):
            if display is not None:
                display.job(f"{self.name}: image {start:,} of {len(images):,}", start / len(images))
            pixels = self.seen(images[start : start + _IMAGES_AT_ONCE]) / 255.0
            parts.append(forward(self.workload.architecture, self.params, pixels)[0])
        return np.concatenate(parts)

    def layer_outputs(self, images: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float64]]:
        """Return each convolution after its ReLU and before pooling, by layer: float64 (n, h, w, filters)."""
        return layer_outputs(self.workload.architecture, self.params, self.seen(images) / 255.0)
