"""What comes through a link is events until it ends, and several links are heard at once."""

import os
import time
from collections.abc import Iterator

import msgspec
import pytest

from bench.measuring import stream
from bench.measuring.stream import EventStream, listen
from bench.worker.protocol import Done, Event, Failed, FirstStep, Imported, Started

LATE_S = 300.0


class PipeLink:
    """A link whose other end a test holds."""

    pid = None

    def __init__(self) -> None:
        self._read, self.write = os.pipe()
        self.status: int | None = None

    def fileno(self) -> int:
        return self._read

    def read(self) -> bytes:
        return os.read(self._read, 65536)

    def poll(self) -> int | None:
        return self.status

    def say(self, *events: Event | bytes) -> None:
        for event in events:
            os.write(self.write, event if isinstance(event, bytes) else msgspec.json.encode(event) + b"\n")

    def hang_up(self) -> None: ...
    def send(self, line: bytes) -> None: ...
    def end(self) -> None: ...

    def tail(self) -> tuple[str, ...]:
        return ()

    def close(self) -> None:
        os.close(self._read)
        if self.write >= 0:
            os.close(self.write)

    def close_channel(self) -> None:
        os.close(self.write)
        self.write = -1


@pytest.fixture
def links() -> Iterator[tuple[PipeLink, PipeLink]]:
    found = PipeLink(), PipeLink()
    yield found
    for link in found:
        link.close()


@pytest.fixture
def link(links: tuple[PipeLink, PipeLink]) -> PipeLink:
    return links[0]


def hear(*streams: EventStream) -> None:
    began = time.monotonic()
    listen(streams, began + LATE_S)
    assert time.monotonic() < began + LATE_S, "nothing was heard"


def test_events_come_in_their_order_and_whole(link: PipeLink) -> None:
    found = EventStream(link)
    assert found.take() is None
    link.say(Started(), msgspec.json.encode(Imported(import_s=2.0))[:5])
    hear(found)
    assert found.take() == Started()
    assert found.start_s is not None
    assert found.take() is None, "half a line is no event"
    link.say(msgspec.json.encode(Imported(import_s=2.0))[5:] + b"\n", Done())
    hear(found)
    assert [found.take(), found.take()] == [Imported(import_s=2.0), Done()]
    assert found.taken == [Started(), Imported(import_s=2.0), Done()]
    assert not found.over


def test_what_is_no_event_ends_the_stream(link: PipeLink) -> None:
    found = EventStream(link)
    link.say(b"I am a log line\n", Done())
    hear(found)
    event = found.take()
    assert isinstance(event, Failed)
    assert "a line that is not an event" in event.error
    assert found.over
    assert found.take() is None, "nothing after it can be trusted"


def test_a_process_has_ended_although_a_helper_keeps_its_channel_open(link: PipeLink) -> None:
    found = EventStream(link)
    link.say(FirstStep(first_step_s=1.0))
    link.status = 0
    hear(found)
    assert not found.over, "there is an event to take"
    assert found.take() == FirstStep(first_step_s=1.0)
    hear(found)
    assert found.over
    assert not found.timed_out


def test_a_channel_that_closes_is_heard_of_before_its_process_has_ended(link: PipeLink) -> None:
    found = EventStream(link)
    link.close_channel()
    hear(found)
    assert found.closed
    assert not found.over
    link.status = 7
    hear(found)
    assert found.over
    assert not found.timed_out


def test_a_process_that_does_not_end_is_given_up(link: PipeLink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_EXIT_S", 0.0)
    found = EventStream(link)
    link.close_channel()
    hear(found)
    hear(found)
    assert found.over
    assert found.timed_out


def test_one_of_several_is_heard_while_the_others_are_silent(links: tuple[PipeLink, PipeLink]) -> None:
    first, second = map(EventStream, links)
    links[1].say(Started())
    hear(first, second)
    assert (first.pending, second.pending) == (False, True)
    second.take()
    links[0].status = -9
    hear(first, second)
    assert (first.over, second.over) == (True, False)


def test_nobody_is_heard_for_longer_than_asked(link: PipeLink) -> None:
    found = EventStream(link)
    listen([found], time.monotonic())
    assert not found.over
    found.give_up()
    assert found.over
    assert found.timed_out
