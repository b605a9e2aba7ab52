"""A model trained in one framework, loaded in another, and compared with the reference's logits."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from bench.measuring.backends import interpreter
from bench.measuring.process import run_worker
from bench.parity.checks import relative_error
from bench.progress import Display
from bench.recipes.checkpoints import Model
from bench.recipes.model import Trained
from bench.recipes.protocol import AnyRecipeEvent, EvaluateTask, Scored
from bench.recipes.setup import Place
from bench.worker.training import load_data
from bench.workloads.specs import Precision

COMPARED = 500
"""Test images whose logits are compared with the reference's."""
TOLERANCES: dict[Precision, float] = {"fp32": 1e-4, "tf32": 2e-2, "bf16": 1e-1}
"""The largest difference of a logit allowed, over the largest logit of the reference. Trained weights are
larger than those of a start, and lose more in sums: in fp32 1e-6 to 1e-5 is seen."""
TIME_LIMIT_S = 1800.0


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """What a model came to in one framework; where it could not be evaluated `error` says why."""

    backend: str
    title: str
    test_accuracy: float | None = None
    test_loss: float | None = None
    difference: float | None = None
    """Of the logits from the float64 reference's, the largest over the largest magnitude."""
    within: bool = False
    error: str | None = None


def evaluate(model: Model, place: Place, display: Display) -> Iterator[Score]:
    """Load a model in every backend of a place, and yield what each makes of the test images."""
    dataset = load_data(place.source)
    display.job(f"{model.path.stem}: the float64 reference", None)
    reference = Trained(model).logits(dataset.test_images[:COMPARED])
    with tempfile.TemporaryDirectory(prefix="samework-model-") as folder:
        for cell in place.cells:
            info = place.available.infos[cell.backend]
            display.job(f"{model.path.stem}: {info.title}", None)
            logits = Path(folder) / f"{cell.backend}.npy"
            outcome = run_worker(
                EvaluateTask(
                    backend=info,
                    data=place.source,
                    cell=cell,
                    model=str(model.path.absolute()),
                    logits=str(logits),
                ),
                python=interpreter(info, place.pythons),
                device=cell.device,
                time_limit_s=TIME_LIMIT_S,
                events=AnyRecipeEvent,
            )
            scored = next((event for event in outcome.events if isinstance(event, Scored)), None)
            if outcome.status != "ok" or scored is None:
                yield Score(backend=cell.backend, title=info.title, error=outcome.error or outcome.status)
                continue
            difference = relative_error(np.load(logits, allow_pickle=False)[:COMPARED], reference)
            yield Score(
                backend=cell.backend,
                title=info.title,
                test_accuracy=scored.test_accuracy,
                test_loss=scored.test_loss,
                difference=difference,
                within=difference <= TOLERANCES[cell.precision],
            )
