"""The MLPerf logs, read by MLPerf's own parser and compliance checker."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from exported import HOSTILE, full_run, hostile_run, plain_file_names, tool, with_commit
from mlperf_logging.compliance_checker import mlp_compliance, mlp_parser
from mlperf_logging.compliance_checker.mlp_parser import ruleset_610
from mlperf_logging.mllog import constants
from synthetic import make_cell, make_header, make_job, make_points, make_run, make_workload

from bench.errors import RecordError
from bench.exports.formats import find_export, write
from bench.exports.mlperf import to_files
from bench.records.runs import Run
from bench.records.schema import JobRecord

RULESET = "6.1.0"
TORCH = make_cell()
FOLDER = "2026-05-01-quick/torch-eager-cpu-fp32/mnist-cnn"
MLPERF = find_export("mlperf")
DIVISION = "enqueue_config('training_6.1.0/{}_common.yaml'.format(v['value'])); "


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the checker's common rules without the one that continues with those of MLPerf's benchmarks."""
    folder = Path(mlp_compliance.__file__).parent
    common = (folder / f"training_{RULESET}" / "common.yaml").read_text(encoding="utf-8")
    assert common.count(DIVISION) == 1
    path = tmp_path_factory.mktemp("rules") / "common.yaml"
    path.write_text(common.replace(DIVISION, ""), encoding="utf-8")
    return path


def objections(log: Path, rules: Path) -> str:
    """Return what the checker objects to, warnings included; nothing if it accepts the log."""
    checker = mlp_compliance.make_checker("training", RULESET, quiet=False, werror=True)
    accepted, *_ = mlp_compliance.main(str(log), str(rules), checker)
    said = "\n".join([*checker.overwritable.values(), *checker.not_overwritable])
    assert accepted is (said == "")
    return said


def trained(job: JobRecord, **header: Any) -> Run:
    return with_commit(make_run(make_header([job.spec.cell], **header), [job]))


def training(final: float = 0.98, **changes: Any) -> JobRecord:
    job = make_job(TORCH, 2, epochs=3, points=make_points(final, 3, 4.0))
    return msgspec.structs.replace(job, **{"learn_s": 20.0, **changes})


def lines_of(run: Run) -> list[Any]:
    (content,) = to_files(run, Path()).values()
    lines, errors = parse(content)
    assert errors == []
    return lines


def parse(content: bytes) -> tuple[list[Any], list[Any]]:
    return ruleset_610.parse_generator(content.decode("latin-1").splitlines(keepends=True))


def values(lines: list[Any], key: str) -> list[Any]:
    return [line.value["value"] for line in lines if line.key == key]


# ---- by the tool


def test_every_log_of_a_run_parses_and_keeps_the_common_rules(rules: Path, tmp_path: Path) -> None:
    write(MLPERF, full_run(), tmp_path / "logs")
    logs = sorted((tmp_path / "logs").rglob("result_*.txt"))
    assert len(logs) == sum(bool(job.points) for job in full_run().jobs) > 10
    for log in logs:
        lines, errors = mlp_parser.parse_file(str(log), ruleset=RULESET)
        assert errors == []
        assert len(lines) == len(log.read_text(encoding="ascii").splitlines())
        assert objections(log, rules) == ""


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, "success"),
        ({"status": "no_steady_state"}, "success"),
        ({"learn_s": None, "status": "crashed", "error": "killed"}, "success"),
        ({"points": make_points(0.9, 3, 4.0)}, "aborted"),
        ({"points": make_points(0.9, 3, 4.0)[:2], "status": "nan_loss"}, "aborted"),
        (
            {"first_step_s": None, "build_s": None, "data_s": None, "import_s": None, "start_s": None},
            "success",
        ),
    ],
    ids=["target", "drifted", "crashed at the end", "missed", "diverged", "no times"],
)
def test_the_common_rules_hold_however_a_training_run_ended(
    changes: dict, status: str, rules: Path, tmp_path: Path
) -> None:
    run = trained(msgspec.structs.replace(training(), **changes))
    write(MLPERF, run, tmp_path)
    assert objections(tmp_path / FOLDER / "result_0.txt", rules) == ""
    (stopped,) = [line for line in lines_of(run) if line.key == "run_stop"]
    assert stopped.value["metadata"] == {"status": status}


def test_the_only_objection_is_that_this_is_no_benchmark_of_mlperfs(rules: Path, tmp_path: Path) -> None:
    """With all rules, the checker stops at those of the benchmark, which it does not have."""
    write(MLPERF, trained(training()), tmp_path)
    command = (
        "mlperf_logging.compliance_checker",
        "--ruleset",
        RULESET,
        "--werror",
        FOLDER + "/result_0.txt",
    )
    said = tool(*command, "--config", str(rules), cwd=tmp_path)
    assert (said.returncode, "SUCCESS" in said.stderr) == (0, True), said.stderr
    said = tool(*command, cwd=tmp_path)
    assert said.returncode != 0
    assert "open_mnist-cnn.yaml" in said.stdout + said.stderr


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("init_stop", "Required EXACTLY_ONE occurrence of 'init_stop'"),
        ("run_start", "s['run_started']"),
        ("eval_accuracy", "AT_LEAST_ONE occurrence of 'eval_accuracy'"),
        ("block_start", "AT_LEAST_ONE occurrence of"),
        ("train_samples", "Required EXACTLY_ONE occurrence of 'train_samples'"),
        ("micro_batch_size", "Required EXACTLY_ONE occurrence of 'micro_batch_size'"),
    ],
)
def test_a_log_that_lacks_a_line_is_refused(key: str, words: str, rules: Path, tmp_path: Path) -> None:
    (content,) = to_files(trained(training()), tmp_path).values()
    kept = [line for line in content.decode().splitlines() if json.loads(line[9:])["key"] != key]
    log = tmp_path / "result_0.txt"
    log.write_text("\n".join(kept) + "\n")
    assert words in objections(log, rules)


def test_hostile_names_make_no_lines_and_keep_the_rules(rules: Path, tmp_path: Path) -> None:
    write(MLPERF, hostile_run(), tmp_path / "logs")
    logs = sorted((tmp_path / "logs").rglob("result_*.txt"))
    assert len(logs) == 6
    assert len({log.parent for log in logs}) == 2, "two names that differ in a control stay two"
    assert plain_file_names(tmp_path / "logs")
    for log in logs:
        lines, errors = mlp_parser.parse_file(str(log), ruleset=RULESET)
        assert errors == []
        assert len(lines) == log.read_bytes().count(b"\n")
        (name,) = values(lines, "submission_benchmark")
        assert ':::MLLOG {"key": 1}' in name
        assert name.isprintable()
        assert objections(log, rules) == ""


def test_a_line_inside_a_name_would_be_taken_for_one() -> None:
    """The broken twin: the parser reads what follows the last mark in a line."""
    line = f':::MLLOG {{"time_ms": 0, "key": "x", "value": {json.dumps(HOSTILE)}, "metadata": {{}}}}\n'
    lines, errors = parse(line.encode())
    assert (lines, len(errors)) == ([], 1)


def test_the_keys_are_mlperfs() -> None:
    known = {value for name, value in vars(constants).items() if name.isupper()}
    ours = {line.key for line in lines_of(trained(training()))} - known
    assert ours == {"target_accuracy", "tracked_stats"}, "unknown keys are allowed"


# ---- the content


def test_a_log_names_what_was_trained() -> None:
    lines = lines_of(trained(training()))
    for key, value in {
        "seed": 2,
        "global_batch_size": 100,
        "opt_name": "sgd",
        "opt_base_learning_rate": 0.1,
        "train_samples": 60_000,
        "eval_samples": 10_000,
        "submission_benchmark": "mnist-cnn",
        "submission_division": "open",
        "submission_platform": "Example CPU @ 2.60GHz, 16 CPUs, 64 GiB, no GPU",
        "cache_clear": False,
        "target_accuracy": 0.97,
    }.items():
        assert values(lines, key) == [value]
    assert "no MLPerf submission" in values(lines, "submission_org")[0]


def test_the_clock_is_that_of_the_job() -> None:
    job = training(final=0.9)
    lines = lines_of(trained(job))
    at = {line.key: line.timestamp / 1000 for line in lines}
    parts = (job.start_s, job.import_s, job.data_s, job.build_s, job.first_step_s)
    assert at["init_stop"] - at["init_start"] == pytest.approx(sum(part or 0 for part in parts), abs=2e-3)
    assert at["run_stop"] - at["run_start"] == pytest.approx(20.0, abs=2e-3), "training and evaluating"
    assert at["init_start"] == pytest.approx(1777629720.0), "2026-05-01T10:02:00Z"
    times = [line.timestamp for line in lines]
    assert times == sorted(times)
    trained_s = sum(line.value["metadata"]["train_s"] for line in lines if line.key == "block_stop")
    assert trained_s == job.points[-1].train_s == 12.0
    assert values(lines, "tracked_stats") == [{"throughput": pytest.approx(60_000 / 4)}] * 3


def test_a_log_ends_at_the_first_evaluation_that_reaches_the_target() -> None:
    job = training(final=0.99)
    first = next(point for point in job.points if point.test_accuracy >= 0.97)
    assert first != job.points[-1], "it trained beyond"
    lines = lines_of(trained(job))
    assert values(lines, "eval_accuracy")[-1] == first.test_accuracy
    assert lines[-1].key == "run_stop"
    evaluations = [line for line in lines if line.key == "eval_accuracy"]
    assert [line.value["metadata"]["samples_count"] for line in evaluations] == [
        100 * point.steps for point in job.points if point.steps <= first.steps
    ]


def test_without_a_target_no_training_is_a_success() -> None:
    job = training()
    spec = msgspec.structs.replace(job.spec, workload=make_workload(target=None))
    lines = lines_of(trained(msgspec.structs.replace(job, spec=spec)))
    assert lines[-1].value["metadata"] == {"status": "aborted"}
    assert len(values(lines, "eval_accuracy")) == len(job.points)


@pytest.mark.parametrize(
    ("header", "samples"),
    [({"sample": True}, 500), ({"dataset_limit": 300}, 300), ({"dataset_limit": 10**6}, 10_000)],
)
def test_the_test_images_are_those_of_the_run(header: dict, samples: int) -> None:
    (found,) = values(lines_of(trained(training(), **header)), "eval_samples")
    assert found == samples


def test_a_data_set_of_somebody_elses_has_no_known_size() -> None:
    job = training()
    workload = msgspec.structs.replace(job.spec.workload, dataset="theirs")
    job = msgspec.structs.replace(job, spec=msgspec.structs.replace(job.spec, workload=workload))
    assert values(lines_of(trained(job)), "eval_samples") == [None]


def test_logs_are_numbered_by_seed_and_a_seed_has_only_its_last_training_run() -> None:
    def job(block: int, accuracy: float = 0.9, **changes: Any) -> JobRecord:
        points = changes.pop("points", make_points(accuracy, 2, 1.0))
        return make_job(TORCH, block, seed=9 - block, epochs=2, points=points, **changes)

    again = job(1, 0.8, started_at="2026-05-01T12:00:00Z")
    without_a_step = job(5, status="nan_loss", points=make_points(0.9, 2, 1.0)[:1])
    run = make_run(make_header([TORCH]), [job(0), again, job(1), job(2), without_a_step])
    files = to_files(run, Path())
    assert list(files) == [f"{FOLDER}/result_{number}.txt" for number in range(3)]
    lines = [parse(content)[0] for content in files.values()]
    assert [values(one, "seed") for one in lines] == [[7], [8], [9]]
    assert [values(one, "eval_accuracy")[-1] for one in lines] == [0.9, 0.8, 0.9]


@pytest.mark.parametrize("changes", [{"started_at": "soon\x1b"}, {"learn_s": 1e300}, {"start_s": 1e17}])
def test_impossible_times_are_a_record_error(changes: dict) -> None:
    with pytest.raises(RecordError, match="has an impossible time") as refused:
        to_files(trained(training(**changes)), Path())
    assert str(refused.value).isprintable()
