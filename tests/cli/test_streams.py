"""Every text can be shown on every standard stream, and a stream that cannot be written is named."""

import io
import os
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest
from commits import ROOT
from synthetic import make_cell, make_header

from bench.cli import streams
from bench.records.runs import create_run

BENCH = (sys.executable, "-P", "-m", "bench")
TEXT = "1.5\xd7 ± 2 % → größe\u2013█\udcff模"


def command(
    *arguments: str, cwd: Path, stdout: int = subprocess.PIPE, **variables: str
) -> tuple[int, bytes, bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", **variables}
    done = subprocess.run(
        [*BENCH, *arguments], stdout=stdout, stderr=subprocess.PIPE, cwd=cwd, env=environment, check=False,
        timeout=300,
    )  # fmt: skip
    assert b"Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("utf-8", "1.5\xd7 ± 2 % → größe\u2013█\\xff模"),
        ("latin-1", "1.5\xd7 ± 2 % -> größe-#\\xff?"),
        ("koi8-r", "1.5x +/- 2 % -> gro?e-█\\xff?"),
        ("ascii", "1.5x +/- 2 % -> gro?e-#\\xff?"),
    ],
)
def test_a_character_that_an_encoding_lacks_has_a_stand_in(encoding: str, shown: str) -> None:
    streams.prepare()
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding=encoding, errors="samework-stand-in", write_through=True) as stream:
        stream.write(TEXT)
        assert raw.getvalue().decode(encoding) == shown


def test_every_character_of_this_program_has_a_spelling() -> None:
    texts = set()
    for path in [*(ROOT / "bench").rglob("*.py"), *(ROOT / "backends").rglob("*.py")]:
        with tokenize.open(path) as file:
            source = compile(file.read(), str(path), "exec")
        texts |= {char for text in strings_in(source) for char in text if not char.isascii()}
    assert len(texts) > 8
    lacking = {char for char in texts if streams._spelling(char) == "?"}
    assert lacking == {"\N{REPLACEMENT CHARACTER}"}


def strings_in(code: object) -> list[str]:
    """Return every text in a compiled module, docstrings included, as the help of a command is one."""
    match code:
        case str():
            return [code]
        case tuple() | frozenset():
            return [text for part in code for text in strings_in(part)]
    return [text for part in getattr(code, "co_consts", ()) for text in strings_in(part)]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "koi8-r", "utf-16"])
@pytest.mark.parametrize("arguments", [("run", "--help"), ("list",), ("report",), ("report", "x")])
def test_a_command_prints_in_any_encoding(arguments: tuple[str, ...], encoding: str, tmp_path: Path) -> None:
    create_run(tmp_path / "results", make_header([make_cell()], titles={"torch": "PyTorch ± Räder"}))
    status, out, err = command(*arguments, cwd=tmp_path, PYTHONIOENCODING=encoding)
    assert status == (2 if arguments == ("report", "x") else 0), err
    shown = out.decode(encoding)
    assert shown.isascii() or encoding != "ascii"
    assert "?" not in shown.replace("the same thing?", "")


@pytest.mark.parametrize(
    "variables", [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_the_c_locale_is_no_obstacle(variables: dict[str, str], tmp_path: Path) -> None:
    assert command("run", "--help", cwd=tmp_path, **variables)[0] == 0


# A stream that cannot be written


@pytest.mark.parametrize("arguments", [("list",), ("--help",), ("run", "--help"), ("report",), ("doctor",)])
def test_a_full_disk_behind_standard_output_is_named(arguments: tuple[str, ...], tmp_path: Path) -> None:
    create_run(tmp_path / "results", make_header([make_cell()]))
    with Path("/dev/full").open("wb") as full:
        status, _, err = command(*arguments, cwd=tmp_path, stdout=full.fileno())
    assert status == 3
    said = "bench: cannot write to standard output (/dev/full): No space left on device."
    assert err.decode().splitlines()[-1] == said


def test_a_limit_on_the_size_of_a_file_is_named(tmp_path: Path) -> None:
    limited = f"ulimit -f 0; exec {' '.join(BENCH)} list > out"
    done = subprocess.run(
        ["bash", "-c", limited], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 3
    assert done.stderr == f"bench: cannot write to standard output ({tmp_path / 'out'}): File too large.\n"


@pytest.mark.parametrize(
    ("redirected", "status"),
    [
        (">&-", 0), ("2>&-", 0), ("<&- >&- 2>&-", 0), (">/dev/full 2>&1", 3), ("| true", 0),
        ("2>&1 | true", 0), ("--no-such-option 2>/dev/full", 2), ("--no-such-option 2>&1 | true", 2),
    ],
)  # fmt: skip
def test_no_state_of_the_streams_is_a_fault_of_the_program(
    redirected: str, status: int, tmp_path: Path
) -> None:
    line = f"{' '.join(BENCH)} list {redirected}; echo ${{PIPESTATUS[0]}} >status"
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (tmp_path / "status").read_text() == f"{status}\n"
    assert "Traceback" not in done.stdout + done.stderr


def test_a_file_does_not_get_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    script = (
        "from bench.cli import streams; streams.prepare();"
        "file = open('kept', 'w'); assert file.fileno() > 2, file.fileno()"
    )
    line = f'{sys.executable} -c "{script}" <&- >&- 2>&-'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment, check=False).returncode == 0
