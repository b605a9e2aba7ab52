"""The command `verify`: what it prints, and the exit status that says what it found."""

import json
import os
from typing import Any

import fakes
import pytest
import ranked
from conftest import Call
from known import known

from bench.records.schema import ParityRecord

pytestmark = [pytest.mark.measures, pytest.mark.long]


def test_a_proof_with_ranks_says_that_they_share_cores(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, [ranked.info(), fakes.STEADY])
    monkeypatch.setenv("PYTHONPATH", fakes.python_path())
    one = min(os.sched_getaffinity(0))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {one})
    said = call("verify", "--ranks", "1,2", "--workload", fakes.WORKLOAD, "--device", "cpu", "--json")
    records = [json.loads(line) for line in said.out.splitlines()]
    rows = [(record["cell"]["mode"], record["cell"]["ranks"], record["status"]) for record in records]
    assert rows == [("together", 1, "ok"), ("together", 2, "ok")]
    assert "Up to 2 ranks share a CPU core. Nothing is timed." in said.err
    assert "steady: not verified: it has no mode" in said.err


@pytest.mark.parametrize(
    ("target", "status", "word"), [("Raises", 3, "not compared"), ("NanLogits", 1, "FAILS")]
)
def test_verify_tells_a_wrong_value_from_one_that_was_never_computed(
    target: str, status: int, word: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(monkeypatch, [fakes.info("odd", f"fakes:{target}")])
    said = call("verify", "--workload", "mnist-softmax")
    assert said.status == status, said
    assert word in said.out


def test_verify_ends_by_what_it_found(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, [fakes.STEADY, fakes.WRONG])
    workload = ("--workload", fakes.WORKLOAD)
    assert call("verify", *workload, "--backend", "steady").status == 0
    assert call("verify", *workload, "--backend", "wrong").status == 1
    known(monkeypatch, [fakes.STEADY, fakes.ABSENT])
    said = call("verify", *workload, "--json")
    assert said.status == 3
    (record,) = [json.loads(line) for line in said.out.splitlines()]
    assert (record["record"], record["status"], len(record["checks"])) == ("parity", "ok", 6)
    assert "absent: not verified: not installed" in said.err


def test_a_verification_that_crashes_is_not_a_pass(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    known(monkeypatch, [fakes.EXITS])
    assert call("verify", "--workload", fakes.WORKLOAD).status == 3


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_verification_that_is_interrupted_tells_what_it_found(
    call: Call, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    known(monkeypatch, [fakes.STEADY])

    def interrupted(jobs: Any, _infos: Any, _pythons: Any, _display: Any, on_record: Any, **_: Any) -> None:
        on_record(
            ParityRecord(cell=jobs[0].cell, optimizer="sgd", status="failed", error="a first word", steps=20)
        )
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.run.command.verify_cells", interrupted)
    said = call("verify", "--workload", fakes.WORKLOAD, *options)
    assert said.status == 130
    assert "a first word" in said.out
