"""Make the code and the environments that a side of a comparison runs in.

Both are kept in a folder and made once: code under its commit, an environment under the digest of everything
that it was made from. An installation that was interrupted is made again. Workers run a copy of the code.
"""

import contextlib
import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from backends.info import BackendInfo
from bench.errors import UnavailableError, UsageError
from bench.gate.sides import PACKAGES, SideSpec
from bench.machine import git
from bench.paths import refusal
from bench.progress import Display
from bench.workloads.specs import Device

PROJECT = Path(__file__).resolve().parent.parent.parent
"""The root of the checkout, if the program runs from one."""
_FULL = os.strerror(errno.ENOSPC)
_STAMP = "installed.sha256"
_UNNEEDED = ("results", "tests", "docs")
"""Folders of a commit that no worker reads."""


def fetch_code(revision: str, folder: Path) -> tuple[Path, str]:
    """Return the folder of a commit's code, and the commit.

    Raises UsageError for an unknown revision, and UnavailableError if git or the folder cannot be used.
    """
    try:
        commit = git.find_commit(PROJECT, revision)
        code = folder / commit
        archive = b"" if code.is_dir() else git.archive(PROJECT, commit, without=_UNNEEDED)
    except git.GitError as error:
        raise UnavailableError(f"the revision {revision!r} cannot be read: {error}") from error
    if archive:
        try:
            _extract(archive, code)
        except (OSError, tarfile.TarError) as error:
            why = refusal(error, folder) if isinstance(error, OSError) else str(error)
            raise UnavailableError(
                f"the code of {revision!r} cannot be put into {folder}: {why}. "
                "Name another folder with --environments."
            ) from error
    return code, commit


def _extract(archive: bytes, code: Path) -> None:
    """Extract an archive into a folder. The folder exists only once it is complete."""
    code.parent.mkdir(parents=True, exist_ok=True)
    part = code.with_name(f"{code.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        with tarfile.open(fileobj=BytesIO(archive)) as tar:
            tar.extractall(part, filter="data")
        part.rename(code)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)  # half of it only fills the disk
        raise


def copy_code(source: Path, place: Path) -> Path:
    """Copy the packages that workers run into the new folder `place`, without bytecode, and return it.

    Both sides of a comparison run such copies, in sibling folders whose names are equally long. So they do
    not differ in the length of paths, in the file system, or in bytecode that only one of them has.
    Raises UnavailableError if the copy cannot be written.
    """
    try:
        for package in PACKAGES:
            if (source / package).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source / package, place / package, ignore=ignored)
    except OSError as error:
        why = error.args[0][0][2] if isinstance(error, shutil.Error) else refusal(error, place)
        raise UnavailableError(
            f"the code in {source} cannot be copied to {place}: {why}. "
            "Name another folder for temporary files with the variable TMPDIR."
        ) from error
    return place


def needs_own(spec: SideSpec, source: Path) -> bool:
    """Whether a side needs environments of its own: for versions, or for code that needs other packages."""
    return bool(spec.pins) or _needed(source) != _needed(PROJECT)


def _needed(source: Path) -> tuple[object, ...]:
    """Return everything that decides which packages an environment for the code has."""
    try:
        project = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    except (OSError, ValueError, KeyError):
        return (None, str(source))
    return (
        project.get("dependencies"),
        project.get("optional-dependencies"),
        project.get("requires-python"),
        "\n".join(_constraints(source)),
    )


def _constraints(source: Path) -> list[str]:
    path = source / "constraints.txt"
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def holds_pinned(versions: Mapping[str, str], source: Path) -> bool:
    """Whether an environment that is made for the code would have the same versions, by distribution.

    A local version, such as `+cpu`, names a build and not other code.
    """
    pinned: dict[str, str] = {}
    for line in _constraints(source):
        with contextlib.suppress(InvalidRequirement):  # a comment, or an option of pip
            one = Requirement(line)
            if one.marker is None or one.marker.evaluate():
                pinned[canonicalize_name(one.name)] = str(one.specifier).removeprefix("==")
    return bool(versions) and all(
        pinned.get(canonicalize_name(name)) == version.partition("+")[0] for name, version in versions.items()
    )


def concerned(spec: SideSpec, infos: Mapping[str, BackendInfo]) -> list[str]:
    """Return the backends that need one of the side's pinned distributions; all if none does."""
    names = [
        name
        for name, info in infos.items()
        if any(
            pin.startswith(needed) or needed.startswith(pin) for pin in spec.pins for needed in info.packages
        )
    ]
    return names or list(infos)


def make_environment(
    spec: SideSpec, source: Path, backend: str, device: Device, *, folder: Path, display: Display
) -> Path:
    """Return the interpreter of an environment for a backend of a side; make the environment if needed.

    Raises UnavailableError, with pip's last message, if it cannot be installed.
    """
    if not (source / "pyproject.toml").is_file():
        raise UsageError(
            f"{source} is not a checkout, so no environment can be made from it. Name interpreters that have "
            "the versions to compare: --python NAME=PATH"
        )
    suffix = "-gpu" if device == "gpu" else ""
    extras = [f"{part}{suffix}" for part in backend.split("-")]
    # Distributions with a requested version, and related ones such as jaxlib, are not pinned.
    kept = [line for line in _constraints(source) if not line.startswith(tuple(spec.pins))]
    wanted = [f"{source}[{','.join(extras)}]", *(f"{name}=={version}" for name, version in spec.pins.items())]
    digest = hashlib.sha256(
        "\n".join([sys.version, str(_needed(source)), *kept, *extras, *wanted[1:]]).encode()
    ).hexdigest()
    environment = folder / f"{backend}-{digest[:16]}"
    python = environment / "bin" / "python"
    stamp = environment / _STAMP
    if stamp.is_file() and stamp.read_text() == digest:
        return python
    what = " ".join([backend, *wanted[1:]])
    display.say(f"Installing {what} into {environment}; the first time can take minutes.")
    with _named_if_full(environment, what):
        _run([sys.executable, "-P", "-m", "venv", "--clear", str(environment)], what)
        constraints = environment / "constraints.txt"
        constraints.write_text("\n".join(kept) + "\n", encoding="utf-8")
        _run([str(python), "-P", "-m", "pip", "install", "--quiet", "-c", str(constraints), *wanted], what)
        stamp.write_text(digest)
    return python


@contextlib.contextmanager
def _named_if_full(environment: Path, what: str) -> Iterator[None]:
    """Raise UnavailableError with the size of the disk if it is full, whoever met that."""
    try:
        yield
    except (OSError, UnavailableError) as error:
        if _FULL not in str(error):
            raise
        why = refusal(OSError(errno.ENOSPC, _FULL), environment)
        raise UnavailableError(
            f"{what} could not be installed into {environment}: {why}. Name another folder with "
            "--environments, and another one for temporary files with the variable TMPDIR."
        ) from error


def _run(command: Sequence[str], what: str) -> None:
    try:
        subprocess.run(command, capture_output=True, text=True, errors="replace", check=True)
    except subprocess.CalledProcessError as error:
        said = [line for line in error.stderr.splitlines() if line.strip()] or [f"status {error.returncode}"]
        told = next((line for line in said if line.startswith("ERROR:")), said[-1]).removeprefix("ERROR: ")
        raise UnavailableError(
            f"{what} could not be installed: {told}. Ask for versions that go together, such as "
            "--head jax==0.9.2 --head jaxlib==0.9.2."
        ) from error
