"""Tests of accuracy between frameworks, defaults against matched, and targets from measured trainings."""

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from synthetic import make_cell, make_header, make_parity, make_run, make_workload
from trainings import CELLS, learning_run, make_curve, make_finals, make_training, twins

from bench.analysis.accuracy import EQUIVALENT, Convergence, converge, equivalence, proposed_targets
from bench.records.runs import Run
from bench.workloads.specs import OptimizerSpec

TORCH, TENSORFLOW, JAX = CELLS


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


# ---- tests between frameworks


def by_hand(first, second):
    """Two one-sided paired t tests, as textbooks write them.

    Schuirmann (1987), section 2: reject if (d + delta) / se and (delta - d) / se both exceed t(1 - alpha).
    """
    differences = np.subtract(first, second)
    error = np.std(differences, ddof=1) / np.sqrt(len(differences))
    degrees, difference = len(differences) - 1, np.mean(differences)
    lower = stats.t.sf((difference + EQUIVALENT) / error, degrees)
    upper = stats.t.sf((EQUIVALENT - difference) / error, degrees)
    half = stats.t.ppf(0.95, degrees) * error
    return max(lower, upper), degrees, difference - half, difference + half


SPREAD = np.array([-1.6, -1.1, -0.7, -0.4, -0.1, 0.1, 0.4, 0.7, 1.1, 1.6])


@pytest.mark.parametrize(
    ("first", "second", "shown"),
    [
        pytest.param(0.970 + 0.001 * SPREAD, 0.971 + 0.001 * SPREAD[::-1], True, id="close"),
        pytest.param(0.970 + 0.001 * SPREAD, 0.974 - 0.002 * SPREAD, False, id="near the margin"),
        pytest.param(0.970 + 0.010 * SPREAD, 0.970 - 0.010 * SPREAD, False, id="equal means that scatter"),
        pytest.param(0.970 + 0.001 * SPREAD, 0.990 - 0.001 * SPREAD, False, id="far apart"),
        pytest.param(
            0.400 + 0.017 * SPREAD, 0.401 + 0.018 * SPREAD, True, id="seeds scatter more than frameworks"
        ),
    ],
)
def test_equivalence_is_two_one_sided_tests_paired_by_seed(first, second, shown):
    found = equivalence(seeded(*first), seeded(*second))
    p, degrees, low, high = by_hand(first, second)
    assert found.p == pytest.approx(p)
    assert found.degrees == degrees
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.difference == pytest.approx(np.mean(first) - np.mean(second))
    assert found.shown == shown
    # SciPy's own paired tests of the shifted sides, and its interval of the difference.
    both = [
        stats.ttest_rel(first + shift, second, alternative=side).pvalue
        for shift, side in ((EQUIVALENT, "greater"), (-EQUIVALENT, "less"))
    ]
    assert found.p == pytest.approx(max(both))
    interval = stats.ttest_rel(first, second).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx(tuple(interval))


accuracies = st.floats(0.2, 1)
pairs = st.lists(st.tuples(accuracies, accuracies), min_size=2, max_size=12).map(
    lambda found: tuple(seeded(*side) for side in zip(*found, strict=True))
)


@given(pairs)
def test_equivalence_does_not_depend_on_which_side_is_first(sides):
    one, other = equivalence(*sides), equivalence(*sides[::-1])
    assert (one.p, one.shown) == (other.p, other.shown)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))


@given(pairs)
def test_equivalence_is_shown_exactly_where_the_interval_lies_within_the_margin(sides):
    found = equivalence(*sides)
    widest = max(-found.low, found.high)
    assume(abs(widest - EQUIVALENT) > 1e-9)
    assert found.shown == (widest < EQUIVALENT)
    assert found.low <= found.difference <= found.high


@given(pairs, st.data())
def test_what_a_seed_does_to_both_sides_changes_nothing(sides, data):
    shifts = {seed: data.draw(st.floats(-0.1, 0.1)) for seed in sides[0]}
    shifted = [{seed: value + shifts[seed] for seed, value in side.items()} for side in sides]
    one, other = equivalence(*sides), equivalence(*shifted)
    assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=1e-9)


@given(st.floats(0, 0.004), st.floats(1e-4, 0.02), st.floats(1.01, 5))
def test_more_scatter_widens_the_interval_and_makes_the_claim_harder(shift, scale, times):
    less, more = (
        equivalence(seeded(*(0.5 + shift + size * SPREAD)), seeded(*(0.5 - size * SPREAD)))
        for size in (scale, times * scale)
    )
    assert more.high - more.low > less.high - less.low
    assert more.p > less.p


@pytest.mark.parametrize(("second", "shown"), [(0.9, True), (0.9049, True), (0.9051, False), (0.91, False)])
def test_sides_without_scatter_are_equivalent_within_the_margin(second, shown):
    assert equivalence(seeded(*[0.9] * 10), seeded(*[second] * 10)).shown == shown


def test_sides_that_share_one_seed_have_no_test():
    with pytest.raises(ValueError, match="two seeds that both sides have; they share 1"):
        equivalence(seeded(0.9, 0.91, 0.92), {2: 0.9, 7: 0.9})


def test_of_two_sides_that_differ_by_the_margin_one_in_twenty_is_called_equivalent():
    random = np.random.default_rng(5)
    shown = [
        equivalence(
            seeded(*(seed + random.normal(0.9, 0.002, 10))),
            seeded(*(seed + random.normal(0.9 + EQUIVALENT, 0.004, 10))),
        ).shown
        for seed in random.normal(0, 0.02, (2000, 10))
    ]
    assert np.mean(shown) == pytest.approx(0.05, abs=0.015)


def ten(middle, scale=0.001):
    # In an order of its own, so that differences scatter as well.
    order = np.random.default_rng(round(1e4 * middle)).permutation(10)
    return seeded(*(middle + scale * SPREAD[order]))


@pytest.mark.parametrize(
    ("first", "second", "epochs", "conclusion", "seeds"),
    [
        (ten(0.97), ten(0.971), (2, 2), "equivalent", 10),
        (ten(0.97), ten(0.98), (2, 2), "not shown", 10),
        (ten(0.97), {seed + 40: value for seed, value in ten(0.971).items()}, (2, 2), "too few seeds", 0),
        (ten(0.97), ten(0.971) | {40: 0.5}, (2, 2), "equivalent", 10),
        (ten(0.97), dict(list(ten(0.97).items())[:9]), (2, 2), "too few seeds", 9),
        (seeded(0.97), seeded(0.97), (2, 2), "too few seeds", 1),
        (ten(0.97), ten(0.97), (2, 3), "unequal epochs", 10),
        (ten(0.97), ten(0.97), (0.3, 0.3), "too brief", 10),
        (ten(0.97), ten(0.97), (0.99, 2), "too brief", 10),
        (ten(0.97), ten(0.971), (1, 1), "equivalent", 10),
    ],
)
def test_two_frameworks_are_tested_only_over_enough_seeds_of_equal_and_long_trainings(
    first, second, epochs, conclusion, seeds
):
    finals = {TORCH: first, JAX: second}
    run = run_of(finals, epochs=dict(zip(finals, epochs, strict=True)))
    (found,) = only(converge(run)).comparisons
    assert (found.first, found.second) == (TORCH, JAX)
    assert (found.conclusion, found.seeds, found.epochs) == (conclusion, seeds, epochs)
    assert (found.test is None) == (conclusion not in ("equivalent", "not shown"))
    if found.test:
        expected = by_hand(*([side[seed] for seed in range(10)] for side in (first, second)))
        assert found.test.p == pytest.approx(expected[0])


def test_a_framework_with_trainings_that_diverged_is_called_equivalent_to_none():
    run = run_of({TORCH: ten(0.97), JAX: ten(0.97)})
    bad = make_training(JAX, 10, make_curve([0.1], [0]), epochs=2, status="nan_loss")
    (found,) = only(converge(make_run(run.header, [*run.records, bad]))).comparisons
    assert (found.conclusion, found.diverged, found.test) == ("diverged", 1, None)


@given(
    values=st.lists(st.tuples(st.floats(0.2, 1), st.floats(0.2, 1)), min_size=10, max_size=12), data=st.data()
)
def test_the_order_of_the_records_changes_nothing(values, data):
    run = run_of({TORCH: seeded(*(a for a, _ in values)), JAX: seeded(*(b for _, b in values))})
    shuffled = msgspec.structs.replace(run, records=tuple(data.draw(st.permutations(run.records))))
    assert converge(shuffled) == converge(run)


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
    assert proposed_targets(make_run(make_header([TORCH])), ["torch"]) == ()


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

NAMES = ("torch", "jax")


def test_a_target_is_the_mean_less_three_standard_deviations_rounded_down():
    first, second = ten(0.983, 0.0007), ten(0.984, 0.0004)
    (found,) = proposed_targets(run_of({TORCH: first, JAX: second}), NAMES)
    values = [*first.values(), *second.values()]
    exact = np.mean(values) - 3 * np.std(values, ddof=1)
    assert (found.seeds, found.trainings, found.epochs) == ({"torch": 10, "jax": 10}, 20, 2)
    assert (found.mean, found.sd) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert found.target is not None
    assert found.target <= exact < found.target + 0.001
    assert found.target == round(found.target, 3)


def test_equal_accuracies_are_their_own_target():
    (found,) = proposed_targets(run_of({TORCH: ten(0.97, 0), JAX: ten(0.97, 0)}), NAMES)
    assert found.target == 0.97


@pytest.mark.parametrize(
    ("finals", "options", "seeds"),
    [
        pytest.param({TORCH: ten(0.97)}, {}, {"torch": 10, "jax": 0}, id="one framework"),
        pytest.param(
            {TORCH: ten(0.97), JAX: seeded(*[0.97] * 9)}, {}, {"torch": 10, "jax": 9}, id="nine seeds"
        ),
        pytest.param(
            {TORCH: ten(0.97), JAX: ten(0.97)}, {"epochs": {JAX: 1}}, {"torch": 10, "jax": 0},
            id="unequal epochs",
        ),
        pytest.param(
            {TORCH: ten(0.97), JAX: ten(0.97)}, {"parity": {JAX: 1.0}}, {"torch": 10, "jax": 0}, id="parity"
        ),
        pytest.param(
            {TORCH: ten(0.97), JAX: ten(0.97)}, {"epochs": {TORCH: 0.5, JAX: 0.5}}, {"torch": 10, "jax": 10},
            id="too brief",
        ),
    ],
)  # fmt: skip
def test_a_target_needs_ten_seeds_of_every_framework_at_equal_epochs(finals, options, seeds):
    (found,) = proposed_targets(run_of(finals, **options), NAMES)
    assert (found.seeds, found.target) == (seeds, None)


def test_a_framework_beyond_those_needed_counts_too():
    finals = {TORCH: ten(0.95), JAX: ten(0.95), TENSORFLOW: seeded(0.95)}
    (found,) = proposed_targets(run_of(finals), NAMES)
    assert (found.seeds["tensorflow"], found.trainings, found.target) == (1, 21, None)


def test_every_workload_of_a_run_gets_a_target():
    run = learning_run(seeds=11)
    found = proposed_targets(run, ("torch", "tensorflow", "jax"))
    assert [one.workload for one in found] == [workload.name for workload in run.header.workloads]
    assert [one.trainings for one in found] == [33, 32, 33, 33]  # one diverged
    assert all(one.target is not None and one.target < one.mean for one in found)


def test_a_workload_without_a_target_is_compared_all_the_same():
    finals = {TORCH: seeded(0.9, 0.91, 0.92), JAX: seeded(0.91, 0.92, 0.93)}
    workload = only(converge(run_of(finals, workloads=[make_workload(target=None)])))
    assert workload.target is None
    assert workload.cells[TORCH].crossings == {}
    assert len(workload.comparisons) == 1
    workload = only(converge(run_of(finals, workloads=[make_workload(target=0.905)])))
    assert [one is None for one in workload.cells[TORCH].crossings.values()] == [True, False, False]
