"""Equal parameters have one digest, and others another, however small the difference."""

import numpy as np
import pytest

from bench.worker.digest import digest
from bench.workloads.parameters import Params


def params(**changes: object) -> Params:
    found = {
        "dense/kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
        "dense/bias": np.ones(3, np.float32),
    }
    return found | changes  # type: ignore[return-value]


def test_the_digest_does_not_depend_on_the_order_or_the_layout_in_memory() -> None:
    turned = {name: np.asfortranarray(value) for name, value in reversed(params().items())}
    assert digest(turned) == digest(params())
    assert len(digest(params())) == 64


@pytest.mark.parametrize(
    "other",
    [
        {"dense/bias": np.nextafter(np.ones(3, np.float32), np.float32(2))},
        {"dense/kernel": np.arange(6, dtype=np.float32).reshape(3, 2)},
        {"dense/kernel": np.arange(6, dtype=np.float32).reshape(2, 3)[::-1]},
        {"more": np.ones(1, np.float32)},
    ],
)
def test_any_difference_is_another_digest(other: Params) -> None:
    assert digest(params() | other) != digest(params())
