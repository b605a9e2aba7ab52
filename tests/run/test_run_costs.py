"""The page's sections on costs: complete where there are figures, else in words."""

import re
from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from page_blocks import rows_of, said, section, table_with
from synthetic import make_cell, make_header, make_job, make_parity, make_points, make_run

from bench.analysis.summary import summarise
from bench.analysis.sweep import StepLine, Sweep, SweepPoint
from bench.records.runs import Run
from bench.report.blocks import Block, charts_of
from bench.report.format import TIMES, scaled, short_time
from bench.run.report import costs, page
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


def page_of(run: Run) -> list[Block]:
    return page.blocks(run, summarise(run))


def by_row(blocks: Iterable[Block], head: str) -> dict[str, dict[str, str]]:
    """Return the rows of the first table of all workloads that has this column, by framework and mode."""
    return {row["framework"]: row for row in rows_of(table_with(blocks, "workload", head))}


def test_a_full_run_tells_everything() -> None:
    blocks = page_of(full_run())
    first = by_row(section(blocks, "Time to a first result"), "first result")
    assert list(first["JAX jit"])[3:] == [
        "start", "import", "data", "build", "first step", "first epoch", "first result",
    ]  # fmt: skip
    assert (first["PyTorch eager"]["first epoch"], first["PyTorch eager"]["first result"]) == (
        "≈ 60.0 s", "≈ 62.2 s",
    )  # fmt: skip
    assert (first["JAX jit"]["first epoch"], first["JAX jit"]["first result"]) == ("40.0 s", "43.1 s")
    pays = by_row(section(blocks, "When does compiling pay off?"), "pays off after")
    assert list(pays["PyTorch compile"].values())[3:] == ["eager", "8.9 s", "30 s", "0.3 epochs"]
    split = by_row(section(blocks, "Where a step's time goes"), "dispatch")
    assert list(split["PyTorch eager"].values())[3:7] == ["10 µs", "20 µs", "300 µs", "40 ms"]
    (loader,) = rows_of(table_with(section(blocks, "Input from memory"), "compared with"))
    assert (loader["compared with"], loader["times as fast"]) == ("eager", f"0.500{TIMES}")
    assert loader["verdict"] == "slower than from memory"
    energy = by_row(section(blocks, "Memory and energy"), "energy for 1,000 images")
    assert {row["energy for 1,000 images"] for row in energy.values()} == {"20 J", "26.7 J", "40 J", "80 J"}
    roof = section(blocks, "Roofline")
    # 241 MFLOP a step, counted as 250; ten steps a second are 2.41 of the machine's 100 GFLOP/s, and at 24.3
    # operations a byte its memory allows 24.3 of them.
    assert list(by_row(roof, "counted, of all")["PyTorch eager"].values())[3:] == [
        "241 MFLOP", "24.3", "2.41 GFLOP/s", "2.4 %", "9.9 %", f"1.038{TIMES}", f"1.032{TIMES}",
    ]  # fmt: skip
    assert "PyTorch on cpu in fp32: products are off by 3.0e-07 against float64, as fp32 is." in said(roof)
    assert "off by 2.0e-04 against float64, which is NOT fp32, whose error is at most 1e-05." in said(roof)
    assert table_with(section(blocks, "What has to be installed"), "packages").rows == (
        ("PyTorch", "12", "700 MiB"),
        ("JAX", "12", "700 MiB"),
    )
    assert "bench run --sweep batch=16..1024" in said(section(blocks, "Batch sweep"))


def test_what_is_not_told_is_said_in_words() -> None:
    cell = make_cell("mnist-mlp")
    jobs = [make_job(cell, block, workload=MLP) for block in range(3)]
    blocks = page_of(make_run(make_header([cell], workloads=[MLP]), [make_parity(cell), *jobs]))
    use = section(blocks, "Memory and energy")
    assert by_row(use, "peak memory")["PyTorch eager"]["energy for 1,000 images"] == "not available"
    assert "Energy is not available, because this machine has no meter that can be read." in said(use)
    roof = section(blocks, "Roofline")
    assert by_row(roof, "counted")["PyTorch eager"]["counted"] == "not available"
    assert "The peak of this machine was not measured in this run." in said(roof)
    text = said(blocks)
    for command in ("bench run --mode all", "bench run --sweep batch=16..1024"):
        assert command in text
    assert "Where a step's time goes" not in text
    assert "None" not in text
    assert not re.search(r"\bnan\b", text)


def test_gpu_columns_are_there_where_a_gpu_is() -> None:
    heads = table_with(section(page_of(full_run()), "Memory and energy"), "workload", "peak memory").heads
    assert heads[3:] == ("peak memory", "energy for 1,000 images")
    use = by_row(section(page_of(full_run(gpu=True)), "Memory and energy"), "GPU, allocator")
    assert (use["PyTorch eager"]["GPU, allocator"], use["PyTorch eager"]["GPU, process"]) == (
        "300 MiB", "not available",
    )  # fmt: skip


def test_a_sweep_tells_where_overhead_ends() -> None:
    blocks = page_of(sweep_run())
    assert table_with(section(blocks, "Batch sweep"), "worst miss", "workload").rows == (
        ("mnist-mlp", "PyTorch eager", "cpu fp32", "16 to 1,024 (4)", "1 ms", "10 µs", "100", "0.0 %"),
    )
    first = table_with(section(blocks, "Time to a first result"), "first result", "workload")
    assert [row[0] for row in first.rows] == ["mnist-mlp@1024"], "of a sweep, the largest batch is shown"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (StepLine(overhead_s=1e-3, per_image_s=1e-5, worst=0.01), "100"),
        (StepLine(overhead_s=1e-3, per_image_s=1e-3, worst=0.01), "below 16"),
        (StepLine(overhead_s=1.0, per_image_s=1e-3, worst=0.01), "above 256"),
        (StepLine(overhead_s=1.0, per_image_s=0.0, worst=0.01), "above 256"),
        (StepLine(overhead_s=1e-3, per_image_s=1e-5, worst=0.16), "a line does not fit"),
        (None, "too few batch sizes"),
    ],
)
def test_nothing_is_said_beyond_the_batches_measured(line, words):
    points = tuple(SweepPoint(batch_size=batch, samples_per_s=1.0) for batch in (16, 64, 256))
    assert costs.overhead_ends(Sweep(cell=make_cell(), points=points, line=line)) == words


def test_an_empty_run_says_what_is_missing() -> None:
    blocks = page_of(make_run(make_header([make_cell("mnist-mlp")], workloads=[MLP])))
    assert list(charts_of(blocks)) == []
    for words in (
        "No job of this run got as far as a first result.",
        "No job of this run got so far.",
        "No job of this run was timed on a known data set.",
    ):
        assert words in said(blocks)


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
