"""The reference, proven against what shares no code with it: finite differences, loops, scalar formulas."""

import math
import time
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from backends.base import TrainingData
from backends.numpy_backend import (
    NumpyBackend,
    best_seconds,
    convolve,
    convolve_backward_kernel,
    forward,
    learning_rate,
    make_optimizer,
    max_pool,
    max_pool_backward,
    softmax_cross_entropy,
)
from bench.errors import UnavailableError
from bench.measuring.parity import parity_data
from bench.parity import checks
from bench.workloads.augmentation import draw
from bench.workloads.catalog import WORKLOADS
from bench.workloads.parameters import initial_params
from bench.workloads.specs import Architecture, ConvBlock, DatasetInfo, OptimizerSpec, Workload, is_statistic

INFO = DatasetInfo(name="noise", image_shape=(11, 8, 2), classes=5)
ARCHITECTURES = {
    "softmax": Architecture(),
    "mlp": Architecture(hidden=(7, 6)),
    "cnn, kernel 3, pool 2": Architecture(convs=(ConvBlock(filters=3, kernel=3, pool=2),), hidden=(6,)),
    "cnn, kernel 5, pool 3, rows left over": Architecture(convs=(ConvBlock(filters=3, kernel=5, pool=3),)),
    "two convolutions": Architecture(
        convs=(ConvBlock(filters=3, kernel=5, pool=2), ConvBlock(filters=4, kernel=3, pool=2)), hidden=(6,)
    ),
    "batch normalisation": Architecture(
        convs=(
            ConvBlock(filters=3, kernel=3, pool=2, normalise=True),
            ConvBlock(filters=4, kernel=3, pool=2, normalise=True),
        ),
    ),
}
SPECS = {
    name: OptimizerSpec(
        name=name, learning_rate=0.05, momentum=0.8, rho=0.7, epsilon=0.01, decay_rate=0.5, decay_steps=3
    )
    for name in ("sgd", "momentum", "adam", "rmsprop")
}


def make_backend(architecture: Architecture, spec: OptimizerSpec = SPECS["sgd"], *, seed: int = 0):
    """Return a reference backend at random weights, biases too, on 40 images of noise."""
    rng = np.random.default_rng(seed)
    data = TrainingData(
        info=INFO,
        images=rng.integers(0, 256, (40, *INFO.image_shape), dtype=np.uint8),
        labels=rng.integers(0, INFO.classes, 40, dtype=np.uint8),
    )
    workload = Workload(
        name="noise", dataset="noise", architecture=architecture, optimizer=spec, batch_size=8
    )
    backend = NumpyBackend(workload, data, mode="float64", device="cpu", precision="fp32")
    shapes = architecture.parameter_shapes(INFO)
    backend.load_params(
        {name: rng.normal(0, 0.4, shape).astype(np.float32) for name, shape in shapes.items()}
    )
    return backend, data


# ---- gradients


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_every_gradient_is_the_slope_of_the_loss(architecture):
    backend, data = make_backend(architecture)
    images, labels = data.images[:6], data.labels[:6]
    _, gradients = backend.loss_and_gradients(images / 255, labels)
    assert list(gradients) == [name for name in backend.params if not is_statistic(name)]
    rng = np.random.default_rng(1)
    h = 1e-6  # a central difference errs by about h^2 + 1e-16/h, 1e-10 here; slopes are 0.01 to 1
    for name in gradients:
        value = backend.params[name]
        for place in rng.permutation(value.size)[:25]:
            index = np.unravel_index(place, value.shape)
            kept, losses = value[index], []
            for offset in (h, -h):
                value[index] = kept + offset
                losses.append(backend.loss_and_gradients(images / 255, labels)[0])
            value[index] = kept
            slope = (losses[0] - losses[1]) / (2 * h)
            assert gradients[name][index] == pytest.approx(slope, rel=1e-6, abs=1e-9), (name, index)


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10)
def test_the_order_inside_a_batch_changes_nothing(architecture, seed):
    backend, data = make_backend(architecture)
    shuffled = np.random.default_rng(seed).permutation(10)
    loss, gradients = backend.loss_and_gradients(data.images[:10] / 255, data.labels[:10])
    other, others = backend.loss_and_gradients(data.images[shuffled] / 255, data.labels[shuffled])
    assert other == pytest.approx(loss, rel=1e-13)  # sums in another order, in float64
    for name, gradient in gradients.items():
        np.testing.assert_allclose(others[name], gradient, rtol=0, atol=1e-13)


# ---- layers


def naive_convolution(x, kernel):
    """SAME, stride 1, as six loops and no cleverness."""
    n, height, width, _ = x.shape
    size, _, _, filters = kernel.shape
    out = np.zeros((n, height, width, filters))
    for i, r, c, f in np.ndindex(out.shape):
        for dr, dc in np.ndindex(size, size):
            row, column = r + dr - size // 2, c + dc - size // 2
            if 0 <= row < height and 0 <= column < width:
                out[i, r, c, f] += x[i, row, column] @ kernel[dr, dc, :, f]
    return out


@pytest.mark.parametrize("size", [1, 3, 5])
def test_convolution_is_that_of_a_naive_loop(size):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 6, 7, 3)), rng.normal(size=(size, size, 3, 2))
    np.testing.assert_allclose(convolve(x, kernel), naive_convolution(x, kernel), rtol=0, atol=1e-13)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_the_kernel_gradient_is_the_adjoint_of_the_convolution(size):
    """<d, conv(x, k)> is linear in k, so its gradient g must satisfy <g, k> = <d, conv(x, k)> for every k."""
    rng = np.random.default_rng(2)
    x, d = rng.normal(size=(2, 6, 7, 3)), rng.normal(size=(2, 6, 7, 2))
    gradient = convolve_backward_kernel(x, d, size)
    for _ in range(5):
        kernel = rng.normal(size=(size, size, 3, 2))
        assert np.vdot(gradient, kernel) == pytest.approx(np.vdot(d, convolve(x, kernel)), rel=1e-12)


@pytest.mark.parametrize(("height", "width", "size"), [(6, 4, 2), (7, 8, 3), (5, 5, 2), (4, 4, 1)])
def test_max_pooling_is_that_of_a_naive_loop(height, width, size):
    x = np.random.default_rng(3).normal(size=(2, height, width, 3))
    found = max_pool(x, size)
    assert found.shape == (2, height // size, width // size, 3)
    d_out = np.random.default_rng(4).normal(size=found.shape)
    expected = np.zeros_like(x)
    for i, r, c, f in np.ndindex(found.shape):
        window = x[i, r * size : (r + 1) * size, c * size : (c + 1) * size, f]
        assert found[i, r, c, f] == window.max()
        dr, dc = np.unravel_index(window.argmax(), window.shape)
        expected[i, r * size + dr, c * size + dc, f] = d_out[i, r, c, f]
    np.testing.assert_array_equal(max_pool_backward(x, d_out, size), expected)


def test_of_equal_values_the_first_gets_the_gradient():
    d_x = max_pool_backward(np.ones((1, 2, 2, 1)), np.full((1, 1, 1, 1), 3.0), 2)
    np.testing.assert_array_equal(d_x[0, :, :, 0], [[3.0, 0.0], [0.0, 0.0]])


LOGITS = st.lists(
    st.lists(st.floats(-30, 30), min_size=4, max_size=4), min_size=1, max_size=6
).map(np.array)  # fmt: skip


@given(LOGITS, st.integers(0, 2**16))
def test_cross_entropy_is_that_of_log_sum_exp(logits, seed):
    labels = np.random.default_rng(seed).integers(0, 4, len(logits), dtype=np.uint8)
    loss, d_logits = softmax_cross_entropy(logits, labels)
    rows = np.arange(len(labels))
    assert loss == pytest.approx(
        np.mean(logsumexp(logits, axis=1) - logits[rows, labels]), rel=1e-12, abs=1e-12
    )
    np.testing.assert_allclose(d_logits.sum(axis=1), 0, atol=1e-15)
    probabilities = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
    np.testing.assert_allclose(d_logits * len(labels), probabilities - np.eye(4)[labels], rtol=0, atol=1e-13)


@given(LOGITS, st.floats(-1e4, 1e4))
def test_a_constant_added_to_the_logits_leaves_the_loss(logits, constant):
    labels = np.arange(len(logits), dtype=np.uint8) % 4
    loss, d_logits = softmax_cross_entropy(logits, labels)
    other, d_other = softmax_cross_entropy(logits + constant, labels)
    # the sum has lost up to 1e4 * 1e-16 * a few of the logits' digits
    assert other == pytest.approx(loss, rel=0, abs=1e-11)
    np.testing.assert_allclose(d_other, d_logits, rtol=0, atol=1e-11)


def test_huge_logits_overflow_nowhere():
    loss, d_logits = softmax_cross_entropy(np.array([[1e4, 0.0], [-1e4, 0.0]]), np.array([1, 1], np.uint8))
    assert loss == 5e3
    assert np.isfinite(d_logits).all()


# ---- optimizers


def scalar_recurrence(spec, start, gradients):
    """Return the parameter after each step, by the textbook formulas in plain Python floats."""
    p, v, m, path = start, 0.0, 0.0, []
    for t, g in enumerate(gradients):
        rate = spec.learning_rate * math.exp(math.log(spec.decay_rate) * t / spec.decay_steps)
        match spec.name:
            case "sgd":
                p -= rate * g
            case "momentum":
                v = spec.momentum * v + g
                p -= rate * v
            case "adam":
                m = spec.beta1 * m + (1 - spec.beta1) * g
                v = spec.beta2 * v + (1 - spec.beta2) * g * g
                m_hat, v_hat = m / (1 - spec.beta1 ** (t + 1)), v / (1 - spec.beta2 ** (t + 1))
                p -= rate * m_hat / (math.sqrt(v_hat) + spec.epsilon)
            case "rmsprop":
                v = spec.rho * v + (1 - spec.rho) * g * g
                p -= rate * g / math.sqrt(v + spec.epsilon)
        path.append(p)
    return path


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_an_optimizer_follows_its_recurrence(name, decay):
    spec = msgspec.structs.replace(SPECS[name], decay_rate=decay)
    gradients = np.random.default_rng(5).normal(size=12).tolist()
    optimizer, params, path = make_optimizer(spec), {"p": np.array(0.3), "q": np.zeros(3)}, []
    for step, gradient in enumerate(gradients):
        optimizer.update(
            params, {"p": np.array(gradient), "q": np.full(3, -gradient)}, learning_rate(spec, step)
        )
        path.append(float(params["p"]))
    expected = scalar_recurrence(spec, 0.3, gradients)
    assert path == pytest.approx(expected, rel=1e-13)
    # a second parameter has a state of its own
    mirrored = scalar_recurrence(spec, 0.0, [-g for g in gradients])
    np.testing.assert_allclose(params["q"], mirrored[-1], rtol=1e-13)


def test_the_learning_rate_decays_continuously():
    spec = OptimizerSpec(name="sgd", learning_rate=0.8, decay_rate=0.25, decay_steps=4)
    assert [learning_rate(spec, step) for step in (0, 2, 4, 8)] == pytest.approx([0.8, 0.4, 0.2, 0.05])


@pytest.mark.parametrize("name", SPECS)
def test_training_applies_the_optimizer_to_the_gradients(name):
    """Two networks' worth of steps, by train_steps and by hand: the loss comes first, then the update."""
    backend, data = make_backend(ARCHITECTURES["mlp"], SPECS[name])
    other, _ = make_backend(ARCHITECTURES["mlp"], SPECS[name])
    order = np.random.default_rng(6).integers(0, 40, (5, 8), dtype=np.int32)
    losses = backend.train_steps_float64(order)
    optimizer = make_optimizer(SPECS[name])
    for step, batch in enumerate(order):
        loss, gradients = other.loss_and_gradients(data.images[batch] / 255, data.labels[batch])
        assert losses[step] == loss
        optimizer.update(other.params, gradients, learning_rate(SPECS[name], step))
    for parameter, value in other.params.items():
        np.testing.assert_array_equal(backend.params[parameter], value)


@pytest.mark.parametrize(("device", "precision"), [("gpu", "fp32"), ("cpu", "bf16"), ("cpu", "tf32")])
def test_it_claims_no_device_or_precision_that_it_has_not(device, precision):
    backend, data = make_backend(ARCHITECTURES["softmax"])
    with pytest.raises(UnavailableError, match=f"{device} in {precision}"):
        NumpyBackend(backend._workload, data, mode="float64", device=device, precision=precision)


def test_split_steps_are_the_same_steps_to_the_last_bit():
    order = np.random.default_rng(8).integers(0, 40, (5, 8), dtype=np.int32)
    backend, _ = make_backend(ARCHITECTURES["mlp"], SPECS["adam"])
    other, _ = make_backend(ARCHITECTURES["mlp"], SPECS["adam"])
    backend.train_steps(order)
    split = other.split_steps(order)
    for name, value in backend.save_state().items():
        np.testing.assert_array_equal(other.save_state()[name], value)
    assert (split.steps, split.transfer_s, split.device_s) == (5, 0.0, 0.0)
    assert split.dispatch_s > split.data_s > 0.0


def test_the_best_time_is_that_of_the_work():
    assert 0.01 <= best_seconds(lambda: time.sleep(0.01)) < 0.1


def test_batch_normalisation_gives_each_filter_the_mean_and_spread_of_its_offset_and_scale():
    architecture = Architecture(convs=(ConvBlock(filters=4, kernel=3, pool=1, normalise=True),))
    info = DatasetInfo(name="noise", image_shape=(6, 5, 3), classes=4)
    params = {
        name: value.astype(np.float64) for name, value in initial_params(architecture, info, seed=1).items()
    }
    # An offset of ten deviations keeps ReLU from cutting anything off.
    params |= {"conv1/scale": np.full(4, 2.0), "conv1/offset": np.full(4, 20.0)}
    params["logits/kernel"] = np.eye(120)[:, :4]
    pixels = np.random.default_rng(0).random((50, 6, 5, 3)) * 20
    statistics: dict[str, Any] = {}
    logits, _ = forward(architecture, params, pixels, statistics=statistics)
    assert set(statistics) == {"conv1/mean", "conv1/variance"}
    plain = convolve(pixels, params["conv1/kernel"])
    np.testing.assert_allclose(statistics["conv1/mean"], plain.mean((0, 1, 2)))
    np.testing.assert_allclose(statistics["conv1/variance"], plain.var((0, 1, 2)))
    corner = (plain - plain.mean((0, 1, 2)))[:, 0, 0] / np.sqrt(plain.var((0, 1, 2)) + 1e-3)
    np.testing.assert_allclose(logits, 2 * corner + 20)
    by_running, _ = forward(architecture, params | statistics, pixels)
    np.testing.assert_allclose(by_running, logits)


def test_running_statistics_move_by_a_hundredth_towards_the_batchs():
    workload = WORKLOADS["notebook-cifar-cnn"]
    data = parity_data(workload)
    backend = NumpyBackend(
        checks.parity_workload(workload), data, mode="float64", device="cpu", precision="fp32"
    )
    backend.load_params(checks.start_params(workload, data))
    before, order = dict(backend.params), np.arange(8, dtype=np.int32)[None]
    drawn = draw(workload.augmentation, data.info, batch_size=8, seed=0, start=0, steps=1)
    statistics = backend.batch_statistics(backend.pixels(order[0], drawn[0]))
    backend.train_steps(order, drawn)
    for name, value in statistics.items():
        np.testing.assert_allclose(backend.params[name], 0.99 * before[name] + 0.01 * value)


def test_tensorflow_1s_optimizers_take_their_first_step_by_hand():
    g, r = 0.5, 0.01
    for spec, expected in (
        # m = 0.1 g, v = 0.001 g^2, rate r sqrt(0.001) / 0.1
        (
            OptimizerSpec(name="adam", learning_rate=r, epsilon=1e-2, epsilon_hat=True),
            r * np.sqrt(0.001) / 0.1 * 0.1 * g / (np.sqrt(0.001) * g + 1e-2),
        ),
        # v = 0.9 * 1 + 0.1 g^2
        (
            OptimizerSpec(name="rmsprop", learning_rate=r, epsilon=1e-10, initial_square=1.0),
            r * g / np.sqrt(0.9 + 0.1 * g**2),
        ),
    ):
        params = {"p": np.array([1.0])}
        make_optimizer(spec).update(params, {"p": np.array([g])}, r)
        np.testing.assert_allclose(1.0 - params["p"], expected, rtol=1e-9)
