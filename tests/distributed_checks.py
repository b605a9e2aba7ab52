"""The checks of distributed modes, as a rank runs them. Every rank runs the same checks in the same order.

A check trains first and compares at its end: if it raised in one rank alone before that, the others would
wait for it.
"""

import hashlib
import re
import tempfile
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from conformance_kit import (
    ALIKE,
    ARCHITECTURES,
    BATCH,
    INFO,
    OPTIMIZERS,
    SAME,
    Kit,
    assert_close,
    assert_same_params,
    cross_entropy,
    narrow,
    order,
    start,
)
from conftest import INFOS
from distributed_twins import TWINS

from backends.base import Backend, TrainingData
from backends.numpy_backend import NumpyBackend
from bench.datasets.cache import load_sample
from bench.errors import NotComparableError
from bench.measuring.parity import parity_data
from bench.parity import checks as parity
from bench.parity import measured, reference
from bench.worker.loading import load_backend
from bench.worker.timed_loop import training_data
from bench.workloads.catalog import WORKLOADS
from bench.workloads.parameters import Params
from bench.workloads.ranks import Place, part
from bench.workloads.specs import Augmentation, OptimizerSpec, Workload

NETWORKS = ("mnist-softmax", "mnist-mlp", "mnist-cnn")
MEASURED_STEPS = 6
ENGINES = {
    "torch": "DistributedDataParallel",
    "jax": "jax.distributed",
    "tensorflow": "MultiWorkerMirroredStrategy",
}
COLLECTIVES = {"torch": "gloo", "jax": "gloo", "tensorflow": "ring"}

NORMALISED = Workload(
    name="normalised",
    dataset="noise",
    architecture=ARCHITECTURES["one batch norm"],
    optimizer=OptimizerSpec(name="sgd", learning_rate=0.01),
    batch_size=BATCH,
)


class Ranks(Kit):
    """Backends of the distributed mode of a framework, in this rank."""

    def __init__(self, argument: dict[str, Any], folder: Path) -> None:
        info = INFOS[argument["backend"]]
        self.traces = Path(argument["traces"])
        super().__init__(load_backend(info), info, folder, traces=self.traces)
        self.place = msgspec.convert(argument["place"], Place)
        self.mode = next(mode.name for mode in info.modes if mode.distributed)
        self._started: dict[Workload, Any] = {}

    def of(self, workload: Workload, data: TrainingData, precision: str = "fp32") -> Any:
        """Return a new backend."""
        return self.backend_class(
            workload, data, mode=self.mode, device="cpu", precision=precision, place=self.place
        )

    def started(self, workload: Workload) -> Any:
        """Return a backend with start parameters. For equal workloads it is the same one."""
        if workload not in self._started:
            self._started[workload] = self.of(workload, self.data)
        self._started[workload].load_params(start_of(workload))
        return self._started[workload]


def noise(
    architecture: str,
    optimizer: str,
    *,
    loss: Literal["mean", "sum"] = "mean",
    matched: bool = True,
    augmentation: Augmentation | None = None,
) -> Workload:
    """Return a small workload on the kit's noise. The rate of a summed loss is as many times lower."""
    spec = OPTIMIZERS[optimizer]
    if loss == "sum":
        spec = msgspec.structs.replace(spec, learning_rate=spec.learning_rate / BATCH)
    return Workload(
        name="noise",
        dataset="noise",
        architecture=ARCHITECTURES[architecture],
        optimizer=spec,
        batch_size=BATCH,
        loss=loss,
        matched=matched,
        augmentation=augmentation,
    )


def start_of(workload: Workload) -> Params:
    return start(next(name for name, one in ARCHITECTURES.items() if one == workload.architecture))


def digest(values: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of parameters or of a state."""
    joined = b"".join(name.encode() + np.ascontiguousarray(value).tobytes() for name, value in values.items())
    return hashlib.sha256(joined).hexdigest()


def assert_ok(found: tuple[Any, ...], what: str) -> None:
    wrong = [f"{check.kind} at {check.worst} by {check.error:.1e}" for check in found if not check.ok]
    assert not wrong, f"{what}: off in {'; '.join(wrong)}"


# ---- against the reference, at a small batch


def parity_of(kit: Ranks, workload: Workload, data: TrainingData, precision: str = "fp32") -> str:
    """Compare a workload with the reference; return the digest of the last backend's parameters."""
    made: list[Backend] = []

    def make(workload: Workload, data: TrainingData) -> Backend:
        made.append(kit.of(workload, data, precision))
        return made[-1]

    found = parity.check_parity(make, workload, data, kit.trace(workload, data), precision)
    assert_ok(found, workload.name)
    return digest(made[-1].export_params())


def named_parity(name: str) -> Callable[[Ranks], str]:
    def check(kit: Ranks) -> str:
        workload = reference.gentle(narrow(WORKLOADS[name]))
        return parity_of(kit, workload, parity_data(workload))

    return check


def parity_in_bfloat16(kit: Ranks) -> str:
    workload = reference.gentle(WORKLOADS["mnist-softmax"])
    return parity_of(kit, workload, parity_data(workload), "bf16")


def parity_with_batch_norm(kit: Ranks) -> str:
    return parity_of(kit, NORMALISED, kit.data)


def parity_with_augmentation(kit: Ranks) -> str:
    crop = Augmentation(crop=6, hue=0.1, contrast=(0.5, 1.5), brightness=0.2, saturation=(0.5, 1.5))
    return parity_of(kit, noise("softmax", "sgd", augmentation=crop), kit.data)


# ---- against the reference, as the timed program


def measured_workload(name: str) -> tuple[Workload, TrainingData, np.ndarray]:
    workload = narrow(WORKLOADS[name])
    sample = load_sample(workload.dataset)
    return workload, training_data(workload, sample), sample.test_images[: measured.TEST_IMAGES]


def write_measured(name: str, folder: Path) -> None:
    """Write what the reference computes in place of the timed program, once for all ranks."""
    workload, data, images = measured_workload(name)
    trace = measured.measured_trace(
        workload, data, images, steps=MEASURED_STEPS, call_steps=1, precision="fp32"
    )
    measured.save_measured(folder / f"{name}.npz", trace)


def named_measured(name: str) -> Callable[[Ranks], str]:
    def check(kit: Ranks) -> str:
        workload, data, images = measured_workload(name)
        backend = kit.of(workload, data)
        with measured.open_measured(kit.traces / f"{name}.npz") as trace:
            found = measured.check_measured(backend, workload, data, trace, images)
            repeated = measured.check_repeated(backend, workload, data, trace.tolerances["change"])
        assert_ok((*found.checks, repeated), name)
        return digest(backend.export_params())

    return check


# ---- several ranks train as one, which is the reference on whole batches


def alone(workload: Workload, data: TrainingData) -> NumpyBackend:
    backend = NumpyBackend(workload, data, mode="float64", device="cpu", precision="fp32")
    backend.load_params(start_of(workload))
    return backend


def ranks_equal_one(kit: Ranks) -> str:
    cases = [
        noise("softmax", "rmsprop", loss="sum"),
        noise("mlp", "momentum", loss="sum"),
        noise("mlp", "adam"),
    ]
    ends = []
    for workload in cases:
        backend = kit.started(workload)
        ends.append((backend.train_steps(order(7)), backend.export_params()))
    for workload, (losses, params) in zip(cases, ends, strict=True):
        one, what = alone(workload, kit.data), f"{workload.optimizer.name}, {workload.loss}"
        assert_close(losses, one.train_steps(order(7)), ALIKE, f"{what}: losses")
        assert_same_params(params, one.export_params(), ALIKE, what)
    return " ".join(digest(params) for _, params in ends)


def predictions_are_of_all_images(kit: Ranks) -> str:
    workload = noise("mlp", "adam")
    logits = kit.started(workload).predict(kit.images)
    assert_close(logits, alone(workload, kit.data).predict(kit.images), 10 * SAME, "logits")
    return digest({"logits": logits})


def calls_may_be_cut_anywhere(kit: Ranks) -> str:
    backend, batches = kit.started(noise("mlp", "adam")), order(37)
    losses, whole = backend.train_steps(batches), backend.export_params()
    backend.load_params(start("mlp"))
    cuts = [slice(0, 1), slice(1, 4), slice(4, 36), slice(36, 37)]
    parts = np.concatenate([backend.train_steps(batches[cut]) for cut in cuts])
    params = backend.export_params()
    assert (losses.dtype, losses.shape) == (np.float32, (37,))
    assert_close(parts, losses, SAME * 10, "losses of 1 + 3 + 32 + 1 steps against 37")
    assert_same_params(params, whole, SAME * 100, "1 + 3 + 32 + 1 steps")
    return digest(params)


def training_goes_on_from_a_saved_state(kit: Ranks) -> str:
    digests, ends = [], []
    for workload in (noise("mlp", "adam"), noise("mlp", "momentum", loss="sum")):
        backend = kit.started(workload)
        backend.train_steps(order(3))
        state = {name: value.copy() for name, value in backend.save_state().items()}
        losses = backend.train_steps(order(4, seed=2))
        backend.load_params(start_of(workload))
        backend.restore_state(state)
        ends.append((workload, backend.train_steps(order(4, seed=2)), losses))
        digests += [digest(state), digest(backend.save_state())]
    for workload, again, losses in ends:
        assert_close(again, losses, SAME * 10, f"{workload}: losses from a restored state")
    return " ".join(digests)


def own_defaults_are_equal_in_all_ranks(kit: Ranks) -> str:
    backend = kit.of(noise("softmax", "adam", matched=False), kit.data)
    backend.initialise(3)
    backend.train_steps(order(3))
    permutation = backend.permutation(3, 1)
    assert sorted(permutation) == list(range(160))
    return digest(backend.export_params()) + digest({"permutation": permutation})


def images_are_neither_copied_nor_changed(kit: Ranks) -> str:
    images, labels = kit.mapped()
    data = TrainingData(info=INFO, images=images[:160], labels=labels[:160])
    backend = kit.of(noise("softmax", "sgd"), data)
    backend.load_params(start("softmax"))
    backend.train_steps(order(2))
    unchanged = bool((images == kit.mapped()[0]).all())
    images[:] = 0  # black images have another loss, if the backend trains from them and not from a copy
    batches = order(1)
    expected = cross_entropy(backend.predict(images[batches[0]]), labels[batches[0]])
    losses = backend.train_steps(batches)
    assert unchanged, "it writes to the images"
    assert_close(losses, np.array([expected]), 1e-5, "it trains from a copy of the images; loss")
    return digest(backend.export_params())


# ---- programs


def steps_are_carried_as_on_a_gpu(kit: Ranks) -> str:
    """Train by the program for a GPU, to which JAX and TensorFlow send the rows of many steps together."""
    backend = kit.of(noise("mlp", "adam"), kit.data)
    ends = []
    for device in ("cpu", "gpu"):
        if kit.info.name == "jax":
            backend.on_gpu = device == "gpu"
        elif kit.info.name == "tensorflow":
            backend.device = device
        backend._runner = type(backend._runner)(backend)
        backend.load_params(start("mlp"))
        ends.append((backend.train_steps(order(21)), backend.export_params()))
    (losses, params), (carried_losses, carried_params) = ends
    assert_close(carried_losses, losses, ALIKE, "losses")
    assert_same_params(carried_params, params, 10 * ALIKE, "carried")
    return digest(carried_params)


def a_step_is_compiled_once(kit: Ranks) -> str:
    backend = kit.started(noise("mlp", "adam"))
    for steps in (1, 3, 2):
        backend.train_steps(order(steps))
    if kit.info.name == "jax":
        assert backend._runner._step._cache_size() == 1
    if kit.info.name == "tensorflow":
        assert backend._runner._step.experimental_get_tracing_count() == 1
    return digest(backend.export_params())


def jax_reduces_and_does_nothing_else(kit: Ranks) -> str:
    """Its reduce-scatter gave wrong values on a CPU (jax#40830)."""
    if kit.info.name != "jax":
        return ""
    backend = kit.started(noise("mlp", "adam"))
    [batch] = backend.layout.batches(order(1)[:, part(BATCH, kit.place)], None)
    step = backend._runner._step.lower(backend.state, batch, backend.images, backend.labels)
    found = re.findall(r" ((?:all|reduce-scatter|collective|ragged)[-\w]*)\(", step.compile().as_text())
    assert set(found) == {"all-reduce"}, found
    return ""


def the_longest_time_is_known_to_all(kit: Ranks) -> str:
    backend = kit.started(noise("mlp", "adam"))
    found = [backend.longest(0.25 + kit.place.rank), backend.longest(9.0 - kit.place.rank)]
    assert found == [kit.place.ranks - 0.75, 9.0]
    return str(found)


def it_says_what_it_runs_on(kit: Ranks) -> str:
    facts = kit.started(noise("mlp", "adam")).describe()
    assert (facts["device"], facts["ranks"]) == ("cpu", kit.place.ranks)
    assert facts["engine"] == ENGINES[kit.info.name]
    assert facts["collectives"] == COLLECTIVES[kit.info.name]
    return ""


PARITY: Mapping[str, Callable[[Ranks], str]] = {f"parity of {name}": named_parity(name) for name in NETWORKS}
CHECKS: Mapping[str, Callable[[Ranks], str]] = {
    **PARITY,
    **{f"timed program of {name}": named_measured(name) for name in NETWORKS},
    **{
        check.__name__: check
        for check in (
            parity_in_bfloat16,
            parity_with_batch_norm,
            parity_with_augmentation,
            ranks_equal_one,
            predictions_are_of_all_images,
            calls_may_be_cut_anywhere,
            training_goes_on_from_a_saved_state,
            own_defaults_are_equal_in_all_ranks,
            images_are_neither_copied_nor_changed,
            steps_are_carried_as_on_a_gpu,
            a_step_is_compiled_once,
            jax_reduces_and_does_nothing_else,
            the_longest_time_is_known_to_all,
            it_says_what_it_runs_on,
        )
    },
}


# ---- the twins, and what a rank runs


def caught(kit: Ranks, twin: str) -> list[str]:
    """Return what parity finds wrong in a broken twin, in this rank."""
    workload = NORMALISED if twin == "statistics_of_a_rank" else noise("softmax", "sgd")
    trace = kit.trace(workload, kit.data)
    with TWINS[twin](kit):
        try:
            found = parity.check_parity(kit.of, workload, kit.data, trace, "fp32")
        except NotComparableError as error:
            return [str(error)]
    return [check.kind for check in found if not check.ok]


def run(argument: dict[str, Any]) -> dict[str, Any]:
    """Return, for each check, its traceback or None and its digest, and what each twin was caught by."""
    checked, twins = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        kit = Ranks(argument, Path(folder))
        for name in argument["checks"]:
            try:
                checked[name] = {"wrong": None, "digest": CHECKS[name](kit)}
            except Exception:
                checked[name] = {"wrong": traceback.format_exc(), "digest": None}
        for name in argument["twins"]:
            twins[name] = caught(kit, name)
        kit.backend_class.leave()
    return {"checked": checked, "twins": twins}
