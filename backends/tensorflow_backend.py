"""TensorFlow: Keras layers and optimizers, and steps in a tf.function, tuned.

`TensorFlowBackend` holds what all modes share. `GraphRunner` trains in the default mode.
Mode `tutorial` trains as TensorFlow's documentation teaches it.
The runners of the other modes are in modules beside this one; `backends.catalog` names the runner of each.
"""

import os
from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np

from backends.tensorflow_cuda import load_cusolver, prefer_ptxas

load_cusolver()  # both before TensorFlow is imported
prefer_ptxas()

import keras
import tensorflow as tf

from backends.base import State, TrainingData
from backends.builds import build_of
from backends.catalog import TENSORFLOW
from backends.keras_parts import build_network, make_default_optimizer, make_optimizer, named_variables
from backends.runners import load_runner
from backends.step_clock import StepClock
from backends.tensorflow_augmentation import augment
from backends.tensorflow_device import described_device, find_device, set_precision
from backends.tensorflow_instruments import graph_flops, measured_peak, timed_parts
from backends.tensorflow_steps import CarriedSteps
from bench.errors import UnavailableError
from bench.workloads.augmentation import COLUMNS
from bench.workloads.instruments import Peak, StepSplit
from bench.workloads.parameters import Params
from bench.workloads.ranks import Place
from bench.workloads.specs import Device, Precision, Workload

ALIGNMENT = 64
"""Bytes; the images of a mapped data set begin at a multiple of it."""
EVALUATION_BATCH = 1000
"""Images per call of the program that evaluates."""


class TensorFlowBackend:
    """One network trained by TensorFlow, in the mode of its runner.

    `Backend`, `Instrumented`, `Augmenting` and `OwnDefaults` in `backends.base` are its contract. A runner
    makes the programs of its mode from the methods `step`, `batch` and `update`.
    """

    def __init__(
        self,
        workload: Workload,
        data: TrainingData,
        *,
        mode: str,
        device: Device,
        precision: Precision,
        place: Place | None = None,
    ) -> None:
        self.workload, self.device, self.place = workload, device, place
        self.device_name = find_device(device)
        runner = load_runner(TENSORFLOW, mode, place)
        self.strategy = tf.distribute.get_strategy() if place is None else runner.join(place, device)
        set_precision(precision)
        self._policy = keras.DTypePolicy("mixed_bfloat16" if precision == "bf16" else "float32")
        self._mode = next(one for one in TENSORFLOW.modes if one.name == mode)
        if workload.augmentation is not None and not self._mode.augments:
            able = " and ".join(one.name for one in TENSORFLOW.modes if one.augments and not one.distributed)
            raise UnavailableError(f"mode {mode} of TensorFlow augments no images; {able} do")

        self.data = data
        self._seen = workload.seen(data.info)
        size = workload.batch_size // self.strategy.num_replicas_in_sync
        self.batch_spec = (
            tf.TensorSpec([size, *self._seen.image_shape], tf.float32),
            tf.TensorSpec([size], tf.int64),
        )
        """Images and labels of a batch, or of a rank's part, as `batch` returns them without augmentation."""
        self.row_spec = self.batch_spec[1:]
        """One row of indices and, if images are augmented, of draws: what `step` takes."""
        if workload.augmentation is not None:
            self.row_spec += (tf.TensorSpec([size, len(COLUMNS)], tf.float32),)
        self._images, self._labels = self._placed(data)
        with tf.device(self.device_name), self.strategy.scope():
            self.network = build_network(
                workload.architecture, self._seen, self._policy, synchronized=place is not None
            )
            make = make_optimizer if workload.matched else make_default_optimizer
            self.optimizer = make(workload.optimizer)
            self.optimizer.build(self.network.trainable_variables)
        self._fresh_optimizer = [variable.numpy() for variable in self.optimizer.variables]

        self._logits = tf.function(self._evaluate, reduce_retracing=True, jit_compile=runner.jit_compile)
        self._runner = runner(self)
        self.call_steps = self._runner.call_steps

    def _placed(self, data: TrainingData) -> tuple[tf.Tensor | tf.Variable, tf.Tensor | tf.Variable]:
        """Return images, uint8 (n, h, w, c), and labels, int64 (n,), where batches are gathered from.

        That is the device, or the host in a mode whose input pipeline brings batches to the device.
        """
        with tf.device("/CPU:0" if self._mode.pipeline else self.device_name):
            # Images stay uint8: a batch is gathered and then scaled. Labels and indices are int64:
            # TensorFlow keeps int32 in host memory.
            images, labels = shared(data.images), tf.constant(data.labels.astype(np.int64))
            if self.device == "gpu" and not self._mode.pipeline:
                # A GPU gathers uint8 only from a variable. On a CPU a variable would make a copy.
                return tf.Variable(images, trainable=False), tf.Variable(labels, trainable=False)
        return images, labels

    # Training

    def train_steps(self, order: np.ndarray, draws: np.ndarray | None = None) -> np.ndarray:
        with tf.device(self.device_name):
            losses = self._runner.train(order, draws)
            self._synchronise()  # a loss is ready before its update is
            return losses.numpy()

    def _synchronise(self) -> None:
        """Wait for this process's device."""
        if self.place is None:
            tf.test.experimental.sync_devices()
        else:  # that would ask the devices of other processes, and fail
            tf.raw_ops.SyncDevice()

    def step(self, indices: tf.Tensor, *draws: tf.Tensor) -> tf.Tensor:
        """Train on one row as in `row_spec`; return the loss before the update."""
        if not draws:
            return self.update(*self.batch(indices))
        return self.update(self._augment(indices, *draws), tf.gather(self._labels, indices))

    def batch(self, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return images, float32 from 0 to 1, and labels, int64, of these indices, int64 (batch,)."""
        return scaled(tf.gather(self._images, indices)), tf.gather(self._labels, indices)

    def _augment(self, indices: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        return augment(tf.gather(self._images, indices), draws, self.workload.augmentation.crop)

    def update(self, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Train on images and labels as in `batch_spec`; return the loss, float32, before the update."""
        with tf.GradientTape() as tape:
            logits = self._forward(images, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = self._reduced(losses)
        variables = self.network.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    def _reduced(self, losses: tf.Tensor) -> tf.Tensor:
        """Return the loss of a batch, or a rank's share of it: the shares of all ranks are summed."""
        if self.workload.loss == "sum":
            return tf.reduce_sum(losses)
        if self.place is None:
            return tf.reduce_mean(losses)
        return tf.nn.compute_average_loss(losses, global_batch_size=self.workload.batch_size)

    def _forward(self, images: tf.Tensor, *, training: bool) -> tf.Tensor:
        """Return the logits, float32, of float32 images."""
        return tf.cast(self.network(images, training=training), tf.float32)

    def augmented(self, batch: np.ndarray, draws: np.ndarray) -> np.ndarray:
        # This tf.function serves one call: only tests and `bench verify` ask for augmented images.
        augment_images = tf.function(self._augment, jit_compile=self._runner.jit_compile)
        with tf.device(self.device_name):
            return augment_images(tf.constant(batch.astype(np.int64)), tf.constant(draws)).numpy()

    # Ranks

    def longest(self, seconds: float) -> float:
        return self._runner.longest(seconds)

    @staticmethod
    def leave() -> None:
        """Do nothing: a worker of TensorFlow goes on with its own work when another one has ended."""

    # Evaluation

    def predict(self, images: np.ndarray) -> np.ndarray:
        starts = range(0, len(images), EVALUATION_BATCH)
        with tf.device(self.device_name):
            parts = [self._logits(tf.constant(images[i : i + EVALUATION_BATCH])) for i in starts]
            return tf.concat(parts, axis=0).numpy()

    def _evaluate(self, images: tf.Tensor) -> tf.Tensor:
        """Return the logits, float32, of uint8 images."""
        return self._forward(scaled(images), training=False)

    # Parameters and state: Keras keeps them in canonical layout

    def load_params(self, params: Params) -> None:
        for name, variable in named_variables(self.network):
            variable.assign(params[name])
        self._reset_optimizer()

    def _reset_optimizer(self) -> None:
        for variable, value in zip(self.optimizer.variables, self._fresh_optimizer, strict=True):
            variable.assign(value)

    def export_params(self) -> Params:
        return {name: variable.numpy() for name, variable in named_variables(self.network)}

    def save_state(self) -> State:
        variables = [*self.network.variables, *self.optimizer.variables]
        return {str(number): np.array(variable.numpy()) for number, variable in enumerate(variables)}

    def restore_state(self, state: State) -> None:
        variables = [*self.network.variables, *self.optimizer.variables]
        for number, variable in enumerate(variables):
            variable.assign(state[str(number)])

    def describe(self) -> dict[str, str | int | float | bool | None]:
        return {
            "dtype": self._policy.compute_dtype,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "build": build_of("tensorflow"),
            "threads": threads(),
            **({} if self.place is None else self._runner.facts),
            **described_device(self.network.trainable_variables[0].value.device),
        }

    # Where the time goes

    def split_steps(self, order: np.ndarray) -> StepSplit:
        """Time the parts of a step, which are separate calls in every mode.

        In a mode with an input pipeline `data_s` is the wait for its iterator, from the start of the
        pipeline on, and `transfer_s` is the copy of a batch to the device, which is about 0 on a GPU if the
        pipeline made it ahead. In the other modes `transfer_s` is the copy of a row of indices. One step is
        taken first and undone, so that tracing and compiling are over when the clock starts.
        """
        fetch = self._runner.fetch if self._mode.pipeline else self._fetch
        _, update = self._halves
        state = self.save_state()
        with tf.device(self.device_name):
            timed_parts(order[:1], fetch, update)
        self.restore_state(state)
        with tf.device(self.device_name):
            return timed_parts(order, fetch, update)

    def _fetch(self, order: np.ndarray, clock: StepClock) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        """Yield the batch of each row; mark the parts `transfer` and `data`."""
        gather, _ = self._halves
        for row in order:
            indices = tf.constant(row.astype(np.int64))
            tf.test.experimental.sync_devices()
            clock.mark("transfer")
            batch = gather(indices)
            tf.test.experimental.sync_devices()
            clock.mark("data")
            yield batch

    @cached_property
    def _halves(self) -> tuple[tf.types.experimental.PolymorphicFunction, ...]:
        """`batch` and `update` as separate programs, which only `split_steps` needs."""
        xla = self._runner.jit_compile
        return (
            tf.function(self.batch, input_signature=self.batch_spec[1:], jit_compile=xla),
            tf.function(self.update, input_signature=self.batch_spec, jit_compile=xla),
        )

    def count_flops(self) -> float | None:
        """Count the operations in the graph of one step, which XLA may compute differently."""
        with tf.device(self.device_name):
            step = tf.function(self.step, input_signature=self.batch_spec[1:]).get_concrete_function()
        return graph_flops(step)

    def peak(self) -> Peak:
        return measured_peak(self.device, tf.as_dtype(self._policy.compute_dtype))

    # Keras's own defaults

    def initialise(self, seed: int) -> None:
        keras.utils.set_random_seed(seed)
        # An initialiser draws the same values at every call, so only a new network has new ones.
        fresh = build_network(self.workload.architecture, self._seen, self._policy)
        self.network.set_weights(fresh.get_weights())
        self._reset_optimizer()

    def permutation(self, seed: int, epoch: int) -> np.ndarray:
        """Shuffle as `keras.Model.fit` shuffles arrays in memory: all indices, in one operation.

        It is the one without state. `tf.random.shuffle` needs `tf.random.set_seed`, which clears the caches
        of TensorFlow's context: the next step would prepare its program anew, inside a timed window.
        """
        with tf.device("/CPU:0"):
            indices = tf.range(len(self.data.labels), dtype=tf.int64)
            shuffled = tf.random.experimental.stateless_shuffle(indices, seed=[seed, epoch])
            return shuffled.numpy().astype(np.int32)


def threads() -> int | None:
    """Return the threads of an operation, where the program or a variable sets them."""
    set_here = tf.config.threading.get_intra_op_parallelism_threads()
    return set_here or int(os.environ.get("TF_NUM_INTRAOP_THREADS", "0")) or None


class GraphRunner:
    """Mode `graph`: a training step is one call of a tf.function."""

    call_steps = 1
    jit_compile = False
    """Whether XLA compiles the programs of this mode, those of the backend too."""

    def __init__(self, backend: TensorFlowBackend) -> None:
        self._carried: CarriedSteps | None = None
        step = self.program(backend.step)
        if backend.device == "gpu":
            # A transfer takes as long as a small step, so the rows of many steps go together.
            self._carried = CarriedSteps(backend, jit_compile=self.jit_compile, step=step)
        else:
            self._step = tf.function(step, input_signature=backend.row_spec, jit_compile=self.jit_compile)

    def program(self, step: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
        """Return what the tf.function of a step is made from."""
        return step

    def train(self, order: np.ndarray, draws: np.ndarray | None) -> tf.Tensor:
        """Return the losses, float32 (steps,); the backend waits for the device and copies them."""
        if self._carried is not None:
            return self._carried.train(order, draws)
        # Calling the concrete function saves the search for it, which takes a quarter of a small step.
        step = self._step.get_concrete_function()
        batches = tf.unstack(tf.constant(order.astype(np.int64)))
        if draws is None:
            return tf.stack([step(batch) for batch in batches])
        drawn = tf.unstack(tf.constant(draws))
        return tf.stack([step(*both) for both in zip(batches, drawn, strict=True)])


class XlaRunner(GraphRunner):
    """Mode `xla`: `graph`, compiled by XLA."""

    jit_compile = True


def scaled(images: tf.Tensor) -> tf.Tensor:
    """Return uint8 images as float32 from 0 to 1."""
    return tf.cast(images, tf.float32) / 255.0


def shared(array: np.ndarray) -> tf.Tensor:
    """Return a tensor that shares the array's memory, or a copy where TensorFlow cannot share it."""
    if array.ctypes.data % ALIGNMENT:
        return tf.constant(array)  # through DLPack the process would abort when it reads the tensor
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
