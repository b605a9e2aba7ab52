"""Pictures of a trained network: kernels, outputs of layers, and the weights of a softmax regression."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from bench.errors import UsageError
from bench.recipes.model import Trained
from bench.recipes.pictures.tiles import grid, show_image, show_signed

MOST_KERNELS = 64


def layers_with(trained: Trained, channel: int) -> list[int]:
    """Return the numbers, from 1, of the convolutions that have this input channel."""
    count = len(trained.workload.architecture.convs)
    layers = range(1, count + 1)
    return [layer for layer in layers if channel < trained.params[f"conv{layer}/kernel"].shape[2]]


def kernels(trained: Trained, layer: int, channel: int) -> Figure:
    """Draw the kernels of a convolution for one input channel: red positive, blue negative.

    Raises UsageError if there is no such convolution or channel.
    """
    name = f"conv{layer}/kernel"
    values = trained.params.get(name)
    if values is None:
        raise UsageError(f"{trained.name} has no {name}; it has {', '.join(trained.params)}.")
    if not 0 <= channel < values.shape[2]:
        raise UsageError(f"{name} has input channels 0 to {values.shape[2] - 1}, not {channel}.")
    maps = values[:, :, channel, :MOST_KERNELS]
    title = f"{name}: {maps.shape[2]} filters, input channel {channel}"
    figure, panels = grid(maps.shape[2], columns=8, side_in=0.75, title=title, captions=False)
    show_signed(figure, panels, maps)
    return figure


def outputs(trained: Trained, image: npt.NDArray[np.uint8], layer: int, caption: str) -> Figure:
    """Draw the output of a convolution for one image (h, w, c), after its ReLU: brighter is larger.

    Raises UsageError if there is no such convolution.
    """
    name = f"conv{layer}"
    maps = trained.layer_outputs(image[None]).get(name)
    if maps is None:
        raise UsageError(f"{trained.name} has no {name}.")
    shown = maps[0, :, :, :MOST_KERNELS]
    count = shown.shape[2]
    title = f"{name} of {caption}"
    figure, panels = grid(count + 1, columns=9, side_in=0.75, title=title, captions=False)
    show_image(panels[0], trained.seen(image[None])[0])
    largest = float(shown.max()) or 1.0
    for panel, place in zip(panels[1:], range(count), strict=True):
        panel.imshow(shown[..., place], cmap="gray", vmin=0, vmax=largest, interpolation="none")
    return figure


def softmax_weights(trained: Trained, class_names: Sequence[str]) -> Figure | None:
    """Draw the weights of a softmax regression in the shape of the images; None for other networks."""
    if trained.workload.architecture.convs or trained.workload.architecture.hidden:
        return None
    height, width, channels = trained.image_shape
    weights = trained.params["logits/kernel"].reshape(height, width, channels, -1).mean(axis=2)
    title = f"{trained.name}: weights of each class"
    columns = 5 if len(class_names) <= 10 else 10
    figure, panels = grid(len(class_names), columns=columns, side_in=1.2, title=title, captions=True)
    show_signed(figure, panels, weights, class_names)
    return figure
