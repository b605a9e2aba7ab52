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
from pathlib import Path
from typing import Any, Literal, cast

import msgspec
import numpy as np
import numpy.typing as npt

from backends.base import Augmenting, Backend, Params, TrainingData
from backends.numpy_backend import Array, Arrays, NumpyBackend
from bench.augmentation import Draws, draws_of, seen_images
from bench.errors import NotComparableError
from bench.initial import initial_params
from bench.order import BatchOrder
from bench.records import ParityCheck
from bench.specs import DatasetInfo, OptimizerSpec, Precision, Workload

STEPS = 20
BATCH = 8
TEST_IMAGES = 64
SEED = 3
"""A start in which no unit of a dense layer of any named workload comes nearer to its kink, in all steps,
than 2e-5 of its typical size, a hundred times what float32 rounds off. A test disturbs the weights of the
reference before every step, and holds it to ending where the undisturbed one does."""
BIAS = 1.0
"""Size of the biases that parity starts from; half of them are negative. Zeros would hide a backend that
forgets to load them, and these keep most units clearly on or clearly off, far from the kink of their ReLU."""
GRADIENT_RATE = 1024.0
SMALLEST_STEP = 1e-4
"""A smaller change of a parameter near one would be lost in the rounding of float32."""
ADAM_EPSILON = 1e-3
"""At least so large is epsilon: see `gentle`."""

Kind = Literal["pixels", "logits", "loss", "gradient", "step", "steps", "losses"]

TOLERANCES: dict[Precision, dict[Kind, float]] = {
    # A convolution has too many units to keep them all clear of kinks: one that crosses moves its first
    # kernel by a part in a thousand in 20 steps. Without crossings the errors of `steps` are smaller.
    "fp32": {"logits": 5e-6, "loss": 2e-6, "gradient": 2e-5, "step": 1e-3, "steps": 3e-3, "losses": 1e-5},
    # TF32 keeps 10 bits of mantissa and bfloat16 7, against 23 of float32; so coarse a sum crosses many
    # kinks, and where 20 small steps of a gentle start lead is mostly noise: there the losses must do. On an
    # H200 MNIST's CNN in TF32 had a gradient 4 % off, in PyTorch as in JAX, and ended 40 to 110 % off.
    "tf32": {"logits": 1e-2, "loss": 1e-2, "gradient": 1e-1, "step": 1e-1, "losses": 2e-1},
    "bf16": {"logits": 5e-2, "loss": 2e-2, "gradient": 3e-1, "step": 3e-1, "losses": 2e-1},
}

SMOOTH: dict[Precision, dict[Kind, float]] = {"tf32": {"steps": 3e-1}}
"""What is checked besides of a network without kinks, where that many steps of a coarse sum are no noise."""

AUGMENTED: dict[Kind, float] = {"pixels": 1e-5, "steps": 5e-2, "losses": 5e-5}
"""What is allowed of a workload that augments its images, where that is another error or a larger one.
Pixels that differ by 1e-6 fall on other sides of more kinks, and Adam's steps are of one size for all."""

OPTIMIZER_CASES = (
    # Rates decay and epsilon is large, so that where each of them stands in the formula shows.
    OptimizerSpec(name="sgd", learning_rate=0.1, decay_rate=0.5, decay_steps=10),
    OptimizerSpec(name="momentum", learning_rate=0.02, momentum=0.9, decay_rate=0.5, decay_steps=10),
    OptimizerSpec(name="adam", learning_rate=0.002, epsilon=1e-3, decay_rate=0.5, decay_steps=10),
    OptimizerSpec(name="rmsprop", learning_rate=0.002, rho=0.9, epsilon=1e-3, decay_rate=0.5, decay_steps=10),
    # As TensorFlow 1 had them.
    OptimizerSpec(name="adam", learning_rate=0.002, epsilon=1e-3, epsilon_hat=True),
    OptimizerSpec(name="rmsprop", learning_rate=0.002, rho=0.9, epsilon=1e-10, initial_square=1.0),
)
"""Optimizers checked beside those that the workloads use, each on the MNIST softmax regression."""


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """What the reference computes for one workload, all in float64."""

    pixels: Array | None
    """The first batch, augmented; None where the workload augments nothing."""
    logits: Array
    gradients: Arrays
    losses: Array
    """The loss of every step."""
    after_one: Arrays
    after_all: Arrays


_PARAMETER_FIELDS = ("gradients", "after_one", "after_all")


BackendFactory = Callable[[Workload, TrainingData], Backend]


def parity_workload(workload: Workload) -> Workload:
    """Return the workload as parity trains it: at a small batch, which keeps the float64 reference quick."""
    return msgspec.structs.replace(workload, batch_size=BATCH)


def has_kinks(workload: Workload) -> bool:
    return bool(workload.architecture.convs or workload.architecture.hidden)


def gentle(workload: Workload) -> Workload:
    """Return the workload at a tenth of its learning rate, where its network has kinks.

    At their full rate the first steps of the convolutional networks are chaotic: disturbances of 1e-7 grow to
    several percent within 20 steps in the float64 reference itself. Adam divides every gradient by its own
    size, so that the rounding of one near zero would decide a whole step: its epsilon is raised.
    """
    optimizer = workload.optimizer
    if not has_kinks(workload):
        return workload
    slower = msgspec.structs.replace(optimizer, learning_rate=optimizer.learning_rate / 10)
    if optimizer.name == "adam":
        slower = msgspec.structs.replace(
            slower,
            learning_rate=max(slower.learning_rate, SMALLEST_STEP),
            epsilon=max(slower.epsilon, ADAM_EPSILON),
        )
    return msgspec.structs.replace(workload, optimizer=slower)


def save_trace(path: Path, data: TrainingData, trace: Trace) -> None:
    """Write the images and what the reference computed on them to one file of plain arrays."""
    arrays: dict[str, npt.NDArray[Any]] = {
        "images": data.images,
        "labels": data.labels,
        "info": np.array(msgspec.json.encode(data.info).decode()),
        "logits": trace.logits,
        "losses": trace.losses,
        **({} if trace.pixels is None else {"pixels": trace.pixels}),
    }
    for field in _PARAMETER_FIELDS:
        arrays |= {f"{field}:{name}": value for name, value in getattr(trace, field).items()}
    np.savez(path, allow_pickle=False, **arrays)


def load_trace(path: Path) -> tuple[TrainingData, Trace]:
    """Read what `save_trace` wrote."""
    with np.load(path, allow_pickle=False) as file:
        info = msgspec.json.decode(str(file["info"]), type=DatasetInfo)
        fields = {
            field: {key.partition(":")[2]: file[key] for key in file.files if key.startswith(f"{field}:")}
            for field in _PARAMETER_FIELDS
        }
        pixels = file["pixels"] if "pixels" in file.files else None
        trace = Trace(pixels=pixels, logits=file["logits"], losses=file["losses"], **fields)
        return TrainingData(info=info, images=file["images"], labels=file["labels"]), trace


def start_params(workload: Workload, data: TrainingData) -> Params:
    """Return the initial parameters that parity starts from: kernels as if Glorot-uniform in every workload.

    Statistics and scales are drawn too, as no backend may take them for what they are at the beginning.
    """
    params = initial_params(workload.architecture, workload.seen(data.info), seed=SEED)
    generator = np.random.Generator(np.random.PCG64([SEED, len(params)]))
    for name, value in params.items():
        kind = name.partition("/")[2]
        if kind in ("bias", "offset", "mean"):
            params[name] = (BIAS * generator.choice((-1.0, 1.0), value.shape)).astype(np.float32)
        elif kind in ("scale", "variance"):  # below one, where a small change is rounded less
            params[name] = generator.uniform(0.5, 1.0, value.shape).astype(np.float32)
    return params


def evaluated_images(workload: Workload, data: TrainingData) -> npt.NDArray[np.uint8]:
    """Return the images whose logits are compared, as the network sees them."""
    return seen_images(workload, data.images[:TEST_IMAGES])


def _order(data: TrainingData) -> npt.NDArray[np.int32]:
    return BatchOrder(images=len(data.images), batch_size=BATCH, seed=SEED).steps(0, STEPS)


def _draws(workload: Workload, data: TrainingData) -> tuple[tuple[Draws, ...], tuple[Draws, ...]]:
    """Return what `train_steps` is given beside the order in the first step, and in the others."""
    small = parity_workload(workload)
    return (
        draws_of(small, data.info, seed=SEED, start=0, steps=1),
        draws_of(small, data.info, seed=SEED, start=1, steps=STEPS - 1),
    )


def reference_trace(workload: Workload, data: TrainingData) -> Trace:
    """Train the reference for STEPS steps of `parity_workload(workload)` and return what it computed."""
    reference = NumpyBackend(parity_workload(workload), data, mode="float64", device="cpu", precision="fp32")
    reference.load_params(start_params(workload, data))
    order = _order(data)
    drawn, later = _draws(workload, data)
    logits = reference.logits(evaluated_images(workload, data))
    pixels = reference.pixels(order[0], *(step[0] for step in drawn))
    _, gradients = reference.loss_and_gradients(pixels, data.labels[order[0]])
    first = reference.train_steps_float64(order[:1], *drawn)
    after_one = dict(reference.params)
    rest = reference.train_steps_float64(order[1:], *later)
    return Trace(
        pixels=pixels if drawn else None,
        logits=logits,
        gradients=gradients,
        losses=np.concatenate([first, rest]),
        after_one=after_one,
        after_all=dict(reference.params),
    )


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


def tolerances(workload: Workload, precision: Precision) -> dict[Kind, float]:
    """Return the largest error that is allowed of each kind that is checked."""
    limits = TOLERANCES[precision]
    if not has_kinks(workload):
        both = limits | SMOOTH.get(precision, {})
        limits = {kind: both[kind] for kind in TOLERANCES["fp32"] if kind in both}
    if workload.augmentation is None:
        return limits
    pixels: dict[Kind, float] = {"pixels": AUGMENTED["pixels"]}
    return pixels | {kind: max(limit, AUGMENTED.get(kind, 0.0)) for kind, limit in limits.items()}


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
