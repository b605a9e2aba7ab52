"""Of processes that wait for each other, the one that all wait for is found, or it is said that it is not."""

import pytest

from bench.measuring.ranks import stuck
from bench.measuring.ranks.stuck import stuck_rank

UNKNOWN = 0, "which rank hangs cannot be told"


@pytest.mark.parametrize(
    ("heard", "expected"),
    [
        ([7, 5, 7], (1, "it has sent 5 events, and each of the others more")),
        ([5, 5, 7], UNKNOWN),
        ([7, 7, 7], UNKNOWN),
    ],
)
def test_the_one_that_is_behind_is_found(heard: list[int], expected: tuple[int, str]) -> None:
    assert stuck_rank([None, None, None], heard) == expected


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ([0.0, 0.9], (1, "it computes while the others wait")),
        ([0.2, 0.01], (0, "it computes while the others wait")),
        ([0.9, 0.9], UNKNOWN),
        ([0.01, 0.0], UNKNOWN),
        ([0.9, 0.0, 0.9], (1, "it is idle while the others wait in a loop")),
        ([0.9, 0.0, 0.0], (0, "it computes while the others wait")),
        ([0.9, 0.4, 0.0], (2, "it is idle while the others wait in a loop")),
        ([0.9, 0.4, 0.2], UNKNOWN),
        ([0.9, None], UNKNOWN),
    ],
)
def test_the_one_that_does_what_no_other_does_is_found(
    shares: list[float | None], expected: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stuck, "_cpu_shares", lambda _: shares)
    assert stuck_rank([None] * len(shares), [7] * len(shares)) == expected
