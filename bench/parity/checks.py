"""Parity: does a backend compute what the float64 reference computes, and how far off is it.

Every check compares arrays by their largest difference over the largest magnitude of the reference,
max|a - b| / max|b|. Gradients are seen through the training step itself: one step of plain SGD at a large
power-of-two rate r changes a parameter by -r g, so g = (before - after) / r with no loss to cancellation.
Changes of parameters, not parameters, are compared after optimizer steps: a wrong update must not hide
behind large weights that hardly moved.

ReLU and max-pooling have kinks, and where a value lies on one, float32 and float64 may fall on different
sides; in a convolutional network one such sample can move one weight's gradient by a percent, which says
nothing about a framework. The start is therefore chosen to keep clear of kinks: see `BIAS`, `SEED`, `gentle`.
"""

from collections.abc import Callable
from typing import cast

import msgspec
import numpy as np
import numpy.typing as npt

from backends.base import Augmenting, Backend, TrainingData
from backends.numpy_backend import Arrays
from bench.errors import NotComparableError
from bench.parity.reference import (
    GRADIENT_RATE,
    Trace,
    _draws,
    _order,
    evaluated_images,
    parity_workload,
    start_params,
)
from bench.parity.tolerances import Kind, tolerances
from bench.records.schema import ParityCheck
from bench.workloads.parameters import Params
from bench.workloads.specs import OptimizerSpec, Precision, Workload

BackendFactory = Callable[[Workload, TrainingData], Backend]


def check_parity(
    make_backend: BackendFactory, workload: Workload, data: TrainingData, trace: Trace, precision: Precision
) -> tuple[ParityCheck, ...]:
    """Run a backend through what the reference did and return the largest error of each kind."""
    start = start_params(workload, data)
    order = _order(data)

    sgd = OptimizerSpec(name="sgd", learning_rate=GRADIENT_RATE)
    backend = make_backend(msgspec.structs.replace(parity_workload(workload), optimizer=sgd), data)
    backend.load_params(start)
    drawn, later = _draws(workload, data)
    errors: dict[Kind, dict[str, float]] = {}
    if trace.pixels is not None:
        found = cast(Augmenting, backend).augmented(order[0], drawn[0][0])
        errors["pixels"] = {"pixels": relative_error(found, trace.pixels)}
    logits = backend.predict(evaluated_images(workload, data))
    backend.train_steps(order[:1], *drawn)
    stepped = backend.export_params()
    gradients = {
        name: (start[name].astype(np.float64) - stepped[name]) / GRADIENT_RATE for name in trace.gradients
    }

    if workload.optimizer != sgd:
        backend = make_backend(parity_workload(workload), data)
    backend.load_params(start)
    first = backend.train_steps(order[:1], *drawn)
    after_one = backend.export_params()
    rest = backend.train_steps(order[1:], *later)
    after_all = backend.export_params()
    losses = np.concatenate([first, rest]).astype(np.float64)

    def change(after: Params | Arrays) -> Arrays:
        return {name: after[name].astype(np.float64) - start[name] for name in start}

    errors |= {
        "logits": {"logits": relative_error(logits, trace.logits)},
        "loss": {"step 0": relative_error(losses[:1], trace.losses[:1])},
        "gradient": _errors(gradients, trace.gradients),
        "step": _errors(change(after_one), change(trace.after_one)),
        "steps": _errors(change(after_all), change(trace.after_all)),
        "losses": {
            f"step {step}": relative_error(losses[step], trace.losses[step]) for step in range(len(order))
        },
    }
    limits = tolerances(workload, precision)
    return tuple(_check(kind, errors[kind], limit) for kind, limit in limits.items())


def relative_error(found: npt.ArrayLike, expected: npt.ArrayLike) -> float:
    """Return max|found - expected| / max|expected|: NaN if not finite or of other shape, inf over 0."""
    found, expected = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("nan")
    difference, scale = float(np.abs(found - expected).max()), float(np.abs(expected).max())
    if difference == 0.0:
        return 0.0
    return difference / scale if scale > 0.0 else float("inf")


def _errors(found: Arrays, expected: Arrays) -> dict[str, float]:
    return {name: relative_error(found[name], value) for name, value in expected.items()}


def _check(kind: Kind, errors: dict[str, float], tolerance: float) -> ParityCheck:
    wild = [name for name, error in errors.items() if not np.isfinite(error)]
    if wild:
        raise NotComparableError(
            f"{kind} at {wild[0]}: not finite, not of the same shape, or zero in the reference"
        )
    worst = max(errors, key=lambda name: errors[name])
    return ParityCheck(kind=kind, error=errors[worst], tolerance=tolerance, worst=worst)
