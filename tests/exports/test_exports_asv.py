"""The export for asv, read by asv itself: published, shown and compared in a repository of its own."""

import json
import math
import os
import subprocess
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pytest
from exported import COMMIT, HOSTILE, full_run, hostile_run, plain_file_names, texts_in, tool, with_commit
from synthetic import make_cell, make_header, make_job, make_parity, make_run, simple_run

from bench.analysis.summary import summarise
from bench.errors import RecordError, UsageError
from bench.exports.asv import to_files
from bench.exports.formats import find_export, write
from bench.records.runs import Run

Published: TypeAlias = tuple[Path, dict[str, Any]]
"""A repository, and the index of asv's pages there."""
ASV = find_export("asv")
TORCH = make_cell()
JAX = make_cell(backend="jax", mode="jit")
CHANGED = make_cell("mnist-mlp")
STEP = "mnist-cnn.torch.eager.cpu.fp32.step"
JAX_STEP = "mnist-cnn.jax.jit.cpu.fp32.step"
RATES = {TORCH: [1000.0, 1010.0, 990.0], JAX: [500.0, 501.0, 499.0]}
SLOWER = {TORCH: [500.0, 505.0, 495.0], JAX: RATES[JAX]}
CONFIG = {
    "version": 1, "project": "samework", "repo": ".", "branches": ["main"], "dvcs": "git",
    "results_dir": "results", "html_dir": "html", "benchmark_dir": "benchmarks",
}  # fmt: skip


def git(repository: Path, *arguments: str) -> str:
    who = {
        f"GIT_{role}_{what}": "a@example.org"
        for role in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    nothing = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        ["git", *arguments], cwd=repository, env=os.environ | who | nothing, check=True, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip
    return done.stdout.strip()


def new_repository(folder: Path) -> Path:
    """Return a repository with a configuration of asv's and two commits, `HEAD~1` and `HEAD`."""
    git(folder, "init", "-q", "-b", "main")
    (folder / "asv.conf.json").write_text(json.dumps(CONFIG))
    git(folder, "add", "asv.conf.json")
    git(folder, "commit", "-q", "-m", "first")
    git(folder, "commit", "-q", "-m", "second", "--allow-empty")
    return folder


def add(repository: Path, run: Run, revision: str = "HEAD", *, dirty: bool = False) -> str:
    """Export the run, as made at that revision, into the repository's results; return the commit."""
    commit = git(repository, "rev-parse", revision)
    write(ASV, with_commit(run, commit, dirty=dirty), repository / "results")
    return commit


def published(repository: Path) -> dict[str, Any]:
    """Return asv's index after publishing, which must not warn."""
    said = tool("asv", "publish", "--no-pull", cwd=repository)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "warning" not in (said.stdout + said.stderr).lower(), said.stdout
    return json.loads((repository / "html" / "index.json").read_text())


def graphs(repository: Path, benchmark: str) -> list[list]:
    """Return the points of every line that asv drew for a benchmark."""
    return [
        json.loads(path.read_text())
        for path in sorted((repository / "html" / "graphs").rglob(f"{benchmark}.json"))
        if path.parent.name != "summary"
    ]


# ---- by the tool


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """Return a repository with a whole and a hostile run at one commit."""
    repository = new_repository(tmp_path_factory.mktemp("full"))
    add(repository, full_run())
    add(repository, hostile_run())
    return repository, published(repository)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """Return a repository with runs of two commits, and of changed code, data and workload."""
    repository = new_repository(tmp_path_factory.mktemp("several"))
    add(repository, simple_run(RATES), "HEAD~1")
    add(repository, simple_run({TORCH: SLOWER[TORCH]}))
    add(repository, simple_run({TORCH: [900] * 3}), dirty=True)
    cut = simple_run({TORCH: [800] * 3})
    header = msgspec.structs.replace(cut.header, dataset_limit=500, sample=True)
    add(repository, msgspec.structs.replace(cut, header=header))
    before = simple_run({CHANGED: [1000] * 3})
    add(repository, before, "HEAD~1")
    (workload,) = before.header.workloads
    changed = msgspec.structs.replace(workload, batch_size=200)
    header = msgspec.structs.replace(before.header, workloads=(changed,))
    add(repository, msgspec.structs.replace(before, header=header))
    return repository, published(repository)


def test_asv_publishes_a_run_at_its_commit(full: Published) -> None:
    repository, index = full
    assert list(index["revision_to_hash"].values()) == [git(repository, "rev-parse", "HEAD")]
    (revision,) = index["revision_to_hash"]
    assert index["machines"]["box"]["cpu"] == "Example CPU @ 2.60GHz"
    assert all(any(graphs(repository, name)) for name in index["benchmarks"])
    expected = {
        f"{row.workload}.{row.backend}.{row.mode}.cpu.fp32.step": 100 / row.samples_per_s
        for row in summarise(full_run()).cells
        if row.blocks and row.parity_ok and row.samples_per_s
    }
    steps = {name for name in index["benchmarks"] if name.endswith(".step")}
    assert len(steps - expected.keys()) == 2, "those of the hostile run"
    for name, seconds in expected.items():
        assert graphs(repository, name) == [[[int(revision), pytest.approx(seconds)]]]


def test_hostile_names_are_published_without_markup(full: Published) -> None:
    repository, index = full
    assert plain_file_names(repository / "results")
    for text in texts_in([index["benchmarks"], index["params"], index["machines"]]):
        assert not set(text) & set("<>&\"'`\x1b\x9b"), text
    assert {path.name for path in repository.iterdir()} == {".git", "asv.conf.json", "results", "html"}


def test_changed_code_and_limited_data_have_lines_of_their_own(several: Published) -> None:
    repository, index = several
    assert set(index["params"]["tree"]) == {"as committed", "changed since the commit"}
    assert set(index["params"]["data"]) == {"all", "sample first 500"}
    found = sorted([seconds for _, seconds in points] for points in graphs(repository, STEP))
    assert found == [
        pytest.approx([0.1, 0.2], rel=1e-3),
        pytest.approx([100 / 900]),
        pytest.approx([100 / 800]),
    ]


@pytest.mark.parametrize(
    "name",
    [JAX_STEP, "mnist-mlp.torch.eager.cpu.fp32.step"],
    ids=["not measured later", "workload changed"],
)
def test_a_line_has_only_the_points_that_belong_to_it(name: str, several: Published) -> None:
    (points,) = graphs(several[0], name)
    assert len(points) == 1


def test_asv_shows_and_compares_two_commits_by_their_intervals(tmp_path: Path) -> None:
    repository = new_repository(tmp_path)
    before = add(repository, simple_run(RATES), "HEAD~1")
    after = add(repository, simple_run(SLOWER))
    shown = tool("asv", "show", before, "--details", "--machine", "box", cwd=repository)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "100±" in shown.stdout
    assert "ci_99: (94.4" in shown.stdout, shown.stdout
    assert shown.stdout.count("repeat: 3") == 2
    compared = tool("asv", "compare", before, after, "--machine", "box", cwd=repository)
    assert compared.returncode == 0, compared.stdout + compared.stderr
    for name, verdict in ((STEP, "+"), (JAX_STEP, "")):
        (line,) = [line for line in compared.stdout.splitlines() if name in line]
        assert line.split("|")[1].strip() == verdict, compared.stdout


# ---- the content


def results(files: dict[str, bytes]) -> dict[str, dict]:
    """Return the row of every benchmark in the only file of results, by column."""
    (content,) = [json.loads(text) for path, text in files.items() if path.startswith("box/0123")]
    return {
        name: dict(zip(content["result_columns"], row, strict=True))
        for name, row in content["results"].items()
    }


def test_a_step_is_a_batch_over_the_throughput_with_the_interval_of_its_blocks(tmp_path: Path) -> None:
    row = results(to_files(with_commit(simple_run(RATES)), tmp_path))[STEP]
    (summary,) = [one for one in summarise(simple_run(RATES)).cells if one.cell == TORCH]
    assert summary.samples_per_s is not None
    assert row["result"] == [pytest.approx(100 / summary.samples_per_s)]
    assert row["samples"] == [pytest.approx([100 / rate for rate in RATES[TORCH]])]
    assert (row["stats_repeat"], row["stats_number"]) == ([3], [1])
    (low,), (high,) = row["stats_ci_99_a"], row["stats_ci_99_b"]
    # Student's t for 99 % and two degrees of freedom, over that for 95 %.
    assert summary.samples_per_s_low is not None
    width = math.log(summary.samples_per_s / summary.samples_per_s_low) * 9.924843 / 4.302653
    assert (low, high) == pytest.approx(
        (row["result"][0] * math.exp(-width), row["result"][0] * math.exp(width))
    )
    assert low < row["stats_q_25"][0] < row["result"][0] < row["stats_q_75"][0] < high


def test_a_single_block_has_no_interval(tmp_path: Path) -> None:
    row = results(to_files(with_commit(simple_run({TORCH: [1000]}, min_blocks=1)), tmp_path))[STEP]
    assert row["result"] == [pytest.approx(0.1)]
    assert {row[f"stats_{name}"] for name in ("ci_99_a", "ci_99_b", "q_25", "repeat")} == {None}


def test_the_accuracy_of_a_brief_training_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.analysis.convergence.LONG_ENOUGH", 1e9)
    assert not [name for name in results(to_files(full_run(), tmp_path)) if name.endswith("test_error")]


def test_less_is_better_in_every_value_and_what_was_not_measured_is_left_out(tmp_path: Path) -> None:
    found = results(to_files(full_run(), tmp_path))
    assert {name.rpartition(".")[2] for name in found} == {
        "step", "first_step", "peak_memory", "to_target", "test_error"
    }  # fmt: skip
    (row,) = [row for row in summarise(full_run()).cells if row.cell == make_cell("mnist-mlp")]
    start = "mnist-mlp.torch.eager.cpu.fp32"
    assert row.test_accuracy is not None
    assert found[f"{start}.test_error"]["result"] == [pytest.approx(1 - row.test_accuracy)]
    assert found[f"{start}.peak_memory"]["result"] == [row.peak_rss_bytes]
    assert found[f"{start}.to_target"]["result"] == [row.seconds_to_target]
    assert not [name for name in found if name.startswith("mnist-mlp.torch.compile.")], "it fails parity"
    assert not [name for name in found if name.startswith("cifar10-softmax.jax.")], "it is not installed"
    assert "cifar10-cnn.torch.compile.cpu.fp32.step" not in found, "it never settled"


def test_a_run_that_only_trained_has_its_other_values(tmp_path: Path) -> None:
    run = make_run(make_header([TORCH]), [make_parity(TORCH), make_job(TORCH, windows=0, rates=())])
    found = results(to_files(with_commit(run), tmp_path))
    assert set(found) == {f"mnist-cnn.torch.eager.cpu.fp32.{name}" for name in ("first_step", "peak_memory")}


def test_rows_of_an_earlier_export_of_the_commit_stay(tmp_path: Path) -> None:
    write(ASV, with_commit(simple_run({TORCH: RATES[TORCH]})), tmp_path)
    found = results(to_files(with_commit(simple_run({CHANGED: RATES[TORCH]})), tmp_path))
    assert {name for name in found if name.endswith("step")} >= {STEP, "mnist-mlp.torch.eager.cpu.fp32.step"}


# ---- what is refused


@pytest.mark.parametrize(
    ("commit", "words"),
    [
        (None, "records no commit"),
        ("../../x", "needs a whole hash"),
        (HOSTILE, "needs a whole hash"),
    ],
)
def test_a_run_without_a_commit_is_refused(commit: str | None, words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words) as refused:
        write(ASV, with_commit(simple_run(RATES), commit, dirty=None), tmp_path / "out")
    assert str(refused.value).isprintable()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"version": 1}', '{"version": 3}'])
def test_a_folder_that_is_not_asvs_is_left_alone(content: str, tmp_path: Path) -> None:
    (tmp_path / "benchmarks.json").write_text(content)
    with pytest.raises(RecordError, match=r"cannot add to .*benchmarks\.json: "):
        write(ASV, with_commit(simple_run(RATES)), tmp_path)
    assert (tmp_path / "benchmarks.json").read_text() == content
    assert len(list(tmp_path.iterdir())) == 1


def test_results_of_another_commit_or_of_another_program_are_left_alone(tmp_path: Path) -> None:
    run = with_commit(simple_run(RATES))
    write(ASV, run, tmp_path)
    twin = COMMIT[:8] + "f" * 32
    with pytest.raises(RecordError, match="has the results of another commit"):
        write(ASV, with_commit(simple_run(RATES), twin), tmp_path)
    (path,) = (tmp_path / "box").glob("0123*.json")
    content = json.loads(path.read_text()) | {"result_columns": ["result"]}
    path.write_text(json.dumps(content))
    with pytest.raises(RecordError, match="bench export did not write"):
        write(ASV, run, tmp_path)


def test_a_start_that_is_not_a_time_is_a_record_error(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="'soon' is not a time"):
        to_files(with_commit(simple_run(RATES), created_at="soon"), tmp_path)
