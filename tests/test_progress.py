"""Progress is plain lines if the output is piped, and bars on a terminal of any width."""

import io
import re
import threading

import pytest
from rich.console import Console
from screens import Seen, Tty

from bench.progress import DRAW_EVERY_S, Display, DownloadProgress, Lines, make_display
from bench.text import duration

HOSTILE = "mnist [bold]torch[/bold] \x1b[31mred\x1b[0m \x07bell :fire: [/nothing] \\[x] C:\\"
SAID = "mnist [bold]torch[/bold] �[31mred�[0m �bell :fire: [/nothing] \\[x] C:\\"


def piped() -> tuple[Display, io.StringIO]:
    output = io.StringIO()
    return make_display(Console(file=output, force_terminal=False, width=40)), output


def watched(width: int = 80) -> tuple[Display, io.StringIO]:
    output = Tty()
    console = Console(file=output, force_terminal=True, width=width, _environ={"TERM": "xterm-256color"})
    return make_display(console), output


def work(display: Display) -> None:
    with display:
        for tenth in range(11):
            display.overall("block 1, mnist-cnn", tenth / 10, 100.0 - 10 * tenth)
            display.job("mnist-cnn torch/eager cpu fp32: 12,345 samples/s", tenth / 10)
        display.job("", None)
        display.say("a line that stays")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"), (0.4, "0 s"), (42.3, "42 s"), (59.4, "59 s"), (59.6, "1 min"), (185, "3 min 05 s"),
        (3599.4, "59 min 59 s"), (3599.6, "1 h 00 min"), (4800, "1 h 20 min"), (90000, "25 h 00 min"),
    ],
)  # fmt: skip
def test_a_duration_as_text(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_piped_progress_is_one_line_per_tenth() -> None:
    display, output = piped()
    work(display)
    lines = output.getvalue().splitlines()
    assert lines[0] == "[  0%] block 1, mnist-cnn, about 1 min 40 s left"
    assert lines[10] == "[100%] block 1, mnist-cnn, about 0 s left"
    assert lines[11:] == ["a line that stays"]


def test_piped_progress_does_not_repeat_itself() -> None:
    display, output = piped()
    for _ in range(50):
        display.overall("parity", 0.31, None)
    assert output.getvalue() == "[ 31%] parity\n"


def test_piped_text_stays_on_one_line_without_control_characters() -> None:
    display, output = piped()
    display.say(HOSTILE)
    assert output.getvalue() == SAID + "\n"


@pytest.mark.parametrize("width", [1, 5, 20, 80, 300])
def test_bars_survive_any_width(width: int) -> None:
    display, output = watched(width)
    work(display)
    assert "\x1b[" in output.getvalue()
    assert "a line that stays".replace(" ", "") in "".join(output.getvalue().split())[-4000:] or width < 20


@pytest.mark.parametrize("width", [40, 80])
def test_a_text_too_long_for_the_line_leaves_bars_and_percents_whole(width: int) -> None:
    display, output = watched(width)
    with display:
        display.overall("block 3, mnist-cnn", 0.72, 412.0)
        display.job(
            "mnist-cnn tensorflow/graph cpu fp32: epoch 0.70 of 1.00, accuracy 96.67%, about 9 s", 0.7
        )
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.getvalue()).replace("\r", "\n").splitlines()
    bars = [line for line in shown if "% " in line][-2:]
    assert [line.split()[1] for line in bars] == ["72%", "70%"]
    assert all(line.startswith("\u2501" * 11) for line in bars)
    assert all(len(line) <= width for line in bars)


@pytest.mark.parametrize("said", [HOSTILE, "[/]", "[", "\x1b]0;title\x07"])
def test_bars_survive_any_text(said: str) -> None:
    display, output = watched()
    with display:
        display.overall(said, 1.7, 0.0)
        display.job(said, None)
        display.say(said)
    assert "\x07" not in output.getvalue()
    assert "\x1b]0" not in output.getvalue()
    assert "\x1b[31m" not in output.getvalue()


def test_bars_are_taken_down_when_the_work_fails() -> None:
    display, output = watched()
    with pytest.raises(ZeroDivisionError), display:
        raise ZeroDivisionError
    assert Seen().feed(output.getvalue()).cursor


def test_bars_are_taken_down_at_the_end() -> None:
    display, output = watched()
    work(display)
    seen = Seen().feed(output.getvalue())
    assert seen.everything == ["a line that stays"]
    assert seen.cursor


def test_no_thread_draws_the_bars_and_they_are_not_drawn_too_often(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("bench.progress.time.monotonic", lambda: now)
    display, output = watched()
    before = set(threading.enumerate())
    with display:
        display.overall("parity", 0.1, None)
        assert "parity" in output.getvalue()
        assert set(threading.enumerate()) == before
        drawn = len(output.getvalue())
        display.job("turn 1", 0.1)
        assert len(output.getvalue()) == drawn
        now += DRAW_EVERY_S
        display.job("turn 2", 0.2)
        assert "turn 2" in output.getvalue()
        display.job("the reference", None)
        assert "the reference" in output.getvalue(), "a text of unknown length is drawn at once"


@pytest.mark.parametrize("variables", [{"FORCE_COLOR": "1"}, {"TTY_COMPATIBLE": "1"}])
def test_a_pipe_gets_lines_whatever_the_variables_say(variables: dict[str, str]) -> None:
    console = Console(file=io.StringIO(), _environ={"TERM": "xterm", **variables})
    assert isinstance(make_display(console), Lines)


def test_a_dumb_terminal_gets_lines() -> None:
    assert isinstance(make_display(Console(file=Tty(), _environ={"TERM": "dumb"})), Lines)


class Jobs:
    def __init__(self) -> None:
        self.said: list[tuple[str, float | None]] = []

    def job(self, text: str, done: float | None) -> None:
        self.said.append((text, done))


def test_a_download_is_shown_in_mebibytes_and_not_too_often() -> None:
    jobs = Jobs()
    tell = DownloadProgress(jobs)  # type: ignore[arg-type]
    for part in range(1, 1001):
        tell("train-images", part * 2**20 // 10, 100 * 2**20)
    assert jobs.said[-1] == ("train-images: 100.0 of 100.0 MiB", 1.0)
    assert len(jobs.said) < 20


def test_a_download_of_unknown_size_or_of_nothing_is_no_error() -> None:
    jobs = Jobs()
    tell = DownloadProgress(jobs)  # type: ignore[arg-type]
    tell("labels", 3 * 2**19, None)
    tell("empty", 0, 0)
    assert jobs.said == [("labels: 1.5 MiB", None), ("empty: 0.0 of 0.0 MiB", None)]
