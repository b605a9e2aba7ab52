"""The checks of what a backend offers beside `Backend`: `Instrumented` and `OwnDefaults`."""

import msgspec
import numpy as np
from conformance_kit import (
    ALIKE,
    BATCH,
    OPTIMIZERS,
    SAME,
    Kit,
    assert_close,
    assert_same_params,
    order,
    start,
)

from backends.base import State, TrainingData
from bench.errors import UnavailableError
from bench.workloads.catalog import WORKLOADS
from bench.workloads.flops import training_flops
from bench.workloads.parameters import initial_params
from bench.workloads.precision import fits
from bench.workloads.specs import DatasetInfo

MNIST = DatasetInfo(name="mnist", image_shape=(28, 28, 1), classes=10)
COUNTED_ALIKE = 0.2
"""Counters differ in whether they count biases, pooling, scaling and updates: a few percent of all. XLA
leaves out products with padding, and so counts 0.84 of a convolution of 14 by 14 with a kernel of 5 by 5."""
UNMATCHED = {
    name: msgspec.structs.replace(OPTIMIZERS[name], learning_rate=1e-12)
    for name in ("sgd", "adam", "rmsprop")
}
"""Optimizers of workloads that are not matched. Their rate must not be used: at 1e-12 nothing would train."""


def assert_same_state(found: State, expected: State, tolerance: float, what: str) -> None:
    assert list(found) == list(expected), f"{what}: the state holds {list(found)}, not {list(expected)}"
    for name, value in expected.items():
        assert_close(found[name], value, tolerance, f"{what}, {name}")


# ---- Instrumented


def a_split_step_trains_as_any_other(kit: Kit) -> None:
    before, split, after = order(2, seed=1), order(5, seed=2), order(3, seed=3)
    for mode in closer_modes(kit):
        backend = kit.make(mode=mode)
        for batches in (before, split):
            backend.train_steps(batches)
        trained = backend.save_state()
        losses = backend.train_steps(after)

        backend.load_params(start("softmax"))
        backend.train_steps(before)
        told = backend.split_steps(split)
        assert_same_state(backend.save_state(), trained, ALIKE, f"{mode}, after split steps")
        assert_close(backend.train_steps(after), losses, ALIKE, f"{mode}: losses after split steps")

        assert told.steps == len(split), f"{mode}: {told.steps} steps of {len(split)}"
        parts = (told.data_s, told.transfer_s, told.dispatch_s, told.device_s)
        assert all(np.isfinite(parts)), f"{mode}: {told}"
        assert min(parts) >= 0.0, f"{mode}: {told}"
        assert sum(parts) > 1e-6, f"{mode}: a step in less than a microsecond: {told}"


def operations_are_counted_as_by_hand(kit: Kit) -> None:
    rng = np.random.default_rng(0)
    data = TrainingData(
        info=MNIST,
        images=rng.integers(0, 256, (100, *MNIST.image_shape), dtype=np.uint8),
        labels=rng.integers(0, MNIST.classes, 100, dtype=np.uint8),
    )
    for workload in (WORKLOADS["mnist-mlp"], WORKLOADS["mnist-cnn"]):
        expected = training_flops(workload.architecture, MNIST, workload.batch_size)
        for mode in closer_modes(kit):
            what = f"{mode}, {workload.name}"
            backend = kit.backend_class(workload, data, mode=mode, device="cpu", precision="fp32")
            backend.load_params(initial_params(workload.architecture, MNIST, seed=1))
            before = backend.save_state()
            found = backend.count_flops()
            assert_same_state(backend.save_state(), before, 0.0, f"{what}: counting trains")
            if found is not None:
                assert abs(found / expected - 1) <= COUNTED_ALIKE, (
                    f"{what}: {found:.4g} operations counted, {expected:.4g} by hand"
                )


def counting_leaves_the_next_step_as_it_was(kit: Kit) -> None:
    for mode in closer_modes(kit):
        backend = kit.make(mode=mode)
        backend.train_steps(order(1))
        before = backend.save_state()
        backend.train_steps(order(1, seed=2))
        expected = backend.save_state()
        backend.restore_state(before)
        backend.count_flops()
        assert_same_state(backend.save_state(), before, 0.0, f"{mode}: counting trains")
        backend.train_steps(order(1, seed=2))
        assert_same_state(backend.save_state(), expected, ALIKE, f"{mode}: counting changes the next step")


def a_peak_is_measured_beside_training(kit: Kit) -> None:
    for precision in kit.info.cpu_precisions if closer_modes(kit) else ():
        backend = kit.make(precision=precision)
        before = backend.save_state()
        peak = backend.peak()
        assert_same_state(backend.save_state(), before, 0.0, f"{precision}: measuring the peak trains")
        # From a pocket calculator to more than any one machine of today.
        assert 1e7 < peak.flops_per_s < 1e18, f"{precision}: {peak}"
        assert 1e7 < peak.bytes_per_s < 1e15, f"{precision}: {peak}"
        if not kit.info.reference:
            assert peak.product_error is not None, f"{precision}: its product was not compared with float64"
            assert fits(peak.product_error, precision), f"{precision}: {peak}"


# ---- OwnDefaults


def a_permutation_is_one(kit: Kit) -> None:
    for mode in own_modes(kit):
        backend = kit.make("softmax", UNMATCHED["adam"], mode=mode, matched=False)
        backend.initialise(1)
        found = backend.permutation(3, 1)
        assert type(found) is np.ndarray
        assert (found.dtype, found.shape) == (np.int32, (160,)), f"{mode}: {found.dtype} {found.shape}"
        assert (np.sort(found) == np.arange(160)).all(), f"{mode}: not every image comes once"
        for seed, epoch in ((3, 0), (3, 2), (4, 1), (2**32 - 1, 1)):
            other = backend.permutation(seed, epoch)
            assert (np.sort(other) == np.arange(160)).all(), f"{mode}, {seed}, {epoch}: not every image"
            # Of two independent orders, about one place in 160 holds the same image.
            assert np.mean(other == found) < 0.1, f"{mode}: seed {seed}, epoch {epoch} as seed 3, epoch 1"
        backend.train_steps(found[: 2 * BATCH].reshape(2, BATCH))
        again = kit.build("softmax", UNMATCHED["adam"], mode=mode, matched=False)
        for taker in (backend, again):
            assert (taker.permutation(3, 1) == found).all(), f"{mode}: the same seed and epoch, another order"


def a_seed_draws_its_own_parameters(kit: Kit) -> None:
    for network, modes in (("cnn", own_modes(kit)[:1]), ("softmax", own_modes(kit))):
        for mode in modes:
            backend = kit.make(network, UNMATCHED["adam"], mode=mode, matched=False)
            backend.initialise(1)
            first = backend.export_params()
            backend.initialise(2)
            second = backend.export_params()
            for name, value in first.items():
                assert np.isfinite(value).all(), f"{mode}, {name}"
                if name.endswith("kernel"):
                    same = np.mean(second[name] == value)
                    assert same < 0.1, f"{mode}, {name}: {same:.0%} of it the same with another seed"
                    distinct = len(np.unique(value)) / value.size
                    assert distinct > 0.9, f"{mode}, {name}: {distinct:.0%} of its values are distinct"
            for taker in (backend, kit.build(network, UNMATCHED["adam"], mode=mode, matched=False)):
                taker.initialise(1)
                assert_same_params(taker.export_params(), first, 0.0, f"{mode}: the same seed again")


def drawing_anew_resets_the_optimizer(kit: Kit) -> None:
    for mode in own_modes(kit):
        backend = kit.make("softmax", UNMATCHED["adam"], mode=mode, matched=False)
        backend.initialise(1)
        losses = backend.train_steps(order(3))
        assert len(set(losses.tolist())) == 3, f"{mode}: losses repeat themselves: {losses}"
        backend.initialise(1)
        assert_close(backend.train_steps(order(3)), losses, SAME, f"{mode}: losses after drawing anew")


def its_own_defaults_train_or_are_refused(kit: Kit) -> None:
    if kit.info.reference or kit.info.on_request:
        try:
            kit.build("softmax", OPTIMIZERS["sgd"], matched=False)
        except UnavailableError as error:
            assert "own defaults" in str(error), error  # noqa: PT017
        else:
            raise AssertionError("it has no defaults of its own, and built a network")
    for mode in own_modes(kit):
        for name in UNMATCHED if mode == kit.info.default_mode else ("adam",):
            backend = kit.make("softmax", UNMATCHED[name], mode=mode, matched=False)
            backend.initialise(1)
            batch = backend.permutation(1, 0)[:BATCH]
            # One step per call: several steps are another program, which takes half a minute to compile.
            losses = [backend.train_steps(batch[None])[0] for _ in range(60)]
            # SGD at 0.001, a framework's default, moves the loss little; at 1e-12 it would not move at all.
            assert losses[-1] < 0.9999 * losses[0], f"{mode}, {name}: from {losses[0]} to {losses[-1]}"


def closer_modes(kit: Kit) -> list[str]:
    """Return the modes with instruments; Keras's `fit` shows no single step."""
    return [] if kit.info.on_request else kit.modes


def own_modes(kit: Kit) -> list[str]:
    """Return the modes that train by the framework's own defaults, the default mode first."""
    if kit.info.reference or kit.info.on_request:
        return []
    return sorted(kit.modes, key=lambda mode: mode != kit.info.default_mode)


CLOSER_CHECKS = (
    a_split_step_trains_as_any_other,
    operations_are_counted_as_by_hand,
    counting_leaves_the_next_step_as_it_was,
    a_peak_is_measured_beside_training,
    a_permutation_is_one,
    a_seed_draws_its_own_parameters,
    drawing_anew_resets_the_optimizer,
    its_own_defaults_train_or_are_refused,
)
