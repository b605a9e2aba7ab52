"""What a command makes of a launcher: how many ranks it asks for, and where they are."""

from typing import Any

import fakes
import pytest

from bench.errors import UsageError
from bench.measuring import selection
from bench.measuring.backends import Registry
from bench.measuring.hosts import session
from bench.measuring.hosts.launchers import Launched
from bench.measuring.hosts.session import Hosts, asked_ranks, started_with_others
from bench.measuring.selection import Asked

NEUTRAL = {
    "SAMEWORK_RANK": "0", "SAMEWORK_RANKS": "4", "SAMEWORK_LOCAL_RANK": "0", "SAMEWORK_HOST": "localhost",
}  # fmt: skip


def found(**changes: Any) -> Launched:
    fields = {
        "launcher": "srun", "rank": 0, "ranks": 4, "local_rank": 0, "host": "a", "port": 1, "one_host": False,
        "job": "1",
    }  # fmt: skip
    return Launched(**fields | changes)


def test_a_process_alone_is_no_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interactive shell of SLURM is a step of one task."""
    for name, value in NEUTRAL.items():
        monkeypatch.setenv(name, value)
    assert started_with_others() is not None
    monkeypatch.setenv("SAMEWORK_RANKS", "1")
    assert started_with_others() is None


def test_a_launcher_decides_how_many_ranks_there_are() -> None:
    assert asked_ranks((), found(), alone=True) == (1, 4)
    assert asked_ranks((), found(), alone=False) == (4,)
    assert asked_ranks((2,), found(), alone=True) == (2,)
    assert asked_ranks((), None, alone=True) == ()


def test_devices_are_the_launchers() -> None:
    here = selection.choose_backends(Registry(backends={"steady": fakes.STEADY}, broken={}), Asked(), "cpu")
    with (
        Hosts(found()) as hosts,
        pytest.raises(UsageError, match="--devices 0,2: srun has started the ranks"),
    ):
        hosts.slots("cpu", 2, here, (0, 2))
    with Hosts() as hosts:
        assert len(hosts.slots("cpu", 1, here)) == 1
        assert not hosts.dealt


@pytest.mark.parametrize("text", ["soon", "0", "-5", "nan", "inf", "1e9", ""])
def test_the_time_to_wait_is_a_number_of_seconds(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMEWORK_WAIT", text)
    with pytest.raises(UsageError, match="SAMEWORK_WAIT="):
        session._wait_s()
    monkeypatch.setenv("SAMEWORK_WAIT", "2.5")
    assert session._wait_s() == 2.5
    monkeypatch.delenv("SAMEWORK_WAIT")
    assert session._wait_s() == 300.0
