"""The command line: an error takes a line or two, and the exit status tells its kind."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import fakes
import msgspec
import pytest
import ranked
from conftest import Call, Said
from known import known
from synthetic import make_cell, make_header

from backends.catalog import JAX, NUMPY, TENSORFLOW, TORCH
from bench.errors import UsageError
from bench.measuring.backends import Registry
from bench.measuring.design import LEAD_S
from bench.records.runs import HEADER, QUARANTINE, RECORDS, create_run, read_run
from bench.run.setup import RunPlan

pytestmark = [pytest.mark.measures, pytest.mark.long]

KEYS = {
    "workload", "backend", "mode", "device", "precision", "status", "parity_ok", "samples_per_s",
    "samples_per_s_low", "samples_per_s_high", "blocks", "first_step_s", "import_s", "test_accuracy",
    "epochs", "peak_rss_bytes",
}  # fmt: skip
SMALL = ("--sample", "--dataset-limit", "300", "--workload", fakes.WORKLOAD, "--device", "cpu")


COMMAND = """
import msgspec
import pytest
from bench.cli.main import main
from bench.run import plan
from bench.run.setup import RunPlan
from fakes import TINY
from played import undisturbed
plan.PRESETS = {"quick": msgspec.structs.replace(TINY, min_blocks=3, epochs=5)}
undisturbed(pytest.MonkeyPatch())
main()
"""
"""The command `bench` with real workers, whose runs have short blocks and do not ask for a quiet machine."""


def process(*arguments: str, cwd: Path, command: Sequence[str] = ("-m", "bench"), **variables: str) -> Said:
    environment = os.environ | {"PYTHONPATH": fakes.python_path()} | variables
    done = subprocess.run(
        [sys.executable, *command, *arguments],
        capture_output=True, text=True, cwd=cwd, env=environment, timeout=300, check=False,
    )  # fmt: skip
    return Said(done.returncode, done.stdout, done.stderr)


def results(folder: Path) -> list[Path]:
    return [path.parent for path in folder.glob(f"results/*/{HEADER}")]


# Wrong usage: 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "--workload", "mnst-cnn"), ("unknown workload 'mnst-cnn'; did you mean 'mnist-cnn'?",)),
        (("run", "--workload", "imagenet-softmax", "--sample"), ("unknown workload",)),
        (("run", "--backend", "tensorflo"), ("unknown backend 'tensorflo'; did you mean 'tensorflow'?",)),
        (("run", "--backend", "numpy", "--mode", "flaot64"), ("'flaot64'; did you mean 'float64'?",)),
        (("run", "--backend", "numpy", "--mode", "eager"), ("unknown mode 'eager'", "modes of numpy")),
        (("run", "--preset", "quik"), ("unknown preset 'quik'; did you mean 'quick'?",)),
        (("run", "--device", "tpu"), ("'tpu'", "'cpu'")),
        (("run", "--precision", "fp8"), ("'fp8'", "'bf16'")),
        (("run", "--budget", "-5m"), ("budget '-5m'", "write 90s, 15m or 2h")),
        (("run", "--budget", "0"), ("budget '0'",)),
        (("run", "--budget", "9s"), ("budget '9s'", "10s to 168h")),
        (("run", "--budget", "169h"), ("budget '169h'",)),
        (("run", "--budget", "1e999h"), ("budget '1e999h'",)),
        (("run", "--budget", "nan"), ("budget 'nan'",)),
        (("run", "--budget", "soon"), ("budget 'soon'",)),
        (("run", "--budget", ""), ("budget ''",)),
        (("run", "--budget", "5 parsecs"), ("budget '5 parsecs'",)),
        (("run", "--ranks", "0"), ("ranks '0'", "write 2 or 1,2,4")),
        (("run", "--ranks", "2,"), ("ranks '2,'",)),
        (("run", "--ranks", "2", "--mode", "eager"), ("--ranks", "leave out --mode")),
        (("run", "--ranks", "2", "--sweep", "batch=16..32"), ("--ranks and --sweep",)),
        (("run", "--ranks", "2", "--gpu", "1"), ("--gpu 1", "--devices")),
        (("run", "--ranks", "2", "--scaling", "both ways"), ("'both ways'", "'strong'")),
        (("run", "--devices", "0"), ("--devices", "such as --ranks 1,2,4")),
        (("run", "--scaling", "weak"), ("--scaling", "such as --ranks 1,2,4")),
        (("run", "--ranks", "2", "--devices", "GPU-1"), ("devices 'GPU-1'",)),
        (("run", "--resume", "run-1", "--ranks", "2"), ("--resume", "leave out --ranks")),
        (("verify", "--ranks", "two"), ("ranks 'two'",)),
        (("run", "--seed", "-1"), ("--seed", "-1")),
        (("run", "--seed", "x"), ("--seed",)),
        (("run", "--lead", "0"), ("--lead", "0")),
        (("run", "--lead", "1001"), ("--lead", "1001")),
        (("run", "--dataset-limit", "0"), ("--dataset-limit", "0")),
        (("run", "--dataset-limit", "-1"), ("--dataset-limit", "-1")),
        (("run", "--dataset-limit", "many"), ("--dataset-limit",)),
        (("run", "--backend", "numpy", "--sample", "--dataset-limit", "99"), ("99 training images",)),
        (("run", "--python", "torch"), ("--python 'torch' is not NAME=PATH",)),
        (("run", "--python", "=/bin/sh"), ("is not NAME=PATH",)),
        (("run", "--python", "torch="), ("is not NAME=PATH",)),
        (("run", "--python", "torch=/no/such/python"), ("there is no file /no/such/python",)),
        (("run", "--python", "torhc=/bin/sh"), ("unknown backend 'torhc'; did you mean 'torch'?",)),
        (("run", "--python", "torch=/bin/false"), ("/bin/false does not run as a Python interpreter",)),
        (("list", "--python", "torch=/bin/false"), ("/bin/false does not run as a Python interpreter",)),
        (("run", "--resume", "run-1"), ("unknown run 'run-1'",)),
        (("run", "surplus"), ("surplus",)),
        (("run", "--no-such-option"), ("--no-such-option",)),
        (("runn",), ("runn",)),
        ((), ("Missing command", "bench --help")),
        (("data",), ("Missing command", "bench data --help")),
        (("report", "run-1"), ("unknown run 'run-1'",)),
        (("report",), ("Make one with: bench run",)),
        (("report", "--format", "pdf"), ("'pdf'", "'json'")),
        (("data", "fetch", "mnits"), ("unknown data set 'mnits'; did you mean 'mnist'?",)),
        (("data", "verify", "imagenet"), ("unknown data set 'imagenet'",)),
        (("verify", "--workload", "mnist"), ("unknown workload 'mnist'",)),
    ],
)  # fmt: skip
def test_wrong_usage_is_named_with_its_value(
    arguments: tuple[str, ...], words: tuple[str, ...], call: Call
) -> None:
    call(*arguments).refused(2, *words)


def test_a_mode_that_a_named_backend_lacks_is_refused(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, [NUMPY, fakes.STEADY])
    said = call("run", *SMALL, "--backend", "numpy", "--backend", "steady", "--mode", "float64")
    said.refused(2, "backend 'steady' has no mode float64; it has: only.")


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("run", "--ranks", "3"), 2, ("--ranks 3: mnist-softmax has batches of 100 images",)),
        (("verify", "--ranks", "3"), 2, ("--ranks 3: mnist-softmax has batches of 100 images",)),
        (("run", "--ranks", "2", "--backend", "steady"), 2, ("backend 'steady': it has no mode in which",)),
        (("run", "--mode", "together"), 2, ("--mode together", "such as --ranks 1,2")),
        (
            ("run", "--ranks", "2", "--devices", "4096"),
            3,
            ("--devices 4096: this process may not",),
        ),
        (("run", "--ranks", "2", "--devices", "0,0"), 2, ("--devices 0,0: a device can be named only once",)),
    ],
)
def test_ranks_that_cannot_be_had_are_refused(
    arguments: tuple[str, ...],
    status: int,
    words: tuple[str, ...],
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known(monkeypatch, [ranked.info(), fakes.STEADY])
    call(*arguments, "--workload", fakes.WORKLOAD, "--device", "cpu").refused(status, *words)


def test_nothing_is_left_on_disk_by_a_command_that_was_refused(call: Call, tmp_path: Path) -> None:
    call("run", "--backend", "numpy", "--sample", "--dataset-limit", "99").refused(2)
    assert results(tmp_path) == []


# What cannot be measured here: 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "--device", "gpu"), ("device gpu: no NVIDIA driver", "--device cpu")),
        (("verify", "--device", "gpu"), ("device gpu: no NVIDIA driver",)),
        (
            ("run", "--backend", "numpy", "--precision", "tf32"),
            ("backend 'numpy': precision tf32 is not available on cpu; it has: fp32.",),
        ),
        (("run", "--backend", "numpy", "--precision", "bf16"), ("precision bf16 is not available on cpu",)),
        (("data", "verify", "mnist"), ("mnist",)),
    ],
)
def test_what_is_not_to_be_had_is_an_error_and_never_replaced(
    arguments: tuple[str, ...], words: tuple[str, ...], call: Call, tmp_path: Path
) -> None:
    call(*arguments).refused(3, *words)
    assert results(tmp_path) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--backend", "numpy", "--workload", "mnist-softmax", "--offline"),
        ("data", "fetch", "mnist", "--offline"),
    ],
)
def test_no_network_and_no_cache_says_the_three_ways_out(
    arguments: tuple[str, ...], call: Call, tmp_path: Path
) -> None:
    said = call(*arguments)
    assert said.status == 3, said
    problem, ways = said.err.split("Three ways out:\n")
    assert problem.startswith("bench: cannot get the data set mnist offline.")
    assert "Traceback" not in problem
    assert len(ways.splitlines()) == 3
    for way, words in zip(
        ways.splitlines(), ("bench data fetch mnist", "--from DIR", "--sample"), strict=True
    ):
        assert words in way
    assert results(tmp_path) == []


def test_tf32_on_the_cpu_is_refused_by_every_backend(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, [msgspec.structs.replace(info, distributions=()) for info in (TENSORFLOW, TORCH, JAX)])
    call("run", "--device", "cpu", "--precision", "tf32").refused(
        3, "no backend can run here", "jax: precision tf32"
    )


def test_a_framework_that_is_missing_is_an_error_when_it_is_named(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stub = fakes.program(tmp_path / "python", ["""echo '{"torch": null}'"""])
    said = call("run", *SMALL, "--backend", "torch", "--python", f"torch={stub}")
    said.refused(3, "backend 'torch': not installed: torch.", "--python torch=PATH")


def test_a_broken_backend_is_an_error_when_it_is_named(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, [NUMPY], {"odd": "backend 'odd' (odd:INFO) cannot be used: no module"})
    call("run", *SMALL, "--backend", "odd").refused(3, "backend 'odd' (odd:INFO) cannot be used: no module")


def test_a_broken_backend_is_named_by_a_run_that_goes_on_without_it(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(monkeypatch, [fakes.STEADY], {"odd": "backend 'odd' cannot be used, because it is installed twice"})
    said = call("run", *SMALL)
    assert said.status == 0, said
    assert "odd: left out: backend 'odd' cannot be used, because it is installed twice" in said.out


def test_the_threads_of_a_quota_are_said_by_the_run_and_kept_with_it(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("bench.machine.environment.cgroup_cpu_quota", lambda memberships, mount: 0.5)
    monkeypatch.setattr("bench.machine.environment.allowed_cpus", lambda: 2)
    known(monkeypatch, [fakes.STEADY])
    said = call("run", *SMALL)
    assert said.status == 0, said
    words = "1 thread for each framework, because of a CPU quota of 0.5."
    assert f"Threads: {words}" in " ".join(said.out.split())
    folder = results(tmp_path)[0]
    environment = read_run(folder).header.environment
    assert (environment.cpu_quota, environment.worker_threads) == (0.5, 1)
    assert words in (folder / "report.html").read_text()


@pytest.mark.parametrize("folder", ["file/results", "/proc/results"])
def test_results_that_cannot_be_written_are_an_error_before_anything_is_measured(
    folder: str, call: Call, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    said = call("run", *SMALL, "--backend", "numpy", "--results", folder)
    said.refused(3, f"cannot write results to {folder}", "--results DIR")


def test_a_run_that_cannot_be_read_is_an_error(call: Call, tmp_path: Path) -> None:
    (tmp_path / "results/run-1").mkdir(parents=True)
    (tmp_path / "results/run-1" / HEADER).write_text("{")
    call("report").refused(3, "cannot read", HEADER)
    call("run", "--resume", "run-1").refused(3, "cannot read", HEADER)


# Whole runs


def test_a_framework_that_is_missing_among_all_is_named_and_skipped(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known(monkeypatch, [fakes.STEADY, fakes.ABSENT])
    said = call("run", *SMALL)
    assert said.status == 0, said
    rows = json.loads(call("report", "--format", "json").out)
    assert {(row["backend"], row["status"]) for row in rows} == {("steady", "ok"), ("absent", "unavailable")}
    again = call("run", "--resume", results(tmp_path)[0].name)
    assert again.status == 0, again


def test_lost_parity_is_a_measured_failure(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, [fakes.STEADY, fakes.WRONG])
    said = call("run", *SMALL)
    assert said.status == 1, said
    assert "parity lost: mnist-softmax wrong/only cpu fp32: logits off by 1.0e-02" in " ".join(
        said.out.split()
    )


def test_an_exception_while_parity_is_proven_is_no_measured_failure(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(monkeypatch, [fakes.STEADY, fakes.RAISES])
    said = call("run", *SMALL)
    assert said.status == 3, said
    assert "parity not verified: mnist-softmax raises/only" in said.out
    assert "parity lost" not in said.out


def test_a_crash_is_something_not_measured_and_does_not_stop_the_rest(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(monkeypatch, [fakes.STEADY, msgspec.structs.replace(fakes.EXITS, target="fakes:ExitsInTraining")])
    said = call("run", *SMALL)
    assert said.status == 3, said
    rows = json.loads(call("report", "--format", "json").out)
    assert {(row["backend"], row["status"]) for row in rows} == {("steady", "ok"), ("exits", "crashed")}


def test_what_a_worker_says_cannot_act_on_the_terminal(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, [fakes.RAISES])
    said = call("run", *SMALL)
    assert said.status in (1, 3)
    assert "ValueError: shapes" in said.out
    assert_plain(said.out + said.err)


def test_a_run_cut_off_in_a_record_is_resumed_and_the_user_is_told(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known(monkeypatch, [fakes.STEADY])
    assert call("run", *SMALL).status == 0
    (folder,) = results(tmp_path)
    path = folder / RECORDS
    path.write_bytes(path.read_bytes()[:-30])
    assert "left out, as it cannot be read: records.jsonl line 5" in call("report").err
    said = call("run", "--resume", folder.name)
    assert said.status == 0, said
    assert f"moved to {QUARANTINE}, as it cannot be read: records.jsonl line 5" in said.err
    assert (folder / QUARANTINE).stat().st_size > 100
    assert [block.block for block in read_run(folder).blocks] == [0, 2]


def test_list_shows_everything_and_what_is_missing(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, [NUMPY, fakes.ABSENT], {"odd": "backend 'odd' (odd:INFO) cannot be used: no module"})
    said = call("list")
    assert said.status == 0
    for word in (
        "mnist-softmax", "cifar100-cnn", "float64", "quick", "numpy 2.",
        "not installed: no-such-framework or no-such-twin", "backend 'odd' (odd:INFO) cannot be used",
    ):  # fmt: skip
        assert word in said.out


# As a process of its own


def assert_plain(text: str) -> None:
    assert all(char.isprintable() or char == "\n" for char in text), text


def test_a_real_run_ends_with_a_report(tmp_path: Path) -> None:
    said = process(
        "run", "--sample", "--backend", "numpy", "--workload", "mnist-softmax", "--budget", "60s",
        cwd=tmp_path, command=("-c", COMMAND), OPENBLAS_NUM_THREADS="1",
    )  # fmt: skip
    assert said.status == 0, said
    assert said.err == ""
    assert_plain(said.out)
    (folder,) = results(tmp_path)
    assert (folder / "REPORT.md").stat().st_size > 500
    assert (folder / "report.html").stat().st_size > 20_000
    assert f"Report: {(folder / 'report.html').relative_to(tmp_path)}" in said.out.splitlines()

    report = process("report", "--format", "json", cwd=tmp_path)
    (row,) = json.loads(report.out)
    assert row.keys() >= KEYS
    assert (row["workload"], row["backend"], row["mode"]) == ("mnist-softmax", "numpy", "float64")
    assert (row["device"], row["precision"], row["status"]) == ("cpu", "fp32", "ok")
    assert row["parity_ok"] is True
    assert row["blocks"] >= 3
    assert 0 < row["samples_per_s_low"] <= row["samples_per_s"] <= row["samples_per_s_high"]
    assert 0.5 < row["test_accuracy"] < 1
    for key in ("first_step_s", "import_s", "epochs", "peak_rss_bytes"):
        assert row[key] > 0, key
    assert process("export", "--format", "csv", cwd=tmp_path).out.count("\n") == 2


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("list",), 0),
        (("run", "--workload", "x"), 2),
        (("run", "--device", "gpu", "--python", "numpy=/x"), 2),
    ],
)
def test_piped_output_is_plain(arguments: tuple[str, ...], status: int, tmp_path: Path) -> None:
    said = process(*arguments, cwd=tmp_path)
    assert said.status == status, said
    assert_plain(said.out + said.err)
    assert (said.err == "") == (status == 0)


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m bench list | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        cwd=fakes.TESTS.parent,
        timeout=300,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_a_report_whose_reader_goes_away_is_no_error(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known(monkeypatch, [fakes.STEADY])
    assert call("run", *SMALL).status == 0
    command = f"{sys.executable} -m bench report | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, timeout=300, check=True
    )
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_help_is_quick_to_come_and_names_every_command(tmp_path: Path) -> None:
    said = process("--help", cwd=tmp_path)
    assert said.status == 0
    for name in ("run", "verify", "list", "doctor", "data", "report"):
        assert f"\n  {name} " in said.out
    assert process("--version", cwd=tmp_path).out.startswith("samework, version ")


ODD = os.fsdecode(b"odd\xff")


def test_names_that_are_no_text_are_names(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ODD).mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ODD))  # where the reference's values are kept
    known(monkeypatch, [fakes.STEADY])
    said = call("run", *SMALL, "--results", ODD)
    assert said.status == 0, said
    (folder,) = [path.parent for path in (tmp_path / ODD).glob(f"*/{HEADER}")]
    assert read_run(folder).header.command[-1] == r"odd\xff"
    assert (folder / "REPORT.md").is_file()
    assert (folder / "report.html").is_file()
    for arguments in (("report",), ("report", "--format", "markdown"), ("export", "--format", "csv")):
        assert call(*arguments, "--results", ODD).status == 0
    call("report", "x", "--results", ODD).refused(2, "unknown run 'x'")


@pytest.mark.parametrize("arguments", [("list",), ("verify", "--backend", "numpy")])
def test_ctrl_c_anywhere_is_130(
    arguments: tuple[str, ...], call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> Registry:
        raise KeyboardInterrupt

    for place in ("bench.run.command", "bench.cli.info"):
        monkeypatch.setattr(f"{place}.find_backends", interrupt)
    said = call(*arguments)
    assert said.status == 130
    assert "Traceback" not in said.err


def test_a_fault_of_the_program_is_shown_and_has_a_status_of_its_own(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's own is 1, which would say that something measured got worse."""
    monkeypatch.setattr("bench.cli.info.find_backends", lambda: 1 // 0)
    said = call("list")
    assert said.status == 70
    assert "ZeroDivisionError" in said.err


def test_a_run_without_records_is_named(call: Call, tmp_path: Path) -> None:
    """As of a folder that was copied without the archive that its records are in."""
    create_run(tmp_path / "results", make_header([make_cell()]))
    said = call("report")
    assert said.status == 0
    assert "has no records: records.jsonl is missing or empty" in said.err


def test_a_hostile_name_of_a_folder_is_harmless_in_an_error(call: Call, tmp_path: Path) -> None:
    folder = tmp_path / "results" / "\x1b]0;owned\x07run"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    call("report", "rum").refused(2, "unknown run 'rum'", "owned")
    assert not {"\x1b", "\x07"} & set(call("report", "rum").err)


def test_a_plug_in_that_ends_the_process_does_not_end_it_well(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end() -> Registry:
        sys.exit(1)

    monkeypatch.setattr("bench.cli.info.find_backends", end)
    assert call("list").status == 1


@pytest.mark.parametrize(("option", "lead_s"), [((), LEAD_S), (("--lead", "100"), 0.1)])
def test_the_lead_is_given_in_milliseconds(
    option: tuple[str, ...], lead_s: float, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def stop(plan: RunPlan, *_: Any) -> NoReturn:
        asked.append(plan.lead_s)
        raise UsageError("that is all")

    monkeypatch.setattr("bench.run.command.prepare", stop)
    call("run", *option).refused(2, "that is all")
    assert asked == [lead_s]


@pytest.mark.parametrize(
    "option",
    [("--budget", "1m"), ("--workload", "mnist-mlp"), ("--seed", "3"), ("--lead", "50"), ("--sample",)],
)
def test_what_a_begun_run_has_settled_is_refused_beside_resume(option: tuple[str, ...], call: Call) -> None:
    call("run", "--resume", "run-1", *option).refused(2, f"leave out {option[0]}")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--resume", "x", "--blocks", "5"), "as it was begun: leave out --blocks"),
        (("--resume", "x", "--again", "x"), "as it was begun: leave out --again"),
        (("--again", "x", "--windows", "9"), "measures nothing: leave out --windows"),
    ],
)
def test_what_a_self_test_has_settled_is_refused(arguments: tuple[str, ...], words: str, call: Call) -> None:
    call("selftest", *arguments).refused(2, words)
