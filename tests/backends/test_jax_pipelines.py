"""JAX's modes whose batches come through Grain."""

import sys
import threading
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest
from jax_kit import (
    ADAM,
    BATCH,
    PIPELINES,
    make,
    order,
    run_all,
    verdicts_of,
)

from bench.errors import UnavailableError


def pipelines_train_as_jit_does() -> None:
    for network in ("softmax", "normalised"):
        trained = {}
        for mode in ("jit", *PIPELINES):
            backend = make(mode, ADAM, network)
            backend.initialise(5)
            losses = [backend.train_steps(order(steps)) for steps in (1, 7, 40)]
            backend.split_steps(order(3))
            trained[mode] = {"losses": np.concatenate(losses), **backend.export_params()}
        plain = trained.pop("jit")
        for mode, found in trained.items():
            for name, value in plain.items():
                # Sums over 48 steps of Adam run in another order where the batch is an argument.
                close = {"rtol": 1e-3, "atol": 1e-5, "err_msg": f"{mode}, {network}: {name}"}
                np.testing.assert_allclose(found[name], value, **close)


def a_batch_of_bytes_is_gathered_at_once_and_scaled_on_the_device() -> None:
    batches = list(make("grain-batches")._runner._batches(order(3)))
    assert [(images.dtype, images.shape) for images, _ in batches] == [(np.uint8, (BATCH, 12, 8, 1))] * 3
    gathered = make("grain-batches")
    assert all(
        (images == gathered.images[row]).all() and (labels == gathered.labels[row]).all()
        for (images, labels), row in zip(batches, order(3), strict=True)
    )


def the_tutorial_waits_for_the_device_once_a_call() -> None:
    import jax

    backend = make("tutorial")
    backend.train_steps(order(2))
    with mock.patch("jax.block_until_ready", wraps=jax.block_until_ready) as waited:
        backend.train_steps(order(40))
    assert waited.call_count == 1


def the_tutorial_uses_nothing_that_is_tuned() -> None:
    import jax

    def program(function: Any, arguments: Any, **options: Any) -> str:
        return str(jax.jit(function, **options).lower(*arguments).as_text())

    tuned, taught = make("jit", network="cnn"), make("tutorial", network="cnn")
    for backend in (tuned, taught):
        backend.initialise(1)
    assert "select_and_scatter" not in program(*tuned._runner.counted_step()), "this check sees nothing"
    assert "select_and_scatter" in program(*taught._runner.counted_step()), "it pools by reshape"
    taught.train_steps(order(1))
    weights = taught.state[0]["logits"]["kernel"]
    taught.train_steps(order(1))
    assert not weights.is_deleted(), "its state is donated"
    weights = tuned.state[0]["logits"]["kernel"]
    tuned.train_steps(order(1))
    assert weights.is_deleted(), "this check sees nothing"


def grain_leaves_no_thread_behind() -> None:
    for mode in PIPELINES:
        backend = make(mode)
        backend.train_steps(order(5))
        before = threading.active_count()
        for _ in range(20):
            backend.train_steps(order(5))
        assert threading.active_count() <= before + 2, f"{mode}: {threading.enumerate()}"


def without_grain_its_modes_are_unavailable() -> None:
    modules = {"backends.jax_pipeline": None, "backends.jax_tutorial": None}
    with mock.patch.dict(sys.modules, {"grain": None}):
        for name in modules:
            sys.modules.pop(name, None)
        make("jit")
        for mode in PIPELINES:
            with pytest.raises(UnavailableError, match=f"mode {mode} needs the package grain"):
                make(mode)


CHECKS = {
    check.__name__: check
    for check in (
        pipelines_train_as_jit_does,
        a_batch_of_bytes_is_gathered_at_once_and_scaled_on_the_device,
        the_tutorial_waits_for_the_device_once_a_call,
        the_tutorial_uses_nothing_that_is_tuned,
        grain_leaves_no_thread_behind,
        without_grain_its_modes_are_unavailable,
    )
}


def run_checks(names: list[str]) -> dict[str, str | None]:
    return run_all(CHECKS, names)


@pytest.fixture(scope="module")
def verdicts(request: pytest.FixtureRequest) -> Callable[[], dict[str, str | None]]:
    return verdicts_of(request, "test_jax_pipelines", CHECKS)


@pytest.mark.framework("jax")
@pytest.mark.parametrize("jax_check", list(CHECKS))
def test_a_mode_with_grain(jax_check, verdicts):
    wrong = verdicts()[jax_check]
    assert wrong is None, wrong
