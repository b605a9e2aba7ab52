"""Tasks and commands name files; on another host they name its own, and nothing else changes."""

import fakes
import msgspec
import pytest
import ranked

from bench.measuring.hosts.files import command_here, files_of_command, files_of_task, task_here
from bench.worker.protocol import Begin, Finish, MeasureTask, ParityCase, Turn, VerifyTask

MEASURE = fakes.task_for(fakes.STEADY)
CASE = ParityCase(cell=MEASURE.spec.cell, workload=MEASURE.spec.workload, trace="/there/1.npz")
OTHER = msgspec.structs.replace(CASE, trace="/there/2.npz")
VERIFY = VerifyTask(backend=fakes.STEADY, cases=(CASE, OTHER, CASE))
KEPT = {"/there/1.npz": "/here/a.npz", "/there/2.npz": "/here/b.npz"}


def text(message: msgspec.Struct) -> str:
    return msgspec.json.encode(message).decode()


def test_the_traces_of_a_task_are_named_once() -> None:
    assert files_of_task(text(VERIFY)) == ["/there/1.npz", "/there/2.npz"]
    assert files_of_task(text(MEASURE)) == []
    assert files_of_command(text(Begin(proof="/there/1.npz"))) == ["/there/1.npz"]
    assert files_of_command(text(Begin())) == files_of_command(text(Finish())) == []


def test_a_task_takes_the_paths_and_the_backend_of_this_host() -> None:
    verify = msgspec.json.decode(
        task_here(text(VERIFY), ranked.info(), kept=KEPT, cache="/cache"), type=VerifyTask
    )
    assert [case.trace for case in verify.cases] == ["/here/a.npz", "/here/b.npz", "/here/a.npz"]
    assert verify.backend == ranked.info()
    back = msgspec.structs.replace(verify, backend=fakes.STEADY, cases=VERIFY.cases)
    assert back == VERIFY
    there = msgspec.structs.replace(MEASURE, data=msgspec.structs.replace(MEASURE.data, cache="/there"))
    measure = msgspec.json.decode(
        task_here(text(there), fakes.STEADY, kept={}, cache="/cache"), type=MeasureTask
    )
    assert measure.data.cache == "/cache"
    sample = msgspec.json.decode(
        task_here(text(MEASURE), fakes.STEADY, kept={}, cache="/c"), type=MeasureTask
    )
    assert sample == MEASURE, "a sample is in no cache"


def test_a_command_takes_the_path_of_this_host() -> None:
    begin = msgspec.json.decode(
        command_here(text(Begin(proof="/there/2.npz", repeated=True)), kept=KEPT), type=Begin
    )
    assert begin == Begin(proof="/here/b.npz", repeated=True)
    turn = text(Turn(steps=5))
    assert command_here(turn, kept=KEPT) == turn


def test_a_file_that_was_not_sent_is_missed() -> None:
    with pytest.raises(KeyError, match=r"/there/1\.npz"):
        task_here(text(VERIFY), fakes.STEADY, kept={}, cache="/cache")
    with pytest.raises(KeyError, match=r"/there/3\.npz"):
        command_here(text(Begin(proof="/there/3.npz")), kept=KEPT)
