"""Decode the published files of data sets into uint8 arrays.

The files are not trusted: an unexpected magic number, dimension, length or label raises DataError.
"""

import gzip
import io
import struct
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, TypeAlias, cast

import msgspec
import numpy as np
import numpy.typing as npt

from bench.errors import DataError

Array: TypeAlias = npt.NDArray[np.uint8]
Arrays: TypeAlias = dict[str, Array]
"""The four arrays of a data set: `train_images`, `train_labels`, `test_images`, `test_labels`."""

_GZIP_MAGIC = b"\x1f\x8b"
_IDX_UINT8 = 0x08
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_COLOUR_TYPE = {1: 0, 3: 2}
"""The colour type of a PNG file by its number of channels: grey and RGB."""
_TAR_SLACK_BYTES = 1 << 22
"""The most bytes of a tarball beside its wanted members: headers, padding, a readme."""
_DAMAGED = (tarfile.TarError, zlib.error, struct.error, EOFError, OSError, SyntaxError, ValueError)
"""What the standard library and Pillow raise for a damaged file."""


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """The known size of a data set."""

    train: int
    test: int
    image_shape: tuple[int, int, int]
    classes: int

    def of(self, split: str) -> int:
        """Return how many images a split, `train` or `test`, has."""
        return {"train": self.train, "test": self.test}[split]


def idx(content: bytes, shape: tuple[int, ...], what: str) -> Array:
    """Decode an IDX file of uint8 that must have exactly this shape."""
    header = struct.pack(f">HBB{len(shape)}I", 0, _IDX_UINT8, len(shape), *shape)
    if content[:4] != header[:4]:
        raise DataError(f"{what}: starts with {content[:4].hex()}, not with the IDX magic {header[:4].hex()}")
    if len(content) < len(header):
        raise DataError(f"{what}: ends inside its header")
    if content[: len(header)] != header:
        found = struct.unpack(f">{len(shape)}I", content[4 : len(header)])
        raise DataError(f"{what}: has dimensions {found}, not {shape}")
    return _exactly(content[len(header) :], shape, what)


def idx_files(paths: Sequence[Path], sizes: Sizes) -> Arrays:
    """Decode four IDX files, gzipped or not: train images, train labels, test images, test labels."""
    height, width, _ = sizes.image_shape
    contents = []
    for number, path in enumerate(paths):
        count = sizes.of("train" if number < 2 else "test")
        length = 16 + count * height * width if number % 2 == 0 else 8 + count
        contents.append(_gunzipped(path, length))
    return _four_idx(contents, sizes, [path.name for path in paths])


def idx_archive(paths: Sequence[Path], sizes: Sizes, *, members: Mapping[str, int]) -> Arrays:
    """Decode a tarball of four IDX files; `members`, in the order of `idx_files`, gives names and bytes."""
    contents = tar_members(paths[0], members)
    return _four_idx([contents[name] for name in members], sizes, list(members))


def cifar_archive(
    paths: Sequence[Path], sizes: Sizes, *, train: Sequence[str], test: str, label_bytes: int
) -> Arrays:
    """Decode a binary CIFAR tarball, whose `train` members hold equally many images.

    A record is `label_bytes` labels, the finest one last, then the image, one plane per channel.
    """
    record = label_bytes + _pixels(sizes.image_shape)
    counts = dict.fromkeys(train, sizes.train // len(train)) | {test: sizes.test}
    contents = tar_members(paths[0], {name: count * record for name, count in counts.items()})
    train_content = b"".join(contents.pop(name) for name in train)
    return _cifar(train_content, contents.pop(test), sizes, label_bytes)


def cifar_files(paths: Sequence[Path], sizes: Sizes, *, label_bytes: int) -> Arrays:
    """Decode the files of a binary CIFAR tarball, gzipped or not; the last one holds the test split."""
    *train, test = paths
    record = label_bytes + _pixels(sizes.image_shape)
    train_content = b"".join(_gunzipped(path, sizes.train // len(train) * record) for path in train)
    return _cifar(train_content, _gunzipped(test, sizes.test * record), sizes, label_bytes)


def _cifar(train: bytes, test: bytes, sizes: Sizes, label_bytes: int) -> Arrays:
    record = label_bytes + _pixels(sizes.image_shape)
    height, width, channels = sizes.image_shape
    arrays: Arrays = {}
    for split, content in (("train", train), ("test", test)):
        records = _exactly(content, (sizes.of(split), record), split)
        planes = records[:, label_bytes:].reshape(-1, channels, height, width)
        arrays[f"{split}_images"] = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
        arrays[f"{split}_labels"] = _in_range(records[:, label_bytes - 1].copy(), sizes.classes, split)
    return arrays


def sheet_archive(
    paths: Sequence[Path],
    sizes: Sizes,
    *,
    train: Mapping[str, int],
    test: Mapping[str, int],
    train_labels: tuple[str, int],
    test_labels: tuple[str, int],
) -> Arrays:
    """Decode a tarball of PNG sheets of images and JSON lists of labels.

    Members are given with their sizes in bytes. The sheets of a split hold equally many images.
    """
    contents = tar_members(paths[0], {**train, **test, **dict([train_labels, test_labels])})
    arrays: Arrays = {}
    for split, sheets, label_member in (("train", train, train_labels[0]), ("test", test, test_labels[0])):
        count = sizes.of(split) // len(sheets)
        images = [sheet(contents.pop(name), count, sizes.image_shape, name) for name in sheets]
        arrays[f"{split}_images"] = np.concatenate(images)
        arrays[f"{split}_labels"] = json_labels(
            contents[label_member], sizes.of(split), sizes.classes, label_member
        )
    return arrays


def sheet(content: bytes, count: int, image_shape: tuple[int, int, int], what: str) -> Array:
    """Decode a PNG sheet with one image per row to (count, height, width, channels)."""
    height, width, channels = image_shape
    # Signature and first chunk are checked here, so that Pillow never allocates for an unexpected size.
    expected = (13, b"IHDR", height * width, count, 8, _PNG_COLOUR_TYPE[channels], 0, 0, 0)
    layout = struct.Struct(">I4sIIBBBBB")
    if content[:8] != _PNG_MAGIC or len(content) < 8 + layout.size:
        raise DataError(f"{what}: is not a PNG file")
    found = layout.unpack_from(content, 8)
    if found != expected:
        raise DataError(
            f"{what}: is {found[2]}x{found[3]} with bit depth {found[4]} and colour type {found[5]}, "
            f"not {expected[2]}x{expected[3]} with 8 and {expected[5]}"
        )
    from PIL import Image  # imported here: most data sets are not published as pictures

    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            pixels = np.array(image)  # a copy: a view would be read-only, which PyTorch rejects
    except _DAMAGED as error:
        raise DataError(f"{what}: is a damaged PNG file ({error})") from error
    return pixels.reshape(count, *image_shape)


def json_labels(content: bytes, count: int, classes: int, what: str) -> Array:
    """Decode a JSON list of `count` labels below `classes`."""
    try:
        labels = msgspec.json.decode(content, type=list[int])
    except msgspec.DecodeError as error:
        raise DataError(f"{what}: is not a JSON list of whole numbers ({error})") from error
    if len(labels) != count:
        raise DataError(f"{what}: holds {len(labels)} labels, not {count}")
    if not all(0 <= label < classes for label in labels):
        raise DataError(f"{what}: holds a label outside 0 to {classes - 1}")
    return np.array(labels, dtype=np.uint8)


def tar_members(path: Path, sizes: Mapping[str, int]) -> dict[str, bytes]:
    """Return the content of these members of a tarball, gzipped or not, each of exactly the given size.

    Nothing is written to disk. The whole tarball is refused if any member has a path outside the folder, is
    neither a file nor a folder, or comes twice, or if it decompresses to more bytes than expected.
    """
    contents: dict[str, bytes] = {}
    try:
        with _opened(path) as packed:
            capped = _Capped(packed, sum(sizes.values()) + _TAR_SLACK_BYTES, path.name)
            with tarfile.open(fileobj=capped, mode="r|") as archive:
                for member in archive:
                    _refuse_hostile(member, path.name)
                    if member.name not in sizes:
                        continue
                    if member.name in contents:
                        raise DataError(f"{path.name}: holds {member.name} twice")
                    if member.size != sizes[member.name]:
                        raise DataError(
                            f"{path.name}: {member.name} has {member.size} bytes, not {sizes[member.name]}"
                        )
                    file = archive.extractfile(member)
                    contents[member.name] = file.read() if file is not None else b""
    except _DAMAGED as error:
        raise DataError(f"{path.name}: is a damaged tarball ({error})") from error
    for name, size in sizes.items():
        if len(contents.get(name, b"")) != size:
            raise DataError(f"{path.name}: holds no {name} of {size} bytes")
    return contents


class _Capped(io.BufferedIOBase):
    """A stream that raises DataError after `max_bytes`: a small file can decompress to a huge one."""

    def __init__(self, stream: IO[bytes], max_bytes: int, what: str) -> None:
        self._stream = stream
        self._left = max_bytes
        self._what = what

    def read(self, size: int | None = -1, /) -> bytes:
        content = self._stream.read(-1 if size is None else size)
        self._left -= len(content)
        if self._left < 0:
            raise DataError(f"{self._what}: decompresses to more bytes than expected")
        return content


def _refuse_hostile(member: tarfile.TarInfo, what: str) -> None:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        raise DataError(f"{what}: refused, because its member {member.name!r} leads out of the folder")
    if not (member.isfile() or member.isdir()) or member.issparse():
        raise DataError(
            f"{what}: refused, because its member {member.name!r} is neither a plain file nor a folder"
        )


def _gunzipped(path: Path, length: int) -> bytes:
    """Return the content of a file that may be gzipped; at most one byte more than `length`."""
    try:
        with _opened(path) as stream:
            return stream.read(length + 1)
    except _DAMAGED as error:
        raise DataError(f"{path.name}: cannot be read or decompressed ({error})") from error


def _opened(path: Path) -> IO[bytes]:
    """Open a file that may be gzipped, to read its content."""
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP_MAGIC
    return cast("IO[bytes]", gzip.open(path)) if packed else path.open("rb")


def _four_idx(contents: Sequence[bytes], sizes: Sizes, names: Sequence[str]) -> Arrays:
    height, width, _ = sizes.image_shape
    arrays: Arrays = {}
    for position, split in ((0, "train"), (2, "test")):
        count = sizes.of(split)
        images = idx(contents[position], (count, height, width), names[position])
        labels = idx(contents[position + 1], (count,), names[position + 1])
        arrays[f"{split}_images"] = images.reshape(count, *sizes.image_shape)
        arrays[f"{split}_labels"] = _in_range(labels, sizes.classes, names[position + 1])
    return arrays


def _exactly(content: bytes, shape: tuple[int, ...], what: str) -> Array:
    """Return the bytes as an array of this shape, which they must fill exactly."""
    if len(content) != _pixels(shape):
        kind = "is cut short" if len(content) < _pixels(shape) else "goes on after its end"
        raise DataError(f"{what}: {kind}; {_pixels(shape)} bytes of data were expected")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _pixels(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))


def _in_range(labels: Array, classes: int, what: str) -> Array:
    if labels.size and int(labels.max()) >= classes:
        raise DataError(f"{what}: holds a label outside 0 to {classes - 1}")
    return labels
