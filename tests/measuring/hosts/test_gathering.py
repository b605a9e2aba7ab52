"""Rank 0 waits for the others, says who is missing, and refuses who differs, before anything trains."""

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from launched_ranks import MakeRanks, listening_at, make_ranks
from played_nvml import Nvml

from bench.errors import UnavailableError
from bench.measuring.hosts.channel import Meeting, key_of, ports_of, reach
from bench.measuring.hosts.gathering import here, told_apart
from bench.measuring.hosts.identity import Identity, assign_devices, identify, refuse_differences
from bench.measuring.hosts.launchers import Launched
from bench.measuring.hosts.remote import Followers


@pytest.fixture
def ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeRanks]:
    yield from make_ranks(tmp_path, monkeypatch)


def identity(rank: int = 0, host: str = "alpha", **changes: object) -> Identity:
    fields = {
        "rank": rank, "ranks": 4, "local_rank": rank, "host": host, "program": "source 0123",
        "python": "CPython 3.12.1", "versions": {"torch/torch": "2.9.0"}, "device": "cpu, Xeon",
        "devices": ("0", "1"), "variables": {"OMP_NUM_THREADS": "1"}, "data": {"mnist": "abc"},
    }  # fmt: skip
    return Identity(**fields | changes)  # type: ignore[arg-type]


def test_all_ranks_are_there_in_their_order(ranks: MakeRanks) -> None:
    job = ranks(4)
    for rank in (3, 1, 2):
        job.start(rank)
    with job.gather() as followers:
        assert [one.rank for one in followers.ranks] == [0, 1, 2, 3]
        assert {one.address for one in followers.ranks} == {"127.0.0.1"}
        slots = followers.slots(3, shared=True)
        addresses = {slot.address() for slot in slots}
    assert len(slots) == 3
    assert all(address.startswith("127.0.0.1:") for address in addresses)
    assert [job.ended(rank)[0] for rank in (1, 2, 3)] == [0, 0, 0]


def test_who_is_missing_is_named(ranks: MakeRanks) -> None:
    job = ranks(4)
    job.start(2)
    job.looks_for_rank_0(2)
    with pytest.raises(UnavailableError, match="ranks 1 and 3 did not come to port"):
        job.gather(limit_s=10.0)
    status, said = job.ended(2)
    assert status == 3
    assert "ranks 1 and 3 did not come" in said


def test_another_key_is_not_admitted_and_is_told(ranks: MakeRanks) -> None:
    job = ranks(2)
    job.start(1, key="another secret")
    job.looks_for_rank_0(1)
    with pytest.raises(UnavailableError, match=r"rank 1 did not come.*another key: SAMEWORK_KEY must be"):
        job.gather(limit_s=10.0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"versions": {"steady/numpy": "1.9"}}, "version of steady/numpy: rank 1 on .* has 1.9, and rank 0"),
        ({"versions": {}}, "version of steady/numpy: rank 1 on .* has none"),
        ({"program": "source 99"}, "program: rank 1 on .* has source 99, and rank 0 on"),
        ({"python": "CPython 3.12.0"}, "python: rank 1 on"),
        ({"device": "gpu, H100"}, "device: rank 1 on .* has gpu, H100, and rank 0 on .* has cpu"),
        ({"variables": {"XLA_FLAGS": "x"}}, "variable XLA_FLAGS: rank 1 on .* has x, and .* has none"),
        ({"rank": 1, "host": "beta", "python": "PyPy 7"}, "rank 1 on beta has PyPy 7"),
    ],
)
def test_ranks_that_differ_are_refused_and_told(
    ranks: MakeRanks, changes: dict[str, object], said: str
) -> None:
    job = ranks(2)
    job.start(1, **changes)
    with pytest.raises(UnavailableError, match=said):
        job.gather()
    status, told = job.ended(1)
    assert status == 3
    assert "rank 0 has ended the run: the ranks differ, and nothing was trained" in told


def test_a_rank_that_comes_twice_or_from_another_job_is_refused(ranks: MakeRanks) -> None:
    job = ranks(3)
    job.start(1)
    job.start(2, rank=1)
    with pytest.raises(UnavailableError, match="has sent a rank 1 too"):
        job.gather()
    other = ranks(2)
    other.start(1, ranks=4)
    with pytest.raises(UnavailableError, match=r"it is rank 1 of 4, and rank 0 on .* is one of 2"):
        other.gather()


def test_more_ranks_than_the_launcher_has_started(ranks: MakeRanks) -> None:
    job = ranks(2)
    job.start(1)
    with job.gather() as followers:
        with pytest.raises(UnavailableError, match="--ranks 4: the launcher has started 2"):
            followers.slots(4)
        assert len(followers.slots(1)) == 1


def test_ranks_on_gpus_get_one_each_and_are_not_pinned() -> None:
    """The launcher has given rank 2 a GPU, and lets the ranks of alpha share two."""
    gpus = ("GPU-a", "GPU-b")
    found = [
        identity(device="gpu, H100", devices=gpus, address="10.0.0.1", interface="eth0"),
        identity(1, device="gpu, H100", devices=gpus, address="10.0.0.1"),
        identity(2, "beta", device="gpu, H100", devices=("GPU-c",), address="10.0.0.2", interface="ib0"),
    ]
    nobody: Any = None
    followers = Followers(nobody, found[0], {rank: (found[rank], nobody) for rank in (1, 2)})
    slots = followers.slots(3)
    assert [slot.gpu for slot in slots] == ["GPU-a", "GPU-b", "GPU-c"]
    assert [slot.cpus for slot in slots] == [(), (), ()]
    assert [slot.host for slot in slots] == ["alpha", "alpha", "beta"]
    assert [slot.interface for slot in slots] == ["eth0", None, "ib0"]


def test_a_rank_knows_the_gpus_that_it_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = Launched(
        launcher="srun", rank=1, ranks=2, local_rank=1, host="alpha", port=1, one_host=False, job="1"
    )
    own = identify(found, device="gpu", versions={})
    assert own.devices == tuple(driver.uuids)
    assert own.device == "gpu, H100"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", driver.uuids[1])
    own = identify(found, device="gpu", versions={"torch": {"torch": "2.9", "numpy": "2.3"}})
    assert own.devices == (driver.uuids[1],)
    assert "CUDA_VISIBLE_DEVICES" not in own.variables
    assert own.versions == {"torch/torch": "2.9", "torch/numpy": "2.3"}


def test_all_differences_are_named_at_once() -> None:
    ranks = [identity(), identity(1, "beta", python="x"), identity(2, "gamma", data={"mnist": "y"})]
    with pytest.raises(UnavailableError) as refused:
        refuse_differences(ranks)
    assert "rank 1 on beta has x, and rank 0 on alpha has CPython 3.12.1" in str(refused.value)
    assert "data set mnist: rank 2 on gamma has y, and rank 0 on alpha has abc" in str(refused.value)
    refuse_differences([identity(), identity(1, "beta", devices=("5",), address="10.0.0.2")])


def test_no_port_is_left() -> None:
    found = Launched(
        launcher="test", rank=0, ranks=2, local_rank=0, host="localhost", port=28000, one_host=True, job=""
    )
    taken = [listening_at(port) for port in ports_of(found)]
    try:
        with pytest.raises(UnavailableError, match=r"the ports 28000 to 28007 are in use.*SAMEWORK_PORT"):
            Meeting(found, b"key")
    finally:
        for one in taken:
            one.close()


def test_whoever_has_no_key_gets_no_channel() -> None:
    found = Launched(
        launcher="test", rank=0, ranks=2, local_rank=0, host="localhost", port=28100, one_host=True, job="a"
    )
    meeting = Meeting(found, key_of(found, "right"))
    accepted = []
    thread = threading.Thread(target=lambda: accepted.extend(_accept_two(meeting)))
    thread.start()
    channel, why = reach("localhost", [meeting.port], key_of(found, "wrong"))
    assert channel is None
    assert "does not have the key" in why
    channel, why = reach("localhost", [meeting.port], key_of(found, "right"))
    assert channel is not None
    thread.join()
    meeting.close()
    channel.close()
    assert len(accepted) == 1
    assert meeting.rejected == ["127.0.0.1"]


def _accept_two(meeting: Meeting) -> list[object]:
    found: list[object] = []
    while not (found and meeting.rejected):
        if (come := meeting.accept()) is not None:
            found.append(come)
        time.sleep(0.01)
    return found


def test_the_key_differs_from_job_to_job() -> None:
    found = Launched(launcher="test", rank=0, ranks=2, local_rank=0, host="h", port=1, one_host=True, job="a")
    other = Launched(launcher="test", rank=1, ranks=2, local_rank=0, host="h", port=1, one_host=True, job="b")
    keys = {key_of(found, None), key_of(other, None), key_of(found, "x"), key_of(found, "y")}
    assert len(keys) == 4


def test_hosts_of_one_name_are_told_apart_by_their_addresses() -> None:
    """Devices are counted on each host, so two hosts must not be taken for one."""
    ranks = [
        identity(0, "node", address="10.0.0.1", devices=("0",)),
        identity(1, "node", address="10.0.0.2", devices=("0",)),
        identity(2, "other", address="10.0.0.3", devices=("0", "1")),
        identity(3, "other", address="10.0.0.3", devices=("0", "1")),
    ]
    with pytest.raises(UnavailableError, match="node has 2 ranks"):
        assign_devices(ranks)
    found = told_apart(ranks)
    assert [one.host for one in found] == ["node (10.0.0.1)", "node (10.0.0.2)", "other", "other"]
    assert assign_devices(found) == ("0", "0", "0", "1")


def test_an_interface_may_be_named() -> None:
    assert here(identity(), "127.0.0.1", {"SAMEWORK_INTERFACE": "ib0"}).interface == "ib0"
    assert here(identity(), "192.0.2.1", {}).interface is None  # no interface has it


cpus = st.integers(0, 7).map(str)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.frozensets(cpus, min_size=1)), min_size=1, max_size=6))
def test_a_device_is_the_ranks_own_or_refused(wanted: list[tuple[str, frozenset[str]]]) -> None:
    ranks = [identity(rank, host, devices=tuple(sorted(found))) for rank, (host, found) in enumerate(wanted)]
    try:
        chosen = assign_devices(ranks)
    except UnavailableError:
        chosen = None
    if chosen is not None:
        assert all(device in one.devices for device, one in zip(chosen, ranks, strict=True))
        pairs = [(one.host, device) for device, one in zip(chosen, ranks, strict=True)]
        assert len(set(pairs)) == len(pairs)
    shared = assign_devices(ranks, shared=True)
    assert all(device in one.devices for device, one in zip(shared, ranks, strict=True))


@given(st.integers(1, 8), st.integers(1, 8), st.booleans())
def test_devices_suffice_or_not_whether_the_launcher_has_dealt_them_or_not(
    ranks: int, devices: int, dealt: bool
) -> None:
    all_of_them = tuple(map(str, range(devices)))
    own = [(str(rank),) if dealt else all_of_them for rank in range(ranks)]
    found = [identity(rank, devices=own[rank]) for rank in range(ranks)]
    if dealt or ranks <= devices:
        assert assign_devices(found) == tuple(map(str, range(ranks)))
    else:
        with pytest.raises(UnavailableError, match=f"alpha has {ranks} ranks"):
            assign_devices(found)
