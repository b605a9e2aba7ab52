"""Initial weights: the distribution they claim, and that no parameter depends on another."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.workloads.catalog import WORKLOADS
from bench.workloads.parameters import initial_params
from bench.workloads.specs import Architecture, ConvBlock, DatasetInfo, Initialiser

GREY = DatasetInfo(name="mnist", image_shape=(28, 28, 1), classes=10)
CNN = WORKLOADS["mnist-cnn"].architecture
FANS = {  # fan_in + fan_out, a convolution's counting the area of its kernel, worked out by hand
    "conv1/kernel": 25 * 1 + 25 * 32,
    "conv2/kernel": 25 * 32 + 25 * 64,
    "dense1/kernel": 7 * 7 * 64 + 128,
    "logits/kernel": 128 + 10,
}


def test_shapes_and_order_are_those_of_the_architecture_and_biases_are_zero():
    params = initial_params(CNN, GREY, seed=0)
    shapes = CNN.parameter_shapes(GREY)
    assert list(params) == list(shapes)
    assert {name: value.shape for name, value in params.items()} == shapes
    assert {value.dtype for value in params.values()} == {np.dtype(np.float32)}
    assert all(not params[name].any() for name in params if name.endswith("/bias"))
    assert all(params[name].all() for name in FANS)


@pytest.mark.parametrize("name", FANS)
def test_kernels_are_glorot_uniform(name):
    value = initial_params(CNN, GREY, seed=3)[name].astype(np.float64)
    limit = np.sqrt(6 / FANS[name])
    n = value.size
    assert np.abs(value).max() <= limit * (1 + 1e-7)
    assert np.abs(value).max() > limit * (1 - 12 / n)  # missed by chance once in exp(12)
    # five standard errors of the mean, of the variance and of the share below a quarter
    assert abs(value.mean()) < 5 * limit / np.sqrt(3 * n)
    assert abs(value.var() / (limit**2 / 3) - 1) < 5 * np.sqrt(0.8 / n)
    assert abs((value < -limit / 2).mean() - 0.25) < 5 * np.sqrt(0.1875 / n)


@given(seed=st.integers(0, 2**63 - 1))
@settings(max_examples=20)
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(seed):
    architecture = Architecture(hidden=(5,))
    first, again, other = (initial_params(architecture, GREY, seed=s) for s in (seed, seed, seed + 1))
    for name in ("dense1/kernel", "logits/kernel"):
        assert first[name].tobytes() == again[name].tobytes()
        assert not np.isin(other[name], first[name]).all()


def test_no_parameter_depends_on_the_shapes_before_it():
    narrow = initial_params(Architecture(hidden=(4, 6)), GREY, seed=1)
    wide = initial_params(Architecture(hidden=(400, 6)), GREY, seed=1)
    assert wide["logits/kernel"].tobytes() == narrow["logits/kernel"].tobytes()


def test_streams_of_parameters_are_independent():
    """Two kernels of one shape, drawn from one stream or from the same seed, would be equal or shifted."""
    params = initial_params(Architecture(hidden=(64, 64, 64)), GREY, seed=2)
    second, third = (params[f"dense{number}/kernel"].ravel() for number in (2, 3))
    assert not np.isin(second[:100], third).any()
    correlation = np.corrcoef(second, third)[0, 1]
    assert abs(correlation) < 5 / np.sqrt(second.size)


@given(seed=st.integers(max_value=-1))
def test_a_negative_seed_is_refused(seed):
    with pytest.raises(ValueError, match="non-negative"):
        initial_params(Architecture(), GREY, seed=seed)


def test_a_kernel_of_even_few_weights_is_drawn():
    architecture = Architecture(convs=(ConvBlock(filters=1, kernel=1, pool=28),))
    params = initial_params(architecture, GREY, seed=0)
    assert params["logits/kernel"].shape == (1, 10)


def drawn(name: str, stddev: float) -> np.ndarray:
    initialiser = Initialiser(name=name, stddev=stddev)
    found = initial_params(Architecture(), GREY, seed=4, initialiser=initialiser)
    assert not found["logits/bias"].any()
    return found["logits/kernel"].astype(np.float64).ravel()


def test_other_initialisers_have_their_distributions():
    assert not drawn("zeros", 0.0).any()
    value = drawn("normal", 0.01)
    assert abs(value.mean()) < 5 * 0.01 / np.sqrt(value.size)
    assert abs(value.std() / 0.01 - 1) < 5 / np.sqrt(2 * value.size)
    assert np.abs(value).max() > 0.03  # fewer than three of 7,840 draws beyond three deviations: once in 1e8
    value = drawn("truncated_normal", 0.1)
    assert 0.19 < np.abs(value).max() < 0.2
    # The variance of a normal variable cut at two deviations is 1 - 4 phi(2) / (2 Phi(2) - 1) = 0.774 of it.
    assert abs(value.var() / 0.01 - 0.774) < 0.06
    assert abs(value.mean()) < 5 * 0.088 / np.sqrt(value.size)


def test_scales_and_variances_start_at_one_and_the_rest_at_zero():
    architecture = Architecture(convs=(ConvBlock(filters=3, normalise=True),))
    params = initial_params(architecture, GREY, seed=0)
    assert "conv1/bias" not in params
    starts = {name: set(value.tolist()) for name, value in params.items() if value.ndim == 1}
    assert starts == {
        "conv1/scale": {1.0}, "conv1/offset": {0.0}, "conv1/mean": {0.0}, "conv1/variance": {1.0},
        "logits/bias": {0.0},
    }  # fmt: skip
