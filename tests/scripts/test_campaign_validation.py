"""The processes of the validation: their order, what each prints, and going on after an interruption."""

import json
import os
import sys
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from conftest import TESTS

from backends.info import BackendInfo, Mode
from bench.errors import UsageError
from bench.measuring import variables as harness
from campaign import validation
from campaign.plan import VALIDATED
from campaign.validation import Process, Task, measure, read, tasks

HERE = {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
ONLY = (Mode(name="only", summary="", default=True),)
INFOS = tuple(
    BackendInfo(name=name, title=name, target=f"fakes:{kind}", distributions=(), modes=ONLY)
    for name, kind in (("steady", "Steady"), ("quick", "Quick"), ("dead", "ExitsInTraining"))
)
PYTHONS = {info.name: Path(sys.executable) for info in INFOS}
WORKLOAD = "mnist-softmax"


def go(folder: Path, *backends: str, processes: int = 1) -> tuple[Process, ...]:
    order = tasks(1, workloads=[WORKLOAD], backends=backends, processes=processes)
    return measure(
        folder, 1, pythons=PYTHONS, where=None, infos=INFOS, order=order, epochs={WORKLOAD: 2}, more=HERE
    )


def test_each_framework_has_its_processes_in_a_random_order_that_can_be_repeated():
    first = tasks(1)
    assert first == tasks(1)
    assert Counter((one.workload, one.backend) for one in first) == {
        (workload, backend): 7 for workload in VALIDATED for backend in ("tensorflow", "torch", "jax")
    }
    assert [one.index for one in first] == list(range(63))
    orders = [[(one.workload, one.backend) for one in order] for order in (first, tasks(2), tasks(1, seed=1))]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    # Not sorted by framework: no framework has the first or the last third for itself.
    assert all(len({backend for _, backend in orders[0][start : start + 21]}) == 3 for start in (0, 21, 42))


def test_frameworks_share_seeds_and_parts_do_not():
    seeds = {part: {one.seed for one in tasks(part)} for part in (1, 2, 3)}
    assert not (seeds[1] & seeds[2] | seeds[2] & seeds[3])
    by_backend = Counter((one.backend, one.seed) for one in tasks(1))
    assert set(by_backend.values()) == {len(VALIDATED)}


def test_a_process_trains_alone_and_leaves_a_line(tmp_path):
    found = go(tmp_path, "steady", "quick")
    assert len(found) == 2
    assert read(tmp_path) == found
    for one in found:
        assert one.error is None
        assert one.seconds == pytest.approx(sum(one.epoch_seconds))
        assert len(one.epoch_seconds) == one.epochs == 2
        assert one.samples % 200 == 0
        assert one.losses[0] > one.losses[1] > 0
        assert one.rate == pytest.approx(one.samples / one.seconds)
        # 10 ms a step at least, or 5: what is timed is the training, and not less.
        assert one.seconds >= one.samples / 100 * (0.010 if one.task.backend == "steady" else 0.005)
    assert len((tmp_path / "processes.jsonl").read_text().splitlines()) == 2


def test_a_second_call_goes_on_and_repeats_nothing(tmp_path, monkeypatch):
    made, real = [], validation.run

    def interrupted(task, info, **more):
        if len(made) == 1:
            raise KeyboardInterrupt
        made.append(task.index)
        return real(task, info, **more)

    monkeypatch.setattr(validation, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, "quick", processes=2)
    assert made == [0]
    assert len(read(tmp_path)) == 1
    monkeypatch.setattr(
        validation, "run", lambda task, info, **more: made.append(task.index) or real(task, info, **more)
    )
    assert len(go(tmp_path, "quick", processes=2)) == 2
    assert made == [0, 1]


def test_a_process_that_dies_is_recorded_and_not_repeated(tmp_path):
    (found,) = go(tmp_path, "dead")
    assert found.seconds is None
    assert found.error.startswith("it ended with status 7")
    assert go(tmp_path, "dead") == (found,)


GOOD = {"device": "cpu", "losses": [2.3, 0.4], "seconds": 1.0}


@pytest.mark.parametrize(
    ("status", "printed", "why"),
    [
        (1, "", "status 1: last words"),
        (0, "", "no values"),
        (0, "[1]", "no values"),
        (0, json.dumps({**GOOD, "device": "gpu"}), "it ran on gpu"),
        (0, json.dumps({**GOOD, "losses": [0.4, 2.3]}), "did not learn"),
        (0, json.dumps({**GOOD, "losses": [2.3, float("nan")]}), "did not learn"),
    ],
)
def test_what_is_no_training_is_no_figure(status, printed, why):
    values, error = validation.answer(status, printed, "first\nlast words\n")
    assert values == {}
    assert why in error


def test_the_values_are_the_last_line():
    values, error = validation.answer(0, "a framework's chatter\n" + json.dumps(GOOD) + "\n", "")
    assert (values, error) == (GOOD, None)


@pytest.mark.parametrize("info", validation.INFOS, ids=lambda info: info.name)
def test_a_process_has_the_environment_of_a_run(info, tmp_path, monkeypatch):
    """Else another program would be measured. What the validation sets is compared with the harness."""
    monkeypatch.setenv("SECRET_OF_THE_USER", "x")
    for name in harness.tuning_variables():
        monkeypatch.delenv(name)
    task = Task(index=0, workload=WORKLOAD, backend=info.name, seed=0, padding=77, hash_seed=5)
    own = validation.variables(task, info, tmp_path)
    theirs = harness.worker_environment(info, "cpu", tmp_path, hash_seed=5)
    left_out = {"USER", "SHELL", "LC_CTYPE", "PYTHONUTF8", "PYTHONPATH", "PYTHONSAFEPATH"}
    differ = {name for name in own.keys() | theirs.keys() if own.get(name) != theirs.get(name)} - left_out
    threads = {harness.THREADS_VARIABLE, *info.thread_variables} if harness.worker_threads() else set()
    assert differ <= {harness.PADDING_VARIABLE} | threads
    assert len(own[validation.PADDING]) == 77
    assert "SECRET_OF_THE_USER" not in own


def test_the_workloads_and_frameworks_are_those_that_a_run_measures():
    assert set(validation.EPOCHS) == set(VALIDATED)
    assert [info.name for info in validation.INFOS] == ["tensorflow", "torch", "jax"]
    assert [info.default_mode for info in validation.INFOS] == ["graph", "eager", "jit"]


def test_an_interpreter_that_is_missing_is_named(tmp_path):
    with pytest.raises(UsageError, match="tensorflow, jax"):
        validation.main([str(tmp_path), "1", f"--python=torch={sys.executable}"])
    every = [f"--python={name}={sys.executable}" for name in ("tensorflow", "torch", "jax")]
    with pytest.raises(UsageError, match="there are 3"):
        validation.main([str(tmp_path), "4", *every])


def test_a_line_that_cannot_be_read_is_an_error(tmp_path):
    (tmp_path / validation.RECORDS).write_bytes(b"{}\n")
    with pytest.raises(UsageError, match="line 1"):
        read(tmp_path)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.framework(name)) for name in ("tensorflow", "torch", "jax")]
)
def test_each_framework_trains_alone(name, tmp_path):
    info = next(info for info in validation.INFOS if info.name == name)
    task = msgspec.structs.replace(tasks(1)[0], workload=WORKLOAD, backend=name)
    found = validation.run(
        task, info, part=1, python=Path(sys.executable), where=None, epochs=1,
        more={"PYTHONPATH": str(TESTS.parent)},
    )  # fmt: skip
    assert found.error is None
    assert found.mode == info.default_mode
    assert found.seconds is not None
    assert found.seconds > 0
