"""Many small images in a grid."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.recipes.pictures.figures import label

SIGNED = "seismic"
"""The colour map of signed values: red is positive, blue negative, white zero."""


def grid(
    count: int, *, columns: int, side_in: float, title: str, captions: bool
) -> tuple[Figure, list[Axes]]:
    """Return a figure and its `count` empty panels, in rows."""
    rows = math.ceil(count / columns)
    height = rows * (side_in + (0.22 if captions else 0.05)) + 0.45
    figure = Figure(figsize=(columns * side_in * 1.08, height), layout="constrained")
    figure.suptitle(label(title, 110), fontsize=9.5, fontweight="bold")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in panels[count:]:
        unused.remove()
    for panel in panels[:count]:
        panel.set_axis_off()
    return figure, panels[:count]


def show_image(panel: Axes, image: npt.NDArray[Any], caption: str = "") -> None:
    """Draw an image (h, w, 1 or 3), uint8, or floats from 0 to 1."""
    top = 255 if image.dtype == np.uint8 else 1.0
    if image.shape[-1] == 1:
        panel.imshow(image[..., 0], cmap="gray", vmin=0, vmax=top, interpolation="none")
    else:
        panel.imshow(image, interpolation="none")
    if caption:
        panel.set_title(label(caption, 26), fontsize=7, fontweight="normal", pad=2)


def show_signed(
    figure: Figure, panels: Sequence[Axes], maps: npt.NDArray[Any], captions: Sequence[str] = ()
) -> None:
    """Draw each map of `maps` (h, w, n) in a panel, on one common scale that is red above zero."""
    largest = float(np.abs(maps).max()) or 1.0
    for place, panel in enumerate(panels):
        drawn = panel.imshow(maps[..., place], cmap=SIGNED, vmin=-largest, vmax=largest, interpolation="none")
        if captions:
            panel.set_title(label(captions[place], 26), fontsize=7, fontweight="normal", pad=2)
    figure.colorbar(drawn, ax=list(panels), shrink=0.6, aspect=30)
