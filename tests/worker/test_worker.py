"""The worker as a process: the task and the commands that it reads, and its last word."""

import os
import subprocess
import sys
from pathlib import Path

import fakes
import msgspec
import pytest

from bench.worker import __main__ as worker
from bench.worker.protocol import AnyEvent, Begin, Done, Event, Failed, Finish, MeasureTask, Turn


def test_commands_are_read_a_line_each() -> None:
    lines = [msgspec.json.encode(command) + b"\n" for command in (Turn(steps=3), Turn(steps=4), Finish())]
    assert list(worker.read_commands(lines)) == [Turn(steps=3), Turn(steps=4), Finish()]


def spoken(task: MeasureTask) -> tuple[int, list[Event]]:
    """Run the worker as a program and return its exit status and what it said."""
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as channel:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker", str(write_end)],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            pass_fds=(write_end,), env={**os.environ, "PYTHONPATH": fakes.python_path()},
        )  # fmt: skip
        os.close(write_end)
        said = [msgspec.json.encode(message) + b"\n" for message in (task, Begin(), Turn(steps=5), Finish())]
        process.communicate(b"".join(said), timeout=300)
        events = [msgspec.json.decode(line, type=AnyEvent) for line in channel]
    return process.returncode, events


def test_the_last_word_of_a_good_worker_is_done() -> None:
    status, events = spoken(fakes.task_for(fakes.STEADY))
    assert status == 0
    assert isinstance(events[-1], Done)


def test_the_last_word_of_a_failed_worker_is_why() -> None:
    status, events = spoken(fakes.task_for(fakes.RAISES))
    assert status == 0
    last = events[-1]
    assert isinstance(last, Failed)
    assert last.status == "failed"
    assert last.error.startswith("ValueError: shapes")


def test_a_backend_is_imported_before_anything_that_brings_numpy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "early.py").write_text(
        "import sys\nraise ImportError(f\"NumPy: {'numpy' in sys.modules}\")\n"
    )
    paths = f"{tmp_path}:{fakes.python_path()}"
    monkeypatch.setattr(fakes, "python_path", lambda: paths)
    _, events = spoken(fakes.task_for(fakes.info("early", "early:Early")))
    last = events[-1]
    assert isinstance(last, Failed)
    assert (last.status, last.error) == ("unavailable", "ImportError: NumPy: False")


def test_a_worker_loads_no_library_of_the_report() -> None:
    """What the harness imports counts as start-up time of every framework alike; it is to stay small.

    NumPy is to come with the framework, of whose import it is a part.
    """
    script = (
        "import sys, bench.worker.__main__; print(*sorted(sys.modules)); "
        "import bench.worker.measure; print('|', *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300
    )
    first, later = (set(part.split()) for part in done.stdout.split("|"))
    heavy = {"scipy", "matplotlib", "rich", "click", "tensorflow", "torch", "jax", "keras"}
    assert heavy & later == set()
    assert "bench.worker.__main__" in first
    assert "numpy" not in first
