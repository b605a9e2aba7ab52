"""What each launcher says is read as it means it, and what contradicts itself is refused with its value."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bench.errors import UsageError
from bench.measuring.hosts.launchers import (
    FIRST_PORT,
    LAUNCHERS,
    PORTS,
    Launched,
    Launcher,
    first_line,
    first_node,
    launched,
)

BY_NAME = {launcher.name: launcher for launcher in LAUNCHERS}
SRUN = {
    "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_PROCID": "2", "SLURM_LOCALID": "0",
    "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NODELIST": "node[01-02]",
}  # fmt: skip
TORCHRUN = {
    "RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "alpha",
    "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "none",
}  # fmt: skip
NEUTRAL = {
    "SAMEWORK_RANK": "1", "SAMEWORK_RANKS": "2", "SAMEWORK_LOCAL_RANK": "0", "SAMEWORK_HOST": "alpha",
    "SAMEWORK_PORT": "4000",
}  # fmt: skip
WHOLE = {"SAMEWORK_RANK": NEUTRAL, "torchrun": TORCHRUN, "srun": SRUN}

hosts = st.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z0-9]", fullmatch=True).filter(lambda name: name != "localhost")
ports = st.integers(1, 65534)


def as_set(launcher: Launcher, place: dict[str, int], host: str, port: int, job: str) -> dict[str, str]:
    """Return the variables that a launcher would set for a process at that place."""
    lists = {first_node: f"{host},other", first_line: f"{host}\nother\n"}
    named = {
        **dict.fromkeys((*launcher.marks, *launcher.job), job), launcher.rank: str(place["rank"]),
        launcher.ranks: str(place["ranks"]), launcher.local_rank: str(place["local_rank"]),
        launcher.local_ranks: str(place["local_ranks"]), launcher.hosts: str(place["hosts"]),
        launcher.host: lists.get(launcher.first, host), launcher.port: str(port),
    }  # fmt: skip
    return {name: value for name, value in named.items() if name is not None}


@st.composite
def places(draw: st.DrawFn) -> dict[str, int]:
    """Return a rank on one of several hosts that have as many ranks each."""
    hosts, local_ranks = draw(st.integers(2, 9)), draw(st.integers(1, 9))
    rank = draw(st.integers(0, hosts * local_ranks - 1))
    return {
        "hosts": hosts, "local_ranks": local_ranks, "ranks": hosts * local_ranks, "rank": rank,
        "local_rank": rank % local_ranks,
    }  # fmt: skip


@given(st.sampled_from(LAUNCHERS), places(), hosts, ports, st.text("abc012-", min_size=1))
def test_what_a_launcher_sets_is_what_is_read(
    launcher: Launcher, place: dict[str, int], host: str, port: int, job: str
) -> None:
    found = launched(as_set(launcher, place, host, port, job))
    assert found is not None
    assert (found.launcher, found.rank, found.ranks) == (launcher.name, place["rank"], place["ranks"])
    assert found.local_rank == (0 if launcher.local_rank is None else place["local_rank"])
    assert found.host == host
    assert not found.one_host
    if launcher.port is not None:
        assert found.port == port + launcher.next_port
    else:
        assert FIRST_PORT <= found.port < FIRST_PORT + PORTS


@given(st.sampled_from(LAUNCHERS), places(), hosts, ports, st.integers(0, 80))
def test_all_ranks_of_a_job_read_the_same_meeting_point(
    launcher: Launcher, place: dict[str, int], host: str, port: int, other: int
) -> None:
    assume(other < place["ranks"])
    elsewhere = place | {"rank": other, "local_rank": other % place["local_ranks"]}
    one, two = (launched(as_set(launcher, each, host, port, "job")) for each in (place, elsewhere))
    assert one is not None
    assert two is not None
    assert (one.host, one.port, one.job, one.ranks) == (two.host, two.port, two.job, two.ranks)


def test_nothing_is_read_where_no_launcher_is() -> None:
    assert launched({}) is None
    assert launched({"PATH": "/bin", "WORLD_SIZE": "2", "MASTER_ADDR": "alpha"}) is None


def test_a_batch_script_without_srun_is_no_rank() -> None:
    batch = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "4"}
    assert launched(batch | {"SLURM_JOB_NODELIST": "node[01-02]", "SLURM_NNODES": "2"}) is None


def test_the_launcher_that_runs_inside_another_counts() -> None:
    assert launched(SRUN | TORCHRUN) == launched(TORCHRUN)
    assert launched(SRUN | TORCHRUN | NEUTRAL) == launched(NEUTRAL)
    sky = {"SKYPILOT_NODE_RANK": "1", "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2"}
    assert launched(sky | TORCHRUN) == launched(TORCHRUN)


def test_host_and_port_may_be_corrected() -> None:
    found = launched(SRUN | {"SAMEWORK_HOST": "10.1.2.3", "SAMEWORK_PORT": "4321"})
    assert isinstance(found, Launched)
    assert (found.host, found.port, found.rank) == ("10.1.2.3", 4321, 2)


def test_the_port_of_the_launchers_own_store_is_left_alone() -> None:
    """The agent of torchrun may listen at MASTER_PORT."""
    found = launched(TORCHRUN)
    assert found is not None
    assert found.port == int(TORCHRUN["MASTER_PORT"]) + 1
    last = launched(TORCHRUN | {"MASTER_PORT": "65535"})
    assert last is not None
    assert 1 <= last.port <= 65535


def test_ranks_on_one_host_are_known_to_be() -> None:
    alone: list[dict[str, str]] = [
        TORCHRUN | {"LOCAL_WORLD_SIZE": "4"},
        SRUN | {"SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_NODELIST": "node01"},
        NEUTRAL | {"SAMEWORK_HOST": "127.0.0.1"},
        NEUTRAL | {"SAMEWORK_HOST": "localhost"},
    ]
    for variables in alone:
        found = launched(variables)
        assert found is not None
        assert found.one_host, variables
    for variables in WHOLE.values():
        found = launched(variables)
        assert found is not None
        assert not found.one_host, variables


@given(hosts, st.lists(st.integers(0, 999), min_size=1, max_size=5), st.booleans())
def test_the_first_host_of_a_node_list_is_found(prefix: str, numbers: list[int], suffix: bool) -> None:
    """SLURM writes `node[001-003,007]`, with leading zeros, and may go on with other names."""
    written = ",".join(f"{number:03}-{number + 1:03}" if number % 2 else f"{number:03}" for number in numbers)
    rest = "-ib,other[1-2],x" if suffix else ""
    assert first_node(f"{prefix}[{written}]{rest}") == f"{prefix}{numbers[0]:03}{'-ib' if suffix else ''}"
    assert first_node(prefix) == first_node(f"{prefix},b[1-2]") == prefix


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("node[01-03,07]", "node01"), ("gnode[10,20,25,37]", "gnode10"), ("rack[0-1]n[4-7]", "rack0n4"),
     ("login,node[1-2]", "login"), (" a-1 ", "a-1")],
)  # fmt: skip
def test_node_lists_as_slurm_writes_them(nodes: str, first: str) -> None:
    assert first_node(nodes) == first


@pytest.mark.parametrize(
    ("which", "name", "value", "said"),
    [
        ("torchrun", "RANK", "4", "RANK='4' must be below WORLD_SIZE=4"),
        ("torchrun", "RANK", "-1", "RANK='-1' is not a whole number from 0 on"),
        ("torchrun", "RANK", "one", "RANK='one' is not a whole number"),
        ("torchrun", "WORLD_SIZE", "0", "WORLD_SIZE='0' is not a whole number from 1 on"),
        ("torchrun", "LOCAL_WORLD_SIZE", "5", "LOCAL_WORLD_SIZE='5' is more than WORLD_SIZE=4"),
        ("torchrun", "LOCAL_RANK", "2", "LOCAL_RANK='2' must be below LOCAL_WORLD_SIZE=2"),
        ("torchrun", "MASTER_PORT", "70000", "MASTER_PORT='70000' is not a whole number from 1 to 65535"),
        ("torchrun", "MASTER_ADDR", " ", "MASTER_ADDR=' ' names no host"),
        ("srun", "SLURM_STEP_NUM_NODES", "5", "SLURM_STEP_NUM_NODES='5' is more than SLURM_STEP_NUM_TASKS=4"),
        ("srun", "SLURM_STEP_NUM_TASKS", "4(x2)", "SLURM_STEP_NUM_TASKS='4(x2)' is not a whole number"),
        ("SAMEWORK_RANK", "SAMEWORK_HOST", "two words", "SAMEWORK_HOST='two words' names no host"),
    ],
)
def test_what_is_wrong_is_named_with_its_value(which: str, name: str, value: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        launched(WHOLE[which] | {name: value})
    assert said in str(refused.value)


@pytest.mark.parametrize("which", sorted(WHOLE))
def test_every_variable_is_missed(which: str) -> None:
    launcher, variables = BY_NAME[which], WHOLE[which]
    needed = {launcher.ranks, launcher.local_rank, launcher.local_ranks, launcher.hosts, launcher.host}
    for name in needed - {None, *launcher.marks}:
        with pytest.raises(UsageError, match=f"{name} is not set"):
            launched({other: value for other, value in variables.items() if other != name})


@given(
    st.sampled_from(sorted(WHOLE)), st.data(),
    st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=8),
)  # fmt: skip
def test_any_value_is_read_or_refused(which: str, data: st.DataObject, value: str) -> None:
    name = data.draw(st.sampled_from(sorted(WHOLE[which])))
    said = ""
    try:
        found = launched(WHOLE[which] | {name: value})
    except UsageError as error:
        found, said = None, str(error)
    if found is None:
        assert name in said
    else:
        assert 0 <= found.rank < found.ranks
        assert 1 <= found.port <= 65535
