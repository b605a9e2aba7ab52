"""The charts of runs over time."""

import msgspec
import numpy as np
import pytest
from histories import joined, make_entry, make_figures, make_history, stepped_rates
from synthetic import make_cell

from bench.history.charts import charts
from bench.history.entries import History, MetricName
from bench.history.time_series import by_machine
from bench.report import svg
from bench.report.blocks import Chart
from bench.report.chart import Lines, Series

FELL = make_history(stepped_rates())


def charts_of(history: History, metric: MetricName = "speed") -> list[Chart]:
    return charts(by_machine(history, metric), metric)


def series_of(chart: Chart) -> tuple[Series, ...]:
    assert isinstance(chart.drawn, Lines)
    return chart.drawn.series


def test_a_line_shows_every_value_against_the_median() -> None:
    rates = [1000.0, 1010.0, 990.0, 1100.0]
    (chart,) = charts_of(make_history(rates))
    (series,) = series_of(chart)
    assert [point.x for point in series.points] == [0, 1, 2, 3]
    assert [point.y for point in series.points] == pytest.approx([rate / 1005 for rate in rates])
    assert series.name == "PyTorch eager: 1,100 samples/s"
    assert series.points[0].text.startswith("1,000 samples/s in run-000, 2026-05-01, commit 0000000")
    assert chart.title == "mnist-cnn (cpu fp32): too few runs to tell a change from noise"
    assert chart.table.rows[0] == ("run-000", "2026-05-01", "1,000")


def test_an_interval_is_drawn_if_there_is_one() -> None:
    (with_it,), (without,) = (
        series_of(chart)
        for chart in (*charts_of(make_history([1000.0])), *charts_of(make_history([1000.0]), "first-step"))
    )
    assert (with_it.points[0].low, with_it.points[0].high) == pytest.approx((0.99, 1.01))
    assert without.points[0].low is None


def test_a_change_point_stands_between_its_runs_with_the_medians_of_both_sides() -> None:
    (chart,) = charts_of(FELL)
    assert isinstance(chart.drawn, Lines)
    (mark,) = chart.drawn.x_marks
    assert mark.value == 11.5
    rates = stepped_rates()
    fell = 1 - np.median(rates[12:]) / np.median(rates[:12])
    assert mark.text == f"PyTorch eager \N{MINUS SIGN}{100 * fell:.1f} %"
    _, before, after = series_of(chart)
    assert [[point.x for point in one.points] for one in (before, after)] == [[0, 11], [12, 19]]
    for one, part in ((before, rates[:12]), (after, rates[12:])):
        level = float(np.median(part) / np.median(rates))
        assert [point.y for point in one.points] == pytest.approx([level] * 2, rel=1e-3)
    assert f"fell by {100 * fell:.1f} % by 2026-05-13" in chart.title


def test_a_level_series_has_no_mark() -> None:
    (chart,) = charts_of(make_history(stepped_rates(factor=1.0)))
    assert isinstance(chart.drawn, Lines)
    assert chart.drawn.x_marks == ()
    assert chart.title.endswith("no change of level in 1 row")


def test_a_run_that_does_not_count_is_a_point_apart() -> None:
    lacking = make_figures(900.0, ranked=False, counts=False, why_not="2 of 3 blocks")
    (chart,) = charts_of(History(entries=(make_entry(0), make_entry(1, [lacking]), make_entry(2))))
    counted, excluded = series_of(chart)
    assert [point.x for point in counted.points] == [0, 2]
    assert [point.x for point in excluded.points] == [1]
    assert not excluded.joined
    assert "does not count" in excluded.name


def test_rows_of_a_machine_share_their_runs() -> None:
    later = make_history([1.0] * 3, cell=make_cell(mode="compile"))
    entries = [
        msgspec.structs.replace(entry, cells=(*entry.cells, *other.cells))
        for entry, other in zip(make_history([1.0] * 3).entries, later.entries, strict=True)
    ]
    (chart,) = charts_of(History(entries=(*entries, make_entry(3))))
    eager, compiled = series_of(chart)
    assert [len(one.points) for one in (eager, compiled)] == [4, 3]
    assert (eager.hue, eager.shape) != (compiled.hue, compiled.shape)
    assert len(chart.table.rows) == 4


@pytest.mark.parametrize("count", [1, 7, 8, 100, 365])
def test_no_more_runs_are_named_than_fit_and_the_latest_always(count: int) -> None:
    (chart,) = charts_of(make_history([1.0] * count))
    assert isinstance(chart.drawn, Lines)
    ticks = chart.drawn.x.ticks
    assert ticks is not None
    assert 1 <= len(ticks) <= 6
    assert ticks[-1] == count - 1
    assert len(chart.drawn.x.labels or ()) == len(ticks)


@pytest.mark.parametrize("largest", [1.001, 1.03, 1.3, 2.1, 70])
def test_every_value_is_inside_an_axis_that_noise_does_not_fill(largest: float) -> None:
    (chart,) = charts_of(make_history([1 / largest, largest]))
    assert isinstance(chart.drawn, Lines)
    axis = chart.drawn.y
    assert axis.low is not None
    assert axis.high is not None
    assert axis.low < 1 / largest < largest < axis.high
    assert axis.high > 1.03
    assert svg.draw(chart)


def test_each_workload_and_machine_has_a_chart_of_its_own() -> None:
    other = msgspec.structs.replace(make_entry().machine, key="c0ffee00")
    history = joined(
        FELL, make_history([1.0], cell=make_cell("mnist-mlp")), make_history([1.0], machine=other),
        make_history([1.0], mark="limited"),
    )  # fmt: skip
    found = charts_of(history)
    assert len({chart.name for chart in found}) == len(found) == 4
    assert found[0].name == "history-speed-mnist-cnn-cpu-fp32-0badcafe"
    assert [svg.draw(chart) for chart in found] == [svg.draw(chart) for chart in charts_of(history)]
