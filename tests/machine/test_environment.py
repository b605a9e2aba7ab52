"""What the machine reports is read correctly, and an unknown format is read as nothing, without an error."""

import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import msgspec
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import make_header

from bench.machine import environment as machine
from bench.machine.environment import Environment, Gpu
from bench.machine.gpu import GpuInUse

ROOT = Path(__file__).parents[2]

CPUINFO_X86 = """\
processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz
cache size\t: 107520 KB
flags\t\t: fpu vme sse4_2 avx2 avx fma avx512f amx_bf16 hypervisor

processor\t: 1
model name\t: a second CPU that differs
flags\t\t: fpu
"""
CPUINFO_ARM = """\
processor\t: 0
BogoMIPS\t: 2100.00
Features\t: fp asimd evtstrm sve bf16
CPU implementer\t: 0x41
"""
STATUS = "Name:\tpython\nVmHWM:\t   20480 kB\nVmRSS:\t   10240 kB\nRssFile:\t    4096 kB\n"
COMMIT = "da232502b4b6c38c662dc0ace2d2af1b191d504e"


@pytest.mark.parametrize(
    ("text", "model", "flags"),
    [
        (
            CPUINFO_X86,
            "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz",
            ("sse4_2", "avx", "avx2", "fma", "avx512f", "amx_bf16"),
        ),
        (CPUINFO_ARM, None, ("asimd", "sve")),
        ("flags : avx512fp16 fma4 xavx", None, ()),
    ],
    ids=["x86", "ARM", "flags that contain a chosen one"],
)
def test_cpu_model_and_chosen_flags(text: str, model: str | None, flags: tuple[str, ...]) -> None:
    assert machine.parse_cpuinfo(text) == (model, flags)


@pytest.mark.parametrize(
    ("text", "gpus", "driver"),
    [
        ("", (), None),
        (
            "NVIDIA H100 80GB HBM3, 81559, 570.124.06\n",
            (Gpu(name="NVIDIA H100 80GB HBM3", memory_mib=81559),),
            "570.124.06",
        ),
        (
            "Tesla T4, 15360, 550.54\nQuadro, the big one, 4096, 550.54\n",
            (Gpu(name="Tesla T4", memory_mib=15360), Gpu(name="Quadro, the big one", memory_mib=4096)),
            "550.54",
        ),
        ("NVIDIA GB10, [N/A], 580.95.05", (Gpu(name="NVIDIA GB10", memory_mib=None),), "580.95.05"),
        ("No devices were found\n", (), None),
        ("Unable to determine the device handle for GPU0: 0000:01:00.0, Unknown Error, reboot", (), None),
        ("Tesla T4, 15360\n", (), None),
        (", 15360, 550.54\n", (), None),
        ("Failed to initialize NVML: Driver/library version mismatch\n\0\xff", (), None),
    ],
)
def test_gpus(text: str, gpus: tuple[Gpu, ...], driver: str | None) -> None:
    assert machine.parse_gpus(text) == (gpus, driver)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        (f"{'9' * 5000} 1", None),
        ("150000 100000\n", 1.5), ("max 100000\n", None), ("-1 100000", None), ("0 100000", None),
        ("100000 0", None), ("100000", None), ("", None), ("many few", None), ("1 2 3", None),
    ],
)  # fmt: skip
def test_the_quota_of_a_group(text: str, cpus: float | None, tmp_path: Path) -> None:
    write(tmp_path / "cpu.max", text)
    assert machine.cgroup_cpu_quota("0::/\n", tmp_path) == cpus


def test_the_smallest_quota_from_the_group_of_the_process_to_the_root_counts(tmp_path: Path) -> None:
    write(tmp_path / "cpu.max", "max 100000")
    write(tmp_path / "a/cpu.max", "300000 100000")
    write(tmp_path / "a/b/cpu.max", "800000 100000")
    assert machine.cgroup_cpu_quota("0::/a/b\n", tmp_path) == 3
    write(tmp_path / "cpu.max", "200000 100000")
    assert machine.cgroup_cpu_quota("0::/a/b\n", tmp_path) == 2
    # In a container the path can be that of the host.
    assert machine.cgroup_cpu_quota("0::/docker/0123abcd\n", tmp_path) == 2


def test_the_quota_of_version_1_groups(tmp_path: Path) -> None:
    memberships = "5:cpuset:/x\n4:cpu,cpuacct:/x\n1:name=systemd:/\n0::/\nnonsense\n"
    write(tmp_path / "cpu,cpuacct/x/cpu.cfs_quota_us", "250000")
    write(tmp_path / "cpu,cpuacct/x/cpu.cfs_period_us", "100000")
    write(tmp_path / "cpuset/x/cpu.cfs_quota_us", "100000")
    write(tmp_path / "cpuset/x/cpu.cfs_period_us", "100000")
    assert machine.cgroup_cpu_quota(memberships, tmp_path) == 2.5
    write(tmp_path / "cpu,cpuacct/x/cpu.cfs_quota_us", "-1")
    assert machine.cgroup_cpu_quota(memberships, tmp_path) is None


@pytest.mark.parametrize(
    ("memberships", "folder"),
    [
        ("4:cpuacct,cpu:/x\n", "cpu,cpuacct/x"),
        ("4:cpu,cpuacct:/x\n", "cpuacct,cpu/x"),
        ("4:cpu,cpuacct:/x\n", "cpu/x"),
        ("4:cpu:/x\n", "cpuset,cpu,cpuacct/x"),
        ("4:cpuacct,cpu:/docker/0123\n", "cpu,cpuacct"),
        ("", "cpu"),
    ],
    ids=["another order", "and back", "alone", "with more", "of a container", "unknown memberships"],
)
def test_version_1_is_found_under_any_name_of_its_mount(
    memberships: str, folder: str, tmp_path: Path
) -> None:
    for name in ("cpuset", "cpu_other", "cpuacct"):  # no mounts of the CPU controller
        write(tmp_path / name / "x/cpu.cfs_quota_us", "100000")
        write(tmp_path / name / "x/cpu.cfs_period_us", "100000")
    assert machine.cgroup_cpu_quota(memberships, tmp_path) is None
    write(tmp_path / folder / "cpu.cfs_quota_us", "150000")
    write(tmp_path / folder / "cpu.cfs_period_us", "100000")
    assert machine.cgroup_cpu_quota(memberships, tmp_path) == 1.5


@pytest.mark.parametrize("memberships", ["0::/a\n1:name=systemd:/\n", ""])
@pytest.mark.parametrize("mount", [".", "unified"])
def test_version_2_is_found_by_itself_and_beside_version_1(
    mount: str, memberships: str, tmp_path: Path
) -> None:
    write(tmp_path / mount / "cpu.max", "50000 100000")
    assert machine.cgroup_cpu_quota(memberships, tmp_path) == 0.5


@pytest.mark.parametrize(
    ("quota", "cpus", "threads"), [(None, 4, None), (8.0, 4, None), (4.0, 4, None), (2.9, 2, 2), (0.2, 1, 1)]
)
def test_usable_cpus_and_threads(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, cpus: int, threads: int | None
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 5}, raising=False)
    monkeypatch.setattr(machine, "cgroup_cpu_quota", lambda memberships, mount: quota)
    assert machine.usable_cpus() == cpus
    assert machine.worker_threads() == threads
    here = machine.capture_environment()
    assert (here.usable_cpus, here.cpu_quota, here.worker_threads) == (cpus, quota, threads)
    said = here.threads_in_words()
    assert (said is None) == (threads is None)
    if said:
        words = "1 thread " if threads == 1 else f"{threads} threads "
        assert said.startswith(f"{words}for each framework, because of a CPU quota of {quota}. ")
        assert ("raise it to 1 or more" in said) == (quota < 1)
    assert ("1 CPU (a quota of 0.2)," in here.in_words()) == (quota == 0.2)


@pytest.mark.parametrize("quota", [None, 1.5])
def test_a_narrow_affinity_alone_sets_no_threads(
    quota: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)
    monkeypatch.setattr(machine, "cgroup_cpu_quota", lambda memberships, mount: quota)
    assert (machine.usable_cpus(), machine.worker_threads()) == (1, None)
    assert ", 1 CPU, " in machine.capture_environment().in_words()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (STATUS, (16 * 2**20, "VmHWM - RssFile")),
        (STATUS.replace("RssFile", "Another"), (20 * 2**20, "VmHWM")),
        ("", None),
        ("VmHWM:\n", None),
        ("VmHWM:\t-5 kB", None),
        ("VmHWM:\t5 MB", None),
        ("VmHWM:\tlots kB", None),
        ("VmRSS:\t5 kB", None),
    ],
)
def test_peak_memory(text: str, expected: tuple[int, str] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "read_text", lambda path: text)
    peak, method = machine.peak_rss_bytes()
    if expected is not None:
        assert (peak, method) == expected
        return
    assert method == "ru_maxrss"
    # In bytes: at least what the process holds now; another unit would make it 1024 times as much.
    held = psutil.Process().memory_info().rss
    assert 0.9 * held < peak < 500 * held


@pytest.mark.skipif(
    None in machine.parse_resident(machine.read_text(Path("/proc/self/status"))), reason="no RssFile here"
)
def test_peak_memory_of_a_real_process(tmp_path: Path) -> None:
    """Neither a file that it reads through memory nor a large parent counts; its own memory does."""
    ballast = bytearray(256 * 2**20)
    ballast[::4096] = b"\1" * len(ballast[::4096])  # touched, so that it is resident
    (tmp_path / "file").write_bytes(bytes(64 * 2**20))
    program = (
        "import mmap, sys\n"
        "from bench.machine.environment import peak_rss_bytes\n"
        "before = peak_rss_bytes()[0]\n"
        "with open(sys.argv[1], 'rb') as file:\n"
        "    held = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)\n"
        "assert not any(held[::4096])\n"
        "mapped = peak_rss_bytes()[0]\n"
        "own = bytearray(b'1') * 2**26\n"
        "print(before, mapped, *peak_rss_bytes())\n"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "file")],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    *peaks, method = printed.strip().split(maxsplit=3)
    before, mapped, after = map(int, peaks)
    assert method == "VmHWM - RssFile"
    assert before < len(ballast) < machine.peak_rss_bytes()[0]
    assert mapped - before < 2**23
    assert after - mapped > 2**25


def program_in_path(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("script", "gpus", "driver"),
    [
        ('echo "Tesla T4, 15360, 550.54"', (Gpu(name="Tesla T4", memory_mib=15360),), "550.54"),
        ('echo "Tesla T4, 15360, 550.54"; exit 9', (), None),
        ("printf '\\377\\376, 1, 2'", (), None),
        ("exec sleep 60", (), None),
    ],
    ids=["answers", "fails", "garbles", "hangs"],
)
def test_nvidia_smi_may_do_anything(
    script: str, gpus: tuple[Gpu, ...], driver: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program_in_path(tmp_path, "nvidia-smi", script, monkeypatch)
    monkeypatch.setattr(machine, "_COMMAND_TIMEOUT_S", 0.5)
    environment = machine.capture_environment()
    assert (environment.gpus, environment.gpu_driver) == (gpus, driver)


def test_the_driver_is_found_by_its_file_or_its_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_DRIVER_FILE", tmp_path / "version")
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        assert not machine.nvidia_driver_present()
        write(tmp_path / "version", "NVRM version: 570")
        assert machine.nvidia_driver_present()
        (tmp_path / "version").unlink()
    monkeypatch.setattr(Path, "stat", lambda self, **_: (_ for _ in ()).throw(PermissionError()))
    assert not machine.nvidia_driver_present()
    program_in_path(tmp_path, "nvidia-smi", "exit 0", monkeypatch)
    assert machine.nvidia_driver_present()
    program_in_path(tmp_path, "nvidia-smi", "exit 9", monkeypatch)
    assert not machine.nvidia_driver_present()


@pytest.mark.parametrize(
    ("text", "state"),
    [
        (f"# branch.oid {COMMIT}\n1 .M N... 100644 100644 100644 {COMMIT} {COMMIT} a.py\n", (COMMIT, True)),
        ("# branch.oid (initial)\n# branch.head main\n1 A. N... a.py\n", (None, None)),
        ("", (None, None)),
        ("fatal: this is not what was asked\n", (None, None)),
    ],
)
def test_git_status(text: str, state: tuple[str | None, bool | None]) -> None:
    assert machine.parse_git_status(text) == state


def git(folder: Path, *arguments: str) -> str:
    settings = ("user.name=a", "user.email=a@b", "commit.gpgsign=false", "core.hooksPath=")
    identity = [word for setting in settings for word in ("-c", setting)]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_state_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    inner = tmp_path / "lib/site-packages"
    write(inner / "module.py", "x = 1\n")
    assert machine.source_state(tmp_path) == (None, None), "no checkout"
    git(tmp_path, "init", "--quiet")
    assert machine.source_state(tmp_path) == (None, None), "no commit yet"
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message=one")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert machine.source_state(tmp_path) == (commit, False)
    assert machine.source_state(inner) == (None, None), "a folder in another checkout"
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    write(tmp_path / "new.txt", "not tracked")
    assert machine.source_state(tmp_path) == (commit, False), "a new file is not a change"
    write(inner / "module.py", "x = 2\n")
    assert machine.source_state(tmp_path) == (commit, True)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.source_state(tmp_path) == (None, None), "no git"


def test_this_machine_can_be_stored_and_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    here = machine.capture_environment()
    assert msgspec.json.decode(msgspec.json.encode(here), type=Environment) == here
    assert here.same_machine(here)
    assert here.cpu_model
    assert 1 <= here.usable_cpus <= here.logical_cpus
    assert here.memory_bytes > 2**28
    assert here.cpu_model in here.in_words()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("MemTotal:       24657 kB\nMemFree: 5 kB\n", 24657 * 1024),
        ("MemFree: 5 kB\nMemTotal: 7 kB\n", 7 * 1024),
        ("MemTotal: 0 kB\n", 0),
        *[(text, None) for text in ("", "MemTotal:\n", "MemTotal: 5 MB\n", "MemTotal: -5 kB\n", "\0\ufffd")],
        (f"MemTotal: {'9' * 5000} kB", None),
    ],
)
def test_the_size_of_memory(
    text: str, found: int | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "_PROC", tmp_path)
    (tmp_path / "meminfo").write_text(text)
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert machine.memory_bytes() == (whole if found is None else found)

    def unknown(name: str) -> int:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "sysconf", unknown)
    assert machine.memory_bytes() == (found or 0)


@pytest.mark.parametrize("what", ["missing", "unreadable", "empty", "odd", "digits", "a folder"])
def test_a_machine_whose_proc_is_hidden_is_still_described(
    what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = ("cpuinfo", "meminfo", "loadavg", "stat", "self/cgroup", "self/status", "pressure/cpu")
    contents = {"empty": b"", "odd": b"\xff\0: \n:::\ncpu0 x", "digits": b"1:cpu:/\n" + b"9" * 5000}
    for name in names if what != "missing" else ():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        if what == "a folder":
            path.mkdir()
        elif what == "unreadable":
            path.symlink_to(path)  # a loop, which nobody can open
        else:
            path.write_bytes(contents[what])

    def no_load() -> None:
        raise OSError("Load averages are unobtainable")

    monkeypatch.setattr(machine, "_PROC", tmp_path)
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path)
    monkeypatch.setattr(os, "getloadavg", no_load)
    here = machine.capture_environment()
    assert here.cpu_model
    assert here.memory_bytes > 2**28
    assert (here.cpu_flags, here.cpu_quota, here.load_average) == ((), None, None)
    assert machine.peak_rss_bytes()[1] == "ru_maxrss"
    assert msgspec.json.decode(msgspec.json.encode(here), type=Environment) == here


TUNING = (
    "ATEN_CPU_CAPABILITY", "CC", "CPATH", "CUBLASLT_LOG_LEVEL", "CUBLAS_WORKSPACE_CONFIG", "CUDA_CACHE_PATH",
    "CUDA_VISIBLE_DEVICES", "CUDNN_LOGLEVEL_DBG", "GLIBC_TUNABLES", "JAX_ENABLE_X64", "KMP_AFFINITY",
    "LD_PRELOAD", "LIBRARY_PATH", "MALLOC_ARENA_MAX", "MALLOC_CONF", "NPROC", "NVIDIA_TF32_OVERRIDE",
    "OMP_NUM_THREADS", "PYTORCH_CUDA_ALLOC_CONF", "TF_CUDNN_USE_AUTOTUNE", "TF_DETERMINISTIC_OPS",
    "TF_ENABLE_ONEDNN_OPTS", "TF_GPU_ALLOCATOR", "TF_NUM_INTEROP_THREADS", "TF_XLA_FLAGS",
    "TORCHINDUCTOR_MAX_AUTOTUNE", "TORCH_LOGS", "TRITON_PTXAS_PATH", "XLA_FLAGS",
    "XLA_PYTHON_CLIENT_ALLOCATOR",
)  # fmt: skip
NO_TUNING = (
    "JAX_COMPILATION_CACHE_DIR", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR",
    "TORCHINDUCTOR_FX_GRAPH_CACHE", "NVIDIA_REQUIRE_CUDA", "TF_VAR_size", "CPATHS", "ACCOUNT", "OTHER",
    "TORCHELASTIC_USE_AGENT_STORE", "TORCHELASTIC_RUN_ID",
)  # fmt: skip
"""Caches would hide the time to compile. NVIDIA_REQUIRE_CUDA is set by a container's image for itself,
and what torchrun says is for the processes that it has started."""


def test_variables_that_can_change_a_figure_are_recorded_and_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in (*TUNING, *NO_TUNING):
        monkeypatch.setenv(name, "1")
    found = machine.tuning_variables()
    assert set(TUNING) <= found.keys()
    assert not found.keys() & set(NO_TUNING)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TORCH_TOKEN", "1"), ("TORCH_HUB_TOKEN", "1"), ("TRITON_API_KEY", "1"), ("JAX_PASSWORD", "1"),
        ("CUDA_Client_Secret", "1"),
        ("TORCH_HOME", "https://me:pass@host/models"), ("TORCH_HOME", "ghp_" + 36 * "a"),
        ("XLA_FLAGS", "--token=hf_" + 34 * "Z"), ("CUDA_X", "AKIA" + 16 * "Q"), ("TORCH_X", "sk-" + 40 * "b"),
        ("TORCH_X", "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.sig"), ("TORCH_X", "-----BEGIN KEY-----"),
    ],
)  # fmt: skip
def test_what_looks_like_a_secret_is_neither_recorded_nor_passed(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert name not in machine.tuning_variables()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LD_LIBRARY_PATH", "/opt/sk-learn/lib:/usr/lib"), ("XLA_FLAGS", "--xla_dump_to=/tmp/a_b"),
        ("TORCH_HOME", "http://host:80/x"), ("TORCH_MONKEY", "1"),
        ("CUDA_VISIBLE_DEVICES", "GPU-8932f937-d72c-4106"), ("TRITON_PTXAS_PATH", "/usr/local/bin/ptxas"),
    ],
)  # fmt: skip
def test_what_only_resembles_a_secret_is_recorded(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert machine.tuning_variables()[name] == value


def test_variables_that_have_changed_are_named() -> None:
    begun = environment(variables={"A": "1", "B": "", "C": "3", "CUDA_VISIBLE_DEVICES": "0"})
    now = environment(variables={"A": "1", "C": "4", "D": "5"})
    assert begun.changed_variables(now) == [
        "B was '' and is not set", "C was '3' and is '4'", "D was not set and is '5'",
    ]  # fmt: skip
    assert begun.changed_variables(begun) == []


GPU = GpuInUse(name="H100", uuid="GPU-8932f937-d72c", compute_mode="default", cuda="12.8")
H100S = (Gpu(name="H100", memory_mib=81920),) * 8


def environment(**changes: object) -> Environment:
    return msgspec.structs.replace(make_header([]).environment, **changes)


def test_a_machine_is_told_by_the_gpu_in_use() -> None:
    assert environment(gpus=H100S[:1], gpu=GPU).in_words().endswith("64 GiB, H100 (GPU-8932f937)")
    several = environment(gpus=H100S, gpu=GPU)
    assert several.in_words().endswith("64 GiB, H100 (GPU-8932f937), one of 8 GPUs")
    other = environment(gpus=H100S, gpu=msgspec.structs.replace(GPU, uuid="GPU-9fb42d6f-7d6b"))
    assert not several.same_machine(other)
    assert several.key() != other.key()
    restarted = environment(gpus=H100S, gpu=msgspec.structs.replace(GPU, compute_mode="exclusive process"))
    assert several.same_machine(restarted)
    assert several.key() == restarted.key()


def test_a_record_from_before_gpus_were_chosen_is_read_and_keeps_its_key() -> None:
    before = environment(gpus=H100S)
    stored = msgspec.to_builtins(before)
    del stored["gpu"]
    read = msgspec.convert(stored, Environment)
    assert read == before
    parts = ("box", "Example CPU @ 2.60GHz", 16, 64, H100S, None)
    assert read.key() == sha256(msgspec.json.encode(parts)).hexdigest()[:8]


def test_the_gpu_is_recorded_where_one_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "gpu_in_use", lambda: GPU)
    assert machine.capture_environment("gpu").gpu == GPU
    assert machine.capture_environment("cpu").gpu is machine.capture_environment().gpu is None


def test_a_machine_that_reports_nothing_is_still_described(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "read_text", lambda path: "")
    monkeypatch.setenv("PATH", str(tmp_path))
    here = machine.capture_environment()
    assert here.cpu_model
    assert (here.cpu_flags, here.gpus, here.gpu_driver, here.commit, here.dirty) == ((), (), None, None, None)


@pytest.mark.parametrize(
    ("field", "value", "same"),
    [
        ("cpu_model", "another", False),
        ("usable_cpus", 99, False),
        ("worker_threads", 99, False),
        ("cpu_quota", 9.9, True),
        ("gpus", (Gpu(name="another", memory_mib=1),), False),
        ("load_average", 99.0, True),
        ("commit", "another", True),
    ],
)
def test_what_makes_another_machine(
    field: str, value: object, same: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # without nvidia-smi and git it is quicker
    here = machine.capture_environment()
    other = msgspec.structs.replace(here, **{field: value})
    assert here.same_machine(other) is same
    assert (here.key() == other.key()) is same


@given(st.text())
def test_no_text_is_an_error(text: str) -> None:
    machine.parse_cpuinfo(text)
    machine.parse_gpus(text)
    machine.parse_cpu_max(text)
    machine.parse_resident("VmHWM: " + text)
    machine.parse_git_status(text)
    machine.cgroup_cpu_quota("0::" + text, Path("/nowhere"))
