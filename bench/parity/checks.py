"""Parity: does a backend compute what the float64 reference computes, and how large are its errors.

Every check compares two arrays by their largest difference over the largest magnitude of the reference,
max|a - b| / max|b|. Gradients are read off a training step: one step of plain SGD at a large power-of-two
rate r changes a parameter by -r g, so g = (before - after) / r, without cancellation. After optimizer steps
the checks compare changes of parameters, not parameters: otherwise large weights that hardly moved would hide
a wrong update.

ReLU and max-pooling have kinks. Where a value lies on a kink, float32 and float64 may fall on different
sides. In a convolutional network one such sample can move the gradient of a weight by a percent, and that is
no fault of the framework. Parity therefore starts from parameters that keep away from kinks: see `BIAS`,
`SEED` and `gentle` in `bench.parity.reference`.
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
    BATCH,
    GRADIENT_RATE,
    Trace,
    evaluated_images,
    parity_draws,
    parity_order,
    parity_workload,
    start_params,
)
from bench.parity.tolerances import Quantity, tolerances
from bench.records.schema import ParityCheck
from bench.workloads.parameters import Params
from bench.workloads.specs import OptimizerSpec, Precision, Workload

BackendFactory = Callable[[Workload, TrainingData], Backend]
Errors = dict[Quantity, dict[str, float]]
"""The relative errors of each quantity, by the name of the parameter or the step."""

_GRADIENT_SGD = OptimizerSpec(name="sgd", learning_rate=GRADIENT_RATE)


def check_parity(
    make_backend: BackendFactory,
    workload: Workload,
    data: TrainingData,
    trace: Trace,
    precision: Precision,
    *,
    batch: int = BATCH,
) -> tuple[ParityCheck, ...]:
    """Let a backend do what the reference did, and return the largest error of each quantity.

    `batch` is the batch size of the trace. Raise NotComparableError where an error is not finite.
    """
    small = parity_workload(workload, batch)
    backend = make_backend(msgspec.structs.replace(small, optimizer=_GRADIENT_SGD), data)
    errors = _gradient_errors(backend, workload, data, trace, batch)
    if workload.optimizer != _GRADIENT_SGD:
        backend = make_backend(small, data)
    errors |= _training_errors(backend, workload, data, trace, batch)
    limits = tolerances(workload, precision)
    return tuple(_check(quantity, errors[quantity], limit) for quantity, limit in limits.items())


def _gradient_errors(
    backend: Backend, workload: Workload, data: TrainingData, trace: Trace, batch: int
) -> Errors:
    """Return the errors of pixels, logits and gradients; the backend's optimizer is `_GRADIENT_SGD`."""
    start, order = start_params(workload, data), parity_order(data, batch)
    first, _ = parity_draws(workload, data, batch)
    backend.load_params(start)
    errors: Errors = {}
    if trace.pixels is not None:
        found = cast(Augmenting, backend).augmented(order[0], first[0][0])
        errors["pixels"] = {"pixels": relative_error(found, trace.pixels)}
    logits = backend.predict(evaluated_images(workload, data))
    errors["logits"] = {"logits": relative_error(logits, trace.logits)}
    backend.train_steps(order[:1], *first)
    stepped = backend.export_params()
    gradients = {
        name: (start[name].astype(np.float64) - stepped[name]) / GRADIENT_RATE for name in trace.gradients
    }
    return errors | {"gradient": _errors(gradients, trace.gradients)}


def _training_errors(
    backend: Backend, workload: Workload, data: TrainingData, trace: Trace, batch: int
) -> Errors:
    """Return the errors of the losses, and of the parameters after one step and after all steps."""
    start, order = start_params(workload, data), parity_order(data, batch)
    first, later = parity_draws(workload, data, batch)
    backend.load_params(start)
    first_loss = backend.train_steps(order[:1], *first)
    after_one = backend.export_params()
    other_losses = backend.train_steps(order[1:], *later)
    after_all = backend.export_params()
    losses = np.concatenate([first_loss, other_losses]).astype(np.float64)

    def change(after: Params | Arrays) -> Arrays:
        return {name: after[name].astype(np.float64) - start[name] for name in start}

    return {
        "loss": {"step 0": relative_error(losses[:1], trace.losses[:1])},
        "step": _errors(change(after_one), change(trace.after_one)),
        "steps": _errors(change(after_all), change(trace.after_all)),
        "losses": {
            f"step {step}": relative_error(losses[step], trace.losses[step]) for step in range(len(order))
        },
    }


def relative_error(found: npt.ArrayLike, expected: npt.ArrayLike) -> float:
    """Return max|found - expected| / max|expected|.

    It is NaN where `found` is not finite or has another shape, and infinite where only `expected` is zero.
    """
    found, expected = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("nan")
    difference, scale = float(np.abs(found - expected).max()), float(np.abs(expected).max())
    if difference == 0.0:
        return 0.0
    return difference / scale if scale > 0.0 else float("inf")


def _errors(found: Arrays, expected: Arrays) -> dict[str, float]:
    return {name: relative_error(found[name], value) for name, value in expected.items()}


def _check(quantity: Quantity, errors: dict[str, float], tolerance: float) -> ParityCheck:
    wild = [name for name, error in errors.items() if not np.isfinite(error)]
    if wild:
        raise NotComparableError(
            f"{quantity} at {wild[0]}: not finite, not of the same shape, or zero in the reference"
        )
    worst = max(errors, key=lambda name: errors[name])
    return ParityCheck(kind=quantity, error=errors[worst], tolerance=tolerance, worst=worst)
