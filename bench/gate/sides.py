"""The two sides of a comparison side by side: what each is asked to be, and what it really is.

A side is this checkout or one of its commits, with the frameworks that are installed or other versions of
them, under the variables that are set or others. Its workers run its own code, and what its backends and
workloads are is asked of that code, never assumed: a change of a workload's learning rate is one of the
things that a comparison is made to find.
"""

import hashlib
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from backends.info import BackendInfo
from bench.errors import RecordError, UsageError
from bench.records.schema import BackendHere
from bench.workloads.specs import Workload

SideName: TypeAlias = Literal["base", "head"]
SIDES: tuple[SideName, SideName] = ("base", "head")
PACKAGES = ("bench", "backends")
"""The packages whose code workers run."""

_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.!+*_-]+)")
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_DESCRIBE_LIMIT_S = 60.0
_DESCRIBE = """
import sys, msgspec
try:
    from bench.measuring.backends import find_backends
    from bench.workloads.catalog import WORKLOADS
    from bench.worker import protocol
except ImportError:  # a commit from before the modules had folders
    from bench.registry import find_backends
    from bench.workloads import WORKLOADS
    from bench import protocol
registry = find_backends()
told = {"backends": registry.backends, "broken": registry.broken, "workloads": dict(WORKLOADS)}
told["protocol"] = getattr(protocol, "VERSION", 1)
sys.stdout.buffer.write(msgspec.json.encode(told))
"""
"""Uses only what every version of this program has. Its output is read as a `Description`."""


class SideSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a side is asked to be."""

    asked: tuple[str, ...] = ()
    """As on the command line."""
    revision: str | None = None
    """Of this repository; None: the working tree, with whatever was changed in it."""
    pins: Mapping[str, str] = {}
    """Version by distribution, in place of what is installed."""
    variables: Mapping[str, str] = {}


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What a side's own code offers."""

    backends: dict[str, BackendInfo]
    broken: dict[str, str]
    workloads: dict[str, Workload]
    protocol: int
    """That its workers follow (`bench/worker/protocol.py`)."""


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """A side that can be measured."""

    name: SideName
    spec: SideSpec
    source: Path
    """The folder of the code that its workers run: a copy, as long as the comparison lasts."""
    commit: str | None
    dirty: bool | None
    pythons: Mapping[str, Path]
    """The interpreter of each backend's workers."""
    made: tuple[str, ...] = ()
    """The backends that run in environments which this program made."""
    described: Description
    versions: Mapping[str, Mapping[str, str]]

    def info(self, backend: str) -> BackendInfo:
        """Return a backend as this side's workers are started with: its code first, and its variables."""
        info = self.described.backends[backend]
        own = {**code_variables(self.source), **self.spec.variables}
        return msgspec.structs.replace(
            info,
            environment={**info.environment, **own},
            cpu_environment={**info.cpu_environment, **own},  # which come after the others
        )


class SideHere(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a side that is recorded."""

    asked: tuple[str, ...]
    commit: str | None
    dirty: bool | None
    code: str | None = None
    """Digest of the code; None in older comparisons, which did not record it."""
    variables: dict[str, str]
    pins: dict[str, str]
    made: tuple[str, ...] = ()
    """The backends that ran in environments which this program made; empty in older comparisons."""
    backends: tuple[BackendHere, ...]
    workloads: tuple[Workload, ...]


def parse_side(values: Sequence[str]) -> SideSpec:
    """Read the values of --base or --head: a revision, `torch==2.13.0`, or `NAME=VALUE`, in any number.

    Raises UsageError for what is none of these, and for a second revision.
    """
    pins: dict[str, str] = {}
    variables: dict[str, str] = {}
    revision = None
    for value in values:
        if pin := _PIN.fullmatch(value):
            pins[pin[1].lower().replace("_", "-")] = pin[2]
        elif variable := _VARIABLE.fullmatch(value):
            variables[variable[1]] = variable[2]
        elif not value or value.startswith("-"):
            raise UsageError(
                f"{value!r} is not a revision, a version (torch==2.13.0) or a variable (OMP_NUM_THREADS=1)."
            )
        elif revision is not None:
            raise UsageError(f"a side has one revision; got {revision!r} and {value!r}.")
        else:
            revision = value
    return SideSpec(asked=tuple(values), revision=revision, pins=pins, variables=variables)


def code_digest(source: Path) -> str:
    """Return the SHA-256 of the code in a folder that workers may run."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((source / package).rglob("*.py")):
            digest.update(f"{path.relative_to(source)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def code_variables(source: Path) -> dict[str, str]:
    """Return the variables with which an interpreter imports the code in a folder and no other.

    The safe path keeps the folder that a worker is started in from coming before it.
    """
    path = [str(source), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(path), "PYTHONSAFEPATH": "1"}


def describe(python: Path, source: Path) -> Description:
    """Ask the code in `source` for its backends and workloads; raise RecordError if it does not answer."""
    try:
        told = subprocess.run(
            [str(python), "-c", _DESCRIBE],
            env={**os.environ, **code_variables(source)},
            capture_output=True,
            check=True,
            timeout=_DESCRIBE_LIMIT_S,
        ).stdout
        return msgspec.json.decode(told, type=Description)
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError) as error:
        said = (
            error.stderr.decode(errors="replace") if isinstance(error, subprocess.CalledProcessError) else ""
        )
        why = (said.strip().splitlines() or [str(error)])[-1]
        raise RecordError(
            f"the code in {source} cannot be asked for its backends and workloads: {why}. "
            "Compare it with a commit that is nearer to it."
        ) from error
