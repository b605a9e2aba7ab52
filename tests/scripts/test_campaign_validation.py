"""The processes of the validation: their order, what each prints, and going on after an interruption."""

import json
import os
import sys
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest
from conftest import TESTS
from hypothesis import given
from hypothesis import strategies as some

from backends.info import BackendInfo, Mode
from bench.errors import UsageError
from bench.measuring import variables as harness
from campaign import train_alone, validation, validation_onednn
from campaign.plan import ONEDNN, SEED, VALIDATED
from campaign.validation import Process, Task, measure, read, tasks

HERE = {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
ONLY = (Mode(name="only", summary="", default=True),)
INFOS = tuple(
    BackendInfo(name=name, title=name, target=f"fakes:{kind}", distributions=(), modes=ONLY)
    for name, kind in (("steady", "Steady"), ("quick", "Quick"), ("dead", "ExitsInTraining"))
)
PYTHONS = {info.name: Path(sys.executable) for info in INFOS}
WORKLOAD = "mnist-softmax"


def go(folder: Path, *backends: str, rounds: int = 1) -> tuple[Process, ...]:
    order = tasks(1, workloads=[WORKLOAD], backends=backends, rounds=rounds)
    return measure(
        folder, 1, pythons=PYTHONS, where=None, infos=INFOS, order=order, epochs={WORKLOAD: 2}, more=HERE
    )


CELLS = {(workload, backend) for workload in VALIDATED for backend in ("tensorflow", "torch", "jax")}
orders = some.builds(tasks, some.integers(1, 3), seed=some.integers(0, 2**32))


def rounds_of(order: tuple[Task, ...]) -> list[list[Task]]:
    """Return nine processes after nine, as they run."""
    return [list(order[start : start + len(CELLS)]) for start in range(0, len(order), len(CELLS))]


@given(orders)
def test_each_round_has_every_framework_and_workload_once(order):
    assert [one.index for one in order] == list(range(63))
    for number, found in enumerate(rounds_of(order)):
        assert {one.replicate for one in found} == {number}
        assert Counter((one.workload, one.backend) for one in found) == dict.fromkeys(CELLS, 1)


def test_the_order_can_be_repeated_and_differs_between_rounds_parts_and_seeds():
    assert tasks(1) == tasks(1)
    found = [
        tuple((one.workload, one.backend) for one in part)
        for order in (tasks(1), tasks(2), tasks(3), tasks(1, seed=1))
        for part in rounds_of(order)
    ]
    assert len(set(found)) == len(found) == 4 * 7
    # Not sorted: no framework is always the first of the three on a workload.
    firsts = Counter(next(backend for name, backend in order if name == VALIDATED[0]) for order in found)
    assert len(firsts) == 3


@given(orders)
def test_frameworks_of_a_round_share_a_seed_and_rounds_do_not(order):
    seeds = [{one.seed for one in found} for found in rounds_of(order)]
    assert {len(found) for found in seeds} == {1}
    assert len(set.union(*seeds)) == len(seeds)


def test_parts_share_no_seeds_and_a_repetition_has_others():
    seeds = [{one.seed for one in tasks(part, seed=seed)} for part in (1, 2, 3) for seed in (SEED, 1)]
    assert len(set.union(*seeds)) == sum(map(len, seeds))


def test_a_process_trains_alone_and_leaves_a_line(tmp_path):
    found = go(tmp_path, "steady", "quick")
    assert len(found) == 2
    assert read(tmp_path) == found
    for one in found:
        assert one.error is None
        assert one.seconds == pytest.approx(sum(one.epoch_seconds))
        assert len(one.epoch_seconds) == one.epochs == 2
        assert one.samples == 100 * one.steps
        # 2 of the sample's 20 steps, and of 40: its seconds are in those of the epoch too.
        assert (one.first_tenth_steps, one.steps) == (2, 40)
        assert 0 < one.first_tenth_s < one.epoch_seconds[0]
        assert one.first_tenth_s >= 2 * (0.010 if one.task.backend == "steady" else 0.005)
        assert one.slow_beginning == pytest.approx(
            19 * one.first_tenth_s / (one.seconds - one.first_tenth_s) - 1
        )
        assert one.losses[0] > one.losses[1] > 0
        assert one.rate == pytest.approx(one.samples / one.seconds)
        # 10 ms a step at least, or 5: what is timed is the training, and not less.
        assert one.seconds >= one.samples / 100 * (0.010 if one.task.backend == "steady" else 0.005)
    assert len((tmp_path / "processes.jsonl").read_text().splitlines()) == 2


class Counted:
    """A backend whose step takes a second of a clock of its own, and the first three take two."""

    calls: list[np.ndarray]
    clock: float

    def __init__(self, workload, data, **how):
        type(self).calls, type(self).clock = [], 0.0

    def load_params(self, params):
        type(self).clock = 0.0

    def train_steps(self, order):
        for _ in order:
            type(self).clock += 2.0 if self.clock < 6.0 else 1.0
        self.calls.append(order)
        return np.linspace(2.3, 0.4, len(order))

    def describe(self):
        return {"device": "cpu"}


@pytest.mark.parametrize("epochs", [1, 3])
def test_the_first_tenth_is_timed_by_itself_and_nothing_is_trained_twice(epochs, monkeypatch, capsys):
    monkeypatch.setattr(train_alone.time, "perf_counter", lambda: Counted.clock)
    train_alone.main(
        {
            "target": f"{__name__}:Counted", "workload": WORKLOAD, "mode": "only", "epochs": epochs,
            "seed": 4, "cache": None,
        }
    )  # fmt: skip
    values = json.loads(capsys.readouterr().out)
    assert values["first_tenth_s"] == 4.0
    assert values["epoch_seconds"] == [23.0, 20.0, 20.0][:epochs]
    assert values["seconds"] == sum(values["epoch_seconds"])
    assert (values["steps"], values["first_tenth_steps"]) == (20 * epochs, 2)
    warm_up, *calls = Counted.calls
    assert len(warm_up) == 1
    assert [len(call) for call in calls] == [2, 18, 20, 20][: epochs + 1]
    rows = np.concatenate(calls).reshape(epochs, -1)
    assert all(len(set(row)) == 2000 for row in rows.tolist())
    assert values["losses"] == pytest.approx([2.3, np.mean(np.linspace(2.3, 0.4, len(calls[-1])))])


def test_a_second_call_goes_on_and_repeats_nothing(tmp_path, monkeypatch):
    made, real = [], validation.run

    def interrupted(task, info, **more):
        if len(made) == 1:
            raise KeyboardInterrupt
        made.append(task.index)
        return real(task, info, **more)

    monkeypatch.setattr(validation, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, "quick", rounds=2)
    assert made == [0]
    assert len(read(tmp_path)) == 1
    monkeypatch.setattr(
        validation, "run", lambda task, info, **more: made.append(task.index) or real(task, info, **more)
    )
    assert len(go(tmp_path, "quick", rounds=2)) == 2
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
    task = Task(index=0, replicate=0, workload=WORKLOAD, backend=info.name, seed=0, padding=77, hash_seed=5)
    own = validation.variables(task, info, tmp_path)
    theirs = harness.worker_environment(info, "cpu", tmp_path, hash_seed=5)
    left_out = {"USER", "SHELL", "LC_CTYPE", "PYTHONUTF8", "PYTHONPATH", "PYTHONSAFEPATH"}
    differ = {name for name in own.keys() | theirs.keys() if own.get(name) != theirs.get(name)} - left_out
    threads = {harness.THREADS_VARIABLE, *info.thread_variables} if harness.worker_threads() else set()
    assert differ <= {harness.PADDING_VARIABLE} | threads
    assert len(own[validation.PADDING]) == 77
    assert "SECRET_OF_THE_USER" not in own


def test_the_planned_validation_switches_onednn_on_as_its_runs_do(tmp_path, monkeypatch):
    name, value = ONEDNN
    monkeypatch.setattr(validation_onednn.cache, "fetch", lambda name, **more: None)
    asked = []

    def stopped(task, info, *, more, **others):
        asked.append(more)
        raise KeyboardInterrupt

    monkeypatch.setattr(validation, "run", stopped)
    every = [f"--python={info.name}={sys.executable}" for info in validation.INFOS]
    with pytest.raises(KeyboardInterrupt):
        validation_onednn.main([str(tmp_path), "1", *every])
    assert asked == [{name: value}]
    monkeypatch.setenv(name, value)
    for info in validation.INFOS:
        assert harness.worker_environment(info, "cpu", tmp_path, hash_seed=5)[name] == value


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
