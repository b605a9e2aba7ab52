"""The analytic count of a step's work, against figures worked by hand and against loops that count."""

import math
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bench.datasets.catalog import DATASETS
from bench.workloads.catalog import WORKLOADS
from bench.workloads.flops import step_work, training_flops
from bench.workloads.specs import Architecture, ConvBlock, DatasetInfo, OptimizerSpec, Workload, is_statistic

SOFTMAX = Architecture()
TINY = DatasetInfo(name="tiny", image_shape=(4, 4, 1), classes=3)

architectures = st.builds(
    Architecture,
    convs=st.lists(
        st.builds(
            ConvBlock,
            filters=st.integers(1, 3),
            kernel=st.sampled_from((1, 3, 5)),
            pool=st.integers(1, 2),
        ),
        max_size=2,
    ).map(tuple),
    hidden=st.lists(st.integers(1, 4), max_size=2).map(tuple),
)
infos = st.builds(
    DatasetInfo,
    name=st.just("tiny"),
    image_shape=st.tuples(st.integers(4, 6), st.integers(4, 6), st.integers(1, 2)),
    classes=st.integers(2, 4),
)
optimizers = st.sampled_from(("sgd", "momentum", "adam", "rmsprop"))


def workload_of(
    architecture: Architecture = SOFTMAX, *, batch_size: int = 1, optimizer: str = "sgd"
) -> Workload:
    return Workload(
        name="tiny-net",
        dataset="tiny",
        architecture=architecture,
        optimizer=OptimizerSpec(name=optimizer, learning_rate=0.1),  # type: ignore[arg-type]
        batch_size=batch_size,
    )


def counted_by_loops(architecture: Architecture, info: DatasetInfo, batch_size: int) -> int:
    """Count every multiply-add of forward, weight gradient and input gradient, one at a time."""
    count = 0
    height, width, channels = info.image_shape
    first = True
    for _ in range(batch_size):
        h, w, c, first = height, width, channels, True
        for block in architecture.convs:
            taps = range(block.kernel)
            for _output in product(range(h), range(w), range(block.filters), taps, taps, range(c)):
                count += 2  # forward: multiply, add
                count += 2  # the same pair, for the gradient by the kernel
                count += 0 if first else 2  # and for the gradient by the input
            h, w, c, first = h // block.pool, w // block.pool, block.filters, False
        features = h * w * c
        for units in (*architecture.hidden, info.classes):
            for _pair in product(range(features), range(units)):
                count += 4 if first else 6
            features, first = units, False
    return count


@given(architectures, infos, st.integers(1, 2))
def test_products_are_those_that_loops_count(architecture, info, batch_size):
    assert training_flops(architecture, info, batch_size) == counted_by_loops(architecture, info, batch_size)


@pytest.mark.parametrize(
    ("architecture", "products", "outside", "parameters", "floats"),
    [
        # 48 weights: 2 * 48 forward and as many for the weights' gradient; none for the images' gradient.
        # Outside: 3 biases added, 3 summed. 3 logits.
        pytest.param(SOFTMAX, 2 * 48 + 2 * 48, 3 + 3, 51, 3, id="softmax"),
        # conv 3x3 1->2 on 4x4: 16 * 18 = 288 multiplications; pooled to 2x2x2 = 8; dense 8 -> 3: 24.
        pytest.param(
            Architecture(convs=(ConvBlock(filters=2, kernel=3, pool=2),)),
            2 * (2 * 288 + 3 * 24), (2 * 32 + 2 * 32 + 2 * 8 * 3) + 2 * 3, 18 + 2 + 24 + 3, 32 + 8 + 3,
            id="convolution and pooling",
        ),
        # A hidden layer has ReLU, the classifier has none.
        pytest.param(
            Architecture(hidden=(5,)), 2 * (2 * 80 + 3 * 15), 2 * 5 + 2 * 5 + 2 * 3, 85 + 18, 5 + 3,
            id="hidden",
        ),
    ],
)  # fmt: skip
def test_the_work_of_a_step_by_hand(architecture, products, outside, parameters, floats):
    work = step_work(workload_of(architecture, batch_size=2), TINY)
    assert work.products == 2 * products
    # Each image: 16 pixels scaled, 13 for softmax cross-entropy, 7 for its gradient. Each parameter: 2.
    assert work.everything == work.products + 2 * (16 + outside + 13 + 7) + 2 * parameters
    # 17 bytes of each image are read. Each output and its gradient, each parameter and its gradient: twice.
    assert work.least_bytes == 2 * 17 + 4 * (2 * 4 * floats + 4 * parameters)
    assert work.intensity == work.products / work.least_bytes


@pytest.mark.parametrize(
    ("optimizer", "operations", "slots"),
    [("sgd", 2, 0), ("momentum", 4, 1), ("rmsprop", 9, 1), ("adam", 14, 2)],
)
def test_an_optimizer_costs_what_its_formula_says(optimizer, operations, slots):
    plain, found = step_work(workload_of(), TINY), step_work(workload_of(optimizer=optimizer), TINY)
    assert found.products == plain.products
    assert found.everything - plain.everything == (operations - 2) * 51
    assert found.least_bytes - plain.least_bytes == 4 * 2 * slots * 51


@given(architectures, infos, st.integers(1, 64), st.integers(2, 5), optimizers)
def test_work_grows_with_the_batch_as_it_must(architecture, info, batch_size, times, optimizer):
    one = step_work(workload_of(architecture, batch_size=batch_size, optimizer=optimizer), info)
    more = step_work(workload_of(architecture, batch_size=times * batch_size, optimizer=optimizer), info)
    assert more.products == times * one.products
    assert one.everything < more.everything < times * one.everything  # the update is paid once a step
    assert one.least_bytes < more.least_bytes < times * one.least_bytes
    assert more.intensity > one.intensity
    assert 0 < one.products < one.everything


def test_parameters_are_counted_as_the_architecture_says():
    for workload in WORKLOADS.values():
        info = DATASETS[workload.dataset].info
        shapes = workload.architecture.parameter_shapes(workload.seen(info))
        parameters = sum(math.prod(shape) for name, shape in shapes.items() if not is_statistic(name))
        plain, adam = (
            step_work(replace(workload, optimizer=OptimizerSpec(name=name, learning_rate=0.1)), info)
            for name in ("sgd", "adam")
        )
        assert adam.everything - plain.everything == 12 * parameters


def test_batch_norm_costs_work_and_traffic_and_no_product():
    info = DATASETS["cifar10"].info
    plain = WORKLOADS["cifar10-cnn"]
    blocks = tuple(replace(block, normalise=True) for block in plain.architecture.convs)
    normalised = replace(plain, architecture=replace(plain.architecture, convs=blocks))
    one, other = step_work(plain, info), step_work(normalised, info)
    assert other.products == one.products
    outputs = 64 * (32 * 32 + 16 * 16)
    # 18 more operations for each output and image, and one more parameter for each of 128 filters.
    assert other.everything - one.everything == 18 * outputs * plain.batch_size + 2 * 128
    assert other.least_bytes > one.least_bytes


def test_augmented_images_count_at_their_cropped_size():
    notebook = WORKLOADS["notebook-cifar-cnn"]
    found = step_work(notebook, DATASETS["cifar10"].info).products
    weights = (75 * 64 * 24 * 24, 25 * 64 * 64 * 12 * 12, 2304 * 256, 256 * 128, 128 * 10)
    assert found == 100 * (6 * sum(weights) - 2 * weights[0])
