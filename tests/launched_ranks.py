"""Ranks that meet on the loopback, each a process of its own, as a launcher would start them."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import fakes
import msgspec
import psutil
import pytest

from bench.measuring.hosts.channel import Meeting, key_of
from bench.measuring.hosts.gathering import gather
from bench.measuring.hosts.identity import identify
from bench.measuring.hosts.launchers import Launched
from bench.measuring.hosts.remote import Followers
from bench.measuring.ranks.slots import free_port

HUNG_S = 300.0
"""What ends in this time was ended, however busy the machine is."""


class Quiet:
    """A display that keeps the messages which it gets."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def overall(self, text: str, done: float, left_s: float | None) -> None:
        pass

    def job(self, text: str, done: float | None) -> None:
        pass


MakeRanks = Callable[[int], "Ranks"]


class Ranks:
    """The ranks of a job. Rank 0 is the test itself."""

    def __init__(self, ranks: int, stack: ExitStack) -> None:
        self.ranks, self._stack = ranks, stack
        self.port = free_port("127.0.0.1")
        self.display = Quiet()
        self.processes: dict[int, subprocess.Popen[str]] = {}
        self.key = "secret of the job"

    def start(
        self, rank: int, /, *, key: str | None = None, ranks: int | None = None, **changes: Any
    ) -> None:
        """Start a rank as a process; `changes` replace parts of who it says it is."""
        variables = {
            "SAMEWORK_RANK": str(rank), "SAMEWORK_RANKS": str(ranks or self.ranks),
            "SAMEWORK_LOCAL_RANK": str(rank), "SAMEWORK_HOST": "localhost", "SAMEWORK_PORT": str(self.port),
            "SAMEWORK_KEY": key or self.key,
        }  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, "-m", "rank_process", msgspec.json.encode(changes).decode()],
            env=os.environ | variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.processes[rank] = process
        self._stack.callback(process.communicate)
        self._stack.callback(process.kill)

    def looks_for_rank_0(self, rank: int) -> None:
        """Wait until a rank has begun to look for rank 0, which it does at once when it is imported."""
        said = self.processes[rank].stderr
        assert said is not None
        assert "looks for rank 0" in said.readline()

    @property
    def launched(self) -> Launched:
        return Launched(
            launcher="SAMEWORK_RANK", rank=0, ranks=self.ranks, local_rank=0, host="localhost",
            port=self.port, one_host=True, job="SAMEWORK_RANK:localhost:",
        )  # fmt: skip

    def gather(self, *, limit_s: float = HUNG_S, **changes: Any) -> Followers:
        """Be rank 0 and wait for the others; `changes` replace parts of who it says it is."""
        found = self.launched
        own = identify(found, device="cpu", versions={"steady": {"numpy": "2.0"}})
        own = msgspec.structs.replace(own, **changes)
        meeting = Meeting(found, key_of(found, self.key))
        return gather(own, meeting, self.display, {}, one_host=True, limit_s=limit_s)

    def ended(self, rank: int) -> tuple[int, str]:
        """Wait until a rank has ended; return its status and what it has said."""
        process = self.processes[rank]
        _, said = process.communicate(timeout=HUNG_S)
        return process.returncode, said

    def workers_of(self, rank: int) -> list[psutil.Process]:
        return psutil.Process(self.processes[rank].pid).children(recursive=True)

    def kill(self, rank: int) -> None:
        self.processes[rank].send_signal(signal.SIGKILL)


def make_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeRanks]:
    """Yield a function that makes the ranks of a job; those that still run in the end are killed.

    They find the fakes, and make every temporary folder in `tmp_path / "scratch"`.
    """
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setenv("PYTHONPATH", fakes.python_path())
    with ExitStack() as stack:
        yield lambda count: Ranks(count, stack)


def all_gone(processes: list[psutil.Process]) -> bool:
    """Wait until processes have ended; a zombie has."""
    deadline = time.monotonic() + HUNG_S
    left = processes
    while left and time.monotonic() < deadline:
        left = [one for one in left if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
        time.sleep(0.05)
    return not left


def listening_at(port: int) -> socket.socket:
    """Return a socket of another program that listens at a port and never says a word."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", port))
    taken.listen(16)
    return taken
