"""The machine and the state of the code: captured once per run, and compared before a run is resumed.

What the system does not report, or reports in an unknown format, is None or empty here, never an error: a
benchmark can measure a CPU whose name it does not know.
"""

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import msgspec

import bench
from bench.machine import git

_CPU_FLAGS = (
    "sse4_2",
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512_bf16",
    "avx512_vnni",
    "amx_bf16",
    "asimd",
    "sve",
)
"""The instruction sets that affect the speed of training. Other flags are not recorded."""
_TUNING = (
    "OMP_", "MKL_", "OPENBLAS_", "KMP_", "GOMP_", "DNNL_", "ONEDNN_", "TF_ENABLE_ONEDNN", "TF_NUM_",
    "CUDA_", "NVIDIA_TF32_OVERRIDE", "NVIDIA_VISIBLE_DEVICES", "XLA_FLAGS", "TF_XLA_FLAGS", "LD_LIBRARY_PATH",
)  # fmt: skip
"""Prefixes of the environment variables that can change a figure."""
_DISTRIBUTION = "samework"
_PROJECT = Path(__file__).resolve().parent.parent.parent
"""The root of the checkout, or the folder in which the package is installed."""
_DRIVER_FILE = Path("/proc/driver/nvidia/version")
_GPU_QUERY = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits")
# A name may contain a comma, and the memory is "[N/A]" if the driver does not report it.
_GPU_ROW = re.compile(r"(\S.*?)\s*,\s*([0-9]+|\[[^]]+\])\s*,\s*([0-9]+(?:\.[0-9]+)+)")
_COMMAND_TIMEOUT_S = 10.0


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU, as its driver reports it."""

    name: str
    memory_mib: int | None
    """None if the driver does not report it, as on chips that share the system's memory."""


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """The machine and the state of the code, as far as they can explain a figure."""

    hostname: str
    system: str
    python: str
    cpu_model: str
    cpu_flags: tuple[str, ...]
    logical_cpus: int
    usable_cpus: int
    """The CPUs that this process may keep busy; a container can have fewer than the machine."""
    memory_bytes: int
    gpus: tuple[Gpu, ...]
    gpu_driver: str | None
    load_average: float
    variables: dict[str, str]
    """The environment variables that are set and can change a figure."""
    version: str
    commit: str | None
    dirty: bool | None
    """Whether the working tree differed from the commit; None outside a checkout."""

    def same_machine(self, other: "Environment") -> bool:
        """Whether figures from both may be part of one run."""
        return self._fingerprint() == other._fingerprint()

    def key(self) -> str:
        """Return a short name that two environments share if and only if they are the same machine.

        Eight hexadecimal digits are enough to tell the machines of one history apart.
        """
        return sha256(msgspec.json.encode(self._fingerprint())).hexdigest()[:8]

    def _fingerprint(self) -> tuple[object, ...]:
        memory_gib = self.memory_bytes // 2**30
        return (self.hostname, self.cpu_model, self.usable_cpus, memory_gib, self.gpus, self.gpu_driver)

    def in_words(self) -> str:
        """Return a one-line description of the machine."""
        gpus = ", ".join(gpu.name for gpu in self.gpus) or "no GPU"
        return f"{self.cpu_model}, {self.usable_cpus} CPUs, {self.memory_bytes / 2**30:.0f} GiB, {gpus}"


def capture_environment() -> Environment:
    """Return the current state of this machine and of this code."""
    import psutil

    cpu_model, cpu_flags = parse_cpuinfo(read_text(Path("/proc/cpuinfo")))
    gpus, gpu_driver = parse_gpus(_output(_GPU_QUERY) or "")
    commit, dirty = source_state(_PROJECT)
    return Environment(
        hostname=platform.node(),
        system=platform.platform(),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        cpu_model=cpu_model or platform.processor() or platform.machine(),
        cpu_flags=cpu_flags,
        logical_cpus=os.cpu_count() or 1,
        usable_cpus=usable_cpus(),
        memory_bytes=psutil.virtual_memory().total,
        gpus=gpus,
        gpu_driver=gpu_driver,
        load_average=psutil.getloadavg()[0],
        variables=tuning_variables(),
        version=_version(),
        commit=commit,
        dirty=dirty,
    )


def tuning_variables() -> dict[str, str]:
    """Return the set environment variables that choose threads, devices, libraries or compiler flags."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(_TUNING)}


def nvidia_driver_present() -> bool:
    """Whether this machine has an NVIDIA driver. A framework may still be unable to use the GPU."""
    # Under WSL the driver belongs to the host and has no file here, but nvidia-smi works.
    return _DRIVER_FILE.exists() or _output(("nvidia-smi",)) is not None


def parse_cpuinfo(text: str) -> tuple[str | None, tuple[str, ...]]:
    """Return the model and the chosen flags of the first CPU in the text of /proc/cpuinfo.

    psutil reports neither, and `platform` only the architecture.
    """
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    # ARM kernels write "Features" instead of "flags", and no model name.
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    return fields.get("model name") or None, tuple(flag for flag in _CPU_FLAGS if flag in flags)


def parse_gpus(text: str) -> tuple[tuple[Gpu, ...], str | None]:
    """Return the GPUs and the driver's version from the rows `name, memory in MiB, driver version`."""
    gpus: list[Gpu] = []
    driver = None
    for line in text.splitlines():
        if row := _GPU_ROW.fullmatch(line.strip()):
            name, memory, driver = row.groups()
            gpus.append(Gpu(name=name, memory_mib=int(memory) if memory.isdecimal() else None))
    return tuple(gpus), driver


def usable_cpus() -> int:
    """Return the number of CPUs that this process may keep busy, at least 1.

    A quota is rounded down, because one thread too many causes all threads to be throttled.
    """
    return max(1, int(granted_cpus()))


def granted_cpus() -> float:
    """Return the number of CPUs, maybe a fraction, that affinity and the container's quota grant."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    allowed = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = cgroup_cpu_quota(read_text(Path("/proc/self/cgroup")), Path("/sys/fs/cgroup"))
    return allowed if quota is None else min(allowed, quota)


def cgroup_cpu_quota(memberships: str, mount: Path) -> float | None:
    """Return the number of CPUs, maybe a fraction, that control groups grant; None if none sets a limit.

    `memberships` is the text of /proc/self/cgroup; `mount` is the folder of the groups' files. (psutil does
    not report quotas.)
    """
    quotas: list[float | None] = []
    for folder in cpu_groups(memberships, mount):
        # A system has the files of version 2 or those of version 1.
        quotas.append(parse_cpu_max(read_text(folder / "cpu.max")))
        period = read_text(folder / "cpu.cfs_period_us")
        quotas.append(parse_cpu_max(f"{read_text(folder / 'cpu.cfs_quota_us')} {period}"))
    return min((quota for quota in quotas if quota is not None), default=None)


def cpu_groups(memberships: str, mount: Path) -> list[Path]:
    """Return the folders, under `mount`, of the control groups whose CPU limits apply to this process.

    `memberships` is the text of /proc/self/cgroup. Some of the folders may not exist.
    """
    folders: list[Path] = []
    for line in memberships.splitlines():
        _, _, membership = line.partition(":")
        controllers, colon, path = membership.partition(":")
        if colon and controllers == "":  # version 2
            folders += _upwards(mount, path)
        elif colon and "cpu" in controllers.split(","):  # version 1, mounted under the controllers' names
            folders += _upwards(mount / controllers, path)
    return folders


def parse_cpu_max(text: str) -> float | None:
    """Return quota / period from the text `quota period`; None for `max`, -1 or anything unknown."""
    words = text.split()
    if len(words) != 2 or not all(word.isdecimal() for word in words):
        return None
    quota, period = (int(word) for word in words)
    return quota / period if quota and period else None


def _upwards(mount: Path, path: str) -> list[Path]:
    """Return the folder of a control group and those of its parents, up to `mount`.

    The limits of all parents apply as well. In a container the path can be that of the host, which does not
    exist here; the group of the container is then at the mount.
    """
    folder = mount / path.strip().strip("/")
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(mount))]


def source_state(project: Path) -> tuple[str | None, bool | None]:
    """Return the commit of the checkout in `project`, and whether tracked files differ from it."""
    command = ("git", "-C", str(project))
    toplevel = _output((*command, "rev-parse", "--show-toplevel"))
    # A package that is installed inside another checkout must not report the commit of that checkout.
    if not toplevel or Path(toplevel.strip()).resolve() != project.resolve():
        return None, None
    # Untracked files, such as new results, do not change the code.
    status = _output((*command, "status", "--porcelain=v2", "--branch", "--untracked-files=no"))
    return parse_git_status(status or "")


def commit_notes(environment: Environment) -> tuple[str, ...]:
    """Return a note if the commit is unknown although this program runs from a checkout, with the reason."""
    why = None if environment.commit else git.why_unread(_PROJECT)
    return (f"NOTE: the commit of this program is not recorded: {why}",) if why else ()


def parse_git_status(text: str) -> tuple[str | None, bool | None]:
    """Return the commit, and whether any file differs, from `git status --porcelain=v2 --branch`."""
    commit = None
    dirty = False
    for line in text.splitlines():
        if line.startswith("# branch.oid "):
            commit = line.removeprefix("# branch.oid ").strip()
        elif line.strip() and not line.startswith("#"):
            dirty = True
    if not commit or commit == "(initial)":  # no commit yet
        return None, None
    return commit, dirty


def peak_rss_bytes() -> tuple[int, str]:
    """Return the peak of this process's resident memory in bytes, and the method.

    Pages of files are subtracted if the system reports them: how many pages of a library are resident depends
    on how it came into the page cache, and the system drops them at any time.
    """
    # psutil reports no peak. ru_maxrss is the last choice: on Linux it starts at the peak of the process that
    # forked this one, so a worker that is started by a large harness would report the harness.
    peak, files = parse_resident(read_text(Path("/proc/self/status")))
    if peak is not None and files is not None:
        return peak - files, "VmHWM - RssFile"
    if peak is not None:
        return peak, "VmHWM"
    import resource  # not on every platform

    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "ru_maxrss"


def parse_resident(text: str) -> tuple[int | None, int | None]:
    """Return VmHWM, the peak of all pages, and RssFile, in bytes, from the text of /proc/PID/status."""
    found = {"VmHWM:": None, "RssFile:": None} | {
        name: int(kib) * 1024
        for name, kib, *unit in (line.split() for line in text.splitlines() if len(line.split()) == 3)
        if unit == ["kB"] and kib.isdecimal()
    }
    return found["VmHWM:"], found["RssFile:"]


def read_text(path: Path) -> str:
    """Return the text of a file; empty if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):  # ValueError: the path contains NUL
        return ""


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version(_DISTRIBUTION)
    except metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return bench.__version__


def _output(command: Sequence[str]) -> str | None:
    """Return the output of a command; None if it is missing, fails or takes too long."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=True,
            timeout=_COMMAND_TIMEOUT_S,
            env=git.variables(),
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
