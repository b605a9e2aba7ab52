"""Data sets as IDX files: what is written is what the decoder reads."""

from pathlib import Path

import numpy as np
import pytest
from conftest import Call
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bench.datasets import decode
from bench.datasets.cache import load_sample
from bench.datasets.idx import NAMES, to_idx, write_idx
from bench.errors import UsageError, WriteError


@given(
    arrays.arrays(np.uint8, arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5)),
    st.booleans(),
)
def test_what_is_written_is_read_back(array: np.ndarray, turned: bool) -> None:
    given = array.T if turned else array
    assert (decode.idx(to_idx(given), given.shape, "it") == given).all()


def test_the_four_files_hold_the_arrays(tmp_path: Path) -> None:
    sample = load_sample("mnist", 30)
    write_idx(sample, tmp_path / "new" / "folder")
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == sorted(NAMES.values())
    for name, file in NAMES.items():
        expected = getattr(sample, name)
        shape = expected.shape[:3] if expected.ndim == 4 else expected.shape
        found = decode.idx((tmp_path / "new" / "folder" / file).read_bytes(), shape, file)
        assert (found == expected.reshape(shape)).all()


def test_images_in_colour_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cifar10 has images in colour"):
        write_idx(load_sample("cifar10", 10), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot write to "):
        write_idx(load_sample("mnist", 10), tmp_path / "file" / "folder")


def test_the_command_writes_the_sample(call: Call, tmp_path: Path) -> None:
    said = call("data", "export", "mnist", str(tmp_path / "idx"), "--sample")
    assert (said.status, said.err) == (0, "")
    assert sorted(path.name for path in (tmp_path / "idx").iterdir()) == sorted(NAMES.values())


def test_the_command_refuses_a_data_set_that_is_not_known(call: Call, tmp_path: Path) -> None:
    call("data", "export", "mnst", str(tmp_path), "--sample").refused(2, "did you mean 'mnist'")


def test_the_command_needs_the_data(call: Call, tmp_path: Path) -> None:
    said = call("data", "export", "mnist", str(tmp_path / "idx"), "--offline")
    assert said.status == 3
    assert "cannot get the data set mnist offline" in said.err
