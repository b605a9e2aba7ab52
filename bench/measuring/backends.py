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
from bench.measuring.plugins import load_info, read_infos
from bench.text import listed

GROUP = "bench.backends"
_OWN_MODULE = "backends.catalog"
"""The module of this project's own descriptions. It is imported here; those of others, in a child process."""
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
    """Read the entry points of the group `bench.backends`. None of them imports a framework.

    A name that two distributions give to different backends belongs to neither.
    """
    entries, broken = _entry_points()
    named: dict[str, dict[str, metadata.EntryPoint]] = {}
    for entry in entries:
        named.setdefault(entry.name, {}).setdefault(entry.value, entry)
    usable = [next(iter(same.values())) for same in named.values() if len(same) == 1]
    for name, same in named.items():
        if len(same) > 1:
            broken[name] = (
                f"backend {name!r} cannot be used, because several distributions have one of that name: "
                f"{listed([_origin(entry) for entry in same.values()])}. Uninstall all but one."
            )
    backends: dict[str, BackendInfo] = {}
    for entry, found in zip(usable, _read(usable), strict=True):
        fault = found if isinstance(found, str) else _fault(entry.name, found)
        if fault is not None:
            broken[entry.name] = f"backend {entry.name!r} ({entry.value}) cannot be used: {fault}"
        elif isinstance(found, BackendInfo):
            backends[entry.name] = found
    return Registry(backends=backends, broken=broken)


def _entry_points() -> tuple[list[metadata.EntryPoint], dict[str, str]]:
    """Return the entry points of backends, and for each distribution whose own cannot be read, the reason."""
    try:
        return list(metadata.entry_points(group=GROUP)), {}
    except Exception:  # one damaged file hides the entry points of all distributions
        found: dict[str, list[metadata.EntryPoint]] = {}
        damaged: dict[str, str] = {}
        for distribution in metadata.distributions():
            name = str(distribution.metadata["Name"])
            try:
                # The first on the path counts, as it does for an import.
                found.setdefault(name, list(distribution.entry_points.select(group=GROUP)))
            except Exception as error:
                damaged[name] = f"the entry points of the distribution {name!r} cannot be read: {error}"
        return [entry for entries in found.values() for entry in entries], damaged


def _read(entries: Sequence[metadata.EntryPoint]) -> list[BackendInfo | str]:
    """Return the description behind each entry point, or why it cannot be used."""
    others = [entry.value for entry in entries if not _is_own(entry)]
    found = dict(zip(others, read_infos(others), strict=True))
    return [load_info(entry.value) if _is_own(entry) else found[entry.value] for entry in entries]


def _is_own(entry: metadata.EntryPoint) -> bool:
    return entry.value.partition(":")[0].strip() == _OWN_MODULE


def _origin(entry: metadata.EntryPoint) -> str:
    """Return the distribution of an entry point, and what it names."""
    name = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown distribution"
    return f"{name} ({entry.value})"


def _fault(name: str, info: BackendInfo) -> str | None:
    """Return why a description breaks the contract; None if it does not."""
    if info.name != name:
        return f"its BackendInfo is called {info.name!r}; it must have the entry point's name."
    if (defaults := sum(mode.default for mode in info.modes)) != 1:
        return f"{defaults} of its modes are marked as default; it must be exactly one."
    return None


def installed_versions(
    infos: list[BackendInfo], pythons: Mapping[str, Path]
) -> dict[str, tuple[dict[str, str], list[str]]]:
    """Return the versions of each backend's distributions in its interpreter, and the missing ones."""
    found = {}
    for info in infos:
        wanted = [name for needed in info.distributions for name in needed.split("|")]
        versions = _versions(named_python(info, pythons), wanted)
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
            [str(python), "-P", "-c", _VERSIONS_SCRIPT, json.dumps(names)],
            capture_output=True, text=True, errors="replace", timeout=_VERSIONS_LIMIT_S, check=True,
        ).stdout  # fmt: skip
        return dict(json.loads(output))
    except subprocess.CalledProcessError as error:
        said = (error.stderr.strip().splitlines() or [f"it ended with status {error.returncode}"])[-1]
        if "Unknown option: -P" in error.stderr:
            raise UsageError(f"--python: {python} is older than Python 3.11, which workers need.") from error
        raise UsageError(f"--python: {python} does not run as a Python interpreter: {said}") from error
    except subprocess.TimeoutExpired as error:
        raise UsageError(f"--python: {python} gave no answer within {error.timeout:.0f} s") from error
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"--python: {python} does not run as a Python interpreter: {error}") from error


def named_python(info: BackendInfo, pythons: Mapping[str, Path]) -> Path | None:
    """Return the interpreter that was named for a backend, or else for its engine; None: neither was."""
    return pythons.get(info.name) or pythons.get(info.engine or "")


def interpreter(info: BackendInfo, pythons: Mapping[str, Path]) -> Path:
    """Return the interpreter that a backend's workers run in."""
    return named_python(info, pythons) or Path(sys.executable)


_LIMIT_S = 120.0
"""A framework has tens of thousands of files, and the size of each is read."""


def footprints(infos: Sequence[BackendInfo], pythons: Mapping[str, Path]) -> dict[str, Footprint]:
    """Return the installed size of each backend's distributions in its interpreter, by the backend's name.

    A backend is missing if none of its distributions is installed, or if its interpreter does not answer.
    """
    found = {}
    for info in infos:
        python = named_python(info, pythons)
        own = footprint(info.distributions) if python is None else _ask(python, info.distributions)
        if own is not None and own.packages:
            found[info.name] = own
    return found


def _ask(python: Path, distributions: Sequence[str]) -> Footprint | None:
    names = msgspec.json.encode(distributions).decode()
    try:
        done = subprocess.run(
            [str(python), "-P", "-m", "bench.machine.footprint", names],
            capture_output=True, timeout=_LIMIT_S, check=True,
        )  # fmt: skip
        return msgspec.json.decode(done.stdout, type=Footprint)
    except (OSError, subprocess.SubprocessError, msgspec.MsgspecError):
        return None
