"""Load a trained model in any framework, and compare its logits with those of the reference."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from bench.measuring.backends import interpreter
from bench.measuring.process import run_worker
from bench.parity.checks import relative_error
from bench.paths import to_text
from bench.progress import Display
from bench.recipes.checkpoints import Model
from bench.recipes.model import Trained
from bench.recipes.protocol import AnyRecipeEvent, EvaluateTask, Scored
from bench.recipes.setup import Place
from bench.worker.timed_loop import load_data
from bench.workloads.specs import Cell, Precision

COMPARED = 500
"""How many test images have their logits compared."""
TOLERANCES: dict[Precision, float] = {"fp32": 1e-4, "tf32": 2e-2, "bf16": 1e-1}
"""The largest error of a logit that is allowed, relative to the largest logit of the reference. Trained
weights are larger than initial ones, so sums lose more digits: in fp32 the error is usually 1e-6 to 1e-5."""
TIME_LIMIT_S = 1800.0


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a model in one framework, or in `error` why there is none."""

    backend: str
    title: str
    test_accuracy: float | None = None
    test_loss: float | None = None
    difference: float | None = None
    """The largest error of a logit, relative to the largest logit of the reference."""
    within: bool = False
    """Whether `difference` is within the tolerance."""
    error: str | None = None


def evaluate(model: Model, place: Place, display: Display) -> Iterator[Score]:
    """Load a model in every backend of a place, and yield its score there."""
    display.job(f"{model.path.stem}: the float64 reference", None)
    reference = Trained(model).logits(load_data(place.source).test_images[:COMPARED])
    with tempfile.TemporaryDirectory(prefix="samework-model-") as folder:
        for cell in place.cells:
            display.job(f"{model.path.stem}: {place.available.infos[cell.backend].title}", None)
            yield _score(model, place, cell, Path(folder) / f"{cell.backend}.npy", reference)


def _score(model: Model, place: Place, cell: Cell, logits: Path, reference: npt.NDArray[np.float64]) -> Score:
    """Evaluate a model in a worker, which writes its logits to the file `logits`."""
    info = place.available.infos[cell.backend]
    outcome = run_worker(
        EvaluateTask(
            backend=info,
            data=place.source,
            cell=cell,
            model=to_text(model.path.absolute()),
            logits=to_text(logits),
        ),
        python=interpreter(info, place.pythons),
        device=cell.device,
        time_limit_s=TIME_LIMIT_S,
        events=AnyRecipeEvent,
    )
    scored = next((event for event in outcome.events if isinstance(event, Scored)), None)
    if outcome.status != "ok" or scored is None:
        return Score(backend=cell.backend, title=info.title, error=outcome.error or outcome.status)
    difference = relative_error(np.load(logits, allow_pickle=False)[:COMPARED], reference)
    return Score(
        backend=cell.backend,
        title=info.title,
        test_accuracy=scored.test_accuracy,
        test_loss=scored.test_loss,
        difference=difference,
        within=difference <= TOLERANCES[cell.precision],
    )
