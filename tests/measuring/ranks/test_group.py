"""The end of one rank is the end of the job: the record names it, and nothing of any rank is left."""

import math
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import fakes
import msgspec
import psutil
import pytest
import ranked
from conftest import draws

from bench.measuring.link import Launch, Link
from bench.measuring.parity import write_reference
from bench.measuring.process import Outcome
from bench.measuring.ranks import group as group_module
from bench.measuring.ranks.group import Group
from bench.measuring.ranks.slots import LocalSlot, local_slots
from bench.measuring.traces import Traces
from bench.worker.protocol import (
    Begin,
    Built,
    Described,
    Event,
    Failed,
    Finish,
    FirstStep,
    Imported,
    MeasureTask,
    Memory,
    ParityCase,
    Proven,
    Ready,
    Started,
    Timed,
    Turn,
    Verified,
    VerifyTask,
    WarmedUp,
)  # fmt: skip

pytestmark = pytest.mark.measures

PYTHON = Path(sys.executable)
HUNG_S = 600.0
PHASES = (Started, Imported, Built, FirstStep, Proven, WarmedUp, Timed, Described)
"""The event after which a rank is killed: it is then in the phase that follows."""


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Let workers find the backends, and see that no test leaves a process or a file behind."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("PYTHONPATH", fakes.python_path())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    yield folder
    assert list(folder.iterdir()) == []
    assert psutil.Process().children(recursive=True) == []


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the reference of the timed program."""
    return str(Traces(tmp_path_factory.mktemp("trace"), fakes.Screen()).path(task_of("Together"), 1))


def task_of(kind: str, *, epochs: float = 0.0, mode: str = "together", ranks: int = 2) -> MeasureTask:
    task = fakes.task_for(ranked.info(kind), epochs=epochs, windows=2)
    cell = msgspec.structs.replace(task.spec.cell, mode=mode, ranks=ranks)
    return msgspec.structs.replace(task, spec=msgspec.structs.replace(task.spec, cell=cell, window_s=0.01))


def group_of(
    task: MeasureTask | VerifyTask,
    ranks: int = 2,
    *,
    on_event: Callable[[Event], None] = lambda _: None,
    limit_s: float = 120.0,
    deadline: float = math.inf,
    slots: Sequence[LocalSlot] | None = None,
) -> Group:
    return Group(
        task,
        slots=slots or local_slots("cpu", ranks, shared=True),
        python=PYTHON,
        device="cpu",
        time_limit_s=limit_s,
        deadline=deadline,
        on_event=on_event,
    )


def measured(group: Group, proof: str | None = None) -> Outcome:
    """Take a job through all of its phases."""
    with group:
        group.wait_for(Built)
        group.ask(Begin(proof=proof))
        group.wait_for(Ready)
        group.ask(Turn(steps=5))
        group.wait_for(Timed)
        group.ask(Finish())
        return group.finish()


def last(outcome: Outcome, kind: type[Event]) -> Event:
    return next(event for event in reversed(outcome.events) if isinstance(event, kind))


def test_ranks_that_work_in_step_are_one_job(trace: str) -> None:
    heard: list[Event] = []
    outcome = measured(group_of(task_of("Together"), on_event=heard.append), trace)
    assert (outcome.status, outcome.error, outcome.stderr_tail) == ("ok", None, ()), outcome
    assert tuple(heard) == outcome.events
    assert isinstance(heard[0], Started)
    proofs = [event.proof for event in heard if isinstance(event, Proven)]
    assert [proof.after_windows for proof in proofs] == [False, True]
    assert all(check.ok for proof in proofs for check in proof.checks)
    first, second = outcome.ranks
    assert (first.rank, second.rank, first.status, second.status) == (0, 1, "ok", "ok")
    assert first.digest == second.digest is not None
    memory = last(outcome, Memory)
    assert isinstance(memory, Memory)
    assert memory.peak_rss_bytes == (first.peak_rss_bytes or 0) + (second.peak_rss_bytes or 0)
    assert 0 < (outcome.start_s or 0) < outcome.wall_s


@pytest.mark.parametrize("ranks", [1, 4])
def test_a_job_has_as_many_ranks_as_slots(ranks: int, trace: str) -> None:
    outcome = measured(group_of(task_of("Together", ranks=ranks), ranks), trace)
    assert outcome.status == "ok", outcome
    assert len(outcome.ranks) == ranks


def test_every_rank_is_pinned_to_the_core_of_its_slot_and_has_one_thread() -> None:
    (cpu, *_) = sorted(os.sched_getaffinity(0))
    slots = local_slots("cpu", 1, [cpu])
    for mode in ("together", "plain"):
        outcome = measured(group_of(task_of("Together", mode=mode, ranks=1), slots=slots))
        described = last(outcome, Described)
        assert isinstance(described, Described)
        assert (described.facts["cpus"], described.facts["threads"]) == (str(cpu), "1")
        assert [record.device for record in outcome.ranks] == [f"CPU {cpu}"]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.__name__)
def test_a_rank_that_is_killed_in_any_phase_is_the_one_that_is_named(
    phase: type[Event], rank: int, trace: str
) -> None:
    began = time.monotonic()

    def kill(event: Event) -> None:
        if isinstance(event, phase):
            os.kill(group.pids[rank], signal.SIGKILL)

    group = group_of(task_of("Together", epochs=1.0), on_event=kill)
    outcome = measured(group, trace if phase is Proven else None)
    assert outcome.status == "crashed", outcome
    assert outcome.exit_signal == "SIGKILL"
    expected = f"rank {rank} of 2: crashed: the process was ended by SIGKILL"
    assert outcome.error is not None
    assert outcome.error.startswith(expected)
    assert outcome.ranks[rank].status == "crashed"
    # The other was ended, or had begun to end by itself when it lost the first.
    assert outcome.ranks[1 - rank].status in ("failed", "crashed")
    assert phase in {type(event) for event in outcome.events}, "what was measured before is kept"
    assert time.monotonic() - began < HUNG_S / 2


def test_the_others_are_killed_as_soon_as_one_is_lost_and_not_only_at_the_end() -> None:
    def kill(event: Event) -> None:
        if isinstance(event, FirstStep):
            os.kill(group.pids[1], signal.SIGKILL)

    group = group_of(task_of("Together"), on_event=kill)
    with group:
        group.wait_for(Built)
        group.ask(Begin())
        assert group.wait_for(Ready) is None
        assert group.over
        assert psutil.Process().children() == []


def test_nobody_is_heard_when_a_rank_was_killed_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other rank is still waiting for it to come, and notices nothing."""
    monkeypatch.setattr(group_module, "GRACE_S", HUNG_S)

    def kill(event: Event) -> None:
        if isinstance(event, Started):
            os.kill(group.pids[1], signal.SIGKILL)

    group = group_of(task_of("Together"), on_event=kill, limit_s=HUNG_S / 2)
    outcome = measured(group)
    assert outcome.exit_signal == "SIGKILL", outcome
    assert outcome.wall_s < HUNG_S / 2


@pytest.mark.parametrize(
    ("kind", "status", "said"),
    [
        ("RaisesInRank", "failed", "rank 1 of 2: failed: ValueError: no such shape"),
        ("LosesQuietly", "failed", "rank 1 of 2: failed: ValueError: no such shape"),
        ("OutOfMemoryInRank", "out_of_memory", "rank 1 of 2: out of memory: "),
        ("ExitsInRank", "crashed", "rank 1 of 2: crashed: the process ended with status 7 and without"),
        ("GarblesInRank", "failed", "rank 1 of 2: failed: it sent a line that is not an event"),
        ("DriftsApart", "not_comparable", "rank 1 of 2: not comparable: its parameters differ from those of"),
    ],
)
def test_a_rank_that_misbehaves_is_named_for_what_it_did(kind: str, status: str, said: str) -> None:
    outcome = measured(group_of(task_of(kind)))
    assert outcome.status == status, outcome
    assert outcome.error is not None
    assert outcome.error.startswith(said)
    assert isinstance(outcome.events[-1], Failed)
    assert outcome.ranks[1].status == status
    assert outcome.ranks[0].status in ("failed", "crashed")
    if kind in ("RaisesInRank", "ExitsInRank"):
        assert any("rank 1 is about to" in line for line in outcome.stderr_tail), "its last words"


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("Together", "the process is stopped, as SIGSTOP does"),
        ("SpinsInRank", "it computes while the others wait"),
    ],
)
def test_a_rank_that_hangs_is_named_when_the_time_is_up(kind: str, why: str) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, Built) and kind == "Together":
            os.kill(group.pids[1], signal.SIGSTOP)

    group = group_of(task_of(kind), on_event=stop, limit_s=4.0)
    outcome = measured(group)
    assert outcome.status == "timeout", outcome
    assert outcome.error is not None
    assert outcome.error.startswith("rank 1 of 2: timed out: it was stopped at its limit of 4 s")
    assert outcome.error.endswith(why)
    assert outcome.wall_s < HUNG_S / 2


def test_when_all_time_is_spent_no_rank_is_to_blame() -> None:
    def stop(event: Event) -> None:
        if isinstance(event, Built):
            os.kill(group.pids[1], signal.SIGSTOP)

    group = group_of(task_of("Together"), on_event=stop, limit_s=500.0, deadline=time.monotonic() + 4.0)
    outcome = measured(group)
    assert outcome.status == "timeout", outcome
    assert outcome.error == "it was stopped at its limit of 500 s, or when all time was spent"
    assert [record.status for record in outcome.ranks] == ["timeout", "timeout"]


def test_where_it_cannot_be_told_which_rank_hangs_their_stacks_are_printed() -> None:
    outcome = measured(group_of(task_of("SleepsInRank"), limit_s=4.0))
    assert outcome.status == "timeout", outcome
    assert outcome.error is not None
    assert outcome.error.endswith("which rank hangs cannot be told")
    assert any("in gather" in line for line in outcome.stderr_tail), outcome.stderr_tail


@pytest.mark.parametrize(("taken", "status"), [(2, "ok"), (3, "failed")])
def test_a_port_that_is_taken_is_another_port_three_times_at_most(
    taken: int, status: str, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text(str(taken))
    outcome = measured(group_of(task_of("PortTaken")))
    assert outcome.status == status, outcome
    assert (tmp_path / "tries").read_text() == "3"
    if status == "failed":
        assert outcome.error is not None
        assert "already in use" in outcome.error


def test_an_interrupt_leaves_no_rank_running() -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, WarmedUp):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measured(group_of(task_of("Together"), on_event=interrupt))


class _NoFurther(LocalSlot, frozen=True, kw_only=True):
    def start(self, launch: Launch) -> Link:
        raise OSError("no more processes")


def test_a_rank_that_cannot_be_started_leaves_no_other_running() -> None:
    first, second = local_slots("cpu", 2, shared=True)
    slots = (first, _NoFurther(host=second.host, cpus=second.cpus))
    with pytest.raises(OSError, match="no more processes"), group_of(task_of("Together"), slots=slots):
        pass


@pytest.mark.parametrize("kind", ["Together", "RaisesInRank"])
def test_ranks_prove_a_case_together(kind: str, tmp_path: Path) -> None:
    task = task_of(kind)
    cell, workload = task.spec.cell, task.spec.workload
    path = write_reference(workload, tmp_path / "trace.npz")
    case = ParityCase(cell=cell, workload=workload, trace=str(path))
    with group_of(VerifyTask(backend=task.backend, cases=(case, case))) as group:
        outcome = group.finish()
    verified = [event for event in outcome.events if isinstance(event, Verified)]
    if kind == "Together":
        assert outcome.status == "ok", outcome
        assert len(verified) == 2
        assert all(check.ok for event in verified for check in event.checks)
    else:
        assert verified == []
        assert outcome.error == "rank 1 of 2: failed: ValueError: no such shape"


@pytest.mark.parametrize("seed", range(2))
def test_kills_of_any_rank_at_any_time_lose_one_job_each_and_leave_nothing(seed: int) -> None:
    """Fifty jobs every night: each is killed at a random moment, and the one after them is unharmed."""
    chance = random.Random(seed)  # noqa: S311
    for number in range(draws(25, 4)):
        ranks = chance.choice([2, 2, 3])
        victim, event, delay_s = chance.randrange(ranks), chance.randrange(25), chance.uniform(0.0, 0.03)
        outcome = _killed(ranks, victim, event, delay_s)
        assert outcome.status == "crashed", (number, outcome)
        assert outcome.error is not None
        assert outcome.error.startswith(
            f"rank {victim} of {ranks}: crashed: the process was ended by SIGKILL"
        )
    assert measured(group_of(task_of("Together"))).status == "ok"


def _killed(ranks: int, victim: int, event: int, delay_s: float) -> Outcome:
    """Kill a rank so many seconds after an event of its job, counted from 0; the job would go on for long."""
    heard = 0

    def kill(_: Event) -> None:
        nonlocal heard
        heard += 1
        if heard == event + 1:
            threading.Timer(delay_s, os.kill, [group.pids[victim], signal.SIGKILL]).start()

    task = task_of("Together", epochs=1e5, ranks=ranks)
    workload = msgspec.structs.replace(task.spec.workload, batch_size=96)  # which 2 and 3 divide
    spec = msgspec.structs.replace(task.spec, workload=workload)
    group = group_of(msgspec.structs.replace(task, spec=spec), ranks, on_event=kill)
    return measured(group)
