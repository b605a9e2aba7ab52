"""The checks of conformance that concern the images which a backend gets."""

import msgspec
import numpy as np
from conformance_kit import (
    BATCH,
    INFO,
    OPTIMIZERS,
    SAME,
    Kit,
    assert_close,
    cross_entropy,
    narrow,
    order,
    start,
)

from backends.base import TrainingData
from bench.errors import UnavailableError
from bench.measuring.parity import parity_data
from bench.parity import checks, reference
from bench.recipes.catalog import find_recipe, on_dataset
from bench.workloads.augmentation import augment, draw
from bench.workloads.catalog import WORKLOADS

SCALES_ONCE = {("tensorflow", "tutorial")}
"""Backends and modes that train from a copy, because their tutorial scales all images before training."""


def images_are_neither_copied_nor_changed(kit: Kit) -> None:
    for mode in kit.modes:
        images, labels = kit.mapped()
        data = TrainingData(info=INFO, images=images[:160], labels=labels[:160])
        backend = kit.build("softmax", OPTIMIZERS["momentum"], mode=mode, data=data)
        backend.load_params(start("softmax"))
        backend.train_steps(order(2))
        backend.predict(images[:BATCH])
        assert (images == kit.mapped()[0]).all(), f"{mode}: it writes to the images"
        if (kit.info.name, mode) in SCALES_ONCE:
            continue
        # Black images have another loss, if the backend trains from them and not from a copy.
        images[:] = 0
        batches = order(1)
        expected = cross_entropy(backend.predict(images[batches[0]]), labels[batches[0]])
        losses = backend.train_steps(batches)
        assert_close(losses, np.array([expected]), 1e-5, f"{mode}: it trains from a copy of the images; loss")


def images_may_begin_anywhere_in_memory(kit: Kit) -> None:
    images = kit.data.images
    odd = np.empty(images.nbytes + 1, np.uint8)[1:].reshape(images.shape)
    odd[...] = images
    data = msgspec.structs.replace(kit.data, images=odd)
    for mode in kit.modes:
        losses = kit.make(mode=mode).train_steps(order(2))
        backend = kit.build("softmax", OPTIMIZERS["adam"], mode=mode, data=data)
        backend.load_params(start("softmax"))
        assert_close(backend.train_steps(order(2)), losses, SAME, f"{mode}: losses")


def images_are_augmented_or_refused(kit: Kit) -> None:
    # The workload of the notebooks' check, so that its programs are compiled once.
    workload = checks.parity_workload(reference.gentle(narrow(WORKLOADS["notebook-cifar-cnn"])))
    data = parity_data(workload)
    for mode in kit.info.modes:
        if mode.distributed:
            continue  # it takes ranks
        try:
            backend = kit.backend_class(workload, data, mode=mode.name, device="cpu", precision="fp32")
        except UnavailableError as error:
            assert not mode.augments, f"{mode.name} augments, so the catalogue says: {error}"  # noqa: PT017
            continue
        assert mode.augments, f"{mode.name} augments no images, so the catalogue says, and was built to"
        backend.load_params(checks.start_params(workload, data))
        batches = order(3)
        drawn = draw(workload.augmentation, data.info, batch_size=BATCH, seed=1, start=0, steps=3)
        one_by_one = [backend.train_steps(batches[k : k + 1], drawn[k : k + 1]) for k in range(3)]
        backend.load_params(checks.start_params(workload, data))
        assert_close(
            backend.train_steps(batches, drawn), np.concatenate(one_by_one), SAME * 10, f"{mode.name}: losses"
        )
        backend.load_params(checks.start_params(workload, data))
        other = backend.train_steps(batches, drawn[::-1].copy())
        error = checks.relative_error(other, np.concatenate(one_by_one))
        assert error > 1e-4, f"{mode.name}: other draws, and the same losses"


def grey_images_are_augmented_too(kit: Kit) -> None:
    workload = checks.parity_workload(on_dataset(find_recipe("cifar-cnn"), "mnist").workload)
    data = parity_data(workload)
    drawn = draw(workload.augmentation, data.info, batch_size=BATCH, seed=2, start=0, steps=1)[0]
    batch = order(1)[0]
    expected = augment(data.images[batch], drawn, workload.augmentation.crop)
    for mode in kit.info.modes:
        if mode.augments and not mode.distributed:
            backend = kit.backend_class(workload, data, mode=mode.name, device="cpu", precision="fp32")
            assert_close(backend.augmented(batch, drawn), expected, 1e-5, f"{mode.name}: grey pixels")
