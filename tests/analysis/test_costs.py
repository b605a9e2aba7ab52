"""What rows cost, derived from records whose figures are chosen."""

import math
from collections.abc import Callable, Mapping

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from synthetic import (
    make_block,
    make_cell,
    make_header,
    make_job,
    make_parity,
    make_points,
    make_run,
    make_windows,
)

from bench.analysis.costs import (
    BreakEven,
    CellCosts,
    Costs,
    break_even,
    framework_share,
    images_per_epoch,
    peaks,
    read_costs,
    roof,
)
from bench.analysis.summary import summarise
from bench.datasets.catalog import DATASETS
from bench.records.runs import Run
from bench.records.schema import JobRecord
from bench.workloads.catalog import WORKLOADS
from bench.workloads.flops import step_work
from bench.workloads.instruments import Peak, StepSplit
from bench.workloads.specs import Cell

MLP = WORKLOADS["mnist-mlp"]
EAGER = make_cell("mnist-mlp", "torch", "eager")
COMPILE = make_cell("mnist-mlp", "torch", "compile")
JAX = make_cell("mnist-mlp", "jax", "jit")
SPLIT = StepSplit(steps=10, data_s=1e-3, transfer_s=2e-3, dispatch_s=3e-3, device_s=4e-3)
positive = st.floats(1e-6, 1e6)


def changed(job: JobRecord, **fields: object) -> JobRecord:
    return msgspec.structs.replace(job, **fields)


def make(rates: Mapping[Cell, float], *, fields: Mapping[Cell, dict] | None = None, blocks: int = 3) -> Run:
    """Return a run of these steady rates, whose jobs have these fields changed."""
    records = [make_parity(cell) for cell in rates]
    for cell, rate in rates.items():
        for block in range(blocks):
            job = make_job(cell, block, rates=[rate] * 20, workload=MLP)
            records.append(changed(job, **(fields or {}).get(cell, {})))
    return make_run(make_header(list(rates), workloads=[MLP]), records)


def read(run: Run) -> Costs:
    return read_costs(run, summarise(run))


def only(run: Run) -> CellCosts:
    (found,) = read(run).cells
    return found


def test_the_frameworks_share_of_the_jobs_is_all_but_starting_opening_data_and_ending():
    inside = {"import_s": 1.0, "build_s": 0.5, "first_step_s": 0.5, "closer_s": 2.0, "learn_s": 3.0}
    windows = {"warmup": make_windows([1000.0]), "windows": make_windows([1000.0, 1000.0]), "lead_s": 0.7}
    job = changed(make_job(EAGER), **inside, **windows, wall_s=10.0)
    assert sum(window.seconds for window in (*job.warmup, *job.windows)) == pytest.approx(0.3)
    assert framework_share([job]) == pytest.approx(0.8)
    idle = changed(job, wall_s=22.0)
    assert framework_share([job, idle]) == pytest.approx(0.5)


def test_a_share_is_not_told_where_leads_are_not():
    told = changed(make_job(EAGER), lead_s=0.1)
    assert framework_share([told]) is not None
    assert framework_share([told, make_job(EAGER)]) is None, "of records of before"
    assert framework_share([]) is None


def test_start_up_is_the_median_of_each_part():
    run = make({EAGER: 1000.0})
    times = (1.0, 5.0, 3.0)
    jobs = [changed(job, import_s=seconds) for job, seconds in zip(run.jobs, times, strict=True)]
    found = only(msgspec.structs.replace(run, records=(*run.parity, *jobs))).start_up
    assert found.import_s == 3.0
    assert found.start_s == 0.3
    assert found.first_step_s == 0.4


def test_first_epoch_is_derived_from_the_pace_where_none_was_trained():
    found = only(make({EAGER: 1000.0}))
    assert found.start_up.first_epoch_s == pytest.approx(60.0)  # 60,000 images at 1,000 a second
    assert not found.start_up.epoch_measured
    assert found.start_up.first_result_s == pytest.approx(0.3 + 1.5 + 0.2 + 0.1 + 0.4 + 60.0)
    assert found.epoch_s == pytest.approx(60.0)
    assert found.step_s == pytest.approx(0.1)


def test_first_epoch_is_measured_where_one_was_trained_to_its_end():
    points = make_points(0.97, 3, 42.0)
    found = only(make({EAGER: 1000.0}, fields={EAGER: {"points": points}})).start_up
    assert found.first_epoch_s == pytest.approx(42.0)
    assert found.epoch_measured
    short = tuple(msgspec.structs.replace(point, epoch=point.epoch / 10) for point in points)
    assert not only(make({EAGER: 1000.0}, fields={EAGER: {"points": short}})).start_up.epoch_measured


def test_time_to_a_result_is_not_known_where_a_part_is_not():
    found = only(make({EAGER: 1000.0}, fields={EAGER: {"build_s": None}})).start_up
    assert found.build_s is None
    assert found.first_result_s is None


@pytest.mark.parametrize("status", ["crashed", "failed", "nan_loss", "wrong_device"])
def test_jobs_that_failed_tell_nothing(status):
    run = make({EAGER: 1000.0})
    broken = changed(run.jobs[0], status=status, import_s=99.0, peak_rss_bytes=2**40, counted_flops=1.0)
    run = msgspec.structs.replace(run, records=(*run.parity, broken, *run.jobs[1:]))
    found = only(run)
    assert found.start_up.import_s == 1.5
    assert found.peak_rss_bytes == 700 * 2**20
    assert found.counted_flops is None


def test_split_is_the_mean_over_the_steps():
    run = make({EAGER: 1000.0}, blocks=3)
    splits = [SPLIT, StepSplit(steps=30, data_s=5e-3, transfer_s=0, dispatch_s=0, device_s=0), None]
    jobs = [changed(job, split=split) for job, split in zip(run.jobs, splits, strict=True)]
    found = only(msgspec.structs.replace(run, records=(*run.parity, *jobs))).split
    assert found is not None
    assert found.steps == 40
    assert found.data_s == pytest.approx((10 * 1e-3 + 30 * 5e-3) / 40)
    assert found.device_s == pytest.approx(1e-3)


def test_what_nobody_told_is_none():
    found = only(make({EAGER: 1000.0}))
    assert found.split is None
    assert found.joules_per_1000 is None
    assert found.ceiling is None
    assert found.share_of_peak is None
    assert found.share_of_roof is None
    assert found.counted_flops is None
    assert found.process_device_bytes is None


def test_energy_is_that_of_metered_jobs_alone():
    run = make({EAGER: 1000.0})
    metered = changed(run.jobs[0], windows=make_windows([1000.0] * 20, watts=50.0))
    run = msgspec.structs.replace(run, records=(*run.parity, metered, *run.jobs[1:]))
    assert only(run).joules_per_1000 == pytest.approx(50.0)  # 50 W for the second that 1,000 images take


def test_work_and_its_share_of_the_machine():
    peak = Peak(flops_per_s=1e11, bytes_per_s=1e9)
    found = only(make({EAGER: 1000.0}, fields={EAGER: {"peak": peak, "counted_flops": 3e8}}))
    work = step_work(MLP, DATASETS["mnist"].info)
    assert found.work == work
    assert found.flops_per_s == pytest.approx(work.products * 10)  # ten steps of 100 images a second
    assert found.share_of_peak == pytest.approx(work.products * 10 / 1e11)
    # At 24 operations a byte this machine's memory is the limit.
    assert found.share_of_roof == pytest.approx(work.products * 10 / (1e9 * work.intensity))
    assert found.counted_flops == 3e8


def test_peak_is_the_best_of_every_backend_on_the_same_device_and_precision():
    run = make(
        {EAGER: 1000.0, JAX: 2000.0},
        fields={
            EAGER: {"peak": Peak(flops_per_s=2e11, bytes_per_s=1e9)},
            JAX: {"peak": Peak(flops_per_s=1e11, bytes_per_s=3e9)},
        },
    )
    best = Peak(flops_per_s=2e11, bytes_per_s=3e9)
    assert peaks(run.jobs) == {("cpu", "fp32"): best}
    assert {one.ceiling for one in read(run).cells} == {best}
    tf32 = changed(run.jobs[0], spec=changed(run.jobs[0].spec, cell=changed(EAGER, precision="tf32")))
    assert set(peaks([*run.jobs, tf32])) == {("cpu", "fp32"), ("cpu", "tf32")}


def test_the_error_of_products_shows_a_precision_that_was_not_asked_for():
    asked = {EAGER: 3e-7, JAX: 2e-4}
    run = make(
        dict.fromkeys(asked, 1000.0),
        fields={
            cell: {"peak": Peak(flops_per_s=1e11, bytes_per_s=1e9, product_error=error)}
            for cell, error in asked.items()
        },
    )
    found = {one.backend: (one.error, one.as_asked) for one in read(run).products}
    assert found == {"torch": (3e-7, True), "jax": (2e-4, False)}
    assert read(make({EAGER: 1000.0})).products == ()


def test_a_row_that_does_other_work_is_not_held_to_this_count():
    run = make({EAGER: 1000.0})
    wrong = make_run(run.header, [make_parity(EAGER, error=1.0), *run.jobs])
    assert only(wrong).work is None
    assert only(wrong).flops_per_s is None
    reference = make_cell("mnist-mlp", "numpy", "float64")
    assert only(make({reference: 10.0})).work is None


@given(st.builds(Peak, flops_per_s=positive, bytes_per_s=positive), positive, positive)
def test_the_roof_never_falls_and_is_never_above_the_peak(ceiling, intensity, more):
    low, high = roof(ceiling, intensity), roof(ceiling, intensity + more)
    assert 0 < low <= high <= ceiling.flops_per_s
    assert low <= ceiling.bytes_per_s * intensity


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_break_even_is_where_both_have_taken_as_long(extra_s, saved_s):
    epochs = break_even(extra_s, saved_s)
    if epochs is None:
        assert saved_s < 0 or (saved_s == 0 and extra_s > 0)
    elif epochs == 0:
        assert extra_s <= 0 or extra_s / saved_s == 0
    else:
        assume(math.isfinite(epochs))
        assert epochs > 0
        assert epochs * saved_s == pytest.approx(extra_s)


@pytest.mark.parametrize(
    ("extra_s", "saved_s", "epochs"),
    [
        (10.0, 2.0, 5.0),
        (10.0, 0.0, None),
        (10.0, -1.0, None),
        (-10.0, -1.0, None),
        (-10.0, 1.0, 0.0),
        (0.0, 0.0, 0.0),
    ],
)
def test_break_even_by_hand(extra_s, saved_s, epochs):
    assert break_even(extra_s, saved_s) == epochs


def test_break_even_of_two_modes():
    run = make(
        {EAGER: 1000.0, COMPILE: 2000.0, JAX: 1000.0},
        fields={COMPILE: {"first_step_s": 15.4, "import_s": 999.0}},  # what all modes share is left out
    )
    (found,) = read(run).break_evens
    assert (found.later, found.sooner) == (COMPILE, EAGER)
    assert found.extra_s == pytest.approx(15.0)
    assert found.saved_s == pytest.approx(30.0)
    assert found.epochs == pytest.approx(0.5)


def edited(run: Run, edit: Callable[[JobRecord], JobRecord]) -> Run:
    records = [edit(record) if isinstance(record, JobRecord) else record for record in run.records]
    return msgspec.structs.replace(run, records=tuple(records))


def test_break_even_is_also_told_block_by_block_without_blocks_that_were_dropped():
    def slower_in_later_blocks(job: JobRecord) -> JobRecord:
        compiles = job.spec.cell == COMPILE
        return changed(job, first_step_s=(1.0 + job.spec.block) * (10 if compiles else 1))

    run = edited(make({EAGER: 1000.0, COMPILE: 2000.0}, blocks=5), slower_in_later_blocks)
    blocks = [
        make_block([EAGER, COMPILE], block, round_steal=(0.0 if block else 0.4,) * 20) for block in range(5)
    ]
    run = msgspec.structs.replace(run, records=(*run.records, *blocks))
    assert summarise(run).screenings[MLP.name].dropped == {0}
    (found,) = read(run).break_evens
    saved_s = 30.0  # an epoch takes 60 s and 30 s
    assert found.by_block == pytest.approx([9 * (1 + block) / saved_s for block in range(1, 5)])
    assert found.bounds == (found.by_block[0], found.by_block[-1])


def test_a_job_that_found_its_program_compiled_tells_nothing_of_starting():
    def compiled_before(job: JobRecord) -> JobRecord:
        spec = msgspec.structs.replace(job.spec, compiles_anew=job.spec.block > 0)
        return changed(job, spec=spec, first_step_s=1.0 + job.spec.block)

    run = edited(make({EAGER: 1000.0, COMPILE: 2000.0}), compiled_before)
    costs = read(run)
    (found,) = costs.break_evens
    assert len(found.by_block) == 2
    for one in costs.cells:
        assert one.start_up.bounds is not None
        low, high = one.start_up.bounds
        assert high - low == pytest.approx(1.0)  # blocks 1 and 2


@pytest.mark.parametrize(
    ("blocks", "bounds"),
    [((), None), ((1.0,), None), ((3.0, 1.0), (1.0, 3.0)), ((3.0, None), (3.0, None)), ((None, None), None)],
)
def test_bounds_of_a_break_even(blocks, bounds):
    cell = make_cell()
    one = BreakEven(later=cell, sooner=cell, extra_s=1, saved_s=1, epochs=1, by_block=blocks)
    assert one.bounds == bounds


def with_pipeline(run: Run) -> Run:
    backends = tuple(
        msgspec.structs.replace(one, pipeline_modes=("compile",)) if one.name == "torch" else one
        for one in run.header.backends
    )
    return msgspec.structs.replace(run, header=msgspec.structs.replace(run.header, backends=backends))


@pytest.mark.parametrize("rate", [600.0, 1500.0])
def test_pipeline_against_memory_is_the_verdicts_comparison_the_right_way_round(rate):
    run = with_pipeline(make({EAGER: 1000.0, COMPILE: rate, JAX: 800.0}))
    found = read(run)
    (one,) = found.pipelines
    assert (one.pipeline, one.memory) == (COMPILE, EAGER)
    assert one.ratio is not None
    ratio, low, high = one.ratio
    assert ratio == pytest.approx(rate / 1000)
    compared = one.comparison
    assert (low, high) == pytest.approx(
        (compared.low, compared.high) if rate > 1000 else (1 / compared.high, 1 / compared.low)
    )
    assert found.break_evens == ()  # a pipeline is not a way of compiling


def test_pipeline_is_not_compared_where_a_row_is_not_ranked():
    run = with_pipeline(make({EAGER: 1000.0, COMPILE: 600.0}))
    run = make_run(run.header, [record for record in run.records if record not in run.parity])
    (one,) = read(run).pipelines
    assert one.comparison is None
    assert one.ratio is None


def test_images_of_an_epoch():
    header = make_header([EAGER], workloads=[MLP])
    assert images_per_epoch(MLP, header) == 60_000
    assert images_per_epoch(msgspec.structs.replace(MLP, batch_size=1024), header) == 58 * 1024
    assert images_per_epoch(MLP, msgspec.structs.replace(header, dataset_limit=1050)) == 1000
    assert images_per_epoch(MLP, msgspec.structs.replace(header, sample=True)) == 2000
    assert images_per_epoch(MLP, msgspec.structs.replace(header, dataset_limit=50)) is None
    assert images_per_epoch(msgspec.structs.replace(MLP, dataset="nobody's"), header) is None


def test_nothing_is_read_from_an_empty_run():
    assert read(make_run(make_header([]))) == Costs(cells=(), break_evens=(), pipelines=(), products=())
    planned = only(make_run(make_header([EAGER], workloads=[MLP])))
    assert planned.start_up.first_result_s is None
    assert planned.flops_per_s is None
