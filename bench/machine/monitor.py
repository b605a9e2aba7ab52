"""What else the machine does while the trials of a block take their turns.

What the system does not report, or reports in an unknown format, is None, never an error.
"""

import contextlib
import math
import os
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import psutil

from bench.machine.conditions import MOST_CPUS, Conditions, Taken
from bench.machine.environment import (
    cpu_groups,
    granted_cpus,
    is_count,
    load_average,
    read_text,
    usable_cpus,
)
from bench.machine.gpu import read_gpu

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
_CANARY_SIZE = 48
_CANARY_PRODUCTS = 4000
"""4000 products of 48 by 48 matrices are 0.88 GFLOP, about 10 ms on one core of a laptop. One large product
would not do: OpenBLAS gives it to a pool of threads, which keep spinning for 0.1 s afterwards, into the next
window. It computes products of up to 64 by 64 in the calling thread (SMP_THRESHOLD_MIN and
GEMM_MULTITHREAD_THRESHOLD in its interface/gemm.c).
"""
_SCHEDULED = 2
"""CPUCLOCK_SCHED, the clock of a process that counts the time for which its threads were scheduled."""


class CpuTimes(NamedTuple):
    """CPU time since boot of the CPUs that this process may run on, in the kernel's ticks."""

    busy: int
    """Time in which a process of this machine ran: user, nice, system, irq and softirq."""
    steal: int
    """Time in which a CPU was ready to run and the hypervisor ran another machine."""
    total: int


class _Usage(NamedTuple):
    """The CPU time of the machine, and this run's part of it, read at the same time."""

    cpu: CpuTimes | None
    own_ticks: float | None


class _Counters(NamedTuple):
    """Counters that are read before and after a block, and subtracted."""

    seconds: float
    usage: _Usage
    throttled_s: dict[Path, float]
    waited_s: float | None


class Stretch:
    """A stretch of time, from when it is made, and what others took of the CPUs in it."""

    def __init__(self, own_pids: Collection[int]) -> None:
        """Begin. `own_pids` are the workers, each the leader of its session."""
        self._own_pids = own_pids
        self._granted = granted_share()
        self._before = _read_usage(own_pids)

    def taken(self) -> Taken:
        """Return the shares of CPU time that others took from the beginning until now."""
        before, after = self._before, _read_usage(self._own_pids)
        error = reading_error(len(_allowed_cpus()))
        foreign = of_few_cpus(_foreign(before, after, self._granted, error), usable_cpus())
        return Taken(steal=steal_share(before.cpu, after.cpu), foreign=foreign)


class Watch:
    """Watches the machine from before the first turn of a block until after the last one."""

    def __init__(self, own_pids: Collection[int], *, gpu: bool) -> None:
        """Begin. `own_pids` are the workers, each the leader of its session; `gpu` says if they use one."""
        self._canary = Canary()
        self._canary.seconds()  # the first call touches its memory for the first time
        self._canary_s: list[float] = []
        self._taken: list[Taken] = []
        self._own_pids = own_pids
        self._gpu = gpu
        self._gpu_before = read_gpu(own_pids) if gpu else None
        self._load_average = load_average()
        self._stretch: Stretch | None = None
        self._before = _read_counters(own_pids)

    def round(self) -> None:
        """Time the canary. Call this before every round."""
        self._canary_s.append(self._canary.seconds())
        self._stretch = Stretch(self._own_pids)

    def round_over(self) -> Taken:
        """Return the shares of CPU time that others took in the round that has just ended."""
        self._taken.append(self._stretch.taken() if self._stretch else Taken(steal=None, foreign=None))
        return self._taken[-1]

    def finish(self, own_pids: Collection[int]) -> Conditions:
        """Return what happened since the beginning. Call this once, while the workers still wait."""
        gpu_after = read_gpu(own_pids) if self._gpu else None  # before it cools down
        self._canary_s.append(self._canary.seconds())
        before, after = self._before, _read_counters(own_pids)
        seconds = after.seconds - before.seconds
        return Conditions(
            seconds=seconds,
            steal_share=steal_share(before.usage.cpu, after.usage.cpu),
            round_steal=tuple(taken.steal for taken in self._taken),
            throttled_share=throttled_share(before.throttled_s, after.throttled_s, seconds * usable_cpus()),
            pressure_share=share_of(before.waited_s, after.waited_s, seconds),
            foreign_share=_foreign(before.usage, after.usage, granted_share()),
            round_foreign=tuple(taken.foreign for taken in self._taken),
            load_average=self._load_average,
            canary_s=tuple(self._canary_s),
            gpu_before=self._gpu_before,
            gpu_after=gpu_after,
        )


class Canary:
    """A fixed piece of work for one CPU core. If it takes longer than before, the machine is the cause."""

    def __init__(self) -> None:
        """Allocate the matrices."""
        self._matrix: npt.NDArray[np.float32] = np.linspace(-1, 1, _CANARY_SIZE**2, dtype=np.float32).reshape(
            _CANARY_SIZE, _CANARY_SIZE
        )
        self._product = np.empty_like(self._matrix)

    def seconds(self) -> float:
        """Do the work once and return its seconds."""
        begin_ns = time.perf_counter_ns()
        for _ in range(_CANARY_PRODUCTS):
            np.matmul(self._matrix, self._matrix, out=self._product)
        return (time.perf_counter_ns() - begin_ns) / 1e9


def parse_stat(text: str, cpus: Collection[int]) -> CpuTimes | None:
    """Return the times of these CPUs in the text of /proc/stat; None if one of them is missing.

    psutil.cpu_times(percpu=True) does not report the numbers of the CPUs. Without them the times cannot be
    assigned to the CPUs of an affinity mask if some CPUs are offline, as with hyper-threading switched off.
    """
    found: dict[str, list[int]] = {}
    for line in text.splitlines():
        name, *words = line.split() or [""]
        if name.startswith("cpu") and len(words) >= 8 and all(map(is_count, words)):
            # user nice system idle iowait irq softirq steal; then guest time, which is part of user and nice
            found[name] = [int(word) for word in words[:8]]
    if not cpus or any(f"cpu{cpu}" not in found for cpu in cpus):
        return None
    user, nice, system, idle, iowait, irq, softirq, steal = (
        sum(ticks) for ticks in zip(*(found[f"cpu{cpu}"] for cpu in set(cpus)), strict=True)
    )
    busy = user + nice + system + irq + softirq
    return CpuTimes(busy=busy, steal=steal, total=busy + idle + iowait + steal)


def steal_share(before: CpuTimes | None, after: CpuTimes | None) -> float | None:
    """Return the share of all CPU time between two readings that the hypervisor took, from 0 to 1."""
    if before is None or after is None:
        return None
    stolen, total = after.steal - before.steal, after.total - before.total
    if total <= 0 or not 0 <= stolen <= total:  # the counters went back, as after a live migration
        return None
    return stolen / total


def granted_share() -> float:
    """Return the share of the time of the allowed CPUs that a quota grants; 1 without a quota."""
    allowed = len(_allowed_cpus())
    return min(1.0, granted_cpus() / allowed) if allowed else 1.0


def foreign_share(
    before: CpuTimes | None,
    after: CpuTimes | None,
    own_ticks: float | None,
    granted: float = 1.0,
    error_ticks: float = 0.0,
) -> float | None:
    """Return the share of this run's granted CPU time that other processes used between two readings.

    It is from 0 to 1. `own_ticks` is the time that this run used, and `granted` the share of all CPU time
    that its quota grants. Others may use the rest without disturbing the run: with a quota of 2 of 64 CPUs,
    62 CPUs are theirs. `error_ticks` is taken off what others used, so that the share is a lower limit.
    """
    if before is None or after is None or own_ticks is None:
        return None
    busy, total = after.busy - before.busy, after.total - before.total
    if total <= 0 or not 0 <= busy <= total or not 0 < granted <= 1:
        return None
    # The kernel counts the time of a CPU in ticks and that of a process exactly, so this may be below zero.
    foreign = busy - own_ticks - error_ticks
    return min(1.0, max(0.0, foreign - (1 - granted) * total) / (granted * total))


def of_few_cpus(share: float | None, cpus: float) -> float | None:
    """Return a share of the time of so many CPUs as one of the time of `MOST_CPUS`, if there are more."""
    return None if share is None else min(1.0, share * max(1.0, cpus / MOST_CPUS))


def reading_error(cpus: int) -> float:
    """Return three standard errors, in ticks, of what /proc/stat says that these CPUs did in a round.

    It gives whole ticks of each kind of time of each CPU, rounded down. The difference of two such readings
    is off by less than a tick to either side, with a variance of 1/6. A run adds to two kinds of busy time
    (user and system), so the variance of their sum is 1/3 for each CPU.
    """
    return 3 * math.sqrt(cpus / 3)


def read_own_ticks(own_pids: Collection[int]) -> float | None:
    """Return the CPU time, in ticks, that this process and the sessions led by `own_pids` have used so far.

    The time of a process includes that of its ended children that it has waited for. So no time is lost if a
    process ends between two readings. None if the system does not report the time of this process or of one
    of those.
    """
    ours = {os.getpid(), *own_pids}
    used_s: dict[int, float] = {}
    # ProcessLookupError, or psutil's own error, if the process ends now. The others if /proc cannot be read,
    # or holds what psutil does not expect.
    unread = (OSError, psutil.Error, ValueError, LookupError, RuntimeError)
    with contextlib.suppress(*unread):
        for pid in psutil.pids():
            with contextlib.suppress(*unread):
                if pid in ours or os.getsid(pid) in own_pids:
                    user, system, *ended = psutil.Process(pid).cpu_times()[:4]
                    exact = scheduled_s(pid)
                    used_s[pid] = sum(ended) + (user + system if exact is None else exact)
    if any(_exists(pid) for pid in ours - used_s.keys()):
        return None
    return sum(used_s.values()) * os.sysconf("SC_CLK_TCK")


def scheduled_s(pid: int) -> float | None:
    """Return the CPU seconds of all threads of a process, to the nanosecond; None if the system has no clock.

    /proc reports them in ticks of 10 ms, which is too coarse for a round. The number of the clock is what
    clock_getcpuclockid(3) returns on Linux; Python does not offer that function.
    """
    try:
        return time.clock_gettime((~pid << 3) | _SCHEDULED)
    except OSError:
        return None


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # sends nothing, and needs no /proc
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to another user
        return True
    return True


# The files of control groups and of pressure stall information are read here, as psutil does not report them.


def parse_throttled_s(text: str) -> float | None:
    """Return the CPU seconds for which a control group was throttled, from the text of its cpu.stat."""
    units = {"throttled_usec": 1e6, "throttled_time": 1e9}  # version 2 counts microseconds, 1 nanoseconds
    for line in text.splitlines():
        match line.split():
            case [name, count] if name in units and is_count(count):
                return int(count) / units[name]
    return None


def parse_pressure_s(text: str) -> float | None:
    """Return the seconds in which a task waited for a CPU, from the text of /proc/pressure/cpu."""
    for line in text.splitlines():
        match line.split():
            case ["some", *_, total] if is_count(total.removeprefix("total=")):
                return int(total.removeprefix("total=")) / 1e6
    return None


def throttled_share(
    before: Mapping[Path, float], after: Mapping[Path, float], cpu_seconds: float
) -> float | None:
    """Return the largest share of `cpu_seconds` for which one of the control groups was throttled.

    The keys are the folders of this process's own group and of its parents. Each is throttled on its own.
    """
    shares = [share_of(before[folder], after[folder], cpu_seconds) for folder in before.keys() & after.keys()]
    return max((share for share in shares if share is not None), default=None)


def share_of(before: float | None, after: float | None, whole: float) -> float | None:
    """Return the increase of a counter as a share of `whole`, at most 1; None if it went back."""
    if before is None or after is None or whole <= 0 or after < before:
        return None
    return min(1.0, (after - before) / whole)


def _foreign(before: _Usage, after: _Usage, granted: float, error_ticks: float = 0.0) -> float | None:
    """Return `foreign_share` between two readings; None if this run's own time is unknown in one of them."""
    if before.own_ticks is None or after.own_ticks is None:
        return None
    return foreign_share(before.cpu, after.cpu, after.own_ticks - before.own_ticks, granted, error_ticks)


def _read_counters(own_pids: Collection[int]) -> _Counters:
    throttled_s = {
        folder: seconds
        for folder in cpu_groups(read_text(_PROC / "self/cgroup"), _CGROUPS)
        if (seconds := parse_throttled_s(read_text(folder / "cpu.stat"))) is not None
    }
    return _Counters(
        seconds=time.monotonic(),
        usage=_read_usage(own_pids),
        throttled_s=throttled_s,
        waited_s=parse_pressure_s(read_text(_PROC / "pressure/cpu")),
    )


def _read_usage(own_pids: Collection[int]) -> _Usage:
    cpu = parse_stat(read_text(_PROC / "stat"), _allowed_cpus())
    return _Usage(cpu=cpu, own_ticks=read_own_ticks(own_pids))


def _allowed_cpus() -> set[int]:
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS, which has no /proc/stat either
    return set(affinity(0)) if affinity else set()
