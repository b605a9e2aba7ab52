"""What a cell learned: the way to the target, censored trainings, spread, curves, in whatever order."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from trainings import CELLS, evaluated, make_curve, make_finals, make_training

from bench.analysis.convergence import cell_convergence, crossing, is_too_brief
from bench.analysis.statistics import success_interval

TORCH = CELLS[0]

shares = st.floats(0, 1)
curves = st.lists(shares, min_size=2, max_size=len(evaluated(6))).map(
    lambda accuracies: make_curve(accuracies, evaluated(6)[: len(accuracies)])
)


def convergence_of(jobs, target=0.9):
    learned = cell_convergence(jobs, target)
    assert learned is not None
    return learned


# ---- the way to the target


def test_the_crossing_lies_on_the_line_between_two_evaluations():
    found = crossing(make_curve([0.1, 0.5, 0.9], [0, 1, 3], seconds_per_epoch=10), 0.8)
    assert found is not None
    assert found.epochs == pytest.approx(1 + 2 * 0.3 / 0.4)
    assert found.bracket_epochs == 2
    assert found.seconds == pytest.approx(10 * found.epochs)
    assert found.bracket_seconds == pytest.approx(20)


def test_the_first_crossing_counts_also_where_accuracy_falls_again():
    found = crossing(make_curve([0.1, 0.9, 0.2, 0.95], [0, 1, 2, 3]), 0.8)
    assert found is not None
    assert 0 < found.epochs < 1


def test_initial_weights_at_the_target_take_no_time():
    found = crossing(make_curve([0.8, 0.9], [0, 1]), 0.8)
    assert found is not None
    assert (found.epochs, found.seconds, found.bracket_epochs, found.bracket_seconds) == (0, 0, 0, 0)


def test_a_target_met_exactly_is_reached_at_that_evaluation():
    found = crossing(make_curve([0.1, 0.8, 0.9], [0, 0.5, 1]), 0.8)
    assert found is not None
    assert found.epochs == 0.5


@given(points=curves, target=shares)
def test_a_crossing_lies_inside_its_bracket_and_only_where_an_evaluation_is_at_the_target(points, target):
    found = crossing(points, target)
    assert (found is None) == all(point.test_accuracy < target for point in points)
    if found is not None:
        after = next(place for place, point in enumerate(points) if point.test_accuracy >= target)
        before = max(0, after - 1)
        assert points[before].epoch <= found.epochs <= points[after].epoch
        assert found.bracket_epochs == points[after].epoch - points[before].epoch


@given(points=curves, targets=st.lists(shares, min_size=2, max_size=2).map(sorted))
def test_a_higher_target_is_reached_no_earlier(points, targets):
    lower, higher = (crossing(points, target) for target in targets)
    times = [math.inf if one is None else one.epochs for one in (lower, higher)]
    assert times[0] <= times[1]


@given(points=curves, target=shares)
def test_training_on_changes_no_crossing_that_was_seen(points, target):
    cut = crossing(points[:-1], target) if len(points) > 2 else None
    if cut is not None:
        found = crossing(points, target)
        assert found is not None
        assert (found.epochs, found.bracket_epochs) == (cut.epochs, cut.bracket_epochs)


@given(points=curves, target=shares, middle=st.integers(0, 100))
def test_a_further_evaluation_moves_a_crossing_by_less_than_its_bracket(points, target, middle):
    place = middle % (len(points) - 1)
    a, b = points[place], points[place + 1]
    between = make_curve([(a.test_accuracy + b.test_accuracy) / 2], [(a.epoch + b.epoch) / 2])
    coarse, fine = (
        crossing(points, target),
        crossing((*points[: place + 1], *between, *points[place + 1 :]), target),
    )
    assert (coarse is None) == (fine is None)
    if coarse is not None and fine is not None:
        assert abs(coarse.epochs - fine.epochs) <= coarse.bracket_epochs


# ---- over seeds


def test_the_bracket_of_a_cell_is_the_widest_of_its_trainings():
    wide = make_training(TORCH, 0, make_curve([0.1, 1.0], [0, 2]))
    narrow = make_training(TORCH, 1, make_curve([0.1, 0.5, 1.0], [0, 1, 2]))
    assert convergence_of([wide, narrow]).bracket_epochs == 2


def test_medians_count_a_training_that_never_got_there_as_later_than_all():
    jobs = make_finals(TORCH, {0: 1.0, 1: 0.95, 2: 0.5})
    learned = convergence_of(jobs)
    assert learned.crossings[2] is None
    assert learned.epochs_to_target == learned.crossings[1].epochs > learned.crossings[0].epochs
    assert (learned.successes, len(learned.crossings)) == (2, 3)
    assert (learned.success_low, learned.success_high) == success_interval(2, 3)


@pytest.mark.parametrize("finals", [{0: 1.0, 1: 0.5, 2: 0.5}, {0: 1.0, 1: 0.5}, {0: 0.5}])
def test_a_median_that_falls_on_a_censored_training_is_none(finals):
    learned = convergence_of(make_finals(TORCH, finals))
    assert learned.epochs_to_target is None
    assert learned.seconds_to_target is None


def test_without_a_target_there_is_no_way_to_it():
    learned = cell_convergence(make_finals(TORCH, {0: 1.0}), None)
    assert learned is not None
    assert learned.crossings == {}
    assert (learned.success_low, learned.epochs_to_target, learned.bracket_epochs) == (None, None, None)


def test_the_mean_has_students_interval_from_three_seeds_on():
    finals = {0: 0.91, 1: 0.93, 2: 0.95}
    learned = convergence_of(make_finals(TORCH, finals))
    values = list(finals.values())
    expected = stats.t.interval(0.95, 2, loc=0.93, scale=stats.sem(values))
    assert learned.accuracy == pytest.approx(0.93)
    assert learned.accuracy_sd == pytest.approx(0.02)
    assert (learned.accuracy_low, learned.accuracy_high) == pytest.approx(expected)
    two = convergence_of(make_finals(TORCH, {0: 0.91, 1: 0.93}))
    assert two.accuracy_sd is not None
    assert two.accuracy_low is two.accuracy_high is None
    assert convergence_of(make_finals(TORCH, {0: 0.91})).accuracy_sd is None


@given(
    finals=st.dictionaries(st.integers(0, 20), st.floats(0.2, 1), min_size=1, max_size=6),
    data=st.data(),
)
def test_the_order_of_the_records_changes_nothing(finals, data):
    jobs = make_finals(TORCH, finals)
    assert cell_convergence(data.draw(st.permutations(jobs)), 0.9) == cell_convergence(jobs, 0.9)


@given(
    finals=st.lists(st.floats(0.2, 1), min_size=2, max_size=6),
    target=st.floats(0.2, 1),
    place=st.integers(0, 5),
)
def test_censoring_a_training_makes_no_median_earlier_and_no_rate_higher(finals, target, place):
    place %= len(finals)
    before = convergence_of(make_finals(TORCH, dict(enumerate(finals))), target)
    assume(before.crossings[place] is not None)
    worse = convergence_of(make_finals(TORCH, {**dict(enumerate(finals)), place: 0.15}), target)
    assert len(worse.crossings) == len(before.crossings)
    assert worse.successes == before.successes - 1
    assert worse.success_high <= before.success_high
    if worse.epochs_to_target is not None:
        assert before.epochs_to_target <= worse.epochs_to_target


# ---- which trainings count


def test_a_training_that_diverged_is_a_failed_trial_without_an_accuracy():
    points = make_curve([0.1, 0.2], [0, 0.1])
    bad = make_training(TORCH, 3, points, epochs=2, status="nan_loss")
    learned = convergence_of([*make_finals(TORCH, {0: 0.95, 1: 0.96}), bad])
    assert learned.diverged == 1
    assert 3 not in learned.accuracies
    assert learned.crossings[3] is None
    assert (learned.successes, len(learned.crossings)) == (2, 3)


def test_a_cell_whose_every_training_diverged_is_there_without_figures():
    bad = make_training(TORCH, 0, make_curve([0.1], [0]), epochs=2, status="nan_loss")
    learned = convergence_of([bad])
    assert (learned.epochs, learned.accuracy, learned.curve) == (None, None, ())
    assert (learned.successes, learned.crossings) == (0, {0: None})


@pytest.mark.parametrize("status", ["crashed", "timeout", "failed"])
def test_a_training_that_was_cut_short_says_nothing(status):
    short = make_training(TORCH, 0, make_curve([0.1, 0.95], [0, 1]), epochs=2, status=status)
    assert cell_convergence([short], 0.9) is None
    unfinished = make_training(TORCH, 0, make_curve([0.1, 0.95], [0, 1]), epochs=2)
    assert cell_convergence([unfinished], 0.9) is None


def test_a_job_that_trained_nothing_is_no_training():
    assert cell_convergence([make_training(TORCH, 0, make_curve([0.95], [0]), epochs=0)], 0.9) is None


def test_a_seed_that_was_trained_again_counts_once_the_last_that_ended():
    first, again = (
        make_training(TORCH, 0, make_curve([0.1, final], [0, 1]), started_at=f"2026-05-01T1{hour}:00:00Z")
        for hour, final in enumerate((0.5, 0.95))
    )
    crashed = make_training(TORCH, 0, first.points, status="crashed", started_at="2026-05-01T19:00:00Z")
    learned = convergence_of([crashed, again, first])
    assert learned.accuracies == {0: 0.95}
    assert len(learned.crossings) == 1


def test_only_the_trainings_of_the_most_epochs_count():
    jobs = [*make_finals(TORCH, {0: 0.95}, epochs=2), *make_finals(TORCH, {1: 0.5}, epochs=1)]
    learned = convergence_of(jobs)
    assert (learned.epochs, learned.accuracies) == (2, {0: 0.95})


# ---- curves


def test_a_curve_is_the_mean_and_its_band_holds_every_seed():
    low = make_training(TORCH, 0, make_curve([0.1, 0.5, 0.8], [0, 1, 2], seconds_per_epoch=10))
    high = make_training(TORCH, 1, make_curve([0.2, 0.7, 0.9], [0, 1, 2], seconds_per_epoch=20))
    middle = convergence_of([low, high]).curve[1]
    assert (middle.epoch, middle.train_s) == (1, 15)
    assert (middle.accuracy_low, middle.accuracy_high) == (0.5, 0.7)
    assert middle.test_accuracy == pytest.approx(0.6)
    assert (middle.loss_low, middle.loss_high) == pytest.approx((0.6, 1.0))
    assert middle.test_loss == pytest.approx(0.8)


def test_a_curve_has_only_points_at_which_every_training_was_evaluated():
    one = make_training(TORCH, 0, make_curve([0.1, 0.5, 0.8], [0, 1, 2]))
    finer = make_training(TORCH, 1, make_curve([0.1, 0.3, 0.5, 0.8], [0, 0.5, 1, 2]))
    assert [point.epoch for point in convergence_of([one, finer]).curve] == [0, 1, 2]


@pytest.mark.parametrize(
    ("epochs", "brief"),
    [(0.0, True), (0.3, True), (0.999, True), (1 - 1e-12, False), (1.0, False), (3.0, False)],
)
def test_a_training_of_less_than_an_epoch_is_too_brief_to_compare(epochs, brief):
    assert is_too_brief(epochs) == brief
