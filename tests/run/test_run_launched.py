"""A run whose ranks a launcher has started, each as a process of its own, with stand-ins for the launchers.

The stand-ins set the variables of the launchers and start the processes on this machine.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fakes
import psutil
import pytest
import yaml

from bench.records.runs import RECORDS, Run, read_run
from bench.records.schema import JobRecord

pytestmark = [pytest.mark.measures, pytest.mark.long]

EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "launch"
LATE_S = 250.0
BENCH = """
import msgspec
import pytest
from bench.cli.main import main
from bench.run import plan
from fakes import TINY
from played import undisturbed
plan.PRESETS = {"quick": msgspec.structs.replace(TINY, min_blocks=1, fewest_to_stop=1, seeds=0)}
undisturbed(pytest.MonkeyPatch())
main()
"""
"""The command `bench`, whose runs have short blocks, and few."""
WHAT = (
    "--sample", "--workload", fakes.WORKLOAD, "--device", "cpu", "--results", "results", "--budget", "4m",
    "--backend", "ranked",
)  # fmt: skip

SRUN = """#!/bin/bash
# srun --kill-on-bad-exit=1 COMMAND: SLURM_NTASKS tasks, all on this host.
shift
export SLURM_STEP_NUM_TASKS=$SLURM_NTASKS SLURM_STEP_NUM_NODES=1 SLURM_STEP_NODELIST=$(hostname)
export SLURM_STEP_ID=0 SLURM_LAUNCH_NODE_IPADDR=192.0.2.1
for ((task = 0; task < SLURM_NTASKS; task++)); do
    SLURM_PROCID=$task SLURM_LOCALID=$task "$@" &
done
status=0
for task in $(jobs -p); do wait "$task" || status=$?; done
exit "$status"
"""


TWO_HOSTS = """
# COMMAND for each of two ranks, on hosts with a network and a name of their own and one cable between them.
hostname alpha
ip link set lo up
ip link add eth7 type veth peer name ens9
export SAMEWORK_RANKS=2 SAMEWORK_LOCAL_RANK=0 SAMEWORK_HOST=10.99.0.1 SAMEWORK_KEY=abc
unshare --net --uts bash -c '
    hostname beta
    ip link set lo up
    until ip link show ens9 >/dev/null 2>&1; do sleep 0.05; done
    ip addr add 10.99.0.2/24 dev ens9
    ip link set ens9 up
    SAMEWORK_RANK=1 exec "$@"
' beta "$@" &
beta=$!
until [ "$(readlink /proc/$beta/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.05; done
ip link set ens9 netns $beta
ip addr add 10.99.0.1/24 dev eth7
ip link set eth7 up
SAMEWORK_RANK=0 "$@"
status=$?
wait $beta && exit $status
"""
NEW_NETWORK = ("unshare", "--map-root-user", "--net", "--uts")


class Place:
    """A folder in which launchers, `bench` and the backends of ranks are found."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        site = fakes.distribution(folder / "site", {"ranked": "launched:RANKED", "slow": "launched:SLOW"})
        (folder / "launched.py").write_text(
            "import ranked\nRANKED = ranked.info()\nSLOW = ranked.info('SleepsInRank', 'slow')\n"
        )
        self.bin = folder / "bin"
        self.bin.mkdir()
        (folder / "scratch").mkdir()
        (folder / "bench.py.txt").write_text(BENCH)
        python = shlex.quote(sys.executable)
        fakes.program(self.bin / "bench", [f'exec {python} -c "$(cat {folder}/bench.py.txt)" "$@"'])
        self.variables = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SLURM_", "SAMEWORK_", "RANK", "LOCAL_RANK", "WORLD_SIZE"))
        } | {
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}", "TMPDIR": str(folder / "scratch"),
            "PYTHONPATH": fakes.python_path(site, folder), "XDG_CACHE_HOME": str(folder),
            "SAMEWORK_WAIT": str(LATE_S),
        }  # fmt: skip

    def start(self, *command: str, **variables: str) -> subprocess.Popen[str]:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell has it ignored
        return subprocess.Popen(
            command, cwd=self.folder, env=self.variables | variables, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def wait(self, process: subprocess.Popen[str]) -> str:
        """Wait for a process that ends well, and return its output."""
        said, _ = process.communicate(timeout=LATE_S)
        assert process.returncode in (0, 3), said  # 3: one block is too few to rank a row
        assert "Traceback" not in said
        return said

    @property
    def run(self) -> Run:
        (folder,) = (self.folder / "results").iterdir()
        return read_run(folder)

    def left(self) -> list[str]:
        """Return the temporary files that are left."""
        return [one.name for one in (self.folder / "scratch").iterdir() if one.name.startswith("samework")]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def ended() -> Iterator[Callable[[subprocess.Popen[str]], subprocess.Popen[str]]]:
    """Return a function that takes a process, whose whole session is killed when the test has ended."""
    taken: list[subprocess.Popen[str]] = []

    def take(process: subprocess.Popen[str]) -> subprocess.Popen[str]:
        taken.append(process)
        return process

    yield take
    for process in taken:
        for one in in_session(process.pid):
            one.kill()
        process.communicate()


def in_session(session: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session:
                found.append(process)
        except (ProcessLookupError, PermissionError):  # it has ended, or is another user's
            continue
    return found


def jobs_of(run: Run, ranks: int) -> list[JobRecord]:
    return [job for job in run.jobs if job.spec.cell.mode == "together" and job.spec.cell.ranks == ranks]


def check(run: Run, ranks: int) -> None:
    """Check that a run has rows of one rank and of all, which have trained together and agree."""
    assert run.header.ranks == (1, ranks)
    assert jobs_of(run, 1)
    assert jobs_of(run, ranks)
    for job in jobs_of(run, ranks):
        assert job.status in ("ok", "no_steady_state"), job.error
        assert [one.rank for one in job.ranks] == list(range(ranks))
        assert len({one.digest for one in job.ranks}) == 1
        assert all(one.status == "ok" for one in job.ranks)
    assert all(record.ok for record in run.parity)
    assert {record.cell.ranks for record in run.parity} == {1, ranks}


def need_cpus(ranks: int) -> None:
    """Skip a test that needs more CPUs than there are: ranks of a run never share one."""
    here = len(os.sched_getaffinity(0))
    if here < ranks:
        pytest.skip(f"{ranks} ranks that are timed need as many CPUs; there are {here}")


Ended = Callable[[subprocess.Popen[str]], subprocess.Popen[str]]


def test_the_job_script_for_slurm_makes_a_run(place: Place, ended: Ended) -> None:
    need_cpus(2)
    (place.bin / "srun").write_text(SRUN)
    (place.bin / "srun").chmod(0o755)
    script = str(EXAMPLES / "slurm.sh")
    process = ended(place.start("bash", script, *WHAT, SLURM_NTASKS="2", SLURM_JOB_ID="77", SLURM_PROCID="0"))
    said = place.wait(process)
    assert "Waiting for rank 1 at port" in said
    check(place.run, 2)
    assert place.left() == []


def test_the_task_file_for_skypilot_makes_a_run(place: Place, ended: Ended) -> None:
    need_cpus(2)
    task = yaml.safe_load((EXAMPLES / "skypilot.yaml").read_text())
    nodes = task["num_nodes"]
    command = task["run"].replace("--backend torch", " ".join(WHAT))
    assert command != task["run"]
    started = [
        ended(
            place.start(
                "bash", "-c", command, SKYPILOT_NODE_RANK=str(rank), SKYPILOT_NUM_NODES=str(nodes),
                SKYPILOT_NODE_IPS="\n".join(["127.0.0.1"] * nodes), SKYPILOT_TASK_ID="sky-1_c_1",
                SAMEWORK_KEY="abc",
            )
        )
        for rank in range(nodes)
    ]  # fmt: skip
    for process in started:
        place.wait(process)
    check(place.run, nodes)
    assert started[1].returncode == 0


def test_the_neutral_script_makes_a_run(place: Place, ended: Ended) -> None:
    need_cpus(2)
    place.wait(ended(place.start("bash", str(EXAMPLES / "neutral.sh"), "2", "bench", "run", *WHAT)))
    check(place.run, 2)


@pytest.mark.framework("torch")
def test_the_script_for_torchrun_makes_a_run(place: Place, ended: Ended) -> None:
    need_cpus(2)
    torchrun = shlex.quote(sys.executable)
    fakes.program(place.bin / "torchrun", [f'exec {torchrun} -m torch.distributed.run "$@"'])
    (place.folder / "torchrun.sh").write_text(
        (EXAMPLES / "torchrun.sh").read_text().replace("-m bench", "--no-python bench")
    )
    process = ended(place.start("bash", "torchrun.sh", "1", "0", "localhost", "2", *WHAT))
    said, _ = process.communicate(timeout=LATE_S)
    assert "rank 1 on" in said
    check(place.run, 2)


def neutral(rank: int, ranks: int) -> dict[str, str]:
    return {
        "SAMEWORK_RANK": str(rank), "SAMEWORK_RANKS": str(ranks), "SAMEWORK_LOCAL_RANK": str(rank),
        "SAMEWORK_HOST": "localhost", "SAMEWORK_JOB": str(os.getpid()),
    }  # fmt: skip


def start_ranks(
    place: Place, ended: Ended, ranks: int, *what: str, **more: str
) -> list[subprocess.Popen[str]]:
    return [
        ended(place.start("bench", *(what or ("run", *WHAT)), **neutral(rank, ranks) | more))
        for rank in range(ranks)
    ]


def test_four_ranks_are_proven_together(place: Place, ended: Ended) -> None:
    """Ranks that are not timed may share CPUs."""
    what = ("verify", "--workload", fakes.WORKLOAD, "--device", "cpu", "--backend", "ranked")
    first, *others = start_ranks(place, ended, 4, *what)
    said = place.wait(first)
    assert first.returncode == 0, said
    assert re.search(r"ranked together.* ok", said), said
    for one in others:
        place.wait(one)
        assert one.returncode == 0


def test_two_hosts_find_each_other_by_their_own_addresses(place: Place, ended: Ended) -> None:
    if missing := [tool for tool in ("unshare", "ip") if shutil.which(tool) is None]:
        pytest.skip(f"no network of its own can be made without {' and '.join(missing)}")
    probe = subprocess.run(
        [*NEW_NETWORK, "ip", "link", "add", "a0", "type", "veth", "peer", "name", "b0"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if probe.returncode:
        pytest.skip(f"no network of its own can be made here: {probe.stderr.strip()}")
    command = (*NEW_NETWORK, "bash", "-c", TWO_HOSTS, "alpha", "bench", "run", *WHAT)
    said = place.wait(ended(place.start(*command)))
    check(place.run, 2)
    assert place.run.header.hosts == ("alpha", "beta")
    assert "The cores by rank: alpha " in said
    for job in jobs_of(place.run, 2):
        assert [one.host for one in job.ranks] == ["alpha", "beta"]


def wait_for_workers(*ranks: subprocess.Popen[str]) -> list[psutil.Process]:
    """Wait until each rank has a worker, and return the workers."""
    deadline = time.monotonic() + LATE_S
    while time.monotonic() < deadline:
        found = [[one for one in children_of(rank.pid) if is_worker(one)] for rank in ranks]
        if all(found):
            return [one for workers in found for one in workers]
        time.sleep(0.05)
    raise AssertionError("no worker has come")


def children_of(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def is_worker(process: psutil.Process) -> bool:
    try:
        return "bench.worker" in process.cmdline()
    except psutil.Error:  # it has ended
        return False


def assert_gone(processes: list[psutil.Process]) -> None:
    deadline = time.monotonic() + LATE_S
    while any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in processes):
        assert time.monotonic() < deadline
        time.sleep(0.05)


SLOW = ("run", *WHAT[:-1], "slow")


def test_a_lost_follower_ends_the_run_and_what_is_finished_is_kept(place: Place, ended: Ended) -> None:
    need_cpus(2)
    first, second = start_ranks(place, ended, 2, *SLOW)
    workers = wait_for_workers(first, second)
    second.kill()
    said, _ = first.communicate(timeout=LATE_S)
    assert first.returncode == 3, said
    assert "rank 1 on" in said
    assert "was lost" in said
    assert "bench run --resume run-" in said
    assert_gone(workers)
    (folder,) = (place.folder / "results").iterdir()
    assert (folder / RECORDS).exists()


def test_a_follower_ends_when_rank_0_is_killed(place: Place, ended: Ended) -> None:
    need_cpus(2)
    first, second = start_ranks(place, ended, 2, *SLOW)
    workers = wait_for_workers(first, second)
    first.kill()
    said, _ = second.communicate(timeout=LATE_S)
    assert second.returncode == 3, said
    assert "has lost rank 0" in said
    assert_gone(workers)


def test_an_interrupted_run_dismisses_the_followers(place: Place, ended: Ended) -> None:
    need_cpus(2)
    first, second = start_ranks(place, ended, 2, *SLOW)
    workers = wait_for_workers(first, second)
    first.send_signal(signal.SIGTERM)
    said, _ = first.communicate(timeout=LATE_S)
    assert first.returncode == 130, said
    told, _ = second.communicate(timeout=LATE_S)
    assert second.returncode == 3
    assert "rank 0 has ended the run: it was interrupted" in told
    assert_gone(workers)


def test_what_the_launcher_decides_cannot_be_asked_for(place: Place, ended: Ended) -> None:
    first, second = start_ranks(place, ended, 2, "run", *WHAT, "--devices", "0,1")
    said, _ = first.communicate(timeout=LATE_S)
    assert first.returncode == 2
    assert "--devices 0,1: SAMEWORK_RANK has started the ranks" in said
    second.kill()
    first, second = start_ranks(place, ended, 2, "run", *WHAT, "--ranks", "1,4")
    said, _ = first.communicate(timeout=LATE_S)
    assert first.returncode == 3
    assert "--ranks 4: the launcher has started 2" in said
    told, _ = second.communicate(timeout=LATE_S)
    assert second.returncode == 3
    assert "--ranks 4: the launcher has started 2" in told


def test_a_wrong_variable_is_shown(place: Place, ended: Ended) -> None:
    process = ended(place.start("bench", "run", *WHAT, **neutral(0, 2) | {"SAMEWORK_RANK": "2"}))
    said, _ = process.communicate(timeout=LATE_S)
    assert process.returncode == 2
    assert "SAMEWORK_RANK='2' must be below SAMEWORK_RANKS=2" in said
