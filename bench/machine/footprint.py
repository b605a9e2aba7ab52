"""The installed size of a framework: its distributions and their bytes on disk.

Run as a program, it prints the footprint in its own interpreter:
`python -m bench.machine.footprint '["NAME", "ONE|OTHER"]'`.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

import msgspec
from packaging.markers import UndefinedComparison
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name


class Footprint(msgspec.Struct, frozen=True, kw_only=True):
    """A framework with all distributions that it needs, directly or through others."""

    packages: int
    bytes: int | None
    """The size of all their files; None if one of them has no list of files."""


def footprint(distributions: Sequence[str]) -> Footprint:
    """Return the footprint of the named distributions in this interpreter; `ONE|OTHER` names alternatives.

    Bytecode does not count, because some installers create and list it and others do not. A file that several
    distributions list counts once.
    """
    roots = [name for needed in distributions if (name := _first_installed(needed.split("|")))]
    packages = _closure({root: asked_extras(root) for root in roots})
    sizes: dict[Path, int] = {}
    listed = True
    for name in packages:
        files = metadata.distribution(name).files
        listed = listed and files is not None
        for file in files or ():
            if file.suffix != ".pyc":
                path = Path(file.locate())
                try:
                    sizes[path] = path.lstat().st_size
                except (OSError, ValueError):  # the file was removed, or the entry is not a path
                    continue
    return Footprint(packages=len(packages), bytes=sum(sizes.values()) if listed else None)


def asked_extras(name: str) -> set[str]:
    """Return the extras with which a distribution was probably installed.

    No metadata records them. An extra counts if an installed distribution requires it, possibly only with an
    extra of that distribution, and if everything that the extra adds is installed.
    """
    wanted = canonicalize_name(name)
    extras: set[str] = set()
    for distribution in metadata.distributions():
        for requirement in _requirements(distribution.requires):
            if canonicalize_name(requirement.name) == wanted:
                extras |= requirement.extras
    return {extra for extra in extras if _is_complete(name, extra)}


def _is_complete(name: str, extra: str) -> bool:
    base = {str(requirement) for requirement in _needed(name, set())}
    added = [requirement for requirement in _needed(name, {extra}) if str(requirement) not in base]
    return all(_is_installed(requirement.name) for requirement in added)


def _closure(roots: Mapping[str, set[str]]) -> set[str]:
    """Return the installed distributions among `roots`, given with their extras, and all that they need."""
    # The extras that were followed for each distribution: a later requirement can ask for more of them.
    followed: dict[str, set[str]] = {}
    waiting = [(canonicalize_name(name), extras) for name, extras in roots.items()]
    while waiting:
        name, extras = waiting.pop()
        if not _is_installed(name) or (name in followed and extras <= followed[name]):
            continue
        followed[name] = followed.get(name, set()) | extras
        for requirement in _needed(name, followed[name]):
            waiting.append((canonicalize_name(requirement.name), requirement.extras))
    return set(followed)


def _needed(name: str, extras: set[str]) -> Iterator[Requirement]:
    """Yield the requirements of an installed distribution with these extras on this platform."""
    for requirement in _requirements(metadata.distribution(name).requires):
        try:
            if requirement.marker is None or any(
                requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras)
            ):
                yield requirement
        except UndefinedComparison:  # such as a platform compared like a version
            continue


def _requirements(lines: Sequence[str] | None) -> Iterator[Requirement]:
    for line in lines or ():
        try:
            yield Requirement(line)
        except InvalidRequirement:  # old metadata can contain anything
            continue


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except (metadata.PackageNotFoundError, ValueError):
        return False
    return True


def _first_installed(names: Sequence[str]) -> str | None:
    return next((name for name in names if _is_installed(name)), None)


if __name__ == "__main__":
    asked = msgspec.json.decode(sys.argv[1], type=list[str])
    sys.stdout.write(msgspec.json.encode(footprint(asked)).decode())
