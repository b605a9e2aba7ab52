"""The export for asv, read by asv itself: published, shown and compared in a repository of its own."""

import json
import math
import os
import subprocess
from pathlib import Path

import msgspec
import pytest
from exported import COMMIT, HOSTILE, full_run, hostile_run, plain_file_names, tool, with_commit
from synthetic import make_cell, make_header, make_job, make_parity, make_run, simple_run

from bench.analysis.summary import summarise
from bench.errors import RecordError, UsageError
from bench.exports.asv import to_files
from bench.exports.formats import find_export, write
from bench.records.runs import Run

ASV = find_export("asv")
TORCH = make_cell()
JAX = make_cell(backend="jax", mode="jit")
STEP = "mnist-cnn.torch.eager.cpu.fp32.step"
RATES = {TORCH: [1000.0, 1010.0, 990.0], JAX: [500.0, 501.0, 499.0]}
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
        text=True, timeout=60,
    )  # fmt: skip
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository with a configuration of asv's and two commits, `HEAD~1` and `HEAD`."""
    git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / "asv.conf.json").write_text(json.dumps(CONFIG))
    git(tmp_path, "add", "asv.conf.json")
    git(tmp_path, "commit", "-q", "-m", "first")
    git(tmp_path, "commit", "-q", "-m", "second", "--allow-empty")
    return tmp_path


def add(repository: Path, run: Run, revision: str = "HEAD", *, dirty: bool = False) -> str:
    """Export the run, as made at that revision, into the repository's results; return the commit."""
    commit = git(repository, "rev-parse", revision)
    write(ASV, with_commit(run, commit, dirty=dirty), repository / "results")
    return commit


def published(repository: Path) -> dict:
    """Return asv's index once it has published, which must go without a warning."""
    said = tool("asv", "publish", "--no-pull", cwd=repository)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "warning" not in (said.stdout + said.stderr).lower(), said.stdout
    return json.loads((repository / "html" / "index.json").read_text())


def graphs(repository: Path, benchmark: str) -> dict[str, list]:
    """Return the points of every line that asv drew of a benchmark, by what tells the lines apart."""
    return {
        str(path.parent.relative_to(repository / "html" / "graphs")): json.loads(path.read_text())
        for path in (repository / "html" / "graphs").rglob(f"{benchmark}.json")
        if path.parent.name != "summary"
    }


# ---- by the tool


def test_asv_publishes_a_run_at_its_commit(repository: Path) -> None:
    run = full_run()
    commit = add(repository, run)
    index = published(repository)
    assert list(index["revision_to_hash"].values()) == [commit]
    (revision,) = index["revision_to_hash"]
    assert index["machines"]["box"]["cpu"] == "Example CPU @ 2.60GHz"
    drawn = {
        name for name in index["benchmarks"] if any(points for points in graphs(repository, name).values())
    }
    assert drawn == index["benchmarks"].keys()
    rows = [row for row in summarise(run).cells if row.blocks and row.parity_ok]
    assert {f"{row.workload}.{row.backend}.{row.mode}.cpu.fp32.step" for row in rows} == {
        name for name in drawn if name.endswith(".step")
    }
    for row in rows:
        (points,) = graphs(repository, f"{row.workload}.{row.backend}.{row.mode}.cpu.fp32.step").values()
        assert points == [[int(revision), pytest.approx(100 / row.samples_per_s)]]


def test_runs_of_two_commits_are_one_line(repository: Path) -> None:
    add(repository, simple_run(RATES), "HEAD~1")
    add(repository, simple_run({TORCH: [500, 505, 495]}))
    published(repository)
    (points,) = graphs(repository, STEP).values()
    assert [seconds for _, seconds in points] == pytest.approx([0.1, 0.2], rel=1e-3)
    (points,) = graphs(repository, "mnist-cnn.jax.jit.cpu.fp32.step").values()
    assert len(points) == 1, "what a later run did not measure stays"


def test_asv_shows_value_samples_and_interval(repository: Path) -> None:
    commit = add(repository, simple_run(RATES))
    said = tool("asv", "show", commit, "--details", "--machine", "box", cwd=repository)
    assert said.returncode == 0, said.stdout + said.stderr
    (block,) = [block for block in said.stdout.split("\n\n") if STEP in block and "ci_99" in block] or [
        said.stdout
    ]
    assert "100±" in said.stdout
    assert "repeat: 3" in block
    assert "ci_99: (94.4" in block, said.stdout
    assert said.stdout.count("repeat: 3") == 2


@pytest.mark.parametrize(("rates", "verdict"), [([500, 505, 495], "+"), ([1003, 1008, 988], "")])
def test_asv_compares_two_commits_by_their_intervals(
    rates: list[float], verdict: str, repository: Path
) -> None:
    before = add(repository, simple_run({TORCH: RATES[TORCH]}), "HEAD~1")
    after = add(repository, simple_run({TORCH: rates}))
    said = tool("asv", "compare", before, after, "--machine", "box", cwd=repository)
    assert said.returncode == 0, said.stdout + said.stderr
    (line,) = [line for line in said.stdout.splitlines() if STEP in line]
    assert line.split("|")[1].strip() == verdict, said.stdout


def test_code_that_was_changed_since_and_data_cut_short_are_lines_of_their_own(repository: Path) -> None:
    commit = add(repository, simple_run({TORCH: [1000] * 3}))
    add(repository, simple_run({TORCH: [900] * 3}), dirty=True)
    cut = simple_run({TORCH: [800] * 3})
    cut = msgspec.structs.replace(
        cut, header=msgspec.structs.replace(cut.header, dataset_limit=500, sample=True)
    )
    add(repository, cut)
    assert len(list((repository / "results" / "box").glob(f"{commit[:8]}-*.json"))) == 3
    index = published(repository)
    assert set(index["params"]["tree"]) == {"as committed", "changed since the commit"}
    assert set(index["params"]["data"]) == {"all", "sample first 500"}
    found = sorted(points[0][1] for points in graphs(repository, STEP).values())
    assert found == pytest.approx([0.1, 100 / 900, 100 / 800])


def test_figures_of_a_workload_that_was_changed_are_not_drawn_beside_the_new_ones(repository: Path) -> None:
    add(repository, simple_run({TORCH: [1000] * 3}), "HEAD~1")
    later = simple_run({TORCH: [900] * 3})
    (workload,) = later.header.workloads
    changed = msgspec.structs.replace(workload, batch_size=200)
    add(
        repository,
        msgspec.structs.replace(later, header=msgspec.structs.replace(later.header, workloads=(changed,))),
    )
    published(repository)
    (points,) = graphs(repository, STEP).values()
    assert len(points) == 1


def test_hostile_names_are_published_without_markup(repository: Path) -> None:
    add(repository, hostile_run())
    index = published(repository)
    assert len([name for name in index["benchmarks"] if name.endswith(".step")]) == 2
    assert plain_file_names(repository / "results")
    for text in strings([index["benchmarks"], index["params"], index["machines"]]):
        assert not set(text) & set("<>&\"'`\x1b\x9b"), text
    outside = {path.name for path in repository.iterdir()}
    assert outside == {".git", "asv.conf.json", "results", "html"}


def strings(value: object) -> list[str]:
    if isinstance(value, dict):
        return [found for item in value.items() for part in item for found in strings(part)]
    if isinstance(value, list):
        return [found for item in value for found in strings(item)]
    return [value] if isinstance(value, str) else []


# ---- what it says


def results(files: dict[str, bytes]) -> dict[str, dict]:
    """Return the row of every benchmark of the one file of results, by column."""
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


def test_less_is_better_in_every_figure_and_what_was_not_measured_is_left_out(tmp_path: Path) -> None:
    found = results(to_files(full_run(), tmp_path))
    rows = {row.cell: row for row in summarise(full_run()).cells}
    assert {name.rpartition(".")[2] for name in found} == {
        "step", "first_step", "peak_memory", "to_target", "test_error"
    }  # fmt: skip
    row = rows[make_cell("mnist-mlp")]
    start = "mnist-mlp.torch.eager.cpu.fp32"
    assert row.test_accuracy is not None
    assert found[f"{start}.test_error"]["result"] == [pytest.approx(1 - row.test_accuracy)]
    assert found[f"{start}.peak_memory"]["result"] == [row.peak_rss_bytes]
    assert found[f"{start}.to_target"]["result"] == [row.seconds_to_target]
    assert not [name for name in found if name.startswith("mnist-mlp.torch.compile.")], "it fails parity"
    assert not [name for name in found if name.startswith("cifar10-softmax.jax.")], "it is not installed"
    assert "cifar10-cnn.torch.compile.cpu.fp32.step" not in found, "it never settled"


# ---- what is refused


@pytest.mark.parametrize(
    ("commit", "words"),
    [
        (None, "was not made in a git checkout"),
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
def test_a_folder_that_is_none_of_asvs_is_left_alone(content: str, tmp_path: Path) -> None:
    (tmp_path / "benchmarks.json").write_text(content)
    with pytest.raises(RecordError, match=r"cannot add to .*benchmarks\.json: "):
        write(ASV, with_commit(simple_run(RATES)), tmp_path)
    assert (tmp_path / "benchmarks.json").read_text() == content
    assert len(list(tmp_path.iterdir())) == 1


def test_results_of_another_commit_with_the_same_name_are_left_alone(tmp_path: Path) -> None:
    write(ASV, with_commit(simple_run(RATES)), tmp_path)
    twin = COMMIT[:8] + "f" * 32
    with pytest.raises(RecordError, match="holds another commit's results"):
        write(ASV, with_commit(simple_run(RATES), twin), tmp_path)


def test_a_date_that_is_none_is_a_record_error(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="'soon', which is no time"):
        to_files(with_commit(simple_run(RATES), created_at="soon"), tmp_path)


def test_a_run_that_only_trained_has_its_other_figures(tmp_path: Path) -> None:
    run = make_run(make_header([TORCH]), [make_parity(TORCH), make_job(TORCH, windows=0, rates=())])
    found = results(to_files(with_commit(run), tmp_path))
    assert set(found) == {f"mnist-cnn.torch.eager.cpu.fp32.{name}" for name in ("first_step", "peak_memory")}
