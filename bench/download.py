"""Download a file over http or https, within limits of time and size."""

import http.client
import socket
import time
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from bench.errors import DataError
from bench.mirrors import Progress, refuse_oversize

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 15.0
"""How long a server may stay silent once it has been reached."""
RETRY_PAUSE_S = 0.5

_BLOCK_BYTES = 1 << 18
_BUSY = (408, 429, 500, 502, 503, 504)
"""The HTTP states that a second try can cure."""


class NotThereError(Exception):
    """The server answered that it has no such file."""


class _ShortError(Exception):
    """The server closed before it had sent all it announced."""


class _SameSafetyRedirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects, but never from https to anything else."""

    def redirect_request(  # noqa: PLR0917 (the signature is the base class's)
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise DataError("redirected away from https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def download(url: str, target: Path, max_bytes: int, progress: Progress) -> Path:
    """Download to `target`, trying once more where that can help."""
    try:
        try:
            _transfer(url, target, max_bytes, progress)
        except (OSError, http.client.HTTPException, _ShortError) as error:
            if not _worth_a_retry(error):
                raise
            time.sleep(RETRY_PAUSE_S)
            _transfer(url, target, max_bytes, progress)
    except (OSError, http.client.HTTPException, _ShortError, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError) and error.code == http.HTTPStatus.NOT_FOUND:
            raise NotThereError from error
        raise DataError(_in_words(error)) from error
    return target


def _transfer(url: str, target: Path, max_bytes: int, progress: Progress) -> None:
    _reach(url)
    opener = urllib.request.OpenerDirector()  # no handlers for file:, ftp: and data:
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _SameSafetyRedirects(),
    ):
        opener.add_handler(handler)
    request = urllib.request.Request(url, headers={"User-Agent": "samework"})  # noqa: S310 (http and https only)
    try:
        response = opener.open(request, timeout=READ_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()  # it holds the connection
        raise
    if response is None:
        raise DataError("only http and https addresses can be fetched")
    with response, target.open("wb") as out:
        announced = response.headers.get("Content-Length")
        total = int(announced) if announced is not None and announced.isdecimal() else None
        refuse_oversize(target.name, total or 0, max_bytes)
        done = 0
        while block := response.read(_BLOCK_BYTES):
            done += len(block)
            refuse_oversize(target.name, done, max_bytes)  # whatever was announced
            out.write(block)
            progress(url, done, total)
    if total is not None and done != total:
        raise _ShortError(f"{target.name} ended after {done} of {total} bytes")


def _reach(url: str) -> None:
    """Raise OSError unless the host accepts a connection within CONNECT_TIMEOUT_S over all its addresses.

    urllib's time limit counts for each address anew: behind a firewall that drops packets, a host with
    eight addresses would take eight times as long to give up.
    """
    parts = urlsplit(url)
    host = parts.hostname
    if host is None or parts.scheme not in ("http", "https"):
        raise DataError(f"not an http or https address: {url}")
    if parts.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        return
    addresses = socket.getaddrinfo(host, parts.port or parts.scheme, type=socket.SOCK_STREAM)
    deadline = time.monotonic() + CONNECT_TIMEOUT_S
    failure: OSError = TimeoutError()
    for tried, (family, kind, protocol, _, address) in enumerate(addresses):
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            break
        with socket.socket(family, kind, protocol) as probe:
            probe.settimeout(max(left_s / (len(addresses) - tried), 1.0))
            try:
                probe.connect(address)
            except OSError as error:
                failure = error
            else:
                return
    # Wrapped, so that a connection that times out is not taken for a server that fell silent.
    raise urllib.error.URLError(failure)


def _worth_a_retry(error: Exception) -> bool:
    """Whether a second try can succeed: not after a refusal, a failed name lookup or a bad certificate."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code in _BUSY
    if isinstance(error, urllib.error.URLError):
        return isinstance(error.reason, ConnectionResetError)
    return isinstance(error, ConnectionResetError | TimeoutError | http.client.IncompleteRead | _ShortError)


def _in_words(error: Exception) -> str:
    """Say in a few words what went wrong."""
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code}"
    connecting = isinstance(error, urllib.error.URLError)
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    known: dict[type, str] = {
        socket.gaierror: "the name of the host cannot be looked up",
        ConnectionRefusedError: "connection refused",
        TimeoutError: f"no connection within {CONNECT_TIMEOUT_S:.0f} s"
        if connecting
        else f"the server was silent for {READ_TIMEOUT_S:.0f} s",
    }
    return known.get(type(reason)) or str(reason) or type(reason).__name__
