"""The named workloads: every data set with softmax regression, a multi-layer perceptron and a CNN.

All train with plain SGD at batch 100. Rows then differ by framework and network, and not by how well an
optimizer is fused. Pairs show the effect of defaults: `…-adam` is the same work for all frameworks, and
`…-defaults` is the same network with each framework's own initialisation, order of the data and Adam. The
`notebook-…` workloads train the networks of five TensorFlow 1 notebooks with all of their constants.

No workload has a target accuracy of its own: no published run has the ten seeds of every framework that a
target needs. A run sets one with `--target`.
"""

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from bench.errors import unknown
from bench.workloads.specs import Architecture, Augmentation, ConvBlock, Initialiser, OptimizerSpec, Workload

SWEPT = "@"
"""Separates the name of a workload from its batch size in a sweep."""

_SOFTMAX = Architecture()
_MLP = Architecture(hidden=(512, 256))
_GREY_CNN = Architecture(convs=(ConvBlock(filters=32), ConvBlock(filters=64)), hidden=(128,))
_COLOUR_CNN = Architecture(convs=(ConvBlock(filters=64), ConvBlock(filters=64)), hidden=(256, 128))


def _workload(dataset: str, network: str, architecture: Architecture, rate: float) -> Workload:
    return Workload(
        name=f"{dataset}-{network}",
        dataset=dataset,
        architecture=architecture,
        optimizer=OptimizerSpec(name="sgd", learning_rate=rate),
    )


def _adam(dataset: str, network: str, architecture: Architecture, *, matched: bool) -> Workload:
    return Workload(
        name=f"{dataset}-{network}-{'adam' if matched else 'defaults'}",
        dataset=dataset,
        architecture=architecture,
        optimizer=OptimizerSpec(name="adam", learning_rate=0.001),
        matched=matched,
    )


_HELD_OUT = 5000
"""Images at the beginning of the training split that TensorFlow 1's reader of MNIST held out for
validation."""
_ZEROS = Initialiser(name="zeros")


def _notebook_softmax(name: str, rate: float, initialiser: Initialiser, *, held_out: int) -> Workload:
    return Workload(
        name=name,
        dataset="mnist",
        architecture=_SOFTMAX,
        optimizer=OptimizerSpec(name="sgd", learning_rate=rate),
        loss="sum",
        initialiser=initialiser,
        held_out=held_out,
    )


NOTEBOOKS: tuple[Workload, ...] = (
    _notebook_softmax("notebook-one-layer", 0.003, _ZEROS, held_out=_HELD_OUT),
    _notebook_softmax(
        "notebook-softmax-plot", 0.005, Initialiser(name="truncated_normal", stddev=0.1), held_out=0
    ),
    Workload(
        name="notebook-cifar-cnn",
        dataset="cifar10",
        architecture=Architecture(
            convs=(ConvBlock(filters=64, normalise=True), ConvBlock(filters=64)), hidden=(256, 128)
        ),
        optimizer=OptimizerSpec(name="adam", learning_rate=1e-4, epsilon=1e-8, epsilon_hat=True),
        drawing="steps",
        augmentation=Augmentation(
            crop=24, hue=0.05, contrast=(0.3, 1.0), brightness=0.2, saturation=(0.0, 2.0)
        ),
    ),
    _notebook_softmax("notebook-affine", 1e-4, Initialiser(name="normal", stddev=0.01), held_out=_HELD_OUT),
    Workload(
        name="notebook-convnet",
        dataset="mnist",
        architecture=_GREY_CNN,
        optimizer=OptimizerSpec(
            name="rmsprop", learning_rate=1e-3, rho=0.9, epsilon=1e-10, initial_square=1.0
        ),
        loss="sum",
        held_out=_HELD_OUT,
    ),
    _notebook_softmax("notebook-softmax-save", 0.01, _ZEROS, held_out=_HELD_OUT),
)
"""The notebooks' workloads in the order of the notebooks: batches of 100, pixels / 255. See
`bench.recipes.catalog`."""

WORKLOADS: Mapping[str, Workload] = MappingProxyType(
    {
        workload.name: workload
        for workload in (
            _workload("mnist", "softmax", _SOFTMAX, 0.1),
            _workload("mnist", "mlp", _MLP, 0.1),
            _workload("mnist", "cnn", _GREY_CNN, 0.1),
            _workload("cifar10", "softmax", _SOFTMAX, 0.01),
            _workload("cifar10", "mlp", _MLP, 0.05),
            _workload("cifar10", "cnn", _COLOUR_CNN, 0.05),
            _workload("fashion-mnist", "softmax", _SOFTMAX, 0.1),
            _workload("fashion-mnist", "mlp", _MLP, 0.1),
            _workload("fashion-mnist", "cnn", _GREY_CNN, 0.1),
            _workload("cifar100", "softmax", _SOFTMAX, 0.01),
            _workload("cifar100", "mlp", _MLP, 0.05),
            _workload("cifar100", "cnn", _COLOUR_CNN, 0.05),
            *(
                _adam(dataset, network, architecture, matched=matched)
                for dataset, cnn in (("mnist", _GREY_CNN), ("cifar10", _COLOUR_CNN))
                for network, architecture in (("mlp", _MLP), ("cnn", cnn))
                for matched in (True, False)
            ),
            *NOTEBOOKS,
        )
    }
)

MAIN_WORKLOADS = tuple(
    name
    for name, workload in WORKLOADS.items()
    if workload.dataset in ("mnist", "cifar10")
    and workload.optimizer.name == "sgd"
    and workload not in NOTEBOOKS
)
"""The workloads that run if none is named."""


def find_workload(name: str) -> Workload:
    """Return the workload of that name; raise UsageError with the nearest name if there is none."""
    if name not in WORKLOADS:
        raise unknown("workload", name, list(WORKLOADS), "bench list shows all")
    return WORKLOADS[name]


def swept(workload: Workload, batch_size: int) -> Workload:
    """Return a workload with another batch size, named like `mnist-mlp@64`, and without a target."""
    name = f"{workload.name}{SWEPT}{batch_size}"
    return msgspec.structs.replace(workload, name=name, batch_size=batch_size, target_accuracy=None)


def base_name(workload: str) -> str:
    """Return the name without the batch size of a sweep."""
    return workload.partition(SWEPT)[0]
