"""Start a worker, listen to it, and make sure that it ends: by itself, at its time limit, or with us."""

import os
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

import msgspec

from backends.base import BackendInfo
from bench.protocol import AnyEvent, Done, Failed, Task
from bench.records import Status
from bench.specs import Device

ALLOWED_VARIABLES = (
    "PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "SHELL", "PYTHONPATH", "LD_LIBRARY_PATH",
    "XDG_CACHE_HOME", "CC", "CXX", "XLA_FLAGS", "TF_XLA_FLAGS", "CUDA_VISIBLE_DEVICES",
)  # fmt: skip
ALLOWED_PREFIXES = (
    "OMP_",
    "MKL_",
    "OPENBLAS_",
    "KMP_",
    "GOMP_",
    "DNNL_",
    "ONEDNN_",
    "TF_ENABLE_ONEDNN",
    "NVIDIA_",
    "CUDA_",
)
"""All else is kept from workers: a figure must not hang on a variable that no record tells of."""

_TAIL_LINES = 20
_POLL_S = 0.2


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
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in ALLOWED_VARIABLES or name.startswith(ALLOWED_PREFIXES)
    }
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
    on_event: Callable[[AnyEvent], None] = lambda event: None,
) -> Outcome:
    """Run one task in a fresh process; always returns, or passes KeyboardInterrupt on with nothing left running."""
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
        try:
            process.stdin.write(msgspec.json.encode(task))
            process.stdin.close()
        except BrokenPipeError:
            pass  # it died before it read its task: its exit status and output tell
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
    leaves behind would hold the pipe open.
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
                    process.wait(max(0.0, deadline - time.monotonic()) + _POLL_S) if not ended else None
                    return False
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    event = msgspec.json.decode(line, type=AnyEvent)
                    events.append(event)
                    on_event(event)
            if ended:
                return False
            if time.monotonic() > deadline:
                return True


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kill the worker's process group, if any of it still runs, and reap the worker."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    process.wait()


def _tail(output: IO[bytes]) -> tuple[str, ...]:
    output.seek(0, os.SEEK_END)
    output.seek(max(0, output.tell() - 16384))
    return tuple(output.read().decode(errors="replace").splitlines()[-_TAIL_LINES:])


def _verdict(
    returncode: int, timed_out: bool, time_limit_s: float, events: list[AnyEvent], tail: tuple[str, ...]
) -> tuple[Status, str | None, str | None]:
    """Return status, error and signal; anything but a last word of `done` is a failure with a name."""
    if timed_out:
        return "timeout", f"it was stopped after its limit of {time_limit_s:.0f} s", None
    last = events[-1] if events else None
    if isinstance(last, Failed):
        return last.status, last.error, None
    if isinstance(last, Done) and returncode in (0, -signal.SIGKILL):
        return "ok", None, None
    if returncode < 0:
        name = signal.Signals(-returncode).name
        hint = "; most often the system ran out of memory" if returncode == -signal.SIGKILL else ""
        return "crashed", f"the process was ended by {name}{hint}", name
    said = f": {tail[-1]}" if tail else ""
    return "crashed", f"the process ended with status {returncode} and without a last word{said}", None


def python_works(python: Path, environment: Mapping[str, str] | None = None) -> str | None:
    """Return why an interpreter cannot run workers, or None where it can."""
    try:
        done = subprocess.run(
            [str(python), "-c", "import bench.worker"], capture_output=True, text=True, timeout=60, env=environment
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it failed"])[-1]
