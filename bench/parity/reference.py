"""The float64 reference: the parameters that parity starts from, the training, and its trace."""

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from backends.base import TrainingData
from backends.numpy_backend import Array, Arrays, NumpyBackend
from bench.errors import WriteError
from bench.parity.tolerances import has_kinks
from bench.paths import advice, refusal
from bench.workloads.augmentation import Draws, draws_of, seen_images
from bench.workloads.batches import BatchOrder
from bench.workloads.parameters import Params, initial_params
from bench.workloads.specs import DatasetInfo, OptimizerSpec, Workload

STEPS = 20

BATCH = 8

TEST_IMAGES = 64

SEED = 3
"""The seed of the start parameters. With this seed no unit of a dense layer, in any named workload and in any
of the steps, comes nearer to its kink than 2e-5 of its typical size, a hundred times what float32 rounds off.
A test disturbs the weights of the reference before every step and checks that it ends where the undisturbed
one does."""

BIAS = 1.0
"""The size of the start biases; half of them are negative. A start at zero would hide a backend that forgets
to load them. Biases of this size keep most units clearly on or clearly off, far from the kink of the ReLU."""

GRADIENT_RATE = 1024.0

SMALLEST_STEP = 1e-4
"""A smaller change of a parameter near one would be lost in the rounding of float32."""

ADAM_EPSILON = 1e-3
"""The smallest epsilon of Adam in a gentle workload, see `gentle`."""

OPTIMIZER_CASES = (
    # Rates decay and epsilon is large, so that their places in the formulas make a difference.
    OptimizerSpec(name="sgd", learning_rate=0.1, decay_rate=0.5, decay_steps=10),
    OptimizerSpec(name="momentum", learning_rate=0.02, momentum=0.9, decay_rate=0.5, decay_steps=10),
    OptimizerSpec(name="adam", learning_rate=0.002, epsilon=1e-3, decay_rate=0.5, decay_steps=10),
    OptimizerSpec(name="rmsprop", learning_rate=0.002, rho=0.9, epsilon=1e-3, decay_rate=0.5, decay_steps=10),
    # Those of TensorFlow 1.
    OptimizerSpec(name="adam", learning_rate=0.002, epsilon=1e-3, epsilon_hat=True),
    OptimizerSpec(name="rmsprop", learning_rate=0.002, rho=0.9, epsilon=1e-10, initial_square=1.0),
)
"""Optimizers that parity checks beside those of the workloads, each on MNIST's softmax regression."""


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """What the reference computes for one workload, all in float64."""

    pixels: Array | None
    """The first batch, augmented; None where the workload augments no images."""
    logits: Array
    gradients: Arrays
    losses: Array
    """The loss of every step."""
    after_one: Arrays
    """The parameters after one step."""
    after_all: Arrays
    """The parameters after all steps."""


_PARAMETER_FIELDS = ("gradients", "after_one", "after_all")


def parity_batch(ranks: int) -> int:
    """Return the batch size of parity: `BATCH`, or the next larger number that so many ranks divide."""
    return math.ceil(BATCH / ranks) * ranks


def parity_workload(workload: Workload, batch: int = BATCH) -> Workload:
    """Return the workload as parity trains it: at a small batch, which keeps the float64 reference quick."""
    return msgspec.structs.replace(workload, batch_size=batch)


def gentle(workload: Workload) -> Workload:
    """Return the workload at a tenth of its learning rate if its network has kinks, else unchanged.

    At their full rate the first steps of the convolutional networks are chaotic: disturbances of 1e-7 grow to
    several percent within 20 steps in the float64 reference itself. Adam divides every gradient by its own
    size, so the rounding of a gradient near zero would decide a whole step. Its epsilon is therefore raised.
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
    """Write the images and what the reference computed on them to one file of plain arrays.

    Raises WriteError if that fails.
    """
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
    try:
        np.savez(path, allow_pickle=False, **arrays)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {refusal(error, path)}.{advice(path)}") from error


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
    """Return the parameters that parity starts from, with Glorot-uniform kernels in every workload.

    Statistics and scales are drawn too: a backend that ignored them and took their usual start would show.
    """
    params = initial_params(workload.architecture, workload.seen(data.info), seed=SEED)
    generator = np.random.Generator(np.random.PCG64([SEED, len(params)]))
    for name, value in params.items():
        kind = name.partition("/")[2]
        if kind in ("bias", "offset", "mean"):
            params[name] = (BIAS * generator.choice((-1.0, 1.0), value.shape)).astype(np.float32)
        elif kind in ("scale", "variance"):  # below 1, where float32 rounds a small change less
            params[name] = generator.uniform(0.5, 1.0, value.shape).astype(np.float32)
    return params


def evaluated_images(workload: Workload, data: TrainingData) -> npt.NDArray[np.uint8]:
    """Return the images whose logits are compared, as the network sees them."""
    return seen_images(workload, data.images[:TEST_IMAGES])


def parity_order(data: TrainingData, batch: int = BATCH) -> npt.NDArray[np.int32]:
    """Return the batches that parity trains on: int32 (STEPS, batch)."""
    return BatchOrder(images=len(data.images), batch_size=batch, seed=SEED).steps(0, STEPS)


def parity_draws(
    workload: Workload, data: TrainingData, batch: int = BATCH
) -> tuple[tuple[Draws, ...], tuple[Draws, ...]]:
    """Return the draws that `train_steps` gets in the first step, and in the later ones; () without any."""
    small = parity_workload(workload, batch)
    return (
        draws_of(small, data.info, seed=SEED, start=0, steps=1),
        draws_of(small, data.info, seed=SEED, start=1, steps=STEPS - 1),
    )


def reference_trace(workload: Workload, data: TrainingData, batch: int = BATCH) -> Trace:
    """Train the reference for STEPS steps of `parity_workload` and return what it computed."""
    small = parity_workload(workload, batch)
    reference = NumpyBackend(small, data, mode="float64", device="cpu", precision="fp32")
    reference.load_params(start_params(workload, data))
    order = parity_order(data, batch)
    drawn, later = parity_draws(workload, data, batch)
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
