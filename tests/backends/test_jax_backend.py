"""What is JAX's own in its backend: when it compiles, its programs, its defaults."""

from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest
from conftest import INFOS
from jax_kit import (
    ADAM,
    IMAGES,
    INFO,
    MODES,
    NETWORKS,
    SGD,
    as_on_a_gpu,
    compilations,
    make,
    order,
    run_all,
    verdicts_of,
    zeros,
)

from bench.errors import UnavailableError
from bench.workloads.specs import OptimizerSpec


def building_compiles_nothing() -> None:
    import jax

    with compilations() as seen:
        jax.jit(lambda x: x + 2)(np.float32(1))
    assert seen, "a compilation was not noticed, so this check sees nothing"
    for mode in MODES:
        with compilations() as seen:
            backend = make(mode, network="cnn")
            backend.load_params(zeros(backend))
        compiled = [one for one in seen if "tried" not in one]  # it tries whether XLA knows its options
        assert not compiled, f"{mode}: {compiled}"


def the_first_step_compiles_and_no_other() -> None:
    for mode in MODES:
        for optimizer, begin in ((SGD, "load"), (ADAM, "initialise")):
            backend = make(mode, optimizer)
            if begin == "load":
                backend.load_params(zeros(backend))
            else:
                backend.initialise(3)
            with compilations() as seen:
                backend.train_steps(order(1))
            assert seen, f"{mode}: the first step compiled nothing"
            with compilations() as seen:
                for steps in (1, 2, 31, 32, 33, 100, 101):
                    backend.train_steps(order(steps))
            assert not seen, f"{mode}, {optimizer.name}, {begin}: {seen}"
            backend.split_steps(order(1))
            with compilations() as seen:
                backend.split_steps(order(3))
                backend.train_steps(order(2))
            assert not seen, f"{mode}, {optimizer.name}, {begin}: splitting: {seen}"


def evaluating_compiles_once() -> None:
    images = np.zeros((IMAGES, *INFO.image_shape), np.uint8)
    for mode in MODES:
        backend = make(mode)
        backend.initialise(1)
        with compilations() as seen:
            backend.predict(images)
        assert seen, f"{mode}: evaluating compiled nothing"
        backend.train_steps(order(2))
        with compilations() as seen:
            backend.predict(images)
            backend.predict(images)
        assert not seen, f"{mode}: {seen}"


def every_program_trains_the_same_and_compiles_once() -> None:
    decaying = OptimizerSpec(name="adam", learning_rate=0.01, decay_rate=0.5, decay_steps=40)
    counts = (1, 2, 16, 7, 75)  # 32 are sent together
    for optimizer, network in ((SGD, "softmax"), (decaying, "normalised")):
        trained = {}
        for mode, on_gpu in (("jit", False), ("loop", False), ("jit", True), ("loop", True)):
            backend = (as_on_a_gpu if on_gpu else make)(mode, optimizer, network)
            backend.initialise(2)
            first = [
                backend.train_steps(order(steps)) for steps in (1, 16)
            ]  # a program of one step, or of four or sixteen
            with compilations() as seen:
                losses = [*first, *(backend.train_steps(order(steps)) for steps in counts)]
            assert not seen, f"{mode}, {network}: {seen}"
            trained[mode, on_gpu] = {"losses": np.concatenate(losses), **backend.export_params()}
        plain = trained.pop(("jit", False))
        assert len(set(plain["losses"].tolist())) > 100
        for how, found in trained.items():
            for name, value in plain.items():
                np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-5, err_msg=f"{how}: {name}")


def a_cnn_is_trained_in_no_loop_on_a_cpu() -> None:
    def program(backend: Any, steps: int) -> str:
        carry = (backend.state, np.int32(0), np.zeros(16, np.float32))
        program = backend._runner._form._next
        return str(program.lower(carry, order(16), backend.images, backend.labels, steps=steps).as_text())

    assert "stablehlo.while" in program(as_on_a_gpu("loop", SGD, "cnn"), 16), "this check sees nothing"
    backend = make("loop", network="cnn")
    for steps in (1, 4):
        assert "stablehlo.while" not in program(backend, steps), f"{steps} steps"
    with mock.patch("jax.lax.fori_loop", side_effect=AssertionError("the loop was compiled")):
        backend.train_steps(order(9))
        with pytest.raises(AssertionError, match="the loop was compiled"):
            make("loop").train_steps(order(9))


def a_mode_builds_its_own_programs_alone() -> None:
    import jax

    def built(mode: str, network: str, *, on_gpu: bool) -> set[str]:
        with mock.patch("jax.jit", wraps=jax.jit) as jit:
            as_on_a_gpu(mode, SGD, network) if on_gpu else make(mode, network=network)
        names = {call.args[0].__qualname__ for call in jit.call_args_list}
        shared = {"JaxBackend._compute_logits", "JaxBackend._draw_params"}
        assert shared <= names, f"this check sees nothing: {names}"
        return {name for name in names - shared if not name.startswith("knows_options")}

    for network in ("softmax", "cnn"):
        assert built("jit", network, on_gpu=False) == {"JaxBackend.step"}
        assert built("jit", network, on_gpu=True) == {"CarriedSteps._take_next"}
        assert built("loop", network, on_gpu=True) == {"CarriedSteps._take_next"}
        assert built("grain-samples", network, on_gpu=False) == {"GrainSamples._learn_batch"}
        assert built("grain-batches", network, on_gpu=False) == {"GrainBatches._learn_batch"}
        assert built("tutorial", network, on_gpu=False) == set()  # its step is one for all networks
    assert built("loop", "softmax", on_gpu=False) == {"CountedLoop._take_steps"}
    assert built("loop", "cnn", on_gpu=False) == {"CarriedSteps._take_next"}


def every_mode_of_the_table_has_a_runner() -> None:
    from backends.runners import load_runner

    assert tuple(mode.name for mode in INFOS["jax"].modes if not mode.distributed) == MODES
    runners = {load_runner(INFOS["jax"], mode) for mode in MODES}
    assert len(runners) == len(MODES)
    for mode in MODES:
        backend = make(mode)
        runner = load_runner(INFOS["jax"], mode)
        assert isinstance(runner, type)
        assert callable(runner.train)
        assert type(backend._runner) is runner
        assert backend.call_steps == backend._runner.call_steps
    with pytest.raises(UnavailableError, match="JAX has no mode 'eager'; it has jit, loop, grain"):
        make("eager")


def parameters_are_drawn_as_flax_draws_them() -> None:
    from flax import nnx

    from backends.jax_backend import Network

    backend = make("jit", network="cnn", matched=False)
    for seed in (0, 7):
        backend.initialise(seed)
        eager = Network(NETWORKS["cnn"], INFO, dtype=np.float32, precision="highest", rngs=nnx.Rngs(seed))
        for name, value in backend.export_params().items():
            layer, kind = name.split("/")
            # XLA may fuse a product into a sum; the bits drawn are the same.
            expected = np.asarray(getattr(getattr(eager, layer), kind)[...])
            np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-7, err_msg=name)


def first_change(optimizer: OptimizerSpec, *, matched: bool) -> np.ndarray:
    """Return by how much a first step from zero moves the biases."""
    backend = make("jit", optimizer, matched=matched)
    backend.load_params(zeros(backend))
    backend.train_steps(order(1))
    return np.abs(backend.export_params()["logits/bias"])


def unmatched_the_optimizer_is_optax_s_own() -> None:
    # In its first step Adam moves a parameter by its rate, and RMSProp by its rate over root(1 - decay).
    odd = {"learning_rate": 0.5, "rho": 0.5, "epsilon": 0.1, "decay_rate": 0.5, "decay_steps": 2}
    for name, expected in (("adam", 1e-3), ("rmsprop", 3e-3 / np.sqrt(0.1))):
        change = first_change(OptimizerSpec(name=name, **odd), matched=False)
        np.testing.assert_allclose(change, expected, rtol=1e-3, err_msg=name)
    gradient = first_change(OptimizerSpec(name="sgd", learning_rate=1.0), matched=True)
    for name in ("sgd", "momentum"):
        change = first_change(OptimizerSpec(name=name, **odd), matched=False)
        np.testing.assert_allclose(change, 0.1 * gradient, rtol=1e-5, err_msg=name)


CHECKS = {
    check.__name__: check
    for check in (
        building_compiles_nothing,
        the_first_step_compiles_and_no_other,
        evaluating_compiles_once,
        every_program_trains_the_same_and_compiles_once,
        a_cnn_is_trained_in_no_loop_on_a_cpu,
        a_mode_builds_its_own_programs_alone,
        every_mode_of_the_table_has_a_runner,
        parameters_are_drawn_as_flax_draws_them,
        unmatched_the_optimizer_is_optax_s_own,
    )
}


def run_checks(names: list[str]) -> dict[str, str | None]:
    return run_all(CHECKS, names)


@pytest.fixture(scope="module")
def verdicts(request: pytest.FixtureRequest) -> Callable[[], dict[str, str | None]]:
    return verdicts_of(request, "test_jax_backend", CHECKS)


@pytest.mark.framework("jax")
@pytest.mark.parametrize("jax_check", list(CHECKS))
def test_the_jax_backend(jax_check, verdicts):
    wrong = verdicts()[jax_check]
    assert wrong is None, wrong
