"""Keras as its users train: `compile` and `fit`, on the engine that KERAS_BACKEND names.

`KerasBackend` serves any engine on the CPU; `backends.keras_tensorflow` adds what a GPU needs.
Compared with the engine's mode `tutorial`, it shows on a CPU what this high-level interface costs. On a GPU
`fit` is compiled by XLA, and no other mode is like it.
"""

import sys
from typing import Any

import keras
import numpy as np

from backends.base import State, TrainingData
from backends.builds import build_of
from backends.keras_parts import build_network, make_optimizer, named_variables
from bench.errors import UnavailableError
from bench.workloads.parameters import Params
from bench.workloads.specs import Device, Precision, Workload

EVALUATION_BATCH = 1000


class KerasBackend:
    """One network trained by Keras; `backends.base.Backend` is its contract."""

    call_steps = 1

    def __init__(
        self,
        workload: Workload,
        data: TrainingData,
        *,
        mode: str,
        device: Device,
        precision: Precision,
    ) -> None:
        self.use(device, precision)
        if not workload.matched:
            raise UnavailableError(
                f"mode {mode} of Keras has no own defaults to offer: those of an engine are in its backend; "
                f"leave out {workload.name}"
            )
        if workload.augmentation is not None:
            raise UnavailableError(f"mode {mode} of Keras augments no images; leave out {workload.name}")
        self._policy = keras.DTypePolicy("mixed_bfloat16" if precision == "bf16" else "float32")
        self._images, self._labels = np.asarray(data.images), data.labels.astype(np.int32)
        self._network = build_network(workload.architecture, data.info, self._policy, of_bytes=True)
        optimizer = make_optimizer(workload.optimizer)
        optimizer.build(self._network.trainable_variables)
        reduction = "sum" if workload.loss == "sum" else "sum_over_batch_size"
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)
        self._network.compile(optimizer, loss)
        # Keras also adds what is assigned to its list of metrics, and would update it twice in a step.
        self._network._loss_tracker = LastLoss(name="loss")
        if self._network._loss_tracker in self._network._metrics:
            self._network._metrics.remove(self._network._loss_tracker)
        self._fresh_optimizer = [keras.ops.convert_to_numpy(variable) for variable in optimizer.variables]

    def use(self, device: Device, precision: Precision) -> None:  # noqa: ARG002 - all precisions of a CPU
        """Prepare the engine for a device and a precision; raise UnavailableError if that is not possible.

        Keras leaves both to its engine. On a GPU PyTorch's convolutions and JAX's products would use TF32,
        and nothing here sets their switches.
        """
        if device != "cpu":
            raise UnavailableError(
                f"Keras on {keras.backend.backend()} is measured on the CPU alone: on a {device.upper()} it "
                "leaves the precision of products to its engine"
            )

    # Training

    def train_steps(self, order: np.ndarray) -> np.ndarray:
        # `fit` would shuffle in an order of the engine; so the images are put in order before.
        rows = order.ravel()
        losses = StepLosses()
        self._network.fit(
            self._images[rows],
            self._labels[rows],
            batch_size=order.shape[1],
            shuffle=False,
            verbose=0,
            callbacks=[losses],
        )
        named_variables(self._network)[-1][1].numpy()  # wait: a loss is ready before its update is
        return losses.of_each_step()

    # Evaluation

    def predict(self, images: np.ndarray) -> np.ndarray:
        logits = self._network.predict(np.asarray(images), batch_size=EVALUATION_BATCH, verbose=0)
        return logits.astype(np.float32)

    # Parameters and state: Keras keeps them in canonical layout

    def load_params(self, params: Params) -> None:
        for name, variable in named_variables(self._network):
            variable.assign(np.array(params[name]))
        optimizer = self._network.optimizer
        for variable, value in zip(optimizer.variables, self._fresh_optimizer, strict=True):
            variable.assign(np.array(value))

    def export_params(self) -> Params:
        return {name: np.array(variable.numpy()) for name, variable in named_variables(self._network)}

    def _all_variables(self) -> list[keras.Variable]:
        return [*self._network.variables, *self._network.optimizer.variables]

    def save_state(self) -> State:
        return {
            str(number): np.array(variable.numpy()) for number, variable in enumerate(self._all_variables())
        }

    def restore_state(self, state: State) -> None:
        for number, variable in enumerate(self._all_variables()):
            variable.assign(np.array(state[str(number)]))

    def device_of_parameters(self) -> str:
        """Return the engine's name of the device that holds the parameters."""
        return str(self._network.trainable_variables[0].value.device)

    def describe(self) -> dict[str, str | int | float | bool | None]:
        engine, device = keras.backend.backend(), self.device_of_parameters().lower()
        return {
            "device": "cpu" if "cpu" in device else "gpu",
            "device_name": device,
            "dtype": self._policy.compute_dtype,
            "keras": keras.__version__,
            "engine": engine,
            engine: str(sys.modules[engine].__version__),
            "build": build_of(engine),
            "jit_compile": bool(self._network.jit_compile),
            "peak_device_bytes": None,
        }


class StepLosses(keras.callbacks.Callback):
    """Keeps the loss of every step of one call of `fit`."""

    async_safe = True
    """Lets `fit` go on before a callback has returned; otherwise it would wait at every step."""

    def __init__(self) -> None:
        super().__init__()
        self._losses: dict[int, float] = {}

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._losses[batch] = (logs or {})["loss"]

    def of_each_step(self) -> np.ndarray:
        return np.array([loss for _, loss in sorted(self._losses.items())], np.float32)


class LastLoss(keras.metrics.Mean):
    """The loss of the latest step; by default `fit` reports the mean of all steps so far."""

    def update_state(self, values: Any, sample_weight: Any = None) -> None:  # noqa: ARG002 - equal batches
        self.total.assign(values)
        self.count.assign(1)
