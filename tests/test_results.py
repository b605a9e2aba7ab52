"""What is published under results/: small, the text of its pictures as text, and read by the program."""

import subprocess
from pathlib import Path

import pytest

from bench import store
from bench.gate.records import read_ab
from bench.recipes.records import read_training
from bench.records.runs import read_run
from bench.selftest.records import read_selftest

ROOT = Path(__file__).parent.parent
MOST_BYTES = 10_000_000
MOST_OF_A_PICTURE = 100_000
READERS = {
    "run.json": read_run,
    "ab.json": read_ab,
    "selftest.json": read_selftest,
    "train.json": read_training,
}


@pytest.fixture(scope="module")
def published() -> list[Path]:
    """Return the files under results/ that git knows."""
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout: what is published cannot be told from runs made here")
    done = subprocess.run(
        ["git", "ls-files", "-z", "results"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_the_results_are_small(published: list[Path]) -> None:
    assert 0 < sum(path.stat().st_size for path in published) < MOST_BYTES


def test_no_picture_is_large_and_its_text_is_text(published: list[Path]) -> None:
    pictures = {path: path.read_text(encoding="utf-8") for path in published if path.suffix == ".svg"}
    assert len(pictures) > 30
    wrong = [
        str(path.relative_to(ROOT))
        for path, content in pictures.items()
        if path.stat().st_size > MOST_OF_A_PICTURE or "<text" not in content or "DejaVuSans-" in content
    ]
    assert wrong == []


def test_every_picture_is_shown_by_a_report(published: list[Path]) -> None:
    unused = []
    for picture in (path for path in published if path.suffix == ".svg"):
        reports = [
            path for path in published if path.parent == picture.parent.parent and path.suffix == ".md"
        ]
        if not any(f"(plots/{picture.name})" in path.read_text(encoding="utf-8") for path in reports):
            unused.append(str(picture.relative_to(ROOT)))
    assert unused == []


def test_every_published_folder_is_read_with_its_records(published: list[Path]) -> None:
    read = 0
    for path in published:
        if path.name in READERS:
            found = READERS[path.name](path.parent)
            held = next(
                held for name in ("records", "blocks", "figures") if (held := getattr(found, name, None))
            )
            assert held, path
            assert found.rejected == (), path
            read += 1
    assert read > 100


def test_each_archive_holds_only_what_folders_beside_it_lack(published: list[Path]) -> None:
    archives = [path for path in published if path.name == store.ARCHIVE]
    assert archives
    for archive in archives:
        for name in store.archived(archive):
            folder, _, file = name.partition("/")
            assert (archive.parent / folder).is_dir(), name
            assert not (archive.parent / folder / file).exists(), name
