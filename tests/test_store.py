"""Records are read from the archive beside their folder where the folder itself lacks them."""

import codecs
import tarfile
from pathlib import Path

import msgspec
import pytest

from bench import store
from bench.errors import RecordError


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
