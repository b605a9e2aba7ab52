"""Two runs are compared: what got worse is named, and nothing that is unknown passes."""

import math

import msgspec
import pytest
from synthetic import make_cell, make_parity, make_workload
from two_runs import BLOCKS, CELL, LEARNED, OTHER, finding, kinds, make_jobs, make_side, only

from bench.gate.compare import MOST_DRIFT, compare
from bench.records.runs import Run
from bench.records.schema import BlockRecord, UnmeasuredRecord, Window
from bench.workloads.specs import Architecture, OptimizerSpec

LOUD = {"foreign_share": 0.5}
BASE = make_side(make_jobs())


def base_and(*head_groups, **head) -> tuple[Run, Run]:
    return BASE, make_side(*head_groups, run_id="head", **head)


# Speed


@pytest.mark.parametrize(
    ("factor", "kind", "outcome"),
    [
        (0.9, "worse", "regression"),
        (1.1, "better", "fine"),
        (1.0, "same", "fine"),
        (0.96, "worse", "regression"),
    ],
)
def test_a_change_of_speed_is_called_by_its_name(factor, kind, outcome):
    compared = compare(*base_and(make_jobs(factor, seed=1)))
    one = only(compared)
    speed = finding(one, "speed")
    assert (speed.kind, one.conclusion, compared.conclusion) == (kind, outcome, outcome)
    assert speed.low < factor - 1 < speed.high
    assert speed.base == pytest.approx(1000, rel=0.02)
    assert speed.head == pytest.approx(1000 * factor, rel=0.02)
    low, high = speed.detectable
    assert 0 < low < high < 0.1
    assert speed.values == BLOCKS
    assert ("speed got worse" in one.why) == (outcome == "regression")


def test_scatter_as_large_as_the_tolerance_is_undecided():
    one = only(compare(make_side(make_jobs(scatter=0.1)), make_side(make_jobs(scatter=0.1, seed=1))))
    assert finding(one, "speed").kind == "undecided"
    assert (one.conclusion, one.why) == ("undecided", "speed undecided")


@pytest.mark.parametrize("blocks", [0, 1, 2])
@pytest.mark.parametrize("fewest", [1, 3])
@pytest.mark.parametrize("short", ["base", "head", "both"])
def test_too_few_blocks_on_any_side_never_pass(blocks, fewest, short):
    """However many blocks the runs themselves ask for."""
    sides = [
        make_side(
            make_jobs(blocks=blocks if short in (name, "both") else BLOCKS), planned=[CELL], min_blocks=fewest
        )
        for name in ("base", "head")
    ]
    # A base that never tried has nothing to lose; that alone does not pass either.
    assert compare(*sides).conclusion == "undecided"


@pytest.mark.parametrize("short", [0, 1])
def test_a_cell_with_too_few_blocks_holds_back_those_that_are_fine(short):
    sides = [
        make_side(make_jobs(), make_jobs(cell=OTHER, blocks=2 if side == short else BLOCKS))
        for side in (0, 1)
    ]
    compared = compare(*sides)
    assert {one.cell: one.conclusion for one in compared.cells} == {CELL: "fine", OTHER: "undecided"}
    assert compared.conclusion == "undecided"


def test_more_blocks_on_one_side_serve_too():
    one = only(compare(*base_and(make_jobs(0.97, blocks=12, seed=1))))
    assert (finding(one, "speed").values, one.conclusion) == (BLOCKS, "regression")


def test_blocks_of_two_runs_are_no_pairs():
    """The first block of one run has nothing to do with that of the other, nor need it be there."""
    later = [
        msgspec.structs.replace(job, spec=msgspec.structs.replace(job.spec, block=job.spec.block + BLOCKS))
        for job in make_jobs(0.97, seed=1)
    ]
    one, other = (only(compare(*base_and(jobs))) for jobs in (later, make_jobs(0.97, seed=1)))
    assert finding(one, "speed") == finding(other, "speed")
    assert finding(one, "memory").values == BLOCKS


# Cells


def test_a_cell_that_base_meant_to_measure_and_did_not_is_not_new():
    base = make_side(make_jobs(), planned=[CELL, OTHER])
    compared = compare(base, make_side(make_jobs(seed=1), make_jobs(cell=OTHER, seed=1)))
    assert {one.cell: one.conclusion for one in compared.cells} == {CELL: "fine", OTHER: "undecided"}


def test_a_line_that_cannot_be_read_keeps_both_runs_from_passing():
    for side in (0, 1):
        runs = list(base_and(make_jobs(seed=1)))
        runs[side] = msgspec.structs.replace(runs[side], rejected=("records.jsonl line 9: cut off",))
        compared = compare(*runs)
        assert only(compared).conclusion == "fine"
        assert compared.conclusion == "undecided"
        assert "line 9" in compared.unreadable[0]


def test_a_run_without_blocks_has_no_canary_and_its_speed_is_undecided():
    head = make_side(make_jobs(seed=1))
    stripped = msgspec.structs.replace(
        head, records=tuple(record for record in head.records if not isinstance(record, BlockRecord))
    )
    one = only(compare(BASE, stripped))
    assert "no canary" in one.untold["speed"]
    assert one.conclusion == "undecided"


def test_a_cell_that_head_lacks_never_passes():
    compared = compare(make_side(make_jobs(), make_jobs(cell=OTHER)), make_side(make_jobs(seed=1)))
    missing = next(one for one in compared.cells if one.cell == OTHER)
    assert (missing.conclusion, missing.why) == ("undecided", "not in head")
    assert compared.conclusion == "undecided"


def test_a_cell_that_only_head_has_is_new_and_harms_nothing():
    compared = compare(*base_and(make_jobs(seed=1), make_jobs(cell=OTHER)))
    new = next(one for one in compared.cells if one.cell == OTHER)
    assert (new.conclusion, new.why) == (None, "not in base")
    assert compared.conclusion == "fine"


def test_a_cell_that_only_head_planned_and_did_not_measure_never_passes():
    compared = compare(*base_and(make_jobs(seed=1), planned=[OTHER]))
    lost = next(one for one in compared.cells if one.cell == OTHER)
    assert lost.conclusion == "undecided"
    assert lost.why.startswith("not in base; not measured in head: ")
    assert compared.conclusion == "undecided"


def test_new_cells_alone_do_not_pass():
    compared = compare(make_side(make_jobs()), make_side(make_jobs(cell=OTHER)))
    assert [one.conclusion for one in compared.cells] == ["undecided", None]
    assert compared.conclusion == "undecided"
    assert compare(make_side(), make_side(make_jobs())).conclusion == "undecided"


@pytest.mark.parametrize("jobs", [([], []), ([], make_jobs()), (make_jobs(), [])])
def test_an_empty_run_never_passes(jobs):
    assert compare(*(make_side(side) for side in jobs)).conclusion == "undecided"


def test_a_cell_of_another_device_or_precision_is_another_cell():
    gpu = make_cell(device="gpu")
    compared = compare(make_side(make_jobs()), make_side(make_jobs(cell=gpu)))
    assert {one.cell: one.conclusion for one in compared.cells} == {CELL: "undecided", gpu: None}


def test_a_cell_that_base_could_not_run_is_new():
    absent = UnmeasuredRecord(cell=OTHER, status="unavailable", error="jax is not installed")
    base = make_side(make_jobs(), planned=[OTHER], parity=[make_parity(CELL), absent])
    compared = compare(base, make_side(make_jobs(seed=1), make_jobs(cell=OTHER)))
    assert {one.cell: one.conclusion for one in compared.cells} == {CELL: "fine", OTHER: None}
    assert compared.conclusion == "fine"
    assert compare(base, base).conclusion == "undecided"


# What cannot be true


def spoiled(seconds: float, samples: int = 100, *, cell=CELL):
    window = Window(steps=1, samples=samples, seconds=seconds)
    return [
        msgspec.structs.replace(job, windows=(window,) * len(job.windows)) for job in make_jobs(cell=cell)
    ]


@pytest.mark.parametrize(
    ("seconds", "samples"), [(math.nan, 100), (0.0, 100), (math.inf, 100), (-1.0, 100), (0.1, 0)]
)
@pytest.mark.parametrize("side", ["base", "head", "both"])
def test_windows_without_a_rate_never_pass(seconds, samples, side):
    sound = make_jobs(cell=OTHER)
    sides = [
        make_side(spoiled(seconds, samples) if side in (name, "both") else make_jobs(), sound)
        for name in ("base", "head")
    ]
    compared = compare(*sides)
    assert next(one for one in compared.cells if one.cell == CELL).conclusion == "undecided"
    assert compared.conclusion == "undecided"


def test_an_accuracy_that_is_no_number_never_passes():
    base = make_side(make_jobs(learned=LEARNED))
    one = only(compare(base, make_side(make_jobs(learned=(*LEARNED[:2], math.nan)))))
    assert "cannot be compared" in one.untold["accuracy"]
    assert (one.conclusion, one.why) == ("undecided", "accuracy undecided")


def test_no_memory_at_all_never_passes():
    none = [msgspec.structs.replace(job, peak_rss_bytes=0) for job in make_jobs()]
    one = only(compare(*base_and(none)))
    assert (one.conclusion, one.why) == ("undecided", "memory undecided")
    unknown = [msgspec.structs.replace(job, peak_rss_bytes=None) for job in make_jobs()]
    assert only(compare(*base_and(unknown))).why == "memory undecided"


def test_memory_that_was_counted_in_two_ways_is_not_compared():
    before = [msgspec.structs.replace(job, peak_rss_method="VmHWM") for job in make_jobs()]
    one = only(compare(*base_and(before)))
    assert one.untold["memory"] == "counted as VmHWM - RssFile in base and as VmHWM in head"
    assert (one.conclusion, one.why) == ("undecided", "memory undecided")


def test_a_canary_that_is_no_number_leaves_speed_undecided():
    head = make_side(make_jobs(), conditions=[{"canary_s": (math.nan,)}] * BLOCKS)
    assert only(compare(BASE, head)).why == "speed undecided"


# Parity


BROKEN = make_parity(CELL, error=1.0)
UNPROVEN = make_parity(CELL, status="timeout", checked=False)


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_parity_that_head_lost_is_a_regression_however_fast_it_is(factor):
    one = only(compare(*base_and(make_jobs(factor), parity=[BROKEN])))
    assert one.conclusion == "regression"
    assert "head does not compute what the reference computes" in one.why
    assert "gradient is off by 1.0e+00" in one.why
    assert one.findings == ()


def test_a_new_cell_that_computes_something_else_is_a_regression():
    head = make_side(
        make_jobs(), make_jobs(cell=OTHER), parity=[make_parity(CELL), make_parity(OTHER, error=1.0)]
    )
    assert compare(BASE, head).conclusion == "regression"


def test_what_never_computed_the_same_is_no_loss_and_does_not_pass():
    broken = make_side(make_jobs(), parity=[BROKEN])
    assert only(compare(broken, broken)).conclusion == "undecided"
    mended = only(compare(broken, make_side(make_jobs(0.5))))
    assert mended.conclusion == "undecided"
    assert "base does not compute" in mended.why
    assert mended.why.endswith("; head agrees with it. Their speeds are not compared")
    assert mended.findings == ()
    unknown = only(compare(make_side(make_jobs(), parity=[UNPROVEN]), broken))
    assert (unknown.conclusion, unknown.findings) == ("undecided", ())
    assert unknown.why.endswith("; base was not compared with it")


@pytest.mark.parametrize("parity", [[], [UNPROVEN]])
def test_what_was_not_held_to_the_reference_never_passes(parity):
    unproven = make_side(make_jobs(), parity=parity)
    for sides, where in (
        ((BASE, unproven), "head"),
        ((unproven, BASE), "base"),
        ((unproven,) * 2, "base and head"),
    ):
        one = only(compare(*sides))
        assert (one.conclusion, one.why) == ("undecided", f"not compared with the reference in {where}")


def test_work_of_its_own_is_compared_without_parity():
    own = [make_workload(matched=False)]
    sides = [make_side(make_jobs(seed=seed), parity=[], workloads=own) for seed in (0, 1)]
    assert compare(*sides).conclusion == "fine"


def test_a_head_that_crashed_is_undecided():
    crashed = [
        msgspec.structs.replace(job, status="crashed", error="gone", exit_signal="SIGKILL", windows=())
        for job in make_jobs()
    ]
    one = only(compare(*base_and(crashed)))
    assert one.conclusion == "undecided"
    assert one.why.startswith("not measured in head: crashed (SIGKILL): gone")


def test_a_head_that_never_settles_is_undecided():
    drifting = [msgspec.structs.replace(job, status="no_steady_state") for job in make_jobs()]
    assert only(compare(*base_and(drifting))).why.startswith("not measured in head: no steady state")


# Accuracy


def shifted(by: float, count: int = 3) -> tuple[float, ...]:
    return tuple(value + by for value in LEARNED[:count])


LEARNER = make_side(make_jobs(learned=LEARNED))


@pytest.mark.parametrize("by", [-0.05, 0.02])
def test_accuracy_that_moves_to_either_side_is_a_regression(by):
    one = only(compare(LEARNER, make_side(make_jobs(learned=shifted(by)))))
    assert (one.conclusion, one.why) == ("regression", "accuracy got worse")
    assert finding(one, "accuracy").change == pytest.approx(by)


def test_accuracy_that_stays_passes_and_says_of_what():
    one = only(compare(LEARNER, make_side(make_jobs(learned=tuple(reversed(LEARNED)), seed=1))))
    assert (kinds(one)["accuracy"], finding(one, "accuracy").values, one.conclusion) == ("same", 3, "fine")


@pytest.mark.parametrize(
    ("count", "said"), [(0, "epochs"), (2, "3 and 2 seeds, 2 of them in both; 3 are needed")]
)
def test_accuracy_that_head_lacks_never_passes(count, said):
    one = only(compare(LEARNER, make_side(make_jobs(learned=shifted(0.0, count)))))
    assert said in one.untold["accuracy"]
    assert (one.conclusion, one.why) == ("undecided", "accuracy undecided")


@pytest.mark.parametrize(
    ("base", "head", "outcome"),
    [
        ((0.97,), (0.10,), "undecided"),
        ((0.97,), (0.976,), "undecided"),
        ((0.97, 0.97), (0.97, 0.10), "undecided"),
        ((0.97,), (), "undecided"),
        ((0.97,), (0.969,), "fine"),
        ((0.97, 0.96), (0.969, 0.961), "fine"),
        ((), (0.10,), "fine"),
    ],
)
def test_seeds_too_few_to_judge_by_pass_only_where_each_came_out_alike(base, head, outcome):
    one = only(compare(make_side(make_jobs(learned=base)), make_side(make_jobs(seed=1, learned=head))))
    assert one.conclusion == outcome
    assert "3 are needed" in one.untold["accuracy"] or not (base and head)


def test_accuracy_of_other_seeds_never_passes():
    other = [
        msgspec.structs.replace(job, spec=msgspec.structs.replace(job.spec, seed=job.spec.seed + 7))
        for job in make_jobs(learned=LEARNED)
    ]
    one = only(compare(LEARNER, make_side(other)))
    assert one.untold["accuracy"] == "3 and 3 seeds, 0 of them in both; 3 are needed"
    assert one.why == "accuracy undecided"


def test_accuracy_after_other_epochs_never_passes():
    one = only(compare(LEARNER, make_side(make_jobs(learned=LEARNED, epochs=4))))
    assert one.untold["accuracy"] == "after 3 and 4 epochs"
    assert one.conclusion == "undecided"


def test_accuracy_after_a_brief_training_is_not_compared_and_holds_nothing_back(monkeypatch):
    monkeypatch.setattr("bench.analysis.convergence.LONG_ENOUGH", 4.0)
    one = only(compare(LEARNER, make_side(make_jobs(learned=shifted(-0.1), seed=1))))
    assert one.untold["accuracy"] == "trained too briefly to compare: 3 epochs"
    assert one.conclusion == "fine"


def test_accuracy_that_base_never_had_is_not_asked_for():
    one = only(compare(*base_and(make_jobs(learned=LEARNED))))
    assert "accuracy" in one.untold
    assert one.conclusion == "fine"


# Time to the target


def test_a_longer_way_to_the_target_is_a_regression():
    one = only(compare(LEARNER, make_side(make_jobs(learned=LEARNED, seconds_per_epoch=20.0))))
    assert (one.conclusion, one.why) == ("regression", "time to target got worse")
    assert finding(one, "time to target").change == pytest.approx(1.0, abs=0.01)
    shorter = only(compare(LEARNER, make_side(make_jobs(learned=LEARNED, seconds_per_epoch=5.0))))
    assert (kinds(shorter)["time to target"], shorter.conclusion) == ("better", "fine")


def test_a_training_that_never_got_there_is_told_and_not_left_out():
    low = (0.9695, 0.9695, 0.976)
    one = only(compare(LEARNER, make_side(make_jobs(learned=low))))
    assert one.untold["time to target"] == "0 and 2 trainings did not reach the target"
    assert "time to target" not in kinds(one)
    nobody = make_side(make_jobs(learned=(0.9, 0.9, 0.9)))
    assert (
        only(compare(nobody, nobody)).untold["time to target"] == "3 and 3 trainings did not reach the target"
    )


def test_ways_to_other_targets_are_not_compared():
    other = make_side(make_jobs(learned=LEARNED), workloads=[make_workload(target=0.9)])
    one = only(compare(LEARNER, other))
    assert one.untold["time to target"] == "the targets are 97 % and 90 %"
    assert one.conclusion == "fine"


# First step, memory


def test_a_first_step_that_takes_longer_is_a_regression():
    one = only(compare(*base_and(make_jobs(first_step_s=0.6))))
    assert (one.conclusion, one.why) == ("regression", "first step got worse")
    assert kinds(only(compare(*base_and(make_jobs(first_step_s=0.3)))))["first step"] == "better"


def test_a_first_step_of_what_was_compiled_before_is_left_out():
    jobs = [
        msgspec.structs.replace(
            job,
            spec=msgspec.structs.replace(job.spec, compiles_anew=job.spec.block < 3),
            first_step_s=0.4 if job.spec.block < 3 else 0.01,
        )
        for job in make_jobs()
    ]
    first = finding(only(compare(*base_and(jobs))), "first step")
    assert (first.kind, first.values) == ("same", 3)


def test_memory_a_fifth_larger_is_a_regression():
    one = only(compare(*base_and(make_jobs(memory=1.2))))
    assert (one.conclusion, one.why) == ("regression", "memory got worse")
    assert finding(one, "memory").change == pytest.approx(0.2, abs=0.01)
    assert only(compare(*base_and(make_jobs(memory=0.8)))).conclusion == "fine"


def test_memory_of_the_gpu_is_judged_where_base_has_it():
    on_gpu = make_side(make_jobs(device_memory=1.0))
    assert kinds(only(compare(on_gpu, on_gpu)))["GPU memory"] == "same"
    assert only(compare(on_gpu, make_side(make_jobs(device_memory=1.2)))).why == "GPU memory got worse"
    assert only(compare(on_gpu, BASE)).why == "GPU memory undecided"
    assert "GPU memory" not in kinds(only(compare(BASE, BASE))) | only(compare(BASE, BASE)).untold


# The machine


def test_a_block_that_was_dropped_counts_for_neither_speed_nor_first_step():
    jobs = make_jobs()
    slow = msgspec.structs.replace(
        jobs[2],
        first_step_s=40.0,
        windows=tuple(msgspec.structs.replace(one, seconds=9 * one.seconds) for one in jobs[2].windows),
    )
    jobs[2] = slow
    dropped = make_side(jobs, conditions=[{}, {}, LOUD])
    one = only(compare(BASE, dropped))
    assert one.conclusion == "fine"
    assert (finding(one, "speed").values, finding(one, "first step").values) == (BLOCKS - 1, BLOCKS - 1)
    assert only(compare(BASE, make_side(jobs))).conclusion != "fine"


@pytest.mark.parametrize("side", [0, 1])
def test_a_run_whose_blocks_were_mostly_disturbed_says_nothing_of_speed(side):
    sides = [BASE, BASE]
    sides[side] = make_side(make_jobs(0.5), conditions=[LOUD] * BLOCKS)
    one = only(compare(*sides))
    assert one.untold["speed"] == f"something else disturbed most blocks of {('base', 'head')[side]}"
    assert (one.conclusion, one.why) == ("undecided", "speed undecided")
    assert set(kinds(one)) == {"memory"}


@pytest.mark.parametrize(
    ("canary", "steady"), [(0.01029, True), (0.010305, False), (0.0097, False), (0.00971, True)]
)
def test_a_machine_that_changed_its_pace_leaves_speed_undecided(canary, steady):
    head = make_side(make_jobs(learned=LEARNED), conditions=[{"canary_s": (canary,)}] * BLOCKS)
    base = make_side(make_jobs(learned=LEARNED), conditions=[{"canary_s": (0.01,)}] * BLOCKS)
    for sides in ((base, head), (head, base)):
        compared = compare(*sides)
        one = only(compared)
        assert compared.conclusion == ("fine" if steady else "undecided")
        assert ("speed" in one.untold) != steady
        assert set(kinds(one)) >= {"memory", "accuracy"}
        assert ("time to target" in kinds(one)) == steady
    assert MOST_DRIFT == 0.03


# Other work


@pytest.mark.parametrize("full", [0, 1])
@pytest.mark.parametrize("header", [{"sample": True}, {"dataset_limit": 500}])
def test_part_of_the_data_against_all_of_it_never_passes(header, full):
    sides = [make_side(make_jobs(learned=LEARNED), **header)] * 2
    assert compare(*sides).conclusion == "fine"
    sides[full] = LEARNER
    one = only(compare(*sides))
    assert one.conclusion == "undecided"
    assert one.why.startswith("not the same work: data ")
    assert one.findings == ()


def test_a_head_that_is_broken_on_other_data_is_a_regression():
    head = make_side(make_jobs(), sample=True, parity=[BROKEN])
    assert compare(BASE, head).conclusion == "regression"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"optimizer": OptimizerSpec(name="sgd", learning_rate=0.2)},
            "not the same work: optimizer.learning_rate 0.1 \N{RIGHTWARDS ARROW} 0.2",
        ),
        ({"batch_size": 200}, "not the same work: batch_size 100 \N{RIGHTWARDS ARROW} 200"),
        ({"architecture": Architecture(hidden=(8,))}, "architecture.hidden"),
    ],
)
def test_a_workload_that_was_defined_anew_is_shown_and_never_passes(changes, said):
    head = make_side(make_jobs(2.0), workloads=[msgspec.structs.replace(make_workload(), **changes)])
    one = only(compare(BASE, head))
    assert one.conclusion == "undecided"
    assert said in one.why
    assert kinds(one)["speed"] == "better"
