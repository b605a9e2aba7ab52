"""What a worker says last is passed on before its end is, even if both come together."""

import os
import selectors
from collections.abc import Iterator
from multiprocessing.connection import Pipe
from typing import Any

import pytest

from bench.measuring.hosts import follower
from bench.measuring.hosts.channel import Channel
from bench.measuring.hosts.messages import End, Ended, Events, FromWorker, Line, NoMore


class Link:
    """A worker that has written to its pipe and ended at once. A helper process may keep the pipe open."""

    def __init__(self) -> None:
        self.end_read, self.end_write = os.pipe()
        self.status: int | None = None
        self.got: list[bytes] = []
        self.killed = False

    def fileno(self) -> int:
        return self.end_read

    def read(self) -> bytes:
        return os.read(self.end_read, 65536)

    def send(self, line: bytes) -> None:
        self.got.append(line)

    def poll(self) -> int | None:
        return self.status

    def end(self) -> None:
        self.status, self.killed = -9, True

    def tail(self) -> tuple[str, ...]:
        return ("last words",)

    def close(self) -> None:
        for end in (self.end_read, self.end_write):
            os.close(end)


class Relayed:
    """A relay between a worker and rank 0, which is the test."""

    def __init__(self) -> None:
        here, there = Pipe()
        self.rank_0 = Channel(here, own=("", 0), peer=("", 0))
        self.link: Any = Link()
        self.selector = selectors.DefaultSelector()
        channel = Channel(there, own=("", 0), peer=("", 0))
        self.relay = follower._Relay(self.link, channel, self.selector, lambda line: line.upper())

    def heard(self) -> list[object]:
        found: list[object] = []
        while self.rank_0.ready():
            found.append(self.rank_0.receive(FromWorker))
        return found

    def turn(self) -> None:
        for key, _ in self.selector.select(0):
            key.data()


@pytest.fixture
def relayed() -> Iterator[Relayed]:
    found = Relayed()
    yield found
    found.relay.close()
    found.rank_0.close()
    found.selector.close()


def test_all_that_a_worker_has_said_comes_before_its_end(relayed: Relayed) -> None:
    os.write(relayed.link.end_write, b"one\n")
    relayed.link.status = 0
    relayed.relay.look_for_end()
    assert relayed.heard() == [Events(content=b"one\n"), Ended(status=0, tail=("last words",))]
    relayed.relay.look_for_end()
    assert relayed.heard() == [], "it ends once"


def test_lines_go_both_ways_while_the_worker_runs(relayed: Relayed) -> None:
    os.write(relayed.link.end_write, b"one\n")
    relayed.rank_0.send(Line(line="go"))
    relayed.turn()
    relayed.relay.look_for_end()
    assert relayed.heard() == [Events(content=b"one\n")]
    assert relayed.link.got == [b"GO"]
    relayed.rank_0.send(End())
    relayed.turn()
    assert relayed.link.killed
    relayed.relay.look_for_end()
    assert relayed.heard() == [Ended(status=-9, tail=("last words",))]
    relayed.rank_0.send(End())
    relayed.turn()  # too late, and no error


def test_a_worker_that_closes_its_channel_has_not_ended(relayed: Relayed) -> None:
    os.close(relayed.link.end_write)
    relayed.link.end_write = os.dup(relayed.link.end_read)
    relayed.turn()
    relayed.relay.look_for_end()
    assert relayed.heard() == [NoMore()]
    relayed.link.status = 7
    relayed.relay.look_for_end()
    assert relayed.heard() == [Ended(status=7, tail=("last words",))]


def test_the_worker_ends_when_rank_0_closes_its_channel(relayed: Relayed) -> None:
    relayed.rank_0.close()
    relayed.turn()
    assert relayed.relay.gone
    relayed.relay.look_for_end()
    assert not relayed.selector.get_map()
