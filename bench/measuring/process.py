"""Start a worker, talk to it, and make sure that it ends, at the latest with this process."""

import contextlib
import math
import os
import random
import re
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import IO, Any, Protocol, Self, TypeVar

import msgspec

from backends.info import BackendInfo
from bench.machine.environment import tuning_variables, worker_threads
from bench.records.schema import Status
from bench.worker.protocol import AnyCommand, AnyEvent, Done, Event, Failed, MeasureTask, Started
from bench.workloads.specs import Device

PASSED_VARIABLES = (
    "PATH", "HOME", "USER", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "PYTHONUTF8", "TZ", "PYTHONPATH",
    "XDG_CACHE_HOME",
)  # fmt: skip
"""What a process needs to start. A worker also gets the tuning variables, which are in the run's environment
record, and no others: a figure must not depend on a variable that no record holds."""

KEPT_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
"""Make glibc keep the memory that a step frees, for every framework alike. By default it returns large blocks
to the kernel, and the next step gets them again, zeroed and page by page, which takes a quarter of the time
of a convolutional step in JAX (docs/design.md)."""

THREADS_VARIABLE = "OMP_NUM_THREADS"
"""It sets the threads of OpenMP, which PyTorch uses, and of the library that computes NumPy's products."""

PADDING_VARIABLE = "SAMEWORK_PADDING"
"""No program reads it. Only its length matters, which is drawn for every process that measures."""
MOST_PADDING = 4096
"""In bytes: a page of memory. The size of the environment shifts what a process places in memory, and that
alone can change its speed by more than the difference of two programs. With one size in all processes of a
row, this would look like a property of the row. With a size of its own in each, it is scatter between blocks,
which the interval covers. Source: Mytkowicz, Diwan, Hauswirth and Sweeney, Producing wrong data without doing
anything obviously wrong! (2009)."""

Heard = TypeVar("Heard", bound=Event)


class Task(Protocol):
    """Every task names the backend whose worker does it. It is a struct, sent to the worker as JSON."""

    @property
    def backend(self) -> BackendInfo: ...


_TAIL_LINES = 20
_NO_PROGRAM = re.compile(r"(No module named|module specification for) '?bench\.worker\b")
"""What an interpreter says that does not find this program, or finds another package of that name first."""
_HINTS: Mapping[int, str] = MappingProxyType(
    {
        signal.SIGKILL: "; most often the system ran out of memory",
        signal.SIGBUS: "; most often a disk, such as that of the temporary folder, is full",
    }
)
_POLL_S = 0.2
_EXIT_S = 10.0
"""A worker that still runs so long after its last event hangs in its framework's clean-up."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker ended, and all its events."""

    events: tuple[Event, ...]
    status: Status
    error: str | None
    exit_signal: str | None
    stderr_tail: tuple[str, ...]
    wall_s: float
    """Time of starting and working, without the time in which it waited for its turn."""
    start_s: float | None = None
    """From its start to its first event."""


def worker_environment(
    info: BackendInfo,
    device: Device,
    scratch: Path,
    *,
    hash_seed: int | None = None,
    compiled: Path | None = None,
) -> dict[str, str]:
    """Return the environment variables of a worker: those that are allowed, then the backend's own.

    `hash_seed` sets the order of Python's hash tables and the length of the padding.
    `compiled` is the folder for compiled programs. Without it the worker finds none, and what the framework
    writes goes to the scratch folder with its temporary files, which is deleted when the worker has ended.
    """
    environment = {name: value for name, value in os.environ.items() if name in PASSED_VARIABLES}
    environment["TMPDIR"] = str(scratch)
    environment["PYTHONSAFEPATH"] = "1"  # its own children must not import from the current folder either
    environment |= KEPT_MEMORY
    if (threads := worker_threads()) is not None:
        environment |= dict.fromkeys((THREADS_VARIABLE, *info.thread_variables), str(threads))
    environment |= tuning_variables()  # after the threads, so that what the user has set is kept
    environment |= info.environment
    if device == "cpu":
        environment |= info.cpu_environment
        environment["CUDA_VISIBLE_DEVICES"] = ""  # a job on the CPU must not even see a GPU
    for name, value in info.caching_environment.items() if compiled else ():
        flags = environment.get(name, "") if name.endswith("_FLAGS") else ""
        environment[name] = f"{flags} {value}".strip()
    if hash_seed is not None:
        environment["PYTHONHASHSEED"] = str(hash_seed)
        environment[PADDING_VARIABLE] = "x" * padding(hash_seed)
    folders = {"{scratch}": scratch, "{compiled}": compiled or scratch / "compiled"}
    for mark, folder in folders.items():
        environment = {name: value.replace(mark, str(folder)) for name, value in environment.items()}
    return environment


def padding(hash_seed: int) -> int:
    """Return by how many bytes a job's environment is padded, from 0 to `MOST_PADDING`.

    It follows from the job's recorded hash seed, so that a process can be repeated as it was.
    """
    return random.Random(hash_seed).randint(0, MOST_PADDING)  # noqa: S311


def kept_compiled(task: Task, asked: Path | None, scratch: Path) -> Path | None:
    """Return the folder for compiled programs: the one asked for, else none for a task that measures.

    Other tasks may build a network more than once. They get a folder of their own.
    """
    return asked if asked is not None or isinstance(task, MeasureTask) else scratch / "compiled"


def run_worker(
    task: Task,
    *,
    python: Path,
    device: Device,
    time_limit_s: float,
    on_event: Callable[[Event], None] = lambda _: None,
    events: Any = AnyEvent,
) -> Outcome:
    """Run a task that needs no commands in a fresh process; KeyboardInterrupt leaves no process running.

    `events` is the union of the events that the worker may send.
    """
    with Worker(
        task, python=python, device=device, time_limit_s=time_limit_s, on_event=on_event, events=events
    ) as worker:
        return worker.finish()


class Worker:
    """A worker process. Used as a context, it leaves neither the process nor its scratch folder behind.

    Its time limit does not count the time in which it waits for its turn.
    """

    def __init__(
        self,
        task: Task,
        *,
        python: Path,
        device: Device,
        time_limit_s: float,
        on_event: Callable[[Event], None] = lambda _: None,
        hash_seed: int | None = None,
        compiled: Path | None = None,
        deadline: float = math.inf,
        events: Any = AnyEvent,
    ) -> None:
        """`events` is the union of the events that the worker may send.

        At `deadline`, a time of the monotonic clock, it is ended whatever is left of its time limit.
        """
        self._compiled, self._kinds = compiled, events
        self._task, self._python, self._device, self._hash_seed = task, python, device, hash_seed
        self._time_limit_s, self._deadline, self._on_event = time_limit_s, deadline, on_event
        self._events: list[Event] = []
        self._buffer = b""
        self._wall_s = 0.0
        self._start_s: float | None = None
        self._timed_out = False
        self._over = False
        """No further event will come: it ended, ran out of time, or sent something that is not an event."""

    def __enter__(self) -> Self:
        self._scratch = Path(tempfile.mkdtemp(prefix="samework-"))
        try:
            self._output = (self._scratch / "output").open("w+b")
            environment = worker_environment(
                self._task.backend,
                self._device,
                self._scratch,
                hash_seed=self._hash_seed,
                compiled=kept_compiled(self._task, self._compiled, self._scratch),
            )
            self._started = time.monotonic()
            self._process, self._channel = _start(self._task, self._python, environment, self._output)
        except BaseException:
            shutil.rmtree(self._scratch, ignore_errors=True)
            raise
        os.set_blocking(self._channel, False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            _end(self._process)
            os.close(self._channel)
            self._output.close()
            self._hang_up()
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def over(self) -> bool:
        return self._over

    def ask(self, command: AnyCommand) -> None:
        """Send a command. If the worker can no longer read it, waiting for the answer will show that."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(msgspec.json.encode(command) + b"\n")
                self._process.stdin.flush()

    def wait_for(self, kind: type[Heard]) -> Heard | None:
        """Listen until an event of that kind has come and return it; None where the worker is over first."""
        while not self._over:
            if self._listen(kind) and isinstance(event := self._events[-1], kind):
                return event
        return None

    def finish(self) -> Outcome:
        """Close the channel of commands, listen until the worker is over, and return how it ended."""
        self._hang_up()
        while not self._over:
            self._listen(None)
        _end(self._process)
        tail = _tail(self._output)
        status, error, exit_signal = _verdict(
            self._process.returncode, self._timed_out, self._time_limit_s, self._events, tail
        )
        return Outcome(
            events=tuple(self._events),
            status=status,
            error=error,
            exit_signal=exit_signal,
            stderr_tail=tail if status != "ok" else (),
            wall_s=self._wall_s,
            start_s=self._start_s,
        )

    def _hang_up(self) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def _listen(self, kind: type[Event] | None) -> bool:
        """Take in events until one of that kind has come or the worker is over; return whether one came."""
        began = time.monotonic()
        try:
            return self._take(kind, min(began + self._time_limit_s - self._wall_s, self._deadline))
        finally:
            self._wall_s += time.monotonic() - began

    def _take(self, kind: type[Event] | None, deadline: float) -> bool:
        """Collect events until one of that kind, the worker's end, or the deadline.

        The end is found by polling the process and not by the end of the pipe, which a helper process that a
        framework leaves behind would keep open. A line that is not an event ends the job, because nothing
        after it can be trusted. Events after the one that is waited for stay in the buffer.
        """
        if self._buffer and self._read_lines(kind):
            return True
        with selectors.DefaultSelector() as selector:
            selector.register(self._channel, selectors.EVENT_READ)
            while not self._over:
                ended = self._process.poll() is not None
                while not self._over and selector.select(timeout=0 if ended else _POLL_S):
                    chunk = os.read(self._channel, 65536)
                    if not chunk:
                        self._over = True
                        last_moment = min(deadline, time.monotonic() + _EXIT_S)
                        self._timed_out = not ended and _overruns(self._process, last_moment)
                        return False
                    self._buffer += chunk
                    if self._read_lines(kind):
                        return True
                    if not ended and time.monotonic() > deadline:  # also while events keep coming
                        self._over = self._timed_out = True
                if ended:
                    self._over = True
                elif time.monotonic() > deadline:
                    self._over = self._timed_out = True
        return False

    def _read_lines(self, kind: type[Event] | None) -> bool:
        """Take events from the buffer, up to one of that kind; return whether there was one."""
        while not self._over and b"\n" in self._buffer:
            line, self._buffer = self._buffer.split(b"\n", 1)
            try:
                event: Event = msgspec.json.decode(line, type=self._kinds)
            except msgspec.DecodeError as error:
                event = Failed(status="failed", error=f"it sent a line that is not an event: {error}")
                self._over = True
            if isinstance(event, Started) and self._start_s is None:
                self._start_s = time.monotonic() - self._started
            self._events.append(event)
            self._on_event(event)
            if kind is not None and isinstance(event, kind):
                return True
        return False


def _start(
    task: Task, python: Path, environment: dict[str, str], output: IO[bytes]
) -> tuple["subprocess.Popen[bytes]", int]:
    read_end, write_end = os.pipe()
    try:
        process = subprocess.Popen(
            [
                str(python),
                "-P",
                "-m",
                "bench.worker",
                str(write_end),
            ],  # -P: do not import from the current folder
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
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):  # it died before; its exit status and output tell why
            process.stdin.write(msgspec.json.encode(task) + b"\n")
            process.stdin.flush()
    return process, read_end


def _overruns(process: "subprocess.Popen[bytes]", deadline: float) -> bool:
    """Wait for a worker that sends no more events to end; return whether it still runs at the deadline."""
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
    returncode: int, timed_out: bool, time_limit_s: float, events: list[Event], tail: tuple[str, ...]
) -> tuple[Status, str | None, str | None]:
    """Return status, error and signal. A worker whose last event is not `Done` has failed."""
    last = events[-1] if events else None
    if isinstance(last, Failed):
        return last.status, last.error, None
    if isinstance(last, Done) and returncode in (
        0,
        -signal.SIGKILL,
    ):  # killed by this process, as it hung after it was done
        return "ok", None, None
    if timed_out:
        return (
            "timeout",
            f"it was stopped at its limit of {time_limit_s:.0f} s, or when all time was spent",
            None,
        )
    if returncode < 0:
        name = signal.Signals(-returncode).name
        hint = _HINTS.get(-returncode, "")
        return "crashed", f"the process was ended by {name}{hint}", name
    said = f": {tail[-1]}" if tail else ""
    if _NO_PROGRAM.search(said):
        said += (
            ". Install samework into the environment of this interpreter. If it is there, another package "
            "'bench' hides it: uninstall that one"
        )
    return "crashed", f"the process ended with status {returncode} and without a message{said}", None
