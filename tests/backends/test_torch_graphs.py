"""Recorded steps train as the steps do. What records is played here, as CUDA graphs need a GPU."""

from typing import Any
from unittest import mock

import numpy as np
import pytest
from conftest import INFOS, in_process

from bench.workloads.specs import Architecture, ConvBlock, OptimizerSpec, Workload

pytestmark = pytest.mark.framework("torch")

NORMALISED = Architecture(convs=(ConvBlock(filters=4, kernel=3, normalise=True),), hidden=(6,))


def player(repeated: list[int]) -> Any:
    """Return what records as on a GPU, and notes how many losses each repetition gives.

    Warming up changes what a step changes, and the loss keeps its place in memory.
    """
    from backends.torch_graphs import WARM_UP_STEPS

    def played(step: Any) -> Any:
        for _ in range(WARM_UP_STEPS):
            loss = step().clone()

        def repeat() -> None:
            repeated.append(loss.numel())
            loss.copy_(step())

        return repeat, loss

    return played


def both(_: object) -> list[dict[str, Any]]:
    """Return what a plain step and a recorded one gave; called in a child process."""
    return [trained(recorded=recorded) for recorded in (False, True)]


def trained(*, recorded: bool) -> dict[str, Any]:
    """Return the losses of two trainings and the states that they ended in."""
    from test_torch_backend import INFO, data, order

    from backends import torch_compiled, torch_graphs
    from backends.torch_backend import TorchBackend
    from backends.torch_compiled import SeveralSteps
    from bench.workloads.parameters import initial_params

    spec = OptimizerSpec(name="adam", learning_rate=0.01, decay_rate=0.5, decay_steps=4)
    workload = Workload(
        name="noise", dataset="noise", architecture=NORMALISED, optimizer=spec, batch_size=order(1).shape[1]
    )
    repeated: list[int] = []

    class Played(torch_graphs.CudaGraphs):
        def __init__(self, backend: Any) -> None:
            SeveralSteps.__init__(self, backend)  # the mode's own refuses a CPU
            self.record_steps(backend, player(repeated))

    # Compiled it would compute the same, and take half a minute more.
    with mock.patch.object(torch_compiled, "compiled", side_effect=lambda step: step):
        backend = TorchBackend(workload, data(), mode="compile", device="cpu", precision="fp32")
        if recorded:
            backend._runner = Played(backend)
    losses: list[float] = []
    states: list[dict[str, Any]] = []
    for _ in range(2):  # loading makes all new in place, where the graph finds it
        backend.load_params(initial_params(NORMALISED, INFO, seed=5))
        losses += backend.train_steps(order(19)).tolist()  # two times eight together, and three
        states.append({key: value.tolist() for key, value in backend.save_state().items()})
    return {"losses": losses, "states": states, "repeated": repeated}


def test_a_recorded_step_trains_as_the_step_does():
    plain, recorded = in_process(INFOS["torch"], "test_torch_graphs:both", None)
    assert len(set(plain["losses"])) == 19
    assert recorded["repeated"] == 2 * [8, 8, 1, 1, 1]
    assert recorded["losses"] == plain["losses"]
    for found, expected in zip(recorded["states"], plain["states"], strict=True):
        assert list(found) == list(expected)
        for key, value in expected.items():
            np.testing.assert_array_equal(found[key], value, err_msg=key)
