"""The error of a product tells how many bits its inputs kept."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.workloads.precision import BOUNDS, fits, product_error

MANTISSA = {"fp32": 23, "tf32": 10, "bf16": 7}


def rounded(values: np.ndarray, bits: int) -> np.ndarray:
    """Return float32 values with so many bits of mantissa, rounded to nearest."""
    mantissa, exponent = np.frexp(values)
    scale = 2.0 ** (bits + 1)
    return np.ldexp(np.round(mantissa * scale) / scale, exponent).astype(np.float32)


def error_of(precision: str, side: int, seed: int) -> float:
    """Return the error of a product as a device of that precision computes it."""
    rng = np.random.default_rng(seed)
    left, right = (rng.standard_normal(shape, dtype=np.float32) for shape in ((8, side), (side, 60)))
    bits = MANTISSA[precision]
    found = rounded(left, bits) @ rounded(right, bits)
    return product_error(left, right, rounded(found, bits) if precision == "bf16" else found)


@settings(max_examples=15)
@given(side=st.sampled_from([2048, 8192]), seed=st.integers(0, 2**32 - 1))
def test_every_precision_fits_itself_and_no_other(side: int, seed: int) -> None:
    for precision in MANTISSA:
        error = error_of(precision, side, seed)
        assert [one for one in BOUNDS if fits(error, one)] == [precision], f"{precision}: {error:.1e}"


def test_an_exact_product_has_no_error() -> None:
    left, right = np.eye(8, 20, dtype=np.float32), np.ones((20, 5), np.float32)
    assert product_error(left, right, left @ right) == 0.0


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_product_that_is_no_number_fits_nothing(broken: float) -> None:
    left, right = np.eye(8, 20, dtype=np.float32), np.ones((20, 5), np.float32)
    error = product_error(left, right, np.full((8, 5), broken))
    assert not any(fits(error, precision) for precision in BOUNDS)
