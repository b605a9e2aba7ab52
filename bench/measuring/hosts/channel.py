"""A connection between rank 0 and another rank: both prove that they have the key, then speak JSON.

The transport is `multiprocessing.connection`, of which only bytes are sent and never pickles: whoever knows
the key can ask a rank to train, but not to run code of his own.
"""

import contextlib
import socket
import struct
from collections.abc import Iterator, Sequence
from hashlib import sha256
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from typing import Any

import msgspec

from bench.errors import UnavailableError
from bench.measuring.hosts.launchers import Launched
from bench.measuring.ranks.slots import LOOPBACK

HANDSHAKE_S = 5.0
"""Whoever answers no challenge in this time is another program."""
PORT_TRIES = 8
"""Rank 0 listens at the first port that is free of so many, and the others look for it at all of them."""
_ALL_INTERFACES = "0.0.0.0"  # noqa: S104 (only if the name of the first host is no address of it)
_MOST_BYTES = 2**28
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 30_000}
"""In seconds, a count, and milliseconds: a host that goes without a word is noticed after half a minute,
whether it is silent or does not take what it is sent. From tcp(7)."""
_NO_PARTNER = (AuthenticationError, AssertionError, EOFError, OSError, ValueError)
"""What a handshake raises if the other end has another key, is another program, or is silent."""

LOST = (EOFError, OSError)
"""What using a channel raises if the other end is gone."""


def key_of(launched: Launched, secret: str | None) -> bytes:
    """Return the key of a job: from SAMEWORK_KEY, if it is set, and from what the launcher calls the job.

    Without SAMEWORK_KEY it keeps jobs apart that use the same port. It is no secret, as others can see the
    names of jobs.
    """
    return sha256(f"samework {launched.job} {secret or ''}".encode(errors="surrogateescape")).digest()


class Channel:
    """One end of an authenticated connection. Messages are msgspec structs, as JSON."""

    def __init__(
        self, connection: "Connection[Any, Any]", *, own: tuple[str, int], peer: tuple[str, int]
    ) -> None:
        """`own` and `peer` are the addresses and ports of this end and of the other."""
        self._connection = connection
        self.own, self.peer = own, peer

    def send(self, message: msgspec.Struct) -> None:
        """Send a message. Raises one of `LOST` if the other end is gone."""
        self._connection.send_bytes(msgspec.json.encode(message))

    def receive(self, kind: Any) -> Any:
        """Wait for a message and return it; `kind` is its type, or the union of those that may come.

        Raises one of `LOST` if the other end is gone, or if it sent something else.
        """
        content = self._connection.recv_bytes(_MOST_BYTES)
        try:
            return msgspec.json.decode(content, type=kind)
        except msgspec.DecodeError as error:
            raise OSError(f"{self.peer[0]} sent something that is not a message: {error}") from error

    def ready(self, timeout_s: float = 0.0) -> bool:
        """Whether a message, or the end of the connection, is there within so many seconds."""
        return self._connection.poll(timeout_s)

    def fileno(self) -> int:
        return self._connection.fileno()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.close()


class Meeting:
    """The port at which rank 0 waits for the others; a context."""

    def __init__(self, launched: Launched, key: bytes) -> None:
        """Listen on the loopback if all ranks are on this host, else at the address of the first host.

        Raises UnavailableError if all ports are in use.
        """
        self._key = key
        self._socket = _listen(launched)
        self._socket.setblocking(False)
        self.rejected: list[str] = []
        """The addresses of those who did not have the key."""

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def accept(self) -> Channel | None:
        """Return a channel to the next who has the key; None if there is none now, or it had another key."""
        try:
            accepted, address = self._socket.accept()
        except OSError:  # nobody, or gone already
            return None
        with contextlib.suppress(*_NO_PARTNER):
            return _authenticated(accepted, self._key, listens=True)
        self.rejected.append(str(address[0]))
        return None


def _listen(launched: Launched) -> socket.socket:
    for port in ports_of(launched):
        for address in _own_addresses(launched):
            listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            try:
                # A port of a job that has just ended is free; one at which another program listens is not.
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listening.bind((address, port))
                listening.listen(128)
            except OSError:
                listening.close()
            else:
                return listening
    tried = ports_of(launched)
    raise UnavailableError(
        f"rank 0 cannot listen at {launched.host}: the ports {tried[0]} to {tried[-1]} are in use. Name "
        "another first port with SAMEWORK_PORT, the same for all ranks."
    )


def _own_addresses(launched: Launched) -> Sequence[str]:
    """Return where rank 0 listens, best first.

    The name of the first host may be one that only others know, or be an address of the loopback in the
    file /etc/hosts of that host. Then all its interfaces are used.
    """
    if launched.one_host:
        return (LOOPBACK,)
    try:
        found = socket.getaddrinfo(launched.host, None, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return (_ALL_INTERFACES,)
    addresses = dict.fromkeys(str(entry[4][0]) for entry in found)
    return (*(one for one in addresses if not is_loopback(one)), _ALL_INTERFACES)


def is_loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"


def ports_of(launched: Launched) -> range:
    """Return the ports at which rank 0 may be found."""
    first = min(launched.port, 65536 - PORT_TRIES)
    return range(first, first + PORT_TRIES)


def reach(host: str, ports: Sequence[int], key: bytes) -> tuple[Channel | None, str]:
    """Look for rank 0 at each port once; return a channel to it, or None and why there is none."""
    why = ""
    for port in ports:
        try:
            connected = socket.create_connection((host, port), timeout=HANDSHAKE_S)
        except OSError as error:
            why = why or f"{host}: {error.strerror or error}"
            continue
        try:
            return _authenticated(connected, key, listens=False), ""
        except _NO_PARTNER:
            why = f"{host}:{port}: what listens there does not have the key (SAMEWORK_KEY) of this job"
    return None, why


def _authenticated(connected: socket.socket, key: bytes, *, listens: bool) -> Channel:
    """Prove the key to each other, with a limit of time; raises one of `_NO_PARTNER` if that fails."""
    with connected:
        own, peer = ((str(end[0]), int(end[1])) for end in (connected.getsockname(), connected.getpeername()))
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):  # not on macOS
                connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        connected.setblocking(True)
        with _limited(connected, HANDSHAKE_S):
            connection: Connection[Any, Any] = Connection(connected.fileno())
            try:
                steps = (deliver_challenge, answer_challenge)
                for step in steps if listens else reversed(steps):
                    step(connection, key)
            except BaseException:
                connected.detach()
                connection.close()
                raise
        connected.detach()
    return Channel(connection, own=own, peer=peer)


@contextlib.contextmanager
def _limited(connected: socket.socket, seconds: float) -> Iterator[None]:
    """Let the system limit how long each call waits.

    A timeout of Python's would make the socket non-blocking.
    """
    for limit in (seconds, 0.0):
        whole = int(limit)
        value = struct.pack("ll", whole, int((limit - whole) * 1e6))
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)
        if limit:
            yield
