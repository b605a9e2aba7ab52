"""The checks of PyTorch's compiled modes and of its CUDA graphs."""

import contextlib
import functools
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from torch_kit import INFO, NORMALISED, RATES, assert_same, check_that_it_starts_anew, data, make, order

from bench.workloads.parameters import initial_params
from bench.workloads.specs import Architecture, ConvBlock


def compiled_updates_do_what_torch_optims_own_do() -> None:
    for name in RATES:
        eager, compiled = (
            make(mode, Architecture(), name, matched=False) for mode in ("eager", "compile-step")
        )
        for backend in (eager, compiled):
            backend.initialise(3)
        expected = eager.train_steps(order(20))
        np.testing.assert_allclose(compiled.train_steps(order(20)), expected, rtol=1e-5, err_msg=name)
        found = {key: float(power[0]) for key, power in compiled.save_state().items() if "power/" in key}
        powers = {"power/decay": 0.5 ** (20 / 4)}
        if name == "adam":
            powers |= {"power/beta1": 0.9**20, "power/beta2": 0.999**20}
        assert found == pytest.approx(powers, rel=1e-12), name
        restores_the_number_of_steps(compiled)
        check_that_it_starts_anew(compiled, name)


def restores_the_number_of_steps(backend: Any) -> None:
    """Check that a state with the number of steps, 20, in place of the powers is restored alike."""
    state = backend.save_state()
    losses = backend.train_steps(order(4))
    counted = {name: value for name, value in state.items() if not name.startswith("power/")}
    backend.restore_state(counted | {"step": np.array(20.0)})
    np.testing.assert_array_equal(backend.train_steps(order(4)), losses)


def the_fault_of_scalars_is_still_there() -> None:
    """`Foreach` keeps its powers in shape (1,) because of it; where this fails, shape () will do."""
    import torch

    script = Path(__file__).parent / "reproducers" / "torch_scalar_update.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert f"torch {torch.__version__}: counted [" in done.stdout, done.stderr
    if torch.__version__.startswith("2.13."):
        assert done.returncode == 1, done.stdout


class Graphs:
    """A backend of `torch.compile` that keeps each graph after AOTAutograd, and runs it as it is."""

    def __init__(self) -> None:
        self.targets: list[str] = []
        self.changed: list[str] = []
        self.fixed: list[str] = []
        self.options: Mapping[str, Any] = {}

    def __call__(self, graph: Any, inputs: Any, options: Mapping[str, Any] = {}) -> Any:
        from torch._dynamo.backends.common import aot_autograd

        self.options = options
        return aot_autograd(fw_compiler=self._keep, keep_inference_input_mutations=True)(graph, inputs)

    def _keep(self, graph: Any, _inputs: Any) -> Any:
        import torch
        from torch._functorch.aot_autograd import make_boxed_func

        nodes = list(graph.graph.nodes)
        given = [node.name for node in nodes if node.op == "placeholder"]
        copies = [node.args[0].name for node in nodes if node.target is torch.ops.aten.copy_.default]
        metadata = torch._guards.TracingContext.get().fw_metadata
        self.targets += [str(node.target) for node in nodes if node.op == "call_function"]
        self.changed += [name for name in copies if name in given]
        self.fixed += [given[index] for index in metadata.static_input_indices]
        return make_boxed_func(graph.forward)


@contextlib.contextmanager
def kept_graphs() -> Iterator[Graphs]:
    """Let `torch.compile` keep graphs and generate no code."""
    import torch

    graphs = Graphs()
    with mock.patch.object(torch, "compile", functools.partial(torch.compile, backend=graphs)):
        yield graphs


def compiled_updates_compute_no_power() -> None:
    """A power would be computed in float64 for each element of each parameter."""
    for name, state in (("sgd", 0), ("momentum", 2), ("adam", 4 + 2), ("rmsprop", 2)):
        with kept_graphs() as graphs:
            make("compile-step", Architecture(), name).train_steps(order(2))
        assert not [target for target in graphs.targets if "pow" in target], f"{name}: {graphs.targets}"
        assert len(graphs.changed) == 2 + state + 1, f"{name}: {graphs.changed}"  # 1: the decay of the rate


def only_traced() -> Any:
    """Let `torch.compile` trace a step and not generate code for it, which would take seconds."""
    import torch

    return mock.patch.object(torch, "compile", functools.partial(torch.compile, backend="eager"))


def a_network_of_the_same_shapes_has_a_program_of_its_own() -> None:
    """A call does not check the modules, so what was compiled for another network must be forgotten."""
    for pool in (5, 6):  # of 12 by 8 pixels either leaves 2 by 1
        architecture = Architecture(convs=(ConvBlock(filters=2, kernel=1, pool=pool),))
        with only_traced():
            eager, *compiled = (
                make(mode, architecture, "sgd").train_steps(order(3))
                for mode in ("eager", "compile-model", "compile-step")
            )
        for losses in compiled:
            np.testing.assert_allclose(losses, eager, rtol=1e-5, err_msg=f"pool {pool}")


def every_backend_of_a_process_is_compiled() -> None:
    """PyTorch compiles 8 versions of a function, and then goes on uncompiled without an error.

    `bench verify` makes some twenty backends in one process: those after the eighth would be tested in eager.
    Here the limit is 2, and four backends of each kind exceed it.
    """
    from torch._dynamo import config, utils

    with only_traced(), config.patch(recompile_limit=2):
        modes = [("compile-step", 1)] * 3 + [("compile-loop", 2)] + [("compile-model", 1)] * 4
        for number, (mode, graphs) in enumerate(modes):
            backend = make(mode, Architecture(), "sgd")
            before = utils.counters["stats"]["unique_graphs"]
            for steps in (1, 2, 7, 9):
                backend.train_steps(order(steps))
            backend.predict(data().images)  # in between, a network evaluates
            backend.load_params(initial_params(Architecture(), INFO, seed=5))
            backend.train_steps(order(5))
            compiled = utils.counters["stats"]["unique_graphs"] - before
            assert compiled == graphs, f"{mode}, backend {number} of one process: {compiled} graphs compiled"
            assert backend.describe()["graph_breaks"] == 0, mode


def a_graph_break_is_an_error() -> None:
    import torch

    def broken(self: Any, x: Any) -> Any:
        torch._dynamo.graph_break()
        return torch.relu(x)

    with only_traced(), mock.patch.object(torch.nn.ReLU, "forward", broken):
        for mode in ("compile-model", "compile-step"):
            with pytest.raises(torch._dynamo.exc.Unsupported, match="graph_break"):
                make(mode).train_steps(order(1))
    torch._dynamo.utils.counters.clear()


def statistics_move_in_a_compiled_model() -> None:
    with only_traced():
        eager, compiled = (make(mode, NORMALISED, "sgd") for mode in ("eager", "compile-model"))
        for backend in (eager, compiled):
            backend.train_steps(order(5))
    found, start = compiled.export_params(), initial_params(NORMALISED, INFO, seed=5)
    for name, value in eager.export_params().items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
        assert (value != start[name]).any(), name


# ---- CUDA graphs, which need a GPU: here traces are looked at, and a player stands in for the recording


def reduce_overhead(backend: Any) -> Any:
    """Return the runner of mode reduce-overhead on the CPU, which the mode's own constructor refuses."""
    from backends.torch_compiled import CompileStep, ReduceOverhead

    runner = ReduceOverhead.__new__(ReduceOverhead)
    CompileStep.__init__(runner, backend)
    runner.use_graphs()
    return runner


def a_loss_outlives_the_next_repetition_of_a_graph() -> None:
    import torch

    from backends import torch_compiled

    def in_one_place(step: Any, _mode: str) -> Any:
        kept = torch.empty(())
        return lambda *batch: kept.copy_(step(*batch))

    with mock.patch.object(torch_compiled, "compiled", side_effect=in_one_place):
        losses = reduce_overhead(make("eager")).train(order(5))
    assert len(set(losses.tolist())) == 5, losses


def pytorchs_own_graphs_get_fixed_addresses() -> None:
    """PyTorch refuses a graph that changes an input whose address is not said to be fixed."""
    import torch

    from backends.torch_compiled import CompileStep

    for optimizer in ("sgd", "adam"):  # without state, and with state of all kinds
        plain, backend = make("compile-step", NORMALISED, optimizer), make("eager", NORMALISED, optimizer)
        with kept_graphs() as graphs:
            backend._runner = reduce_overhead(backend)
            with mock.patch.object(torch.compiler, "cudagraph_mark_step_begin") as begun:
                losses = backend.train_steps(order(5))
        assert begun.call_count == 5
        assert graphs.options["triton.cudagraphs"] is True
        assert graphs.changed, optimizer
        assert set(graphs.changed) <= set(graphs.fixed), f"{optimizer}: {graphs.changed}, {graphs.fixed}"
        assert len(graphs.fixed) == len(set(graphs.fixed))

        with kept_graphs() as graphs:
            plain._runner = CompileStep(plain)
            np.testing.assert_allclose(losses, plain.train_steps(order(5)), rtol=1e-5)
        assert "triton.cudagraphs" not in graphs.options
        # Without the marks not all of them are.
        assert not set(graphs.changed) <= set(graphs.fixed), "the trace does not show what is fixed"


def a_recording_is_on_the_stream_of_its_warm_up() -> None:
    import torch

    from backends.torch_graphs import WARM_UP_STEPS, record_cuda_graph

    calls = mock.MagicMock()
    calls.Stream.return_value.name = "aside"
    here = ["current"]

    def on(stream: Any) -> Any:
        @contextlib.contextmanager
        def entered() -> Iterator[None]:
            here.append(stream)
            yield
            here.pop()

        return entered()

    calls.stream.side_effect = on
    calls.graph.side_effect = lambda _graph, stream: on(stream)
    seen: list[Any] = []
    with mock.patch.object(torch, "cuda", calls):
        repeat, loss = record_cuda_graph(lambda: seen.append(here[-1]) or "loss")
    assert seen == (WARM_UP_STEPS + 1) * [calls.Stream.return_value]
    assert (repeat, loss) == (calls.CUDAGraph.return_value.replay, "loss")
    calls.Stream.return_value.wait_stream.assert_called_once_with(calls.current_stream.return_value)
    calls.current_stream.return_value.wait_stream.assert_called_once_with(calls.Stream.return_value)


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


def trained(backend: Any) -> tuple[np.ndarray, list[dict[str, np.ndarray]]]:
    """Return the losses of two trainings and the states in which they ended."""
    losses, states = [], []
    for _ in range(2):  # loading resets in place, where a graph reads
        backend.load_params(initial_params(backend.workload.architecture, INFO, seed=5))
        losses.append(backend.train_steps(order(19)))  # two times eight together, and three
        states.append(backend.save_state())
    return np.concatenate(losses), states


def a_recorded_step_trains_as_the_step_does() -> None:
    from backends import torch_compiled, torch_graphs
    from backends.torch_compiled import SeveralSteps

    repeated: list[int] = []

    class Played(torch_graphs.CudaGraphs):
        def __init__(self, backend: Any) -> None:
            SeveralSteps.__init__(self, backend)  # the mode's own refuses a CPU
            self.record_steps(backend, player(repeated))

    # Compiled it would compute the same, and take half a minute more.
    with mock.patch.object(torch_compiled, "compiled", side_effect=lambda step, _mode: step):
        plain, recorded = (make("compile-step", NORMALISED, "adam") for _ in range(2))
        recorded._runner = Played(recorded)
    losses, states = trained(recorded)
    expected_losses, expected_states = trained(plain)
    assert repeated == 2 * [8, 8, 1, 1, 1]
    assert len(set(expected_losses.tolist())) == 19
    np.testing.assert_array_equal(losses, expected_losses)
    for found, expected in zip(states, expected_states, strict=True):
        assert list(found) == list(expected)
        assert_same(found, expected, "recorded")


COMPILED_CHECKS = (
    compiled_updates_do_what_torch_optims_own_do,
    the_fault_of_scalars_is_still_there,
    compiled_updates_compute_no_power,
    a_network_of_the_same_shapes_has_a_program_of_its_own,
    every_backend_of_a_process_is_compiled,
    a_graph_break_is_an_error,
    statistics_move_in_a_compiled_model,
    a_loss_outlives_the_next_repetition_of_a_graph,
    pytorchs_own_graphs_get_fixed_addresses,
    a_recording_is_on_the_stream_of_its_warm_up,
    a_recorded_step_trains_as_the_step_does,
)
