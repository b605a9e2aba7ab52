"""The work of one training step, counted from the network alone: the same number for every framework.

A multiplication and an addition are two operations. `products` counts matrix products and convolutions only,
as in the definition of model FLOPs utilisation (Chowdhery et al., PaLM, 2022, appendix B, which omits
everything else because it is small). `everything` also counts all other arithmetic, by these conventions:

- A product of (n, in) by (in, out) takes 2 n in out. A SAME convolution takes 2 k k in out for every pixel
  of its output, including the products with the zeros around the image.
- The backward pass does each product twice more: once for the gradient of the weights, and once for the
  gradient of the input, which the first layer does not need. A step therefore takes three times its forward
  pass, minus one product of the first layer.
- One operation for each element: scaling a pixel, adding a bias, summing a bias gradient over batch and
  pixels, ReLU and its gradient, an exponential, a logarithm, a root, a division, a comparison.
- Batch normalisation takes 8 for each element (mean, squared difference and its mean, subtract, divide,
  scale, offset), and its gradients 12, instead of the 2 of a bias.
- Max-pooling of size p takes p p - 1 comparisons for each window, and as many choices in the backward pass.
- Softmax cross-entropy of c classes takes 4 c + 1 for each image (largest, subtract, exponential, sum,
  logarithm, the label's entry, the mean over the batch), and its gradient 2 c + 1 (divide, subtract 1 at the
  label, mean).
- The update counts what is done for every parameter. What is computed once in a step is not counted.

Gathering the batch, moving and reshaping are not counted.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from bench.workloads.specs import Architecture, DatasetInfo, Workload

_UPDATE: Mapping[str, int] = MappingProxyType({"sgd": 2, "momentum": 4, "rmsprop": 9, "adam": 14})
"""Operations for each parameter, by the formulas in `backends.numpy_backend`.

sgd: p - r g. momentum: m v + g, then p - r v. rmsprop: rho v + (1 - rho) g g (4), then
p - r g / sqrt(v + e) (5). adam: the two moments (3 and 4), then their two corrections, root, plus e,
divide, times r, minus (7).
"""
_SLOTS: Mapping[str, int] = MappingProxyType({"sgd": 0, "momentum": 1, "rmsprop": 1, "adam": 2})
"""Numbers that an optimizer keeps for each parameter."""
_FLOAT_BYTES = 4
"""All numbers counted here are float32 in every precision."""


class StepWork(msgspec.Struct, frozen=True, kw_only=True):
    """The work of one training step of a batch."""

    products: float
    """Floating-point operations of matrix products and convolutions."""
    everything: float
    """All floating-point operations."""
    least_bytes: float
    """The least traffic between memory and processor, in bytes; see `_least_bytes`."""

    @property
    def intensity(self) -> float:
        """Operations of products per byte of least traffic: the horizontal axis of the roofline."""
        return self.products / self.least_bytes


class _Layer(msgspec.Struct, frozen=True, kw_only=True):
    """A convolution or dense layer and what follows it, for one image."""

    multiplications: int
    outputs: int
    weights: int
    biases: int
    pooled: int = 0
    """Outputs after max-pooling; 0 without pooling."""
    pool: int = 1
    relu: bool = True
    normalised: bool = False


def training_flops(architecture: Architecture, info: DatasetInfo, batch_size: int) -> float:
    """Return the operations of the products and convolutions of one training step, as the module defines."""
    multiplications = [layer.multiplications for layer in _layers(architecture, info)]
    return float(2 * batch_size * (3 * sum(multiplications) - multiplications[0]))


def step_work(workload: Workload, info: DatasetInfo) -> StepWork:
    """Return the work of one training step of a workload whose data set is `info`, augmentation excluded."""
    info = workload.seen(info)
    layers = _layers(workload.architecture, info)
    parameters = sum(layer.weights + layer.biases for layer in layers)
    products = training_flops(workload.architecture, info, workload.batch_size)
    rest = _operations_an_image(layers, info) * workload.batch_size
    return StepWork(
        products=products,
        everything=products + rest + _UPDATE[workload.optimizer.name] * parameters,
        least_bytes=_least_bytes(layers, info, workload, parameters),
    )


def _layers(architecture: Architecture, info: DatasetInfo) -> list[_Layer]:
    layers = []
    height, width, channels = info.image_shape
    for block in architecture.convs:
        pixels, weights = height * width, block.kernel**2 * channels * block.filters
        height, width, channels = height // block.pool, width // block.pool, block.filters
        layers.append(
            _Layer(
                multiplications=pixels * weights,
                outputs=pixels * block.filters,
                weights=weights,
                biases=block.filters * (2 if block.normalise else 1),
                normalised=block.normalise,
                pooled=height * width * channels if block.pool > 1 else 0,
                pool=block.pool,
            )
        )
    features = height * width * channels
    units = [*architecture.hidden, info.classes]
    for place, outputs in enumerate(units):
        layers.append(
            _Layer(
                multiplications=features * outputs,
                outputs=outputs,
                weights=features * outputs,
                biases=outputs,
                relu=place < len(units) - 1,
            )
        )
        features = outputs
    return layers


def _operations_an_image(layers: list[_Layer], info: DatasetInfo) -> int:
    """Return the operations for one image outside of products, forward and backward."""
    count = math.prod(info.image_shape)
    for layer in layers:
        bias = (20 if layer.normalised else 2) * layer.outputs
        relu = 2 * layer.outputs if layer.relu else 0
        pool = 2 * layer.pooled * (layer.pool**2 - 1)
        count += bias + relu + pool
    return count + (4 * info.classes + 1) + (2 * info.classes + 1)


def _least_bytes(layers: list[_Layer], info: DatasetInfo, workload: Workload, parameters: int) -> float:
    """Return the traffic of a step that writes and reads every array once, in bytes.

    The uint8 images and the labels of the batch are read. For every layer, the output after ReLU, the output
    before batch norm, the output after pooling, and the gradients of all these are written and read. The
    update reads and writes every parameter and every number that the optimizer keeps. Every parameter's
    gradient is written and read. These are the compulsory misses of a step (Williams, Waterman and Patterson,
    Roofline, 2009, on the 3Cs). Most frameworks read some arrays twice and move more; a cache that keeps an
    array until it is read moves less.
    """
    batch = workload.batch_size * (math.prod(info.image_shape) + 1)
    activations = workload.batch_size * sum(
        layer.outputs * (2 if layer.normalised else 1) + layer.pooled for layer in layers
    )
    kept = parameters * (1 + _SLOTS[workload.optimizer.name])
    # Factors of 2: each array is written and read, and each activation has a gradient.
    floats = 2 * (2 * activations) + 2 * (kept + parameters)
    return float(batch + _FLOAT_BYTES * floats)
