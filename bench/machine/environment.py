"""The machine and the state of the code: captured once per run, and compared before a run is resumed.

What the system does not report, or reports in an unknown format, is None or empty here, never an error: a
benchmark can measure a CPU whose name it does not know.
"""

import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import msgspec

import bench
from bench.machine import git
from bench.machine.gpu import GpuInUse, gpu_in_use
from bench.machine.visible_gpus import VISIBLE
from bench.workloads.specs import Device

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
_TUNING_PREFIXES = (
    "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "BLIS_", "DNNL_", "ONEDNN_", "MALLOC_", "TCMALLOC_",
    "CUDA_", "CUBLAS_", "CUBLASLT_", "CUDNN_", "PYTORCH_", "TORCH", "ATEN_", "TRITON_", "XLA_", "JAX_",
    "TF_AUTOTUNE_", "TF_CUBLAS_", "TF_CUDNN_", "TF_DETERMINISTIC_", "TF_DISABLE_", "TF_ENABLE_", "TF_FORCE_",
    "TF_GPU_", "TF_MKL_", "TF_NUM_", "TF_ONEDNN_", "TF_USE_", "TF_XLA_",
)  # fmt: skip
"""Not `TF_`, as Terraform's variables begin with it and often hold secrets."""
_TUNING_NAMES = frozenset({
    "CC", "CXX", "CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH", "LD_LIBRARY_PATH",
    "LD_PRELOAD", "GLIBC_TUNABLES", "NVIDIA_TF32_OVERRIDE", "NVIDIA_VISIBLE_DEVICES", "NPROC", "PJRT_NPROC",
})  # fmt: skip
_LAUNCHERS = ("TORCHELASTIC_",)
"""What torchrun tells the processes that it starts. A worker must not take itself for one of them: it would
look for the store of torchrun in place of that of its own job."""
_CACHE = re.compile(r"(?!CUDA_).*CACHE(_|$)")
"""Names of variables that choose where compiled programs are kept. They would hide the time to compile. The
driver's own cache (CUDA_CACHE_PATH) is shared by all processes anyway."""
_SECRET_NAME = re.compile(
    r"(^|_)(TOKEN|SECRET|PASS|PASSWD|PASSWORD|PASSPHRASE|KEY|APIKEY|CREDENTIALS?|AUTH)(_|$)", re.IGNORECASE
)
_SECRET_VALUE = re.compile(
    r"://[^/@\s]*:[^/@\s]*@"  # an address with a password
    r"|\b(gh[oprsu]_|github_pat_|glpat-|hf_|sk-|xox[abprs]-|AKIA|eyJ)[A-Za-z0-9_-]{16,}"  # a token
    r"|-----BEGIN "
)
_DISTRIBUTION = "samework"
_PROJECT = Path(__file__).resolve().parent.parent.parent
"""The root of the checkout, or the folder in which the package is installed."""
_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
_ROOT_GROUPS = "1:cpu:/\n0::/\n"
"""The memberships of a process in the root groups, of both versions. A container is usually in these."""
_DRIVER_FILE = _PROC / "driver/nvidia/version"
_GPU_QUERY = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits")
# A name may contain a comma, and the memory is "[N/A]" if the driver does not report it.
_GPU_ROW = re.compile(r"(\S.*?)\s*,\s*([0-9]{1,12}|\[[^]]+\])\s*,\s*([0-9]+(?:\.[0-9]+)+)")
_COMMAND_TIMEOUT_S = 10.0
_MOST_DIGITS = 19
"""As many as a counter of 63 bits. `int` refuses thousands of digits, and such a ratio would overflow."""


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
    cpu_quota: float | None = None
    """The CPUs, maybe a fraction, that control groups grant; None without a quota, and in older records."""
    worker_threads: int | None = None
    """The number of threads that a quota allows each worker; None if the frameworks choose."""
    memory_bytes: int
    """0 if the system does not report it."""
    gpus: tuple[Gpu, ...]
    gpu_driver: str | None
    gpu: GpuInUse | None = None
    """The GPU that the workers use; None on the CPU, without NVML, and in older records."""
    load_average: float | None
    """Of the last minute; None if the system does not report it."""
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
        machine = (self.hostname, self.cpu_model, self.usable_cpus, memory_gib, self.gpus, self.gpu_driver)
        # Two GPUs of a kind differ. With another number of threads, the frameworks are as on another machine.
        optional = (self.worker_threads, self.gpu.uuid if self.gpu else None)
        return (*machine, *(part for part in optional if part is not None))

    def in_words(self) -> str:
        """Return a one-line description of the machine; if a GPU is used, of that one alone."""
        gpus = ", ".join(gpu.name for gpu in self.gpus) or "no GPU"
        if self.gpu is not None:
            others = f", one of {len(self.gpus)} GPUs" if len(self.gpus) > 1 else ""
            gpus = self.gpu.in_words() + others
        cpus = "1 CPU" if self.usable_cpus == 1 else f"{self.usable_cpus} CPUs"
        limited = self.cpu_quota is not None and self.worker_threads is not None
        quota = f" (a quota of {self.cpu_quota:.3g})" if limited else ""
        memory = f"{self.memory_bytes / 2**30:.0f} GiB" if self.memory_bytes else "unknown memory"
        return f"{self.cpu_model}, {cpus}{quota}, {memory}, {gpus}"

    def threads_in_words(self) -> str | None:
        """Return how many threads a quota leaves to a worker; None if the frameworks choose the number."""
        if self.worker_threads is None or self.cpu_quota is None:
            return None
        threads = "1 thread" if self.worker_threads == 1 else f"{self.worker_threads} threads"
        too_little = " It holds back even one thread: raise it to 1 or more." if self.cpu_quota < 1 else ""
        return (
            f"{threads} for each framework, because of a CPU quota of {self.cpu_quota:.3g}.{too_little} "
            "A variable that you set, such as OMP_NUM_THREADS, is kept."
        )

    def changed_variables(self, now: "Environment") -> list[str]:
        """Return each variable that can change a figure and has another value now, in words.

        CUDA_VISIBLE_DEVICES is not compared: no job on the CPU sees it, and of a GPU `same_machine` knows.
        """
        return [
            f"{name} was {_set_to(self.variables, name)} and is {_set_to(now.variables, name)}"
            for name in sorted({*self.variables, *now.variables} - {VISIBLE})
            if self.variables.get(name) != now.variables.get(name)
        ]


def _set_to(variables: Mapping[str, str], name: str) -> str:
    return repr(variables[name]) if name in variables else "not set"


def capture_environment(device: Device = "cpu") -> Environment:
    """Return the current state of this machine and of this code; on a GPU, also which one the workers use."""
    cpu_model, cpu_flags = parse_cpuinfo(read_text(_PROC / "cpuinfo"))
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
        cpu_quota=cpu_quota(),
        worker_threads=worker_threads(),
        memory_bytes=memory_bytes(),
        gpus=gpus,
        gpu_driver=gpu_driver,
        gpu=gpu_in_use() if device == "gpu" else None,
        load_average=load_average(),
        variables=tuning_variables(),
        version=_version(),
        commit=commit,
        dirty=dirty,
    )


def tuning_variables() -> dict[str, str]:
    """Return the set environment variables that choose threads, devices, libraries or compiler flags.

    A variable that looks like a secret is not one of them, as records are published.
    """
    return {name: value for name, value in sorted(os.environ.items()) if _is_tuning(name, value)}


def _is_tuning(name: str, value: str) -> bool:
    known = name in _TUNING_NAMES or name.startswith(_TUNING_PREFIXES)
    secret = _SECRET_NAME.search(name) or _SECRET_VALUE.search(value)
    return known and not secret and not name.startswith(_LAUNCHERS) and not _CACHE.match(name)


def nvidia_driver_present() -> bool:
    """Whether this machine has an NVIDIA driver. A framework may still be unable to use the GPU."""
    # Under WSL the driver belongs to the host and has no file here, but nvidia-smi works.
    return os.path.exists(_DRIVER_FILE) or _output(("nvidia-smi",)) is not None  # noqa: PTH110 (never raises)


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
    allowed, quota = allowed_cpus(), cpu_quota()
    return allowed if quota is None else min(allowed, quota)


def worker_threads() -> int | None:
    """Return how many threads a worker should use; None where a framework chooses the right number itself.

    Frameworks count the CPUs of the affinity mask, which a cpuset narrows too, but they do not know a quota.
    With more threads than it grants, all of them are stopped together for a part of every period.
    """
    usable = usable_cpus()
    return usable if usable < allowed_cpus() else None


def allowed_cpus() -> int:
    """Return the number of CPUs that this process may run on, by its affinity and its cpuset."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def cpu_quota() -> float | None:
    """Return the number of CPUs, maybe a fraction, that control groups grant; None without a quota."""
    return cgroup_cpu_quota(read_text(_PROC / "self/cgroup"), _CGROUPS)


def memory_bytes() -> int:
    """Return the size of the machine's memory; 0 if the system does not report it."""
    for line in read_text(_PROC / "meminfo").splitlines():
        match line.split():
            case ["MemTotal:", kib, "kB"] if is_count(kib):
                return int(kib) * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):  # ValueError: the system does not know the name
        return 0


def load_average() -> float | None:
    """Return the load average of the last minute; None if the system does not report it."""
    try:
        return os.getloadavg()[0]
    except OSError:  # such as without /proc/loadavg
        return None


def cgroup_cpu_quota(memberships: str, mount: Path) -> float | None:
    """Return the number of CPUs, maybe a fraction, that control groups grant; None if none sets a limit.

    `memberships` is the text of /proc/self/cgroup; `mount` is the folder of the groups' files. (psutil does
    not report quotas.)
    """
    quotas: list[float | None] = []
    for folder in cpu_groups(memberships, mount):
        # A group has the files of version 2 or those of version 1.
        quotas.append(parse_cpu_max(read_text(folder / "cpu.max")))
        period = read_text(folder / "cpu.cfs_period_us")
        quotas.append(parse_cpu_max(f"{read_text(folder / 'cpu.cfs_quota_us')} {period}"))
    return min((quota for quota in quotas if quota is not None), default=None)


def cpu_groups(memberships: str, mount: Path) -> list[Path]:
    """Return the folders, under `mount`, of the control groups whose CPU limits apply to this process.

    `memberships` is the text of /proc/self/cgroup; if it is empty, the root groups are assumed. Some of the
    folders may not exist.
    """
    folders: list[Path] = []
    for line in (memberships.strip() or _ROOT_GROUPS).splitlines():
        _, _, membership = line.partition(":")
        controllers, colon, path = membership.partition(":")
        if colon and controllers == "":  # version 2, mounted in a folder of its own beside version 1
            tops = [mount, mount / "unified"]
        elif colon and "cpu" in controllers.split(","):
            tops = _version_1_mounts(mount)
        else:
            continue
        folders += [folder for top in tops for folder in _upwards(top, path)]
    return folders


def _version_1_mounts(mount: Path) -> list[Path]:
    """Return the folders where version 1 of the CPU controller is mounted, alone or with others.

    A mount such as `cpu,cpuacct` is named after its controllers, and the order may differ from that in
    /proc/self/cgroup. Links such as `cpu` may lead to the same mount.
    """
    try:
        return sorted(folder for folder in mount.iterdir() if "cpu" in folder.name.split(","))
    except (OSError, ValueError):
        return []


def parse_cpu_max(text: str) -> float | None:
    """Return quota / period from the text `quota period`; None for `max`, -1 or anything unknown."""
    words = text.split()
    if len(words) != 2 or not all(map(is_count, words)):
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
    peak, files = parse_resident(read_text(_PROC / "self/status"))
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
        if unit == ["kB"] and is_count(kib)
    }
    return found["VmHWM:"], found["RssFile:"]


def is_count(word: str) -> bool:
    """Whether a word of a file of the system is a whole number that is not negative."""
    return word.isascii() and word.isdecimal() and len(word) <= _MOST_DIGITS


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
