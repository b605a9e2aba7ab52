"""Which blocks something else disturbed, and which of them are dropped."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import make_block, make_cell, make_conditions

from bench.analysis import disturbance as taint
from bench.analysis.disturbance import dropped_blocks, find_flags, in_quiet_rounds, is_quiet, run_canary
from bench.machine.conditions import Conditions, Taken
from bench.machine.gpu import GpuReading
from bench.records.schema import BlockRecord, Window

CELLS = (make_cell(), make_cell(backend="jax", mode="jit"))
SHARES = st.one_of(st.none(), st.floats(0, 1))


def words(conditions: Conditions, run_canary_s: float | None) -> tuple[str, ...]:
    return tuple(flag.words for flag in find_flags(conditions, run_canary_s))


def reading(*events: str, foreign: int | None = 0) -> GpuReading:
    return GpuReading(
        sm_clock_mhz=1980, temperature_c=50, power_w=300.0, clock_events=events, foreign_processes=foreign
    )


# ---- one block


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        (
            {"round_steal": (0.3,) * 31 + (0.1,) * 9},
            "the hypervisor gave more than 10 % of CPU time to others in 31 of 40 rounds",
        ),
        (
            {"throttled_share": 0.014},
            "the quota of CPU time held the jobs back 1.4 % of the time, more than 1 %",
        ),
        ({"foreign_share": 0.412}, "other programs used 41.2 % of CPU time, more than 10 %"),
        ({"foreign_share": None}, "this system does not tell how much CPU time other programs used"),
        (
            {"canary_s": (0.02, 0.013, 0.012)},
            "the canary took 1.30 times as long as in the run, more than 1.25 times",
        ),
        ({"gpu_before": reading("hw_slowdown")}, "the GPU lowered its clocks: a slowdown of the hardware"),
        (
            {"gpu_before": reading("gpu_idle"), "gpu_after": reading("sw_thermal_slowdown")},
            "the GPU lowered its clocks: heat, by the driver",
        ),
        ({"gpu_after": reading(foreign=2)}, "2 processes that were not of this run used the GPU"),
    ],
)
def test_what_disturbs_a_block_is_said_with_its_value_and_the_threshold(conditions, said):
    assert words(make_conditions(**conditions), 0.01) == (said,)


@pytest.mark.parametrize(
    "conditions",
    [
        {},
        {"round_steal": (0.10,) * 20},
        {"throttled_share": 0.01},
        {"foreign_share": 0.10},
        {"pressure_share": 1.0},  # the jobs' own threads wait for a CPU, too
        {"load_average": 99.0},
        {"canary_s": (0.05, 0.0125, 0.0100)},  # the median counts, not a single one
        {"steal_share": None, "throttled_share": None, "canary_s": ()},
        {"gpu_before": reading("gpu_idle", "applications_clocks_setting", foreign=None)},
    ],
)
def test_what_is_no_disturbance_has_no_flag(conditions):
    assert words(make_conditions(**conditions), 0.01) == ()


def test_without_a_canary_in_the_run_none_is_judged():
    assert words(make_conditions(canary_s=(9.0,)), None) == ()
    assert run_canary([make_block(CELLS, canary_s=())]) is None


def test_the_runs_canary_is_the_median_of_the_blocks():
    blocks = [
        make_block(CELLS, block, canary_s=(value, 9 * value, value)) for block, value in enumerate((1, 2, 7))
    ]
    assert run_canary(blocks) == 2


def test_a_check_without_a_value_is_told_from_a_disturbance():
    unknown = make_block(CELLS, 0, foreign_share=None)
    loud = make_block(CELLS, 1, foreign_share=0.5)
    both = make_block(CELLS, 2, foreign_share=None, throttled_share=0.5)
    found = dropped_blocks([unknown, loud, both], 3)["mnist-cnn"]
    assert set(found.tainted) == {0, 1, 2}
    assert found.unmeasured == {0}
    assert found.disturbed


def test_what_was_disturbed_is_dropped_before_what_may_have_been():
    blocks = [make_block(CELLS, block, foreign_share=None) for block in range(4)]
    blocks.append(make_block(CELLS, 4, foreign_share=0.2))
    assert dropped_blocks(blocks, 3)["mnist-cnn"].dropped == {4}


# ---- which blocks are dropped


def run_of(count: int, disturbed: dict[int, float], workload: str = "mnist-cnn"):
    """Return blocks of which some had that share of the CPUs used by other programs."""
    cells = (make_cell(workload),)
    return [make_block(cells, block, foreign_share=disturbed.get(block, 0.0)) for block in range(count)]


@pytest.mark.parametrize(
    ("count", "min_blocks", "dropped"),
    [
        (4, 1, set()),  # a fifth of four is none
        (5, 1, {3}),
        (9, 1, {3}),
        (10, 1, {3, 1}),
        (10, 9, {3}),
        (10, 10, set()),
        (10, 12, set()),
    ],
)
def test_the_worst_are_dropped_a_fifth_at_most_and_not_below_what_is_needed(count, min_blocks, dropped):
    blocks = run_of(count, {0: 0.2, 1: 0.3, 3: 0.5})
    found = dropped_blocks(blocks, min_blocks)["mnist-cnn"]
    assert found.dropped == dropped
    assert set(found.tainted) == {0, 1, 3}
    assert set(found.staying) == {0, 1, 3} - dropped
    assert found.blocks == count


def test_how_bad_a_block_is_is_measured_in_thresholds():
    blocks = run_of(5, {0: 0.5})
    # six times its threshold; the other flag of the block is less
    blocks[2] = make_block((make_cell(),), 2, throttled_share=0.06, foreign_share=0.11)
    assert dropped_blocks(blocks, 1)["mnist-cnn"].dropped == {2}


@pytest.mark.parametrize(
    ("count", "disturbed", "said"),
    [(6, 3, False), (6, 4, True), (5, 3, False), (5, 4, True), (1, 1, True), (2, 1, False)],
)
def test_a_workload_is_disturbed_where_more_than_half_of_what_is_kept_is(count, disturbed, said):
    blocks = run_of(count, dict.fromkeys(range(disturbed), 0.5))
    assert dropped_blocks(blocks, 1)["mnist-cnn"].disturbed == said


def test_workloads_are_screened_apart_by_the_canary_of_the_whole_run():
    slow = [
        msgspec.structs.replace(one, conditions=make_conditions(canary_s=(0.02,)))
        for one in run_of(3, {}, "mnist-mlp")
    ]
    found = dropped_blocks([*run_of(5, {4: 0.5}), *slow], 1)
    assert found["mnist-cnn"].dropped == {4}
    assert set(found["mnist-mlp"].tainted) == {0, 1, 2}
    assert found["mnist-mlp"].disturbed


def test_of_a_block_that_was_run_again_the_last_record_counts():
    first = make_block(CELLS, 0, foreign_share=0.9)
    again = msgspec.structs.replace(make_block(CELLS, 0), started_at="2026-05-02T10:00:00Z")
    for blocks in ([first, again], [again, first]):
        found = dropped_blocks(blocks, 1)["mnist-cnn"]
        assert (found.blocks, dict(found.tainted)) == (1, {})


def test_a_run_without_blocks_has_no_screening():
    assert dropped_blocks([], 3) == {}


@given(st.lists(st.tuples(SHARES, SHARES, SHARES), min_size=1, max_size=25), st.integers(1, 10), st.randoms())
def test_never_more_than_a_fifth_is_dropped_whatever_the_order_of_the_records(shares, min_blocks, random):
    blocks = [
        make_block(CELLS, block, steal_share=steal, throttled_share=throttled, foreign_share=foreign)
        for block, (steal, throttled, foreign) in enumerate(shares)
    ]
    found = dropped_blocks(blocks, min_blocks)["mnist-cnn"]
    assert len(found.dropped) <= len(blocks) / 5
    assert not found.dropped or len(blocks) - len(found.dropped) >= min_blocks
    assert found.dropped <= set(found.tainted)
    random.shuffle(blocks)
    assert dropped_blocks(blocks, min_blocks)["mnist-cnn"] == found


def test_the_screening_cannot_see_a_rate():
    # The module names no record that holds one.
    source = Path(taint.__file__).read_text(encoding="utf-8")
    assert "JobRecord" not in source
    assert "Window" not in source


# ---- rounds


def rounds_of(*foreign: float | None, steal: float = 0.0, **others: object) -> Conditions:
    """Return the conditions of a block in whose rounds other programs used these shares."""
    return make_conditions(round_steal=(steal,) * len(foreign), round_foreign=foreign, **others)


def loud_in(rounds: int, *, of: int = 40) -> Conditions:
    return rounds_of(*(0.3 if number < rounds else 0.0 for number in range(of)))


def test_a_block_is_judged_by_the_rounds_that_are_kept_and_not_by_its_whole_time():
    kept = msgspec.structs.replace(loud_in(30), foreign_share=0.9)
    assert words(kept, None) == ()
    (said,) = words(loud_in(31), None)
    assert said == "other programs used more than 10 % of CPU time, or half a core, in 31 of 40 rounds"


def test_a_round_is_disturbed_by_other_programs_as_by_the_hypervisor():
    taken = [Taken(0.1, 0.1), Taken(None, None), Taken(0.11, 0.0), Taken(0.0, 0.11)]
    assert [is_quiet(one) for one in taken] == [True, True, False, False]
    both = make_conditions(round_steal=(0.2, 0.0, 0.2, 0.2), round_foreign=(0.0, 0.3, 0.0, 0.0))
    assert words(both, None) == (
        "the hypervisor gave more than 10 % of CPU time to others or other programs used more than 10 % of "
        "CPU time, or half a core, in 4 of 4 rounds",
    )


def test_the_windows_of_rounds_that_other_programs_disturbed_are_left_out():
    windows = [
        Window(steps=number, samples=100, seconds=0.1, round_steal=0.0, round_foreign=share)
        for number, share in enumerate((0.0, 0.4, 0.05, None))
    ]
    assert [window.steps for window in in_quiet_rounds(windows)] == [0, 2, 3]


def test_a_kept_round_of_which_nothing_is_known_makes_the_block_unknown():
    unknown = ("this system does not tell how much CPU time other programs used",)
    assert words(rounds_of(0.0, None, 0.0), None) == unknown
    assert words(rounds_of(None, None), None) == unknown
    left_out = make_conditions(round_steal=(0.5, 0.0), round_foreign=(None, 0.0))
    assert words(left_out, None) == ()


def test_only_the_canaries_of_kept_rounds_are_judged():
    slow = (0.02, 0.02, 0.02, 0.01, 0.01, 0.01)  # before each round and after the last
    loud = rounds_of(0.4, 0.4, 0.4, 0.0, 0.0, canary_s=slow)
    assert words(loud, 0.01) == ()
    assert run_canary([make_block(CELLS, round_steal=loud.round_steal, round_foreign=loud.round_foreign,
                                  canary_s=slow)]) == 0.01  # fmt: skip
    kept = rounds_of(0.0, 0.0, 0.0, 0.4, 0.4, canary_s=slow)
    assert words(kept, 0.01) == ("the canary took 2.00 times as long as in the run, more than 1.25 times",)
    not_in_turns = rounds_of(0.4, 0.4, 0.4, 0.0, 0.0, canary_s=(*slow, 0.02, 0.02, 0.02))
    assert len(words(not_in_turns, 0.01)) == 1, "all canaries count"


def lost_blocks(count: int, lost: set[int]) -> list[BlockRecord]:
    return [
        msgspec.structs.replace(make_block(CELLS, block), conditions=loud_in(40 if block in lost else 0))
        for block in range(count)
    ]


@pytest.mark.parametrize(
    ("count", "lost", "min_blocks", "dropped"),
    [
        (3, {0}, 3, set()),
        (4, {0}, 3, {0}),
        (5, {0, 3}, 3, {0, 3}),
        (5, {0, 1, 3}, 2, {0, 1}),  # at most half
        (6, {0, 1, 3}, 3, {0, 1, 3}),
    ],
)
def test_blocks_without_quiet_rounds_are_dropped_as_soon_as_others_replace_them(
    count, lost, min_blocks, dropped
):
    found = dropped_blocks(lost_blocks(count, lost), min_blocks)["mnist-cnn"]
    assert (found.lost, found.dropped) == (lost, dropped)


def test_a_fifth_of_the_blocks_may_be_dropped_for_lack_of_rounds_and_other_reasons_together():
    blocks = lost_blocks(10, {0})
    for number in (2, 5):
        blocks[number] = msgspec.structs.replace(
            blocks[number], conditions=msgspec.structs.replace(loud_in(0), throttled_share=0.5)
        )
    found = dropped_blocks(blocks, 3)["mnist-cnn"]
    assert found.dropped == {0, 2}
    assert found.lost == {0}


def test_a_block_of_an_older_record_is_not_lost():
    old = make_block(CELLS, round_steal=(0.9,) * 20)
    assert dropped_blocks([old], 1)["mnist-cnn"].lost == frozenset()


def windows_in(*steals: float | None) -> list[Window]:
    return [
        Window(steps=place, samples=100, seconds=0.1, round_steal=one) for place, one in enumerate(steals)
    ]


def test_windows_of_disturbed_rounds_are_left_out_whatever_they_say():
    windows = windows_in(0.0, 0.11, 0.1, None, 0.5)
    assert [window.steps for window in in_quiet_rounds(windows)] == [0, 2, 3]


def test_where_too_few_rounds_are_quiet_none_is_left_out_and_the_block_is_tainted():
    steals = (0.0, 0.3, 0.3, 0.3, 0.3)
    assert in_quiet_rounds(windows_in(*steals)) == windows_in(*steals)
    assert len(words(make_conditions(round_steal=steals), None)) == 1
    assert words(make_conditions(round_steal=steals[:4]), None) == ()
    assert len(in_quiet_rounds(windows_in(*steals[:4]))) == 1


def test_without_windows_there_is_nothing_to_leave_out():
    assert in_quiet_rounds([]) == []
    assert words(make_conditions(round_steal=()), None) == ()
