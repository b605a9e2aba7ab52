"""What machine this is: captured once a run, compared before a run is resumed.

Whatever the system does not tell, or tells in words nobody foresaw, is None or empty here, never an error: a
benchmark that cannot name its CPU can still measure it.
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
"""The instruction sets that decide how fast a network trains; the other flags are left out."""
_TUNING = (
    "OMP_", "MKL_", "OPENBLAS_", "KMP_", "GOMP_", "DNNL_", "ONEDNN_", "TF_ENABLE_ONEDNN", "TF_NUM_",
    "CUDA_", "NVIDIA_TF32_OVERRIDE", "NVIDIA_VISIBLE_DEVICES", "XLA_FLAGS", "TF_XLA_FLAGS", "LD_LIBRARY_PATH",
)  # fmt: skip
"""How the names begin of those environment variables that can change a figure."""
_DISTRIBUTION = "samework"
_PROJECT = Path(__file__).resolve().parent.parent.parent
"""The root of the checkout, if this is one; else whatever folder the package was installed in."""
_DRIVER_FILE = Path("/proc/driver/nvidia/version")
_GPU_QUERY = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits")
# A name may hold a comma, and memory is "[N/A]" where the driver does not tell it.
_GPU_ROW = re.compile(r"(\S.*?)\s*,\s*([0-9]+|\[[^]]+\])\s*,\s*([0-9]+(?:\.[0-9]+)+)")
_COMMAND_TIMEOUT_S = 10.0


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU as its driver names it."""

    name: str
    memory_mib: int | None
    """None where the driver does not tell, as on chips that share the system's memory."""


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """The machine and the state of the code, as far as they explain a figure."""

    hostname: str
    system: str
    python: str
    cpu_model: str
    cpu_flags: tuple[str, ...]
    logical_cpus: int
    usable_cpus: int
    """CPUs this process may run on, which a container can make fewer."""
    memory_bytes: int
    gpus: tuple[Gpu, ...]
    gpu_driver: str | None
    load_average: float
    variables: dict[str, str]
    """Those environment variables, where set, that change how many threads or which device is used."""
    version: str
    commit: str | None
    dirty: bool | None
    """Whether the working tree differed from the commit; None outside a checkout."""

    def same_machine(self, other: "Environment") -> bool:
        """Whether figures taken in both may stand in one run."""
        return self._fingerprint() == other._fingerprint()

    def key(self) -> str:
        """Return a short name that two environments share exactly where `same_machine` holds.

        Not by chance: eight hexadecimal digits are enough for the machines that one history has.
        """
        return sha256(msgspec.json.encode(self._fingerprint())).hexdigest()[:8]

    def _fingerprint(self) -> tuple[object, ...]:
        memory_gib = self.memory_bytes // 2**30
        return (self.hostname, self.cpu_model, self.usable_cpus, memory_gib, self.gpus, self.gpu_driver)

    def in_words(self) -> str:
        """Return the machine in one line for a person."""
        gpus = ", ".join(gpu.name for gpu in self.gpus) or "no GPU"
        return f"{self.cpu_model}, {self.usable_cpus} CPUs, {self.memory_bytes / 2**30:.0f} GiB, {gpus}"


def capture_environment() -> Environment:
    """Return what this machine and this code are now."""
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
    """Return the variables, where set, that choose threads, devices, libraries or compiler flags."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(_TUNING)}


def nvidia_driver_present() -> bool:
    """Whether this machine has an NVIDIA driver, which is not yet a GPU that a framework can use."""
    # nvidia-smi is asked as well because under WSL the driver is the host's and has no file here.
    return _DRIVER_FILE.exists() or _output(("nvidia-smi",)) is not None


def parse_cpuinfo(text: str) -> tuple[str | None, tuple[str, ...]]:
    """Return the model and the chosen flags of the first CPU in the text of /proc/cpuinfo."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    # ARM kernels write "Features" for "flags", and no model name.
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
    """Return how many CPUs this process may keep busy, at least 1.

    A quota is rounded down, since a thread too many is throttled along with all the others.
    """
    return max(1, int(granted_cpus()))


def granted_cpus() -> float:
    """Return how many CPUs' worth of time this process may use, by its affinity and its container's quota."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    allowed = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = cgroup_cpu_quota(read_text(Path("/proc/self/cgroup")), Path("/sys/fs/cgroup"))
    return allowed if quota is None else min(allowed, quota)


def cgroup_cpu_quota(memberships: str, mount: Path) -> float | None:
    """Return the CPUs' worth of time that control groups grant, None where none sets a limit.

    `memberships` is the text of /proc/self/cgroup; the groups' files are looked for under `mount`.
    """
    quotas: list[float | None] = []
    for folder in cpu_groups(memberships, mount):
        # Only one of the two versions has its files there.
        quotas.append(parse_cpu_max(read_text(folder / "cpu.max")))
        period = read_text(folder / "cpu.cfs_period_us")
        quotas.append(parse_cpu_max(f"{read_text(folder / 'cpu.cfs_quota_us')} {period}"))
    return min((quota for quota in quotas if quota is not None), default=None)


def cpu_groups(memberships: str, mount: Path) -> list[Path]:
    """Return the folders, under `mount`, of the control groups whose CPU limits hold for this process.

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
    """Return the CPUs' worth of time in `quota period`, None for `max`, -1 or anything unknown."""
    words = text.split()
    if len(words) != 2 or not all(word.isdecimal() for word in words):
        return None
    quota, period = (int(word) for word in words)
    return quota / period if quota and period else None


def _upwards(mount: Path, path: str) -> list[Path]:
    """Return the folder of a control group and those of its parents, up to `mount`.

    Every parent's limit holds as well. In a container the path can be the host's, which does not exist here,
    and then the container's own group is at the mount.
    """
    folder = mount / path.strip().strip("/")
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(mount))]


def source_state(project: Path) -> tuple[str | None, bool | None]:
    """Return the commit of the checkout rooted at `project`, and whether tracked files differ from it."""
    git = ("git", "-C", str(project))
    toplevel = _output((*git, "rev-parse", "--show-toplevel"))
    # An environment inside somebody else's checkout would otherwise lend its commit to the package in it.
    if not toplevel or Path(toplevel.strip()).resolve() != project.resolve():
        return None, None
    # Files that git does not track, such as new results, leave the code what it was.
    status = _output((*git, "status", "--porcelain=v2", "--branch", "--untracked-files=no"))
    return parse_git_status(status or "")


def parse_git_status(text: str) -> tuple[str | None, bool | None]:
    """Return the commit and whether anything differs from `git status --porcelain=v2 --branch`."""
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
    """Return the most memory this process ever held in RAM, and how that was counted.

    Pages of files are left out where the system tells them: how many of a library's are resident depends on
    how it came into the system's cache, and the system drops them at will.
    """
    # Not ru_maxrss where it can be helped: on Linux it starts at the peak of the process that forked this
    # one, so a worker started by a large harness would report the harness.
    peak, files = parse_resident(read_text(Path("/proc/self/status")))
    if peak is not None and files is not None:
        return peak - files, "VmHWM - RssFile"
    if peak is not None:
        return peak, "VmHWM"
    import resource  # not on every platform

    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "ru_maxrss"


def parse_resident(text: str) -> tuple[int | None, int | None]:
    """Return the bytes of VmHWM, the peak of all pages, and of RssFile in the text of /proc/PID/status."""
    found = {"VmHWM:": None, "RssFile:": None} | {
        name: int(kib) * 1024
        for name, kib, *unit in (line.split() for line in text.splitlines() if len(line.split()) == 3)
        if unit == ["kB"] and kib.isdecimal()
    }
    return found["VmHWM:"], found["RssFile:"]


def read_text(path: Path) -> str:
    """Return the text of a file, empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):  # ValueError: a path with a NUL in it
        return ""


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version(_DISTRIBUTION)
    except metadata.PackageNotFoundError:  # run from a checkout that was not installed
        return bench.__version__


def _output(command: Sequence[str]) -> str | None:
    """Return what a command wrote, None where it is missing, failed or took too long."""
    # A git hook sets GIT_DIR, which would point git at another repository; and asking for the status must not
    # take the lock that somebody's `git add` is waiting for.
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=True,
            timeout=_COMMAND_TIMEOUT_S,
            env={**variables, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
