"""Which of several processes that wait for each other is the one that all of them wait for."""

import contextlib
import os
import signal
import time
from collections.abc import Sequence

import psutil

_SAMPLE_S = 1.0
_LEAST, _MUCH_MORE = 0.05, 5.0
"""A process computes if it uses this share of a core at least, and so many times more than those that wait.
On a busy machine it gets only a part of a core."""
_SHOW_S = 0.2


def stuck_rank(pids: Sequence[int | None], heard: Sequence[int]) -> tuple[int, str]:
    """Return the place of the process that hangs, and in words how that is known.

    `pids` are their numbers, None on another host, and `heard` is how many events each has sent. Where it
    cannot be told, the place is 0, and the words say so.
    """
    for place, pid in enumerate(pids):
        if _is_stopped(pid):
            return place, "the process is stopped, as SIGSTOP does"
    behind = [place for place, count in enumerate(heard) if count == min(heard)]
    if len(behind) == 1 < len(heard):
        return behind[0], f"it has sent {heard[behind[0]]} events, and each of the others more"
    known = {place: share for place, share in enumerate(_cpu_shares(pids)) if share is not None}
    order = sorted(known, key=lambda place: known[place])
    if len(order) == len(pids) > 1 and known[order[-1]] > max(_LEAST, _MUCH_MORE * known[order[-2]]):
        return order[-1], "it computes while the others wait"
    if len(order) == len(pids) > 2 and known[order[1]] > max(_LEAST, _MUCH_MORE * known[order[0]]):
        return order[0], "it is idle while the others wait in a loop"  # as collectives on GPUs do
    return 0, "which rank hangs cannot be told"


def print_stacks(pids: Sequence[int | None]) -> None:
    """Let workers of this host print where their main thread is, and wait until they have done so.

    They must have begun: `bench.worker.__main__` makes them do this at SIGUSR1, which else ends a process.
    """
    for pid in pids:
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGUSR1)
    time.sleep(_SHOW_S)


def _is_stopped(pid: int | None) -> bool:
    with contextlib.suppress(psutil.Error):
        return pid is not None and psutil.Process(pid).status() == psutil.STATUS_STOPPED
    return False


def _cpu_shares(pids: Sequence[int | None]) -> list[float | None]:
    """Return how much of a core each process uses; None where that is not known."""
    before = [_cpu_s(pid) for pid in pids]
    began = time.monotonic()
    time.sleep(_SAMPLE_S)
    seconds = time.monotonic() - began
    return [
        None if then is None or now is None else (now - then) / seconds
        for then, now in zip(before, map(_cpu_s, pids), strict=True)
    ]


def _cpu_s(pid: int | None) -> float | None:
    with contextlib.suppress(psutil.Error):
        times = None if pid is None else psutil.Process(pid).cpu_times()
        return None if times is None else times.user + times.system
    return None
