"""Checkpoints and models: the same to the last bit, and a damaged file is refused with its path."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from followed import make_header, make_model, make_params
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save_file

from bench import store
from bench.errors import RecordError, UsageError
from bench.recipes.checkpoints import (
    checkpoint_files,
    find_model,
    load_checkpoint,
    load_model,
    model_name,
    newest_checkpoint,
    save_checkpoint,
    save_model,
)
from bench.recipes.records import CHECKPOINTS
from bench.workloads.catalog import NOTEBOOKS, find_workload

ARRAYS = st.sampled_from(["<f4", "<f8", "<i4", "<i8", "<u4"]).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
STATES = st.dictionaries(st.text(max_size=12), ARRAYS, max_size=6)
LOSSES = hnp.arrays(np.float32, st.integers(0, 9))
STATE = {"param/b": np.arange(6.0).reshape(2, 3), "step": np.array(7), "slot/empty": np.empty((0, 4), "<f4")}
WORKLOAD = find_workload("notebook-one-layer")


def put(folder: Path, *steps: int) -> list[Path]:
    """Save a checkpoint after each of these steps, each with a state of its own."""
    for step in steps:
        losses = np.full(3, step, np.float32)
        save_checkpoint(folder, STATE | {"step": np.array(step)}, step=step, train_s=step / 8, losses=losses)
    return [folder / CHECKPOINTS / f"step-{step}.safetensors" for step in steps]


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape)
        assert found[name].tobytes() == value.tobytes()  # a NaN has bits, too


@settings(max_examples=50)
@given(STATES, LOSSES, st.integers(0, 2**40), st.floats(0, 1e9))
@example({"losses": np.zeros(2), "state/": np.array(1), "": np.empty(0, "<i8")}, np.ones(1, np.float32), 0, 0)
def test_a_checkpoint_is_read_as_it_was_written_whatever_the_order_of_the_names(state, losses, step, seconds):
    found = []
    for given_state in (state, dict(reversed(state.items()))):
        with tempfile.TemporaryDirectory() as folder:
            save_checkpoint(Path(folder), given_state, step=step, train_s=seconds, losses=losses)
            (path,) = checkpoint_files(Path(folder))
            found.append(load_checkpoint(path))
    for one in found:
        assert_same(one.state, state)
        assert_same({"losses": one.losses}, {"losses": losses})
        assert (one.about.step, one.about.train_s) == (step, seconds)
    assert found[0].about == found[1].about


def test_arrays_that_do_not_lie_in_one_piece_are_kept_as_they_look(tmp_path):
    state = {"turned": np.arange(6.0).reshape(2, 3).T, "every other": np.arange(10)[::2]}
    save_checkpoint(tmp_path, state, step=1, train_s=0, losses=np.arange(8, dtype=np.float32)[::-2])
    (path,) = checkpoint_files(tmp_path)
    assert_same(load_checkpoint(path).state, {name: value.copy("C") for name, value in state.items()})
    assert load_checkpoint(path).losses.tolist() == [7, 5, 3, 1]


def test_only_the_newest_two_by_number_stay_and_half_a_file_is_none(tmp_path):
    _, second, third = put(tmp_path, 900, 1000, 11_120)
    assert set((tmp_path / CHECKPOINTS).iterdir()) == {second, third}
    for name in ("step-2.safetensors.part", "step-.safetensors", "step-old.safetensors", "step-3.part"):
        (tmp_path / CHECKPOINTS / name).write_bytes(third.read_bytes()[:50])
    assert checkpoint_files(tmp_path) == [third, second]


@pytest.mark.parametrize(("before", "step"), [(301, 300), (300, 200), (201, 200), (200, None), (0, None)])
def test_the_newest_checkpoint_is_the_newest_before_the_step(before, step, tmp_path):
    assert newest_checkpoint(tmp_path, before) == (None, ())
    put(tmp_path, 200, 300)
    found, faults = newest_checkpoint(tmp_path, before)
    assert (found and found.about.step, faults) == (step, ())


# Damage


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def cut_off_in_its_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def with_one_changed_value(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def with_a_longer_end(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def by_another_program(path: Path) -> None:
    save_file({"losses": np.zeros(3, np.float32)}, path)


def by_another_program_with_metadata(path: Path) -> None:
    save_file({"losses": np.zeros(3, np.float32)}, path, metadata={"format": "pt"})


def with_another_description(path: Path) -> None:
    save_file({"losses": np.zeros(3, np.float32)}, path, metadata={"samework": '{"kind": "recipe"}'})


DAMAGES = {
    cut_off: "cannot be read",
    cut_off_in_its_header: "cannot be read",
    emptied: "cannot be read",
    with_one_changed_value: "is damaged: ",
    with_a_longer_end: "cannot be read",
    by_another_program: "was not written by samework",
    by_another_program_with_metadata: "was not written by samework",
    with_another_description: "cannot be read",
}


@pytest.mark.parametrize(
    ("damage", "said"), list(DAMAGES.items()), ids=[damage.__name__ for damage in DAMAGES]
)
def test_a_damaged_file_is_refused_with_its_path_and_an_older_checkpoint_taken(
    damage: Callable[[Path], None], said, tmp_path
):
    _, newest = put(tmp_path, 100, 200)
    model = make_model(tmp_path / "model.safetensors", WORKLOAD)
    for path, load in ((newest, load_checkpoint), (model, load_model)):
        damage(path)
        with pytest.raises(RecordError, match=said) as caught:
            load(path)
        assert str(caught.value).startswith(f"{path} ")
        assert "\n" not in str(caught.value)
    found, (fault,) = newest_checkpoint(tmp_path, 1000)
    assert_same(found.state, STATE | {"step": np.array(100)})
    assert (found.about.step, found.losses.tolist()) == (100, [100] * 3)
    assert fault.startswith(f"{newest} ")
    assert said in fault


def test_where_all_are_damaged_there_is_no_checkpoint_and_every_fault_is_named(tmp_path):
    older, newer = put(tmp_path, 100, 200)
    cut_off(older)
    by_another_program(newer)
    found, faults = newest_checkpoint(tmp_path, 1000)
    assert found is None
    assert [fault.split()[0] for fault in faults] == [str(newer), str(older)]


def test_no_changed_bit_goes_unnoticed(tmp_path):
    (path,) = put(tmp_path, 100)
    content = path.read_bytes()
    whole = load_checkpoint(path)
    unnoticed = []
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        try:
            found = load_checkpoint(path)
        except RecordError:
            continue
        assert_same(found.state, whole.state)
        if found.about != whole.about:
            unnoticed.append(found.about)
    assert unnoticed == []


def test_a_missing_file_is_named_and_what_makes_a_model(tmp_path):
    with pytest.raises(RecordError, match=f"{tmp_path}/step-1.safetensors cannot be read"):
        load_checkpoint(tmp_path / "step-1.safetensors")
    for path in (tmp_path / "model.safetensors", tmp_path):
        with pytest.raises(UsageError, match=f"there is no model {path}. .bench train makes one"):
            load_model(path)


def test_a_model_is_no_checkpoint_and_a_checkpoint_is_no_model(tmp_path):
    (checkpoint,) = put(tmp_path, 100)
    model = make_model(tmp_path / "model.safetensors", WORKLOAD)
    with pytest.raises(RecordError, match=f"{model} is a model, not a checkpoint"):
        load_checkpoint(model)
    with pytest.raises(RecordError, match=f"{checkpoint} is a checkpoint, not a model"):
        load_model(checkpoint)
    for folder in (tmp_path, tmp_path / CHECKPOINTS):
        with pytest.raises(UsageError, match=f"{folder} holds no model: its training has not ended"):
            find_model(folder)


def test_where_nothing_can_be_written_the_error_names_the_file(tmp_path):
    (tmp_path / CHECKPOINTS).write_text("a file stands where the folder should be")
    with pytest.raises(RecordError, match=f"cannot write {tmp_path}/{CHECKPOINTS}/step-5.safetensors: "):
        put(tmp_path, 5)


def test_a_full_disk_leaves_the_checkpoints_there_were(tmp_path, monkeypatch):
    paths = put(tmp_path, 100, 200)

    def full(path: Path, content: bytes) -> None:
        path.with_name(path.name + ".part").write_bytes(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "write_durably", full)
    with pytest.raises(RecordError, match=r"step-300.safetensors: No space left .* is kept"):
        put(tmp_path, 300)
    assert checkpoint_files(tmp_path) == paths[::-1]
    assert newest_checkpoint(tmp_path, 1000)[0].about.step == 200


# Models


@pytest.mark.parametrize("workload", NOTEBOOKS, ids=lambda one: one.name)
def test_a_model_keeps_its_parameters_and_where_it_comes_from(workload, tmp_path):
    params = make_params(workload)
    cell = make_header(workload.name, "torch").cell
    path = tmp_path / "below" / model_name(workload.name, 42)
    save_model(path, params, step=42, workload=workload, cell=cell, seed=5)
    model = load_model(path)
    assert_same(model.params, params)
    assert model.path == path
    assert (model.about.workload, model.about.cell) == (workload, cell)
    assert (model.about.step, model.about.seed) == (42, 5)


def test_the_model_of_a_folder_is_that_of_the_highest_step(tmp_path):
    for step in (1000, 999, 5001):
        make_model(tmp_path / model_name("notebook-one-layer", step), WORKLOAD, step=step)
    found = find_model(tmp_path)
    assert found == tmp_path / "notebook-one-layer-step-5001.safetensors"
    assert load_model(found).about.step == 5001
    older = tmp_path / model_name("notebook-one-layer", 999)
    assert find_model(older) == older
