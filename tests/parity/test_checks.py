"""Parity sees every fault that `broken` has to offer, and lets the intact backend pass."""

from functools import cache

import broken
import msgspec
import numpy as np
import pytest
from conftest import draws
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from backends.numpy_backend import NumpyBackend
from bench.datasets import cache as datasets
from bench.errors import NotComparableError
from bench.measuring.parity import parity_data
from bench.parity import checks as parity
from bench.parity import reference, tolerances
from bench.parity.checks import relative_error
from bench.workloads.catalog import WORKLOADS
from bench.workloads.specs import Architecture, ConvBlock, OptimizerSpec

SMALL_CNN = msgspec.structs.replace(
    WORKLOADS["mnist-cnn"],
    name="small cnn",
    architecture=Architecture(
        convs=(ConvBlock(filters=4, kernel=5), ConvBlock(filters=6, kernel=3, pool=3)), hidden=(16,)
    ),
)
CASES = {spec.name: spec for spec in reference.OPTIMIZER_CASES[:4]}
TF1_CASES = {f"{spec.name} of TensorFlow 1": spec for spec in reference.OPTIMIZER_CASES[4:]}
SMALL_NORMALISED = msgspec.structs.replace(
    SMALL_CNN,
    name="small normalised cnn",
    architecture=Architecture(
        convs=(ConvBlock(filters=4, kernel=5, normalise=True), ConvBlock(filters=6, kernel=3, pool=3)),
        hidden=(16,),
    ),
)
SMALL_AUGMENTED = msgspec.structs.replace(
    WORKLOADS["notebook-cifar-cnn"], name="small augmented cnn", architecture=SMALL_NORMALISED.architecture
)
KINDS = ("logits", "loss", "gradient", "step", "steps", "losses")


@cache
def sample(dataset="mnist"):
    return parity_data(WORKLOADS[f"{dataset}-softmax"])


@cache
def network(name: str):
    """Return a workload by name, by the name of an optimizer, or the small CNN, and its trace."""
    optimizers = CASES | TF1_CASES
    small = {"small-cnn": SMALL_CNN, "normalised": SMALL_NORMALISED, "augmented": SMALL_AUGMENTED}
    if name in optimizers:
        workload = msgspec.structs.replace(WORKLOADS["mnist-softmax"], optimizer=optimizers[name])
    else:
        workload = reference.gentle(small[name] if name in small else WORKLOADS[name])
    return workload, reference.reference_trace(workload, sample(workload.dataset))


def check(backend: type[NumpyBackend], name: str, precision="fp32"):
    workload, trace = network(name)

    def make(workload, data):
        return backend(workload, data, mode="float64", device="cpu", precision="fp32")

    return parity.check_parity(make, workload, sample(workload.dataset), trace, precision)


@pytest.mark.parametrize(
    "name", ["mnist-softmax", "mnist-mlp", "small-cnn", "normalised", "augmented", *CASES, *TF1_CASES]
)
def test_the_intact_backend_passes(name):
    checks = check(NumpyBackend, name)
    assert tuple(found.kind for found in checks) == (("pixels",) if name == "augmented" else ()) + KINDS
    for found in checks:
        assert found.ok
        assert found.tolerance == parity.tolerances(network(name)[0], "fp32")[found.kind]
        # It is the reference itself: what is left is the rounding to float32 on the way out. It weighs most
        # in gradients and changes, which are small differences of parameters.
        assert found.error < 0.05 * found.tolerance or found.kind in ("loss", "gradient", "step", "steps")


TWINS = {  # twin: the networks it is tried on, and the first check that must see it
    broken.FlattensChannelsFirst: (["small-cnn"], "logits"),
    broken.ForgetsBiases: (["mnist-softmax", "mnist-mlp", "small-cnn"], "logits"),
    broken.FlipsKernels: (["small-cnn"], "logits"),
    broken.AveragePools: (["small-cnn"], "logits"),
    broken.MissesRelu: (["mnist-mlp", "small-cnn"], "logits"),
    broken.DividesBy256: (["mnist-softmax", "small-cnn"], "logits"),
    broken.RoundsToTf32: (["mnist-softmax", "mnist-mlp", "small-cnn"], "logits"),
    broken.PredictsProbabilities: (["mnist-softmax"], "logits"),
    broken.SumsLoss: (["mnist-softmax", "small-cnn"], "loss"),
    broken.SumsGradients: (["mnist-softmax", "small-cnn"], "gradient"),
    broken.ShiftsLabels: (["mnist-softmax", "small-cnn"], "loss"),
    broken.SmoothsLabels: (["mnist-softmax"], "loss"),
    broken.DropsLastRow: (["mnist-softmax", "small-cnn"], "loss"),
    broken.LossAfterUpdate: (["mnist-softmax", "small-cnn"], "loss"),
    broken.DropsBiasGradient: (["mnist-softmax", "small-cnn"], "gradient"),
    broken.FreezesFirstLayer: (["mnist-softmax", "mnist-mlp", "small-cnn"], "gradient"),
    broken.DecaysWeights: (["mnist-softmax", "small-cnn"], "gradient"),
    broken.RMSPropEpsilonOutside: (["rmsprop"], "step"),
    broken.RMSPropFromOnes: (["rmsprop"], "step"),
    broken.AdamEpsilonHat: (["adam"], "step"),
    broken.AdamUncorrected: (["adam"], "step"),
    broken.AdamCorrected: (["adam of TensorFlow 1"], "step"),
    broken.RMSPropFromZeros: (["rmsprop of TensorFlow 1"], "step"),
    broken.PredictsByTheBatch: (["normalised"], "logits"),
    broken.UnbiasedVariance: (["normalised"], "step"),
    broken.ForgetsStatistics: (["normalised"], "step"),
    broken.DoesNotFlip: (["augmented"], "pixels"),
    broken.SaturatesBeforeItBrightens: (["augmented"], "pixels"),
    broken.MomentumNesterov: (["momentum"], "step"),
    broken.MomentumDampened: (["momentum"], "step"),
    broken.MomentumRateInside: (["momentum"], "steps"),
    broken.SGDEverSlower: (["sgd", "small-cnn"], "steps"),
    broken.DecaysTooEarly: (list(CASES), "step"),
    broken.DecaysInStairs: (list(CASES), "steps"),
    broken.KeepsRate: (list(CASES), "steps"),
    broken.SkipsTheTenthStep: (["mnist-softmax", "small-cnn", *CASES], "steps"),
    broken.SmoothsLosses: (["mnist-softmax", "small-cnn"], "losses"),
}


@pytest.mark.parametrize(
    ("twin", "name", "expected"),
    [(twin, name, expected) for twin, (names, expected) in TWINS.items() for name in names],
    ids=lambda value: value.__name__ if isinstance(value, type) else str(value),
)
def test_a_broken_twin_is_seen(twin, name, expected):
    failed = [found.kind for found in check(twin, name) if not found.ok]
    assert failed[:1] == [expected], "the first check that could see this fault must"


@pytest.mark.parametrize("name", CASES)
def test_a_coarse_precision_still_sees_a_rate_that_does_not_decay(name):
    failed = [found.kind for found in check(broken.KeepsRate, name, "tf32") if not found.ok]
    assert failed[:1] == ["steps"], "a network without kinks is held to it in TF32 too"


def test_every_check_is_the_first_to_see_some_twin():
    assert {expected for _, expected in TWINS.values()} == {"pixels", *KINDS}


@pytest.mark.parametrize(
    ("twin", "kind"),
    [
        (broken.GoesNan, "gradient at logits/bias"),
        (broken.PredictsNan, "logits at logits"),
        (broken.PredictsTransposed, "logits at logits"),
    ],
)
def test_what_is_no_number_or_of_another_shape_cannot_be_compared(twin, kind):
    with pytest.raises(NotComparableError, match=kind):
        check(twin, "mnist-softmax")


def test_a_coarser_precision_has_no_tighter_tolerance():
    assert tuple(tolerances.TOLERANCES["fp32"]) == KINDS
    for coarse in ("tf32", "bf16"):
        assert set(KINDS) - set(tolerances.TOLERANCES[coarse]) == {"steps"}, (
            "judged by its losses, see parity.py"
        )
    for kind in tolerances.TOLERANCES["bf16"]:
        fp32, tf32, bf16 = (tolerances.TOLERANCES[precision][kind] for precision in ("fp32", "tf32", "bf16"))
        assert 0 < fp32 < tf32 <= bf16 < 1, "at 1 an answer of zeros would pass"


@pytest.mark.parametrize(("precision", "seen"), [("fp32", True), ("tf32", False)])
def test_a_twin_that_rounds_to_tf32_passes_for_tf32_and_for_nothing_better(precision, seen):
    assert any(not found.ok for found in check(broken.RoundsToTf32, "mnist-softmax", precision)) == seen


# ---- relative error

VALUES = arrays.arrays(np.float64, (5,), elements=st.floats(-1e6, 1e6, allow_subnormal=False))
NONZERO = VALUES.filter(lambda value: np.abs(value).max() > 1e-6)


@given(VALUES)
def test_an_array_is_not_off_from_itself(value):
    assert relative_error(value, value) == 0.0


@given(NONZERO, VALUES, st.integers(-20, 20))
def test_scale_does_not_matter(expected, found, power):
    assert relative_error(found * 2.0**power, expected * 2.0**power) == relative_error(found, expected)


@given(NONZERO, st.integers(0, 4), st.floats(1e-6, 10))
def test_one_element_off_by_a_share_of_the_largest_is_off_by_that_share(expected, place, share):
    found = expected.copy()
    found[place] += share * np.abs(expected).max()
    assert relative_error(found, expected) == pytest.approx(share, rel=1e-6)


@given(NONZERO, VALUES, VALUES)
def test_errors_add_up_at_most(expected, one, other):
    there = relative_error(one, expected) + relative_error(expected + other - one, expected)
    assert relative_error(other, expected) <= there * (1 + 1e-9) + 1e-9


@given(NONZERO, st.integers(0, 4), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_what_is_not_finite_is_no_number_off(expected, place, wild):
    found = expected.copy()
    found[place] = wild
    assert np.isnan(relative_error(found, expected))
    assert not np.isfinite(relative_error(expected, found)), "nor is anything measured by it"


def test_zeros_are_a_measure_for_nothing_but_zeros():
    assert relative_error([0.0, 0.0], [0.0, 0.0]) == 0.0
    assert relative_error([0.0, 1e-30], [0.0, 0.0]) == np.inf
    assert relative_error([0.0, 0.0], [0.0, 2.0]) == 1.0


@pytest.mark.parametrize("found", [np.zeros((2, 3)), np.zeros(7), np.zeros((6, 1)), 0.0])
def test_another_shape_is_no_number_off(found):
    assert np.isnan(relative_error(found, np.zeros(6)))


# ---- trace files


def test_a_trace_comes_back_from_its_file_as_it_was(tmp_path):
    workload, trace = network("small-cnn")
    reference.save_trace(tmp_path / "trace.npz", sample(), trace)
    data, again = reference.load_trace(tmp_path / "trace.npz")
    assert data.info == sample().info
    for name in ("images", "labels"):
        found, expected = getattr(data, name), getattr(sample(), name)
        assert (found.dtype, found.shape, found.tobytes()) == (
            expected.dtype,
            expected.shape,
            expected.tobytes(),
        )
    for name in ("logits", "losses"):
        assert getattr(again, name).dtype == np.float64
        np.testing.assert_array_equal(getattr(again, name), getattr(trace, name))
    for name in ("gradients", "after_one", "after_all"):
        found, expected = getattr(again, name), getattr(trace, name)
        assert list(found) == list(expected) == list(workload.architecture.parameter_shapes(data.info))
        for parameter, value in expected.items():
            np.testing.assert_array_equal(found[parameter], value)


def test_a_trace_file_holds_no_pickle(tmp_path):
    np.savez(tmp_path / "trace.npz", info=np.array([object()]), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        reference.load_trace(tmp_path / "trace.npz")


# ---- the start


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_start_is_the_same_each_time_and_no_bias_is_zero(name):
    data = datasets.load_sample("cifar10" if name.startswith("cifar") else "mnist")
    start, again = (parity.start_params(WORKLOADS[name], data) for _ in range(2))
    for parameter, value in start.items():
        assert value.dtype == np.float32
        assert value.tobytes() == again[parameter].tobytes()
        if parameter.endswith("/bias"):
            assert (np.abs(value) == reference.BIAS).all()
            assert np.unique(value).size == 2 or value.size < 10


def disturbed_trace(workload, data, draw):
    """Return the parameters the reference ends with if its kernels are disturbed before every step."""
    order = reference.parity_order(data)
    backend = NumpyBackend(
        parity.parity_workload(workload), data, mode="float64", device="cpu", precision="fp32"
    )
    backend.load_params(parity.start_params(workload, data))
    rng = np.random.default_rng(draw)
    for row in range(len(order)):
        for name, value in backend.params.items():
            if name.endswith("/kernel"):
                backend.params[name] = value * (1 + 5e-7 * rng.choice((-1.0, 1.0), value.shape))
        backend.train_steps_float64(order[row : row + 1])
    return backend.params


@pytest.mark.parametrize("name", ["mnist-mlp", "cifar10-mlp", "mnist-cnn", "cifar10-cnn"])
def test_rounding_does_not_grow_into_a_verdict(name):
    """Slow: the float64 reference, disturbed as float32 disturbs, must stay well inside the tolerance.

    Else a framework that rounds otherwise, and does nothing wrong, would be called not comparable.
    """
    workload = reference.gentle(WORKLOADS[name])
    data = parity_data(workload)
    start, trace = parity.start_params(workload, data), reference.reference_trace(workload, data)
    for draw in range(draws(2, 1)):
        ended = disturbed_trace(workload, data, draw)
        errors = {
            parameter: relative_error(value - start[parameter], trace.after_all[parameter] - start[parameter])
            for parameter, value in ended.items()
        }
        worst = max(errors, key=errors.__getitem__)
        assert errors[worst] <= tolerances.TOLERANCES["fp32"]["steps"] / 2, f"{worst} in draw {draw}"


OPTIMIZER = OptimizerSpec(name="adam", learning_rate=0.5)


def test_parity_trains_the_workload_itself_but_for_its_batch_and_rate():
    workload = msgspec.structs.replace(WORKLOADS["mnist-cnn"], optimizer=OPTIMIZER)
    small, gentle = parity.parity_workload(workload), reference.gentle(workload)
    assert small == msgspec.structs.replace(workload, batch_size=reference.BATCH)
    slower = msgspec.structs.replace(
        OPTIMIZER, learning_rate=gentle.optimizer.learning_rate, epsilon=reference.ADAM_EPSILON
    )
    assert gentle == msgspec.structs.replace(workload, optimizer=slower)
    assert 0 < slower.learning_rate < OPTIMIZER.learning_rate


@pytest.mark.parametrize("precision", tolerances.TOLERANCES)
def test_augmented_workloads_are_allowed_more_where_pixels_count(precision):
    plain = parity.tolerances(SMALL_NORMALISED, precision)
    assert plain == tolerances.TOLERANCES[precision]
    augmented = parity.tolerances(SMALL_AUGMENTED, precision)
    assert augmented.pop("pixels") == 1e-5
    assert augmented.keys() == plain.keys()
    larger = {kind for kind, limit in augmented.items() if limit > plain[kind]}
    assert larger == ({"steps", "losses"} if precision == "fp32" else set())


def test_softmax_regression_has_no_kinks_and_keeps_its_rate():
    assert reference.gentle(WORKLOADS["mnist-softmax"]) == WORKLOADS["mnist-softmax"]
