"""The error of a matrix product shows the precision that was really used."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from bench.workloads.specs import Precision

ROWS = 8
"""Rows of a large product that are computed again: enough to see its rounding, and quick in float64."""

BOUNDS: Mapping[Precision, tuple[float, float]] = MappingProxyType(
    {"fp32": (0.0, 1e-5), "tf32": (3e-5, 9e-4), "bf16": (9e-4, 2e-2)}
)
"""For each precision, the bounds of the error of a product of normal numbers with 2,000 to 8,000 terms.

float32 keeps 23 bits of mantissa, TF32 10 and bfloat16 7. The error of a sum grows with the root of the
number of terms, and so does the sum, so their ratio hardly depends on that number.
"""


def product_error(
    left: npt.NDArray[np.float32], right: npt.NDArray[np.float32], found: npt.NDArray[np.floating]
) -> float:
    """Return max|found - left right| / max|left right|, with the product in float64.

    `left` is (rows, n) and `right` (n, m), both before any rounding; `found` is (rows, m).
    """
    expected = left.astype(np.float64) @ right.astype(np.float64)
    return float(np.max(np.abs(found.astype(np.float64) - expected)) / np.max(np.abs(expected)))


def fits(error: float, precision: Precision) -> bool:
    """Whether a product with this error was computed in this precision, neither coarser nor finer."""
    low, high = BOUNDS[precision]
    return low <= error <= high
