"""A worker that misbehaves is named for what it did, ends in time, and leaves nothing behind."""

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import fakes
import msgspec
import psutil
import pytest
from fakes import task_for
from played_nvml import Nvml

from backends.info import BackendInfo
from bench.measuring import process, selection, stream
from bench.measuring.block import BlockJob, run_block
from bench.measuring.process import Outcome, Worker, run_worker
from bench.measuring.variables import padding
from bench.worker.protocol import (
    Built,
    Described,
    Done,
    Evaluated,
    Event,
    FirstStep,
    Imported,
    MeasureTask,
    Started,
    WarmedUp,
)  # fmt: skip

pytestmark = pytest.mark.measures

PYTHON = Path(sys.executable)
HUNG_S = 600.0
"""How long the fakes hang that do. What ends in half of it was ended, however busy the machine is."""


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let workers find the fakes, and make every temporary folder where a test can look for it."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("PYTHONPATH", fakes.python_path())
    return folder


def measure(task: MeasureTask, limit_s: float = 60.0) -> Outcome:
    return run_worker(task, python=PYTHON, device="cpu", time_limit_s=limit_s)


def outcome_of(target: str, limit_s: float = 60.0, **changes: object) -> Outcome:
    return measure(task_for(fakes.info("fake", target, **changes)), limit_s)


def kinds(outcome: Outcome) -> set[type[Event]]:
    return {type(event) for event in outcome.events}


def facts_of(outcome: Outcome) -> dict[str, Any]:
    assert outcome.status == "ok", outcome
    return next(event.facts for event in outcome.events if isinstance(event, Described))


def assert_gone(pid: int) -> None:
    """Wait for a process to end; a zombie, which only init can reap, has ended."""
    deadline = time.monotonic() + HUNG_S / 2
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.05)


def assert_nothing_left(scratch: Path) -> None:
    assert list(scratch.iterdir()) == []
    assert psutil.Process().children(recursive=True) == []


def test_a_good_worker_is_ok(scratch: Path) -> None:
    seen: list[Event] = []
    outcome = run_worker(
        task_for(fakes.STEADY), python=PYTHON, device="cpu", time_limit_s=60, on_event=seen.append
    )
    assert (outcome.status, outcome.error, outcome.exit_signal) == ("ok", None, None), outcome
    assert outcome.stderr_tail == ()
    assert tuple(seen) == outcome.events
    assert isinstance(outcome.events[0], Started)
    assert 0 < (outcome.start_s or 0) < outcome.wall_s
    assert isinstance(outcome.events[-1], Done)
    assert_nothing_left(scratch)


@pytest.mark.parametrize(
    ("target", "status", "said", "exit_signal"),
    [
        ("Exits", "crashed", "ended with status 7 and without a message: about to exit", None),
        ("Segfaults", "crashed", "ended by SIGSEGV", "SIGSEGV"),
        ("OutOfMemory", "out_of_memory", "MemoryError: no room for 9 GiB", None),
        ("OutOfDeviceMemory", "out_of_memory", "RESOURCE_EXHAUSTED: no room for 9 GiB on the device", None),
        ("Raises", "failed", "not aligned", None),
        ("LosesNumbers", "nan_loss", "the loss of step 0 is not finite", None),
        ("Elsewhere", "wrong_device", "asked to run on cpu, it runs on gpu", None),
        ("NotHere", "unavailable", "its driver is too old: 1.2", None),
        ("Incomplete", "failed", "lacks export_params, save_state, restore_state, describe", None),
        ("STEADY", "failed", "fakes:STEADY is no class", None),
        ("Nobody", "failed", "fakes:Nobody is no class", None),
        ("Garbles", "failed", "a line that is not an event", None),
    ],
)
def test_each_mishap_has_its_name(
    target: str, status: str, said: str, exit_signal: str | None, scratch: Path
) -> None:
    outcome = outcome_of(f"fakes:{target}")
    assert outcome.status == status, outcome
    assert outcome.error is not None
    assert said in outcome.error
    assert "\n" not in outcome.error
    assert outcome.exit_signal == exit_signal
    assert not any(isinstance(event, Done) for event in outcome.events)
    if target in ("Exits", "Segfaults", "Garbles"):  # what was measured before is kept
        assert {Imported, FirstStep, WarmedUp} <= kinds(outcome)
    if target == "Segfaults":  # and so is the end of what was printed
        assert "about to fault" in outcome.stderr_tail
    assert_nothing_left(scratch)


def test_a_missing_framework_is_unavailable(scratch: Path) -> None:
    outcome = outcome_of("no_such_framework:Backend")
    assert outcome.status == "unavailable"
    assert outcome.error == "ModuleNotFoundError: No module named 'no_such_framework'"
    assert any("ModuleNotFoundError" in line for line in outcome.stderr_tail)
    assert_nothing_left(scratch)


class LeapingClock:
    """The real clock, which can be put forward: no test depends on how long a worker takes to start."""

    def __init__(self) -> None:
        self._real, self._ahead_s, self._looks = time.monotonic, 0.0, 0

    def leap(self, *, after_looks: int = 1) -> None:
        """Go forward by an hour, when somebody has looked so many times."""
        self._looks = after_looks

    def monotonic(self) -> float:
        if self._looks:
            self._looks -= 1
            self._ahead_s += 0.0 if self._looks else 3600.0
        return self._real() + self._ahead_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> LeapingClock:
    found = LeapingClock()
    for module in (process, stream):
        monkeypatch.setattr(module, "time", found)
    return found


def test_a_hang_ends_at_its_limit(scratch: Path, clock: LeapingClock) -> None:
    started = time.monotonic()

    def leap(event: Event) -> None:
        if isinstance(event, Described):  # the last event before it hangs
            clock.leap(after_looks=8)

    hangs = task_for(fakes.HANGS)
    outcome = run_worker(hangs, python=PYTHON, device="cpu", time_limit_s=60, on_event=leap)
    assert outcome.status == "timeout"
    assert outcome.error == "it was stopped at its limit of 60 s, or when all time was spent"
    assert outcome.wall_s >= 3600
    assert time.monotonic() - started < HUNG_S / 2
    assert WarmedUp in kinds(outcome)
    assert_nothing_left(scratch)


def test_waiting_for_a_turn_costs_a_worker_nothing() -> None:
    began = time.monotonic()
    with Worker(task_for(fakes.STEADY), python=PYTHON, device="cpu", time_limit_s=60) as worker:
        worker.wait_for(Built)
        time.sleep(1.0)
        outcome = worker.finish()
    assert outcome.status == "ok", outcome
    assert 0.1 < outcome.wall_s < time.monotonic() - began - 0.9


def test_a_worker_with_much_to_say_ends_at_its_limit_too(scratch: Path, clock: LeapingClock) -> None:
    """Events that never stop coming must not keep the clock from being read."""
    heard = 0

    def leap(event: Event) -> None:
        nonlocal heard
        heard += isinstance(event, Evaluated)
        if heard == 20:
            clock.leap()
        assert heard < 5000, "a pipe holds fewer events: it goes on although its time is over"

    talks = task_for(fakes.QUICK, epochs=1e5, limit=100, windows=0)
    outcome = run_worker(talks, python=PYTHON, device="cpu", time_limit_s=60, on_event=leap)
    assert outcome.status == "timeout"
    assert heard >= 20
    assert_nothing_left(scratch)


def test_output_of_megabytes_neither_blocks_nor_counts_as_events() -> None:
    outcome = outcome_of("fakes:Loud")
    assert outcome.status == "ok", outcome
    assert sum(isinstance(event, Done) for event in outcome.events) == 1


def test_a_temporary_file_left_behind_goes_with_the_worker(scratch: Path) -> None:
    outcome = outcome_of("fakes:Litters")
    facts = facts_of(outcome)
    assert not Path(str(facts["left"])).exists()
    assert_nothing_left(scratch)


def test_a_helper_left_behind_is_killed_and_does_not_delay(scratch: Path) -> None:
    outcome = outcome_of("fakes:Clings")
    assert outcome.status == "ok", outcome
    assert outcome.wall_s < HUNG_S / 2  # the helper would hold the pipe for 600
    facts = facts_of(outcome)
    helper = facts["helper"]
    assert isinstance(helper, int)
    assert helper > 0
    assert_gone(helper)
    assert_nothing_left(scratch)


def test_a_worker_that_cannot_end_is_done_all_the_same(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_EXIT_S", 0.5)
    outcome = outcome_of("fakes:Lingers")
    assert outcome.status == "ok", outcome
    assert outcome.wall_s < HUNG_S / 2
    assert_nothing_left(scratch)


def test_an_interrupt_kills_the_worker(scratch: Path) -> None:
    started = time.monotonic()

    def interrupt(event: Event) -> None:
        raise KeyboardInterrupt

    hanging = task_for(fakes.HANGS)
    with pytest.raises(KeyboardInterrupt):
        run_worker(hanging, python=PYTHON, device="cpu", time_limit_s=60, on_event=interrupt)
    assert time.monotonic() - started < HUNG_S / 2
    assert_nothing_left(scratch)


def test_an_interrupt_kills_the_helpers_of_the_worker(scratch: Path) -> None:
    helpers: list[int] = []

    def interrupt(event: Event) -> None:
        if isinstance(event, FirstStep):
            worker = psutil.Process().children()[0]
            helpers.extend(child.pid for child in worker.children())
            raise KeyboardInterrupt

    clinging = task_for(fakes.info("clings", "fakes:Clings"))
    with pytest.raises(KeyboardInterrupt):
        run_worker(clinging, python=PYTHON, device="cpu", time_limit_s=60, on_event=interrupt)
    assert len(helpers) == 1
    assert_gone(helpers[0])
    assert_nothing_left(scratch)


def test_a_program_that_is_no_worker_is_a_crash(tmp_path: Path, scratch: Path) -> None:
    stub = fakes.program(tmp_path / "python", ["echo I am no Python >&2", "exit 3"])
    outcome = run_worker(task_for(fakes.STEADY), python=stub, device="cpu", time_limit_s=30)
    assert outcome.status == "crashed"
    assert outcome.error == "the process ended with status 3 and without a message: I am no Python"
    assert_nothing_left(scratch)


@pytest.mark.parametrize("file", ["bench.py", "bench/__init__.py", None])
def test_an_interpreter_without_this_program_is_a_crash_with_what_to_do(
    file: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = PYTHON
    if file is None:
        said = "/opt/python: Error while finding module specification for 'bench.worker' (No module 'bench')"
        python = fakes.program(tmp_path / "python", [f'echo "{said}" >&2', "exit 1"])
    else:
        (tmp_path / "first" / file).parent.mkdir(parents=True)
        (tmp_path / "first" / file).touch()
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "first"))
    outcome = run_worker(task_for(fakes.STEADY), python=python, device="cpu", time_limit_s=30)
    assert outcome.status == "crashed"
    assert outcome.error is not None
    assert "Install samework into the environment of this interpreter." in outcome.error
    assert "another package 'bench' hides it" in outcome.error


def test_the_environment_is_what_was_allowed_and_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMEWORK_SECRET", "s3cret")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TORCH_LOGS", "all")
    monkeypatch.setenv("TORCH_TOKEN", "s3cret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    outcome = outcome_of(
        "fakes:Tells", environment={"FAKE_CACHE": "{scratch}/cache"}, cpu_environment={"FAKE_ON_CPU": "yes"}
    )
    facts = facts_of(outcome)
    assert facts["SAMEWORK_SECRET"] is None
    assert facts["OMP_NUM_THREADS"] == "1"
    assert (facts["TORCH_LOGS"], facts["TORCH_TOKEN"]) == ("all", None)
    assert facts["CUDA_VISIBLE_DEVICES"] == ""
    assert facts["FAKE_ON_CPU"] == "yes"
    cache = Path(str(facts["FAKE_CACHE"]))
    assert cache.name == "cache"
    assert str(cache).startswith(tempfile.gettempdir())
    assert not cache.parent.exists()
    assert facts["group"] != os.getpgrp()  # so that Ctrl-C reaches the harness alone


def test_every_worker_has_a_scratch_folder_of_its_own() -> None:
    backend = fakes.info("fake", "fakes:Tells", environment={"FAKE_CACHE": "{scratch}"})
    assert len({facts_of(measure(task_for(backend)))["FAKE_CACHE"] for _ in range(2)}) == 2


def test_a_gpu_job_sees_one_gpu_and_not_what_is_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    monkeypatch.setattr(selection, "nvidia_driver_present", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    selection.choose_device("gpu", 1)
    backend: BackendInfo = fakes.info("fake", "fakes:Tells", cpu_environment={"FAKE_ON_CPU": "yes"})
    facts = facts_of(run_worker(task_for(backend), python=PYTHON, device="gpu", time_limit_s=60))
    assert facts["CUDA_VISIBLE_DEVICES"] == driver.uuids[0]
    assert facts["FAKE_ON_CPU"] is None


@pytest.mark.parametrize("name", ["json", "numpy", "bench", "backends", "typing"])
def test_neither_a_worker_nor_its_children_import_from_the_current_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{name}.py").write_text("raise SystemExit('hidden')\n")
    monkeypatch.chdir(tmp_path)
    facts = facts_of(measure(task_for(fakes.info("fake", "fakes:AsksAChild"))))
    assert facts["child"] == "0"


def test_a_worker_that_measures_has_the_padding_of_its_job() -> None:
    task = task_for(fakes.info("fake", "fakes:Tells"), windows=0, epochs=0.0)
    specs = [msgspec.structs.replace(task.spec, hash_seed=seed) for seed in (1, 2)]
    jobs = [BlockJob(task=msgspec.structs.replace(task, spec=spec), python=PYTHON) for spec in specs]
    told = [facts_of(outcome)["padding"] for outcome in run_block(jobs, together=True).outcomes]
    assert told == [padding(1), padding(2)]
    assert told[0] != told[1]
