"""The network and the optimizers in Keras, on any of its engines: TensorFlow, JAX or PyTorch."""

import keras
from keras import ops

from bench.workloads.specs import NORM_DECAY, NORM_EPSILON, Architecture, DatasetInfo, OptimizerSpec

NORM_NAMES = {"gamma": "scale", "beta": "offset", "moving_mean": "mean", "moving_variance": "variance"}


def build_network(
    architecture: Architecture,
    info: DatasetInfo,
    policy: keras.DTypePolicy,
    *,
    of_bytes: bool = False,
    synchronized: bool = False,
) -> keras.Sequential:
    """Return the network, from images (n, height, width, channels) to logits (n, classes).

    Images are float32 and scaled or, with `of_bytes`, uint8. The initialisers are Keras's own. Statistics of
    a batch are, if `synchronized`, those of the parts that all replicas of TensorFlow train on.
    """
    layers: list[keras.Layer] = [keras.Input(info.image_shape, dtype="uint8" if of_bytes else None)]
    if of_bytes:
        layers.append(keras.layers.Rescaling(1 / 255, dtype="float32"))  # in bfloat16 it would be 0.4 % off
    for number, block in enumerate(architecture.convs, start=1):
        name = f"conv{number}"
        if block.normalise:
            layers += [
                keras.layers.Conv2D(
                    block.filters, block.kernel, padding="same", use_bias=False, dtype=policy, name=name
                ),
                keras.layers.BatchNormalization(
                    momentum=NORM_DECAY,
                    epsilon=NORM_EPSILON,
                    synchronized=synchronized,
                    dtype=policy,
                    name=f"{name}_norm",
                ),
                keras.layers.ReLU(dtype=policy),
            ]
        else:
            layers.append(
                keras.layers.Conv2D(
                    block.filters, block.kernel, padding="same", activation="relu", dtype=policy, name=name
                )
            )
        layers.append(keras.layers.MaxPooling2D(block.pool, dtype=policy))
    layers.append(keras.layers.Flatten(dtype=policy))
    for number, units in enumerate(architecture.hidden, start=1):
        layers.append(keras.layers.Dense(units, activation="relu", dtype=policy, name=f"dense{number}"))
    layers.append(keras.layers.Dense(info.classes, dtype=policy, name="logits"))
    return keras.Sequential(layers)


def named_variables(network: keras.Sequential) -> list[tuple[str, keras.Variable]]:
    """Return the parameters by canonical name, in network order."""
    return [
        (f"{layer.name.removesuffix('_norm')}/{NORM_NAMES.get(variable.name, variable.name)}", variable)
        for layer in network.layers
        for variable in layer.variables
    ]


def make_optimizer(spec: OptimizerSpec) -> keras.optimizers.Optimizer:
    """Return the optimizer with every constant of the workload."""
    rate: float | keras.optimizers.schedules.LearningRateSchedule = spec.learning_rate
    if spec.decay_rate != 1.0:
        rate = keras.optimizers.schedules.ExponentialDecay(
            spec.learning_rate, decay_steps=spec.decay_steps, decay_rate=spec.decay_rate, staircase=False
        )
    match spec.name:
        case "sgd":
            return keras.optimizers.SGD(rate, momentum=0.0, nesterov=False)
        case "momentum":
            return Momentum(rate, momentum=spec.momentum, nesterov=False)
        case "adam" if spec.epsilon_hat:
            return keras.optimizers.Adam(
                rate, beta_1=spec.beta1, beta_2=spec.beta2, epsilon=spec.epsilon, amsgrad=False
            )
        case "adam":
            return Adam(rate, beta_1=spec.beta1, beta_2=spec.beta2, epsilon=spec.epsilon, amsgrad=False)
        case "rmsprop":
            return RMSprop(
                rate,
                rho=spec.rho,
                momentum=0.0,
                epsilon=spec.epsilon,
                centered=False,
                initial_square=spec.initial_square,
            )


def make_default_optimizer(spec: OptimizerSpec) -> keras.optimizers.Optimizer:
    """Return the optimizer with Keras's own constants; a momentum, 0 by default, is the workload's."""
    match spec.name:
        case "sgd":
            return keras.optimizers.SGD()
        case "momentum":
            return keras.optimizers.SGD(momentum=spec.momentum)
        case "adam":
            return keras.optimizers.Adam()
        case "rmsprop":
            return keras.optimizers.RMSprop()


class Momentum(keras.optimizers.SGD):
    """SGD with momentum that applies the learning rate last; Keras multiplies it into the buffer."""

    def update_step(self, gradient, variable, learning_rate) -> None:
        buffer = self.momentums[self._get_variable_index(variable)]
        self.assign(buffer, self.momentum * buffer + gradient)
        self.assign_sub(variable, learning_rate * buffer)


class Adam(keras.optimizers.Adam):
    """Adam with epsilon added to the root of the corrected moment; Keras adds it to the uncorrected one."""

    def update_step(self, gradient, variable, learning_rate) -> None:
        step = ops.cast(self.iterations + 1, gradient.dtype)
        index = self._get_variable_index(variable)
        m, v = self._momentums[index], self._velocities[index]
        self.assign(m, self.beta_1 * m + (1 - self.beta_1) * gradient)
        self.assign(v, self.beta_2 * v + (1 - self.beta_2) * ops.square(gradient))
        m_hat = m / (1 - self.beta_1**step)
        v_hat = v / (1 - self.beta_2**step)
        self.assign_sub(variable, learning_rate * m_hat / (ops.sqrt(v_hat) + self.epsilon))


class RMSprop(keras.optimizers.RMSprop):
    """RMSprop whose mean of squares starts from `initial_square`; Keras's starts from zero."""

    def __init__(self, *constants, initial_square: float, **others) -> None:
        super().__init__(*constants, **others)
        self._initial_square = initial_square

    def build(self, variables) -> None:
        super().build(variables)
        for square in self._velocities:
            square.assign(ops.full(square.shape, self._initial_square))
