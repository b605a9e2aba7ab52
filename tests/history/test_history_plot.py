"""The charts of runs over time."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from histories import joined, make_entry, make_figures, make_history, stepped_rates
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from synthetic import make_cell

from bench.history import plot
from bench.history.entries import History, MetricName
from bench.history.time_series import by_machine
from bench.report.charts import GREY, RED, settings
from bench.report.format import TIMES

FELL = make_history(stepped_rates())


def strips(history: History, metric: MetricName = "speed") -> list[Axes]:
    with settings():
        return [
            strip
            for _, _, figure in plot.figures(by_machine(history, metric), metric)
            for strip in figure.axes
        ]


def lines_of(strip: Axes, colour: str) -> Iterator[Any]:
    for line in strip.lines:
        if to_hex(line.get_color()) == colour.lower():
            yield line


def test_a_strip_shows_every_value_against_the_median() -> None:
    rates = [1000.0, 1010.0, 990.0, 1100.0]
    (strip,) = strips(make_history(rates))
    (line,) = [line for line in strip.lines if line.get_marker() == "o"]
    assert list(line.get_xdata()) == [0, 1, 2, 3]
    middle = np.log(1000 * 1010) / 2
    np.testing.assert_allclose(line.get_ydata(), np.log(rates) - middle)
    assert strip.get_title(loc="left") == f"PyTorch eager   1{TIMES} = 1,005 samples/s"
    assert "1,100 samples/s" in [text.get_text() for text in strip.texts]
    low, high = strip.get_ylim()
    assert low < min(line.get_ydata())
    assert high > max(line.get_ydata())


def test_an_interval_is_drawn_if_there_is_one() -> None:
    (with_it,), (without,) = strips(make_history([1000.0])), strips(make_history([1000.0]), "first-step")
    (interval,) = [line for line in with_it.lines if line.get_marker() != "o"]
    np.testing.assert_allclose(interval.get_ydata(), np.log([0.99, 1.01]), atol=1e-12)
    assert [line.get_marker() for line in without.lines] == ["o"]


def test_a_change_point_stands_between_its_runs_with_the_medians_of_both_sides() -> None:
    (strip,) = strips(FELL)
    (mark,) = [line for line in lines_of(strip, RED) if len(set(line.get_xdata())) == 1]
    assert set(mark.get_xdata()) == {11.5}
    levels = [line for line in lines_of(strip, RED) if len(set(line.get_xdata())) == 2]
    assert [list(line.get_xdata()) for line in levels] == [[0, 11], [12, 19]]
    logs = np.log(stepped_rates())
    for line, part in zip(levels, (logs[:12], logs[12:]), strict=True):
        assert set(line.get_ydata()) == {float(np.median(part) - np.median(logs))}
    (label,) = [text.get_text() for text in strip.texts if to_hex(text.get_color()) == RED.lower()]
    assert label == f"\N{MINUS SIGN}{100 * (1 - np.exp(np.median(logs[12:]) - np.median(logs[:12]))):.1f} %"


def test_a_level_series_has_no_red() -> None:
    (strip,) = strips(make_history(stepped_rates(factor=1.0)))
    assert list(lines_of(strip, RED)) == []


def test_a_run_that_does_not_count_is_a_grey_cross() -> None:
    lacking = make_figures(900.0, ranked=False, counts=False, why_not="2 of 3 blocks")
    (strip,) = strips(History(entries=(make_entry(0), make_entry(1, [lacking]), make_entry(2))))
    (cross,) = [line for line in lines_of(strip, GREY) if line.get_marker() == "x"]
    assert list(cross.get_xdata()) == [1]
    (line,) = [line for line in strip.lines if line.get_marker() == "o"]
    assert list(line.get_xdata()) == [0, 2]


def test_strips_of_a_machine_share_their_runs_and_only_the_last_names_them() -> None:
    later = make_history([1.0] * 3, cell=make_cell(mode="compile"))
    entries = [
        msgspec.structs.replace(entry, cells=(*entry.cells, *other.cells))
        for entry, other in zip(make_history([1.0] * 3).entries, later.entries, strict=True)
    ]
    first, second = strips(History(entries=(*entries, make_entry(3))))
    assert first.get_xlim() == second.get_xlim() == (-0.5, 3.5)
    assert [label.get_text() for label in first.get_xticklabels()] == [""] * 4
    assert [label.get_text() for label in second.get_xticklabels()][-1] == "2026-05-04\n0000003"


@pytest.mark.parametrize("count", [1, 7, 8, 100, 365])
def test_no_more_runs_are_named_than_fit_and_the_latest_always(count: int) -> None:
    (strip,) = strips(make_history([1.0] * count))
    ticks = list(strip.get_xticks())
    assert 1 <= len(ticks) <= 7
    assert ticks[-1] == count - 1


@pytest.mark.parametrize(
    ("largest", "ticks"),
    [
        (1.001, (0.98, 1, 1.02)),
        (1.03, (0.98, 1, 1.02)),
        (1.3, (0.8, 1, 1.2)),
        (1.99, (0.5, 1, 1.5)),
        (2.1, (0.5, 1, 2)),
        (70, (1 / 50, 1, 50)),
    ],
)
def test_ticks_are_round_and_inside(largest: float, ticks: tuple[float, ...]) -> None:
    (strip,) = strips(make_history([1 / largest, largest]))
    assert np.exp(strip.get_yticks()) == pytest.approx(ticks)


def test_the_same_history_gives_the_same_bytes_and_each_workload_a_chart() -> None:
    machines = by_machine(joined(FELL, make_history([1.0], cell=make_cell("mnist-mlp"))), "speed")
    charts = plot.draw(machines, "speed")
    assert charts == plot.draw(machines, "speed")
    assert [(chart.name, chart.workload) for chart in charts] == [
        ("history-speed-mnist-cnn", "mnist-cnn"),
        ("history-speed-mnist-mlp", "mnist-mlp"),
    ]
    for chart in charts:
        assert ET.fromstring(chart.content).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314 - made here
