"""The proof of the timed program: a right one passes, and one that is wrong only where it is timed fails."""

from collections.abc import Mapping
from pathlib import Path
from unittest import mock

import msgspec
import numpy as np
import pytest

from backends import numpy_backend
from backends.base import TrainingData
from backends.numpy_backend import NumpyBackend, max_pool_backward
from bench.datasets import cache
from bench.datasets.catalog import DATASETS
from bench.errors import NotComparableError
from bench.parity import measured
from bench.parity.measured import (
    CHAOS,
    LEAST_OF_CONVOLUTIONS,
    MARGIN,
    MeasuredTrace,
    check_measured,
    check_repeated,
    measured_trace,
    open_measured,
    proof_steps,
    save_measured,
)
from bench.workloads.catalog import find_workload
from bench.workloads.specs import Architecture, ConvBlock, OptimizerSpec, Workload

IMAGES = 2_400
CALL = 4
SMOOTH = Workload(
    name="smooth",
    dataset="mnist",
    architecture=Architecture(),
    optimizer=OptimizerSpec(name="sgd", learning_rate=0.5),
    target_accuracy=None,
)
KINKED = msgspec.structs.replace(
    SMOOTH,
    name="kinked",
    architecture=Architecture(convs=(ConvBlock(filters=2),), hidden=(8,)),
    optimizer=OptimizerSpec(name="sgd", learning_rate=0.02),
)


class InFloat32(NumpyBackend):
    """The reference, whose parameters are rounded to float32 after every step, as a framework's are."""

    call_steps = CALL

    def _train_on(self, pixels, labels):
        loss = super()._train_on(pixels, labels)
        self.params = {name: value.astype(np.float32).astype(float) for name, value in self.params.items()}
        return loss


class FromBatch64(InFloat32):
    """Drops the gradient of the last bias if the batch has 64 images or more."""

    def loss_and_gradients(self, pixels, labels):
        loss, gradients = super().loss_and_gradients(pixels, labels)
        if len(labels) >= 64:
            gradients["logits/bias"] = np.zeros_like(gradients["logits/bias"])
        return loss, gradients


class BeyondTheSample(InFloat32):
    """Takes a wrong label for every image with an index of 2,000 or more."""

    def train_steps_float64(self, order, draws=None):
        labels = self._data.labels.copy()
        labels[2_000:] = (labels[2_000:] + 1) % 10
        true = self._data
        self._data = TrainingData(info=true.info, images=true.images, labels=labels)
        try:
            return super().train_steps_float64(order, draws)
        finally:
            self._data = true


class Counting(InFloat32):
    """Is wrong in some steps of a call, or of its life."""

    forgotten: Mapping[str, float] = {"logits/bias": 0.0}

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.call_step = self.life_step = 0

    def train_steps_float64(self, order, draws=None):
        self.call_step, self.steps_of_call = 0, len(order)
        return super().train_steps_float64(order, draws)

    def loss_and_gradients(self, pixels, labels):
        loss, gradients = super().loss_and_gradients(pixels, labels)
        if self.wrong():
            gradients = {name: value * self.forgotten.get(name, 1.0) for name, value in gradients.items()}
        self.call_step += 1
        self.life_step += 1
        return loss, gradients


class LaterInACall(Counting):
    """Drops a gradient in the second and later steps of a call."""

    def wrong(self):
        return self.call_step > 0


class RaggedEnd(Counting):
    """Drops a gradient in what is left of a call after whole chunks of 100 steps."""

    def wrong(self):
        return self.call_step >= self.steps_of_call // 100 * 100


class Every25th(Counting):
    """Drops a gradient in every 25th step of its life."""

    def wrong(self):
        return self.life_step % 25 == 24


class Every25thSinceLoading(Every25th):
    """The same, but it counts anew when parameters or a state are loaded."""

    def load_params(self, params):
        super().load_params(params)
        self.life_step = 0

    def restore_state(self, state):
        super().restore_state(state)
        self.life_step = 0


class AfterRecompiling(Counting):
    """Drops a gradient once it has trained calls of another number of steps, as if it had compiled anew."""

    def train_steps_float64(self, order, draws=None):
        self.lengths = {*getattr(self, "lengths", ()), len(order)}
        return super().train_steps_float64(order, draws)

    def wrong(self):
        return len(self.lengths) > 1


class InOneRow(InFloat32):
    """Takes one image of a batch twice in place of another."""

    def _train_on(self, pixels, labels):
        pixels, labels = pixels.copy(), labels.copy()
        pixels[57], labels[57] = pixels[3], labels[3]
        return super()._train_on(pixels, labels)


class InOneRowOfMany(InFloat32):
    """Leaves one pixel of one image out of the sums of a convolution: one row of 78,400."""

    def loss_and_gradients(self, pixels, labels):
        with mock.patch.object(numpy_backend, "max_pool_backward", _without_one_row):
            return super().loss_and_gradients(pixels, labels)


def _without_one_row(x, d_out, size):
    d_x = max_pool_backward(x, d_out, size)
    if x.shape[1] == 28:
        rows = (d_x * (x > 0)).reshape(-1, d_x.shape[-1])
        used = np.flatnonzero(rows.any(axis=1))
        sizes = np.abs(rows[used]).max(axis=1)
        d_x.reshape(rows.shape)[used[sizes.argsort()[len(used) // 2]]] = (
            0.0  # neither a large nor a small one
        )
    return d_x


class AfterAnotherObject(InFloat32):
    """Is wrong if another backend object was built in the process before it."""

    built = 0

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        type(self).built += 1
        self._wrong = type(self).built > 1

    def loss_and_gradients(self, pixels, labels):
        loss, gradients = super().loss_and_gradients(pixels, labels)
        return loss, {name: value * (1.01 if self._wrong else 1.0) for name, value in gradients.items()}


def training(workload: Workload) -> TrainingData:
    """Return more images than the sample has, so that some lie beyond it."""
    sample = cache.load_sample("mnist")
    more = IMAGES - len(sample.train_images)
    images = np.concatenate([sample.train_images, sample.train_images[:more][:, ::-1]])
    return TrainingData(
        info=sample.info,
        images=images,
        labels=np.concatenate([sample.train_labels, sample.train_labels[:more]]),
    )


@pytest.fixture(scope="module")
def test_images() -> np.ndarray:
    return cache.load_sample("mnist").test_images[:16]


@pytest.fixture(scope="module", params=[SMOOTH, KINKED], ids=lambda workload: workload.name)
def case(request, test_images) -> tuple[Workload, TrainingData, MeasuredTrace]:
    workload = request.param
    data = training(workload)
    steps = 130 if workload is SMOOTH else 2 * CALL
    trace = measured_trace(workload, data, test_images, steps=steps, call_steps=CALL, precision="fp32")
    return workload, data, trace


def make(kind: type[NumpyBackend], workload: Workload, data: TrainingData) -> NumpyBackend:
    return kind(workload, data, mode="float64", device="cpu", precision="fp32")


def proven(backend: NumpyBackend, case: tuple, images: np.ndarray) -> bool:
    """Do what a worker does: prove before the windows, train, and prove again with repetition."""
    workload, data, trace = case
    checks = check_measured(backend, workload, data, trace).checks
    backend.train_steps(trace.order[:3])
    checks += check_measured(backend, workload, data, trace, images).checks
    if workload is KINKED:
        checks += (check_repeated(backend, workload, data, trace.tolerances["change"]),)
    return all(check.ok for check in checks)


def test_a_right_program_is_proven(case, test_images) -> None:
    assert proven(make(InFloat32, case[0], case[1]), case, test_images)


@pytest.mark.parametrize(
    "twin",
    [
        FromBatch64, BeyondTheSample, LaterInACall, RaggedEnd, Every25th, Every25thSinceLoading,
        AfterRecompiling, InOneRow,
    ],
)  # fmt: skip
def test_a_program_that_is_wrong_only_where_it_is_timed_is_refused(twin, case, test_images) -> None:
    assert not proven(make(twin, case[0], case[1]), case, test_images)


@pytest.mark.parametrize("case", [KINKED], indirect=True)
def test_one_wrong_row_of_78_400_is_refused(case, test_images) -> None:
    assert not proven(make(InOneRowOfMany, case[0], case[1]), case, test_images)


def test_a_program_that_is_wrong_after_another_object_is_refused_in_its_own_process(
    case, test_images
) -> None:
    with mock.patch.object(AfterAnotherObject, "built", 0):
        assert proven(make(AfterAnotherObject, case[0], case[1]), case, test_images), (
            "a job builds one object"
        )
        assert not proven(make(AfterAnotherObject, case[0], case[1]), case, test_images)


def test_a_loss_that_is_not_finite_is_not_comparable(case) -> None:
    backend = make(InFloat32, case[0], case[1])
    with (
        mock.patch.object(InFloat32, "train_steps", lambda _self, order, *_: np.full(len(order), np.nan)),
        pytest.raises(NotComparableError, match="losses at step 0 in the timed program: not finite"),
    ):
        check_measured(backend, case[0], case[1], case[2])


def test_a_trace_is_read_as_it_was_written(case, test_images, tmp_path: Path) -> None:
    trace = case[2]
    save_measured(tmp_path / "trace.npz", trace)
    with open_measured(tmp_path / "trace.npz") as read:
        assert (read.call_steps, read.tolerances) == (trace.call_steps, trace.tolerances)
        assert read.rounding_errors == trace.rounding_errors
        np.testing.assert_array_equal(read.order, trace.order)
        for field in ("losses", "logits"):
            np.testing.assert_array_equal(getattr(read.trained, field), getattr(trace.trained, field))
        for field in ("start", "change", "changes"):
            stored, made = getattr(read.trained, field), getattr(trace.trained, field)
            assert set(stored) == set(made)
            assert len(stored) == len(made)
            for name, value in made.items():
                np.testing.assert_allclose(stored[name], value, rtol=1e-6)


@pytest.mark.parametrize(
    ("after", "expected", "error"),
    [
        ([1.0, 2.5], [0.0, 0.5], 0.0),
        ([1.3, 2.4], [0.0, 0.4], 0.75),
        ([1.0, 2.0], [0.0, 0.0], 0.0),
        ([1.0, 2.1], [0.0, 0.0], np.inf),
        ([1.0, np.nan], [0.0, 0.5], np.nan),
        ([1.0], [0.0, 0.5], np.nan),
    ],
)
def test_a_change_is_compared_as_any_value_is_but_in_parts(after, expected, error) -> None:
    with mock.patch.object(measured, "AT_ONCE", 1):
        found = measured._change_errors(
            {"a": np.array([1.0, 2.0])}, {"a": np.array(after)}, {"a": np.array(expected)}
        )
    assert found["a"] == pytest.approx(error, nan_ok=True)


def test_tolerances_follow_the_precision_and_have_a_floor(test_images) -> None:
    found = {
        precision: measured_trace(
            KINKED, training(KINKED), test_images, steps=2, call_steps=2, precision=precision
        )
        for precision in ("fp32", "tf32", "bf16")
    }
    for compared in ("change", "logits"):
        limits = [trace.tolerances[compared] for trace in found.values()]
        assert LEAST_OF_CONVOLUTIONS[compared] <= limits[0] < limits[1] < limits[2]
    last = [trace.loss_tolerances[-1] for trace in found.values()]
    assert LEAST_OF_CONVOLUTIONS["losses"] <= last[0] <= last[1] < last[2]


@pytest.mark.parametrize(
    ("name", "call_steps", "steps"),
    [
        ("mnist-softmax", 1, 130),
        ("mnist-softmax", 16, 128),
        ("mnist-mlp", 1, 32),
        ("mnist-cnn", 1, 2),
        ("mnist-cnn", 4, 4),
        ("cifar10-cnn", 1, 1),
        ("cifar10-cnn", 16, 16),
    ],
)
def test_the_reference_trains_whole_calls_and_few_steps_of_a_large_network(name, call_steps, steps) -> None:
    workload = find_workload(name)
    assert proof_steps(workload, DATASETS[workload.dataset].info, call_steps) == steps


def test_the_error_of_every_loss_is_kept_and_the_largest_for_its_tolerance_is_checked(case) -> None:
    workload, data, trace = case
    found = check_measured(make(InFloat32, workload, data), workload, data, trace)
    assert len(found.loss_errors) == len(trace.order)
    (losses,) = [check for check in found.checks if check.kind == "losses"]
    shares = np.divide(found.loss_errors, trace.loss_tolerances)
    assert losses.worst == f"step {shares.argmax()}"
    assert losses.error / losses.tolerance == shares.max()


def test_the_tolerance_of_a_loss_follows_the_disturbed_reference_and_never_shrinks(case) -> None:
    trace = case[2]
    assert len(trace.rounding_errors) == len(trace.loss_tolerances) == len(trace.order)
    assert list(trace.loss_tolerances) == sorted(trace.loss_tolerances)
    assert trace.loss_tolerances[-1] == max(
        trace.least_of_losses, MARGIN["losses"] * max(trace.rounding_errors)
    )
    # float32 has 24 binary digits, so each step alone is disturbed by about 1e-7.
    assert 1e-9 < trace.rounding_errors[0] < 1e-5


def test_a_program_that_errs_at_one_step_shows_it_there(case) -> None:
    workload, data, trace = case
    losses = trace.trained.losses.copy()
    losses[2] *= 1.25
    given = (losses[:CALL], losses[CALL:])
    with mock.patch.object(InFloat32, "train_steps", side_effect=given):
        found = check_measured(make(InFloat32, workload, data), workload, data, trace)
    assert found.loss_errors == pytest.approx([0.25 if step == 2 else 0.0 for step in range(len(losses))])


def test_a_chaotic_loss_is_recorded_and_not_compared(case) -> None:
    workload, data, trace = case
    chaotic = msgspec.structs.replace(
        trace, rounding_errors=(*trace.rounding_errors[:-1], 2 * CHAOS / MARGIN["losses"])
    )
    losses = trace.trained.losses.copy()
    losses[-1] *= 3
    given = (losses[:CALL], losses[CALL:])
    with mock.patch.object(InFloat32, "train_steps", side_effect=given):
        found = check_measured(make(InFloat32, workload, data), workload, data, chaotic)
    assert found.loss_errors[-1] == pytest.approx(2)
    assert next(check for check in found.checks if check.kind == "losses").ok
