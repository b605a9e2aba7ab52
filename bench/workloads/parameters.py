"""Initial weights: drawn once in NumPy, the same bytes for every backend."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from bench.workloads.specs import Architecture, DatasetInfo, Initialiser, Shape

Params: TypeAlias = dict[str, npt.NDArray[np.float32]]
"""Parameters by canonical name, in network order: `conv1/kernel`, `conv1/bias`, …, `logits/bias`; they
include the running statistics of batch normalisation."""

GLOROT = Initialiser()


def initial_params(
    architecture: Architecture, info: DatasetInfo, *, seed: int, initialiser: Initialiser = GLOROT
) -> Params:
    """Draw initial parameters, float32, in canonical layout.

    Kernels are drawn by the initialiser. Scales and running variances start at one, everything else at zero.
    Every parameter has its own random stream, so none depends on the shapes before it. `info` describes the
    images as the network sees them.
    """
    params: Params = {}
    for number, (name, shape) in enumerate(architecture.parameter_shapes(info).items()):
        if len(shape) == 1:
            start = 1.0 if name.endswith(("/scale", "/variance")) else 0.0
            params[name] = np.full(shape, start, np.float32)
            continue
        generator = np.random.Generator(np.random.PCG64([seed, number]))
        params[name] = draw_kernel(initialiser, shape, generator).astype(np.float32)
    return params


def draw_kernel(
    initialiser: Initialiser, shape: Shape, generator: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Draw one kernel.

    `glorot_uniform`: Glorot and Bengio, 2010, formula 16, U(±sqrt(6 / (fan_in + fan_out))); the fans of a
    convolution include the area of its kernel. `truncated_normal`: values two standard deviations or more
    from zero are drawn again, as in tf.random.truncated_normal.
    """
    match initialiser.name:
        case "zeros":
            return np.zeros(shape)
        case "normal":
            return generator.normal(0.0, initialiser.stddev, shape)
        case "truncated_normal":
            drawn = generator.normal(0.0, 1.0, shape)
            while (wide := np.abs(drawn) >= 2.0).any():
                drawn[wide] = generator.normal(0.0, 1.0, int(wide.sum()))
            return drawn * initialiser.stddev
        case "glorot_uniform":
            area = int(np.prod(shape[:-2]))
            limit = np.sqrt(6.0 / (area * (shape[-2] + shape[-1])))
            return generator.uniform(-limit, limit, shape)
