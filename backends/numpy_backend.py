"""The reference: forward pass, backward pass and four optimizers in float64 NumPy, written to be read.

This file defines what every other backend must compute. It is also a backend itself: it trains, slowly, where
no framework is installed.
"""

import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from backends.base import State, TrainingData
from bench.errors import UnavailableError
from bench.workloads.augmentation import Draws, augment
from bench.workloads.instruments import Peak, StepSplit
from bench.workloads.parameters import Params
from bench.workloads.specs import (
    NORM_DECAY,
    NORM_EPSILON,
    Architecture,
    Device,
    OptimizerSpec,
    Precision,
    Workload,
    is_statistic,
)

Array = npt.NDArray[np.float64]
Arrays = dict[str, Array]
Multiply = Callable[[Array, Array], Array]

MATRIX_SIDE = 1536
COPIED_BYTES = 2**28
TRIES = 5


class NumpyBackend:
    """Trains in float64 on the CPU; parameters and losses leave it as float32, as the contract requires."""

    call_steps = 1

    def __init__(
        self, workload: Workload, data: TrainingData, *, mode: str, device: Device, precision: Precision
    ) -> None:
        if device != "cpu" or precision != "fp32":
            raise UnavailableError(f"the numpy backend runs on cpu in fp32, not on {device} in {precision}")
        if not workload.matched:
            raise UnavailableError(
                f"{workload.name} trains by each framework's own defaults, and the numpy backend has none"
            )
        self._mode = mode
        self._workload = workload
        self._data = data
        self.params: Arrays = {}
        self._optimizer = make_optimizer(workload.optimizer)
        self._step = 0

    def load_params(self, params: Params) -> None:
        self.params = {name: value.astype(np.float64) for name, value in params.items()}
        self._optimizer = make_optimizer(self._workload.optimizer)
        self._step = 0

    def train_steps(
        self, order: npt.NDArray[np.int32], draws: Draws | None = None
    ) -> npt.NDArray[np.float32]:
        return self.train_steps_float64(order, draws).astype(np.float32)

    def train_steps_float64(self, order: npt.NDArray[np.int32], draws: Draws | None = None) -> Array:
        """Train one step for each row of `order`; return each step's loss in float64."""
        losses = np.empty(len(order))
        for row, batch in enumerate(order):
            pixels = self.pixels(batch, None if draws is None else draws[row])
            losses[row] = self._train_on(pixels, self._data.labels[batch])
        return losses

    def pixels(self, batch: npt.NDArray[np.int32], draws: Draws | None = None) -> Array:
        """Return the pixels of a batch of indices, augmented if the workload augments its images."""
        images = self._data.images[batch]
        if self._workload.augmentation is None or draws is None:
            return images / 255.0
        return augment(images, draws, self._workload.augmentation.crop)

    def augmented(self, batch: npt.NDArray[np.int32], draws: Draws) -> npt.NDArray[np.float32]:
        return self.pixels(batch, draws).astype(np.float32)

    def _train_on(self, pixels: Array, labels: npt.NDArray[np.uint8]) -> float:
        loss, gradients = self.loss_and_gradients(pixels, labels)
        statistics = self.batch_statistics(pixels)
        rate = learning_rate(self._workload.optimizer, self._step)
        self._optimizer.update(self.params, gradients, rate)
        for name, value in statistics.items():
            self.params[name] = NORM_DECAY * self.params[name] + (1 - NORM_DECAY) * value
        self._step += 1
        return loss

    def split_steps(self, order: npt.NDArray[np.int32]) -> StepSplit:
        """Time the gathering of a batch, and the step, which is all dispatch as there is no device."""
        data_s = step_s = 0.0
        for batch in order:
            start = time.perf_counter()
            pixels, labels = self.pixels(batch), self._data.labels[batch]
            gathered = time.perf_counter()
            self._train_on(pixels, labels)
            data_s += gathered - start
            step_s += time.perf_counter() - gathered
        steps = len(order)
        return StepSplit(
            steps=steps, data_s=data_s / steps, transfer_s=0.0, dispatch_s=step_s / steps, device_s=0.0
        )

    def count_flops(self) -> None:
        """Return None: NumPy counts no operations."""

    def peak(self) -> Peak:
        """Measure in float32 like the other backends, though this one trains in float64."""
        a = np.random.default_rng(0).normal(size=(MATRIX_SIDE, MATRIX_SIDE)).astype(np.float32)
        product = np.empty_like(a)
        source = np.ones(COPIED_BYTES // 4, np.float32)
        copy = np.empty_like(source)
        return Peak(
            flops_per_s=2 * MATRIX_SIDE**3 / best_seconds(lambda: np.matmul(a, a, out=product)),
            bytes_per_s=2 * COPIED_BYTES / best_seconds(lambda: np.copyto(copy, source)),
        )

    def loss_and_gradients(self, pixels: Array, labels: npt.NDArray[np.uint8]) -> tuple[float, Arrays]:
        """Return the batch's loss and its gradient by every trained parameter."""
        network = self._workload.architecture
        logits, trace = forward(network, self.params, pixels, statistics={}, products=self.products)
        loss, d_logits = softmax_cross_entropy(logits, labels)
        if self._workload.loss == "sum":
            loss, d_logits = loss * len(labels), d_logits * len(labels)
        return loss, backward(network, self.params, trace, d_logits)

    def batch_statistics(self, pixels: Array) -> Arrays:
        """Return the batch's means and variances, by the names of the running ones that move towards them."""
        statistics: Arrays = {}
        if self._workload.architecture.normalises:
            forward(self._workload.architecture, self.params, pixels, statistics=statistics)
        return statistics

    def logits(self, images: npt.NDArray[np.uint8]) -> Array:
        """Return the logits (n, classes) of uint8 images in float64."""
        return forward(self._workload.architecture, self.params, images / 255.0, products=self.products)[0]

    def products(self, multiply: Multiply, x: Array, kernel: Array) -> Array:
        """Return the sums of products of a layer; a subclass may make errors in them as others do."""
        return multiply(x, kernel)

    def predict(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        parts = [self.logits(images[start : start + 500]) for start in range(0, len(images), 500)]
        return np.concatenate(parts).astype(np.float32)

    def export_params(self) -> Params:
        return {name: value.astype(np.float32) for name, value in self.params.items()}

    def save_state(self) -> State:
        slots = {f"slot/{slot}/{name}": value for slot, name, value in self._optimizer.slots()}
        params = {f"param/{name}": value for name, value in self.params.items()}
        return {key: np.array(value) for key, value in (params | slots).items()} | {
            "step": np.array(self._step)
        }

    def restore_state(self, state: State) -> None:
        shapes = self._workload.architecture.parameter_shapes(self._workload.seen(self._data.info))
        self.params = {name: state[f"param/{name}"].copy() for name in shapes}  # in network order
        self._optimizer = make_optimizer(self._workload.optimizer)
        for key, value in state.items():
            if key.startswith("slot/"):
                _, slot, name = key.split("/", 2)
                self._optimizer.set_slot(slot, name, value.copy())
        self._step = int(state["step"])

    def describe(self) -> dict[str, str | int | float | bool | None]:
        return {
            "device": "cpu",
            "device_name": "cpu",
            "dtype": "float64",
            "numpy": np.__version__,
            "peak_device_bytes": None,
        }


def best_seconds(work: Callable[[], object]) -> float:
    """Return the shortest time of several tries, in seconds, after one that is not timed."""
    work()
    times = []
    for _ in range(TRIES):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


# The network


def forward(
    architecture: Architecture,
    params: Arrays,
    x: Array,
    *,
    statistics: Arrays | None = None,
    products: Callable[[Multiply, Array, Array], Array] = lambda multiply, x, kernel: multiply(x, kernel),
) -> tuple[Array, list[Array]]:
    """Return the logits of pixels (n, h, w, c), and in order of computation what the backward pass needs.

    With a dictionary `statistics` it normalises by the batch, as training does, and stores the batch's means
    and variances there, by the names of the running ones. Without it, it normalises by the running ones.
    `products` computes the sums of each layer, before its bias, with the function that it gets.
    """
    trace: list[Array] = []
    for number, block in enumerate(architecture.convs, start=1):
        layer = f"conv{number}"
        trace.append(x)
        x = products(convolve, x, params[f"{layer}/kernel"])
        if block.normalise:
            if statistics is not None:
                statistics[f"{layer}/mean"] = x.mean((0, 1, 2))
                statistics[f"{layer}/variance"] = x.var((0, 1, 2))
            used = params if statistics is None else statistics
            root = np.sqrt(used[f"{layer}/variance"] + NORM_EPSILON)
            x = (x - used[f"{layer}/mean"]) / root
            trace += [x, root]
            x = x * params[f"{layer}/scale"] + params[f"{layer}/offset"]
        else:
            x = x + params[f"{layer}/bias"]
        x = np.maximum(x, 0.0)
        trace.append(x)
        x = max_pool(x, block.pool)
    trace.append(x)
    x = x.reshape(len(x), -1)
    for number in range(1, len(architecture.hidden) + 1):
        trace.append(x)
        sums = products(np.matmul, x, params[f"dense{number}/kernel"])
        x = np.maximum(sums + params[f"dense{number}/bias"], 0.0)
    trace.append(x)
    return products(np.matmul, x, params["logits/kernel"]) + params["logits/bias"], trace


def layer_outputs(architecture: Architecture, params: Arrays, x: Array) -> Arrays:
    """Return the output of every convolution after its ReLU and before pooling, by the name of its layer."""
    _, trace = forward(architecture, params, x)
    outputs: Arrays = {}
    place = -1
    for number, block in enumerate(architecture.convs, start=1):
        place += 4 if block.normalise else 2
        outputs[f"conv{number}"] = trace[place]
    return outputs


def backward(architecture: Architecture, params: Arrays, trace: list[Array], d_logits: Array) -> Arrays:
    """Return the gradient of the loss by every trained parameter; `trace` is what `forward` returned."""
    trace = list(trace)
    gradients: Arrays = {}
    x = trace.pop()
    gradients["logits/bias"] = d_logits.sum(axis=0)
    gradients["logits/kernel"] = x.T @ d_logits
    d_x = d_logits @ params["logits/kernel"].T
    for number in range(len(architecture.hidden), 0, -1):
        d_x = d_x * (x > 0)  # x is the layer's output: ReLU passes a gradient only where it is positive
        x = trace.pop()
        gradients[f"dense{number}/bias"] = d_x.sum(axis=0)
        gradients[f"dense{number}/kernel"] = x.T @ d_x
        d_x = d_x @ params[f"dense{number}/kernel"].T
    d_x = d_x.reshape(trace.pop().shape)
    for number in range(len(architecture.convs), 0, -1):
        block, layer = architecture.convs[number - 1], f"conv{number}"
        x = trace.pop()
        d_x = max_pool_backward(x, d_x, block.pool) * (x > 0)
        if block.normalise:
            root, normal = trace.pop(), trace.pop()
            gradients[f"{layer}/offset"] = d_x.sum(axis=(0, 1, 2))
            gradients[f"{layer}/scale"] = (d_x * normal).sum(axis=(0, 1, 2))
            d_x = d_x * params[f"{layer}/scale"]
            # The batch's mean and variance depend on every pixel too: Ioffe and Szegedy, 2015, section 3.
            d_x = (d_x - d_x.mean((0, 1, 2)) - normal * (d_x * normal).mean((0, 1, 2))) / root
        else:
            gradients[f"{layer}/bias"] = d_x.sum(axis=(0, 1, 2))
        x = trace.pop()
        kernel = params[f"{layer}/kernel"]
        gradients[f"{layer}/kernel"] = convolve_backward_kernel(x, d_x, block.kernel)
        if number > 1:  # nothing needs the gradient by the images
            d_x = convolve(d_x, kernel[::-1, ::-1].swapaxes(2, 3))
    return {name: gradients[name] for name in params if not is_statistic(name)}


def _patches(x: Array, size: int) -> Array:
    """Return every size-by-size patch of x under SAME padding: a view (n, h, w, channels, size, size)."""
    pad = size // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    return sliding_window_view(padded, (size, size), axis=(1, 2))


def convolve(x: Array, kernel: Array) -> Array:
    """Return the cross-correlation of x (n, h, w, in) with a kernel (k, k, in, out), SAME, stride 1."""
    return np.tensordot(_patches(x, len(kernel)), kernel, axes=([3, 4, 5], [2, 0, 1]))


def convolve_backward_kernel(x: Array, d_out: Array, size: int) -> Array:
    """Return the gradient by the kernel (k, k, in, out) of `convolve`."""
    return np.tensordot(_patches(x, size), d_out, axes=([0, 1, 2], [0, 1, 2])).transpose(1, 2, 0, 3)


def _pool_windows(x: Array, size: int) -> Array:
    """Return x as (n, h/size, w/size, channels, size*size); rows and columns left over are dropped."""
    n, height, width, channels = x.shape
    rows, columns = height // size, width // size
    windows = x[:, : rows * size, : columns * size].reshape(n, rows, size, columns, size, channels)
    return windows.transpose(0, 1, 3, 5, 2, 4).reshape(n, rows, columns, channels, size * size)


def max_pool(x: Array, size: int) -> Array:
    """Return the largest value of every size-by-size window, stride `size`."""
    largest: Array = _pool_windows(x, size).max(axis=-1)
    return largest


def max_pool_backward(x: Array, d_out: Array, size: int) -> Array:
    """Return the gradient by x: each window's goes to its largest value, to the first of equal ones."""
    n, height, width, channels = x.shape
    rows, columns = height // size, width // size
    first = _pool_windows(x, size).argmax(axis=-1)
    d_windows = np.where(np.arange(size * size) == first[..., None], d_out[..., None], 0.0)
    d_x = np.zeros_like(x)
    d_x[:, : rows * size, : columns * size] = (
        d_windows.reshape(n, rows, columns, channels, size, size)
        .transpose(0, 1, 4, 2, 5, 3)
        .reshape(n, rows * size, columns * size, channels)
    )
    return d_x


def softmax_cross_entropy(logits: Array, labels: npt.NDArray[np.uint8]) -> tuple[float, Array]:
    """Return the mean over the batch of -log softmax(logits)[label], and its gradient by the logits."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    rows = np.arange(len(labels))
    d_logits = np.exp(log_probabilities)
    d_logits[rows, labels] -= 1.0
    return -float(log_probabilities[rows, labels].mean()), d_logits / len(labels)


# The optimizers. p: parameter, g: its gradient, r: learning rate of this step. A state starts at zero unless
# its class says otherwise.


def learning_rate(spec: OptimizerSpec, step: int) -> float:
    """Return the learning rate of a step, counted from 0: continuous exponential decay."""
    return float(spec.learning_rate * spec.decay_rate ** (step / spec.decay_steps))


class Optimizer(Protocol):
    """Changes parameters in place; its state is one array for each slot and parameter."""

    def update(self, params: Arrays, gradients: Arrays, rate: float) -> None: ...
    def slots(self) -> list[tuple[str, str, npt.NDArray[Any]]]: ...
    def set_slot(self, slot: str, name: str, value: npt.NDArray[Any]) -> None: ...


class _Slots:
    def __init__(self) -> None:
        self._slots: dict[tuple[str, str], npt.NDArray[Any]] = {}

    def slots(self) -> list[tuple[str, str, npt.NDArray[Any]]]:
        return [(slot, name, value) for (slot, name), value in self._slots.items()]

    def set_slot(self, slot: str, name: str, value: npt.NDArray[Any]) -> None:
        self._slots[slot, name] = value

    def _slot(self, slot: str, name: str, start: float = 0.0) -> npt.NDArray[Any]:
        return self._slots.get((slot, name), np.array(start))


class SGD(_Slots):
    """p <- p - r g."""

    def update(self, params: Arrays, gradients: Arrays, rate: float) -> None:
        for name, gradient in gradients.items():
            params[name] = params[name] - rate * gradient


class Momentum(_Slots):
    """v <- m v + g; p <- p - r v. The rate is applied last, so v does not depend on a decaying rate."""

    def __init__(self, momentum: float) -> None:
        super().__init__()
        self._momentum = momentum

    def update(self, params: Arrays, gradients: Arrays, rate: float) -> None:
        for name, gradient in gradients.items():
            velocity = self._momentum * self._slot("velocity", name) + gradient
            params[name] = params[name] - rate * velocity
            self.set_slot("velocity", name, velocity)


class Adam(_Slots):
    """Kingma and Ba, 2015, algorithm 1: p <- p - r m_hat / (sqrt(v_hat) + epsilon).

    With `epsilon_hat`, as at the end of their section 2 and in TensorFlow 1:
    p <- p - r sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + epsilon).
    """

    def __init__(self, beta1: float, beta2: float, epsilon: float, *, epsilon_hat: bool = False) -> None:
        super().__init__()
        self._beta1, self._beta2, self._epsilon, self._epsilon_hat = beta1, beta2, epsilon, epsilon_hat

    def update(self, params: Arrays, gradients: Arrays, rate: float) -> None:
        for name, gradient in gradients.items():
            count = self._slot("count", name) + 1
            m = self._beta1 * self._slot("m", name) + (1 - self._beta1) * gradient
            v = self._beta2 * self._slot("v", name) + (1 - self._beta2) * gradient**2
            root_correction = np.sqrt(1 - self._beta2**count)
            epsilon = self._epsilon / root_correction if self._epsilon_hat else self._epsilon
            m_hat = m / (1 - self._beta1**count)
            params[name] = params[name] - rate * m_hat / (np.sqrt(v) / root_correction + epsilon)
            for slot, value in (("count", count), ("m", m), ("v", v)):
                self.set_slot(slot, name, value)


class RMSProp(_Slots):
    """Tieleman and Hinton, 2012: v <- d v + (1 - d) g^2; p <- p - r g / sqrt(v + epsilon).

    v starts at `initial_square`. It is 1 in TensorFlow 1, whose first steps are therefore smaller.
    """

    def __init__(self, rho: float, epsilon: float, initial_square: float = 0.0) -> None:
        super().__init__()
        self._rho, self._epsilon, self._initial_square = rho, epsilon, initial_square

    def update(self, params: Arrays, gradients: Arrays, rate: float) -> None:
        for name, gradient in gradients.items():
            v = self._rho * self._slot("v", name, self._initial_square) + (1 - self._rho) * gradient**2
            params[name] = params[name] - rate * gradient / np.sqrt(v + self._epsilon)
            self.set_slot("v", name, v)


def make_optimizer(spec: OptimizerSpec) -> Optimizer:
    """Return the named optimizer in its initial state."""
    match spec.name:
        case "sgd":
            return SGD()
        case "momentum":
            return Momentum(spec.momentum)
        case "adam":
            return Adam(spec.beta1, spec.beta2, spec.epsilon, epsilon_hat=spec.epsilon_hat)
        case "rmsprop":
            return RMSProp(spec.rho, spec.epsilon, spec.initial_square)
