"""What else the machine did is read correctly, and an unknown format is read as nothing, without an error."""

import os
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.machine import monitor
from bench.machine.gpu import GpuReading
from bench.machine.monitor import Canary, CpuTimes, Watch

# A virtual machine with two CPUs, Linux 6.18.
STAT = """\
cpu  1441382 2166 85072 953952 7643 0 2294 21681 0 0
cpu0 624304 563 34564 583544 1858 0 1164 11448 0 0
cpu1 817077 1603 50507 370408 5784 0 1129 10232 0 0
intr 9933673 0 0 0
ctxt 18432
"""
# Linux 2.6.32: no guest_nice yet; the CPU itself is a host of virtual machines.
STAT_OLD = "cpu  1000 10 200 5000 30 4 6 250 77\ncpu3 1000 10 200 5000 30 4 6 250 77\n"
BUSY_0, BUSY_1 = 624304 + 563 + 34564 + 1164, 817077 + 1603 + 50507 + 1129
CGROUP_2 = "usage_usec 14170000\nnr_periods 1000\nnr_throttled 400\nthrottled_usec 2500000\nnr_bursts 0\n"
CGROUP_1 = "nr_periods 1000\nnr_throttled 400\nthrottled_time 2500000000\n"
PRESSURE = """\
some avg10=10.04 avg60=6.92 avg300=5.49 total=2016924339
full avg10=0.00 avg60=0.00 avg300=0.00 total=0
"""
PRESSURE_OLD = "some avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"  # before Linux 5.13: no line "full"

on_linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc here")


def times(busy: int, steal: int, total: int) -> CpuTimes:
    return CpuTimes(busy=busy, steal=steal, total=total)


@pytest.mark.parametrize(
    ("text", "cpus", "expected"),
    [
        (STAT, {0}, times(BUSY_0, 11448, BUSY_0 + 583544 + 1858 + 11448)),
        (STAT, {0, 1}, times(BUSY_0 + BUSY_1, 21680, BUSY_0 + BUSY_1 + 953952 + 7642 + 21680)),
        (STAT_OLD, {3}, times(1220, 250, 6500)),  # guest time counts once, offline CPUs have no line
        ("", {0}, None),
        (STAT, set(), None),
        (STAT, {0, 2}, None),
        ("cpu0 1 2 3 4 5 6 7\n", {0}, None),
        ("cpu0 1 2 3 4 5 6 7 x\n", {0}, None),
        ("cpu0 1 2 3 4 5 6 7 -8\n", {0}, None),
        ("cpu0 1 2 3 4 5 6 7 ²\n", {0}, None),
        (f"cpu0 1 2 3 4 5 6 7 {'8' * 5000}\n", {0}, None),
    ],
)
def test_the_times_of_the_cpus_that_we_may_use(text: str, cpus: set[int], expected: CpuTimes | None) -> None:
    assert monitor.parse_stat(text, cpus) == expected


@pytest.mark.parametrize(
    ("before", "after", "own", "steal", "foreign"),
    [
        (times(100, 10, 1000), times(180, 30, 1200), 30, 0.1, 0.25),
        (times(100, 10, 1000), times(180, 10, 1200), 80, 0.0, 0.0),
        (times(100, 10, 1000), times(180, 10, 1200), 90, 0.0, 0.0),  # ticks against exact times
        (times(100, 10, 1000), times(100, 10, 1000), 0, None, None),
        (times(100, 10, 1000), times(90, 5, 1200), 0, None, None),
        (times(100, 10, 1000), times(900, 900, 1001), 0, None, None),
        (times(100, 10, 1000), times(180, 30, 1200), None, 0.1, None),
        (None, times(100, 10, 1000), 0, None, None),
        (times(100, 10, 1000), None, 0, None, None),
    ],
)
def test_shares_of_cpu_time(
    before: CpuTimes | None,
    after: CpuTimes | None,
    own: int | None,
    steal: float | None,
    foreign: float | None,
) -> None:
    assert monitor.steal_share(before, after) == steal
    assert monitor.foreign_share(before, after, own) == foreign


@pytest.mark.parametrize(
    ("cpus", "quota", "others", "expected"),
    [
        (64, 2.0, 60.0, 0.0),  # a large server: the others leave more than the quota
        (64, 2.0, 63.0, 0.5),  # they leave one of the two CPUs that are granted
        (2, 1.9, 1.0, 0.9 / 1.9),
        (2, 2.0, 1.0, 0.5),
    ],
)
def test_under_a_quota_others_disturb_if_they_leave_less_than_it_grants(
    cpus: int, quota: float, others: float, expected: float
) -> None:
    own = round(100 * min(quota, cpus - others))
    before, after = times(0, 0, 0), times(own + round(100 * others), 0, 100 * cpus)
    assert monitor.foreign_share(before, after, own, quota / cpus) == pytest.approx(expected)


@given(st.integers(1, 64), st.floats(0.1, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_share_stays_a_share_and_a_quota_never_makes_others_count_for_more_than_all_they_used(
    cpus: int, granted: float, busy_share: float, own_share: float
) -> None:
    total = 1000 * cpus
    busy = int(busy_share * total)
    own = int(own_share * busy)
    share = monitor.foreign_share(times(0, 0, 0), times(busy, 0, total), own, granted)
    assert share is not None
    assert 0 <= share <= 1
    assert share * granted * total <= busy - own + 1e-6


def test_own_time_is_that_of_this_process_and_of_the_sessions_of_its_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    me = os.getpid()
    sessions = {me: 1, 10: 10, 11: 10, 12: 1, 13: 10}
    used_s = {  # user, system, and both of ended children; then the time that it waited for the disk
        me: (0.25, 0.0, 0.0, 0.0, 9.0),
        10: (1.0, 0.5, 0.25, 0.25, 9.0),  # a worker
        11: (0.0, 0.5, 0.0, 0.0, 9.0),  # its child
        12: (9.0, 9.0, 9.0, 9.0, 9.0),  # another program in the session of this process
    }

    def session(pid: int) -> int:
        if pid not in sessions:
            raise ProcessLookupError
        return sessions[pid]

    def process(pid: int) -> SimpleNamespace:
        if pid not in used_s:
            raise psutil.NoSuchProcess(pid)
        return SimpleNamespace(cpu_times=lambda: used_s[pid])

    exact_s = {10: 1.625}  # to the nanosecond, in place of the ticks of user and system
    monkeypatch.setattr(os, "getsid", session)
    monkeypatch.setattr(psutil, "Process", process)
    monkeypatch.setattr(monitor, "scheduled_s", exact_s.get)
    # 13 ends after its session was read, 14 before.
    monkeypatch.setattr(psutil, "pids", lambda: [*used_s, 13, 14])
    assert monitor.read_own_ticks({10}) == 2.875 * os.sysconf("SC_CLK_TCK")
    assert monitor.read_own_ticks(()) == 0.25 * os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize(
    "error", [OSError(), psutil.AccessDenied(), ValueError(), IndexError(), KeyError(), RuntimeError()]
)
def test_own_time_is_unknown_where_proc_cannot_be_read(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(psutil, "Process", fail)
        assert monitor.read_own_ticks(()) is None
    monkeypatch.setattr(psutil, "pids", fail)
    assert monitor.read_own_ticks(()) is None
    assert monitor._foreign(*(monitor._read_usage(()) for _ in range(2)), 1.0) is None


@pytest.fixture
def spinner() -> Iterator[subprocess.Popen[bytes]]:
    """A worker in a session of its own, with a child that uses 0.3 s of a CPU, prints a line, and waits."""
    child = "import sys, time\nwhile time.process_time() < 0.3: pass\nprint(flush=True); sys.stdin.read()"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    with process:
        yield process
        process.kill()


def ticks(own_pids: Collection[int]) -> float:
    found = monitor.read_own_ticks(own_pids)
    assert found is not None
    return found


@on_linux
def test_the_work_of_a_workers_child_is_our_own_and_is_kept_when_it_ends(
    spinner: subprocess.Popen[bytes],
) -> None:
    assert spinner.stdout is not None
    assert spinner.stdin is not None
    with_worker, alone = ticks({spinner.pid}), ticks(())
    spinner.stdout.readline()
    used = ticks({spinner.pid}) - with_worker
    used_alone = ticks(()) - alone
    least = 0.2 * os.sysconf("SC_CLK_TCK")
    assert used - used_alone > least
    spinner.stdin.close()
    spinner.wait()
    # The kernel rounds the time of a process that has ended to whole ticks.
    assert ticks({spinner.pid}) - with_worker >= used - 1
    assert ticks(()) - alone > least


@on_linux
def test_the_counters_of_this_machine_go_on() -> None:
    first, second = (monitor._read_counters({os.getpid()}).usage for _ in range(2))
    assert first.cpu is not None
    assert second.cpu is not None
    assert 0 < first.cpu.total <= second.cpu.total
    assert first.own_ticks is not None
    assert second.own_ticks is not None
    assert 0 < first.own_ticks <= second.own_ticks


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (CGROUP_2, 2.5), (CGROUP_1, 2.5), ("", None), ("usage_usec 5\n", None), ("throttled_usec\n", None),
        ("throttled_usec -5\n", None), ("throttled_usec x\n", None),
    ],
)  # fmt: skip
def test_throttled_time(text: str, seconds: float | None) -> None:
    assert monitor.parse_throttled_s(text) == seconds


def test_the_group_that_was_throttled_most_counts() -> None:
    inner, outer, new = Path("a/b"), Path("a"), Path("c")
    before = {inner: 1.0, outer: 5.0}
    after = {inner: 2.0, outer: 8.0, new: 99.0}
    assert monitor.throttled_share(before, after, 10.0) == 0.3
    assert monitor.throttled_share({}, after, 10.0) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (PRESSURE, 2016.924339), (PRESSURE_OLD, 7e-6), ("", None), ("some", None), ("some total=", None),
        ("some total=-1", None), ("full avg10=0.00 total=5", None),
    ],
)  # fmt: skip
def test_pressure(text: str, seconds: float | None) -> None:
    assert monitor.parse_pressure_s(text) == seconds


@pytest.mark.parametrize(
    ("before", "after", "whole", "share"),
    [
        (1.0, 2.0, 4.0, 0.25),
        (1.0, 9.0, 4.0, 1.0),
        (2.0, 1.0, 4.0, None),
        (1.0, 2.0, 0.0, None),
        (None, 2.0, 4.0, None),
        (1.0, None, 4.0, None),
    ],
)
def test_share_of(before: float | None, after: float | None, whole: float, share: float | None) -> None:
    assert monitor.share_of(before, after, whole) == share


@given(st.text())
def test_no_text_is_an_error(text: str) -> None:
    monitor.parse_stat("cpu0 " + text, {0})
    monitor.parse_throttled_s("throttled_usec " + text)
    monitor.parse_pressure_s("some " + text)


counts = st.integers(min_value=0, max_value=2**63)


@given(st.tuples(counts, counts, counts), st.tuples(counts, counts, counts), counts)
def test_a_share_is_a_share(before: tuple[int, int, int], after: tuple[int, int, int], own: int) -> None:
    shares = [
        monitor.steal_share(CpuTimes(*before), CpuTimes(*after)),
        monitor.foreign_share(CpuTimes(*before), CpuTimes(*after), own),
        monitor.share_of(before[0], after[0], after[1]),
    ]
    assert all(share is None or 0 <= share <= 1 for share in shares)


@given(st.lists(counts, min_size=8, max_size=10))
def test_every_tick_is_busy_idle_or_stolen(ticks: list[int]) -> None:
    parsed = monitor.parse_stat(f"cpu7 {' '.join(map(str, ticks))}", {7})
    assert parsed is not None
    assert parsed.total == sum(ticks[:8]) == parsed.busy + parsed.steal + ticks[3] + ticks[4]


def test_a_watch_times_the_canary_before_every_round_and_at_the_end() -> None:
    begin = time.monotonic()
    watch = Watch({os.getpid()}, gpu=False)
    watch.round()
    watch.round()
    seen = watch.finish({os.getpid()})
    assert len(seen.canary_s) == 3
    assert all(0 < canary_s <= seen.seconds for canary_s in seen.canary_s)
    assert sum(seen.canary_s) <= seen.seconds <= time.monotonic() - begin
    assert (seen.gpu_before, seen.gpu_after) == (None, None)
    for share in (seen.steal_share, seen.throttled_share, seen.pressure_share, seen.foreign_share):
        assert share is None or 0 <= share <= 1
    assert seen.load_average is not None
    assert seen.load_average >= 0


def test_a_watch_of_a_gpu_reads_it_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[set[int]] = []

    def read(pids: set[int]) -> GpuReading:
        asked.append(pids)
        return GpuReading(
            sm_clock_mhz=len(asked), temperature_c=None, power_w=None, clock_events=(), foreign_processes=None
        )

    monkeypatch.setattr(monitor, "read_gpu", read)
    seen = Watch({1}, gpu=True).finish({1, 2})
    assert asked == [{1}, {1, 2}]
    assert seen.gpu_before is not None
    assert seen.gpu_after is not None
    assert (seen.gpu_before.sm_clock_mhz, seen.gpu_after.sm_clock_mhz) == (1, 2)


def test_a_machine_that_reports_nothing_is_still_watched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(monitor, "_PROC", tmp_path)
    monkeypatch.setattr(monitor, "_CGROUPS", tmp_path)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    watch = Watch((), gpu=False)
    watch.round()
    seen = watch.finish(())
    assert (seen.steal_share, seen.throttled_share, seen.pressure_share, seen.foreign_share) == (None,) * 4
    assert len(seen.canary_s) == 2


def write_counters(folder: Path, *, stat: str, throttled_us: int, waited_us: int) -> None:
    """Write the files of Linux: the CPU times as in `STAT`, the rest as counters."""
    files = {
        "stat": stat,
        "self/cgroup": "0::/job\n",
        "job/cpu.stat": f"throttled_usec {throttled_us}\n",
        "pressure/cpu": f"some avg10=0.00 avg60=0.00 avg300=0.00 total={waited_us}\n",
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("granted", "usable", "foreign_share"),
    [(2.0, 2, 300 / 2000), (1.9, 1, 200 / 1900), (1.5, 1, 0.0)],
    ids=["no quota", "a quota of nearly all", "a quota that leaves enough to others"],
)
def test_a_watch_reports_each_counter(
    granted: float, usable: int, foreign_share: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ten seconds of two CPUs, 2000 ticks: 800 idle, 200 stolen, 1000 busy, 700 of these our own."""
    monkeypatch.setattr(monitor, "_PROC", tmp_path)
    monkeypatch.setattr(monitor, "_CGROUPS", tmp_path)
    monkeypatch.setattr(monitor, "_allowed_cpus", lambda: {0, 2})
    monkeypatch.setattr(monitor, "usable_cpus", lambda: usable)
    monkeypatch.setattr(monitor, "granted_cpus", lambda: granted)
    clock, own = iter([100.0, 110.0]), iter([50, 750])
    monkeypatch.setattr(monitor.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(monitor, "read_own_ticks", lambda pids: next(own))

    stat = "cpu0 9 0 0 1 0 0 0 5 0 0\ncpu2 0 0 0 0 0 0 0 0 0 0\n"
    write_counters(tmp_path, stat=stat, throttled_us=0, waited_us=7)
    watch = Watch((), gpu=False)
    # On cpu1, which we may not use, others had all the time.
    stat = "cpu0 709 0 0 201 0 0 0 105 0 0\ncpu1 1000 0 0 0 0 0 0 0 0\ncpu2 0 100 50 500 100 50 100 100 0 0\n"
    write_counters(tmp_path, stat=stat, throttled_us=1_000_000, waited_us=5_000_007)
    seen = watch.finish(())
    assert (seen.seconds, seen.steal_share, seen.pressure_share) == (10.0, 0.1, 0.5)
    assert seen.foreign_share == pytest.approx(foreign_share)
    assert seen.throttled_share == 0.1 / usable


@pytest.mark.parametrize(
    ("others", "cpus", "foreign"),
    [
        (0, (2.0, 2), 0.0),
        (2, (2.0, 2), 0.0),  # within the error of the reading: 3 sqrt(2 / 3) ticks
        (12, (2.0, 2), (12 - 2.449) / 36),  # a program that has a third of both CPUs
        (12, (1.0, 1), 0.0),  # under a quota of one CPU, the other one is theirs
        (12, (1.8, 2), (12 - 2.449 - 3.6) / 32.4),
        (12, (2.0, 5), (12 - 2.449) / 36),
        (6, (2.0, 20), 4 * (6 - 2.449) / 36),  # of twenty CPUs, five count
        (12, (2.0, 64), 1.0),
    ],
)
def test_a_round_has_what_others_used_in_it_beyond_the_error_of_the_reading(
    others: int, cpus: tuple[float, int], foreign: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """0.18 s of two CPUs, 36 ticks, of which the run used 24. Before and after the round others use all."""
    monkeypatch.setattr(monitor, "_PROC", tmp_path)
    monkeypatch.setattr(monitor, "_CGROUPS", tmp_path)
    monkeypatch.setattr(monitor, "_allowed_cpus", lambda: {0, 1})
    granted, usable = cpus
    monkeypatch.setattr(monitor, "granted_cpus", lambda: granted)
    monkeypatch.setattr(monitor, "usable_cpus", lambda: usable)
    own = iter([0, 10, 34, 34])
    monkeypatch.setattr(monitor, "read_own_ticks", lambda pids: next(own))

    def tell(user: int, idle: int) -> None:
        stat = f"cpu0 {user} 0 0 {idle} 0 0 0 0 0 0\ncpu1 0 0 0 0 0 0 0 0 0 0\n"
        write_counters(tmp_path, stat=stat, throttled_us=0, waited_us=0)

    tell(0, 0)
    watch = Watch((), gpu=False)
    tell(500, 0)
    watch.round()
    tell(500 + 24 + others, 12 - others)
    taken = watch.round_over()
    assert taken == (0.0, pytest.approx(foreign, abs=1e-4))
    tell(900, 12 - others)
    seen = watch.finish(())
    assert (seen.round_steal, seen.round_foreign) == ((taken.steal,), (taken.foreign,))


@on_linux
def test_the_time_of_a_process_is_exact_and_none_if_it_has_ended(spinner: subprocess.Popen[bytes]) -> None:
    before_s, own_s = time.process_time(), monitor.scheduled_s(os.getpid())
    assert own_s is not None
    assert before_s <= own_s <= time.process_time()
    assert monitor.scheduled_s(spinner.pid) is not None
    assert spinner.stdin is not None
    spinner.stdin.close()
    spinner.wait()
    assert monitor.scheduled_s(spinner.pid) is None


def test_the_canary_leaves_no_thread_spinning() -> None:
    canary = Canary()
    canary.seconds()
    time.sleep(0.5)  # until the threads that NumPy or another test has started sleep
    canary.seconds()
    before_s = time.process_time()
    time.sleep(0.1)
    assert time.process_time() - before_s < 0.02
