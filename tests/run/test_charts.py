"""The charts of a run: what they show is what was derived, and a title claims no more than was proven."""

import math
from pathlib import Path
from statistics import median

import msgspec
import pytest
from broken_runs import all_crashed, hostile_run, parity_alone, stopped_at_once
from synthetic import (
    make_header,
    make_job,
    make_parity,
    make_run,
    realistic_run,
    scaling_run,
    simple_run,
)
from test_run_costs import full_run, sweep_run
from trainings import CELLS, learning_run, make_curve, make_finals, make_proof, make_training

from bench.analysis.accuracy import converge
from bench.analysis.costs import read_costs
from bench.analysis.summary import summarise
from bench.records.runs import Run
from bench.report import svg
from bench.report.blocks import Chart
from bench.report.chart import Bars, Lines
from bench.report.format import TIMES
from bench.run.report import charts
from bench.text import clean

TORCH, TENSORFLOW, JAX = CELLS
RUNS = {
    "realistic": realistic_run,
    "learned": learning_run,
    "full": full_run,
    "sweep": sweep_run,
    "ranks": lambda: scaling_run({"torch": {1: 0.9, 2: 1.8}, "jax": {2: 1.7}}, {"jax": {2: 1.9}}),
}
EVERY = [getattr(charts, name) for name in charts.__all__ if name not in ("every", "overview")]


@pytest.fixture(scope="module")
def realistic() -> Run:
    return realistic_run()


@pytest.fixture(scope="module")
def learned() -> Run:
    return learning_run()


def charts_of(run: Run, question) -> dict[str, Chart]:
    """Return the charts that answer a question, by workload."""
    found = question(run, summarise(run))
    assert len({chart.tags["workload"] for chart in found}) == len(found)
    return {chart.tags["workload"]: chart for chart in found}


def bars_of(chart: Chart) -> Bars:
    assert isinstance(chart.drawn, Bars)
    return chart.drawn


def lines_of(chart: Chart) -> Lines:
    assert isinstance(chart.drawn, Lines)
    return chart.drawn


# ---- all charts


@pytest.mark.parametrize("name", RUNS)
def test_every_chart_is_drawn_has_a_title_and_a_table_and_a_name_of_its_own(name):
    run = RUNS[name]()
    summary = summarise(run)
    found = charts.every(run, summary)
    assert len({chart.name for chart in found}) == len(found) > 5
    for chart in found:
        assert svg.draw(chart).startswith("<svg")
        assert chart.title
        assert not chart.title.endswith(".")
        assert chart.about.endswith(".")
        assert "nan" not in chart.title.split()
        assert chart.table.rows
        assert all(len(row) == len(chart.table.heads) for row in chart.table.rows)
        assert len(chart.table.tags) in (0, len(chart.table.rows))
        assert "workload" in chart.tags or chart.name.startswith("roofline")
        axes = [chart.drawn.axis] if isinstance(chart.drawn, Bars) else [chart.drawn.x, chart.drawn.y]
        assert all(axis.title for axis in axes)


def test_every_function_is_among_all_charts_and_has_a_run_that_draws_it(realistic):
    runs = [RUNS[name]() for name in RUNS]
    jobs = [make_job(TORCH, block, peak_device_bytes=2**30) for block in range(3)]
    runs.append(make_run(make_header([TORCH]), [make_parity(TORCH), *jobs]))
    whole = {chart.name for run in runs for chart in charts.every(run, summarise(run))}
    for question in EVERY:
        names = {chart.name for run in runs for chart in question(run, summarise(run))}
        assert names, question.__name__
        assert names <= whole, question.__name__


@pytest.mark.parametrize("make", [all_crashed, hostile_run, parity_alone, stopped_at_once])
def test_a_broken_run_has_charts_of_what_there_is(make, tmp_path: Path):
    run = make(tmp_path)
    summary = summarise(run)
    overview = charts.overview(run, summary)
    for chart in [*charts.every(run, summary), *([overview] if overview else [])]:
        content = svg.draw(chart)
        assert "<script" not in content
        assert clean(content) == content.strip()
        assert "\u202e" not in content


def test_a_run_without_records_has_no_chart():
    run = make_run(make_header([TORCH, JAX]))
    assert charts.every(run, summarise(run)) == []
    assert charts.overview(run, summarise(run)) is None


def test_a_backend_has_one_hue_and_no_two_rows_look_alike_without_colour(realistic):
    hues: dict[str, set[int]] = {}
    for question in (charts.speed, charts.memory, charts.parity, charts.first_result):
        for chart in charts_of(realistic, question).values():
            for bar in bars_of(chart).bars:
                hues.setdefault(bar.tags["backend"], set()).add(bar.hue)
    for chart in charts_of(realistic, charts.accuracy_epochs).values():
        series = lines_of(chart).series
        for one in series:
            hues.setdefault(one.tags["backend"], set()).add(one.hue)
        assert len({one.shape for one in series}) == len(series)
    assert all(len(found) == 1 for found in hues.values())
    assert len(set.union(*hues.values())) == len(hues) == 3


# ---- speed and comparisons


def test_speed_shows_every_row_with_its_interval_and_why_a_row_has_none(realistic):
    summary = summarise(realistic)
    by_workload = charts_of(realistic, charts.speed)
    assert len(by_workload) == 6
    for workload, chart in by_workload.items():
        rows = [row for row in summary.cells if row.workload == workload]
        bars = bars_of(chart).bars
        assert [(bar.parts[0], bar.low, bar.high, bar.ranked) for bar in bars] == [
            (row.samples_per_s, row.samples_per_s_low, row.samples_per_s_high, row.ranked) for row in rows
        ]
        for bar, row in zip(bars, rows, strict=True):
            assert (bar.tags["backend"], bar.tags["mode"]) == (row.backend, row.mode)
            assert row.ranked or bar.text.endswith(charts_state(row))
            assert bar.text


def charts_state(row) -> str:
    from bench.run.report.tables import state

    return state(row)


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ({TORCH: [1000, 1001, 999], JAX: [500, 501, 499]}, "PyTorch eager is fastest, 1.99"),
        ({TORCH: [1000, 1300, 800], JAX: [900, 1000, 1100]}, "no difference between frameworks is proven"),
        (
            {TORCH: [1000, 1000.1, 999.9], JAX: [1000, 999.9, 1000.1]},
            "no two frameworks differ by more than 2.0 %",
        ),
        ({TORCH: [1000, 1001, 999]}, "only PyTorch is ranked"),
        ({TORCH: [1000]}, "no row is ranked"),
    ],
)
def test_the_title_of_speed_claims_what_is_proven(rates, said):
    (chart,) = charts_of(simple_run(rates), charts.speed).values()
    assert said in chart.title
    assert ("is fastest" in chart.title) == ("is fastest" in said)


def test_titles_name_the_device_if_a_run_has_several():
    cells = [TORCH, msgspec.structs.replace(TORCH, device="gpu")]
    run = simple_run({cell: [1000, 1001, 999] for cell in cells})
    titles = [chart.title for chart in charts.speed(run, summarise(run))]
    assert [title.split(":")[0] for title in titles] == ["mnist-cnn (cpu fp32)", "mnist-cnn (gpu fp32)"]


def test_ratios_show_every_comparison_with_its_interval_around_one(realistic):
    summary = summarise(realistic)
    by_workload = charts_of(realistic, charts.ratios)
    for verdict in summary.verdicts:
        made = [*verdict.made.backends, *verdict.made.modes, *verdict.made.tuning]
        if not made:
            assert verdict.workload not in by_workload
            continue
        chart = by_workload[verdict.workload]
        drawn = bars_of(chart)
        assert drawn.axis.log
        assert [mark.value for mark in drawn.marks] == [1.0, 1.01]
        for bar, one in zip(drawn.bars, made, strict=True):
            assert ("faster" in bar.text) == one.differs
            assert ("not proven beyond" in bar.text) == (one.kind == "undecided" and one.low > 1.01)
        assert [(bar.parts[0], bar.low, bar.high) for bar in drawn.bars] == [
            (one.ratio, one.low, one.high) for one in made
        ]
        proven = sum(one.differs for one in made)
        assert (f"{proven} of {len(made)}" in chart.title) == (proven > 0 and len(made) > 1)
        assert ("no difference is proven" in chart.title) == (proven == 0)


def test_the_overview_shows_each_framework_against_the_fastest_of_each_workload(realistic):
    summary = summarise(realistic)
    chart = charts.overview(realistic, summary)
    assert chart is not None
    by_group: dict[str, list] = {}
    for bar in bars_of(chart).bars:
        by_group.setdefault(bar.group, []).append(bar)
    for verdict in summary.verdicts:
        found = by_group.get(verdict.workload, [])
        assert [bar.name for bar in found][:1] == ([found[0].name] if len(verdict.picks) > 1 else [])
        compared = {frozenset((one.faster, one.slower)): one for one in verdict.made.backends}
        for bar, pick in zip(found, verdict.picks, strict=False):
            if pick == verdict.picks[0]:
                assert (bar.parts, bar.text) == ((1.0,), f"1{TIMES}")
                continue
            one = compared[frozenset((verdict.picks[0].cell, pick.cell))]
            share = 1 / one.ratio if one.faster == verdict.picks[0].cell else one.ratio
            assert bar.parts[0] == pytest.approx(share)
            assert bar.low < bar.parts[0] < bar.high
            assert ("no difference proven" in bar.text) == (not one.differs)
    wins = sum(verdict.winner is not None for verdict in summary.verdicts)
    assert f"on {6 - wins} no framework is proven the fastest" in chart.title


def test_one_framework_alone_has_no_overview():
    run = simple_run({TORCH: [1000, 1001, 999]})
    assert charts.overview(run, summarise(run)) is None


# ---- agreement


def test_the_first_steps_are_one_line_a_row_before_the_disturbed_reference(learned):
    for chart in charts_of(learned, charts.first_steps).values():
        reference, *rows = lines_of(chart).series
        assert reference.band
        assert not reference.marked
        assert [one.name for one in rows] == ["PyTorch eager", "TensorFlow graph", "JAX jit"]
        assert all([point.x for point in one.points] == list(range(1, 41)) for one in rows)
        assert "digits at step 1" in chart.title
        assert "step 40, where rounding alone" in chart.title


@pytest.mark.parametrize("errors", [(1e-7,), (0.0, 0.0), (0.0, 2e-7, 0.5)])
def test_first_steps_of_any_number_and_with_errors_of_zero_can_be_drawn(errors):
    job = msgspec.structs.replace(make_job(TORCH), proofs=(make_proof(errors, errors[::-1]),))
    (chart,) = charts_of(
        make_run(make_header([TORCH]), [make_parity(TORCH), job]), charts.first_steps
    ).values()
    assert svg.draw(chart)
    assert [len(one.points) for one in lines_of(chart).series] == [len(errors)] * 2


def test_parity_shows_the_worst_check_and_all_others_and_says_who_failed(realistic):
    by_workload = charts_of(realistic, charts.parity)
    assert "3 of 4 rows compute the same" in by_workload["mnist-mlp"].title
    assert "all rows compute the same" in by_workload["mnist-cnn"].title
    for chart in by_workload.values():
        for bar in bars_of(chart).bars:
            assert bar.parts[0] == max(bar.points)
            assert bar.ranked == (bar.parts[0] <= 1)
            assert bar.text.endswith("fails") == (not bar.ranked)


def test_an_error_of_zero_stands_inside_the_logarithmic_axis():
    run = make_run(make_header([TORCH]), [make_parity(TORCH, error=0.0)])
    (chart,) = charts_of(run, charts.parity).values()
    assert all(0 < point < 1 for point in bars_of(chart).bars[0].points)
    assert svg.draw(chart)


# ---- learning


def test_a_curve_is_the_mean_and_its_band_holds_every_seed(learned):
    workloads = {one.workload: one for one in converge(learned).workloads}
    for question in (charts.accuracy_epochs, charts.accuracy_seconds):
        for name, chart in charts_of(learned, question).items():
            series = lines_of(chart).series
            assert len(series) == 3
            for one, cell in zip(series, CELLS, strict=True):
                learned_cell = workloads[name].cells[msgspec.structs.replace(cell, workload=name)]
                assert one.band
                assert [point.y for point in one.points] == [
                    100 * point.test_accuracy for point in learned_cell.curve
                ]
                assert all(point.low <= point.y <= point.high for point in one.points)


def test_a_single_seed_has_no_band():
    run = make_run(make_header([TORCH]), make_finals(TORCH, {0: 0.98}))
    (chart,) = charts_of(run, charts.accuracy_epochs).values()
    (series,) = lines_of(chart).series
    assert not series.band
    assert {point.low for point in series.points} == {None}


def test_a_title_compares_no_tuned_row_with_one_as_taught():
    taught = msgspec.structs.replace(TORCH, mode="tutorial")
    jax = msgspec.structs.replace(TORCH, backend="jax", mode="jit")
    finals = [*make_finals(TORCH, {0: 0.98}), *make_finals(taught, {0: 0.98})]
    (chart,) = charts_of(make_run(make_header([TORCH, taught]), finals), charts.accuracy_seconds).values()
    assert "PyTorch eager trains" in chart.title
    assert "(tuned, one seed)" in chart.title
    (chart,) = charts_of(make_run(make_header([taught]), finals[1:]), charts.accuracy_seconds).values()
    assert "PyTorch tutorial trains" in chart.title
    finals += make_finals(jax, {0: 0.98})
    (chart,) = charts_of(
        make_run(make_header([TORCH, taught, jax]), finals), charts.accuracy_seconds
    ).values()
    assert "tutorial" not in chart.title


def test_the_axis_of_accuracy_holds_all_after_a_quarter_and_the_target_but_not_the_start(learned):
    for chart in charts_of(learned, charts.accuracy_epochs).values():
        axis = lines_of(chart).y
        late = [
            end
            for series in lines_of(chart).series
            for point in series.points
            if 4 * point.x >= series.points[-1].x
            for end in (point.low, point.high)
        ]
        shown = [*late, *(mark.value for mark in lines_of(chart).marks)]
        assert axis.low < min(shown) < max(shown) <= axis.high
        assert axis.high - axis.low < 15  # the start at 10 % would take the room


@pytest.mark.parametrize(
    ("finals", "said"),
    [
        ({0: 0.98, 1: 0.981}, "with 2 seeds nothing is proven (10 are needed)"),
        (
            {seed: 0.98 + 1e-4 * (seed % 3) for seed in range(10)},
            "learn the same: accuracies equal within 0.5 points",
        ),
        (
            {seed: 0.9 + 0.02 * (seed % 3) for seed in range(10)},
            "proven equal within 0.5 points for 0 of 1 pairs",
        ),
    ],
)
def test_the_title_of_accuracy_claims_what_is_proven(finals, said):
    # What one seed gives in PyTorch the next gives in JAX, so that differences scatter as the seeds do.
    turned = dict(zip(finals, [*list(finals.values())[1:], finals[0]], strict=True))
    records = [*make_finals(TORCH, finals), *make_finals(JAX, turned)]
    (chart,) = charts_of(make_run(make_header([TORCH, JAX]), records), charts.accuracy_epochs).values()
    assert said in chart.title


def test_a_training_that_diverged_and_a_brief_one_are_named(learned):
    assert "diverged" in charts_of(learned, charts.accuracy_epochs)["cifar10-cnn"].title
    brief = [*make_finals(TORCH, {0: 0.9}, epochs=0.5), *make_finals(JAX, {0: 0.9}, epochs=0.5)]
    (chart,) = charts_of(make_run(make_header([TORCH, JAX]), brief), charts.accuracy_epochs).values()
    assert "too briefly" in chart.title
    assert "too brief" in {cell for row in chart.table.rows for cell in row}


def test_trainings_that_diverged_at_once_are_no_chart():
    bad = make_training(TORCH, 0, make_curve([0.1], [0]), epochs=2, status="nan_loss")
    run = make_run(make_header([TORCH]), [bad])
    assert charts.accuracy_epochs(run, summarise(run)) == []


def test_the_way_to_the_target_shows_every_seed_and_says_if_they_overlap(learned):
    workloads = {one.workload: one for one in converge(learned).workloads}
    for name, chart in charts_of(learned, charts.to_target).items():
        bars = bars_of(chart).bars
        cells = {(cell.backend, cell.mode): one for cell, one in workloads[name].cells.items()}
        medians = [bar.parts[0] for bar in bars]
        assert medians == sorted(medians, key=lambda median: math.inf if median is None else median)
        for bar in bars:
            one = cells[bar.tags["backend"], bar.tags["mode"]]
            seconds = [crossing.seconds for crossing in one.crossings.values() if crossing]
            assert sorted(bar.points) == sorted(seconds)
            assert (bar.low, bar.high) == (min(seconds), max(seconds))
            assert f"{one.successes} of 5 seeds" in bar.text
    assert "overlap, so no difference is proven" in charts_of(learned, charts.to_target)["cifar10-cnn"].title


def test_a_target_that_no_row_reached_has_no_bar():
    run = make_run(make_header([TORCH]), make_finals(TORCH, {0: 0.5, 1: 0.6}))
    (chart,) = charts_of(run, charts.to_target).values()
    assert chart.title == "mnist-cnn: no row reaches 97 % in the median"
    (bar,) = bars_of(chart).bars
    assert (bar.parts, bar.text) == ((None,), "not reached, 0 of 2 seeds")


@pytest.mark.parametrize(
    ("first", "second", "doubt"),
    [
        ((10, 11), (10.5, 12), True),
        ((10, 11), (20, 21), False),
        ((10, None, 11), (20, 21, 22), True),  # one never got there, which is later than all others
    ],
)
def test_a_difference_is_in_doubt_if_seeds_overlap_or_one_never_got_there(first, second, doubt):
    records = [
        job
        for cell, seconds in ((TORCH, first), (JAX, second))
        for seed, each in enumerate(seconds)
        for job in make_finals(cell, {seed: 0.98 if each else 0.5}, epochs=1, seconds_per_epoch=each or 10)
    ]
    (chart,) = charts_of(make_run(make_header([TORCH, JAX]), records), charts.to_target).values()
    assert chart.title.startswith("mnist-cnn: PyTorch eager reaches 97 % first")
    assert ("no difference is proven" in chart.title) == doubt


def test_matched_and_own_defaults_stand_side_by_side_for_every_framework(learned):
    (pair,) = converge(learned).defaults
    (chart,) = charts_of(learned, charts.defaults).values()
    bars = bars_of(chart).bars
    assert [bar.name for bar in bars] == ["matched", "own defaults"] * 3
    assert [bar.group for bar in bars[::2]] == ["PyTorch eager", "TensorFlow graph", "JAX jit"]
    assert [bar.parts[0] for bar in bars] == [
        100 * point.test_accuracy for row in pair.rows for point in (row.matched_point, row.defaults_point)
    ]
    assert f"by at most {100 * pair.matched_spread:.2f} points" in chart.title


# ---- costs


def test_the_time_to_a_first_result_has_all_parts_the_shortest_first():
    run = full_run()
    slow = [
        msgspec.structs.replace(job, import_s=99.0) if job.spec.cell.mode == "compile" else job
        for job in run.jobs
    ]
    run = msgspec.structs.replace(run, records=(*run.parity, *slow))
    costs = {one.cell: one for one in read_costs(run, summarise(run)).cells}
    (chart,) = charts_of(run, charts.first_result).values()
    bars = bars_of(chart).bars
    sums = [sum(part or 0.0 for part in bar.parts) for bar in bars]
    assert sums == sorted(sums)
    by_row = {(cell.backend, cell.mode): one.start_up.parts for cell, one in costs.items()}
    assert all(bar.parts == by_row[bar.tags["backend"], bar.tags["mode"]] for bar in bars)
    assert len(bars_of(chart).parts) == len(bars[0].parts) == 6
    assert bars[0].text in chart.title


def test_the_slowest_and_the_fastest_process_stand_beside_the_median():
    run = simple_run({TORCH: [1000] * 3})
    jobs = [
        msgspec.structs.replace(job, first_step_s=seconds)
        for job, seconds in zip(run.jobs, (1.0, 2.0, 5.0), strict=True)
    ]
    (chart,) = charts_of(
        msgspec.structs.replace(run, records=(*run.parity, *jobs)), charts.first_result
    ).values()
    (bar,) = bars_of(chart).bars
    median_s = sum(part or 0.0 for part in bar.parts)
    assert (bar.low, bar.high) == pytest.approx((median_s - 1, median_s + 3))


def test_a_bar_that_would_squeeze_the_others_is_cut():
    run = full_run()
    slow = [
        msgspec.structs.replace(job, first_step_s=9000.0) if job.spec.cell.mode == "compile" else job
        for job in run.jobs
    ]
    run = msgspec.structs.replace(run, records=(*run.parity, *slow))
    (chart,) = charts_of(run, charts.first_result).values()
    sums = [sum(part or 0.0 for part in bar.parts) for bar in bars_of(chart).bars]
    assert max(sums) > 9000
    assert bars_of(chart).axis.high == pytest.approx(4 * median(sums))
    assert "bar cut" in svg.draw(chart)


def test_lines_of_when_compiling_pays_off_cross_where_it_does():
    run = full_run()
    pairs = [one for one in read_costs(run, summarise(run)).break_evens if one.epochs]
    assert pairs
    (chart,) = charts_of(run, charts.pays_off).values()
    series = lines_of(chart).series
    crossings = [one.points[0] for one in series if not one.joined]
    assert sorted(point.x for point in crossings) == sorted(pair.epochs for pair in pairs)
    ends = {(one.tags["backend"], one.tags["mode"]): one.points for one in series if one.joined}
    for pair in pairs:
        later, sooner = (ends[cell.backend, cell.mode] for cell in (pair.later, pair.sooner))
        assert later[0].y > sooner[0].y
        assert later[-1].y < sooner[-1].y
    assert "pays off after" in chart.title


def test_the_range_over_the_blocks_stands_beside_the_epochs_after_which_compiling_pays_off():
    run = full_run()
    first = {0: 20.0, 1: 30.0, 2: 60.0}
    jobs = [
        msgspec.structs.replace(job, first_step_s=first[job.spec.block])
        if job.spec.cell.mode == "compile"
        else job
        for job in run.jobs
    ]
    run = msgspec.structs.replace(run, records=(*run.parity, *jobs))
    (pair,) = [
        one
        for one in read_costs(run, summarise(run)).break_evens
        if one.later.mode == "compile" and one.epochs
    ]
    assert len(pair.by_block) == 3
    assert pair.bounds == (pair.by_block[0], pair.by_block[2])
    assert pair.bounds[0] < pair.epochs < pair.bounds[1]
    (chart,) = charts_of(run, charts.pays_off).values()
    assert (
        f"after {pair.epochs:.3g} epochs ({pair.bounds[0]:.3g}\N{EN DASH}{pair.bounds[1]:.3g})" in chart.title
    )


def test_a_mode_that_is_never_ahead_is_said_to_never_pay_off(realistic):
    for chart in charts_of(realistic, charts.pays_off).values():
        assert "PyTorch compile never pays off" in chart.title


def test_the_parts_of_a_step_are_shares_that_sum_to_the_whole():
    (chart,) = charts_of(full_run(), charts.step_split).values()
    for bar in bars_of(chart).bars:
        assert sum(part or 0.0 for part in bar.parts) == pytest.approx(100)


def test_memory_and_energy_begin_with_the_least(realistic):
    for run, question in ((realistic, charts.memory), (full_run(), charts.energy)):
        for chart in charts_of(run, question).values():
            values = [bar.parts[0] for bar in bars_of(chart).bars]
            known = [value for value in values if value is not None]
            assert values == [*sorted(known), *[None] * (len(values) - len(known))]
            assert "takes the least" in chart.title


def test_no_point_of_the_roofline_is_lost_and_the_nearest_is_named():
    run = full_run()
    (chart,) = charts.roofline(run, summarise(run))
    roof, *rows = lines_of(chart).series
    assert roof.joined
    shown = sorted((point.x, point.y) for one in rows for point in one.points)
    costs = [one for one in read_costs(run, summarise(run)).cells if one.work and one.flops_per_s]
    assert shown == sorted((one.work.intensity, one.flops_per_s) for one in costs if one.work)
    best = max(one.share_of_roof for one in costs)
    assert chart.title.endswith(f"{100 * best:.0f} %")
    assert {"mnist-mlp"} == {mark.text for mark in lines_of(chart).x_marks}


def test_a_sweep_shows_the_measurements_and_the_fitted_curve():
    run = sweep_run()
    (chart,) = charts.sweep(run, summarise(run))
    curve, measured = lines_of(chart).series
    assert [point.x for point in measured.points] == [16, 64, 256, 1024]
    assert curve.joined
    assert not measured.joined
    assert not measured.name
    assert lines_of(chart).x.labels == ("16", "64", "256", "1,024")
    assert chart.title.endswith("batch size: PyTorch eager 100")
