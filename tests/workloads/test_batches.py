"""Batch order: permutations, and one sequence however it is asked for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.workloads.batches import BatchOrder, StepOrder

SIZES = st.tuples(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**40)).map(
    lambda drawn: {"images": max(drawn[:2]), "batch_size": min(drawn[:2]), "seed": drawn[2]}
)


@given(SIZES, st.integers(0, 50))
def test_an_epoch_takes_no_image_twice_and_leaves_out_less_than_a_batch(sizes, number):
    order = BatchOrder(**sizes)
    epoch = order.epoch(number)
    assert epoch.dtype == np.int32
    assert epoch.shape == (order.steps_per_epoch, sizes["batch_size"])
    taken = set(epoch.ravel().tolist())
    assert len(taken) == epoch.size
    assert taken <= set(range(sizes["images"]))
    assert sizes["images"] - epoch.size < sizes["batch_size"]


@given(SIZES, st.integers(0, 200), st.integers(1, 120))
def test_steps_are_slices_of_the_epochs_one_after_another(sizes, start, count):
    order = BatchOrder(**sizes)
    found = order.steps(start, count)
    assert found.dtype == np.int32
    assert found.shape == (count, sizes["batch_size"])
    for row, batch in enumerate(found):
        epoch, step = divmod(start + row, order.steps_per_epoch)
        np.testing.assert_array_equal(batch, order.epoch(epoch)[step])


def test_epochs_and_seeds_differ():
    epochs = [
        BatchOrder(images=100, batch_size=10, seed=seed).epoch(number).tobytes()
        for seed in (1, 2)
        for number in (0, 1, 2)
    ]
    assert len(set(epochs)) == 6


def test_every_image_is_left_out_about_equally_often():
    order = BatchOrder(images=50, batch_size=20, seed=4)  # 10 of 50 are left out of each epoch
    taken = np.bincount(np.concatenate([order.epoch(n).ravel() for n in range(400)]), minlength=50)
    assert np.abs(taken - 320).max() < 5 * np.sqrt(400 * 0.8 * 0.2)


@pytest.mark.parametrize("images", [0, 1, 9])
def test_fewer_images_than_a_batch_are_refused(images):
    with pytest.raises(ValueError, match=f"{images} images do not fill one batch of 10"):
        BatchOrder(images=images, batch_size=10, seed=0)


@given(SIZES, st.integers(0, 200), st.integers(1, 20))
def test_a_step_order_has_no_image_twice_in_a_batch_and_is_the_same_however_it_is_asked_for(
    sizes, start, count
):
    order = StepOrder(**sizes)
    found = order.steps(start, count)
    assert (found.dtype, found.shape) == (np.int32, (count, sizes["batch_size"]))
    assert found.min() >= 0
    assert found.max() < sizes["images"]
    for row, batch in enumerate(found):
        assert len(set(batch.tolist())) == sizes["batch_size"]
        np.testing.assert_array_equal(order.steps(start + row, 1)[0], batch)
    np.testing.assert_array_equal(order.epoch(1), order.steps(order.steps_per_epoch, order.steps_per_epoch))


def test_a_step_order_draws_every_batch_independently():
    order = StepOrder(images=1000, batch_size=100, seed=1)
    epoch = order.epoch(0).ravel()
    # Ten batches of 100, each without repetition, have 651 of 1,000 images on average.
    assert 600 < len(np.unique(epoch)) < 700
    assert (order.steps(0, 1) != StepOrder(images=1000, batch_size=100, seed=2).steps(0, 1)).any()
