"""The self-test's chart shows every comparison, and tells which are off the truth."""

from simulated import simulate

from bench.report import svg
from bench.report.chart import Lines
from bench.selftest.calibration import calibrate
from bench.selftest.chart import chart


def test_every_comparison_is_a_point_and_those_off_the_truth_are_told_apart():
    found = calibrate(simulate(process_sd=0.002, understated=0.2, groups=4))
    drawn = chart(found)
    assert drawn is not None
    assert isinstance(drawn.drawn, Lines)
    *truths, claimed, none, missed = drawn.drawn.series
    assert [len(one.points) for one in truths] == [2] * 4
    assert sum(len(one.points) for one in (claimed, none, missed)) == len(found.judged) == 20
    assert len(missed.points) == sum(not judged.covered for judged in found.judged) > 0
    assert drawn.drawn.x.labels == ("equal", "3 % slower", "5 % slower", "10 % slower")
    held = sum(judged.covered for judged in found.judged)
    assert drawn.title.startswith(f"{held} of 20 intervals hold the truth (")
    assert all(point.low < point.y < point.high for one in (claimed, none, missed) for point in one.points)
    assert svg.draw(drawn)


def test_the_points_of_a_slowdown_stand_over_its_truth():
    drawn = chart(calibrate(simulate(groups=2)))
    assert drawn is not None
    assert isinstance(drawn.drawn, Lines)
    *truths, claimed, none, missed = drawn.drawn.series
    for truth, (row, *counts) in zip(truths, drawn.table.rows, strict=True):
        first, last = (point.x for point in truth.points)
        inside = [point for one in (claimed, none, missed) for point in one.points if first < point.x < last]
        assert len(inside) == int(counts[0]), row


def test_nothing_judged_has_no_chart():
    found = calibrate(simulate(groups=1))
    assert chart(type(found)(rows=found.rows, judged=(), criteria=(), lost=(), total_s=0, trial_s=0)) is None
