"""The events that come through a link, and whether more can come; one selector listens to several streams."""

import selectors
import time
from collections.abc import Collection
from typing import Any

import msgspec

from bench.measuring.link import Link
from bench.worker.protocol import AnyEvent, Event, Failed, Started

_POLL_S = 0.2
"""How often the end of a process is looked for that does not close its channel."""
_REAP_S = 0.01
"""The same for one that has closed it, and so has all but ended."""
_EXIT_S = 10.0
"""A worker that still runs so long after its last event hangs in its framework's clean-up."""


class EventStream:
    """The events of one worker in their order.

    The end of the worker is found by polling the process and not by the end of the channel, which a helper
    process that a framework leaves behind would keep open.
    """

    def __init__(self, link: Link, kinds: Any = AnyEvent) -> None:
        """`kinds` is the union of the events that the worker may send."""
        self.link = link
        self.taken: list[Event] = []
        """All events so far that were taken."""
        self.start_s: float | None = None
        """Seconds from here to the first event."""
        self.timed_out = False
        """Whether nobody waits for it any longer although it still ran."""
        self._kinds = kinds
        self._began = time.monotonic()
        self._buffer = b""
        self._garbled = self._shut = False
        self._closed_at: float | None = None

    @property
    def pending(self) -> bool:
        """Whether there is an event to take."""
        return not self._garbled and b"\n" in self._buffer

    @property
    def closed(self) -> bool:
        """Whether the channel has come to its end. The process may still run for a moment."""
        return self._closed_at is not None

    @property
    def over(self) -> bool:
        """Whether no further event can be taken.

        The worker has ended, was given up, or has sent something that is not an event.
        """
        return self._garbled or (self._shut and not self.pending)

    def take(self) -> Event | None:
        """Return the next event that has come; None if there is none.

        A line that is not an event ends the stream, because nothing after it can be trusted.
        """
        if not self.pending:
            return None
        line, self._buffer = self._buffer.split(b"\n", 1)
        try:
            event: Event = msgspec.json.decode(line, type=self._kinds)
        except msgspec.DecodeError as error:
            event = Failed(status="failed", error=f"it sent a line that is not an event: {error}")
            self._garbled = True
        if isinstance(event, Started) and self.start_s is None:
            self.start_s = time.monotonic() - self._began
        self.taken.append(event)
        return event

    def give_up(self) -> None:
        """Hear nothing more of a worker that takes too long."""
        if not self._shut:
            self.timed_out = self.link.poll() is None
            self._shut = True

    def advance(self, *, readable: bool, ended: bool) -> None:
        """Read what has come, if anything has. `ended` says whether the process had ended before that."""
        if readable and not self.closed:
            chunk = self.link.read()
            self._buffer += chunk
            if not chunk:
                self._closed_at = time.monotonic()
        elif ended:
            self._shut = True
        elif self._closed_at is not None and time.monotonic() > self._closed_at + _EXIT_S:
            self.give_up()


def listen(streams: Collection[EventStream], until: float) -> None:
    """Return as soon as one of the streams has an event to take, has closed or is over, or at `until`.

    `until` is a time of the monotonic clock.
    """
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            if not stream.closed:
                selector.register(stream.link, selectors.EVENT_READ, stream)
        while not any(stream.pending or stream.over for stream in streams):
            closed = [stream for stream in streams if stream.closed]
            ended = {stream: stream.link.poll() is not None for stream in streams}
            wait_s = 0.0 if any(ended.values()) else _REAP_S if closed else _POLL_S
            left_s = until - time.monotonic()
            ready = {key.data for key, _ in selector.select(max(0.0, min(wait_s, left_s)))}
            for stream in streams:
                stream.advance(readable=stream in ready, ended=ended[stream])
            if left_s <= 0 or any(stream.closed for stream in streams if stream not in closed):
                return
