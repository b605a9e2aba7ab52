"""The command that compares two runs: its status, what it refuses, and what it writes."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from commits import ROOT
from conftest import Call
from sides_by_side import make_ab, make_block, proven
from synthetic import make_parity
from two_runs import CELL, OTHER, make_jobs, make_side, save

from bench.gate.records import append_ab, create_ab
from bench.records.runs import RECORDS, Run

BASE = make_side(make_jobs())
BROKEN = make_parity(CELL, error=1.0)


def saved(tmp_path: Path, base: Run, head: Run) -> None:
    for name, run in (("base", base), ("head", head)):
        header = msgspec.structs.replace(run.header, run_id=name)
        save(msgspec.structs.replace(run, header=header), tmp_path / "results")


@pytest.mark.parametrize(
    ("head", "status", "said"),
    [
        (make_side(make_jobs(seed=1)), 0, "No regression."),
        (make_side(make_jobs(0.9)), 1, "REGRESSION."),
        (make_side(make_jobs(memory=1.2)), 1, "REGRESSION."),
        (make_side(make_jobs(), parity=[BROKEN]), 1, "REGRESSION."),
        (make_side(make_jobs(blocks=2)), 3, "Undecided, which does not pass."),
        (make_side(make_jobs(cell=OTHER)), 3, "Undecided, which does not pass."),
        (make_side(), 3, "Undecided, which does not pass."),
        (make_side(make_jobs(), sample=True), 3, "Undecided, which does not pass."),
        (make_side(make_jobs(seed=1, learned=(0.1,))), 0, "No regression."),
    ],
)  # fmt: skip
def test_the_status_says_what_was_found(
    head: Run, status: int, said: str, call: Call, tmp_path: Path
) -> None:
    saved(tmp_path, BASE, head)
    answer = call("compare", "base", "head")
    assert (answer.status, answer.err) == (status, "")
    assert answer.out.rstrip().endswith(said)


def test_runs_of_different_machines_are_refused_and_the_difference_named(call: Call, tmp_path: Path) -> None:
    saved(tmp_path, BASE, make_side(make_jobs(0.9), environment={"hostname": "attic\x9b31m\nbox"}))
    refused = call("compare", "base", "head")
    refused.refused(2, "different machines", "host box \N{RIGHTWARDS ARROW} attic", "--across-machines")
    assert "\x9b" not in refused.err
    assert len(refused.err.splitlines()) == 1
    assert "machine Example" not in refused.err
    told = call("compare", "base", "head", "--across-machines")
    assert told.status == 1
    assert "host box \N{RIGHTWARDS ARROW} attic" in told.out


def test_a_newer_driver_is_another_machine(call: Call, tmp_path: Path) -> None:
    saved(tmp_path, BASE, make_side(make_jobs(), environment={"gpu_driver": "580.1"}))
    call("compare", "base", "head").refused(2, "driver none \N{RIGHTWARDS ARROW} 580.1")
    assert call("compare", "base", "head", "--across-machines").status == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("bsae", "head"), ("unknown run 'bsae'; did you mean 'base'?",)),
        (("base", "haed"), ("unknown run 'haed'; did you mean 'head'?",)),
        (("base", ""), ("unknown run ''",)),
        (("base",), ("HEAD",)),
        ((), ("BASE",)),
        (("base", "head", "--output", "."), ("--output",)),
        (("base", "head", "--results", "elsewhere"), ("unknown run 'base'",)),
    ],
)
def test_wrong_usage_is_named(
    arguments: tuple[str, ...], words: tuple[str, ...], call: Call, tmp_path: Path
) -> None:
    saved(tmp_path, BASE, BASE)
    call("compare", *arguments).refused(2, *words)


def test_a_run_beside_itself_is_refused(call: Call, tmp_path: Path) -> None:
    saved(tmp_path, BASE, BASE)
    call("compare", "base", "results/base").refused(2, "are the same run")


def test_a_run_with_a_line_cut_off_does_not_pass(call: Call, tmp_path: Path) -> None:
    saved(tmp_path, BASE, make_side(make_jobs(seed=1)))
    path = tmp_path / "results" / "head" / RECORDS
    path.write_bytes(path.read_bytes()[:-40])
    answer = call("compare", "base", "head")
    assert answer.status == 3
    assert "nothing passes, as a line cannot be read" in " ".join(answer.out.split())


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_knows_few_characters_gets_others(encoding: str, tmp_path: Path) -> None:
    saved(tmp_path, BASE, make_side(make_jobs(0.9)))
    done = subprocess.run(
        [sys.executable, "-c", "from bench.cli.main import main; main()", "compare", "base", "head"],
        cwd=tmp_path, check=False, capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, b"")
    assert b"-9.9 %" in done.stdout or b"-10.0 %" in done.stdout
    assert b"?" not in done.stdout


def test_an_output_that_cannot_be_written_is_told(call: Call, tmp_path: Path) -> None:
    saved(tmp_path, BASE, BASE)
    call("compare", "base", "head", "--output", "no/such/place.md").refused(
        3, "cannot write no/such/place.md: No such file or directory", "--output"
    )


def test_the_output_says_what_the_terminal_says(call: Call, tmp_path: Path) -> None:
    saved(tmp_path, BASE, make_side(make_jobs(0.9)))
    assert call("compare", "base", "head", "--output", "told.md").status == 1
    assert (tmp_path / "told.md").read_text().startswith("# REGRESSION\n\nbase (base) and head (head)\n")


@pytest.mark.parametrize(
    ("torch", "beside", "status", "said"),
    [
        ((1.2, 1.3), [OTHER], 0, "yes"),
        ((1.2, 0.8), [OTHER], 1, "NO"),
        ((1.2, 1.2), [], 3, "claim about 0"),
    ],
)
def test_verdicts_of_two_runs_are_compared_on_request(*, torch, beside, status, said, call, tmp_path):
    base, head = (
        make_side(
            make_jobs(factor), *(make_jobs(cell=cell, seed=1) for cell in beside),
            parity=[make_parity(CELL), make_parity(OTHER)],
        )
        for factor in torch
    )  # fmt: skip
    saved(tmp_path, base, head)
    answer = call("compare", "--verdicts", "base", "head", "--output", "told.md")
    assert answer.status == status, answer
    assert said in answer.out
    assert said in (tmp_path / "told.md").read_text()


def test_a_record_that_cannot_be_read_is_named_and_never_passes(call: Call, tmp_path: Path) -> None:
    saved(tmp_path, BASE, BASE)
    path = tmp_path / "results" / "head" / RECORDS
    lines = path.read_text().splitlines()
    bad = [
        line.replace('"seconds":', '"seconds":NaN,"x":') if '"record":"job"' in line else line
        for line in lines
    ]
    path.write_text("\n".join([*bad, '{"record":"\\u009b31mjob"}']) + "\n")
    answer = call("compare", "base", "head")
    assert answer.status == 3
    assert f"left out, as it cannot be read: {RECORDS} line" in answer.err
    assert "31mjob" in answer.err
    assert "\x9b" not in answer.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "base and head are the same"),
        (("--base", "A=1", "--head", "A=1"), "base and head are the same"),
        (("--base=-x",), "not a revision, a version"),
        (("--base", "main", "--base", "dev"), "a side has one revision"),
        (("--base", "A=1", "--backend", "torhc"), "did you mean 'torch'"),
        (("--base", "A=1", "--budget", "soon"), "soon"),
        (("--base", "A=1", "--python", "torch=/nowhere"), "there is no file /nowhere"),
        (
            ("--base", "A=1", "--backend", "numpy", "--resume", "ab-x"),
            "unknown comparison 'ab-x'; known: none.",
        ),
    ],
)
def test_what_cannot_be_compared_side_by_side_is_refused(call: Call, options: tuple[str, ...], words: str):
    call("ab", "--device", "cpu", *options).refused(2, words)


def kept(folder: Path, change: float) -> None:
    ab = make_ab([proven(), *(make_block(number, change=change) for number in range(6))])
    place = create_ab(folder, ab.header)
    for record in ab.records:
        append_ab(place, record)


def test_a_comparison_is_judged_again_without_measuring(call: Call, tmp_path: Path):
    kept(tmp_path / "results", 0.0)
    said = call("ab", "--again", "ab-x")
    assert said.status == 0, said
    assert "No regression." in said.out
    report = tmp_path / "results" / "ab-x" / "AB.md"
    assert report.read_text().startswith("# No regression")
    assert "<h1" in report.with_name("report.html").read_text()
    odd = tmp_path / "[" / "x] results"  # which rich would take for markup
    kept(odd, 0.0)
    assert (
        f"Report: {odd / 'ab-x' / 'report.html'}" in call("ab", "--again", "ab-x", "--results", str(odd)).out
    )
    call("ab", "--again", "ab-x", "--backend", "torch").refused(2, "--again measures nothing", "--backend")
    call("ab", "--again", "ab-y").refused(2, "did you mean 'ab-x'")


def test_a_comparison_that_stopped_before_its_second_series_does_not_pass(call: Call, tmp_path: Path):
    kept(tmp_path / "results", -0.05)
    said = call("ab", "--again", "ab-x")
    assert said.status == 3, said
    assert "is to be measured again" in " ".join(said.out.split())


def test_a_line_that_a_report_leaves_out_cannot_act_on_a_terminal(call: Call, tmp_path: Path):
    saved(tmp_path, BASE, BASE)
    with (tmp_path / "results" / "base" / RECORDS).open("ab") as file:
        file.write(b'{"record": "\\u0007red"}\n')
    said = call("report", "base", "--format", "json")
    assert said.status == 0, said
    assert "left out, as it cannot be read" in said.err
    assert "\a" not in said.err
