"""The export for pytest-benchmark, read by pytest-benchmark itself."""

import csv
import io
import json
import math
from pathlib import Path

import msgspec
import pytest
from exported import COMMIT, HOSTILE, acts_on_a_terminal, full_run, hostile_run, tool, with_commit
from hypothesis import given
from hypothesis import strategies as st
from pytest_benchmark.stats import Stats
from synthetic import make_block, make_cell, make_header, make_job, make_parity, make_run, simple_run

from bench.analysis.summary import summarise
from bench.exports.pytest_benchmark import describe, to_json
from bench.records.runs import Run

TORCH = make_cell()
JAX = make_cell(backend="jax", mode="jit")

LIVE = """
import time
import pytest

@pytest.mark.parametrize("row", ["mnist-cnn[torch-eager-cpu-fp32]", "mnist-cnn[jax-jit-cpu-fp32]"])
def test_live(benchmark, row):
    benchmark.fullname = f"samework::{row}"  # the benchmark to compare with
    benchmark.pedantic(time.sleep, args=(0.02,), rounds=3)
"""


def save(run: Run, path: Path) -> Path:
    path.write_text(to_json(run), encoding="utf-8")
    return path


def benchmarks(run: Run) -> list[dict]:
    return json.loads(to_json(run), parse_constant=pytest.fail)["benchmarks"]


# ---- by the tool


def test_compare_shows_two_runs_beside_each_other(tmp_path: Path) -> None:
    first = save(simple_run({TORCH: [1000] * 3, JAX: [500] * 3}), tmp_path / "first.json")
    second = save(simple_run({TORCH: [2000] * 3, JAX: [500] * 3}), tmp_path / "second.json")
    said = tool(
        "pytest_benchmark", "compare", str(first), str(second), "--group-by", "fullname",
        "--columns", "mean,rounds", "--csv", str(tmp_path / "table.csv"), cwd=tmp_path,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert "Failed to load" not in said.stderr + said.stdout
    # Two runs of one cell stand in one group: 100 samples a step at 1,000 samples/s are 100 ms.
    (group,) = [
        part for part in said.stdout.split("benchmark 'samework::") if part.startswith("mnist-cnn[torch")
    ]
    assert "100.0000 (2.00)" in group
    assert "50.0000 (1.0)" in group
    rows = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text(encoding="utf-8"))))
    assert sorted(float(row["mean"]) for row in rows) == pytest.approx([0.05, 0.1, 0.2, 0.2])
    assert {row["rounds"] for row in rows} == {"60"}
    assert {row["param:backend"] for row in rows} == {"torch", "jax"}


def test_every_way_of_grouping_finds_its_fields(tmp_path: Path) -> None:
    said = tool(
        "pytest_benchmark", "compare", str(save(full_run(), tmp_path / "run.json")),
        "--group-by", "group,func,param,param:backend,param:workload,param:mode", cwd=tmp_path,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    for workload in ("mnist-cnn", "cifar10-cnn"):
        row = f"{workload} torch-eager-cpu-fp32 backend=torch workload={workload} mode=eager"
        assert f"benchmark '{workload} (cpu fp32) {row}': " in said.stdout


def test_a_live_benchmark_is_compared_with_an_export(tmp_path: Path) -> None:
    """A test that sleeps for 20 ms is slower than steps of 1 ms, and no slower than steps of 100 ms."""
    (tmp_path / "test_live.py").write_text(LIVE)
    exported = save(simple_run({TORCH: [100_000] * 3, JAX: [1000] * 3}), tmp_path / "export.json")
    said = tool(
        "pytest", "-p", "no:randomly", "-p", "no:cacheprovider", "--rootdir", str(tmp_path),
        f"--benchmark-compare={exported}", "--benchmark-compare-fail=mean:50%", "-q", "-s", "test_live.py",
        cwd=tmp_path,
    )  # fmt: skip
    assert "Comparing against benchmarks from" in said.stdout + said.stderr, said
    assert said.returncode != 0
    _, _, regressed = (said.stdout + said.stderr).partition("Performance has regressed:\n")
    assert regressed.startswith("\ttest_live[mnist-cnn[torch"), said
    assert "\ttest_live[mnist-cnn[jax" not in regressed


def test_hostile_names_are_compared_and_act_on_no_terminal(tmp_path: Path) -> None:
    paths = [str(save(hostile_run(), tmp_path / f"{name}.json")) for name in "ab"]
    said = tool(
        "pytest_benchmark", "compare", *paths, "--group-by", "fullname",
        "--csv", str(tmp_path / "table.csv"), cwd=tmp_path, env={"PYTHONUTF8": "1"},
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert acts_on_a_terminal(said.stdout) == []
    assert said.stdout.count(": 2 tests") == 2, "two names that differ in a control stay two benchmarks"
    drawn = tool(
        "pytest_benchmark", "compare", *paths, f"--histogram={tmp_path / 'drawn' / 'h'}", cwd=tmp_path,
        env={"PYTHONUTF8": "1"},
    )  # fmt: skip
    assert drawn.returncode == 0, drawn.stderr
    pictures = list(tmp_path.rglob("*.svg"))
    assert {picture.parent for picture in pictures} == {tmp_path / "drawn"}
    assert all("<script>alert" not in picture.read_text(encoding="utf-8") for picture in pictures)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text(encoding="utf-8"))))
    assert len(rows) == 4
    assert all("<script>" in row["param:workload"] for row in rows)


@given(st.lists(st.floats(min_value=1e-9, max_value=1e6), min_size=1, max_size=50))
def test_the_statistics_are_those_of_pytest_benchmark(data: list[float]) -> None:
    theirs = Stats()
    for value in data:
        theirs.update(value)
    expected = theirs.as_dict()
    ours = describe(data)
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        # Sums in another order differ in the last digits, and so may what lies on a fence: not with equality.
        if isinstance(value, str):
            assert ours[name] == value
        else:
            assert ours[name] == pytest.approx(value, rel=1e-12), name


# ---- the content


def test_each_timed_cell_is_a_benchmark_and_no_other() -> None:
    run = full_run()
    rows = {row.cell: row for row in summarise(run).cells if row.blocks}
    made = benchmarks(run)
    assert len(made) == len(rows) < len(run.header.cells)
    assert len({one["fullname"] for one in made}) == len(made)
    for one, row in zip(made, rows.values(), strict=True):
        assert one["params"] == msgspec.to_builtins(row.cell)
        for name in ("samples_per_s", "samples_per_s_low", "samples_per_s_high", "parity_ok"):
            assert one["extra_info"][name] == getattr(row, name)
        assert one["extra_info"]["commit"] == COMMIT
        # A whole batch over its time is the throughput, except for the windows that the report trims.
        assert 100 / one["stats"]["median"] == pytest.approx(row.samples_per_s, rel=0.05)


def test_a_row_without_parity_is_marked() -> None:
    (failing,) = [one for one in benchmarks(full_run()) if one["extra_info"]["parity_ok"] is False]
    assert failing["name"] == "mnist-mlp[torch-compile-cpu-fp32]"
    assert failing["extra_info"]["ranked"] is False
    assert "gradient is off by" in failing["extra_info"]["why_not"]


def test_only_windows_that_count_are_data() -> None:
    """Early windows, those of disturbed rounds and dropped blocks are left out, as from the throughput."""
    records = [make_parity(TORCH)]
    for block in range(6):
        records.append(make_block([TORCH], block, foreign_share=0.5 if block == 4 else 0.0))
        job = make_job(TORCH, block, rates=[9000] * 5 + [1000] * 20 + [1.0], windows=20)
        loud = msgspec.structs.replace(job.windows[-1], round_steal=0.9)
        records.append(msgspec.structs.replace(job, windows=(*job.windows[:-1], loud)))
    run = make_run(make_header([TORCH]), records)
    (row,) = summarise(run).cells
    assert (row.blocks, row.dropped_blocks) == (5, 1)
    (one,) = benchmarks(run)
    assert one["stats"]["data"] == pytest.approx([0.1] * 100)
    assert one["stats"]["rounds"] == 100
    assert one["stats"]["iterations"] == 1
    assert one["options"]["min_rounds"] == 20


def test_machine_and_commit_are_those_of_the_run() -> None:
    made = json.loads(to_json(full_run()))
    assert (made["commit_info"]["id"], made["commit_info"]["dirty"]) == (COMMIT, False)
    assert made["machine_info"]["node"] == "box"
    assert made["machine_info"]["python_version"] == "3.11.9"
    assert made["machine_info"]["cpu"]["brand_raw"] == "Example CPU @ 2.60GHz"
    assert made["datetime"] == "2026-05-01T10:00:00Z"
    unknown = json.loads(to_json(with_commit(full_run(), None, dirty=None)))
    assert (unknown["commit_info"]["id"], unknown["commit_info"]["dirty"]) == ("unversioned", False)


def test_data_cut_short_are_another_benchmark() -> None:
    run = simple_run({TORCH: [1000] * 3})
    (whole,), (cut,) = benchmarks(run), benchmarks(with_commit(run, sample=True, dataset_limit=500))
    assert whole["fullname"] == "samework::mnist-cnn[torch-eager-cpu-fp32]"
    assert cut["fullname"] == "samework::mnist-cnn[torch-eager-cpu-fp32-sample-first-500]"
    assert cut["extra_info"]["mark"].startswith("Made on the small sample")


def test_hostile_text_keeps_what_can_be_read() -> None:
    first, second = benchmarks(hostile_run())
    assert first["fullname"] != second["fullname"]
    assert HOSTILE not in (first["params"]["workload"], second["params"]["workload"])
    assert "模型" in first["params"]["workload"]
    assert math.isfinite(first["stats"]["mean"])
