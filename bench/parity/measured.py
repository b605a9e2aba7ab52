"""The proof of the timed program: what the reference computes in its place, and how a worker compares.

XLA and Inductor compile a program for every shape, and a program may be wrong for one batch size, one image
or one step only. So the very program that a job times trains here at its own batch size and rate, on its own
data, device and precision:

- **Some steps against the reference.** From the start parameters of parity it trains one call, then further
  ones. The change of every parameter in the first call, the logits after it and the loss of every step are
  compared with float64. In a network without kinks, the change in all steps is compared too.
- **Many steps against themselves.** The program trains `PERIOD` steps without a stop. Then each call is
  repeated from the state before it. A call that differs from its repetition depends on more than its state,
  such as a count of its own.

At full rates rounding grows from step to step, and how much depends on the network. So the tolerances come
from the reference itself, which trains again while its sums are disturbed as rounding disturbs them.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, cast

import msgspec
import numpy as np
import numpy.typing as npt

from backends.base import Backend, TrainingData
from backends.numpy_backend import Arrays, NumpyBackend
from bench.errors import NotComparableError
from bench.parity.checks import relative_error
from bench.parity.reference import SEED, start_params
from bench.parity.tolerances import has_kinks
from bench.records.schema import ParityCheck
from bench.workloads.augmentation import Draws, draws_of, seen_images
from bench.workloads.batches import BatchOrder
from bench.workloads.flops import training_flops
from bench.workloads.parameters import Params
from bench.workloads.specs import DatasetInfo, Precision, Workload

Compared: TypeAlias = Literal["losses", "change", "logits", "changes"]

FLOPS = 2e10
"""Operations of the steps that the reference trains, if whole calls fit: a few seconds of NumPy."""
MOST_STEPS = 130
"""More than the 100 steps of a chunk in modes that train any number of steps in one call, so that its last
part is ragged."""
PERIOD = 28
"""Steps without a stop. A fault in every 25th step shows, wherever its count stands."""
TEST_IMAGES = 64

DISTURBED_RUNS = 2
DISTURBANCE: Mapping[Precision, float] = MappingProxyType({"fp32": 2e-7, "tf32": 5e-4, "bf16": 4e-3})
"""Standard deviation of a relative disturbance of every weight: some roundings of float32, as a product has
one and a sum in blocks a few more. TF32 rounds factors to 5e-4 and bfloat16 to 4e-3."""
MARGIN = 10.0
"""The tolerance is so many times the largest error of the disturbed reference, and at least that in
`LEAST`."""
LEAST: Mapping[Compared, float] = MappingProxyType(
    {"losses": 1e-5, "change": 1e-4, "logits": 1e-5, "changes": 1e-4}
)
CHAOS = 0.1
"""A loss with a larger tolerance is not compared: the step is chaotic, and nearly any loss would pass."""


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """What a training of some steps leaves."""

    losses: npt.NDArray[np.floating]
    """The loss of every step: (steps,)."""
    change: Mapping[str, npt.NDArray[np.floating]]
    """How far each parameter moved in the first call, in canonical layout."""
    logits: npt.NDArray[np.floating] | None
    """Of the first test images, after the first call: (images, classes). None if they were not computed."""
    changes: Mapping[str, npt.NDArray[np.floating]]
    """How far each parameter moved in all steps; nothing in a network with kinks, whose steps are chaotic."""

    def errors(self, other: "Trained") -> dict[Compared, dict[str, float]]:
        """Return the relative errors of another training, by what is compared and where."""
        found: dict[Compared, dict[str, float]] = {
            "losses": {f"step {step}": error for step, error in enumerate(self.loss_errors(other.losses))},
            "change": _relative_errors(other.change, self.change),
        }
        if self.logits is not None and other.logits is not None:
            found["logits"] = {"logits": relative_error(other.logits, self.logits)}
        if self.changes:
            found["changes"] = _relative_errors(other.changes, self.changes)
        return found

    def loss_errors(self, losses: npt.NDArray[np.floating]) -> tuple[float, ...]:
        """Return the relative error of each of another training's losses, step by step."""
        pairs = zip(losses, self.losses, strict=True)
        return tuple(relative_error(loss, expected) for loss, expected in pairs)


def _relative_errors(
    found: Mapping[str, npt.ArrayLike], expected: Mapping[str, npt.ArrayLike]
) -> dict[str, float]:
    return {name: relative_error(found[name], value) for name, value in expected.items()}


class MeasuredTrace(msgspec.Struct, frozen=True, kw_only=True):
    """What the reference computes in place of the timed program, all in float64."""

    order: npt.NDArray[np.int32]
    """The images of every step: int32 (steps, batch)."""
    call_steps: int
    """The steps of the first call."""
    trained: Trained
    tolerances: Mapping[Compared, float]
    """Of the changes and the logits. Each loss has its own, see `loss_tolerances`."""
    rounding_errors: tuple[float, ...]
    """The relative error of the disturbed reference's loss at each step: the largest over its runs."""

    @property
    def loss_tolerances(self) -> tuple[float, ...]:
        """The tolerance of the loss at each step: an error of one step may last in the next ones."""
        grown = np.maximum.accumulate(self.rounding_errors)
        return tuple(np.maximum(LEAST["losses"], MARGIN * grown).tolist())


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What the timed program computed, compared with a trace."""

    checks: tuple[ParityCheck, ...]
    loss_errors: tuple[float, ...]
    """The relative error of the loss at each step."""


def proof_steps(workload: Workload, info: DatasetInfo, call_steps: int) -> int:
    """Return the steps that the reference trains: whole calls, as many as are quick."""
    flops = training_flops(workload.architecture, workload.seen(info), workload.batch_size)
    return call_steps * max(1, int(min(MOST_STEPS, FLOPS / flops)) // call_steps)


def proof_order(data: TrainingData, batch_size: int, steps: int) -> npt.NDArray[np.int32]:
    """Return the batches of the proof, drawn from all training images: int32 (steps, batch)."""
    return BatchOrder(images=len(data.images), batch_size=batch_size, seed=SEED).steps(0, steps)


def proof_draws(workload: Workload, info: DatasetInfo, steps: int) -> tuple[Draws, ...]:
    """Return how images are augmented in the proof; nothing if they are not."""
    return draws_of(workload, info, seed=SEED, start=0, steps=steps)


def measured_trace(
    workload: Workload,
    data: TrainingData,
    test_images: npt.NDArray[np.uint8],
    *,
    steps: int,
    call_steps: int,
    precision: Precision,
) -> MeasuredTrace:
    """Train the reference for so many steps at the workload's batch and rate, and find the tolerances.

    `call_steps` are those of the first call. `test_images`, uint8 (n, h, w, c), are those whose logits are
    compared.
    """
    order = proof_order(data, workload.batch_size, steps)

    def trained(noise: Noise | None = None) -> Trained:
        return _trained_reference(workload, data, test_images, order, call_steps=call_steps, noise=noise)

    truth = trained()
    others = [trained(Noise(seed, DISTURBANCE[precision])) for seed in range(DISTURBED_RUNS)]
    errors = [truth.errors(other) for other in others]
    worst = {kind: max(max(found[kind].values()) for found in errors) for kind in errors[0]}
    rounding = [truth.loss_errors(other.losses) for other in others]
    return MeasuredTrace(
        order=order,
        call_steps=call_steps,
        trained=truth,
        tolerances={
            kind: max(LEAST[kind], MARGIN * error) for kind, error in worst.items() if kind != "losses"
        },
        rounding_errors=tuple(max(errors) for errors in zip(*rounding, strict=True)),
    )


class Noise:
    """Disturbs the weights of a step, and rounds parameters to float32 after it, as a framework does."""

    def __init__(self, seed: int, size: float) -> None:
        self._random = np.random.Generator(np.random.PCG64([SEED, seed]))
        self._size = size

    def step(self, reference: NumpyBackend, batch: npt.NDArray[np.int32], draws: Draws | None) -> float:
        """Train one step by the gradient at disturbed weights; return its loss."""
        before = reference.params
        disturbed = {
            name: value * (1 + self._size * self._random.standard_normal(value.shape))
            for name, value in before.items()
        }
        reference.params = dict(disturbed)
        (loss,) = reference.train_steps_float64(batch[None], draws)
        reference.params = {
            name: (before[name] + reference.params[name] - disturbed[name]).astype(np.float32).astype(float)
            for name in before
        }
        return float(loss)


def _trained_reference(
    workload: Workload,
    data: TrainingData,
    test_images: npt.NDArray[np.uint8],
    order: npt.NDArray[np.int32],
    *,
    call_steps: int,
    noise: Noise | None,
) -> Trained:
    reference = NumpyBackend(workload, data, mode="float64", device="cpu", precision="fp32")
    start = start_params(workload, data)
    reference.load_params(start)
    draws = proof_draws(workload, data.info, len(order))

    def train(part: slice) -> npt.NDArray[np.floating]:
        if noise is None:
            return reference.train_steps_float64(order[part], *(drawn[part] for drawn in draws))
        steps = range(*part.indices(len(order)))
        drawn = [draws[0][step, None] if draws else None for step in steps]
        return np.array([noise.step(reference, order[step], drawn[step - part.start]) for step in steps])

    return _trained(
        workload,
        len(order),
        call_steps,
        train=train,
        change=lambda: {name: reference.params[name] - start[name] for name in start},
        logits=lambda: reference.logits(seen_images(workload, test_images)),
    )


def _trained(
    workload: Workload,
    steps: int,
    call_steps: int,
    *,
    train: Callable[[slice], npt.NDArray[np.floating]],
    change: Callable[[], Arrays],
    logits: Callable[[], npt.NDArray[np.floating] | None],
) -> Trained:
    """Train the first call, look, and train the rest. `change` returns how far parameters moved so far."""
    losses = [train(slice(0, call_steps))]
    first, seen = change(), logits()
    if call_steps < steps:
        losses.append(train(slice(call_steps, steps)))
    return Trained(
        losses=np.concatenate(losses).astype(np.float64),
        change=first,
        logits=seen,
        changes={} if has_kinks(workload) else change(),
    )


def check_measured(
    backend: Backend,
    workload: Workload,
    data: TrainingData,
    trace: MeasuredTrace,
    test_images: npt.NDArray[np.uint8] | None = None,
) -> Comparison:
    """Let the timed program do what the reference did; return the errors of each quantity.

    Logits are compared only if there are `test_images`, as evaluation is another program, which has to be
    compiled. Raises NotComparableError where an error is not finite. The backend ends in another state.
    """
    start, order = start_params(workload, data), trace.order
    draws = proof_draws(workload, data.info, len(order))
    backend.load_params(start)
    found = _trained(
        workload,
        len(order),
        trace.call_steps,
        train=lambda part: backend.train_steps(order[part], *(drawn[part] for drawn in draws)),
        change=lambda: changes(start, backend.export_params()),
        logits=lambda: None if test_images is None else backend.predict(seen_images(workload, test_images)),
    )
    errors = trace.trained.errors(found)
    losses = errors.pop("losses")
    limits = dict(zip(losses, trace.loss_tolerances, strict=True))
    calm = {step: error for step, error in losses.items() if limits[step] <= CHAOS or not np.isfinite(error)}
    return Comparison(
        checks=(
            _check("losses", calm, limits),
            *(
                _check(kind, places, dict.fromkeys(places, trace.tolerances[kind]))
                for kind, places in errors.items()
            ),
        ),
        loss_errors=tuple(losses.values()),
    )


def check_repeated(backend: Backend, workload: Workload, data: TrainingData, tolerance: float) -> ParityCheck:
    """Train `PERIOD` steps without a stop, then each call again from the state before it; compare both.

    Each call is compared by the change of the parameters in it. Their difference relative to the change may
    be as large as `tolerance`.
    """
    calls = -(-PERIOD // backend.call_steps)
    order = proof_order(data, workload.batch_size, calls * backend.call_steps)
    draws = proof_draws(workload, data.info, len(order))
    backend.load_params(start_params(workload, data))
    states, parameters = [backend.save_state()], [backend.export_params()]
    parts = [slice(call * backend.call_steps, (call + 1) * backend.call_steps) for call in range(calls)]
    for part in parts:
        backend.train_steps(order[part], *(drawn[part] for drawn in draws))
        states.append(backend.save_state())
        parameters.append(backend.export_params())
    errors = {}
    for call, part in enumerate(parts):
        backend.restore_state(states[call])
        backend.train_steps(order[part], *(drawn[part] for drawn in draws))
        again = changes(parameters[call], backend.export_params())
        for name, change in changes(parameters[call], parameters[call + 1]).items():
            errors[f"step {part.start}, {name}"] = relative_error(again[name], change)
    return _check("repeated", errors, dict.fromkeys(errors, tolerance))


def changes(before: Params, after: Params) -> Arrays:
    """Return how far each parameter moved, in float64."""
    return {name: after[name].astype(np.float64) - value for name, value in before.items()}


def _check(
    kind: Compared | Literal["repeated"], errors: Mapping[str, float], tolerances: Mapping[str, float]
) -> ParityCheck:
    """Return the error that is largest for its tolerance; both are given by place."""
    if wild := [place for place, error in errors.items() if not np.isfinite(error)]:
        raise NotComparableError(
            f"{kind} at {wild[0]} in the timed program: not finite, not of the same shape, or zero in the "
            "reference"
        )
    worst = max(errors, key=lambda place: errors[place] / tolerances[place])
    return ParityCheck(kind=kind, error=errors[worst], tolerance=tolerances[worst], worst=worst)


def save_measured(path: Path, trace: MeasuredTrace) -> None:
    """Write a trace to a file of plain arrays."""
    trained = trace.trained
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "order": trace.order,
        "call_steps": np.array(trace.call_steps),
        "losses": trained.losses,
        "rounding_errors": np.array(trace.rounding_errors),
    }
    arrays |= {f"tolerance:{kind}": np.array(tolerance) for kind, tolerance in trace.tolerances.items()}
    if trained.logits is not None:
        arrays["logits"] = trained.logits
    # In float32, which rounds off a thousandth of the least tolerance, as a worker's memory is measured.
    arrays |= {f"change:{name}": value.astype(np.float32) for name, value in trained.change.items()}
    arrays |= {f"changes:{name}": value.astype(np.float32) for name, value in trained.changes.items()}
    np.savez(path, allow_pickle=False, **arrays)


def load_measured(path: Path) -> MeasuredTrace:
    """Read what `save_measured` wrote."""
    with np.load(path, allow_pickle=False) as file:

        def named(prefix: str) -> dict[str, npt.NDArray[Any]]:
            return {key.partition(":")[2]: file[key] for key in file.files if key.startswith(f"{prefix}:")}

        return MeasuredTrace(
            order=file["order"],
            call_steps=int(file["call_steps"]),
            trained=Trained(
                losses=file["losses"],
                change=named("change"),
                logits=file["logits"] if "logits" in file.files else None,
                changes=named("changes"),
            ),
            tolerances={cast("Compared", kind): float(value) for kind, value in named("tolerance").items()},
            rounding_errors=tuple(file["rounding_errors"].tolist()),
        )
