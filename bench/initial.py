"""Initial weights: drawn once in NumPy, the same bytes for every backend."""

import numpy as np

from backends.base import Params
from bench.specs import Architecture, DatasetInfo


def initial_params(architecture: Architecture, info: DatasetInfo, *, seed: int) -> Params:
    """Draw kernels Glorot-uniform and set biases to zero, float32, in canonical layout.

    Glorot and Bengio, 2010, formula 16: U(±sqrt(6 / (fan_in + fan_out))); a convolution's fans count the
    kernel's area. Every parameter has a stream of its own: none depends on the shapes before it.
    """
    params: Params = {}
    for number, (name, shape) in enumerate(architecture.parameter_shapes(info).items()):
        if len(shape) == 1:
            params[name] = np.zeros(shape, np.float32)
            continue
        generator = np.random.Generator(np.random.PCG64([seed, number]))
        area = int(np.prod(shape[:-2]))
        limit = np.sqrt(6.0 / (area * (shape[-2] + shape[-1])))
        params[name] = generator.uniform(-limit, limit, shape).astype(np.float32)
    return params
