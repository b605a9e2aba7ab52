"""What the PyTorch backend offers beside the contract: its instruments, its input pipeline, its own defaults.

A check is a function without arguments that raises AssertionError. All run in one fresh process, in which
torch is imported: pytest's own process imports no framework.
"""

import functools
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import numpy as np
import pytest
from conftest import INFOS, in_process, kept_compiled

from backends.base import TrainingData
from bench.workloads.parameters import initial_params
from bench.workloads.specs import Architecture, Augmentation, ConvBlock, DatasetInfo, OptimizerSpec, Workload

pytestmark = [pytest.mark.framework("torch"), pytest.mark.long]

INFO = DatasetInfo(name="noise", image_shape=(12, 8, 3), classes=7)
BATCH = 10
MLP = Architecture(hidden=(16,))
CNN = Architecture(convs=(ConvBlock(filters=4, kernel=5), ConvBlock(filters=5, kernel=3)), hidden=(12,))
RATES = {"sgd": 0.1, "momentum": 0.05, "adam": 0.01, "rmsprop": 0.01}


def data() -> TrainingData:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (200, *INFO.image_shape), dtype=np.uint8)
    return TrainingData(info=INFO, images=images, labels=rng.integers(0, 7, 200, dtype=np.uint8))


def make(mode: str, architecture: Architecture = MLP, optimizer: str = "momentum", **other: Any) -> Any:
    """Return a backend; where its workload is matched, given the same start in every call."""
    from backends.torch_backend import TorchBackend

    spec = OptimizerSpec(name=optimizer, learning_rate=RATES[optimizer], decay_rate=0.5, decay_steps=4)
    precision, matched = other.get("precision", "fp32"), other.get("matched", True)
    workload = Workload(
        name="noise",
        dataset="noise",
        architecture=architecture,
        optimizer=spec,
        batch_size=BATCH,
        matched=matched,
        augmentation=other.get("augmentation"),
    )
    backend = TorchBackend(workload, data(), mode=mode, device="cpu", precision=precision)
    if matched:
        backend.load_params(initial_params(architecture, INFO, seed=5))
    return backend


def order(steps: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 200, (steps, BATCH), dtype=np.int32)


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], what: str) -> None:
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=f"{what}: {name}")


# ---- modes


def every_mode_of_the_catalog_has_a_runner() -> None:
    from backends.catalog import TORCH
    from backends.runners import load_runner

    for mode in TORCH.modes:
        runner = load_runner(TORCH, mode.name)
        assert isinstance(runner, type), mode.name
        assert callable(runner.train), mode.name
        assert runner.call_steps >= 1, mode.name


def a_constructor_builds_the_programs_of_its_own_mode() -> None:
    import torch

    for mode, programs in (("eager", 0), ("dataloader-samples", 0), ("compile-step", 1), ("compile-loop", 2)):
        with mock.patch.object(torch, "compile", side_effect=lambda step, **options: step) as compiles:
            make(mode)
        assert compiles.call_count == programs, mode


def a_mode_that_cannot_train_is_refused() -> None:
    from bench.errors import UnavailableError

    augmentation = Augmentation(crop=8, hue=0.1, contrast=(0.5, 1.5), brightness=0.1, saturation=(0.5, 1.5))
    for mode, augments, words in (
        ("compile-step", augmentation, "mode compile-step of PyTorch augments no images; mode eager does"),
        (
            "dataloader-samples",
            augmentation,
            "mode dataloader-samples of PyTorch augments no images; mode eager does",
        ),
        ("cuda-graphs", None, "mode cuda-graphs of PyTorch needs a GPU; on a CPU take mode compile"),
        ("no-such", None, "PyTorch has no mode 'no-such'; it has eager, compile-step"),
    ):
        with pytest.raises(UnavailableError) as refused:
            make(mode, augmentation=augments)
        assert str(refused.value).startswith(words), refused.value


# ---- instruments; conformance checks that they leave training as it was


def split_steps_time_all_parts() -> None:
    for mode in ("eager", "dataloader-samples"):
        backend = make(mode)
        backend.train_steps(order(3))
        start = time.perf_counter()
        found = backend.split_steps(order(3))
        seconds = time.perf_counter() - start
        assert found.steps == 3
        parts = (found.data_s, found.transfer_s, found.dispatch_s, found.device_s)
        assert all(part > 0 for part in parts), f"{mode}: {found}"
        assert sum(parts) * 3 <= seconds, f"{mode}: parts of {sum(parts) * 3} s in a call of {seconds} s"


def each_part_of_a_step_holds_its_own() -> None:
    """Let the clock go on in one part alone and see all of the time in that part."""
    for mode, owner, method, part in (
        ("eager", "data", "gather", "data_s"),
        ("eager", None, "step", "dispatch_s"),
        ("dataloader-samples", "data", "dataset", "data_s"),
        ("dataloader-samples", "data", "transfer", "transfer_s"),
        ("dataloader-samples", None, "step", "dispatch_s"),
    ):
        backend, now = make(mode), [0]
        owned_by = getattr(backend._runner, owner) if owner else backend._runner
        inner = getattr(owned_by, method)

        class Slow:
            def __getitem__(self, index: int, inner: Any = inner, now: list[int] = now) -> Any:
                now[0] += 1
                return inner[index]

            def __call__(self, *arguments: Any, inner: Any = inner, now: list[int] = now) -> Any:
                now[0] += BATCH
                return inner(*arguments)

        setattr(owned_by, method, Slow())
        with mock.patch.object(time, "perf_counter", side_effect=lambda now=now: now[0]):
            found = backend.split_steps(order(2))
        expected = dict.fromkeys(("data_s", "transfer_s", "dispatch_s", "device_s"), 0.0) | {part: BATCH}
        assert msgspec.structs.asdict(found) == expected | {"steps": 2}, f"{mode}, {method}"


def the_counter_agrees_with_a_count_by_hand() -> None:
    # A product (b, in) x (in, out) takes 2 b in out operations. Backward there is one more for the gradient
    # of the kernel, and one for that of what came in, but for the first layer: images need no gradient.
    dense = ((12 * 8 * 3, 16), (16, 7))
    products = [2 * BATCH * rows * columns for rows, columns in dense]
    by_hand = 3 * sum(products) - products[0]
    for mode, precision in (("eager", "fp32"), ("eager", "bf16"), ("dataloader-samples", "fp32")):
        assert make(mode, precision=precision).count_flops() == by_hand, f"{mode} {precision}"
    for mode in ("compile-step", "compile-loop"):
        assert make(mode).count_flops() is None, mode
    # SAME padding: 2 b per pixel that comes out, and per kernel weight.
    products = [
        2 * BATCH * pixels * weights
        for pixels, weights in ((12 * 8, 25 * 3 * 4), (6 * 4, 9 * 4 * 5), (1, 3 * 2 * 5 * 12), (1, 12 * 7))
    ]
    assert make("eager", CNN).count_flops() == 3 * sum(products) - products[0]


def the_peak_is_work_over_the_best_time() -> None:
    import torch

    from backends import torch_instruments as instruments

    with mock.patch.object(instruments, "best_seconds", side_effect=[0.5, 0.25]):
        found = instruments.measure_peak(torch.device("cpu"), "fp32")
    assert found.flops_per_s == 2 * instruments.CPU_SIDE**3 / 0.5
    assert found.bytes_per_s == 2 * instruments.COPY_BYTES / 0.25  # read and written

    tries = iter([0.3, 0.1, 0.2])
    with (
        mock.patch.object(instruments, "cpu_seconds", side_effect=lambda run: next(tries)),
        mock.patch.object(instruments, "TRIES_S", 0.0),
    ):
        assert instruments.best_seconds(lambda: None, torch.device("cpu")) == 0.1
    with (
        mock.patch.object(instruments, "cpu_seconds", side_effect=[0.3]),
        mock.patch.object(instruments, "LONGEST_S", 0.0),
    ):
        assert instruments.best_seconds(lambda: None, torch.device("cpu")) == 0.3


def the_peak_is_that_of_a_product_in_the_jobs_type() -> None:
    import torch

    from backends import torch_instruments as instruments

    seen = []

    def noted(a: Any, b: Any, out: Any) -> None:
        seen.append({a.dtype, b.dtype, out.dtype})
        out.zero_()  # unwritten memory may hold NaN

    with (
        mock.patch.object(torch, "mm", side_effect=noted),
        mock.patch.multiple(instruments, COPY_BYTES=2**20, TRIES_S=0.0),
    ):
        for precision in ("fp32", "bf16"):
            instruments.measure_peak(torch.device("cpu"), precision)
    assert seen[0] == {torch.float32}
    assert seen[-1] == {torch.bfloat16}


# ---- input pipeline


def the_loader_gives_the_batches_that_were_asked_for() -> None:
    import torch

    from backends.torch_pipeline import ImageDataset, make_loader

    given, rows = data(), order(7)
    batches = list(make_loader(ImageDataset(given), rows, torch.device("cpu")))
    assert len(batches) == 7
    for (images, labels), row in zip(batches, rows, strict=True):
        assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
        expected = given.images[row].transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
        np.testing.assert_array_equal(images.numpy(), expected)
        np.testing.assert_array_equal(labels.numpy(), given.labels[row])


def a_pipeline_computes_what_eager_does() -> None:
    losses = {mode: make(mode, CNN).train_steps(order(20)) for mode in ("eager", "dataloader-samples")}
    # The same operations on the same numbers; only the layout of a convolution's input may differ.
    np.testing.assert_allclose(losses["dataloader-samples"], losses["eager"], rtol=2e-6)


def torchvision_is_used_where_it_can_be_imported_and_named_where_not() -> None:
    from backends import torch_pipeline as pipeline

    assert make("eager").describe()["input_transforms"] is None
    assert make("dataloader-samples").describe()["input_transforms"] == pipeline.find_transforms()[1]
    assert make("dataloader-samples").describe()["input_workers"] == pipeline.WORKERS

    here = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith("torchvision")}
    for text in ("raise RuntimeError('operator torchvision::nms does not exist')", "raise ImportError('no')"):
        with tempfile.TemporaryDirectory() as folder, mock.patch.object(sys, "path", [folder, *sys.path]):
            Path(folder, "torchvision.py").write_text(text)
            transform, name = pipeline.find_transforms()
        assert transform is pipeline.scale_image
        assert text.split("'")[1] in name, name
    sys.modules.update(here)


def torchvision_makes_the_same_numbers() -> bool:
    """Return whether there is a torchvision to ask."""
    from backends import torch_pipeline as pipeline

    transform, name = pipeline.find_transforms()
    if transform is pipeline.scale_image:
        return False
    assert name.startswith("torchvision "), name
    for shape in ((28, 28, 1), (32, 32, 3)):
        image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        # It multiplies by 1 / 255 where we divide: that may round to the neighbouring float32.
        np.testing.assert_allclose(transform(image).numpy(), pipeline.scale_image(image).numpy(), rtol=1.2e-7)
    return True


# ---- PyTorch's own defaults


def the_start_is_that_of_torch_nn() -> None:
    import torch
    from torch import nn

    backend = make("eager", matched=False)
    backend.initialise(11)
    torch.manual_seed(11)
    layers = [nn.Linear(12 * 8 * 3, 16), nn.Linear(16, 7)]
    found = backend.export_params()
    for name, layer in zip(("dense1", "logits"), layers, strict=True):
        np.testing.assert_array_equal(found[f"{name}/bias"], layer.bias.detach().numpy())
        # The first kernel's rows are in another order, that of the flattened image.
        expected = layer.weight.detach().numpy().T
        np.testing.assert_array_equal(np.sort(found[f"{name}/kernel"], 0), np.sort(expected, 0))
    backend.initialise(12)
    assert (backend.export_params()["logits/bias"] != found["logits/bias"]).all()


def initialising_and_restoring_reset_the_optimizer() -> None:
    for name in RATES:
        backend = make("eager", optimizer=name, matched=False)
        check_that_it_starts_anew(backend, name)


def check_that_it_starts_anew(backend: Any, name: str) -> None:
    """Check that a backend repeats itself after `initialise` and after `restore_state`."""
    backend.initialise(3)
    first = backend.train_steps(order(6))
    assert len(set(first.tolist())) == 6
    state = backend.save_state()
    expected = backend.train_steps(order(4))
    backend.restore_state(state)
    np.testing.assert_array_equal(backend.train_steps(order(4)), expected, err_msg=f"{name}, restored")
    backend.initialise(3)
    np.testing.assert_array_equal(backend.train_steps(order(6)), first, err_msg=f"{name}, initialised")


def the_optimizers_are_torch_optims_own() -> None:
    import torch

    own = {
        "sgd": (torch.optim.SGD, {}),
        "momentum": (torch.optim.SGD, {"momentum": 0.9}),
        "adam": (torch.optim.Adam, {}),
        "rmsprop": (torch.optim.RMSprop, {}),
    }
    for name, (kind, constants) in own.items():
        found = make("eager", optimizer=name, matched=False)._runner.optimizer.optimizer
        assert type(found) is kind, f"{name}: {type(found)}"
        expected = kind([torch.nn.Parameter(torch.zeros(1))], **constants)
        assert found.defaults == expected.defaults, name


def compiled_updates_do_what_torch_optims_own_do() -> None:
    for name in RATES:
        eager, compiled = (
            make(mode, Architecture(), name, matched=False) for mode in ("eager", "compile-step")
        )
        for backend in (eager, compiled):
            backend.initialise(3)
        expected = eager.train_steps(order(20))
        np.testing.assert_allclose(compiled.train_steps(order(20)), expected, rtol=1e-5, err_msg=name)
        check_that_it_starts_anew(compiled, name)


def only_traced() -> Any:
    """Let `torch.compile` trace a step and not generate code for it, which would take seconds."""
    import torch

    return mock.patch.object(torch, "compile", functools.partial(torch.compile, backend="eager"))


def a_network_of_the_same_shapes_has_a_program_of_its_own() -> None:
    """A call does not check the modules, so what was compiled for another network must be forgotten."""
    for pool in (5, 6):  # of 12 by 8 pixels either leaves 2 by 1
        architecture = Architecture(convs=(ConvBlock(filters=2, kernel=1, pool=pool),))
        with only_traced():
            eager, compiled = (
                make(mode, architecture, "sgd").train_steps(order(3)) for mode in ("eager", "compile-step")
            )
        np.testing.assert_allclose(compiled, eager, rtol=1e-5, err_msg=f"pool {pool}")


def every_backend_of_a_process_is_compiled() -> None:
    """PyTorch compiles 8 versions of a function, and then goes on uncompiled without an error.

    `bench verify` makes some twenty backends in one process: those after the eighth would be tested in eager.
    Here the limit is 2, and four backends exceed it.
    """
    from torch._dynamo import config, utils

    with only_traced(), config.patch(recompile_limit=2):
        for number, (mode, graphs) in enumerate([("compile-step", 1)] * 3 + [("compile-loop", 2)]):
            backend = make(mode, Architecture(), "sgd")
            before = utils.counters["stats"]["unique_graphs"]
            for steps in (1, 2, 7, 9):
                backend.train_steps(order(steps))
            backend.load_params(initial_params(Architecture(), INFO, seed=5))
            backend.train_steps(order(5))
            compiled = utils.counters["stats"]["unique_graphs"] - before
            assert compiled == graphs, f"{mode}, backend {number} of one process: {compiled} graphs compiled"


def the_order_is_that_of_a_random_sampler() -> None:
    import torch
    from torch.utils.data import RandomSampler

    backend = make("eager", matched=False)
    for seed in (0, 7, 2**40 + 1):
        torch.manual_seed(seed)
        sampler = RandomSampler(range(200))
        for epoch in range(20):
            found = backend.permutation(seed, epoch)
            assert found.dtype == np.int32
            assert found.tolist() == list(sampler), f"seed {seed}, epoch {epoch}"


# ---- CUDA graphs, which need a GPU: here a player stands in for the recording


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

    normalised = Architecture(convs=(ConvBlock(filters=4, kernel=3, normalise=True),), hidden=(6,))
    # Compiled it would compute the same, and take half a minute more.
    with mock.patch.object(torch_compiled, "compiled", side_effect=lambda step: step):
        plain, recorded = (make("compile-step", normalised, "adam") for _ in range(2))
        recorded._runner = Played(recorded)
    losses, states = trained(recorded)
    expected_losses, expected_states = trained(plain)
    assert repeated == 2 * [8, 8, 1, 1, 1]
    assert len(set(expected_losses.tolist())) == 19
    np.testing.assert_array_equal(losses, expected_losses)
    for found, expected in zip(states, expected_states, strict=True):
        assert list(found) == list(expected)
        assert_same(found, expected, "recorded")


# ---- run, in a process of its own

CHECKS = {
    check.__name__: check
    for check in (
        every_mode_of_the_catalog_has_a_runner,
        a_constructor_builds_the_programs_of_its_own_mode,
        a_mode_that_cannot_train_is_refused,
        split_steps_time_all_parts,
        each_part_of_a_step_holds_its_own,
        the_counter_agrees_with_a_count_by_hand,
        the_peak_is_work_over_the_best_time,
        the_peak_is_that_of_a_product_in_the_jobs_type,
        the_loader_gives_the_batches_that_were_asked_for,
        a_pipeline_computes_what_eager_does,
        torchvision_is_used_where_it_can_be_imported_and_named_where_not,
        torchvision_makes_the_same_numbers,
        the_start_is_that_of_torch_nn,
        initialising_and_restoring_reset_the_optimizer,
        the_optimizers_are_torch_optims_own,
        compiled_updates_do_what_torch_optims_own_do,
        a_network_of_the_same_shapes_has_a_program_of_its_own,
        every_backend_of_a_process_is_compiled,
        the_order_is_that_of_a_random_sampler,
        a_recorded_step_trains_as_the_step_does,
    )
}


def run_checks(names: list[str]) -> dict[str, Any]:
    """Return for each check what it returned and what went wrong; called in a child process."""
    found = {}
    for name in names:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                warnings.filterwarnings("default", category=DeprecationWarning)
                found[name] = (CHECKS[name](), None)
        except Exception:
            found[name] = (None, traceback.format_exc())
    return found


@pytest.fixture(scope="module")
def found(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return what `run_checks` found, of all checks that this session selected."""
    here = [item for item in request.session.items if item.path == request.path]
    names = [item.callspec.params["check"] for item in here]
    # Conformance compiles with the same headers.
    compiled = kept_compiled(request.config)
    return in_process(INFOS["torch"], "test_torch_backend:run_checks", names, compiled=compiled)


@pytest.mark.parametrize("check", CHECKS)
def test_beside_the_contract(check, found):
    returned, wrong = found[check]
    assert wrong is None, wrong
    if returned is False:
        pytest.skip("torchvision cannot be imported here")
