"""TensorFlow: Keras layers and optimizers, a training step in a tf.function, data resident on the device."""

from collections.abc import Iterator

import numpy as np

from backends.tensorflow_cuda import load_cusolver, why_no_gpu

load_cusolver()  # before TensorFlow is imported

import keras
import tensorflow as tf

from backends.base import State, TrainingData
from backends.keras_parts import build_network, make_default_optimizer, make_optimizer, named_variables
from backends.tensorflow_augmentation import augment
from backends.tensorflow_instruments import Laps, graph_flops, measured_peak
from bench.errors import UnavailableError
from bench.workloads.augmentation import COLUMNS
from bench.workloads.instruments import Peak, StepSplit
from bench.workloads.parameters import Params
from bench.workloads.specs import Device, Precision, Workload

ALIGNMENT = 64
"""Bytes; a mapped data set begins at a multiple."""
EVALUATION_BATCH = 1000
LOOP_STEPS = 100
"""Steps to a call in mode `xla-loop` at most; the shape is fixed and the count is not: it compiles once."""
UNROLLED_STEPS = 4
"""The same on a CPU of a network that convolves: inside a loop of XLA a convolution is many times slower.
What is left over is trained step by step."""


class TensorFlowBackend:
    """One network trained by TensorFlow.

    See `Backend`, `Instrumented` and `OwnDefaults` of `backends.base` for what is owed.
    """

    def __init__(
        self, workload: Workload, data: TrainingData, *, mode: str, device: Device, precision: Precision
    ) -> None:
        self._kind, self._device = device, find_device(device)
        tf.config.experimental.enable_tensor_float_32_execution(precision == "tf32")
        self._policy = keras.DTypePolicy("mixed_bfloat16" if precision == "bf16" else "float32")
        if workload.augmentation is not None and mode not in {"graph", "xla"}:
            raise UnavailableError(f"mode {mode} of TensorFlow augments no images; graph and xla do")
        self._mode = mode
        self._workload = workload
        self._data = data
        seen = workload.seen(data.info)
        # In the pipeline's mode the images stay on the host, from where tf.data brings them batch by batch.
        with tf.device("/CPU:0" if mode == "tf-data" else self._device):
            # uint8 stays uint8: a batch is gathered and then scaled. Labels and indices are int64, as int32
            # would stay on the host.
            self._images = shared(data.images)
            self._labels = tf.constant(data.labels.astype(np.int64))
            if device == "gpu" and mode != "tf-data":
                # A GPU gathers uint8 from nothing but a variable, which on a CPU would make a copy.
                both = self._images, self._labels
                self._images, self._labels = (tf.Variable(one, trainable=False) for one in both)
        with tf.device(self._device):
            self._network = build_network(workload.architecture, seen, self._policy)
            make = make_optimizer if workload.matched else make_default_optimizer
            self._optimizer = make(workload.optimizer)
            self._optimizer.build(self._network.trainable_variables)
        self._fresh_optimizer = [variable.numpy() for variable in self._optimizer.variables]

        batch = tf.TensorSpec([workload.batch_size], tf.int64)
        batches = tf.TensorSpec([None, workload.batch_size], tf.int64)
        images = tf.TensorSpec([workload.batch_size, *seen.image_shape], tf.float32)
        drawn = tf.TensorSpec([None, len(COLUMNS)], tf.float32)
        count, chunk = tf.TensorSpec([], tf.int32), tf.TensorSpec([LOOP_STEPS, workload.batch_size], tf.int64)
        xla = mode in {"xla", "xla-loop"}
        self._step = tf.function(self._plain_step, input_signature=[batch], jit_compile=xla)
        self._loop = tf.function(self._plain_loop, input_signature=[batches])
        self._chunk = tf.function(self._plain_chunk, input_signature=[chunk, count], jit_compile=True)
        few = tf.TensorSpec([UNROLLED_STEPS, workload.batch_size], tf.int64)
        self._few = tf.function(self._plain_few, input_signature=[few], jit_compile=True)
        self._unrolls = mode == "xla-loop" and device == "cpu" and bool(workload.architecture.convs)
        self.call_steps = UNROLLED_STEPS if self._unrolls else 1
        self._logits = tf.function(self._plain_logits, reduce_retracing=True, jit_compile=xla)
        # The two halves of a step, for the modes and the questions that take them apart.
        self._batch = tf.function(self._plain_batch, input_signature=[batch], jit_compile=xla)
        self._update = tf.function(self._plain_update, input_signature=[images, batch], jit_compile=xla)
        self._augmented_step = tf.function(
            self._plain_augmented_step, input_signature=[batch, drawn], jit_compile=xla
        )
        self._augment = tf.function(self._plain_augment, reduce_retracing=True, jit_compile=xla)
        self._pipeline = tf.function(self._plain_pipeline, input_signature=[batches])

    # Training

    def train_steps(self, order: np.ndarray, draws: np.ndarray | None = None) -> np.ndarray:
        with tf.device(self._device):
            if draws is not None:
                step = self._augmented_step.get_concrete_function()
                parts = (tf.unstack(tf.constant(part)) for part in (order.astype(np.int64), draws))
                losses = tf.stack([step(*batch) for batch in zip(*parts, strict=True)])
            elif self._mode == "tf-data":
                update = self._update.get_concrete_function()
                losses = tf.stack([update(*batch) for batch in self._batches(order)])
            elif self._mode == "graph-loop":
                losses = self._loop(tf.constant(order.astype(np.int64)))
            elif self._unrolls:
                starts = range(0, len(order), UNROLLED_STEPS)
                losses = tf.concat([self._unrolled(order[i : i + UNROLLED_STEPS]) for i in starts], axis=0)
            elif self._mode == "xla-loop":
                starts = range(0, len(order), LOOP_STEPS)
                losses = tf.concat([self._padded(order[i : i + LOOP_STEPS]) for i in starts], axis=0)
            else:
                # Called by itself it saves what a tf.function does to find it: a quarter of a small step.
                step = self._step.get_concrete_function()
                batches = tf.unstack(tf.constant(order.astype(np.int64)))
                losses = tf.stack([step(batch) for batch in batches])
            tf.test.experimental.sync_devices()  # a loss is there before its update has landed
            return losses.numpy()

    def _plain_step(self, batch: tf.Tensor) -> tf.Tensor:
        return self._plain_update(*self._plain_batch(batch))

    def _plain_batch(self, batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return scaled(tf.gather(self._images, batch)), tf.gather(self._labels, batch)

    def _plain_augmented_step(self, batch: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        return self._plain_update(self._plain_augment(batch, draws), tf.gather(self._labels, batch))

    def _plain_augment(self, batch: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        return augment(tf.gather(self._images, batch), draws, self._workload.augmentation.crop)

    def augmented(self, batch: np.ndarray, draws: np.ndarray) -> np.ndarray:
        with tf.device(self._device):
            return self._augment(tf.constant(batch.astype(np.int64)), tf.constant(draws)).numpy()

    def _plain_update(self, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = self._forward(images, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_sum(losses) if self._workload.loss == "sum" else tf.reduce_mean(losses)
        variables = self._network.trainable_variables
        self._optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    def _plain_loop(self, batches: tf.Tensor) -> tf.Tensor:
        steps = tf.shape(batches)[0]
        losses = tf.TensorArray(tf.float32, size=steps)
        for step in tf.range(steps):
            losses = losses.write(step, self._plain_step(batches[step]))
        return losses.stack()

    def _unrolled(self, order: np.ndarray) -> tf.Tensor:
        """Train `UNROLLED_STEPS` steps in one call, or fewer step by step, and return their losses."""
        batches = tf.constant(order.astype(np.int64))
        if len(order) == UNROLLED_STEPS:
            return self._few(batches)
        return tf.stack([self._step(batch) for batch in tf.unstack(batches)])

    def _plain_few(self, batches: tf.Tensor) -> tf.Tensor:
        return tf.stack([self._plain_step(batch) for batch in tf.unstack(batches)])

    def _padded(self, order: np.ndarray) -> tf.Tensor:
        """Train up to `LOOP_STEPS` steps in one call, and return their losses."""
        padded = np.pad(order.astype(np.int64), ((0, LOOP_STEPS - len(order)), (0, 0)))
        return self._chunk(tf.constant(padded), tf.constant(len(order)))[: len(order)]

    def _plain_chunk(self, batches: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
        losses, step = tf.zeros(LOOP_STEPS), tf.constant(0)
        while step < steps:  # over a range, XLA would compile anew for every length
            loss = self._plain_step(batches[step])
            losses = tf.tensor_scatter_nd_update(losses, [[step]], [loss])
            step += 1
        return losses

    def _plain_logits(self, images: tf.Tensor) -> tf.Tensor:
        """Logits, float32, of uint8 images."""
        return self._forward(scaled(images), training=False)

    def _forward(self, images: tf.Tensor, *, training: bool) -> tf.Tensor:
        """Logits, float32, of float32 images."""
        return tf.cast(self._network(images, training=training), tf.float32)

    def _plain_pipeline(self, batches: tf.Tensor) -> tf.data.Dataset:
        """Images and labels for each row of indices, made ready while the batch before is trained on."""
        rows = tf.data.Dataset.from_tensor_slices(batches)
        return rows.map(self._plain_batch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

    def _batches(self, order: np.ndarray) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        """Start the pipeline; to start takes some milliseconds, as it does at the start of an epoch.

        An iterator that never ends, fed through a queue, would not have to start again. But TensorFlow 2.21
        crashes when it is freed while it waits for the queue.
        """
        with tf.device("/CPU:0"):
            return iter(self._pipeline(tf.constant(order.astype(np.int64))))

    # Evaluation

    def predict(self, images: np.ndarray) -> np.ndarray:
        starts = range(0, len(images), EVALUATION_BATCH)
        with tf.device(self._device):
            parts = [self._logits(tf.constant(images[i : i + EVALUATION_BATCH])) for i in starts]
            return tf.concat(parts, axis=0).numpy()

    # Parameters and state: Keras keeps them in canonical layout already

    def load_params(self, params: Params) -> None:
        for name, variable in named_variables(self._network):
            variable.assign(params[name])
        self._reset_optimizer()

    def _reset_optimizer(self) -> None:
        for variable, value in zip(self._optimizer.variables, self._fresh_optimizer, strict=True):
            variable.assign(value)

    def export_params(self) -> Params:
        return {name: variable.numpy() for name, variable in named_variables(self._network)}

    def save_state(self) -> State:
        variables = [*self._network.variables, *self._optimizer.variables]
        return {str(number): np.array(variable.numpy()) for number, variable in enumerate(variables)}

    def restore_state(self, state: State) -> None:
        variables = [*self._network.variables, *self._optimizer.variables]
        for number, variable in enumerate(variables):
            variable.assign(state[str(number)])

    def describe(self) -> dict[str, str | int | float | bool | None]:
        device = self._network.trainable_variables[0].value.device
        on_gpu = "GPU" in device
        details = (
            tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
            if on_gpu
            else {}
        )
        return {
            "device": "gpu" if on_gpu else "cpu",
            "device_name": details.get("device_name", "cpu"),
            "dtype": self._policy.compute_dtype,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "threads": tf.config.threading.get_intra_op_parallelism_threads() or None,
            "tf32": tf.config.experimental.tensor_float_32_execution_enabled() if on_gpu else None,
            "peak_device_bytes": tf.config.experimental.get_memory_info("GPU:0")["peak"] if on_gpu else None,
        }

    # Where the time goes

    def split_steps(self, order: np.ndarray) -> StepSplit:
        """Time the parts of a step, each a call of its own, also in the modes that make one call of all.

        In the pipeline's mode `data_s` is the wait for the iterator, from its start on, and `transfer_s`
        what brings its batch to the device; else `transfer_s` is what brings a row of indices there. One step
        is taken first and undone, so that tracing and compiling are over when the clock starts.
        """
        state = self.save_state()
        self._split(order[:1])
        self.restore_state(state)
        seconds = self._split(order)
        return StepSplit(steps=len(order), **{f"{part}_s": s / len(order) for part, s in seconds.items()})

    def _split(self, order: np.ndarray) -> dict[str, float]:
        """Train one step a row, and return the seconds that each part took in all."""
        with tf.device(self._device):
            tf.test.experimental.sync_devices()
            laps = Laps()
            batches = self._batches(order) if self._mode == "tf-data" else None
            for row in order:
                if batches is not None:
                    batch = next(batches)
                    laps.mark("data")
                    images, labels = (tf.identity(part) for part in batch)
                    tf.test.experimental.sync_devices()
                    laps.mark("transfer")
                else:
                    indices = tf.constant(row.astype(np.int64))
                    tf.test.experimental.sync_devices()
                    laps.mark("transfer")
                    images, labels = self._batch(indices)
                    tf.test.experimental.sync_devices()
                    laps.mark("data")
                self._update(images, labels)
                laps.mark("dispatch")
                tf.test.experimental.sync_devices()
                laps.mark("device")
        return laps.seconds

    def count_flops(self) -> float | None:
        """Count in the graph of one step; XLA, which may compute otherwise, is not asked."""
        batch = tf.TensorSpec([self._workload.batch_size], tf.int64)
        with tf.device(self._device):
            step = tf.function(self._plain_step, input_signature=[batch]).get_concrete_function()
        return graph_flops(step)

    def peak(self) -> Peak:
        return measured_peak(self._kind, tf.as_dtype(self._policy.compute_dtype))

    # Keras's own defaults

    def initialise(self, seed: int) -> None:
        keras.utils.set_random_seed(seed)
        # A layer's initialiser draws the same values whenever it is called: only a new network has new ones.
        fresh = build_network(self._workload.architecture, self._workload.seen(self._data.info), self._policy)
        self._network.set_weights(fresh.get_weights())
        self._reset_optimizer()

    def permutation(self, seed: int, epoch: int) -> np.ndarray:
        """Shuffle as `keras.Model.fit` does arrays in memory: all indices at once, by `tf.random.shuffle`."""
        tf.random.set_seed(seed)
        with tf.device("/CPU:0"):
            indices = tf.range(len(self._data.labels), dtype=tf.int64)
            return tf.random.shuffle(indices, seed=epoch).numpy().astype(np.int32)


def scaled(images: tf.Tensor) -> tf.Tensor:
    """Return uint8 images as float32 from 0 to 1."""
    return tf.cast(images, tf.float32) / 255.0


def shared(array: np.ndarray) -> tf.Tensor:
    """Return a tensor over the array's own memory, where that begins as TensorFlow needs it; else a copy."""
    if array.ctypes.data % ALIGNMENT:
        return tf.constant(array)  # by DLPack the process would be aborted when the tensor is read
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def find_device(device: Device) -> str:
    """Return the device asked for; never another one."""
    if device == "gpu" and not tf.config.list_physical_devices("GPU"):
        if not tf.test.is_built_with_cuda():
            raise UnavailableError(
                f"TensorFlow {tf.__version__} sees no GPU here: this build has no CUDA; "
                "install tensorflow[and-cuda] in its place"
            )
        raise UnavailableError(f"TensorFlow {tf.__version__} sees no GPU here; {why_no_gpu()}")
    return f"/{device.upper()}:0"
