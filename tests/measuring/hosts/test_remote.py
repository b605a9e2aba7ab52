"""A worker that another rank starts is heard, commanded, named and ended as one of this host is."""

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import fakes
import msgspec
import psutil
import pytest
import ranked
from fakes import task_for
from launched_ranks import MakeRanks, Ranks, all_gone, listening_at, make_ranks

from backends.info import BackendInfo
from bench.errors import UnavailableError
from bench.measuring.hosts.identity import data_of
from bench.measuring.hosts.remote import Followers, HostLostError
from bench.measuring.link import LOST_STATUS
from bench.measuring.parity import write_reference
from bench.measuring.process import Outcome, launch_of, run_worker
from bench.measuring.ranks.group import Group
from bench.parity.reference import gentle
from bench.paths import to_text
from bench.worker.protocol import (
    AnyCommand,
    Begin,
    Built,
    DataSource,
    Evaluated,
    Event,
    Finish,
    FirstStep,
    MeasureTask,
    ParityCase,
    Ready,
    Verified,
    VerifyTask,
    WarmedUp,
)  # fmt: skip

pytestmark = pytest.mark.measures

PYTHON = Path(sys.executable)


@pytest.fixture
def ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeRanks]:
    yield from make_ranks(tmp_path, monkeypatch)


def task_of(kind: str, ranks: int) -> MeasureTask:
    """Return a small job of ranks that train together."""
    task = task_for(ranked.info(kind, kind.lower()), epochs=0.0, windows=2)
    cell = msgspec.structs.replace(task.spec.cell, mode="together", ranks=ranks)
    return msgspec.structs.replace(task, spec=msgspec.structs.replace(task.spec, cell=cell, window_s=0.01))


def group_of(followers: Followers, kind: str = "Together") -> Group:
    """Return a job of all ranks."""
    count = len(followers.ranks)
    return Group(
        task_of(kind, count), slots=followers.slots(count, shared=True), python=PYTHON, device="cpu",
        time_limit_s=200,
    )  # fmt: skip


def trained(group: Group, *commands: AnyCommand) -> Outcome:
    with group:
        for command in commands or (Begin(), Finish()):
            group.ask(command)
        return group.finish()


def only_there(followers: Followers, backend: BackendInfo, limit_s: float = 200.0) -> Group:
    """Return a job whose single rank is on another host."""
    slots = followers.slots(len(followers.ranks), shared=True)[1:2]
    return Group(task_for(backend), slots=slots, python=PYTHON, device="cpu", time_limit_s=limit_s)


def kinds(outcome: Outcome) -> list[type[Event]]:
    """Return what a worker has reported; how often it warms up depends on the machine."""
    return [type(event) for event in outcome.events if not isinstance(event, WarmedUp)]


def test_a_remote_worker_does_what_a_local_one_does(ranks: MakeRanks) -> None:
    job = ranks(2)
    job.start(1)
    with job.gather() as followers:
        there = trained(only_there(followers, fakes.STEADY))
    here = run_worker(task_for(fakes.STEADY), python=PYTHON, device="cpu", time_limit_s=200)
    assert (there.status, there.error) == ("ok", None), there
    assert kinds(there) == kinds(here)
    points = [
        [event.point.test_accuracy for event in one.events if isinstance(event, Evaluated)]
        for one in (here, there)
    ]
    assert points[0] == points[1] != []
    assert job.ended(1)[0] == 0


def test_ranks_here_and_there_are_one_job(ranks: MakeRanks, tmp_path: Path) -> None:
    job = ranks(4)
    for rank in (2, 3, 1):
        job.start(rank)
    with job.gather() as followers:
        outcome = trained(group_of(followers))
        again = trained(group_of(followers))
    assert outcome.status == again.status == "ok", (outcome, again)
    assert [record.rank for record in outcome.ranks] == [0, 1, 2, 3]
    assert {record.status for record in outcome.ranks} == {"ok"}
    assert len({record.digest for record in outcome.ranks}) == 1
    assert [job.ended(rank)[0] for rank in (1, 2, 3)] == [0, 0, 0]
    assert list((tmp_path / "scratch").iterdir()) == []


def test_traces_are_sent_to_other_hosts(ranks: MakeRanks, tmp_path: Path) -> None:
    """Rank 1 has a trace of that name too, which it must not take."""
    job = ranks(2)
    job.start(1)
    spec = task_for(fakes.STEADY).spec
    workload = gentle(spec.workload)
    trace = write_reference(workload, tmp_path / "trace.npz")
    case = ParityCase(cell=spec.cell, workload=workload, trace=to_text(trace))
    with job.gather() as followers:
        one = followers.slots(2, shared=True)[1]
        for passes in (True, False):
            task = VerifyTask(backend=fakes.STEADY, cases=(case,))
            with Group(task, slots=(one,), python=PYTHON, device="cpu", time_limit_s=200) as group:
                trace.rename(trace.with_suffix(".away"))  # what the worker reads is a copy
                outcome = group.finish()
            trace.with_suffix(".away").rename(trace)
            found = [event for event in outcome.events if isinstance(event, Verified)]
            assert [event.status for event in found] == (["ok"] if passes else []), outcome
            trace.write_bytes(b"no trace")  # changed, so it is sent again
    assert "trace" in str(outcome.error) or outcome.status == "failed"


@pytest.mark.parametrize(
    ("backend", "status", "said"),
    [(fakes.EXITS, "crashed", "ended with status 7"), (fakes.RAISES, "failed", "not aligned")],
)
def test_the_failure_of_a_remote_worker_is_named_with_its_last_words(
    ranks: MakeRanks, backend: BackendInfo, status: str, said: str
) -> None:
    job = ranks(2)
    job.start(1)
    with job.gather() as followers:
        outcome = trained(only_there(followers, backend))
        after = trained(only_there(followers, fakes.STEADY))
    assert outcome.status == status
    assert said in str(outcome.error)
    if backend is fakes.EXITS:
        assert "about to exit" in outcome.stderr_tail[-1]
    assert after.status == "ok"


def test_a_remote_worker_that_hangs_is_ended(ranks: MakeRanks) -> None:
    job = ranks(2)
    job.start(1)
    with job.gather() as followers:
        group = only_there(followers, fakes.HANGS, limit_s=15)
        outcome = trained(group)
        assert outcome.status == "timeout"
        assert all_gone(job.workers_of(1))


def begun(group: Group) -> None:
    """Wait until all ranks have taken their first step."""
    assert group.wait_for(Built) is not None
    group.ask(Begin())
    assert group.wait_for(FirstStep) is not None
    assert group.wait_for(Ready) is not None


def test_a_killed_follower_ends_the_job_on_all_ranks(ranks: MakeRanks) -> None:
    job = ranks(4)
    for rank in (1, 2, 3):
        job.start(rank)
    with pytest.raises(UnavailableError, match=r"rank 2 on .* was lost"):
        train_until_one_is_killed(job)
    for rank in (1, 3):
        status, said = job.ended(rank)
        assert status == 3
        assert "rank 0 has ended the run: rank 2 on" in said


def train_until_one_is_killed(job: Ranks) -> None:
    with job.gather() as followers:
        with group_of(followers) as group:
            begun(group)
            workers = [one for rank in (1, 2, 3) for one in job.workers_of(rank)]
            workers += map(psutil.Process, group.pids)
            assert len(workers) == 4
            job.kill(2)
            outcome = group.finish()
        assert outcome.status == "crashed"
        assert "rank 2 of 4: crashed: rank 2 on" in str(outcome.error)
        assert all_gone(workers)
        with pytest.raises(HostLostError, match="rank 2 on"):
            followers.slots(4, shared=True)[1].address()  # rank 1 is there, but has lost a rank too
        trained(group_of(followers))


def test_the_rank_that_failed_is_named(ranks: MakeRanks) -> None:
    job = ranks(4)
    for rank in (1, 2, 3):
        job.start(rank)
    with job.gather() as followers:
        outcome = trained(group_of(followers, "RaisesInRank"))
    assert outcome.status == "failed"
    assert str(outcome.error).startswith("rank 1 of 4: failed: ")
    assert "no such shape" in str(outcome.error)


def test_a_killed_worker_of_another_host_is_named_by_its_signal(ranks: MakeRanks) -> None:
    job = ranks(2)
    job.start(1)
    with job.gather() as followers:
        with group_of(followers) as group:
            begun(group)
            (worker,) = job.workers_of(1)
            worker.send_signal(signal.SIGKILL)
            outcome = group.finish()
        assert "rank 1 of 2: crashed: the process was ended by SIGKILL" in str(outcome.error)
        assert trained(group_of(followers)).status == "ok"


def test_a_follower_that_loses_rank_0_ends_its_worker_and_itself(ranks: MakeRanks) -> None:
    job = ranks(2)
    job.start(1)
    followers = job.gather()
    with group_of(followers) as group:
        begun(group)
        workers = job.workers_of(1)
        assert len(workers) == 1
        followers._channels[1].close()  # as the end of this process would
        status, said = job.ended(1)
        assert status == 3
        assert "has lost rank 0" in said
        assert all_gone(workers)
        outcome = group.finish()
    assert outcome.status == "crashed"
    followers.dismiss(None)


def test_what_a_rank_cannot_start_is_said_with_its_host(ranks: MakeRanks) -> None:
    job = ranks(2)
    job.start(1)
    with job.gather() as followers:
        one = followers.slots(2, shared=True)[1]
        foreign = msgspec.structs.replace(fakes.STEADY, environment={"LD_PRELOAD": "other.so"})
        with pytest.raises(UnavailableError, match=r"rank 1 on .*: backend 'steady' is not the same here"):
            one.start(launch_of(task_for(foreign), python=PYTHON, device="cpu"))
        assert trained(only_there(followers, fakes.STEADY)).status == "ok"


def test_a_link_of_a_lost_host_never_raises(ranks: MakeRanks) -> None:
    job = ranks(2)
    job.start(1)
    followers = job.gather()
    link = followers.slots(2, shared=True)[1].start(
        launch_of(task_for(fakes.STEADY), python=PYTHON, device="cpu")
    )
    job.kill(1)
    job.processes[1].wait()
    while link.read():
        pass
    link.send(msgspec.json.encode(Begin()))
    link.hang_up()
    assert link.poll() == LOST_STATUS
    link.end()
    assert "rank 1 on" in link.tail()[-1]
    link.close()
    link.close()
    followers.dismiss(None)


def test_the_data_of_all_ranks_are_compared(ranks: MakeRanks) -> None:
    sources = (DataSource(name="mnist", cache=None, limit=None),)
    job = ranks(2)
    job.start(1)
    with job.gather() as followers:
        followers.prepare(sources, data_of(sources), job.display)
    assert job.ended(1)[0] == 0
    other = ranks(2)
    other.start(1, data={"mnist": "0123"})
    with (
        pytest.raises(UnavailableError, match=r"data set mnist: rank 1 on .* has 0123, and rank 0 on"),
        other.gather() as followers,
    ):
        followers.prepare(sources, data_of(sources), other.display)
    assert other.ended(1)[0] == 3


def test_a_port_in_use_is_another_port(ranks: MakeRanks) -> None:
    """The program at the first port answers nobody."""
    job = ranks(2)
    with listening_at(job.port):
        job.start(1)
        began = time.monotonic()
        with job.gather() as followers:
            assert trained(only_there(followers, fakes.STEADY)).status == "ok"
    assert job.ended(1)[0] == 0
    assert time.monotonic() - began < 300
