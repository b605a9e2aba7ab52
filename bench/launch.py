"""Start a worker, listen to it, and make sure that it ends: by itself, at its time limit, or with us."""

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import msgspec

from backends.base import BackendInfo
from bench.machine import tuning_variables
from bench.protocol import AnyEvent, Done, Failed, Task
from bench.records import Status
from bench.specs import Device

PASSED_VARIABLES = (
    "PATH", "HOME", "USER", "SHELL", "LANG", "LC_ALL", "TZ", "TMPDIR", "PYTHONPATH", "XDG_CACHE_HOME",
    "CC", "CXX",
)  # fmt: skip
"""What a process needs to start. Beside these a worker gets the tuning variables, which the run's environment
records; all else is kept from it, as a figure must not hang on a variable that no record tells of."""

_TAIL_LINES = 20
_POLL_S = 0.2
_EXIT_S = 10.0
"""A worker that has said its last word, and still runs after so long, hangs in its framework's clean-up."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker ended, and all it said before."""

    events: tuple[AnyEvent, ...]
    status: Status
    error: str | None
    exit_signal: str | None
    stderr_tail: tuple[str, ...]
    wall_s: float


def worker_environment(info: BackendInfo, device: Device, scratch: Path) -> dict[str, str]:
    """Return the variables a worker is started with: those allowed through, then the backend's own."""
    environment = {name: value for name, value in os.environ.items() if name in PASSED_VARIABLES}
    environment |= tuning_variables()
    environment |= info.environment
    if device == "cpu":
        environment |= info.cpu_environment
        environment["CUDA_VISIBLE_DEVICES"] = ""  # a job on the CPU must not even see a GPU
    return {name: value.replace("{scratch}", str(scratch)) for name, value in environment.items()}


def run_worker(
    task: Task,
    *,
    python: Path,
    device: Device,
    time_limit_s: float,
    on_event: Callable[[AnyEvent], None] = lambda _: None,
) -> Outcome:
    """Run one task in a fresh process and return how it ended; KeyboardInterrupt leaves nothing running."""
    scratch = Path(tempfile.mkdtemp(prefix="samework-"))
    started = time.monotonic()
    events: list[AnyEvent] = []
    try:
        with (scratch / "output").open("w+b") as output:
            process, channel = _start(task, python, worker_environment(task.backend, device, scratch), output)
            try:
                timed_out = _listen(process, channel, started + time_limit_s, events, on_event)
            finally:
                _end(process)
                os.close(channel)
            wall_s = time.monotonic() - started
            tail = _tail(output)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    status, error, exit_signal = _verdict(process.returncode, timed_out, time_limit_s, events, tail)
    return Outcome(
        events=tuple(events),
        status=status,
        error=error,
        exit_signal=exit_signal,
        stderr_tail=tail if status != "ok" else (),
        wall_s=wall_s,
    )


def _start(
    task: Task, python: Path, environment: dict[str, str], output: IO[bytes]
) -> tuple["subprocess.Popen[bytes]", int]:
    read_end, write_end = os.pipe()
    try:
        process = subprocess.Popen(
            [str(python), "-m", "bench.worker", str(write_end)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=environment,
            pass_fds=(write_end,),
            start_new_session=True,  # so that its own children end with it, and Ctrl-C reaches us first
        )
    except OSError:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):  # it died first: its exit status and output tell
            process.stdin.write(msgspec.json.encode(task))
            process.stdin.close()
    return process, read_end


def _listen(
    process: "subprocess.Popen[bytes]",
    channel: int,
    deadline: float,
    events: list[AnyEvent],
    on_event: Callable[[AnyEvent], None],
) -> bool:
    """Collect events until the worker has ended or the deadline passed; return whether it passed.

    The end is seen by polling the process, not by the end of the pipe: a helper process that a framework
    leaves behind would hold the pipe open. A line that is no event ends the job: nothing after it can be
    trusted.
    """
    os.set_blocking(channel, False)
    buffer = b""
    with selectors.DefaultSelector() as selector:
        selector.register(channel, selectors.EVENT_READ)
        while True:
            ended = process.poll() is not None
            while selector.select(timeout=0 if ended else _POLL_S):
                chunk = os.read(channel, 65536)
                if not chunk:
                    return not ended and _overruns(process, min(deadline, time.monotonic() + _EXIT_S))
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    try:
                        event = msgspec.json.decode(line, type=AnyEvent)
                    except msgspec.DecodeError as error:
                        said = f"it sent a line that is no event: {error}"
                        events.append(Failed(status="failed", error=said))
                        return False
                    events.append(event)
                    on_event(event)
                if not ended and time.monotonic() > deadline:  # however much it has to say
                    return True
            if ended:
                return False
            if time.monotonic() > deadline:
                return True


def _overruns(process: "subprocess.Popen[bytes]", deadline: float) -> bool:
    """Wait for a worker that will say no more; return whether it still runs at the deadline."""
    try:
        process.wait(max(0.0, deadline - time.monotonic()) + _POLL_S)
    except subprocess.TimeoutExpired:
        return True
    return False


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kill the worker's process group, if any of it still runs, and reap the worker."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail(output: IO[bytes]) -> tuple[str, ...]:
    output.seek(0, os.SEEK_END)
    output.seek(max(0, output.tell() - 16384))
    return tuple(output.read().decode(errors="replace").splitlines()[-_TAIL_LINES:])


def _verdict(
    returncode: int, timed_out: bool, time_limit_s: float, events: list[AnyEvent], tail: tuple[str, ...]
) -> tuple[Status, str | None, str | None]:
    """Return status, error and signal; anything but a last word of `done` is a failure with a name."""
    last = events[-1] if events else None
    if isinstance(last, Failed):
        return last.status, last.error, None
    if isinstance(last, Done) and returncode in (0, -signal.SIGKILL):  # ours, where it hung when it was done
        return "ok", None, None
    if timed_out:
        return "timeout", f"it was stopped after its limit of {time_limit_s:.0f} s", None
    if returncode < 0:
        name = signal.Signals(-returncode).name
        hint = "; most often the system ran out of memory" if returncode == -signal.SIGKILL else ""
        return "crashed", f"the process was ended by {name}{hint}", name
    said = f": {tail[-1]}" if tail else ""
    return "crashed", f"the process ended with status {returncode} and without a last word{said}", None
