"""What the terminal shows of a model: its score in each framework, and its prediction for an image."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.datasets.cache import Dataset
from bench.recipes.checkpoints import Model
from bench.recipes.evaluate import COMPARED, Score
from bench.text import clean

_BAR = 24


def render_scores(
    model: Model, scores: Sequence[Score], unavailable: Mapping[str, str], console: Console
) -> None:
    """Print the accuracy, the loss and the error of the logits in each framework.

    `unavailable` says by the name of a backend why it could not be used.
    """
    about = model.about
    console.print(
        _plain(f"{model.path.name}, trained in {about.cell.backend} ({about.cell.mode}), seed {about.seed}")
    )
    table = Table("loaded in", box=None)
    for head in ("test accuracy", "test loss", "logits off by"):
        table.add_column(head, justify="right")
    for score in scores:
        if score.difference is None:
            table.add_row(_plain(score.title), "-", "-", "failed")
            continue
        mark = "" if score.within else " TOO FAR"
        table.add_row(
            _plain(score.title),
            f"{score.test_accuracy:.4f}",
            f"{score.test_loss:.5f}",
            f"{score.difference:.1e}{mark}",
        )
    console.print(table)
    console.print(
        f"Off by: the largest error of a logit on the first {COMPARED} test images, relative to the largest "
        "logit of the float64 reference.",
        style="dim",
    )
    for score in scores:
        if score.error is not None:
            console.print(_plain(f"{score.title}: {score.error}"))
    for name, reason in unavailable.items():
        console.print(_plain(f"{name}: {reason}"))


def _plain(text: str) -> str:
    """Return markup that shows a text from a file literally, without control characters."""
    return escape(clean(text))


def render_probabilities(
    model: Model, dataset: Dataset, index: int, probabilities: npt.NDArray[np.float64], console: Console
) -> None:
    """Print the probability of each class for a test image, and whether the prediction is right."""
    label, guess = int(dataset.test_labels[index]), int(probabilities.argmax())
    names = dataset.class_names
    console.print(
        _plain(f"{model.path.name}, test image {index} of {dataset.info.name}"),
        highlight=False,
        soft_wrap=True,
    )
    width = max(len(name) for name in names)
    for number, (name, share) in enumerate(zip(names, probabilities, strict=True)):
        bar = "\N{FULL BLOCK}" * round(_BAR * share)
        mark = "  <- its class" if number == label else ""
        console.print(escape(f"  {name:<{width}}  {share:.4f}  {bar}{mark}"), highlight=False, soft_wrap=True)
    truth = "which is right" if label == guess else f"which is wrong: it is {names[label]}"
    console.print(escape(f"Predicted: {names[guess]}, {truth}."), highlight=False)
