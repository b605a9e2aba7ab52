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

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from math import sqrt
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, cast

import msgspec
import numpy as np
import numpy.typing as npt

from backends.base import Backend, TrainingData
from backends.numpy_backend import Array, Arrays, Multiply, NumpyBackend
from bench.errors import NotComparableError
from bench.parity.checks import relative_error
from bench.parity.reference import SEED, start_params
from bench.parity.tolerances import has_kinks
from bench.records.schema import ParityCheck
from bench.workloads.augmentation import Draws, draws_of, seen_images
from bench.workloads.batches import BatchOrder
from bench.workloads.flops import training_flops
from bench.workloads.specs import DatasetInfo, Precision, Workload

Compared: TypeAlias = Literal["losses", "change", "logits", "changes"]

FLOPS = 1.4e10
"""Operations of the steps that the reference trains, if whole calls fit: a few seconds of NumPy."""
MOST_STEPS = 130
"""More than the 100 steps of a chunk in modes that train any number of steps in one call, so that its last
part is ragged."""
MOST_CHAOTIC_STEPS = 32
"""The same for a network with kinks. After about 20 steps of MNIST's MLP rounding decides its losses."""
PERIOD = 26
"""Steps without a stop. A fault in every 25th step shows, wherever its count stands."""
TEST_IMAGES = 64
AT_ONCE = 2**16
"""Values of an array that are compared at once."""

ORDER_SEED = 7
"""The seed of the batches. Of the seeds 3 to 15, the one with which rounding changes least in the first step
of mnist-cnn, cifar10-cnn and notebook-cifar-cnn: at most 1.5e-3, and up to 0.25 with others, as some units
lie near a kink."""

ROUNDED_RUNS = 4
SUM_ROUNDING = 2.0**-24
"""Half the distance from 1 to the next number of float32."""
FACTOR_ROUNDING: Mapping[Precision, float] = MappingProxyType(
    {"fp32": 0.0, "tf32": 2.0**-11, "bf16": 2.0**-8}
)
"""What rounding the factors of a product to fewer digits changes; sums stay in float32."""
MARGIN: Mapping[Compared, float] = MappingProxyType(
    {"losses": 10.0, "change": 3.0, "logits": 3.0, "changes": 3.0}
)
"""The tolerance is so many times the largest error of the disturbed reference, and at least that in `LEAST`.
Losses grow apart from step to step, and two trainings at different rates."""
LEAST: Mapping[Compared, float] = MappingProxyType(
    {"losses": 1e-5, "change": 1e-4, "logits": 1e-5, "changes": 1e-4}
)
LEAST_OF_CONVOLUTIONS: Mapping[Compared, float] = MappingProxyType(
    {"losses": 1e-4, "change": 1e-3, "logits": 1e-4}
)
"""The same for a network with convolutions, of whose many units rounding moves some across a kink. Few runs
may miss the one that another framework moves."""
CHAOS = 0.1
"""A loss with a larger tolerance is not compared: the step is chaotic, and nearly any loss would pass."""


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """What the reference computed in some steps."""

    start: Mapping[str, npt.NDArray[np.floating]]
    """The parameters before the first step, in canonical layout."""
    losses: npt.NDArray[np.floating]
    """The loss of every step: (steps,)."""
    change: Mapping[str, npt.NDArray[np.floating]]
    """How far each parameter moved in the first call."""
    logits: npt.NDArray[np.floating]
    """Of the first test images, after the first call: (images, classes)."""
    changes: Mapping[str, npt.NDArray[np.floating]]
    """How far each parameter moved in all steps; nothing in a network with kinks, whose steps are chaotic."""


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
    least_of_losses: float

    @property
    def loss_tolerances(self) -> tuple[float, ...]:
        """The tolerance of the loss at each step: an error of one step may last in the next ones."""
        grown = np.maximum.accumulate(self.rounding_errors)
        return tuple(np.maximum(self.least_of_losses, MARGIN["losses"] * grown).tolist())


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What the timed program computed, compared with a trace."""

    checks: tuple[ParityCheck, ...]
    loss_errors: tuple[float, ...]
    """The relative error of the loss at each step."""


def proof_steps(workload: Workload, info: DatasetInfo, call_steps: int) -> int:
    """Return the steps that the reference trains: whole calls, as many as are quick."""
    flops = training_flops(workload.architecture, workload.seen(info), workload.batch_size)
    most = MOST_CHAOTIC_STEPS if has_kinks(workload) else MOST_STEPS
    return call_steps * max(1, int(min(most, FLOPS / flops)) // call_steps)


def proof_order(data: TrainingData, batch_size: int, steps: int) -> npt.NDArray[np.int32]:
    """Return the batches of the proof, drawn from all training images: int32 (steps, batch)."""
    return BatchOrder(images=len(data.images), batch_size=batch_size, seed=ORDER_SEED).steps(0, steps)


def proof_draws(workload: Workload, info: DatasetInfo, steps: int) -> tuple[Draws, ...]:
    """Return how images are augmented in the proof; nothing if they are not."""
    return draws_of(workload, info, seed=ORDER_SEED, start=0, steps=steps)


def measured_trace(
    workload: Workload,
    data: TrainingData,
    test_images: npt.NDArray[np.uint8],
    *,
    steps: int,
    call_steps: int,
    precision: Precision,
    on_progress: Callable[[float], None] = lambda _: None,
) -> MeasuredTrace:
    """Train the reference for so many steps at the workload's batch and rate, and find the tolerances.

    `call_steps` are those of the first call. `test_images`, uint8 (n, h, w, c), are those whose logits are
    compared. `on_progress` gets the share that is done.
    """
    order = proof_order(data, workload.batch_size, steps)
    images = seen_images(workload, test_images)
    truth = _truth(workload, data, images, order, call_steps)
    found = []
    for seed in range(ROUNDED_RUNS):
        on_progress((1 + seed) / (1 + ROUNDED_RUNS))
        disturbed = _Steps(Rounding(workload, data, precision=precision, seed=seed), workload, data, order)
        found.append(
            _errors(
                truth,
                call_steps,
                train=disturbed.train,
                params=lambda one=disturbed: one.params,  # type: ignore[misc]
                logits=lambda one=disturbed: one.logits(images),  # type: ignore[misc]
            )
        )
    least = {**LEAST, **(LEAST_OF_CONVOLUTIONS if workload.architecture.convs else {})}
    worst = {kind: max(max(errors[kind].values()) for errors in found) for kind in found[0]}
    by_step = zip(*(errors["losses"].values() for errors in found), strict=True)
    return MeasuredTrace(
        order=order,
        call_steps=call_steps,
        trained=truth,
        tolerances={
            kind: max(least[kind], MARGIN[kind] * error) for kind, error in worst.items() if kind != "losses"
        },
        rounding_errors=tuple(max(errors) for errors in by_step),
        least_of_losses=least["losses"],
    )


def _truth(
    workload: Workload,
    data: TrainingData,
    images: npt.NDArray[np.uint8],
    order: npt.NDArray[np.int32],
    call_steps: int,
) -> Trained:
    """Train the exact reference; `images` are those whose logits it returns."""
    exact = NumpyBackend(workload, data, mode="float64", device="cpu", precision="fp32")
    reference = _Steps(exact, workload, data, order)
    losses = [reference.train(slice(0, call_steps))]
    change, logits = reference.change(), reference.logits(images)
    losses.append(reference.train(slice(call_steps, len(order))))
    return Trained(
        start=reference.start,
        losses=np.concatenate(losses),
        change=change,
        logits=logits,
        changes={} if has_kinks(workload) else reference.change(),
    )


class Rounding(NumpyBackend):
    """The reference with errors as float32 makes them, in each sum of a layer and in the parameters.

    The partial sums of n products grow like a random walk, so their sum is off by sqrt(n / 2) roundings of
    the root of the sum of the squared products: N. Higham and T. Mary, "A new approach to probabilistic
    rounding error analysis", SIAM Journal on Scientific Computing 41, 2019. Each sum is off by itself, so a
    max-pool of nearly equal ones may take another.
    """

    def __init__(self, workload: Workload, data: TrainingData, *, precision: Precision, seed: int) -> None:
        super().__init__(workload, data, mode="float64", device="cpu", precision="fp32")
        self._random = np.random.Generator(np.random.PCG64([SEED, seed]))
        self._factor = FACTOR_ROUNDING[precision]

    def products(self, multiply: Multiply, x: Array, kernel: Array) -> Array:
        terms = kernel.size // kernel.shape[-1]
        size = self._factor + SUM_ROUNDING * sqrt(terms / 2)
        spread = np.sqrt(multiply(np.square(x), np.square(kernel)))
        return multiply(x, kernel) + size * spread * self._random.standard_normal(spread.shape)

    def _train_on(self, pixels: Array, labels: npt.NDArray[np.uint8]) -> float:
        loss = super()._train_on(pixels, labels)
        self.params = {name: value.astype(np.float32).astype(float) for name, value in self.params.items()}
        return loss


class _Steps:
    """A reference, and the steps that it trains in a proof."""

    def __init__(
        self, reference: NumpyBackend, workload: Workload, data: TrainingData, order: npt.NDArray[np.int32]
    ) -> None:
        self._reference, self._order = reference, order
        self._draws = proof_draws(workload, data.info, len(order))
        self.start = start_params(workload, data)
        reference.load_params(self.start)

    @property
    def params(self) -> Arrays:
        return self._reference.params

    def train(self, part: slice) -> npt.NDArray[np.floating]:
        """Train some of the steps; return their losses."""
        return self._reference.train_steps_float64(self._order[part], *(drawn[part] for drawn in self._draws))

    def change(self) -> Arrays:
        return {name: self.params[name] - start for name, start in self.start.items()}

    def logits(self, images: npt.NDArray[np.uint8]) -> Array:
        return self._reference.logits(images)


def _errors(
    truth: Trained,
    call_steps: int,
    *,
    train: Callable[[slice], npt.NDArray[np.floating]],
    params: Callable[[], Mapping[str, npt.NDArray[np.floating]]],
    logits: Callable[[], npt.NDArray[np.floating]] | None,
) -> dict[Compared, dict[str, float]]:
    """Train as the reference did; return the relative errors, by what is compared and where."""
    losses = [train(slice(0, call_steps))]
    errors: dict[Compared, dict[str, float]] = {"change": _change_errors(truth.start, params(), truth.change)}
    if logits is not None:
        errors["logits"] = {"logits": relative_error(logits(), truth.logits)}
    if call_steps < len(truth.losses):
        losses.append(train(slice(call_steps, len(truth.losses))))
    if truth.changes:
        errors["changes"] = _change_errors(truth.start, params(), truth.changes)
    pairs = zip(np.concatenate(losses), truth.losses, strict=True)
    by_step = {f"step {step}": relative_error(loss, expected) for step, (loss, expected) in enumerate(pairs)}
    return {"losses": by_step, **errors}


def _change_errors(
    before: Mapping[str, npt.NDArray[Any]],
    after: Mapping[str, npt.NDArray[Any]],
    expected: Mapping[str, npt.NDArray[Any]],
) -> dict[str, float]:
    """Return |found - expected| / |expected| of the change of every array, in the 2-norm.

    A unit that rounding moves across a kink changes one channel by much, and the norm by little. The errors
    are infinite where only `expected` is zero, and NaN as in `relative_error`. It works on a part of an array
    at a time: a worker's peak of memory must not come from its proof.
    """
    errors = {}
    for name in expected:
        arrays = [np.asarray(source[name]).ravel() for source in (before, after, expected)]
        if len({array.size for array in arrays}) > 1:
            errors[name] = float("nan")
            continue
        difference = scale = 0.0
        for place in range(0, arrays[0].size, AT_ONCE):
            old, new, change = (array[place : place + AT_ONCE].astype(np.float64) for array in arrays)
            difference += float(np.sum(np.square(new - old - change)))
            scale += float(np.sum(np.square(change)))
        if difference == 0.0:
            errors[name] = 0.0
        else:
            errors[name] = sqrt(difference / scale) if scale > 0.0 else float("inf")
    return errors


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
    order, truth = trace.order, trace.trained
    draws = proof_draws(workload, data.info, len(order))
    backend.load_params(dict(truth.start))
    predict = None if test_images is None else partial(backend.predict, seen_images(workload, test_images))
    errors = _errors(
        truth,
        trace.call_steps,
        train=lambda part: backend.train_steps(order[part], *(drawn[part] for drawn in draws)),
        params=backend.export_params,
        logits=predict,
    )
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

    Each call is compared by the change of the state in it: parameters and what the optimizer keeps. Their
    difference relative to the change may be as large as `tolerance`.
    """
    calls = -(-PERIOD // backend.call_steps)
    order = proof_order(data, workload.batch_size, calls * backend.call_steps)
    draws = proof_draws(workload, data.info, len(order))
    backend.load_params(start_params(workload, data))
    parts = [slice(call * backend.call_steps, (call + 1) * backend.call_steps) for call in range(calls)]
    states = [backend.save_state()]
    for part in parts:
        backend.train_steps(order[part], *(drawn[part] for drawn in draws))
        states.append(backend.save_state())
    errors = {}
    for call, part in enumerate(parts):
        before, after = states[call], states[call + 1]
        backend.restore_state(before)
        backend.train_steps(order[part], *(drawn[part] for drawn in draws))
        again = backend.save_state()
        moved = {name: after[name].astype(np.float64) - before[name] for name in before}
        for name, error in _change_errors(before, again, moved).items():
            errors[f"step {part.start}, {name}"] = error
    return _check("repeated", errors, dict.fromkeys(errors, tolerance))


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
        "logits": trained.logits,
        "rounding_errors": np.array(trace.rounding_errors),
        "least_of_losses": np.array(trace.least_of_losses),
    }
    arrays |= {f"tolerance:{kind}": np.array(tolerance) for kind, tolerance in trace.tolerances.items()}
    for field in ("start", "change", "changes"):
        values: Mapping[str, npt.NDArray[np.floating]] = getattr(trained, field)
        # Float32 rounds off a thousandth of the least tolerance, and takes a worker half the memory.
        arrays |= {f"{field}:{name}": value.astype(np.float32) for name, value in values.items()}
    np.savez(path, allow_pickle=False, **arrays)


@contextmanager
def open_measured(path: Path) -> Iterator[MeasuredTrace]:
    """Open what `save_measured` wrote. Each parameter is read when it is needed."""
    with np.load(path, allow_pickle=False) as file:
        tolerances = {key: float(file[key]) for key in file.files if key.startswith("tolerance:")}
        yield MeasuredTrace(
            order=file["order"],
            call_steps=int(file["call_steps"]),
            trained=Trained(
                start=_Stored(file, "start"),
                losses=file["losses"],
                change=_Stored(file, "change"),
                logits=file["logits"],
                changes=_Stored(file, "changes"),
            ),
            tolerances={cast("Compared", key.partition(":")[2]): value for key, value in tolerances.items()},
            rounding_errors=tuple(file["rounding_errors"].tolist()),
            least_of_losses=float(file["least_of_losses"]),
        )


class _Stored(Mapping[str, npt.NDArray[np.floating]]):
    """The arrays of one field in an open file."""

    def __init__(self, file: Mapping[str, npt.NDArray[Any]], field: str) -> None:
        self._file, self._prefix = file, f"{field}:"

    def __getitem__(self, name: str) -> npt.NDArray[np.floating]:
        return self._file[self._prefix + name]

    def __iter__(self) -> Iterator[str]:
        return (key.removeprefix(self._prefix) for key in self._file if key.startswith(self._prefix))

    def __len__(self) -> int:
        return sum(1 for _ in self)
