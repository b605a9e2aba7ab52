"""The report's section on costs and its plots: complete where there are figures, else in words."""

import re
from xml.etree import ElementTree as ET

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from synthetic import make_cell, make_header, make_job, make_parity, make_points, make_run

from bench.analysis.summary import summarise
from bench.analysis.sweep import StepLine, Sweep, SweepPoint
from bench.records.runs import Run
from bench.report.charts import settings, svg
from bench.report.format import TIMES, scaled, short_time
from bench.report.markdown import document
from bench.run.report import cost_plots, costs, plots
from bench.workloads.catalog import WORKLOADS, swept
from bench.workloads.instruments import Peak, StepSplit

MLP = WORKLOADS["mnist-mlp"]
replace = msgspec.structs.replace


def full_run(*, gpu: bool = False) -> Run:
    """Return a run of two modes, a pipeline and another backend, with everything that can be measured."""
    device = "gpu" if gpu else "cpu"
    torch, jax = "torch", "jax"
    seconds = {(torch, "eager"): 0.1, (torch, "compile"): 9.0, (torch, "loader"): 0.2, (jax, "jit"): 1.0}
    rates = dict(zip(seconds, (1000.0, 2000.0, 500.0, 1500.0), strict=True))
    cells = [make_cell(MLP.name, backend, mode, device) for backend, mode in seconds]
    records = [make_parity(cell) for cell in cells]
    for cell in cells:
        key = cell.backend, cell.mode
        for block in range(3):
            job = make_job(
                cell,
                block,
                rates=[rates[key]] * 20,
                workload=MLP,
                watts=40.0,
                first_step_s=seconds[key],
                epochs=2 if block == 0 and cell.backend == jax else 0,
                points=make_points(0.9, 2, 40.0) if block == 0 and cell.backend == jax else (),
                peak_device_bytes=300 * 2**20 if gpu else None,
            )
            records.append(
                replace(
                    job,
                    split=StepSplit(steps=5, data_s=1e-5, transfer_s=2e-5, dispatch_s=3e-4, device_s=4e-2),
                    counted_flops=2.5e8,
                    peak=Peak(
                        flops_per_s=1e11,
                        bytes_per_s=1e9,
                        product_error=2e-4 if cell.backend == jax else 3e-7,
                    ),
                )
            )
    header = make_header(cells, workloads=[MLP])
    backends = tuple(
        replace(
            one,
            modes={mode: "a mode" for name, mode in seconds if name == one.name},
            default_mode="eager" if one.name == torch else "jit",
            pipeline_modes=("loader",) if one.name == torch else (),
            packages=12,
            installed_bytes=700 * 2**20,
        )
        for one in header.backends
    )
    return make_run(replace(header, backends=backends), records)


def sweep_run() -> Run:
    workloads = [swept(MLP, batch) for batch in (16, 64, 256, 1024)]
    cells = [make_cell(workload.name, "torch", "eager") for workload in workloads]
    records = [make_parity(cell) for cell in cells]
    for cell, workload in zip(cells, workloads, strict=True):
        rate = workload.batch_size / (1e-3 + 1e-5 * workload.batch_size)
        records += [make_job(cell, block, rates=[rate] * 20, workload=workload) for block in range(3)]
    return make_run(make_header(cells, workloads=workloads), records)


def text_of(run: Run) -> str:
    return document(costs.blocks(run, summarise(run)), frozenset(plots.NAMES))


def table_of(text: str, heading: str) -> list[list[str]]:
    """Return the cells of the first table under a heading, its head first."""
    section = text.split(f"### {heading}", 1)[1].split("\n###", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [
        [cell.strip().replace("\\", "") for cell in line.strip("|").split(" | ")]
        for line in lines
        if "--" not in line
    ]


@pytest.fixture(scope="module")
def full_text() -> str:
    return text_of(full_run())


def test_a_full_run_tells_everything(full_text):
    text = full_text
    head, *rows = table_of(text, "Time to a first result")
    assert head[1:] == ["start", "import", "data", "build", "first step", "first epoch", "first result"]
    found = {row[0]: row[1:] for row in rows}
    assert found["mnist-mlp, PyTorch eager (cpu fp32)"][-2:] == ["≈ 60.0 s", "≈ 62.2 s"]
    assert found["mnist-mlp, JAX jit (cpu fp32)"][-2:] == ["40.0 s", "43.1 s"]
    assert (
        "starts 8.9 s later than eager and then saves 30 s an epoch: it has paid off after 0.297 epochs"
        in text
    )
    (_, first, *_) = table_of(text, "Where a step's time goes")
    assert first[1:5] == ["10 µs", "20 µs", "300 µs", "40 ms"]
    assert table_of(text, "Input from memory")[1][1:3] == ["eager", f"0.500{TIMES}"]
    assert table_of(text, "Input from memory")[1][-1] == "slower than from memory"
    assert {row[-1] for row in table_of(text, "Memory and energy")[1:]} == {"20 J", "26.7 J", "40 J", "80 J"}
    work = {row[0]: row[1:] for row in table_of(text, "How much of the machine is used")[1:]}
    # 241 MFLOP a step, counted as 250; ten steps a second are 2.41 of the machine's 100 GFLOP/s, and at 24.3
    # operations a byte its memory allows 24.3 of them.
    assert work["mnist-mlp, PyTorch eager (cpu fp32)"] == [
        "241 MFLOP", f"1.038{TIMES}", f"1.032{TIMES}", "24.3", "2.41 GFLOP/s", "2.4 %", "9.9 %"
    ]  # fmt: skip
    assert "PyTorch on cpu in fp32: products are off by 3.0e-07 against float64, as fp32 is." in text
    assert "off by 2.0e-04 against float64, which is NOT fp32, whose error is at most 1e-05." in text
    assert table_of(text, "What has to be installed")[1:] == [
        ["PyTorch", "12", "700 MiB"],
        ["JAX", "12", "700 MiB"],
    ]
    assert "bench run --sweep batch=16..1024" in text.replace("\\", "")


def test_what_is_not_told_is_said_in_words():
    cell = make_cell("mnist-mlp")
    jobs = [make_job(cell, block, workload=MLP) for block in range(3)]
    text = text_of(make_run(make_header([cell], workloads=[MLP]), [make_parity(cell), *jobs]))
    assert table_of(text, "Memory and energy")[1][-1] == "not available"
    assert table_of(text, "How much of the machine is used")[1][2:4] == ["not available", "not available"]
    assert "The peak of this machine was not measured in this run." in text
    missing = text.split("Not in this run:")[1].replace("\\", "")
    for word in ("where a step's time goes", "--mode pipeline", "--sweep batch=16..1024", "installed size"):
        assert word in missing
    assert "### Where a step" not in text
    assert "None" not in text
    assert "nan" not in text


def test_gpu_columns_are_there_where_a_gpu_is(full_text):
    assert table_of(full_text, "Memory and energy")[0] == [
        "row", "process", "energy for 1,000 images"
    ]  # fmt: skip
    head, first, *_ = table_of(text_of(full_run(gpu=True)), "Memory and energy")
    assert head[2:4] == ["GPU, allocator", "GPU, process"]
    assert first[2:4] == ["300 MiB", "not available"]


def test_a_sweep_tells_where_overhead_ends():
    text = text_of(sweep_run())
    assert table_of(text, "Where overhead ends")[1] == [
        "mnist-mlp, PyTorch eager (cpu fp32)", "16 to 1,024 (4)", "1 ms", "10 µs", "100", "0.0 %"
    ]  # fmt: skip
    assert "show the largest batch" in text
    assert [row[0] for row in table_of(text, "Time to a first result")[1:]] == [
        "mnist-mlp&#64;1024, PyTorch eager (cpu fp32)"
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (StepLine(overhead_s=1e-3, per_image_s=1e-5, worst=0.01), "100"),
        (StepLine(overhead_s=1e-3, per_image_s=1e-3, worst=0.01), "below 16"),
        (StepLine(overhead_s=1.0, per_image_s=1e-3, worst=0.01), "above 256"),
        (StepLine(overhead_s=1.0, per_image_s=0.0, worst=0.01), "above 256"),
        (StepLine(overhead_s=1e-3, per_image_s=1e-5, worst=0.16), "a line does not fit"),
        (None, "too few batch sizes"),
    ],
)
def test_nothing_is_said_beyond_the_batches_measured(line, said):
    points = tuple(SweepPoint(batch_size=batch, samples_per_s=1.0) for batch in (16, 64, 256))
    assert costs.overhead_ends(Sweep(cell=make_cell(), points=points, line=line)) == said


def figures_of(run: Run) -> dict[str, Figure]:
    """Return the plots of costs alone, by name."""
    with settings():
        found = plots.figures(run, summarise(run))
    return {name: found[name] for name in cost_plots.NAMES if name in found}


def test_every_plot_has_a_run_that_draws_it_and_a_link():
    drawn = set()
    for run in (full_run(), sweep_run()):
        with settings():
            pictures = {name: svg(figure) for name, figure in figures_of(run).items()}
        text = document(costs.blocks(run, summarise(run)), frozenset(pictures))
        assert set(re.findall(r"\(plots/(\w+)\.svg\)", text)) == set(pictures)
        for content in pictures.values():
            assert ET.fromstring(content).tag.endswith("svg")  # noqa: S314 - it is our own
            assert b"nan" not in content.lower()
        drawn |= set(pictures)
    assert drawn == set(cost_plots.NAMES)


def test_a_bar_that_would_squeeze_the_others_is_cut_and_says_so():
    run = full_run()
    slow = [replace(job, first_step_s=9000.0) if job.spec.cell.mode == "compile" else job for job in run.jobs]
    run = replace(run, records=(*run.parity, *slow))
    (panel,) = figures_of(run)["first_result"].axes
    texts = [text.get_text() for text in panel.texts]
    assert [text for text in texts if text.endswith("bar cut")] == ["≈ 9,032 s, bar cut"]
    assert max(bar.get_x() + bar.get_width() for bar in panel.patches) <= 4.001 * 122.3  # the middle bar


def test_an_empty_run_has_no_plot_and_says_what_is_missing():
    run = make_run(make_header([make_cell("mnist-mlp")], workloads=[MLP]))
    assert figures_of(run) == {}
    text = text_of(run)
    assert "###" not in text
    assert text.count("\n- ") == 7


@given(st.floats(1e-9, 1e6))
def test_a_time_is_told_to_three_digits(seconds):
    number, unit = short_time(seconds).split(" ")
    scale = {"s": 1.0, "ms": 1e-3, "µs": 1e-6}[unit]
    assert float(number) * scale == pytest.approx(seconds, rel=0.0051)


@given(st.floats(1e-3, 1e17))
def test_a_rate_is_told_to_three_digits(value):
    number, unit = scaled(value, "B/s").split(" ")
    scale = {"TB/s": 1e12, "GB/s": 1e9, "MB/s": 1e6, "B/s": 1.0}[unit]
    assert float(number) * scale == pytest.approx(value, rel=0.0051)


@pytest.mark.parametrize("whole", [100.0, 100 * (1 - 1e-15), 100 * (1 + 1e-15)])
def test_shares_that_sum_to_the_whole_but_for_rounding_have_the_same_ticks(whole):
    assert cost_plots._ticks(whole) == [0, 25, 50, 75, 100]
