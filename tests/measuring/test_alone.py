"""Jobs that cannot share a GPU run one after another, and what they measure is not taken for turns."""

import io
import sys
from collections.abc import Sequence
from pathlib import Path

import fakes
import msgspec
import psutil
import pytest
from fakes import python_path
from played import QuietWatch, play, undisturbed
from played_nvml import Nvml
from rich.console import Console

from backends.info import BackendInfo
from bench.measuring import block
from bench.measuring.alone import run_alone
from bench.measuring.block import BlockJob, BlockOutcome
from bench.measuring.block_runner import ALONE, BlockRunner, MeasuredBlock, Seat
from bench.measuring.process import Outcome
from bench.progress import make_display
from bench.worker.protocol import Done, Event, Started, Timed

pytestmark = pytest.mark.measures

Heard = list[tuple[int, Event]]
PYTHON = Path(sys.executable)


def jobs_of(infos: Sequence[BackendInfo], *, windows: int = 5) -> list[BlockJob]:
    return [BlockJob(task=fakes.task_for(info, windows=windows), python=PYTHON) for info in infos]


def run(jobs: Sequence[BlockJob]) -> tuple[BlockOutcome, Heard]:
    heard: Heard = []
    return run_alone(jobs, on_event=lambda place, event: heard.append((place, event))), heard


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch)
    monkeypatch.setattr(block, "Watch", QuietWatch)


def windows_of(outcome: Outcome) -> list[int]:
    return [event.window.steps for event in outcome.events if isinstance(event, Timed)]


@pytest.mark.usefixtures("played")
def test_each_job_ends_before_the_next_one_starts() -> None:
    outcome, heard = run(jobs_of([fakes.STEADY, fakes.QUICK, fakes.info("third", "fakes:Steady")]))
    assert {one.status for one in outcome.outcomes} == {"ok"}
    places = [place for place, _ in heard]
    assert places == sorted(places)
    assert set(places) == {0, 1, 2}
    assert not outcome.in_turns
    taken = [len(windows_of(one)) for one in outcome.outcomes]
    assert min(taken) >= 5
    assert outcome.rounds == sum(taken) == len(outcome.conditions.round_steal)
    assert len(outcome.conditions.canary_s) == outcome.rounds + 3


def test_no_two_processes_are_alive_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", python_path())
    undisturbed(monkeypatch)
    alive = []

    def note(_: int, event: Event) -> None:
        if isinstance(event, Started | Timed | Done):
            alive.append(len(psutil.Process().children()))

    outcome = run_alone(jobs_of([fakes.STEADY, fakes.QUICK]), on_event=note)
    assert [one.status for one in outcome.outcomes] == ["ok", "ok"]
    assert len(alive) == 14
    assert set(alive) == {1}


@pytest.mark.usefixtures("played")
def test_jobs_of_one_cell_have_windows_of_one_length() -> None:
    """As in turns: windows of different lengths have different rates."""
    slow, quick = jobs_of([fakes.info("same", f"fakes:{target}") for target in ("Steady", "Quick")])
    outcome, _ = run([slow, quick])
    steps = {count for one in outcome.outcomes for count in windows_of(one)}
    assert len(steps) == 1
    known = [msgspec.structs.replace(job, window_steps=7) for job in (slow, quick)]
    assert {count for one in run(known)[0].outcomes for count in windows_of(one)} == {7}


@pytest.mark.usefixtures("played")
def test_a_job_that_fails_leaves_the_others_theirs() -> None:
    outcome, _ = run(jobs_of([fakes.info("bad", "fakes:NotHere"), fakes.STEADY]))
    assert [one.status for one in outcome.outcomes] == ["unavailable", "ok"]
    assert outcome.rounds == len(windows_of(outcome.outcomes[1])) >= 5


@pytest.mark.usefixtures("played")
def test_a_drift_is_not_excused_by_another_job() -> None:
    """In turns, two jobs that drift alike show a change of the machine. Alone, each is a drift of the job."""
    drifts = fakes.info("drifter", "fakes:Drifts")
    outcome, _ = run(jobs_of([drifts, drifts], windows=15))
    assert [one.status for one in outcome.outcomes] == ["no_steady_state"] * 2


# ---- where it is decided


def seats(device: str) -> list[Seat]:
    info = fakes.info("graphic", f"fakes:{'OnGpu' if device == 'gpu' else 'Steady'}")
    task = fakes.task_for(info, windows=5)
    cell = msgspec.structs.replace(task.spec.cell, device=device)
    spec = msgspec.structs.replace(task.spec, cell=cell)
    return [Seat(task=msgspec.structs.replace(task, spec=spec), python=PYTHON)] * 2


def measured(device: str, *, times: int = 1) -> tuple[MeasuredBlock, str]:
    out = io.StringIO()
    with make_display(Console(file=out, width=400)) as display, BlockRunner(display, {}) as runner:
        blocks = [runner.run(seats(device)) for _ in range(times)]
    return blocks[-1], out.getvalue()


@pytest.mark.usefixtures("played")
@pytest.mark.parametrize(
    ("device", "mode", "alone"),
    [("gpu", 3, True), ("gpu", 1, True), ("gpu", 0, False), ("cpu", 3, False)],
)
def test_the_compute_mode_of_the_gpu_decides(
    device: str, mode: int, alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Nvml()
    driver.mode = mode
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found, said = measured(device, times=2)
    assert [record.status for record in found.records] == ["ok", "ok"], found.records
    assert found.in_turns is not alone
    assert said.count(ALONE) == int(alone), "it is said once"
