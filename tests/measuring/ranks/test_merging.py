"""One event of a job from those of its ranks: times of the slowest, sums of memory, and agreement."""

import math

import pytest

from bench.measuring.ranks.merging import RanksDifferError, merged
from bench.records.schema import EpochPoint, ParityCheck, Proof, Window
from bench.worker.protocol import (
    Built,
    Described,
    DeviceMemory,
    Digested,
    Evaluated,
    Event,
    FirstStep,
    Memory,
    Proven,
    Ready,
    Timed,
    Verified,
    WarmedUp,
)  # fmt: skip
from bench.workloads.specs import Cell

CELL = Cell(workload="w", backend="b", mode="m", device="cpu", precision="fp32", ranks=2)


def window(seconds: float, energy_j: float | None = None, steps: int = 5) -> Window:
    return Window(steps=steps, samples=20 * steps, seconds=seconds, energy_j=energy_j)


def proof(error: float, loss_errors: tuple[float, ...]) -> Proof:
    checks = (check("loss", error), check("change", 1e-6))
    return Proof(after_windows=False, steps=2, checks=checks, seconds=error, loss_errors=loss_errors)


def check(kind: str, error: float) -> ParityCheck:
    return ParityCheck(kind=kind, error=error, tolerance=1.0, worst=f"at {error}")  # type: ignore[arg-type]


def point(train_s: float, steps: int = 10) -> Evaluated:
    found = EpochPoint(
        epoch=1.0, steps=steps, train_s=train_s, train_loss=0.5, test_loss=0.5, test_accuracy=0.9
    )
    return Evaluated(point=found, of_epochs=2.0)


def test_a_time_is_that_of_the_slowest_rank() -> None:
    assert merged([FirstStep(first_step_s=1.0), FirstStep(first_step_s=3.0)], [0]) == FirstStep(
        first_step_s=3.0
    )
    assert merged([Built(build_s=2.0), Built(build_s=1.0)], [0]) == Built(build_s=2.0)
    ready = [Ready(step_s=seconds, call_steps=1, again=True) for seconds in (0.1, 0.2)]
    assert merged(ready, [0]) == ready[1]
    timed = merged([Timed(window=window(2.0), lead_s=0.3), Timed(window=window(1.0), lead_s=0.4)], [0])
    assert timed == Timed(window=window(2.0), lead_s=0.4)
    assert merged([point(2.0), point(3.0)], [0]) == point(3.0)


@pytest.mark.parametrize(("meters", "energy_j"), [([0], 3.0), ([0, 1], 7.0), ([1], 4.0)])
def test_energy_is_added_up_over_the_ranks_that_have_a_meter_of_their_own(
    meters: list[int], energy_j: float
) -> None:
    found = merged([WarmedUp(window=window(1.0, 3.0)), WarmedUp(window=window(1.0, 4.0))], meters)
    assert found == WarmedUp(window=window(1.0, energy_j))


def test_energy_that_one_rank_does_not_know_is_not_known() -> None:
    found = merged([WarmedUp(window=window(1.0, 3.0)), WarmedUp(window=window(1.0))], [0, 1])
    assert found == WarmedUp(window=window(1.0))


def test_memory_is_a_sum() -> None:
    method = "VmHWM"
    found = merged([Memory(peak_rss_bytes=size, peak_rss_method=method) for size in (3, 4)], [0])
    assert found == Memory(peak_rss_bytes=7, peak_rss_method=method)
    assert merged([DeviceMemory(process_device_bytes=3), DeviceMemory(process_device_bytes=4)], [0]) == (
        DeviceMemory(process_device_bytes=7)
    )
    assert merged([DeviceMemory(process_device_bytes=3), DeviceMemory(process_device_bytes=None)], [0]) == (
        DeviceMemory(process_device_bytes=None)
    )


def test_facts_are_those_of_rank_0_with_the_memory_of_all() -> None:
    facts = [{"device": "gpu", "rank": rank, "peak_device_bytes": 5 + rank} for rank in range(2)]
    found = merged([Described(facts=one) for one in facts], [0])
    assert found == Described(facts={"device": "gpu", "rank": 0, "peak_device_bytes": 11})


def test_an_error_is_the_largest_of_the_ranks() -> None:
    found = merged([Proven(proof=proof(0.1, (1e-7, 3e-7))), Proven(proof=proof(0.2, (2e-7, 1e-7)))], [0])
    assert found == Proven(proof=proof(0.2, (2e-7, 3e-7)))
    verified = [
        Verified(cell=CELL, optimizer="sgd", status="ok", error=None, checks=(check("loss", error),))
        for error in (math.nan, 0.5)
    ]
    worst = merged(verified, [0])
    assert isinstance(worst, Verified)
    assert math.isnan(worst.checks[0].error)


def test_one_rank_is_as_it_is() -> None:
    event = Timed(window=window(1.0, 3.0), lead_s=None)
    assert merged([event], [0]) is event


@pytest.mark.parametrize(
    ("events", "said", "status"),
    [
        ([Built(build_s=1.0), FirstStep(first_step_s=1.0)], "it sent FirstStep, and rank 0 Built", "failed"),
        ([Built(build_s=1.0), Built(build_s=1.0, call_steps=8)], "its steps of a call are 8", "failed"),
        ([WarmedUp(window=window(1.0)), WarmedUp(window=window(1.0, steps=6))], "its steps are 6", "failed"),
        ([point(1.0), point(1.0, steps=11)], "its steps are 11", "failed"),
        ([Digested(sha256="a"), Digested(sha256="b")], "its parameters differ", "not_comparable"),
    ],
)
def test_ranks_that_do_not_agree_are_an_error_of_the_first_that_differs(
    events: list[Event], said: str, status: str
) -> None:
    with pytest.raises(RanksDifferError, match=said) as differ:
        merged([events[0], *events], [0])
    assert (differ.value.rank, differ.value.status) == (2, status)
