"""The plots of learning: every seed is in sight, and a censored training is shown as such."""

import re
import xml.etree.ElementTree as ET

import msgspec
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from synthetic import make_header, make_job, make_parity, make_run
from trainings import CELLS, learning_run, make_curve, make_finals, make_proof, make_training

from bench.analysis.accuracy import converge
from bench.analysis.first_steps import first_steps
from bench.analysis.summary import summarise
from bench.records.runs import Run
from bench.report.charts import HATCHES, make_panels, name_rows, settings, svg
from bench.run.report import curves, plots

TORCH, TENSORFLOW, JAX = CELLS


@pytest.fixture(scope="module")
def learned() -> dict[str, dict[str, Axes]]:
    """Return the panels of a run that learned, by plot and workload."""
    return panels(learning_run())


def panels(run: Run) -> dict[str, dict[str, Axes]]:
    with plots.settings():
        figures = plots.figures(run, summarise(run))
    return {
        name: {panel.get_title(loc="left").split()[0]: panel for panel in figures[name].axes}
        for name in curves.NAMES
        if name in figures
    }


def test_a_run_that_learned_has_every_plot_of_learning_and_each_is_well_formed():
    run = learning_run(seeds=3, epochs=4)
    svgs = plots.draw(run, summarise(run))
    assert set(curves.NAMES) <= set(svgs)
    for name in curves.NAMES:
        assert ET.fromstring(svgs[name]).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314 - made here


def test_without_trainings_nothing_is_drawn_of_learning():
    assert panels(make_run(make_header([TORCH]), [make_parity(TORCH)])) == {}


def test_without_twins_there_is_no_plot_of_defaults():
    assert "defaults" not in panels(make_run(make_header([TORCH]), make_finals(TORCH, {0: 0.9})))


@pytest.mark.parametrize("name", ["accuracy_epochs", "accuracy_seconds", "loss_epochs", "loss_seconds"])
def test_a_curve_is_the_mean_and_its_band_holds_every_seed(name, learned):
    for panel in learned[name].values():
        assert len(panel.collections) == 3  # a band for each framework
        for band, line in zip(panel.collections, panel.lines, strict=False):
            (path,) = band.get_paths()
            lowest, highest = path.vertices[:, 1].min(), path.vertices[:, 1].max()
            middle = line.get_ydata()
            assert lowest <= min(middle) < max(middle) <= highest
            assert to_hex(band.get_facecolor()[0]) == line.get_color().lower()


def test_a_single_seed_has_no_band():
    run = make_run(make_header([TORCH]), make_finals(TORCH, {0: 0.98}))
    (panel,) = panels(run)["accuracy_epochs"].values()
    assert not panel.collections


def test_accuracy_against_epochs_shows_all_that_comes_after_a_quarter_and_the_target(learned):
    workloads = {one.workload: one for one in converge(learning_run()).workloads}
    for name, panel in learned["accuracy_epochs"].items():
        workload = workloads[name]
        late = [
            end
            for cell in workload.cells.values()
            for point in cell.curve
            if point.epoch >= 6 / 4
            for end in (100 * point.accuracy_low, 100 * point.accuracy_high)
        ]
        low, high = panel.get_ylim()
        assert low < min(*late, 100 * workload.target)
        assert max(*late, 100 * workload.target) < high
        assert high - low < 15  # the start at 10 % would take the room
        assert all(line.get_clip_on() for line in panel.lines[:3])


def test_the_way_to_the_target_shows_every_seed_and_where_a_censored_one_stopped(learned):
    (workload,) = [one for one in converge(learning_run()).workloads if one.workload == "cifar10-cnn"]
    cells = list(workload.cells.values())
    panel = learned["to_target"]["cifar10-cnn"]
    marked = {
        marker: [line.get_xdata() for line in panel.lines if line.get_marker() == marker] for marker in "o>|"
    }
    shown = sorted(x for seconds in marked["o"] for x in seconds)
    assert shown == sorted(one.seconds for cell in cells for one in cell.crossings.values() if one)
    assert [seconds[0] for seconds in marked["|"]] == [cell.seconds_to_target for cell in cells]
    stops = [x for seconds in marked[">"] for x in seconds]
    assert [cell.successes for cell in cells] == [5, 4, 4]
    assert stops == [cells[2].curve[-1].train_s]  # the other that did not get there diverged
    left, right = panel.get_xlim()
    assert left == 0
    assert max(*shown, *stops) < right
    for text, cell in zip(panel.texts, cells, strict=True):
        assert text.get_text().endswith(f"{cell.successes} of 5")


def test_a_target_that_nobody_reached_is_drawn_without_a_median():
    run = make_run(make_header([TORCH]), make_finals(TORCH, {0: 0.5, 1: 0.6}))
    (panel,) = panels(run)["to_target"].values()
    assert [text.get_text() for text in panel.texts] == ["0 of 2"]
    assert {line.get_marker() for line in panel.lines} == {">"}


def test_trainings_that_diverged_at_once_are_no_plot():
    bad = make_training(TORCH, 0, make_curve([0.1], [0]), epochs=2, status="nan_loss")
    assert panels(make_run(make_header([TORCH]), [bad])) == {}


def test_the_first_steps_are_one_line_a_framework_before_the_disturbed_reference(learned):
    found = {one.workload: one for one in first_steps(learning_run())}
    assert set(learned["first_steps"]) == set(found) == {"mnist-cnn", "cifar10-cnn", "mnist-cnn-adam"}
    for name, panel in learned["first_steps"].items():
        assert panel.get_yscale() == "log"
        assert [list(line.get_ydata()) for line in panel.lines] == [
            list(steps.errors) for steps in found[name].cells.values()
        ]
        assert all(list(line.get_xdata()) == list(range(1, 41)) for line in panel.lines)
        (band,) = panel.collections
        (path,) = band.get_paths()
        (rounding,) = {steps.rounding for steps in found[name].cells.values()}
        assert set(rounding) <= set(path.vertices[:, 1])
        assert len({line.get_color() for line in panel.lines}) == 3


@pytest.mark.parametrize("errors", [(1e-7,), (0.0, 0.0), (0.0, 2e-7, 0.5)])
def test_first_steps_of_any_number_and_with_errors_of_zero_are_inside_the_axis(errors):
    job = msgspec.structs.replace(make_job(TORCH), proofs=(make_proof(errors, errors[::-1]),))
    (panel,) = panels(make_run(make_header([TORCH]), [make_parity(TORCH), job]))["first_steps"].values()
    (line,) = panel.lines
    low, high = panel.get_ylim()
    assert 0 < low < high
    assert all(low <= y <= high for y in line.get_ydata())
    left, right = panel.get_xlim()
    assert left < 1
    assert len(errors) < right
    assert [int(place) for place in panel.get_xticks() if left <= place <= right]


def test_defaults_and_matched_stand_side_by_side_for_every_framework(learned):
    (pair,) = converge(learning_run()).defaults
    (panel,) = learned["defaults"].values()
    points = [line for line in panel.lines if line.get_marker() in ("o", "s")]
    assert [label.get_text() for label in panel.get_yticklabels()] == [
        "PyTorch eager", "TensorFlow graph", "JAX jit",
    ]  # fmt: skip
    assert [line.get_xdata()[0] for line in points] == [
        100 * point.test_accuracy for row in pair.rows for point in (row.matched_point, row.defaults_point)
    ]
    assert [line.get_markerfacecolor() == "white" for line in points] == [False, True] * 3


def test_panels_lie_at_round_places_as_the_layout_differs_between_processes_in_its_last_digits():
    figure, found = make_panels([1.0, 1.0, 1.0])
    name_rows(found[0], ["a row with a long name", "another"])
    svg(figure)
    for panel in found:
        bounds = panel.get_position(original=True).bounds
        assert bounds == pytest.approx([round(value, 5) for value in bounds], abs=1e-12)
        assert 0 < bounds[0] < bounds[0] + bounds[2] <= 1


def test_a_picture_holds_its_text_as_text_in_fonts_that_there_are_everywhere():
    title = 'mnist-cnn & others, 0.12345 x="1.23456"'
    with settings():
        figure, found = make_panels([1.0, 1.0])
        for panel in found:
            panel.set_title(title)
            panel.set_ylabel("turned")
            panel.plot([0, 1, 2], [0, 1, 0.5])
        content = svg(figure).decode()
    assert "text{font-family: 'DejaVu Sans', Verdana, sans-serif}" in content
    assert content.count("font-family") == 1
    parsed = ET.fromstring(content)  # noqa: S314
    texts = [one.text for one in parsed.iter("{http://www.w3.org/2000/svg}text")]
    assert (texts.count(title), texts.count("turned")) == (2, 2)
    assert 'transform="rotate(-90 ' in content
    assert not re.search(r' d="[^"]*\d\.\d{3}', content)


@pytest.mark.parametrize("hatch", HATCHES)
def test_a_hatch_is_of_lines_as_one_of_dots_makes_a_picture_large(hatch: str):
    with settings():
        figure, (panel,) = make_panels([1.0])
        panel.barh([0], [1], hatch=hatch)
        assert len(svg(figure)) < 10_000
