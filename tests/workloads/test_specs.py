"""The records of what is trained: shapes worked out by hand, and unknown values refused."""

import msgspec
import pytest

from bench.workloads.specs import Architecture, Cell, ConvBlock, DatasetInfo, OptimizerSpec, Workload

GREY = DatasetInfo(name="mnist", image_shape=(28, 28, 1), classes=10)
OBLONG = DatasetInfo(name="noise", image_shape=(11, 8, 3), classes=7)


def test_softmax_regression_has_one_layer():
    assert Architecture().parameter_shapes(OBLONG) == {"logits/kernel": (264, 7), "logits/bias": (7,)}


def test_shapes_come_in_network_order():
    shapes = Architecture(convs=(ConvBlock(filters=4),), hidden=(6,)).parameter_shapes(GREY)
    assert list(shapes.items()) == [
        ("conv1/kernel", (5, 5, 1, 4)),
        ("conv1/bias", (4,)),
        ("dense1/kernel", (14 * 14 * 4, 6)),
        ("dense1/bias", (6,)),
        ("logits/kernel", (6, 10)),
        ("logits/bias", (10,)),
    ]


@pytest.mark.parametrize(
    ("blocks", "features"),
    [
        ((ConvBlock(filters=5, kernel=3, pool=3),), 3 * 2 * 5),  # rows and columns left over are dropped
        ((ConvBlock(filters=5, kernel=3, pool=2), ConvBlock(filters=6, kernel=3, pool=2)), 2 * 2 * 6),
        ((ConvBlock(filters=5, kernel=1, pool=1),), 11 * 8 * 5),
    ],
)
def test_pooling_divides_height_and_width(blocks, features):
    assert Architecture(convs=blocks).parameter_shapes(OBLONG)["logits/kernel"] == (features, 7)


def test_more_than_nine_layers_keep_their_order():
    names = list(Architecture(hidden=(2,) * 11).parameter_shapes(GREY))
    assert names[::2] == [f"dense{number}/kernel" for number in range(1, 12)] + ["logits/kernel"]


WORKLOAD = Workload(
    name="w",
    dataset="mnist",
    architecture=Architecture(convs=(ConvBlock(filters=3),), hidden=(4, 5)),
    optimizer=OptimizerSpec(name="adam", learning_rate=0.1),
)
CELL = Cell(workload="w", backend="b", mode="m", device="cpu", precision="fp32")


@pytest.mark.parametrize("record", [WORKLOAD, CELL, GREY], ids=lambda record: type(record).__name__)
def test_a_record_is_frozen_and_comes_back_from_json_as_it_was(record):
    again = msgspec.json.decode(msgspec.json.encode(record), type=type(record))
    assert again == record
    assert hash(again) == hash(record)
    with pytest.raises(AttributeError, match="immutable"):
        record.name = "another"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('{"name": "adagrad", "learning_rate": 0.1}', OptimizerSpec),
        ('{"name": "sgd"}', OptimizerSpec),
        ('{"name": "sgd", "learning_rate": "fast"}', OptimizerSpec),
        ('{"filters": 3.5}', ConvBlock),
        ('{"filters": 3, "kernel": 4}', ConvBlock),
        ('{"hidden": 5}', Architecture),
        ('{"name": "x", "image_shape": [28, 28], "classes": 10}', DatasetInfo),
        ('{"workload": "w", "backend": "b", "mode": "m", "device": "tpu", "precision": "fp32"}', Cell),
        ('{"workload": "w", "backend": "b", "mode": "m", "device": "cpu", "precision": "fp64"}', Cell),
    ],
)
def test_an_impossible_value_is_refused(text, kind):
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=kind)


def test_a_cell_reads_as_the_report_writes_it():
    assert str(CELL) == "w b/m cpu fp32"
