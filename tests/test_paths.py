"""A path survives every message, and an error of the file system names the path and its size."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commits import ROOT

from bench import paths
from bench.errors import UsageError

ODD = os.fsdecode(b"/data/odd\xff")


def test_the_home_folder_is_written_as_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert paths.expanded("~/runs") == Path("/home/ann/runs")
    assert paths.expanded("a/~/b") == Path("a/~/b")
    with pytest.raises(UsageError, match=r"'~no-such-user/x': the home folder is not known"):
        paths.expanded("~no-such-user/x")


@pytest.mark.parametrize("name", ["/plain", "/jörg", "/模", ODD, "/100%", "relative"])
def test_a_path_comes_back_from_json(name: str) -> None:
    text = json.loads(json.dumps(paths.to_text(Path(name))).encode().decode())
    text.encode()
    assert paths.from_text(text) == Path(name)
    assert (text == name) is (name != ODD)


def test_a_path_is_the_same_in_a_process_of_another_locale(tmp_path: Path) -> None:
    (tmp_path / "größe").write_text("found")
    text = "bytes:" + os.fsencode(tmp_path).decode() + "/gr%C3%B6%C3%9Fe"
    script = "import sys; from bench.paths import from_text; print(from_text(sys.argv[1]).read_text())"
    for variables in ({"LC_ALL": "C.UTF-8"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}):
        said = subprocess.run(
            [sys.executable, "-c", script, text], check=True, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        ).stdout  # fmt: skip
        assert said == "found\n"


def test_only_a_full_disk_has_its_size_told(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    assert paths.refusal(full, tmp_path / "no" / "such").startswith("No space left on device (")
    assert paths.refusal(full, tmp_path).endswith(" are free)")
    assert paths.refusal(OSError(errno.EROFS, "Read-only file system"), tmp_path) == "Read-only file system"
    assert paths.refusal(OSError("8 requested and 4 written"), tmp_path) == "8 requested and 4 written"


def test_an_error_without_a_path_leads_to_the_folders_that_are_written() -> None:
    said = paths.refusal(OSError(errno.EDQUOT, "Disk quota exceeded"))
    assert said.startswith("a file cannot be written: Disk quota exceeded. Look at the temporary folder /")
    assert str(Path.cwd()) in said
    assert said.count(" are free)") == 2
    read_only = OSError(errno.EROFS, "Read-only file system", "/x/y")
    assert paths.refusal(read_only) == "cannot use /x/y: Read-only file system."


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (OSError(errno.ENOSPC, ""), True), (OSError(errno.EIO, ""), True),
        (PermissionError(errno.EACCES, ""), True),
        (FileNotFoundError(errno.ENOENT, "No such file"), False), (OSError("x"), False),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/x']"), True),
    ],
)  # fmt: skip
def test_an_error_of_the_file_system_is_told_from_a_fault(error: OSError, is_one: bool) -> None:
    assert paths.refused(error) is is_one


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (2048, "2.0 KiB"), (64 * 2**20, "64.0 MiB"), (2**50, "1024.0 TiB")],
)
def test_a_size_is_short(count: int, text: str) -> None:
    assert paths.size_text(count) == text
