"""Tests of accuracy between frameworks, defaults against matched, and targets from measured trainings."""

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from synthetic import make_cell, make_header, make_parity, make_run, make_workload
from trainings import CELLS, learning_run, make_curve, make_finals, make_training, twins

from bench.analysis.accuracy import EQUIVALENT, Convergence, converge, proposed_targets
from bench.records.runs import Run
from bench.workloads.specs import OptimizerSpec

TORCH, TENSORFLOW, JAX = CELLS
accuracies = st.lists(st.floats(0.2, 1), min_size=3, max_size=6)


def run_of(finals, *, parity=None, epochs=None, cells=None, workloads=None) -> Run:
    """Return a run with these final accuracies, by cell and seed."""
    jobs = [
        job
        for cell, by_seed in finals.items()
        for job in make_finals(cell, by_seed, epochs=(epochs or {}).get(cell, 2))
    ]
    checks = [make_parity(cell, error=error) for cell, error in (parity or {}).items()]
    return make_run(make_header(list(cells or finals), workloads=workloads), [*checks, *jobs])


def seeded(*values):
    return dict(enumerate(values))


def only(learned: Convergence):
    (workload,) = learned.workloads
    return workload


def only_test(run: Run):
    (comparison,) = only(converge(run)).comparisons
    assert comparison.test is not None
    return comparison, comparison.test


# ---- tests between frameworks


def test_two_frameworks_are_tested_in_pairs_by_seed():
    first, second = [0.91, 0.94, 0.97, 0.95], [0.905, 0.938, 0.963, 0.944]
    comparison, test = only_test(run_of({TORCH: seeded(*second), JAX: seeded(*first)}))
    expected = stats.ttest_rel(first, second)
    assert (comparison.first, comparison.second, comparison.seeds) == (JAX, TORCH, 4)
    assert test.p_adjusted == pytest.approx(expected.pvalue)
    assert (test.low, test.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert test.difference == pytest.approx(np.mean(first) - np.mean(second))
    assert test.differs
    # Unpaired, the spread between seeds would hide it.
    assert stats.ttest_ind(first, second).pvalue > 0.5


@given(
    values=st.lists(st.tuples(st.floats(0.2, 1), st.floats(0.2, 1)), min_size=3, max_size=6), data=st.data()
)
def test_pairs_are_made_by_seed_wherever_the_records_stand(values, data):
    run = run_of({TORCH: seeded(*(a for a, _ in values)), JAX: seeded(*(b for _, b in values))})
    shuffled = msgspec.structs.replace(run, records=tuple(data.draw(st.permutations(run.records))))
    assert converge(shuffled) == converge(run)


@given(values=accuracies, shift=st.floats(-0.1, 0.1))
def test_renaming_the_seeds_changes_no_test(values, shift):
    one, other = (
        seeded(*values),
        {seed: max(0.15, value + shift * (seed + 1)) for seed, value in enumerate(values)},
    )
    moved = [{seed + 40: value for seed, value in side.items()} for side in (one, other)]
    before, after = (only(converge(run_of({TORCH: a, JAX: b}))).comparisons for a, b in ((one, other), moved))
    assert before == after


def test_seeds_that_only_one_side_has_take_no_part():
    shared = {TORCH: seeded(0.91, 0.93, 0.95), JAX: seeded(0.90, 0.925, 0.945)}
    more = {TORCH: {**shared[TORCH], 7: 0.2}, JAX: {**shared[JAX], 8: 1.0}}
    assert only_test(run_of(more)) == only_test(run_of(shared))


def test_below_three_shared_seeds_nothing_is_tested():
    run = run_of({TORCH: seeded(0.9, 0.91, 0.92), JAX: {0: 0.9, 1: 0.91, 5: 0.92}})
    (comparison,) = only(converge(run)).comparisons
    assert (comparison.seeds, comparison.test) == (2, None)


def test_frameworks_trained_for_unequal_epochs_are_not_tested():
    finals = {TORCH: seeded(0.9, 0.91, 0.92), JAX: seeded(0.9, 0.91, 0.92)}
    (comparison,) = only(converge(run_of(finals, epochs={JAX: 3}))).comparisons
    assert (comparison.seeds, comparison.test) == (0, None)


def test_the_pairs_of_a_workload_are_one_family_of_holm():
    random = np.random.default_rng(3)
    values = {cell: seeded(*random.normal(0.9, 0.01, 5)) for cell in CELLS}
    comparisons = only(converge(run_of(values))).comparisons
    raw = sorted(
        stats.ttest_rel(list(values[one.first].values()), list(values[one.second].values())).pvalue
        for one in comparisons
    )
    adjusted = np.maximum.accumulate(np.minimum(1, np.array(raw) * (3, 2, 1)))
    assert sorted(one.test.p_adjusted for one in comparisons if one.test) == pytest.approx(list(adjusted))


@given(values=accuracies, noise=st.lists(st.floats(-0.02, 0.02), min_size=6, max_size=6))
def test_an_interval_leaves_out_zero_exactly_where_a_difference_is_claimed(values, noise):
    other = [max(0.15, value + step) for value, step in zip(values, noise, strict=False)]
    differences = np.array(values) - np.array(other)
    assume(differences.std() > 1e-6)
    _, test = only_test(run_of({TORCH: seeded(*values), JAX: seeded(*other)}))
    assert test.differs == (test.low > 0)
    assert test.low <= test.difference <= test.high
    # Two one-sided tests at 5 % find equivalence exactly where the 90 % interval lies inside the margin.
    margin = stats.t.ppf(0.95, len(differences) - 1) * stats.sem(differences)
    assert test.equivalent == (abs(differences.mean()) + margin < EQUIVALENT)


def test_equal_accuracies_are_equivalent_and_no_difference():
    _, test = only_test(run_of({TORCH: seeded(0.9, 0.91, 0.92), JAX: seeded(0.9, 0.91, 0.92)}))
    assert (test.difference, test.differs, test.equivalent, test.p_adjusted) == (0, False, True, 1)
    assert test.detectable is None, "three seeds do not know their scatter"


def test_differences_of_the_range_called_detectable_are_found_four_times_in_five_with_its_scatters():
    random = np.random.default_rng(11)
    scatter = np.array([-1.2, -0.3, 0.1, 0.5, 0.9, 0.2]) * 0.01
    scatter = (scatter - scatter.mean()) / scatter.std(ddof=1) * 0.01
    _, test = only_test(run_of({TORCH: seeded(*(0.8 + scatter)), JAX: seeded(*[0.8] * 6)}))
    true = 0.01 * np.sqrt(5 / stats.chi2.ppf([0.975, 0.025], 5))
    for detectable, one in zip(test.detectable, true, strict=True):
        draws = random.normal(detectable, one, (20_000, 6))
        found = stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05
        assert found.mean() == pytest.approx(0.8, abs=0.01)


def test_a_framework_is_stood_for_by_its_default_mode_else_by_the_one_of_most_seeds():
    compiled = make_cell(mode="compile")
    both = {compiled: seeded(0.9, 0.9, 0.9, 0.9), TORCH: seeded(0.9, 0.9, 0.9)}
    assert only(converge(run_of(both))).representatives == (TORCH,)
    third = make_cell(mode="third")
    others = {compiled: seeded(0.9), third: seeded(0.9, 0.9), TORCH: {}}
    assert only(converge(run_of(others))).representatives == (third,)


def test_the_reference_and_what_fails_parity_are_shown_and_not_tested():
    reference = make_cell(backend="numpy", mode="float64")
    finals = {cell: seeded(0.9, 0.91, 0.92) for cell in (TORCH, JAX, reference)}
    workload = only(converge(run_of(finals, parity={TORCH: 1e-6, JAX: 1.0})))
    assert set(workload.cells) == set(finals)
    assert workload.representatives == (TORCH,)
    assert workload.comparisons == ()


def test_devices_are_judged_apart():
    gpu = make_cell(device="gpu", backend="jax", mode="jit")
    learned = converge(run_of({TORCH: seeded(0.9, 0.9, 0.9), gpu: seeded(0.9, 0.9, 0.9)}))
    assert [one.device for one in learned.workloads] == ["cpu", "gpu"]
    assert not any(one.comparisons for one in learned.workloads)


def test_a_run_without_trainings_says_nothing():
    assert converge(make_run(make_header([TORCH]))) == Convergence(workloads=(), defaults=())
    assert proposed_targets(make_run(make_header([TORCH]))) == ()


# ---- defaults against matched


def twin_run(matched, own, *, change=lambda workload: workload, epochs=(2, 2)):
    adam, defaults = twins()
    defaults = change(defaults)
    finals, trained = {}, {}
    for workload, values, count in ((adam, matched, epochs[0]), (defaults, own, epochs[1])):
        for cell, final in zip(CELLS, values, strict=False):
            named = msgspec.structs.replace(cell, workload=workload.name)
            finals[named], trained[named] = seeded(final - 0.01, final + 0.01), count
    return run_of(finals, epochs=trained, workloads=(adam, defaults))


def test_the_spread_of_frameworks_is_given_matched_and_with_their_own_defaults():
    (pair,) = converge(twin_run((0.90, 0.91, 0.905), (0.85, 0.93, 0.90))).defaults
    assert (pair.matched, pair.defaults, pair.epoch) == ("mnist-cnn-adam", "mnist-cnn-defaults", 2)
    assert [row.matched.backend for row in pair.rows] == ["torch", "tensorflow", "jax"]
    assert pair.matched_spread == pytest.approx(0.01)
    assert pair.defaults_spread == pytest.approx(0.08)
    assert pair.rows[0].defaults_point.test_accuracy == pytest.approx(0.85)
    assert pair.rows[0].defaults_point.accuracy_low == pytest.approx(0.84)


def test_twins_trained_for_unequal_epochs_are_compared_at_the_last_that_both_have():
    (pair,) = converge(twin_run((0.90, 0.91), (0.85, 0.93), epochs=(2, 3))).defaults
    assert pair.epoch == 2
    assert pair.rows[0].matched_point.test_accuracy == pytest.approx(0.90)
    assert pair.rows[0].defaults_point.test_accuracy == pytest.approx(0.1 + (0.85 - 0.1) * 2 / 3)


@pytest.mark.parametrize(
    "change",
    [
        lambda workload: msgspec.structs.replace(workload, dataset="cifar10"),
        lambda workload: msgspec.structs.replace(workload, batch_size=7),
        lambda workload: msgspec.structs.replace(
            workload, optimizer=OptimizerSpec(name="sgd", learning_rate=1e-3)
        ),
        lambda workload: msgspec.structs.replace(workload, matched=True),
    ],
)
def test_only_twins_are_set_side_by_side(change):
    assert converge(twin_run((0.9, 0.91), (0.85, 0.93), change=change)).defaults == ()


def test_twins_that_share_no_epoch_but_the_start_are_not_compared():
    run = twin_run((0.90, 0.91), (0.85, 0.93))
    own = twins()[1].name
    jobs = [
        make_training(job.spec.cell, job.spec.seed, make_curve([0.1, 0.9], [0, 1.5]))
        if job.spec.cell.workload == own
        else job
        for job in run.jobs
    ]
    assert converge(make_run(run.header, jobs)).defaults == ()


def test_a_framework_that_trained_one_twin_only_is_left_out():
    (pair,) = converge(twin_run((0.90, 0.91, 0.99), (0.85, 0.93))).defaults
    assert [row.matched.backend for row in pair.rows] == ["torch", "tensorflow"]
    assert pair.matched_spread == pytest.approx(0.01)


# ---- targets


def test_a_target_is_the_mean_less_three_standard_deviations_rounded_down():
    values = [0.981, 0.983, 0.985, 0.980, 0.984, 0.984]
    (found,) = proposed_targets(run_of({TORCH: seeded(*values[:3]), JAX: seeded(*values[3:])}))
    exact = np.mean(values) - 3 * np.std(values, ddof=1)
    assert (found.seeds, found.trainings, found.epochs) == (3, 6, 2)
    assert (found.mean, found.sd) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert found.target is not None
    assert found.target <= exact < found.target + 0.001
    assert found.target == round(found.target, 3)


def test_equal_accuracies_are_their_own_target():
    (found,) = proposed_targets(run_of({TORCH: seeded(0.97, 0.97, 0.97)}))
    assert found.target == 0.97


def test_two_seeds_set_no_target_however_many_frameworks_trained_with_them():
    (found,) = proposed_targets(run_of({cell: seeded(0.97, 0.98) for cell in CELLS}))
    assert (found.seeds, found.trainings, found.target) == (2, 6, None)


def test_targets_come_from_the_longest_trainings_of_what_passed_parity():
    finals = {TORCH: seeded(0.95, 0.95, 0.95), TENSORFLOW: seeded(0.5, 0.5, 0.5), JAX: seeded(0.1, 0.1, 0.1)}
    (found,) = proposed_targets(run_of(finals, epochs={TENSORFLOW: 1}, parity={JAX: 1.0}))
    assert (found.trainings, found.target) == (3, 0.95)


def test_every_workload_of_a_run_gets_a_target():
    run = learning_run()
    found = proposed_targets(run)
    assert [one.workload for one in found] == [workload.name for workload in run.header.workloads]
    assert [one.trainings for one in found] == [15, 14, 15, 15]  # one diverged
    assert all(one.target is not None and one.target < one.mean for one in found)


def test_a_workload_without_a_target_is_compared_all_the_same():
    finals = {TORCH: seeded(0.9, 0.91, 0.92), JAX: seeded(0.91, 0.92, 0.93)}
    workload = only(converge(run_of(finals, workloads=[make_workload(target=None)])))
    assert workload.target is None
    assert workload.cells[TORCH].crossings == {}
    assert workload.comparisons[0].test is not None
    workload = only(converge(run_of(finals, workloads=[make_workload(target=0.905)])))
    assert [one is None for one in workload.cells[TORCH].crossings.values()] == [True, False, False]
