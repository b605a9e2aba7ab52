"""Records are read from the archive beside their folder where the folder itself lacks them."""

import codecs
import errno
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import msgspec
import pytest
from commits import ROOT

from bench import store
from bench.errors import RecordError, WriteError


class Line(msgspec.Struct, frozen=True):
    number: int


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """Return where records would lie that only the archive beside their folder has."""
    path = tmp_path / "run" / "records.jsonl"
    store.create(path.parent, "run.json", Line(0))
    for number in (1, 2):
        store.append(path, Line(number))
    with tarfile.open(tmp_path / store.ARCHIVE, "w:xz") as archive:
        archive.add(path, "run/records.jsonl")
    path.unlink()
    return path


def numbers(path: Path) -> list[int]:
    records, rejected = store.read_records(path, Line)
    assert rejected == ()
    return [record.number for record in records]


def test_records_are_read_from_the_archive(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert numbers(packed) == [1, 2]
    monkeypatch.chdir(packed.parent)
    assert numbers(Path(packed.name)) == [1, 2]
    assert not packed.exists()


def test_a_file_in_the_folder_comes_before_the_archive(packed: Path) -> None:
    packed.write_bytes(b'{"number":7}\n')
    assert numbers(packed) == [7]


def test_what_is_appended_comes_after_what_the_archive_has(packed: Path) -> None:
    store.append(packed, Line(3))
    assert numbers(packed) == [1, 2, 3]
    assert packed.read_bytes().count(b"\n") == 3


def test_a_folder_that_the_archive_does_not_have_has_no_records(packed: Path) -> None:
    assert numbers(packed.parent.parent / "other" / "records.jsonl") == []


def test_an_archive_that_was_replaced_is_read_anew(packed: Path) -> None:
    assert numbers(packed) == [1, 2]
    archive = packed.parent.parent / store.ARCHIVE
    with tarfile.open(archive, "w:xz"):
        pass
    assert numbers(packed) == []


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_an_archive_that_is_cut_off_is_named(share: float, packed: Path) -> None:
    archive = packed.parent.parent / store.ARCHIVE
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(RecordError, match=store.ARCHIVE):
        numbers(packed)


@pytest.mark.parametrize(
    "text",
    [
        "M1\n2\n3\n", "M1\r\n2\r\n3\r\n", "1\nM2\n3\n", "M\n1\n2\n3", "M1\n2\nM3\nM",
    ],
    ids=["one mark", "with carriage returns", "files that were joined", "alone in a line", "many"],
)  # fmt: skip
def test_a_byte_order_mark_hides_no_record(text: str, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    parts = {"M": codecs.BOM_UTF8} | {digit: f'{{"number":{digit}}}'.encode() for digit in "123"}
    path.write_bytes(b"".join(parts.get(char, char.encode()) for char in text))
    assert numbers(path) == [1, 2, 3]


def test_a_byte_order_mark_hides_no_header(tmp_path: Path) -> None:
    class Header(msgspec.Struct):
        schema: int
        name: str

    path = tmp_path / "run.json"
    path.write_bytes(codecs.BOM_UTF8 + b'{"schema": 1, "name": "x"}')
    assert store.read_header(path, Header, 1, missing="") == Header(1, "x")


# A disk that is full


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every write reach the disk and fail there."""

    def fail(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)


def test_a_record_that_does_not_fit_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """The limit on a file's size lets a part of the record be written, as a nearly full disk does."""
    script = """
import resource, sys
from pathlib import Path
from bench import store
from bench.errors import WriteError
import msgspec
class Named(msgspec.Struct):
    name: str
path = Path("records.jsonl")
store.append(path, Named("one"))
before = path.read_bytes()
resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, len(before) + 10))
try:
    store.append(path, Named("two" * 100))
except WriteError as error:
    print(error)
assert path.read_bytes() == before
store.append(path, Named(""))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert "cannot append to records.jsonl: File too large. What was measured before is kept." in done.stdout
    assert "AssertionError" not in done.stderr
    assert (tmp_path / "records.jsonl").read_bytes() == b'{"name":"one"}\n'


def test_a_full_disk_is_told_with_its_size_and_loses_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    path = tmp_path / "records.jsonl"
    store.append(path, Line(1))
    request.getfixturevalue("full")
    with pytest.raises(
        WriteError, match=r"records.jsonl: No space left on device \(.* are free\)\. What was"
    ):
        store.append(path, Line(2))
    assert numbers(path) == [1]
    monkeypatch.undo()
    store.append(path, Line(3))
    assert numbers(path) == [1, 3]


@pytest.mark.usefixtures("full")
def test_a_file_that_cannot_be_replaced_stays_and_no_part_is_left(tmp_path: Path) -> None:
    path = tmp_path / "REPORT.md"
    path.write_text("complete")
    with pytest.raises(OSError, match="No space left"):
        store.write_text(path, "new")
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("REPORT.md", "complete")]


@pytest.mark.usefixtures("full")
def test_a_folder_without_a_header_is_not_left(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"cannot write results to .*No space left .*--results DIR"):
        store.create(tmp_path / "results" / "run-1", "run.json", Line(1))
    assert list((tmp_path / "results").iterdir()) == []
    (tmp_path / "results" / "run-1").mkdir()
    with pytest.raises(WriteError, match="File exists"):
        store.create(tmp_path / "results" / "run-1", "run.json", Line(1))
    assert (tmp_path / "results" / "run-1").is_dir()


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE)
    store.write_text(pipe, "told")
    assert reader.communicate(timeout=300)[0] == b"told"
    assert [one.name for one in tmp_path.iterdir()] == ["pipe"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (WriteError("cannot append to x."), "cannot append to x. Go on."),
        (OSError(errno.EROFS, "Read-only file system", "/x"), "cannot use /x: Read-only file system. Go on."),
        (
            PermissionError(errno.EACCES, "Permission denied", "/x"),
            "cannot use /x: Permission denied. Go on.",
        ),
        (BrokenPipeError(errno.EPIPE, "Broken pipe", "", None, "standard output"), "Broken pipe"),
    ],
)
def test_an_error_of_the_disk_tells_how_to_go_on(error: Exception, said: str) -> None:
    with pytest.raises(WriteError) as caught, store.resumable("Go on."):
        raise error
    assert said in str(caught.value)
    assert str(caught.value).endswith(" Go on.")


def test_a_reader_that_has_gone_leaves_a_word_how_to_go_on() -> None:
    ended = SystemExit(1)  # as rich raises it
    ended.__context__ = BrokenPipeError()
    with (
        pytest.raises(WriteError, match=r"nobody reads standard output any more\. Go on\."),
        store.resumable("Go on."),
    ):
        raise ended


@pytest.mark.parametrize(
    "error", [RecordError("x"), OSError("x"), ValueError("x"), SystemExit(1), KeyboardInterrupt()]
)
def test_any_other_error_passes_as_it_is(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, store.resumable("Go on."):
        raise error
    assert caught.value is error


def test_a_run_is_named_so_that_the_command_finds_it() -> None:
    assert store.name_of(Path("results/run-1")) == "run-1"
    assert store.name_of(Path("/else where/run-1")) == "run-1 --results '/else where'"


# Names that are no text


def test_a_byte_of_a_name_that_is_no_text_can_be_recorded() -> None:
    odd = os.fsdecode(b"odd\xff")
    record = {"command": ["bench", odd, "größe"], "more": {odd: 1}}

    class Any(msgspec.Struct):
        command: tuple[str, ...]
        more: dict[str, int]

    made = msgspec.json.decode(store.encoded(msgspec.convert(record, Any)))
    assert made == {"command": ["bench", "odd\\xff", "größe"], "more": {"odd\\xff": 1}}
    assert store.encoded(Line(1)) == b'{"number":1}'
