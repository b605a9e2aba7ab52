"""Twins of the reference, each with one fault that a backend might really have; a test must see every one.

First those that compute something else, for parity; then those that break the contract, for conformance; last
those that do not live to tell, for `bench verify`.
"""

import os
import signal
import time
import warnings
from collections.abc import Callable
from typing import Any, ClassVar
from unittest import mock

import msgspec
import numpy as np

from backends import numpy_backend
from backends.base import TrainingData
from backends.numpy_backend import (
    SGD,
    NumpyBackend,
    Optimizer,
    backward,
    forward,
    learning_rate,
    softmax_cross_entropy,
)
from bench.workloads.augmentation import BRIGHTNESS, FLIP, SATURATION
from bench.workloads.specs import Architecture, OptimizerSpec

# ---- another network


class FlattensChannelsFirst(NumpyBackend):
    """Flattens (channel, height, width), and does not reorder the rows of the kernel behind it."""

    def load_params(self, params):
        super().load_params(self._reorder(params, inverse=True))

    def export_params(self):
        return self._reorder(super().export_params(), inverse=False)

    def _reorder(self, params, *, inverse: bool):
        height, width, channels = self._data.info.image_shape
        for block in self._workload.architecture.convs:
            height, width, channels = height // block.pool, width // block.pool, block.filters
        name = "dense1/kernel" if self._workload.architecture.hidden else "logits/kernel"
        rows = np.arange(height * width * channels)
        order = rows.reshape(height, width, channels).transpose(2, 0, 1).ravel()
        if inverse:
            order = np.argsort(order)
        return params | {name: params[name][order]}


class ForgetsBiases(NumpyBackend):
    """Starts from zero biases whatever it is given."""

    def load_params(self, params):
        super().load_params({n: v if n.endswith("kernel") else np.zeros_like(v) for n, v in params.items()})


class FlipsKernels(NumpyBackend):
    """Convolves as mathematicians do."""

    def load_params(self, params):
        super().load_params({n: v[::-1, ::-1] if v.ndim == 4 else v for n, v in params.items()})

    def export_params(self):
        return {n: v[::-1, ::-1] if v.ndim == 4 else v for n, v in super().export_params().items()}


class AveragePools(NumpyBackend):
    """Takes the mean of each window in its forward pass."""

    def _patched(self) -> Any:
        return mock.patch.object(
            numpy_backend, "max_pool", lambda x, size: numpy_backend._pool_windows(x, size).mean(axis=-1)
        )

    def logits(self, images):
        with self._patched():
            return super().logits(images)

    def loss_and_gradients(self, images, labels):
        with self._patched():
            return super().loss_and_gradients(images, labels)


class MissesRelu(NumpyBackend):
    """Has no ReLU after its last hidden layer: that layer is then a classifier in front of the classifier."""

    def _below(self) -> tuple[Architecture, dict[str, Any]]:
        *hidden, last = range(1, len(self._workload.architecture.hidden) + 1)
        names = [
            *(n for n in self.params if n.startswith("conv")),
            *(f"dense{k}/{p}" for k in hidden for p in _PARTS),
        ]
        params = {name: self.params[name] for name in names}
        params |= {f"logits/{part}": self.params[f"dense{last}/{part}"] for part in _PARTS}
        below = self._workload.architecture
        return msgspec.structs.replace(below, hidden=below.hidden[:-1]), params

    def _forward(self, images):
        z, trace = forward(*self._below(), images)
        return z, trace, z @ self.params["logits/kernel"] + self.params["logits/bias"]

    def logits(self, images):
        return self._forward(images / 255)[2]

    def loss_and_gradients(self, images, labels):
        z, trace, logits = self._forward(images)
        loss, d_logits = softmax_cross_entropy(logits, labels)
        last = f"dense{len(self._workload.architecture.hidden)}"
        found = backward(*self._below(), trace, d_logits @ self.params["logits/kernel"].T)
        gradients = {name.replace("logits", last): value for name, value in found.items()}
        gradients |= {"logits/kernel": z.T @ d_logits, "logits/bias": d_logits.sum(axis=0)}
        return loss, {name: gradients[name] for name in self.params}


_PARTS = ("kernel", "bias")


class DividesBy256(NumpyBackend):
    """Takes a pixel for p / 256."""

    def logits(self, images):
        return super().logits(images * (255 / 256))

    def loss_and_gradients(self, images, labels):
        return super().loss_and_gradients(images * (255 / 256), labels)


class RoundsToTf32(NumpyBackend):
    """Multiplies by kernels of 10 bits where float32 was asked for."""

    def _rounded(self) -> Any:
        bits = {n: v.astype(np.float32).view(np.int32) for n, v in self.params.items()}
        rounded = {n: ((v + 0x1000) & ~0x1FFF).view(np.float32).astype(np.float64) for n, v in bits.items()}
        return mock.patch.object(self, "params", rounded)

    def logits(self, images):
        with self._rounded():
            return super().logits(images)

    def loss_and_gradients(self, images, labels):
        with self._rounded():
            return super().loss_and_gradients(images, labels)


class PredictsProbabilities(NumpyBackend):
    """Ends in a softmax, in evaluation alone."""

    def predict(self, images):
        powers = np.exp(super().predict(images))
        return powers / powers.sum(axis=1, keepdims=True)


# ---- another loss or gradient


class SumsLoss(NumpyBackend):
    """Adds up the losses of a batch."""

    def loss_and_gradients(self, images, labels):
        loss, gradients = super().loss_and_gradients(images, labels)
        return loss * len(labels), {name: value * len(labels) for name, value in gradients.items()}


class SumsGradients(NumpyBackend):
    """Reports the mean loss and trains on the sum."""

    def loss_and_gradients(self, images, labels):
        loss, gradients = super().loss_and_gradients(images, labels)
        return loss, {name: value * len(labels) for name, value in gradients.items()}


class ShiftsLabels(NumpyBackend):
    """Counts classes from one."""

    def loss_and_gradients(self, images, labels):
        return super().loss_and_gradients(images, (labels + 1) % self._data.info.classes)


class SmoothsLabels(NumpyBackend):
    """Adds to the loss what label smoothing of one in a thousand adds."""

    def loss_and_gradients(self, images, labels):
        loss, gradients = super().loss_and_gradients(images, labels)
        return loss + 0.001 * float(np.abs(self.logits(images * 255)).mean()), gradients


class DropsLastRow(NumpyBackend):
    """Trains on all of a batch but its last image."""

    def train_steps_float64(self, order, draws=None):
        return super().train_steps_float64(order[:, :-1], draws)


class DropsBiasGradient(NumpyBackend):
    """Never trains a bias."""

    def loss_and_gradients(self, images, labels):
        loss, gradients = super().loss_and_gradients(images, labels)
        return loss, {n: v if n.endswith("kernel") else np.zeros_like(v) for n, v in gradients.items()}


class FreezesFirstLayer(NumpyBackend):
    """Stops the gradient before the first layer."""

    def loss_and_gradients(self, images, labels):
        loss, gradients = super().loss_and_gradients(images, labels)
        first = next(iter(gradients))
        return loss, gradients | {first: np.zeros_like(gradients[first])}


class DecaysWeights(NumpyBackend):
    """Adds an L2 penalty of one in ten thousand to the gradient."""

    def loss_and_gradients(self, images, labels):
        loss, gradients = super().loss_and_gradients(images, labels)
        return loss, {name: value + 1e-4 * self.params[name] for name, value in gradients.items()}


class _Statistics(NumpyBackend):
    """Moves the running statistics as `moved` says."""

    def batch_statistics(self, pixels):
        found = super().batch_statistics(pixels)
        return {name: self.moved(name, value, pixels) for name, value in found.items()}

    def moved(self, name, value, pixels):
        raise NotImplementedError


class UnbiasedVariance(_Statistics):
    """Keeps the unbiased variance, as PyTorch does, of few enough values to tell."""

    def moved(self, name, value, pixels):
        return value * 1.05 if name.endswith("variance") else value


class ForgetsStatistics(_Statistics):
    """Never moves them."""

    def moved(self, name, value, pixels):
        return self.params[name]


class PredictsByTheBatch(NumpyBackend):
    """Normalises by the images at hand when it predicts."""

    def logits(self, images):
        pixels = images / 255
        found, _ = forward(self._workload.architecture, self.params, pixels, statistics={})
        return found


class DoesNotFlip(NumpyBackend):
    """Augments by all that was drawn but the flip."""

    def pixels(self, batch, draws=None):
        return super().pixels(batch, None if draws is None else draws * (np.arange(draws.shape[1]) != FLIP))


class SaturatesBeforeItBrightens(NumpyBackend):
    """Takes two parts of the augmentation in the other order."""

    def pixels(self, batch, draws=None):
        if draws is None:
            return super().pixels(batch)
        later = draws.copy()
        draws = draws.copy()
        draws[:, BRIGHTNESS], later[:, SATURATION] = 0, 1
        return np.clip(super().pixels(batch, draws) + later[:, BRIGHTNESS, None, None, None], 0, 1)


# ---- another optimizer


class _OtherOptimizer(NumpyBackend):
    """Uses `optimizer` wherever the workload asks for one of the name `instead_of`."""

    instead_of: ClassVar[str]

    def load_params(self, params):
        super().load_params(params)
        if self._workload.optimizer.name == self.instead_of:
            self._optimizer = self.optimizer(self._workload.optimizer)

    def optimizer(self, spec: OptimizerSpec) -> Optimizer:
        raise NotImplementedError


def swap(old: str, rule: Callable[..., Any]) -> type[NumpyBackend]:
    """Return a backend whose optimizer `old` subtracts `rule(slots, name, gradient, rate, spec)`."""

    class Swapped(_OtherOptimizer):
        instead_of = old

        def optimizer(self, spec: OptimizerSpec) -> Optimizer:
            class Other(SGD):
                def update(self, params, gradients, rate):
                    for name, gradient in gradients.items():
                        params[name] = params[name] - rule(self, name, gradient, rate, spec)

            return Other()

    Swapped.__doc__ = rule.__doc__
    return Swapped


def _rmsprop_epsilon_outside(slots, name, g, r, spec):
    v = spec.rho * slots._slot("v", name) + (1 - spec.rho) * g**2
    slots.set_slot("v", name, v)
    return r * g / (np.sqrt(v) + spec.epsilon)


def _rmsprop_from_ones(slots, name, g, r, spec):
    v = spec.rho * slots._slots.get(("v", name), 1.0) + (1 - spec.rho) * g**2
    slots.set_slot("v", name, v)
    return r * g / np.sqrt(v + spec.epsilon)


def _momentum_rate_inside(slots, name, g, r, spec):
    v = spec.momentum * slots._slot("v", name) + r * g
    slots.set_slot("v", name, v)
    return v


def _momentum_nesterov(slots, name, g, r, spec):
    v = spec.momentum * slots._slot("v", name) + g
    slots.set_slot("v", name, v)
    return r * (g + spec.momentum * v)


def _momentum_dampened(slots, name, g, r, spec):
    v = spec.momentum * slots._slot("v", name) + (1 - spec.momentum) * g
    slots.set_slot("v", name, v)
    return r * v


def _adam(slots, name, g, spec):
    t = slots._slot("t", name) + 1
    m = spec.beta1 * slots._slot("m", name) + (1 - spec.beta1) * g
    v = spec.beta2 * slots._slot("v", name) + (1 - spec.beta2) * g**2
    for slot, value in (("t", t), ("m", m), ("v", v)):
        slots.set_slot(slot, name, value)
    return t, m, v


def _adam_epsilon_hat(slots, name, g, r, spec):
    t, m, v = _adam(slots, name, g, spec)
    return r * np.sqrt(1 - spec.beta2**t) / (1 - spec.beta1**t) * m / (np.sqrt(v) + spec.epsilon)


def _adam_uncorrected(slots, name, g, r, spec):
    _, m, v = _adam(slots, name, g, spec)
    return r * m / (np.sqrt(v) + spec.epsilon)


def _adam_corrected(slots, name, g, r, spec):
    t, m, v = _adam(slots, name, g, spec)
    return r * m / (1 - spec.beta1**t) / (np.sqrt(v / (1 - spec.beta2**t)) + spec.epsilon)


def _rmsprop_from_zeros(slots, name, g, r, spec):
    v = spec.rho * slots._slot("v", name) + (1 - spec.rho) * g**2
    slots.set_slot("v", name, v)
    return r * g / np.sqrt(v + spec.epsilon)


def _sgd_ever_slower(slots, name, g, r, spec):
    t = slots._slot("t", name)
    slots.set_slot("t", name, t + 1)
    return (r if t < 10 else 0.9 * r) * g


RMSPropEpsilonOutside = swap("rmsprop", _rmsprop_epsilon_outside)
RMSPropFromOnes = swap("rmsprop", _rmsprop_from_ones)
MomentumRateInside = swap("momentum", _momentum_rate_inside)
MomentumNesterov = swap("momentum", _momentum_nesterov)
MomentumDampened = swap("momentum", _momentum_dampened)
AdamEpsilonHat = swap("adam", _adam_epsilon_hat)
AdamCorrected = swap("adam", _adam_corrected)
RMSPropFromZeros = swap("rmsprop", _rmsprop_from_zeros)
AdamUncorrected = swap("adam", _adam_uncorrected)
SGDEverSlower = swap("sgd", _sgd_ever_slower)


class _OtherRate(NumpyBackend):
    def train_steps_float64(self, order, draws=None):
        with mock.patch.object(numpy_backend, "learning_rate", self.rate):
            return super().train_steps_float64(order, draws)

    @staticmethod
    def rate(spec: OptimizerSpec, step: int) -> float:
        raise NotImplementedError


class KeepsRate(_OtherRate):
    """Takes no notice of the decay."""

    @staticmethod
    def rate(spec, step):
        return spec.learning_rate


class DecaysInStairs(_OtherRate):
    """Lowers the rate once in `decay_steps`."""

    @staticmethod
    def rate(spec, step):
        return learning_rate(spec, step // spec.decay_steps * spec.decay_steps)


class DecaysTooEarly(_OtherRate):
    """Counts steps from one."""

    @staticmethod
    def rate(spec, step):
        return learning_rate(spec, step + 1)


# ---- another sequence of steps


class SkipsTheTenthStep(NumpyBackend):
    """Reports the loss of each tenth step and does not take it."""

    def train_steps_float64(self, order, draws=None):
        losses = []
        for row in range(len(order)):
            before = self.save_state()
            losses.append(super().train_steps_float64(order[row : row + 1]))
            if self._step % 10 == 0:
                self.restore_state(before | {"step": np.array(self._step)})
        return np.concatenate(losses)


class SmoothsLosses(NumpyBackend):
    """Reports the mean of all losses so far, as Keras's progress bar does; trains as it should."""

    def train_steps_float64(self, order, draws=None):
        losses = super().train_steps_float64(order, draws)
        return losses.cumsum() / np.arange(1, len(losses) + 1)


class LossAfterUpdate(NumpyBackend):
    """Takes the loss once the update is done."""

    def train_steps_float64(self, order, draws=None):
        losses = []
        for batch in order:
            super().train_steps_float64(batch[None])
            losses.append(self.loss_and_gradients(self.pixels(batch), self._data.labels[batch])[0])
        return np.array(losses)


class GoesNan(NumpyBackend):
    """Has one parameter that is no number."""

    def export_params(self):
        params = super().export_params()
        params["logits/bias"][0] = np.nan
        return params


class PredictsNan(NumpyBackend):
    """Has one logit that is no number."""

    def predict(self, images):
        logits = super().predict(images)
        logits[-1, 0] = np.nan
        return logits


class PredictsTransposed(NumpyBackend):
    """Gives logits of another shape."""

    def predict(self, images):
        return super().predict(images).T


# ---- breaches of the contract


class KeepsOptimizerState(NumpyBackend):
    """Goes on with the old optimizer when it is given new parameters."""

    def load_params(self, params):
        kept = self._optimizer
        super().load_params(params)
        self._optimizer = kept


class KeepsStepCount(NumpyBackend):
    """Goes on with the old step count, and so the old rate, when it is given new parameters."""

    def load_params(self, params):
        kept = self._step
        super().load_params(params)
        self._step = kept


class ResetsEveryCall(NumpyBackend):
    """Forgets its optimizer's state between two calls."""

    def train_steps_float64(self, order, draws=None):
        self._optimizer = numpy_backend.make_optimizer(self._workload.optimizer)
        return super().train_steps_float64(order, draws)


class SavesNoStep(NumpyBackend):
    """Starts again at the first learning rate after it was restored."""

    def save_state(self):
        return super().save_state() | {"step": np.array(0)}


class SavesNoSlots(NumpyBackend):
    """Saves the parameters and not the optimizer's state."""

    def save_state(self):
        return {key: value for key, value in super().save_state().items() if not key.startswith("slot/")}


class SavesReferences(NumpyBackend):
    """Hands out, for a snapshot, what it goes on to train."""

    def train_steps_float64(self, order, draws=None):
        old = dict(self.params)
        losses = super().train_steps_float64(order, draws)
        for name, value in old.items():
            value[...] = self.params[name]
        self.params = old
        return losses

    def save_state(self):
        return super().save_state() | {f"param/{name}": value for name, value in self.params.items()}


class LosesRaggedBatch(NumpyBackend):
    """Evaluates whole batches of 100 and leaves out what is left."""

    def predict(self, images):
        return super().predict(images[: max(1, len(images) // 100 * 100)])


class WrapsRaggedBatch(NumpyBackend):
    """Fills the last batch of 1000 with its own images and gives their logits in the wrong place."""

    def predict(self, images):
        logits = super().predict(images)
        left = len(images) % 1000 if len(images) > 1000 else 0
        return np.concatenate([logits[: len(logits) - left], logits[:left]])


class LosesPrecisionOfType(NumpyBackend):
    """Gives float64 where float32 is owed."""

    def train_steps(self, order):
        return self.train_steps_float64(order)

    def predict(self, images):
        return self.logits(images)


class ExportsSorted(NumpyBackend):
    """Exports parameters in the order of the alphabet."""

    def export_params(self):
        return dict(sorted(super().export_params().items()))


class ExportsItself(NumpyBackend):
    """Hands out the same arrays each time it exports."""

    _exported: dict[str, Any] | None = None

    def load_params(self, params):
        super().load_params(params)
        self._exported = None

    def export_params(self):
        if self._exported is None:
            self._exported = super().export_params()
        return self._exported


class RoundsOnLoad(NumpyBackend):
    """Keeps 16 of the 23 bits of what it is given."""

    def load_params(self, params):
        bits = {name: value.view(np.int32) & ~0x7F for name, value in params.items()}
        super().load_params({name: value.view(np.float32) for name, value in bits.items()})


class ScalarForOneStep(NumpyBackend):
    """Gives no array for one step."""

    def train_steps(self, order):
        return np.squeeze(super().train_steps(order))


class FallsBackToCpu(NumpyBackend):
    """Takes the CPU where the GPU was asked for, and says nothing."""

    def __init__(self, workload, data, *, mode, device, precision):
        super().__init__(workload, data, mode=mode, device="cpu", precision=precision)


class TellsTooLittle(NumpyBackend):
    """Does not say where it runs."""

    def describe(self):
        return {"numpy": np.__version__}


class TellsInNumpy(NumpyBackend):
    """Says a number in a type that is no JSON."""

    def describe(self):
        return super().describe() | {"threads": np.int64(2)}


class WritesToTheData(NumpyBackend):
    """Darkens the images where they lie, while it trains."""

    def train_steps(self, order, draws=None):
        losses = super().train_steps(order, draws)
        self._data.images[order[0]] //= 2
        return losses


class WritesToTestImages(NumpyBackend):
    """Darkens the images where they lie, while it predicts."""

    def predict(self, images):
        logits = super().predict(images)
        images //= 2
        return logits


class CopiesTheData(NumpyBackend):
    """Takes memory for what lies in memory already."""

    def __init__(self, workload, data: TrainingData, **kinds):
        super().__init__(workload, msgspec.structs.replace(data, images=data.images.copy()), **kinds)


class CallsNothing(NumpyBackend):
    """Says that a call trains no step."""

    call_steps = 0


class WarnsInTraining(NumpyBackend):
    """Calls what its framework is about to drop."""

    def train_steps(self, order):
        warnings.warn("this will go away", stacklevel=1)
        return super().train_steps(order)


class ClaimsBfloat16(NumpyBackend):
    """Says that it computes in bfloat16, and does not."""

    def __init__(self, workload, data, *, mode, device, precision):
        super().__init__(workload, data, mode=mode, device=device, precision="fp32")

    def describe(self):
        return super().describe() | {"dtype": "bfloat16"}


# ---- those that do not live to tell


class DiesInAdam(NumpyBackend):
    """Is killed as soon as it is asked for Adam."""

    def __init__(self, workload, data, **kinds):
        if workload.optimizer.name == "adam":
            os.kill(os.getpid(), signal.SIGKILL)
        super().__init__(workload, data, **kinds)


class RaisesInAdam(NumpyBackend):
    """Raises as soon as it is asked for Adam."""

    def __init__(self, workload, data, **kinds):
        if workload.optimizer.name == "adam":
            raise ValueError("Adam is not at home")
        super().__init__(workload, data, **kinds)


class HangsInAdam(NumpyBackend):
    """Never comes back once it is asked for Adam."""

    def __init__(self, workload, data, **kinds):
        if workload.optimizer.name == "adam":
            time.sleep(600)
        super().__init__(workload, data, **kinds)
