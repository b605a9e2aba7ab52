"""What is known of the data sets agrees with itself."""

import re

from bench.datasets.cache import ARRAYS
from bench.datasets.catalog import DATASETS


def test_the_table_of_data_sets_is_consistent():
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
