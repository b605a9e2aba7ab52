"""What an exception in a worker means."""

import pytest

from bench.errors import ContractError, DataError, NanLossError, UnavailableError, WrongDeviceError
from bench.worker.failures import in_a_line, status_of


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MemoryError(), "out_of_memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "out_of_memory"),
        (RuntimeError("RESOURCE_EXHAUSTED: failed"), "out_of_memory"),
        (OSError(12, "Cannot allocate memory"), "out_of_memory"),
        (ImportError("No module named 'x'"), "failed"),
        (UnavailableError("no bf16 here"), "unavailable"),
        (NanLossError("lost"), "nan_loss"),
        (WrongDeviceError("elsewhere"), "wrong_device"),
        (ContractError("lacks predict"), "failed"),
        (DataError("digest"), "failed"),
        (ValueError("shapes"), "failed"),
    ],
)
def test_every_error_has_a_status(error: Exception, status: str) -> None:
    assert status_of(error) == status


def test_an_error_is_one_short_line() -> None:
    said = in_a_line(ValueError("a\n  b\n" + "c" * 1000))
    assert said.startswith("ValueError: a b ccc")
    assert len(said) == 300
