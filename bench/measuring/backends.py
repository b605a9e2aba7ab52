"""Find the backends by their entry points, and the versions that are installed of what they need."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import msgspec

from backends.info import BackendInfo
from bench.errors import ContractError, UsageError, unknown
from bench.machine.footprint import Footprint, footprint

GROUP = "bench.backends"
_VERSIONS_LIMIT_S = 30.0
_VERSIONS_SCRIPT = """
import json, sys
from importlib import metadata
def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
print(json.dumps({name: version(name) for name in json.loads(sys.argv[1])}))
"""


class Registry(msgspec.Struct, frozen=True, kw_only=True):
    """The backends by name, and for each entry point that cannot be used, the reason."""

    backends: dict[str, BackendInfo]
    broken: dict[str, str]

    def find(self, name: str) -> BackendInfo:
        """Return the backend of that name; raise UsageError or ContractError where there is none."""
        if name in self.broken:
            raise ContractError(self.broken[name])
        if name not in self.backends:
            raise unknown("backend", name, list(self.backends), "bench list shows all")
        return self.backends[name]

    def names(self) -> set[str]:
        """Return every name that an entry point has, usable or not."""
        return self.backends.keys() | self.broken.keys()

    def frameworks(self) -> list[BackendInfo]:
        """Return the backends that are compared by default."""
        return [info for info in self.backends.values() if not (info.reference or info.on_request)]


def find_backends() -> Registry:
    """Load the entry points of the group `bench.backends`. None of them imports a framework."""
    backends: dict[str, BackendInfo] = {}
    broken: dict[str, str] = {}
    for entry in metadata.entry_points(group=GROUP):
        try:
            info = entry.load()
            _check_info(entry.name, info)
            backends[entry.name] = info
        except Exception as error:  # an error in one backend's module must not hide the others
            broken[entry.name] = f"backend {entry.name!r} ({entry.value}) cannot be used: {error}"
    return Registry(backends=backends, broken=broken)


def _check_info(name: str, info: object) -> None:
    if not isinstance(info, BackendInfo):
        raise ContractError(f"its entry point must name a BackendInfo, not a {type(info).__name__}.")
    if info.name != name:
        raise ContractError(f"its BackendInfo is called {info.name!r}; it must have the entry point's name.")
    if (taught := sum(mode.taught for mode in info.modes)) != 1:
        raise ContractError(f"{taught} of its modes are marked as taught; it must be exactly one.")


def installed_versions(
    infos: list[BackendInfo], pythons: Mapping[str, Path]
) -> dict[str, tuple[dict[str, str], list[str]]]:
    """Return the versions of each backend's distributions in its interpreter, and the missing ones."""
    found = {}
    for info in infos:
        wanted = [name for needed in info.distributions for name in needed.split("|")]
        versions = _versions(pythons.get(info.name), wanted)
        present = {name: version for name, version in versions.items() if version is not None}
        missing = [needed for needed in info.distributions if not present.keys() & set(needed.split("|"))]
        found[info.name] = (present, missing)
    return found


def _versions(python: Path | None, names: list[str]) -> dict[str, str | None]:
    if python is None:
        from importlib import metadata

        versions: dict[str, str | None] = {}
        for name in names:
            try:
                versions[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                versions[name] = None
        return versions
    try:
        output = subprocess.run(
            [str(python), "-c", _VERSIONS_SCRIPT, json.dumps(names)],
            capture_output=True, text=True, errors="replace", timeout=_VERSIONS_LIMIT_S, check=True,
        ).stdout  # fmt: skip
        return dict(json.loads(output))
    except subprocess.CalledProcessError as error:
        said = (error.stderr.strip().splitlines() or [f"it ended with status {error.returncode}"])[-1]
        raise UsageError(f"--python: {python} does not run as a Python interpreter: {said}") from error
    except subprocess.TimeoutExpired as error:
        raise UsageError(f"--python: {python} gave no answer within {error.timeout:.0f} s") from error
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"--python: {python} does not run as a Python interpreter: {error}") from error


def interpreter(info: BackendInfo, pythons: Mapping[str, Path]) -> Path:
    """Return the interpreter that a backend's workers run in."""
    return pythons.get(info.name, Path(sys.executable))


_LIMIT_S = 120.0
"""A framework has tens of thousands of files, and the size of each is read."""


def footprints(infos: Sequence[BackendInfo], pythons: Mapping[str, Path]) -> dict[str, Footprint]:
    """Return the installed size of each backend's distributions in its interpreter, by the backend's name.

    A backend is missing if none of its distributions is installed, or if its interpreter does not answer.
    """
    found = {}
    for info in infos:
        python = pythons.get(info.name)
        own = footprint(info.distributions) if python is None else _ask(python, info.distributions)
        if own is not None and own.packages:
            found[info.name] = own
    return found


def _ask(python: Path, distributions: Sequence[str]) -> Footprint | None:
    names = msgspec.json.encode(distributions).decode()
    try:
        done = subprocess.run(
            [str(python), "-m", "bench.machine.footprint", names],
            capture_output=True, timeout=_LIMIT_S, check=True,
        )  # fmt: skip
        return msgspec.json.decode(done.stdout, type=Footprint)
    except (OSError, subprocess.SubprocessError, msgspec.MsgspecError):
        return None
