"""What the workloads of a run train, for the page's section on how it was measured."""

import math
from collections.abc import Iterator

from bench.datasets.catalog import DATASETS
from bench.records.runs import Run
from bench.records.schema import RunHeader
from bench.report.blocks import Block, Heading, Paragraph, Table
from bench.report.format import NOTHING, TIMES
from bench.workloads.specs import Architecture, OptimizerSpec, Workload

_HEADS = ("workload", "training images", "network", "parameters", "images in a batch", "optimizer")


def workloads(run: Run) -> list[Block]:
    """Return a table of the run's workloads, from their records; nothing if it has none."""
    header = run.header
    if not header.workloads:
        return []
    return [
        Heading(text="The workloads", level=3),
        Paragraph(
            text=f'The layers of a network, first to last: "5{TIMES}5 to 32, pool 2" is a convolution with a '
            f"kernel of 5{TIMES}5 and 32 outputs, then max-pooling by 2; a number alone is a dense layer of "
            "so many units. ReLU follows every layer but the last. The loss is the softmax cross-entropy."
        ),
        Table(
            heads=_HEADS,
            rows=tuple(_row(one, header) for one in header.workloads),
            numbers=frozenset({3, 4}),
            tags=tuple({"workload": one.name} for one in header.workloads),
        ),
    ]


def _row(workload: Workload, header: RunHeader) -> tuple[str, ...]:
    spec = DATASETS.get(workload.dataset)
    images, parameters, classes = workload.dataset, NOTHING, None
    if spec is not None:
        info = workload.seen(spec.info)
        shapes = workload.architecture.parameter_shapes(info).values()
        parameters, classes = f"{sum(map(math.prod, shapes)):,}", info.classes
        images = f"{_count(workload, spec.train_size, header)} of {TIMES.join(map(str, info.image_shape))}"
    return (
        workload.name,
        images,
        "; ".join(_layers(workload.architecture, classes)),
        parameters,
        str(workload.batch_size),
        _optimizer(workload.optimizer, matched=workload.matched),
    )


def _count(workload: Workload, size: int, header: RunHeader) -> str:
    """Return how many images an epoch has."""
    if header.sample:
        return "a small set"
    left = size - workload.held_out
    return f"{left if header.dataset_limit is None else min(left, header.dataset_limit):,}"


def _layers(architecture: Architecture, classes: int | None) -> Iterator[str]:
    for block in architecture.convs:
        normalised = " normalised" if block.normalise else ""
        pooled = f", pool {block.pool}" if block.pool > 1 else ""
        yield f"{block.kernel}{TIMES}{block.kernel} to {block.filters}{normalised}{pooled}"
    for units in (*architecture.hidden, *(() if classes is None else (classes,))):
        yield str(units)


def _optimizer(optimizer: OptimizerSpec, *, matched: bool) -> str:
    rate = f"{optimizer.name}, rate {optimizer.learning_rate:g}"
    return rate if matched else f"{rate}, other constants as the framework's own"
