"""A run as a process of its own, with real workers: interrupted, killed, and watched on a terminal."""

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fakes
import msgspec
import psutil
import pytest
from fakes import QUICK, STEADY, TINY
from played import play, undisturbed
from screens import Seen
from test_runner import available, carry_out, pairs

from bench.records.runs import RECORDS, read_run
from bench.run import setup as prepare

pytestmark = [pytest.mark.measures, pytest.mark.long]

LATE_S = 250.0
"""How long a test waits for a process on a busy machine."""
COMMAND = """
import msgspec
import pytest
from bench.cli.main import main
from bench.run import plan
from fakes import TINY
from played import undisturbed
plan.PRESETS = {"quick": msgspec.structs.replace(TINY, target_half_width=1e-9)}
undisturbed(pytest.MonkeyPatch())
main()
"""
"""The command `bench` with real workers, whose runs have short blocks and end with their budget."""


@pytest.fixture
def started(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a run of two fakes by the command line, with its output in a pipe."""
    process = start(tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    yield process
    process.kill()
    process.communicate()


class Terminal:
    """A run on a terminal of its own, whose output is read until the terminal is closed."""

    def __init__(self, tmp_path: Path) -> None:
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self._output: list[bytes] = []
        self._closing = threading.Event()
        self.process = start(
            tmp_path, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(slave)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def press(self, keys: bytes) -> None:
        os.write(self._master, keys)

    @property
    def output(self) -> str:
        """What it has written so far, up to the last sequence that is complete."""
        return re.sub(r"\x1b[^A-Za-z]*$", "", b"".join(self._output).decode(errors="ignore"))

    def finish(self) -> None:
        """Wait until the run has ended and all of its output is read."""
        self.process.wait(timeout=LATE_S)
        self._reader.join(timeout=LATE_S)

    def close(self) -> None:
        if not self._closing.is_set():
            self._closing.set()
            self._reader.join()
            os.close(self._master)

    def _read(self) -> None:
        while not self._closing.is_set():
            if select.select([self._master], [], [], 0.1)[0]:
                try:
                    self._output.append(os.read(self._master, 65536))
                except OSError:  # the run has ended
                    return


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    found = Terminal(tmp_path)
    yield found
    found.process.kill()
    found.process.wait()
    found.close()


def start(tmp_path: Path, **streams: Any) -> subprocess.Popen[str]:
    """Start a run of two fakes, found by entry point; the test ends it."""
    site = fakes.distribution(tmp_path / "site", {"steady": "fakes:STEADY", "quick": "fakes:QUICK"})
    (tmp_path / "scratch").mkdir()  # what a killed harness leaves is found here
    environment = os.environ | {"PYTHONPATH": fakes.python_path(site), "TMPDIR": str(tmp_path / "scratch")}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell has it ignored
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and nohup this one
    return subprocess.Popen(
        [
            sys.executable, "-c", COMMAND, "run", "--sample", "--workload", fakes.WORKLOAD, "--device", "cpu",
            "--backend", "steady", "--backend", "quick", "--results", str(tmp_path / "results"),
            "--budget", "1h",
        ],
        text=True, env=environment, cwd=tmp_path, **streams,
    )  # fmt: skip


def job_in_hand(process: subprocess.Popen[str], results: Path) -> tuple[Path, psutil.Process]:
    """Wait until a job is done and the next has begun; return the run's folder and the worker."""
    deadline = time.monotonic() + LATE_S
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stdout and process.stdout.read()
        for folder in results.glob("run-*"):
            lines = (folder / RECORDS).read_bytes().splitlines() if (folder / RECORDS).exists() else []
            workers = psutil.Process(process.pid).children()
            if len(lines) >= 3 and workers:
                return folder, workers[0]
        time.sleep(0.05)
    raise AssertionError(f"no job was done in {LATE_S:.0f} s")


def assert_ended(worker: psutil.Process) -> None:
    deadline = time.monotonic() + LATE_S
    while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the worker is still there"
        time.sleep(0.05)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_keeps_all_that_is_done_and_tells_how_to_go_on(
    sent: signal.Signals, started: subprocess.Popen[str], tmp_path: Path
) -> None:
    folder, worker = job_in_hand(started, tmp_path / "results")
    started.send_signal(sent)
    output, _ = started.communicate(timeout=LATE_S)
    assert started.returncode == 130, output
    assert f"bench run --resume {folder.name} --results {folder.parent}" in output
    assert "Traceback" not in output
    assert_ended(worker)
    run = read_run(folder)
    assert len(run.parity) == 2
    assert len(run.jobs) >= 1
    assert run.rejected == ()


def test_a_run_shows_its_rows_on_a_terminal_and_ctrl_c_leaves_a_clean_screen(
    terminal: Terminal, tmp_path: Path
) -> None:
    folder, worker = job_in_hand(terminal.process, tmp_path / "results")
    before = Seen(80, 24).feed(terminal.output)
    terminal.press(b"\x03")
    terminal.finish()
    assert terminal.process.returncode == 130
    assert_ended(worker)
    table = "\n".join(before.lines)
    for words in ("workload", "samples/s", "Steady only", "Quick only", " left: block "):
        assert words in table
    assert not before.cursor
    after = Seen(80, 24).feed(terminal.output)
    assert after.cursor
    assert "samples/s" not in "\n".join(after.everything)
    words = " ".join(after.everything)
    assert "Interrupted; all finished jobs are kept." in words
    assert f"Go on with: bench run --resume {folder.name}" in words


def test_a_run_whose_terminal_goes_ends_as_after_ctrl_c(terminal: Terminal, tmp_path: Path) -> None:
    folder, worker = job_in_hand(terminal.process, tmp_path / "results")
    terminal.close()  # the kernel sends SIGHUP, and no word can be written any more
    assert terminal.process.wait(timeout=LATE_S) == 130
    assert_ended(worker)
    assert read_run(folder).rejected == ()


def test_a_hang_up_that_nohup_has_ignored_stays_ignored() -> None:
    script = (
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from bench.cli import main; main._interrupt_on_signals()\n"
        "print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)"
    )
    said = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert said.stdout == "True\n"


def test_kill_9_loses_at_most_the_job_in_hand_and_the_rest_is_resumed(
    started: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, worker = job_in_hand(started, tmp_path / "results")
    started.kill()
    started.communicate(timeout=LATE_S)
    assert_ended(worker)  # it finds nobody listening
    before = read_run(folder)
    assert before.rejected == ()
    assert len(before.jobs) >= 1
    undisturbed(monkeypatch)
    play(monkeypatch)
    infos = [STEADY, QUICK]
    resumed = prepare.resumed_run(folder, available(infos))
    easily_pleased = msgspec.structs.replace(resumed.header, target_half_width=TINY.target_half_width)
    finished = carry_out(msgspec.structs.replace(resumed, header=easily_pleased), infos)
    assert finished.records[: len(before.records)] == before.records
    assert len(finished.blocks) >= 2
    assert len(pairs(finished)) == len(set(pairs(finished)))
    assert finished.unmeasured == ()
