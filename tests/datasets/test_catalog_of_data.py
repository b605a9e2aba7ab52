"""The catalog of data sets is consistent, and the shipped samples match their digests."""

import hashlib
import re
from pathlib import Path

import msgspec
import numpy as np
import pytest

from bench.datasets import cache
from bench.datasets.cache import ARRAYS
from bench.datasets.catalog import DATASETS
from bench.errors import DataError

SAMPLES = Path(__file__).parents[2] / "bench" / "datasets" / "samples"


def test_the_catalog_is_consistent():
    assert set(DATASETS) == {"mnist", "fashion-mnist", "cifar10", "cifar100"}
    for name, spec in DATASETS.items():
        assert spec.info.name == name
        assert len(spec.class_names) == len(set(spec.class_names)) == spec.info.classes
        assert all(host.url.startswith("https://") for host in spec.hosts)
        for digests in (spec.digests, spec.sample and spec.sample.digests):
            assert not digests or (set(digests) == set(ARRAYS))
            assert not digests or all(re.fullmatch("[0-9a-f]{64}", value) for value in digests.values())
        assert spec.digests is not None or spec.originals.md5 is not None
    assert list(DATASETS["cifar100"].class_names) == sorted(DATASETS["cifar100"].class_names)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_idx_files_are_known_by_the_names_of_all_mirrors(name):
    stems = ("train-images", "train-labels", "t10k-images", "t10k-labels")
    for file, stem, kind in zip(DATASETS[name].originals.files, stems, ("idx3", "idx1") * 2, strict=True):
        dashes, dots = f"{stem}-{kind}-ubyte", f"{stem}.{kind}-ubyte"
        assert file.names == (f"{dashes}.gz", dashes, f"{dots}.gz", dots)


def test_cifar10_is_known_unpacked_and_a_data_set_without_digests_is_not():
    unpacked = DATASETS["cifar10"].unpacked
    names = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
    for file, name in zip(unpacked.files, names, strict=True):
        assert {name, f"cifar-10-batches-bin/{name}", f"{name}.gz"} <= set(file.names)
        assert file.max_bytes >= 10_000 * 3073
    assert all(spec.unpacked is None or spec.digests is not None for spec in DATASETS.values())


@pytest.mark.parametrize(("name", "train", "test"), [("mnist", 2000, 500), ("cifar10", 1000, 250)])
def test_a_sample_loads_and_has_its_digests(name, train, test):
    sample = cache.load_sample(name)
    spec = DATASETS[name]
    assert (sample.sample, sample.limit, sample.info) == (True, None, spec.info)
    assert sample.class_names == spec.class_names
    assert sample.train_images.shape == (train, *spec.info.image_shape)
    assert sample.test_images.shape == (test, *spec.info.image_shape)
    for array in ARRAYS:
        content = getattr(sample, array)
        assert hashlib.sha256(content.tobytes()).hexdigest() == spec.sample.digests[array]
        assert content.flags.writeable, "PyTorch rejects read-only arrays"
    for labels in (sample.train_labels, sample.test_labels):
        assert labels.dtype == np.uint8
        assert set(labels.tolist()) == set(range(10))
    limited = cache.load_sample(name, limit=300)
    assert (len(limited.train_images), len(limited.test_labels)) == (300, min(300, test))
    np.testing.assert_array_equal(limited.train_images, sample.train_images[:300])


def test_a_changed_sample_is_refused(monkeypatch):
    spec = DATASETS["mnist"]
    wrong = msgspec.structs.replace(spec.sample, digests={**spec.sample.digests, "test_labels": "0" * 64})
    monkeypatch.setattr(cache, "DATASETS", {"mnist": msgspec.structs.replace(spec, sample=wrong)})
    with pytest.raises(DataError, match="test_labels has SHA-256"):
        cache.load_sample("mnist")


def test_a_data_set_without_a_sample_names_those_with_one():
    with pytest.raises(DataError, match=r"no sample of cifar100 .* samples of mnist and cifar10"):
        cache.load_sample("cifar100")


def test_the_samples_stay_small():
    assert 0 < sum(path.stat().st_size for path in SAMPLES.rglob("*") if path.is_file()) < 5_000_000
