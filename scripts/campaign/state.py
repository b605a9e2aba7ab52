"""The state of the code: one SHA-256 over the tracked files that can change a figure.

These are the files of `bench/` and `backends/`, and `constraints.txt`, as they lie in the work tree. All
parts of a campaign have the same state. Results, documentation and the campaign's own scripts may change
between parts.
"""

import hashlib
import os
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from bench.errors import RecordError, UnavailableError
from bench.machine.environment import memory_bytes, parse_cpuinfo, usable_cpus
from bench.machine.git import REDIRECTING

MEASURED = ("bench", "backends", "constraints.txt")
"""What the state covers."""
METHOD = ("scripts/campaign/train_alone.py", "scripts/campaign/validation.py", "tests/benchmarks")
"""What measures beside it: the validation, the benchmarks and the gate's proof. It is fixed like the code."""
COMMITTED = (*MEASURED, *METHOD, "scripts/campaign", "noxfile.py", "pyproject.toml")
"""What has to be committed before a part runs: the code, and the plan."""
CPU_FLAGS = ("avx2", "avx512f")
"""The flags by which the frameworks choose other kernels."""
_CPUINFO = Path("/proc/cpuinfo")


class Cpu(msgspec.Struct, frozen=True, kw_only=True):
    """The CPU of a part. Only parts of equal CPUs are pooled or compared. It has no host's name."""

    model: str
    flags: tuple[str, ...]
    """Those of `CPU_FLAGS` that it has."""
    cpus: int
    """The CPUs that a process may keep busy."""
    memory_gib: int
    """Rounded, as two machines of a kind differ by some pages."""
    family: int | None = None
    """The maker's numbers of the design: two can have the name `AMD EPYC`. The first parts have none."""
    variant: int | None = None

    def may_equal(self, other: "Cpu") -> bool:
        """Whether nothing differs that both record."""
        ours, theirs = msgspec.structs.astuple(self), msgspec.structs.astuple(other)
        return all(one == two or None in (one, two) for one, two in zip(ours, theirs, strict=True))

    def in_words(self) -> str:
        flags = ", ".join(self.flags) or "neither AVX2 nor AVX-512"
        design = "" if self.family is None else f" (family {self.family}, model {self.variant})"
        return f"{self.model}{design}, {self.cpus} CPUs, {self.memory_gib} GiB, {flags}"


def kinds(cpus: Iterable[Cpu]) -> list[list[Cpu]]:
    """Return the different records of CPUs, those together that may be one kind."""
    found: list[list[Cpu]] = []
    for cpu in dict.fromkeys(cpus):
        kind = next((kind for kind in found if all(cpu.may_equal(other) for other in kind)), None)
        if kind is None:
            found.append([cpu])
        else:
            kind.append(cpu)
    return found


def this_cpu() -> Cpu:
    """Return the CPU of this machine."""
    text = _CPUINFO.read_text(encoding="utf-8", errors="replace") if _CPUINFO.is_file() else ""
    model, flags = parse_cpuinfo(text)
    return Cpu(
        model=model or "unknown CPU",
        flags=tuple(flag for flag in CPU_FLAGS if flag in flags),
        cpus=usable_cpus(),
        memory_gib=round(memory_bytes() / 2**30),
        family=_number("cpu family", text),
        variant=_number("model", text),
    )


def _number(name: str, cpuinfo: str) -> int | None:
    found = re.search(rf"^{name}\s*: (\d+)$", cpuinfo, re.MULTILINE)
    return int(found[1]) if found else None


def state_of(root: Path, paths: Sequence[str] = MEASURED) -> str:
    """Return the SHA-256 of the tracked files, by path and content, of the work tree at `root`.

    Raises RecordError if a file that git does not track lies among them: it could change a figure.
    """
    strangers = _git(root, "ls-files", "-z", "--others", "--exclude-standard", "--", *paths)
    if named := [name for name in strangers.split("\0") if name]:
        raise RecordError(
            f"git does not track {', '.join(named)}: commit what belongs to the code, remove the rest."
        )
    return digest(
        {name: (root / name).read_bytes() for name in _tracked(root, paths) if (root / name).is_file()}
    )


def digest(files: Mapping[str, bytes]) -> str:
    """Return the SHA-256 over the names and the contents of files, whatever their order."""
    whole = hashlib.sha256()
    for name, content in sorted(files.items()):
        whole.update(f"{hashlib.sha256(content).hexdigest()}  {name}\n".encode())
    return whole.hexdigest()


def _tracked(root: Path, paths: Sequence[str]) -> list[str]:
    return [name for name in _git(root, "ls-files", "-z", "--", *paths).split("\0") if name]


def commit_of(root: Path) -> str:
    """Return the commit that is checked out."""
    return _git(root, "rev-parse", "HEAD").strip()


def uncommitted(root: Path) -> list[str]:
    """Return the files of the code and the plan that differ from the commit."""
    said = _git(root, "status", "--porcelain", "-z", "--untracked-files=all", "--", *COMMITTED)
    return [line[3:] for line in said.split("\0") if len(line) > 3]


def changed_since(root: Path, commit: str, paths: Sequence[str] = MEASURED) -> list[str] | None:
    """Return the measured files that differ from those of a commit; None if the commit is not at hand."""
    try:
        _git(root, "cat-file", "-e", f"{commit}^{{commit}}")
    except UnavailableError:
        return None
    return _git(root, "diff", "--name-only", commit, "--", *paths).splitlines()


def refuse_another_state(
    root: Path, *, begun: str, commit: str, now: str, paths: Sequence[str] = MEASURED
) -> None:
    """Raise RecordError, with the files that differ if they can be told, if the state is not `begun`."""
    if now == begun:
        return
    changed = changed_since(root, commit, paths)
    differs = (
        f"commit {commit[:10]}, with which it began, is not at hand to tell what differs"
        if changed is None
        else f"{', '.join(changed)} differ from commit {commit[:10]}"
        if changed
        else f"no file differs from commit {commit[:10]}: the campaign began with changes to it"
    )
    raise RecordError(
        f"the campaign has state {begun[:12]} of the code, this is {now[:12]}: {differs}. "
        f"Go on with the code as it was, or begin a new campaign."
    )


def _git(root: Path, *arguments: str) -> str:
    """Return what git prints; raise UnavailableError if it fails."""
    variables = {name: value for name, value in os.environ.items() if name not in REDIRECTING}
    try:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True, env=variables
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        said = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
        raise UnavailableError(f"git {arguments[0]} failed in {root}: {said}") from error
