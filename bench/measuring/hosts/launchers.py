"""What the launcher that started this process says: one contract, and a table of the variables behind it.

A launcher starts the same command once for every rank. It tells each process its rank, how many ranks there
are, and the host of rank 0. The names of the variables are all that differs, so each launcher is a row of
`LAUNCHERS`. `bench.workloads.ranks.Place` takes it from there to the frameworks, which read none of these
variables: a worker does not get them.
"""

import re
from collections.abc import Callable, Mapping
from typing import NoReturn
from zlib import crc32

import msgspec

from bench.errors import UsageError

HOST, PORT, KEY = "SAMEWORK_HOST", "SAMEWORK_PORT", "SAMEWORK_KEY"
FIRST_PORT, PORTS = 20_000, 10_000
"""Where a launcher names no port, one of these follows from its job. Linux gives ports from 32768 on to
connections that ask for none, so these are seldom in use."""
_LOOPBACK = re.compile(r"localhost|127(\.[0-9]{1,3}){3}|::1")
_NUMBER = re.compile(r"[0-9]{1,9}")
_BRACKETS = re.compile(r"\[([^],-]+)[^]]*\]")
"""A range of a SLURM node list, and its first number."""


class Launched(msgspec.Struct, frozen=True, kw_only=True):
    """The place of this process among those that a launcher has started: the neutral contract."""

    launcher: str
    rank: int
    ranks: int
    local_rank: int
    """The number of the rank among those on its host."""
    host: str
    """Name or address of the host of rank 0."""
    port: int
    """The first port at which rank 0 may listen."""
    one_host: bool
    """Whether all ranks are on one host, so that the loopback connects them."""
    job: str
    """What tells this job from others of the launcher."""


class Launcher(msgspec.Struct, frozen=True, kw_only=True):
    """The variables that a launcher sets. Those of `marks` show that it has started this process."""

    name: str
    marks: tuple[str, ...]
    rank: str
    ranks: str
    host: str
    local_rank: str | None = None
    """None: it starts one process on each host."""
    local_ranks: str | None = None
    """The number of ranks on this host."""
    hosts: str | None = None
    """The number of hosts."""
    port: str | None = None
    next_port: int = 0
    """How far after `port` the first port is that the launcher does not use itself."""
    job: tuple[str, ...] = ()
    """Further variables that are the same in all ranks and differ from job to job."""
    first: Callable[[str], str] = str.strip
    """Takes the first host from the value of `host`."""


def first_line(text: str) -> str:
    """Return the first address of a list with one in each line."""
    return text.strip().partition("\n")[0].strip()


def first_node(nodes: str) -> str:
    """Return the first host of a SLURM node list: `node01` of `node[01-03,07],login`."""
    return _BRACKETS.sub(r"\1", re.split(r",(?![^[]*\])", nodes.strip(), maxsplit=1)[0])


LAUNCHERS = (
    # The neutral variables, for whatever has no row of its own.
    Launcher(
        name="SAMEWORK_RANK", marks=("SAMEWORK_RANK",), rank="SAMEWORK_RANK", ranks="SAMEWORK_RANKS",
        local_rank="SAMEWORK_LOCAL_RANK", host=HOST, port=PORT, job=("SAMEWORK_JOB",),
    ),
    # torch.distributed.run, section "Environment Variables". Its agent may serve its store at MASTER_PORT.
    # https://docs.pytorch.org/docs/stable/elastic/run.html
    Launcher(
        name="torchrun", marks=("RANK", "LOCAL_RANK"), rank="RANK", ranks="WORLD_SIZE",
        local_rank="LOCAL_RANK", local_ranks="LOCAL_WORLD_SIZE", host="MASTER_ADDR", port="MASTER_PORT",
        next_port=1, job=("TORCHELASTIC_RUN_ID",),
    ),
    # srun(1), section "OUTPUT ENVIRONMENT VARIABLES". A batch script has SLURM_PROCID too, but no
    # SLURM_STEP_NODELIST. SLURM_LAUNCH_NODE_IPADDR and SLURM_SRUN_COMM_HOST are no use: they name the host
    # where srun itself runs, which is the login host after salloc. https://slurm.schedmd.com/srun.html
    Launcher(
        name="srun", marks=("SLURM_PROCID", "SLURM_STEP_NODELIST"), rank="SLURM_PROCID",
        ranks="SLURM_STEP_NUM_TASKS", local_rank="SLURM_LOCALID", hosts="SLURM_STEP_NUM_NODES",
        host="SLURM_STEP_NODELIST", first=first_node, job=("SLURM_JOB_ID", "SLURM_STEP_ID"),
    ),
    # Kubeflow's training operator sets these in every pod, whose program may be torchrun (the row above).
    # https://www.kubeflow.org/docs/components/trainer/legacy-v1/user-guides/pytorch/
    Launcher(
        name="PyTorchJob", marks=("RANK", "MASTER_ADDR"), rank="RANK", ranks="WORLD_SIZE",
        host="MASTER_ADDR", port="MASTER_PORT",
    ),
    # https://docs.skypilot.co/en/stable/running-jobs/distributed-jobs.html
    Launcher(
        name="SkyPilot", marks=("SKYPILOT_NODE_RANK",), rank="SKYPILOT_NODE_RANK",
        ranks="SKYPILOT_NUM_NODES", host="SKYPILOT_NODE_IPS", first=first_line, job=("SKYPILOT_TASK_ID",),
    ),
    # https://dstack.ai/docs/reference/environment-variables
    Launcher(
        name="dstack", marks=("DSTACK_NODE_RANK",), rank="DSTACK_NODE_RANK", ranks="DSTACK_NODES_NUM",
        host="DSTACK_MASTER_NODE_IP", job=("DSTACK_RUN_ID",),
    ),
)  # fmt: skip
"""The launchers, in the order in which they are looked for. One that is usually started inside another comes
before it: torchrun under srun sets its own variables beside those of srun, and they are right."""


def launched(variables: Mapping[str, str]) -> Launched | None:
    """Return what the launcher says that has started this process; None if none has.

    SAMEWORK_HOST and SAMEWORK_PORT replace what another launcher says. Raises UsageError, with the variable
    and its value, where one is missing, malformed, or contradicts another.
    """
    for launcher in LAUNCHERS:
        if all(name in variables for name in launcher.marks):
            return _read(launcher, variables)
    return None


def _read(launcher: Launcher, variables: Mapping[str, str]) -> Launched:
    said = _Said(launcher, variables)
    ranks = said.number(launcher.ranks, least=1)
    rank = said.number(launcher.rank, below=(launcher.ranks, ranks))
    local_rank = 0
    if launcher.local_rank is not None:
        local_rank = said.number(launcher.local_rank, below=(launcher.ranks, ranks))
    own_host = HOST in variables
    host = said.text(HOST) if own_host else launcher.first(said.text(launcher.host))
    if not host or re.search(r"\s", host):
        said.refuse(HOST if own_host else launcher.host, "names no host")
    one_host = _LOOPBACK.fullmatch(host) is not None or ranks == 1
    if launcher.local_ranks is not None:
        local_ranks = said.number(launcher.local_ranks, least=1)
        if local_ranks > ranks:
            said.refuse(launcher.local_ranks, f"is more than {launcher.ranks}={ranks}")
        if local_rank >= local_ranks:
            said.refuse(str(launcher.local_rank), f"must be below {launcher.local_ranks}={local_ranks}")
        one_host = one_host or local_ranks == ranks
    if launcher.hosts is not None:
        hosts = said.number(launcher.hosts, least=1)
        if hosts > ranks:
            said.refuse(launcher.hosts, f"is more than {launcher.ranks}={ranks}")
        one_host = one_host or hosts == 1
    job = ":".join([launcher.name, host, *(variables.get(name, "") for name in launcher.job)])
    return Launched(
        launcher=launcher.name, rank=rank, ranks=ranks, local_rank=local_rank, host=host,
        port=_port(launcher, said, variables, job), one_host=one_host, job=job,
    )  # fmt: skip


def _port(launcher: Launcher, said: "_Said", variables: Mapping[str, str], job: str) -> int:
    """Return the port that is named, or one that follows from the job, which is the same in all ranks."""
    if PORT in variables:
        return said.number(PORT, least=1, most=65535)
    if launcher.port is not None and launcher.port in variables:
        port = said.number(launcher.port, least=1, most=65535) + launcher.next_port
        return port if port <= 65535 else FIRST_PORT
    return FIRST_PORT + crc32(job.encode(errors="surrogateescape")) % PORTS


class _Said:
    """The variables of a launcher, read with the checks that they all need."""

    def __init__(self, launcher: Launcher, variables: Mapping[str, str]) -> None:
        self._launcher, self._variables = launcher, variables

    def text(self, name: str) -> str:
        if name not in self._variables:
            mark = self._launcher.marks[0]
            raise UsageError(
                f"{mark}={self._variables[mark]!r} says that {self._launcher.name} has started this process, "
                f"but {name} is not set. Set it, or unset {mark} if nothing has."
            )
        return self._variables[name]

    def number(
        self, name: str, *, least: int = 0, most: int | None = None, below: tuple[str, int] | None = None
    ) -> int:
        """Return a variable's number; `below` is the variable that it must be less than, and its value."""
        value = self.text(name).strip()
        if not _NUMBER.fullmatch(value) or not least <= int(value) <= (most or int(value)):
            self.refuse(name, f"is not a whole number from {least}{f' to {most}' if most else ' on'}")
        if below is not None and int(value) >= below[1]:
            self.refuse(name, f"must be below {below[0]}={below[1]}")
        return int(value)

    def refuse(self, name: str, why: str) -> NoReturn:
        """Raise UsageError with a variable and its value."""
        raise UsageError(f"{name}={self._variables[name]!r} {why} (started by {self._launcher.name}).")
