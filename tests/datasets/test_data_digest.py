"""One digest stands for all arrays of a data set, so that hosts can compare what they have."""

import json
from pathlib import Path

import pytest

from bench.datasets.cache import ARRAYS, data_digest
from bench.datasets.catalog import DATASETS
from bench.errors import DataError

KNOWN = next(name for name, spec in DATASETS.items() if spec.digests is not None and spec.sample is not None)
FETCHED = next(name for name, spec in DATASETS.items() if spec.digests is None)


def test_a_data_set_and_its_sample_have_digests_of_their_own(tmp_path: Path) -> None:
    assert data_digest(KNOWN, None) != data_digest(KNOWN, tmp_path)
    assert len(data_digest(KNOWN, None)) == 64


def test_every_array_counts_whose_digest_was_recorded_when_it_was_fetched(tmp_path: Path) -> None:
    path = tmp_path / FETCHED / "digests.json"
    path.parent.mkdir()
    found = set()
    for changed in ("", *ARRAYS):
        path.write_text(json.dumps({name: ("1" if name == changed else "0") * 64 for name in ARRAYS}))
        found.add(data_digest(FETCHED, tmp_path))
    assert len(found) == 1 + len(ARRAYS)
    path.unlink()
    with pytest.raises(DataError, match="there is no"):
        data_digest(FETCHED, tmp_path)
