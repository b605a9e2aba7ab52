"""Several processes that are the ranks of one job: started, watched and ended together."""

import contextlib
import json
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
from conftest import child

from backends.info import BackendInfo
from bench.measuring.variables import THREADS_VARIABLE
from bench.workloads.ranks import Place

POLL_S = 0.05


def free_addresses(count: int) -> tuple[str, ...]:
    """Return addresses of the loopback whose ports are free now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return tuple(f"127.0.0.1:{one.getsockname()[1]}" for one in sockets)


def in_ranks(
    info: BackendInfo,
    target: str,
    argument: dict[str, Any],
    ranks: int,
    *,
    limit_s: float = 300.0,
    compiled: Path | None = None,
) -> list[Any]:
    """Return what `module:function` of tests/ makes of `argument` in each rank; both ways as JSON.

    The function also finds `argument["place"]`. Every process has one thread. If one process fails, the
    others are killed, because they wait for it.
    """
    addresses = free_addresses(ranks)
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="samework-test-")))
        results, processes = [], []
        for rank in range(ranks):
            place = Place(rank=rank, ranks=ranks, local_rank=rank, addresses=addresses, interface=loopback)
            result = scratch / str(rank) / "result.json"
            result.parent.mkdir()
            given = argument | {"place": msgspec.to_builtins(place)}
            command, environment = child(info, target, given, result, compiled=compiled)
            environment |= dict.fromkeys((THREADS_VARIABLE, *info.thread_variables), "1")
            errors = stack.enter_context((scratch / f"{rank}.txt").open("w"))
            process = subprocess.Popen(command, stdout=errors, stderr=errors, env=environment)
            stack.callback(_end, process)
            results.append(result)
            processes.append(process)
        _wait(processes, scratch, target, time.monotonic() + limit_s)
        return [json.loads(result.read_text()) for result in results]


def _wait(processes: list["subprocess.Popen[bytes]"], scratch: Path, target: str, end: float) -> None:
    """Wait until all have ended well; raise AssertionError with the last words of those that have not."""
    while True:
        codes = [process.poll() for process in processes]
        failed = [rank for rank, code in enumerate(codes) if code not in (None, 0)]
        if failed or time.monotonic() > end:
            said = failed or [rank for rank, code in enumerate(codes) if code is None]
            tails = {rank: (scratch / f"{rank}.txt").read_text().splitlines()[-30:] for rank in said}
            lines = [f"rank {rank}: {line[:300]}" for rank, tail in tails.items() for line in tail]
            raise AssertionError("\n".join([f"{target}: ranks ended with {codes}", *lines]))
        if None not in codes:
            return
        time.sleep(POLL_S)


def _end(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGKILL)
    process.wait()
