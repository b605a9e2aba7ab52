"""Reading a sweep: the line is found again, and nothing is said beyond what was measured."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import make_cell, make_header, make_job, make_parity, make_run

from bench.analysis.summary import Summary, summarise
from bench.analysis.sweep import SweepPoint, fit, leave_out_sweep, read_sweeps, split_name
from bench.workloads.catalog import WORKLOADS, swept
from bench.workloads.specs import Cell

MLP = WORKLOADS["mnist-mlp"]
BATCHES = (16, 64, 256, 1024)


def points_of(overhead_s: float, per_image_s: float, batches=BATCHES) -> list[SweepPoint]:
    return [
        SweepPoint(batch_size=batch, samples_per_s=batch / (overhead_s + per_image_s * batch))
        for batch in batches
    ]


def make(batches=BATCHES, *, failing: int | None = None, besides: tuple[Cell, ...] = ()) -> Summary:
    """Return a sweep of a step of 1 ms and 10 µs an image; at the batch `failing` parity fails."""
    workloads = {swept(MLP, batch).name: swept(MLP, batch) for batch in batches}
    cells = [make_cell(name, "torch", "eager") for name in workloads] + list(besides)
    records = []
    for cell in cells:
        workload = workloads.get(cell.workload, MLP)
        rate = workload.batch_size / (1e-3 + 1e-5 * workload.batch_size)
        records.append(make_parity(cell, error=1.0 if workload.batch_size == failing else 1e-6))
        records += [make_job(cell, block, rates=[rate] * 20, workload=workload) for block in range(3)]
    header = make_header(cells, workloads=[*workloads.values(), MLP])
    return summarise(make_run(header, records))


@given(st.floats(1e-7, 1e-1), st.floats(1e-8, 1e-2))
def test_a_line_is_found_again(overhead_s, per_image_s):
    line = fit(points_of(overhead_s, per_image_s))
    assert line is not None
    assert line.worst < 1e-6
    assert line.good
    # Each term is known as well as it shows in some step.
    assert line.overhead_s + 16 * line.per_image_s == pytest.approx(overhead_s + 16 * per_image_s)
    assert line.overhead_s + 1024 * line.per_image_s == pytest.approx(overhead_s + 1024 * per_image_s)


@given(st.lists(st.floats(1e-3, 1e9), min_size=4, max_size=4))
def test_no_term_is_negative_and_the_worst_miss_is_told(rates):
    points = [SweepPoint(batch_size=b, samples_per_s=r) for b, r in zip(BATCHES, rates, strict=True)]
    line = fit(points)
    assert line is not None
    assert line.overhead_s >= 0
    assert line.per_image_s >= 0
    misses = [abs((line.overhead_s + line.per_image_s * p.batch_size) / p.step_s - 1) for p in points]
    assert line.worst == pytest.approx(max(misses))


@given(st.floats(1e-5, 1e-2), st.floats(1e-6, 1e-4), st.floats(1.0, 1.1), st.floats(1e-3, 1e3))
def test_the_unit_of_time_changes_nothing(overhead_s, per_image_s, bump, scale):
    points = points_of(overhead_s, per_image_s)
    points[1] = SweepPoint(batch_size=points[1].batch_size, samples_per_s=points[1].samples_per_s * bump)
    other = [SweepPoint(batch_size=p.batch_size, samples_per_s=p.samples_per_s / scale) for p in points]
    line, scaled = fit(points), fit(other)
    assert line is not None
    assert scaled is not None
    assert scaled.worst == pytest.approx(line.worst, abs=1e-6)
    assert scaled.per_image_s == pytest.approx(line.per_image_s * scale, rel=1e-6)


def test_a_step_that_never_grows_has_no_end_of_overhead():
    line = fit([SweepPoint(batch_size=batch, samples_per_s=1000.0 * batch) for batch in BATCHES])
    assert line is not None
    assert line.half_batch is None
    assert line.overhead_s == pytest.approx(1e-3)


def test_a_throughput_that_falls_with_the_batch_is_no_line():
    line = fit([SweepPoint(batch_size=batch, samples_per_s=1e6 / batch) for batch in BATCHES])
    assert line is not None
    assert not line.good
    assert line.worst > 0.5


def test_two_batches_are_too_few():
    assert fit(points_of(1e-3, 1e-5, (16, 64))) is None
    assert fit(points_of(1e-3, 1e-5, (16, 64, 64))) is None
    assert fit(points_of(1e-3, 1e-5, (16, 64, 128))) is not None


def test_a_sweep_is_gathered_over_its_batches():
    (sweep,) = read_sweeps(make())
    assert sweep.cell == make_cell("mnist-mlp", "torch", "eager")
    assert [point.batch_size for point in sweep.points] == [16, 64, 256, 1024]
    assert sweep.points[1].step_s == pytest.approx(1.64e-3)
    assert sweep.line is not None
    assert sweep.line.half_batch == pytest.approx(100.0, rel=1e-3)


def test_a_row_that_fails_parity_is_no_part_of_a_sweep():
    (sweep,) = read_sweeps(make(failing=64))
    assert [point.batch_size for point in sweep.points] == [16, 256, 1024]


def test_backends_and_other_workloads_are_kept_apart():
    plain = make_cell("mnist-mlp", "torch", "eager")
    other = make_cell("mnist-mlp@64", "jax", "jit")
    found = read_sweeps(make(besides=(plain, other)))
    assert [(sweep.cell.backend, len(sweep.points)) for sweep in found] == [("torch", 4), ("jax", 1)]
    assert found[1].line is None


def test_rows_outside_the_sweep_are_shown_alone_where_there_are_any():
    plain = make_cell("mnist-mlp", "torch", "eager")
    assert leave_out_sweep(make(besides=(plain,))) == {plain}
    assert leave_out_sweep(make()) == {make_cell("mnist-mlp@1024", "torch", "eager")}
    assert leave_out_sweep(summarise(make_run(make_header([])))) == frozenset()


@pytest.mark.parametrize("name", ["mnist-mlp", "@64", "a@", "a@b", "a@0", "a@-1", "a@²", "a@1.5"])
def test_names_that_are_of_no_sweep(name):
    assert split_name(name) is None


@given(st.sampled_from(sorted(WORKLOADS)), st.integers(1, 65536))
def test_the_names_that_a_plan_gives_are_read_back(name, batch):
    assert split_name(swept(WORKLOADS[name], batch).name) == (name, batch)
