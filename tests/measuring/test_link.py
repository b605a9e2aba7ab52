"""A link starts a process and says how it ended; what belongs to it goes with it."""

import select
import signal
import sys
import tempfile
import time
from pathlib import Path

import fakes
import msgspec
import psutil
import pytest

from bench.measuring.link import Launch, LocalLink
from bench.measuring.process import launch_of
from bench.worker.protocol import VerifyTask

PYTHON = Path(sys.executable)


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def program(folder: Path, *lines: str) -> Launch:
    """Return the launch of a shell script; `$FD` in it is the file for events."""
    path = fakes.program(folder / "program", ["FD=/dev/fd/$4", *lines])
    return launch_of(fakes.task_for(fakes.STEADY), python=path, device="cpu")


def read_all(link: LocalLink) -> bytes:
    said = b""
    while chunk := link.read():
        said += chunk
    return said


def wait_until_ended(link: LocalLink) -> int:
    deadline = time.monotonic() + 300
    while (status := link.poll()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return status


def test_lines_go_both_ways_and_the_task_is_the_first(tmp_path: Path, scratch: Path) -> None:
    launch = program(tmp_path, 'read -r task; read -r more; echo "$more" >$FD; echo "$task" >$FD; exit 3')
    with LocalLink(launch) as link:
        link.send(b"turn")
        assert read_all(link) == b"turn\n" + launch.task.encode() + b"\n"
        assert select.select([link], [], [], 60)[0] == [link], "readable at the end too"
        assert wait_until_ended(link) == 3
        link.send(b"too late")
    link.close()
    assert list(scratch.iterdir()) == []


def test_hanging_up_ends_what_waits_for_commands(tmp_path: Path) -> None:
    with LocalLink(program(tmp_path, "cat > /dev/null", "exit 5")) as link:
        assert link.poll() is None
        link.hang_up()
        assert wait_until_ended(link) == 5


def test_ending_kills_the_children_too(tmp_path: Path) -> None:
    with LocalLink(program(tmp_path, "sleep 600 &", "echo $! >$FD", "wait")) as link:
        child = int(link.read())
        link.end()
        assert link.poll() == -signal.SIGKILL
    deadline = time.monotonic() + 300
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_tail_is_short_however_much_was_printed(tmp_path: Path) -> None:
    text = "b'\\xff' + b'line\\n' * 100_000 + b'x' * 100_000 + b'\\nlast\\n'"
    lines = f"import sys; sys.stderr.buffer.write({text})"
    with LocalLink(program(tmp_path, f'exec {sys.executable} -c "{lines}"')) as link:
        wait_until_ended(link)
        tail = link.tail()
    assert tail[-1] == "last"
    assert len(tail) <= 20
    assert sum(map(len, tail)) <= 16384


def test_a_program_that_cannot_be_started_leaves_nothing(tmp_path: Path, scratch: Path) -> None:
    launch = launch_of(fakes.task_for(fakes.STEADY), python=tmp_path / "missing", device="cpu")
    before = psutil.Process().num_fds()
    with pytest.raises(FileNotFoundError):
        LocalLink(launch)
    assert list(scratch.iterdir()) == []
    assert psutil.Process().num_fds() == before


def test_a_launch_can_be_sent_as_json() -> None:
    launch = launch_of(fakes.task_for(fakes.STEADY), python=PYTHON, device="cpu", hash_seed=3)
    assert msgspec.json.decode(msgspec.json.encode(launch), type=Launch) == launch


def folder_of(launch: Launch) -> str:
    with LocalLink(launch) as link:
        return read_all(link).decode().strip()


def test_what_measures_compiles_anew_unless_told_where_and_other_tasks_once(
    tmp_path: Path, scratch: Path
) -> None:
    backend = fakes.info("fake", "fakes:Steady", caching_environment={"FAKE_CACHE": "{compiled}/programs"})
    python, kept = fakes.program(tmp_path / "program", ['echo "$FAKE_CACHE" >/dev/fd/$4']), tmp_path / "kept"
    measuring, verifying = fakes.task_for(backend), VerifyTask(backend=backend, cases=())
    launches = [
        launch_of(task, python=python, device="cpu", compiled=compiled)
        for task in (measuring, verifying)
        for compiled in (None, kept)
    ]
    measured, measured_kept, verified, verified_kept = map(folder_of, launches)
    assert measured == ""
    assert measured_kept == verified_kept == f"{kept}/programs"
    assert verified.startswith(f"{scratch}/")
    assert verified.endswith("/compiled/programs")
