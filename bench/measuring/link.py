"""A link to a worker: the process itself, which this host or another one runs, and its three channels.

Commands go in, events come out, and what the process prints is kept for the record of its failure. A link
knows nothing of what the lines mean: `bench.measuring.process` does.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import IO, Protocol, Self

import msgspec

from backends.info import BackendInfo
from bench.measuring.variables import worker_environment
from bench.paths import from_text
from bench.workloads.specs import Device

LOST_STATUS = 255
"""What `Link.poll` returns for a worker whose host cannot be reached any more; the end of `tail` says why.
No worker ends with it."""
_TAIL_LINES = 20
_TAIL_BYTES = 16384
_CHUNK_BYTES = 65536


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """What it takes to start a worker, on whichever host. All of it can be sent as JSON.

    A path is text as `bench.paths.to_text` writes it.
    """

    task: str
    """The task as JSON, in one line."""
    backend: BackendInfo
    """The backend of the task, which has environment variables of its own."""
    python: str
    """The interpreter that runs it."""
    device: Device
    hash_seed: int | None = None
    compiled: str | None = None
    """The folder of compiled programs; None: the worker finds none."""
    compiles_once: bool = False
    """Whether it keeps what it compiles, while it runs, if `compiled` names no folder."""
    threads: int | None = None
    """The size of its pools of threads; None: what the frameworks choose, or the user has set."""
    gpu: str | None = None
    """The UUID of the only GPU that it sees; None: all that its host's process sees."""


class Link(Protocol):
    """A worker process that has been started. It is ended and its leftovers are removed by `close`.

    No method raises an error because the process has ended, or because its host cannot be reached any more:
    `read` returns b"", and `poll` a status.
    """

    @property
    def pid(self) -> int | None:
        """The number of the process, the leader of its session and its group; None on another host."""

    def fileno(self) -> int:
        """Return a descriptor that `select` calls readable if `read` has something to return at once."""

    def read(self) -> bytes:
        """Return some bytes of the events, one or more; b"" when no more will come. It may wait for some.

        A helper of a framework may keep the channel open after the worker has ended. `poll` tells that.
        """

    def send(self, line: bytes) -> None:
        """Send a command: one line, without its end. A worker that has ended does not get it."""

    def poll(self) -> int | None:
        """Return the exit status, or the negative number of the signal that ended it; None: it still runs.

        It does not wait.
        """

    def hang_up(self) -> None:
        """Say that no more commands will come."""

    def end(self) -> None:
        """Kill the process and its children, if any still runs. Afterwards `poll` returns a status."""

    def tail(self) -> tuple[str, ...]:
        """Return the last lines that the process and its children have printed, at most twenty."""

    def close(self) -> None:
        """End the process, and release all that belongs to it, files too. Calling it again is allowed."""


class LocalLink:
    """A worker on this host, in a session of its own: Ctrl-C reaches the harness first."""

    def __init__(self, launch: Launch) -> None:
        """Start the process; raise OSError, and leave nothing behind, if the system refuses that."""
        with contextlib.ExitStack() as stack:
            scratch = Path(tempfile.mkdtemp(prefix="samework-"))
            stack.callback(shutil.rmtree, scratch, ignore_errors=True)
            self._output = stack.enter_context((scratch / "output").open("w+b"))
            environment = worker_environment(
                launch.backend,
                launch.device,
                scratch,
                hash_seed=launch.hash_seed,
                compiled=_kept(launch, scratch),
                threads=launch.threads,
                gpu=launch.gpu,
            )
            self._process, self._channel = _start(launch, environment, self._output)
            stack.callback(os.close, self._channel)
            stack.callback(self.hang_up)
            stack.callback(self.end)
            self._leftovers = stack.pop_all()
        self.send(launch.task.encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def fileno(self) -> int:
        return self._channel

    def read(self) -> bytes:
        return os.read(self._channel, _CHUNK_BYTES)

    def send(self, line: bytes) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # its exit status and output tell why
                self._process.stdin.write(line + b"\n")
                self._process.stdin.flush()

    def poll(self) -> int | None:
        return self._process.poll()

    def hang_up(self) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def tail(self) -> tuple[str, ...]:
        self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, self._output.tell() - _TAIL_BYTES))
        return tuple(self._output.read().decode(errors="replace").splitlines()[-_TAIL_LINES:])

    def close(self) -> None:
        self._leftovers.close()


def _kept(launch: Launch, scratch: Path) -> Path | None:
    """Return the folder for compiled programs: the one asked for, else one of its own, or none."""
    if launch.compiled is not None:
        return from_text(launch.compiled)
    return scratch / "compiled" if launch.compiles_once else None


def _start(
    launch: Launch, environment: dict[str, str], output: IO[bytes]
) -> tuple["subprocess.Popen[bytes]", int]:
    """Start the process; return it and the end of the pipe from which its events are read."""
    read_end, write_end = os.pipe()
    # -P: do not import from the current folder
    command = [str(from_text(launch.python)), "-P", "-m", "bench.worker", str(write_end)]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=environment,
            pass_fds=(write_end,),
            start_new_session=True,  # its own children end with it, and Ctrl-C reaches this process first
        )
    except OSError:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
    return process, read_end
