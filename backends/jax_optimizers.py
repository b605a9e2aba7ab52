"""The optimizers in optax: with every constant of the workload, or with optax's own constants."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from bench.workloads.specs import OptimizerSpec


def make_optimizer(spec: OptimizerSpec) -> optax.GradientTransformation:
    """Return the optimizer of a workload, with no constant left to optax's defaults."""
    rate: optax.ScalarOrSchedule = spec.learning_rate
    if spec.decay_rate != 1.0:
        rate = optax.exponential_decay(
            spec.learning_rate, transition_steps=spec.decay_steps, decay_rate=spec.decay_rate, staircase=False
        )
    match spec.name:
        case "sgd":
            return optax.sgd(rate, momentum=None, nesterov=False)
        case "momentum":
            return optax.sgd(rate, momentum=spec.momentum, nesterov=False)
        case "adam" if spec.epsilon_hat:
            return optax.chain(
                scale_by_adam_with_epsilon_hat(spec.beta1, spec.beta2, spec.epsilon),
                optax.scale_by_learning_rate(rate),
            )
        case "adam":
            return optax.adam(rate, b1=spec.beta1, b2=spec.beta2, eps=spec.epsilon, eps_root=0.0)
        case "rmsprop":
            return optax.rmsprop(
                rate, decay=spec.rho, eps=spec.epsilon, initial_scale=spec.initial_square, eps_in_sqrt=True
            )


def scale_by_adam_with_epsilon_hat(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Scale by Adam, with epsilon added to the root of the uncorrected moment; optax corrects it first."""
    plain = optax.scale_by_adam(b1=b1, b2=b2)

    def update(
        gradients: Any, state: optax.ScaleByAdamState, params: Any = None
    ) -> tuple[Any, optax.ScaleByAdamState]:
        _, state = plain.update(gradients, state, params)
        step = state.count.astype(jnp.float32)
        correction = jnp.sqrt(1 - b2**step) / (1 - b1**step)
        return jax.tree.map(lambda m, v: correction * m / (jnp.sqrt(v) + eps), state.mu, state.nu), state

    return optax.GradientTransformation(plain.init, update)


def make_own_optimizer(spec: OptimizerSpec) -> optax.GradientTransformation:
    """Return the named optimizer with the constants that optax sets by default.

    optax has no default learning rate, so the rates are those of the documentation: for `adam` the
    front page of Flax, for `sgd` and `momentum` Flax's own MNIST example (examples/mnist), and for
    `rmsprop`, which Flax does not teach, optax's reference of `optax.rmsprop`.
    """
    match spec.name:
        case "sgd":
            return optax.sgd(0.1)
        case "momentum":
            return optax.sgd(0.1, momentum=0.9)
        case "adam":
            return optax.adam(1e-3)
        case "rmsprop":
            return optax.rmsprop(3e-3)
