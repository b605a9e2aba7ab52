"""What the terminal shows of a model: its score in each framework, and its prediction for an image."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from bench.datasets.cache import Dataset
from bench.recipes.checkpoints import Model
from bench.recipes.evaluate import COMPARED, Score
from bench.report.blocks import Block, Heading, Paragraph, Table, named_bullets
from bench.report.format import NOTHING

_BLOCK = "\N{FULL BLOCK}"
_BAR = 24
"""Length of the bar of a class that is certain."""


def score_blocks(model: Model, scores: Sequence[Score], unavailable: Mapping[str, str]) -> list[Block]:
    """Return the accuracy, the loss and the error of the logits in each framework.

    `unavailable` says by the name of a backend why it could not be used.
    """
    about = model.about
    failed = [(score.title, score.error) for score in scores if score.error is not None]
    return [
        Heading(
            text=f"{model.path.name}, trained in {about.cell.backend} ({about.cell.mode}), seed {about.seed}",
            level=1,
        ),
        Table(
            heads=("loaded in", "test accuracy", "test loss", "logits off by", "result"),
            rows=tuple(map(_score, scores)),
            numbers=frozenset({1, 2, 3}),
            flagged=frozenset(place for place, score in enumerate(scores) if not score.within),
        ),
        Paragraph(
            text=f"Off by: the largest error of a logit on the first {COMPARED} test images, relative to the "
            "largest logit of the float64 reference.",
            faint=True,
        ),
        *([named_bullets([*failed, *unavailable.items()])] if failed or unavailable else []),
    ]


def _score(score: Score) -> tuple[str, ...]:
    if score.difference is None:
        return score.title, NOTHING, NOTHING, NOTHING, "failed"
    return (
        score.title,
        f"{score.test_accuracy:.4f}",
        f"{score.test_loss:.5f}",
        f"{score.difference:.1e}",
        "ok" if score.within else "TOO FAR",
    )


def probability_blocks(
    model: Model, dataset: Dataset, index: int, probabilities: npt.NDArray[np.float64]
) -> list[Block]:
    """Return the probability of each class for a test image, and whether the prediction is right."""
    label, guess = int(dataset.test_labels[index]), int(probabilities.argmax())
    names = dataset.class_names
    truth = "which is right" if label == guess else f"which is wrong: it is {names[label]}"
    return [
        Heading(text=f"{model.path.name}, test image {index} of {dataset.info.name}", level=1),
        Table(
            heads=("class", "probability", ""),
            rows=tuple(
                (
                    name,
                    f"{share:.4f}",
                    f"{_BLOCK * round(_BAR * share)}{'  <- its class' if number == label else ''}".strip(),
                )
                for number, (name, share) in enumerate(zip(names, probabilities, strict=True))
            ),
            numbers=frozenset({1}),
        ),
        Paragraph(text=f"Predicted: {names[guess]}, {truth}."),
    ]
