"""Decoding: written data is read back exactly, and unexpected data is refused."""

import gzip
import io
import json
import struct
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from bench.datasets import decode
from bench.datasets.decode import Sizes
from bench.errors import DataError

MIB = 1 << 20
SEEDS = st.integers(0, 2**32 - 1)


def idx_bytes(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def sheet_bytes(images):
    count, _, _, channels = images.shape
    rows = images.reshape(count, -1) if channels == 1 else images.reshape(count, -1, channels)
    file = io.BytesIO()
    Image.fromarray(rows).save(file, "PNG")
    return file.getvalue()


def random_arrays(sizes, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "train_images": rng.integers(0, 256, (sizes.train, *sizes.image_shape), dtype=np.uint8),
        "train_labels": rng.integers(0, sizes.classes, sizes.train, dtype=np.uint8),
        "test_images": rng.integers(0, 256, (sizes.test, *sizes.image_shape), dtype=np.uint8),
        "test_labels": rng.integers(0, sizes.classes, sizes.test, dtype=np.uint8),
    }


def tarball(folder: Path, members: Iterable[tuple[str, bytes] | tarfile.TarInfo]) -> Path:
    path = folder / "it.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                name, content = member
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def same(found, expected):
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].dtype == np.uint8
        assert found[name].flags.c_contiguous
        np.testing.assert_array_equal(found[name], array, err_msg=name)


# --- IDX


@given(shape=st.lists(st.integers(0, 5), min_size=1, max_size=4).map(tuple), seed=SEEDS)
def test_idx_is_read_back(shape, seed):
    array = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    found = decode.idx(idx_bytes(array), shape, "it")
    np.testing.assert_array_equal(found, array)
    assert found.dtype == np.uint8
    assert found.shape == shape


@given(content=st.binary(max_size=40))
def test_idx_of_any_bytes_decodes_or_raises_a_data_error(content):
    try:
        found = decode.idx(content, (2, 3), "it")
    except DataError:
        return
    assert idx_bytes(found) == content


@given(flipped=st.integers(0, 15), mask=st.integers(1, 255))
def test_idx_with_any_header_bit_flipped_is_refused(flipped, mask):
    content = bytearray(idx_bytes(np.zeros((2, 4, 4), np.uint8)))
    content[flipped] ^= mask
    with pytest.raises(DataError, match="it: "):
        decode.idx(bytes(content), (2, 4, 4), "it")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda it: b"\0\0\x0d\x03" + it[4:], "starts with 00000d03, not with the IDX magic 00000803"),
        (lambda it: it[:9], "ends inside its header"),
        (lambda it: it[:7] + b"\x03" + it[8:], r"has dimensions \(3, 4, 4\), not \(2, 4, 4\)"),
        (lambda it: it[:-1], "is cut short"),
        (lambda it: it + b"\0", "goes on after its end"),
    ],
)
def test_idx_error_names_the_cause(change, message):
    with pytest.raises(DataError, match=message):
        decode.idx(change(idx_bytes(np.zeros((2, 4, 4), np.uint8))), (2, 4, 4), "it")


IDX_SIZES = Sizes(train=7, test=3, image_shape=(4, 5, 1), classes=10)


def idx_contents(arrays):
    return [idx_bytes(array.squeeze(3) if array.ndim == 4 else array) for array in arrays.values()]


@pytest.fixture
def idx_files(tmp_path):
    """Return a function that writes the contents of four files and returns their paths."""

    def write(contents):
        paths = [tmp_path / f"file{number}" for number in range(4)]
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
        return paths

    return write


@pytest.mark.parametrize("pack", [gzip.compress, bytes])
def test_four_idx_files_are_read_back(idx_files, pack):
    arrays = random_arrays(IDX_SIZES)
    same(decode.idx_files(idx_files(map(pack, idx_contents(arrays))), IDX_SIZES), arrays)


@pytest.mark.parametrize(
    "damage",
    [lambda it: it[:-9], lambda it: it[:20] + b"\xff\xff" + it[22:], lambda it: b""],
)
def test_a_damaged_gzip_file_is_named(idx_files, damage):
    contents = [gzip.compress(content) for content in idx_contents(random_arrays(IDX_SIZES))]
    contents[2] = damage(contents[2])
    with pytest.raises(DataError, match="file2: "):
        decode.idx_files(idx_files(contents), IDX_SIZES)


def test_a_gzip_file_with_too_many_bytes_is_not_decompressed_to_its_end(idx_files, monkeypatch):
    contents = [gzip.compress(content + bytes(MIB)) for content in idx_contents(random_arrays(IDX_SIZES))]
    lengths = []
    really = decode.idx
    monkeypatch.setattr(
        decode, "idx", lambda content, *rest: lengths.append(len(content)) or really(content, *rest)
    )
    with pytest.raises(DataError, match="goes on after its end"):
        decode.idx_files(idx_files(contents), IDX_SIZES)
    assert lengths == [16 + 7 * 4 * 5 + 1]


def test_an_idx_label_out_of_range_is_refused(idx_files):
    arrays = random_arrays(IDX_SIZES)
    arrays["test_labels"][1] = 10
    with pytest.raises(DataError, match="file3: holds a label outside 0 to 9"):
        decode.idx_files(idx_files(idx_contents(arrays)), IDX_SIZES)


def test_an_idx_archive_is_read_back(tmp_path):
    arrays = random_arrays(IDX_SIZES)
    contents = dict(zip(("d/a", "d/b", "d/c", "d/d"), idx_contents(arrays), strict=True))
    # In another order than requested, and among other files, as npm packs them.
    path = tarball(tmp_path, [("d/readme", b"hello"), *reversed(contents.items())])
    members = {name: len(content) for name, content in contents.items()}
    same(decode.idx_archive([path], IDX_SIZES, members=members), arrays)


# --- CIFAR

CIFAR_SIZES = Sizes(train=10, test=4, image_shape=(3, 2, 3), classes=10)
CIFAR_FORM = {"train": ("d/one", "d/two"), "test": "d/test"}


def cifar_archive(folder, arrays, label_bytes):
    def records(images, labels):
        planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        other_labels = np.full((len(images), label_bytes - 1), 99, np.uint8)
        return np.concatenate([other_labels, labels[:, None], planes], axis=1).tobytes()

    members = {
        "d/one": records(arrays["train_images"][:5], arrays["train_labels"][:5]),
        "d/two": records(arrays["train_images"][5:], arrays["train_labels"][5:]),
        "d/test": records(arrays["test_images"], arrays["test_labels"]),
    }
    path = tarball(folder, members.items())
    return decode.cifar_archive([path], CIFAR_SIZES, label_bytes=label_bytes, **CIFAR_FORM)


@given(seed=SEEDS, label_bytes=st.sampled_from([1, 2]))
def test_a_cifar_archive_is_read_back(tmp_path_factory, seed, label_bytes):
    arrays = random_arrays(CIFAR_SIZES, seed)
    same(cifar_archive(tmp_path_factory.mktemp("cifar"), arrays, label_bytes), arrays)


@pytest.mark.parametrize("pack", [gzip.compress, bytes])
def test_the_files_of_a_cifar_archive_are_read_back(tmp_path, pack):
    arrays = random_arrays(CIFAR_SIZES)
    cifar_archive(tmp_path, arrays, 1)
    paths = []
    with tarfile.open(tmp_path / "it.tgz") as archive:
        for member in archive:
            paths.append(tmp_path / member.name.replace("/", "-"))
            paths[-1].write_bytes(pack(archive.extractfile(member).read()))
    same(decode.cifar_files(paths, CIFAR_SIZES, label_bytes=1), arrays)
    paths[0].write_bytes(pack(b"\0" * 94))
    with pytest.raises(DataError, match="train: is cut short; 190 bytes of data were expected"):
        decode.cifar_files(paths, CIFAR_SIZES, label_bytes=1)


def test_a_tarball_that_is_not_gzipped_is_read_back(tmp_path):
    arrays = random_arrays(CIFAR_SIZES)
    cifar_archive(tmp_path, arrays, 1)
    plain = tmp_path / "it.tar"
    plain.write_bytes(gzip.decompress((tmp_path / "it.tgz").read_bytes()))
    same(decode.cifar_archive([plain], CIFAR_SIZES, label_bytes=1, **CIFAR_FORM), arrays)


def test_a_cifar_label_out_of_range_is_refused(tmp_path):
    arrays = random_arrays(CIFAR_SIZES)
    arrays["train_labels"][9] = 10
    with pytest.raises(DataError, match="train: holds a label outside 0 to 9"):
        cifar_archive(tmp_path, arrays, 1)


# --- PNG sheets


@given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 3])),
    seed=SEEDS,
)
def test_a_sheet_is_read_back(shape, seed):
    images = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    found = decode.sheet(sheet_bytes(images), shape[0], shape[1:], "it")
    np.testing.assert_array_equal(found, images)
    assert found.dtype == np.uint8


def png(mode, size=(6, 4), **options):
    file = io.BytesIO()
    Image.new(mode, size).save(file, "PNG", **options)
    return file.getvalue()


def huge_png():
    """Declare 100,000 x 100,000 pixels in a few bytes."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    file = io.BytesIO(b"\x89PNG\r\n\x1a\n")
    file.seek(8)
    PngImagePlugin.putchunk(file, b"IHDR", header)
    PngImagePlugin.putchunk(file, b"IDAT", b"\0")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"GIF89a", "is not a PNG file"),
        (b"\x89PNG\r\n\x1a\n", "is not a PNG file"),
        (b"\x88" + png("RGB")[1:], "is not a PNG file"),
        (png("RGB", (6, 5)), "is 6x5 .* not 6x4"),
        (png("RGB", (5, 4)), "is 5x4 .* not 6x4"),
        (png("L"), "colour type 0, not 6x4 with 8 and 2"),
        (png("RGBA"), "colour type 6, not"),
        (png("P"), "colour type 3, not"),
        (png("1"), "bit depth 1 "),
        (png("I;16"), "bit depth 16 "),
        (huge_png(), "is 100000x100000 "),
        (png("RGB")[:-28], "is a damaged PNG file"),
        (png("RGB")[:45] + b"\xff\xff" + png("RGB")[47:], "is a damaged PNG file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "png",
)
def test_an_unexpected_sheet_is_refused(content, message, monkeypatch):
    if "damaged" not in message:  # a wrong size is found before Pillow allocates memory for it
        monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("Pillow was called"))
    with pytest.raises(DataError, match=message):
        decode.sheet(content, 4, (2, 3, 3), "it")


def test_a_sheet_archive_is_read_back(tmp_path):
    sizes = Sizes(train=6, test=2, image_shape=(2, 3, 3), classes=10)
    arrays = random_arrays(sizes)
    members = {
        "p/1.png": sheet_bytes(arrays["train_images"][:3]),
        "p/2.png": sheet_bytes(arrays["train_images"][3:]),
        "p/t.png": sheet_bytes(arrays["test_images"]),
        "p/train.json": json.dumps(arrays["train_labels"].tolist()).encode(),
        "p/test.json": json.dumps(arrays["test_labels"].tolist()).encode(),
    }
    size = {name: len(content) for name, content in members.items()}
    found = decode.sheet_archive(
        [tarball(tmp_path, members.items())],
        sizes,
        train={name: size[name] for name in ("p/1.png", "p/2.png")},
        test={"p/t.png": size["p/t.png"]},
        train_labels=("p/train.json", size["p/train.json"]),
        test_labels=("p/test.json", size["p/test.json"]),
    )
    same(found, arrays)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[1, 2", "is not a JSON list"),
        (b'{"a": 1}', "is not a JSON list"),
        (b"[1, 2.5, 3]", "is not a JSON list"),
        (b"[1, 2]", "holds 2 labels, not 3"),
        (b"[1, 2, 10]", "a label outside 0 to 9"),
        (b"[1, -1, 3]", "a label outside 0 to 9"),
        (b"[1, 257, 3]", "a label outside 0 to 9"),
    ],
)
def test_unexpected_labels_are_refused(content, message):
    with pytest.raises(DataError, match=message):
        decode.json_labels(content, 3, 10, "it")


# --- tarballs

WANTED = ("d/wanted", b"12345")


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("../escape", b"x"), r"'\.\./escape' leads out"),
        (("d/../../escape", b"x"), "leads out"),
        (("/etc/escape", b"x"), "leads out"),
        (special("d/link", tarfile.SYMTYPE, "/etc/passwd"), "'d/link' is neither a plain file nor a folder"),
        (special("d/link", tarfile.LNKTYPE, "d/wanted"), "neither a plain file nor a folder"),
        (special("d/pipe", tarfile.FIFOTYPE), "neither a plain file nor a folder"),
        (special("d/device", tarfile.CHRTYPE), "neither a plain file nor a folder"),
        (WANTED, "holds d/wanted twice"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_hostile_tarball_is_refused(tmp_path, extra, message, first):
    path = tarball(tmp_path, [extra, WANTED] if first else [WANTED, extra])
    with pytest.raises(DataError, match=message):
        decode.tar_members(path, {"d/wanted": 5})
    assert [child.name for child in tmp_path.iterdir()] == ["it.tgz"]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"d/wanted": 5, "d/also": 3}, "holds no d/also of 3 bytes"),
        ({"d/wanted": 6}, "d/wanted has 5 bytes, not 6"),
    ],
)
def test_a_member_that_is_missing_or_of_another_size_is_named(tmp_path, sizes, message):
    path = tarball(tmp_path, [WANTED])
    assert decode.tar_members(path, {"d/wanted": 5}) == dict([WANTED])
    with pytest.raises(DataError, match=message):
        decode.tar_members(path, sizes)


@pytest.mark.parametrize(
    ("name", "message"),
    [("d/wanted", "d/wanted has 67108864 bytes, not 5"), ("d/other", r"it\.tgz: decompresses to more")],
)
def test_a_huge_member_is_refused_before_it_is_decompressed(tmp_path, name, message):
    path = tarball(tmp_path, [(name, bytes(64 * MIB)), WANTED])
    assert path.stat().st_size < MIB
    with pytest.raises(DataError, match=message):
        decode.tar_members(path, {"d/wanted": 5})


def test_a_member_that_declares_more_bytes_than_there_are_is_refused(tmp_path):
    info = tarfile.TarInfo("d/wanted")
    info.size = 8 << 30
    path = tmp_path / "it.tgz"
    path.write_bytes(gzip.compress(info.tobuf() + bytes(1024)))
    with pytest.raises(DataError, match=r"damaged|holds no"):
        decode.tar_members(path, {"d/wanted": 8 << 30})


def test_a_huge_extended_header_is_refused(tmp_path):
    info = tarfile.TarInfo("d/wanted")
    info.pax_headers = {"comment": "x" * (8 * MIB)}
    path = tmp_path / "it.tgz"
    path.write_bytes(gzip.compress(info.tobuf(tarfile.PAX_FORMAT) + bytes(1024)))
    with pytest.raises(DataError, match="decompresses to more"):
        decode.tar_members(path, {"d/wanted": 0})


@pytest.mark.parametrize("keep", [0, 5, 40, -30])
def test_a_cut_off_tarball_is_refused(tmp_path, keep):
    path = tarball(tmp_path, [("d/wanted", np.random.default_rng(0).bytes(5000))])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"it\.tgz: "):
        decode.tar_members(path, {"d/wanted": 5000})
