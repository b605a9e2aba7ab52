"""The conditions of jobs that ran one after another become those of their block."""

import msgspec
import pytest
from synthetic import make_conditions

from bench.analysis.disturbance import find_flags
from bench.machine.conditions import joined
from bench.machine.gpu import GpuReading

COOL = GpuReading(
    sm_clock_mhz=1980, temperature_c=40, power_w=100.0, clock_events=("gpu_idle",), foreign_processes=0
)


def test_shares_are_weighted_with_the_time_and_lists_follow_each_other():
    first = make_conditions(
        seconds=1.0, steal_share=0.4, foreign_share=0.0, throttled_share=None, canary_s=(1.0, 2.0),
        round_steal=(0.4,), load_average=3.0,
    )  # fmt: skip
    second = make_conditions(
        seconds=3.0, steal_share=0.0, foreign_share=0.2, canary_s=(3.0,), round_steal=(0.0, None),
        load_average=9.0,
    )  # fmt: skip
    found = joined([first, second])
    assert found.seconds == 4.0
    assert found.steal_share == pytest.approx(0.1)
    assert found.foreign_share == pytest.approx(0.15)
    assert found.throttled_share is None, "it is not known for a part of the time"
    assert (found.round_steal, found.canary_s) == ((0.4, 0.0, None), (1.0, 2.0, 3.0))
    assert found.load_average == 3.0
    assert joined([first]) == first


def test_what_disturbed_the_gpu_of_any_part_disturbs_the_block():
    hot = msgspec.structs.replace(COOL, clock_events=("hw_slowdown",), foreign_processes=2, temperature_c=90)
    unknown = msgspec.structs.replace(COOL, foreign_processes=None)
    found = joined([
        make_conditions(gpu_before=COOL, gpu_after=hot), make_conditions(gpu_before=unknown, gpu_after=COOL)
    ])  # fmt: skip
    assert found.gpu_before == COOL
    assert found.gpu_after == msgspec.structs.replace(
        COOL, clock_events=("gpu_idle", "hw_slowdown"), foreign_processes=2
    )
    assert [flag.words for flag in find_flags(found, None)] == [
        "the GPU lowered its clocks: a slowdown of the hardware",
        "2 processes that were not of this run used the GPU",
    ]


def test_without_a_gpu_there_are_no_readings():
    found = joined([make_conditions(), make_conditions()])
    assert (found.gpu_before, found.gpu_after) == (None, None)
    lost = joined([make_conditions(gpu_before=COOL, gpu_after=COOL), make_conditions()])
    assert lost.gpu_after is None
