"""The shipped samples: real images, small, and exactly what their digests say."""

import hashlib
from pathlib import Path

import msgspec
import numpy as np
import pytest

from bench.datasets import cache
from bench.datasets.cache import ARRAYS
from bench.datasets.catalog import DATASETS
from bench.errors import DataError

ROOT = Path(__file__).parents[2]


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


@pytest.mark.parametrize(("name", "train", "test"), [("mnist", 2000, 500), ("cifar10", 1000, 250)])
def test_a_sample_loads_and_is_what_its_digests_say(name, train, test):
    sample = cache.load_sample(name)
    spec = DATASETS[name]
    assert (sample.sample, sample.limit, sample.info) == (True, None, spec.info)
    assert sample.class_names == spec.class_names
    assert sample.train_images.shape == (train, *spec.info.image_shape)
    assert sample.test_images.shape == (test, *spec.info.image_shape)
    for array in ARRAYS:
        assert digest(getattr(sample, array)) == spec.sample.digests[array]
        assert getattr(sample, array).flags.writeable, "PyTorch takes no other"
    for labels in (sample.train_labels, sample.test_labels):
        assert labels.dtype == np.uint8
        assert set(labels.tolist()) == set(range(10))
    limited = cache.load_sample(name, limit=300)
    assert (len(limited.train_images), len(limited.test_labels)) == (300, min(300, test))
    np.testing.assert_array_equal(limited.train_images, sample.train_images[:300])


def test_a_sample_that_was_changed_is_refused(monkeypatch):
    spec = DATASETS["mnist"]
    wrong = msgspec.structs.replace(spec.sample, digests={**spec.sample.digests, "test_labels": "0" * 64})
    monkeypatch.setattr(cache, "DATASETS", {"mnist": msgspec.structs.replace(spec, sample=wrong)})
    with pytest.raises(DataError, match="test_labels has SHA-256"):
        cache.load_sample("mnist")


def test_a_data_set_without_a_sample_names_those_with_one():
    with pytest.raises(DataError, match=r"no sample of cifar100 .* samples of mnist and cifar10"):
        cache.load_sample("cifar100")


def test_the_samples_stay_small():
    files = [path for path in (ROOT / "bench" / "datasets" / "samples").rglob("*") if path.is_file()]
    assert 0 < sum(path.stat().st_size for path in files) < 5_000_000
