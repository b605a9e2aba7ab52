"""The picture of a confusion matrix."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from bench.recipes.pictures.figures import label

MOST_NAMED = 20


def confusion(
    labels: npt.NDArray[np.integer],
    predicted: npt.NDArray[np.integer],
    class_names: Sequence[str],
    title: str,
) -> Figure:
    """Draw how many images of each class are predicted as each class; the diagonal is right."""
    counts = confusion_matrix(labels, predicted, len(class_names))
    named = len(class_names) <= MOST_NAMED
    figure = Figure(figsize=(6.4, 5.4), layout="constrained")
    panel = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    drawn = panel.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(drawn, ax=panel, label="share of the class", shrink=0.8)
    if named:
        places = range(len(class_names))
        panel.set_xticks(places, [label(name, 14) for name in class_names], rotation=45, ha="right")
        panel.set_yticks(places, [label(name, 14) for name in class_names])
        for row, column in np.ndindex(*counts.shape):
            shade = "white" if shares[row, column] > 0.5 else "black"
            if counts[row, column]:
                panel.text(
                    column, row, str(counts[row, column]), ha="center", va="center", color=shade, fontsize=7
                )
    panel.grid(visible=False)
    panel.set_xlabel("taken for")
    panel.set_ylabel("class")
    panel.set_title(label(title, 90), loc="left")
    return figure


def confusion_matrix(
    labels: npt.NDArray[np.integer], predicted: npt.NDArray[np.integer], classes: int
) -> npt.NDArray[np.int64]:
    """Return how many images of class i are predicted as class j: int64 (classes, classes)."""
    flat = labels.astype(np.int64) * classes + predicted
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes)
