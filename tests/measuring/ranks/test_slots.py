"""Ranks get the cores or GPUs that were asked for, each its own, or a refusal that says what there is."""

import os
import sys
from collections.abc import Iterator
from unittest import mock

import pytest
from played_nvml import Nvml

from bench.errors import UnavailableError, UsageError
from bench.measuring.ranks import slots
from bench.measuring.ranks.slots import LocalSlot, device_of, local_slots, sharing


@pytest.fixture(autouse=True)
def _four_cpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Play a process that may use four CPUs of a machine, and give the test variables of its own."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 3, 5, 7}, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None, raising=False)
    monkeypatch.setattr(slots, "usable_cpus", lambda: 4)
    with mock.patch.dict(os.environ):
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        yield


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    found = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", found)
    return found


def test_by_default_the_first_cpus_are_taken() -> None:
    assert [slot.cpus for slot in local_slots("cpu", 3)] == [(2,), (3,), (5,)]


def test_the_cpus_that_are_named_are_taken_in_their_order() -> None:
    assert [device_of(slot) for slot in local_slots("cpu", 2, [7, 3])] == ["CPU 7", "CPU 3"]


def test_a_quota_counts_as_fewer_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "usable_cpus", lambda: 2)
    with pytest.raises(UnavailableError, match=r"--ranks 3: this process may use 2 CPU cores"):
        local_slots("cpu", 3)


@pytest.mark.parametrize(
    ("count", "asked", "said"),
    [
        (5, [], "--ranks 5: this process may use 4 CPU cores, and every rank needs its own"),
        (2, [3], "--ranks 2: --devices names 1 CPU core, and every rank needs its own"),
        (1, [4], "--devices 4: this process may not run on that CPU; it may use 2,3,5,7"),
    ],
)
def test_too_few_cpus_are_an_error_that_says_how_many_there_are(
    count: int, asked: list[int], said: str
) -> None:
    with pytest.raises(UnavailableError, match=said):
        local_slots("cpu", count, asked)


def test_a_device_is_not_named_twice() -> None:
    with pytest.raises(UsageError, match="--devices 3,3: a device can be named only once"):
        local_slots("cpu", 2, [3, 3])


def test_where_nothing_is_timed_ranks_may_share_the_cpus() -> None:
    found = local_slots("cpu", 6, shared=True)
    assert [slot.cpus for slot in found] == [(2,), (3,), (5,), (7,), (2,), (3,)]
    assert (sharing(found), sharing(found[:4]), sharing(())) == (2, 1, 1)


def test_where_a_process_cannot_be_pinned_there_are_no_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity")
    with pytest.raises(UnavailableError, match="cannot pin a process"):
        local_slots("cpu", 1)


def test_every_rank_sees_one_gpu_by_its_uuid_and_this_process_those_of_all(driver: Nvml) -> None:
    found = local_slots("gpu", 2, [1, 0])
    assert [slot.gpu for slot in found] == [driver.uuids[1], driver.uuids[0]]
    assert [slot.cpus for slot in found] == [(), ()]
    assert device_of(found[0]) == driver.uuids[1]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == f"{driver.uuids[1]},{driver.uuids[0]}"
    again = local_slots("gpu", 2, [slot.gpu or "" for slot in found])
    assert again == found, "a run that is resumed has the same GPUs"


def test_by_default_the_first_visible_gpus_are_taken(driver: Nvml) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = "1,0"
    assert [slot.gpu for slot in local_slots("gpu", 1)] == [driver.uuids[1]]


@pytest.mark.parametrize(
    ("visible", "count", "asked", "said"),
    [
        ("0,1", 3, [], "--ranks 3: there are 2 GPUs here, and every rank needs its own"),
        ("1", 2, [], "--ranks 2: there is 1 GPU here"),
        ("0,1", 2, [0], "--ranks 2: --devices names 1 GPU"),
        ("0,1", 2, [0, 2], "--devices 2: there is no such GPU; these are visible: 0 H100"),
    ],
)
@pytest.mark.usefixtures("driver")
def test_too_few_gpus_are_an_error_that_says_how_many_there_are(
    visible: str, count: int, asked: list[int], said: str
) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = visible
    with pytest.raises((UnavailableError, UsageError), match=said):
        local_slots("gpu", count, asked)


def test_ranks_of_this_host_meet_on_the_loopback_at_a_free_port() -> None:
    slot = LocalSlot(host="here", cpus=(2,))
    host, _, port = slot.address().partition(":")
    assert host == "127.0.0.1"
    assert 0 < int(port) < 65536
