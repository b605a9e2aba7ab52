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
        (RuntimeError("RESOURCE_EXHAUSTED: /tmp/x; No space left on device"), "failed"),
    ],
)
def test_every_error_has_a_status(error: Exception, status: str) -> None:
    assert status_of(error) == status


def test_an_error_is_one_short_line() -> None:
    said = in_a_line(ValueError("a\n  b\n" + "c" * 1000))
    assert said.startswith("ValueError: a b ccc")
    assert len(said) == 300


def test_a_full_disk_is_told_with_its_size_whoever_met_it() -> None:
    said = in_a_line(
        RuntimeError("InductorError: OSError: [Errno 28] No space left on device: " + "x" * 1000)
    )
    assert said.startswith("RuntimeError: InductorError: OSError: [Errno 28] No space left on device: xxx")
    assert "Look at the temporary folder /" in said
    assert " are free)" in said
