"""The live table: it fits every terminal, draws only when it is called, and leaves a clean screen."""

import io
import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest
from broken_runs import HOSTILE, JAX, TORCH
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from screens import Seen, Tty
from synthetic import make_cell, make_header, make_job, make_parity, make_run

from bench.progress import Lines
from bench.records.schema import UnmeasuredRecord, Window
from bench.report.format import NOTHING
from bench.run.live import DRAW_EVERY_S, LiveRow, LiveTable, RunLines, make_run_display, table_lines
from bench.run.live_rows import LiveRows
from bench.run.log import RunLog

ROWS = [
    LiveRow(workload="mnist-mlp", name="PyTorch eager", blocks="2/3", rate="28,771", half_width=NOTHING),
    LiveRow(workload="mnist-mlp", name="TensorFlow graph", blocks="0/3", fault="crashed"),
    LiveRow(
        workload="cifar10-cnn", name="PyTorch eager", blocks="4", rate="553", half_width="7.6 %", running=True
    ),
    LiveRow(workload="cifar10-cnn", name="JAX jit", blocks="4", rate="447", half_width="12 %", running=True),
]
SHOWN = [
    "workload     row               done  samples/s      ±",
    f"mnist-mlp    PyTorch eager      2/3     28,771      {NOTHING}",
    "             TensorFlow graph   0/3  crashed",
    "cifar10-cnn  PyTorch eager        4        553  7.6 %",
    "             JAX jit              4        447   12 %",
    "",
    "━━━━━━━━          50%, about 10 min left: block 5, cifar10-cnn",
    "cifar10-cnn: taking turns, 12 done",
]


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def watched(width: int = 80, height: int = 24) -> tuple[LiveTable, Tty, Console, Clock]:
    file, clock = Tty(), Clock()
    console = Console(
        file=file, force_terminal=True, width=width, height=height, _environ={"TERM": "xterm-256color"}
    )
    return LiveTable(console, clock), file, console, clock


def work(display: LiveTable) -> None:
    display.say("Run run-1 on a machine")
    display.rows(ROWS)
    display.overall("block 5, cifar10-cnn", 0.5, 600.0)
    display.job("cifar10-cnn: taking turns, 12 done", None)


# ---- lines of the table


@given(
    rows=st.lists(
        st.builds(
            LiveRow,
            workload=st.sampled_from(["a", "b", "a long name of a workload", HOSTILE, "模型"]),
            name=st.text(max_size=30),
            blocks=st.sampled_from(["0/3", "12"]),
            rate=st.sampled_from(["", "12,345"]),
            half_width=st.sampled_from(["", "1.2 %"]),
            fault=st.sampled_from(["", "crashed", HOSTILE]),
            running=st.booleans(),
        ),
        max_size=30,
    ),
    below=st.lists(st.text(max_size=100), max_size=2),
    width=st.integers(1, 130),
    height=st.integers(1, 40),
)
def test_the_lines_fit_any_terminal(rows: list[LiveRow], below: list[str], width: int, height: int) -> None:
    lines = table_lines(rows, below, width, height)
    assert len(lines) <= height
    assert all(line.cell_len <= width for line in lines)
    assert all(char.isprintable() for line in lines for char in line.plain)


def test_the_table_has_a_line_for_each_row() -> None:
    lines = table_lines(ROWS, SHOWN[-2:], 80, 24)
    assert [line.plain for line in lines] == SHOWN


def test_on_a_narrow_terminal_the_workload_stands_above_its_rows() -> None:
    assert [line.plain for line in table_lines(ROWS, [], 40, 24)][:6] == [
        " row              done samples/s     ±",
        "mnist-mlp",
        f" PyTorch eager     2/3    28,771     {NOTHING}",
        " TensorFlow graph  0/3 crashed",
        "cifar10-cnn",
        " PyTorch eager       4       553 7.6 %",
    ]


@pytest.mark.parametrize("height", range(6, 12))
def test_where_rows_are_left_out_those_that_run_now_are_shown(height: int) -> None:
    quiet = [LiveRow(workload=f"w{number}", name="row", blocks="0/3") for number in range(20)]
    shown = [line.plain for line in table_lines([*quiet, ROWS[2], *quiet], ["now"], 80, height)]
    assert any(line.startswith("cifar10-cnn") for line in shown)
    assert shown[-1] == "now"
    assert any(re.fullmatch(r"… \d+ more lines", line) for line in shown)


# ---- the display


def test_what_a_person_sees() -> None:
    display, file, _, _ = watched()
    with display:
        work(display)
        seen = Seen().feed(file.getvalue())
        assert seen.lines == ["Run run-1 on a machine", *SHOWN]
        assert not seen.cursor
    seen = Seen().feed(file.getvalue())
    assert seen.everything == ["Run run-1 on a machine"]
    assert seen.cursor


def test_a_line_that_is_said_stands_above_the_table() -> None:
    display, file, _, _ = watched()
    with display:
        work(display)
        display.detail("not shown")
        display.say("  crashed: " + HOSTILE)
        seen = Seen().feed(file.getvalue())
    assert seen.lines[1].startswith("  crashed: a|b")
    assert seen.lines[-len(SHOWN) :] == SHOWN
    assert "not shown" not in file.getvalue()


def test_nothing_draws_but_the_calls_and_not_too_often() -> None:
    display, file, _, clock = watched()
    with display:
        work(display)
        before = len(file.getvalue())
        for turn in range(100):
            clock.now += DRAW_EVERY_S / 200
            display.rows(ROWS)
            display.job(f"taking turns, {turn} done", 0.0)
        assert len(file.getvalue()) == before
        clock.now += DRAW_EVERY_S
        display.job("taking turns, 100 done", 0.0)
        assert "taking turns, 100 done" in file.getvalue()[before:]


def test_no_thread_of_the_display_is_alive() -> None:
    before = set(threading.enumerate())
    display, _, _, _ = watched()
    with display:
        work(display)
        assert set(threading.enumerate()) == before


def test_the_time_left_passes() -> None:
    display, file, _, clock = watched()
    with display:
        work(display)
        clock.now += 300.0
        display.job("taking turns", 0.0)
        lines = Seen().feed(file.getvalue()).lines
        assert any(" 75%, about 5 min left: block 5" in line for line in lines)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_end_by_an_error_leaves_a_clean_screen(error: type[BaseException]) -> None:
    display, file, _, _ = watched()

    def fail() -> None:
        with display:
            work(display)
            raise error

    with pytest.raises(error):
        fail()
    seen = Seen().feed(file.getvalue())
    assert seen.everything == ["Run run-1 on a machine"]
    assert seen.cursor


@pytest.mark.parametrize("size", [(40, 24), (80, 6), (30, 8), (120, 40)])
def test_a_terminal_of_another_size_shows_the_table_once(size: tuple[int, int]) -> None:
    display, file, console, clock = watched()
    with display:
        work(display)
        console.size = size  # type: ignore[assignment]  # Rich takes a pair
        before = len(file.getvalue())
        clock.now += 2 * DRAW_EVERY_S
        display.job("taking turns, 13 done", 0.0)
        smaller = size < (80, 24) or size[1] < 24
        seen = Seen(*size).feed(file.getvalue()[before:] if smaller else file.getvalue())
        assert [line.count("13 done") for line in seen.everything].count(1) == 1
        assert sum("samples/s" in line for line in seen.everything) <= 1
        assert max(map(cell_len, seen.lines)) <= size[0]
    assert Seen(*size).feed(file.getvalue()[before:]).cursor


@pytest.mark.parametrize("width", [1, 5, 20, 40, 300])
def test_the_display_survives_any_width(width: int) -> None:
    display, file, _, _ = watched(width)
    with display:
        work(display)
    assert Seen(width).feed(file.getvalue()).cursor


def test_piped_output_is_lines_without_colour_and_has_every_detail() -> None:
    file = io.StringIO()
    display = make_run_display(Console(file=file))
    assert isinstance(display, RunLines)
    with display:
        display.say("a line")
        display.rows(ROWS)
        display.overall("block 1", 0.0, 60.0)
        display.job("taking turns", 0.0)
        display.detail("a detail")
    assert file.getvalue() == "a line\n[  0%] block 1, about 1 min left\na detail\n"


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "CLICOLOR_FORCE"])
def test_a_pipe_stays_a_pipe_where_colour_is_forced(variable: str) -> None:
    console = Console(file=io.StringIO(), _environ={variable: "1", "TERM": "xterm"})
    assert isinstance(make_run_display(console), Lines)


def test_a_dumb_terminal_gets_lines() -> None:
    console = Console(file=Tty(), _environ={"TERM": "dumb"})
    assert isinstance(make_run_display(console), Lines)


# ---- the rows of a run


def test_rows_have_what_is_recorded_and_the_turns_of_the_block_that_runs(tmp_path: Path) -> None:
    third, lost = make_cell(backend="tensorflow", mode="graph"), make_cell(mode="compile")
    records = [
        make_parity(TORCH),
        make_parity(lost, error=1.0),
        UnmeasuredRecord(cell=third, status="unavailable", error="not installed"),
        *(make_job(TORCH, block, rates=[1000.0] * 20) for block in range(3)),
    ]
    log = RunLog(make_run(make_header([TORCH, JAX, third, lost]), records, folder=tmp_path), unavailable=())
    rows = LiveRows(log)
    rows.begin_block([JAX])
    rows.take_turn(JAX, 100, 0.5)
    rows.take_turn(JAX, 100, 0.5)
    shown = {(row.name, row.blocks, row.rate, row.half_width, row.fault, row.running) for row in rows.rows()}
    assert shown == {
        ("PyTorch eager", "3", "1,000", "0.0 %", "", False),
        ("JAX jit", "0/3", "200", NOTHING, "", True),
        ("TensorFlow graph", "0/3", "", "", "not available here", False),
        ("PyTorch compile", "0/3", "", "", "not comparable", False),
    }
    rows.begin_block([])
    assert {row.rate for row in rows.rows()} == {"1,000", ""}


def test_a_job_without_a_rate_is_left_to_the_report(tmp_path: Path) -> None:
    job = make_job(TORCH, 0, rates=[1000.0] * 20)
    windows = (Window(steps=1, samples=0, seconds=0.1), *job.windows[1:])
    run = make_run(make_header([TORCH]), [msgspec.structs.replace(job, windows=windows)], folder=tmp_path)
    log = RunLog(run, unavailable=())
    (row,) = LiveRows(log).rows()
    assert (row.rate, row.half_width) == ("", "")


# ---- a real terminal

SCRIPT = """
import fcntl, os, signal, struct, sys, termios
from rich.console import Console
from bench.run.live import make_run_display
from test_live import work

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell has it ignored
fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
try:
    with make_run_display(Console()) as display:
        work(display)
        if sys.argv[1] == "smaller":
            fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 40, 0, 0))
            display.job("after", None)
        if sys.argv[1] == "interrupted":
            os.kill(os.getpid(), 2)
        display.say("said")
except KeyboardInterrupt:
    print("interrupted")
print("end")
"""


@pytest.mark.parametrize(
    ("how", "shown"),
    [
        ("whole", ["Run run-1 on a machine", "said", "end"]),
        ("smaller", ["Run run-1 on a machine", "said", "end"]),
        ("interrupted", ["Run run-1 on a machine", "interrupted", "end"]),
    ],
)
def test_on_a_real_terminal_nothing_is_left_but_what_was_said(how: str, shown: list[str]) -> None:
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    environment |= {"TERM": "xterm-256color", "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, how], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    output = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        output += part
    os.close(ours)
    assert process.wait(timeout=60) == 0, output
    text = output.decode()
    after_clear = text.rpartition("\x1b[2J")[2] if how == "smaller" else text
    assert ("\x1b[2J" in text) == (how == "smaller")
    seen = Seen(*((40, 20) if how == "smaller" else (80, 24))).feed(after_clear)
    assert seen.everything == shown
    assert seen.cursor
