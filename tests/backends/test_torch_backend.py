"""What the PyTorch backend offers beside the contract: its instruments, its input pipeline, its own defaults.

A check is a function without arguments that raises AssertionError. All run in one fresh process, in which
torch is imported: pytest's own process imports no framework.
"""

import time
import traceback
import warnings
from typing import Any
from unittest import mock

import msgspec
import numpy as np
import pytest
from conftest import INFOS, in_process, kept_compiled
from torch_compiling import COMPILED_CHECKS
from torch_kit import BATCH, CNN, LOADERS, RATES, check_that_it_starts_anew, cpu_modes, make, order
from torch_loading import PIPELINE_CHECKS

from bench.workloads.ranks import Place
from bench.workloads.specs import Architecture, Augmentation

pytestmark = [pytest.mark.framework("torch"), pytest.mark.long]

LIMIT_S = 900.0
"""The time limit of all checks, in a process that may have half a busy core."""


# ---- modes


def every_mode_of_the_catalog_has_a_runner() -> None:
    from backends.catalog import TORCH
    from backends.runners import load_runner

    for mode in TORCH.modes:
        runner = load_runner(TORCH, mode.name, Place())
        assert isinstance(runner, type), mode.name
        assert callable(runner.train), mode.name
        assert runner.call_steps >= 1, mode.name


def settings_follow_the_level_of_a_mode() -> None:
    import torch

    from backends.catalog import TORCH
    from backends.runners import load_runner
    from backends.torch_settings import TAUGHT, TUNED

    for mode in TORCH.modes:
        found = load_runner(TORCH, mode.name, Place()).settings
        if mode.level == "taught":
            assert found == TAUGHT, mode.name
        else:
            layout = torch.contiguous_format if mode.name == "channels-first" else torch.channels_last
            assert found == msgspec.structs.replace(TUNED, memory_format=layout), mode.name


def a_taught_mode_changes_nothing_of_pytorch() -> None:
    import torch

    def of_the_process() -> tuple[bool, bool]:
        return torch._C._is_multithreading_enabled(), torch.backends.cudnn.benchmark

    for mode, process, fused, layout in (
        ("eager", (False, True), True, torch.channels_last),
        ("tutorial", (True, False), None, torch.contiguous_format),
        ("channels-first", (False, True), True, torch.contiguous_format),
        ("tutorial", (True, False), None, torch.contiguous_format),
    ):
        backend = make(mode, CNN)
        assert of_the_process() == process, mode
        assert backend._runner.optimizer.optimizer.defaults["fused"] is fused, mode
        images, _ = next(backend._runner.data.batches(order(1)))
        for tensor in (backend.network.conv2.weight, images):
            assert tensor.is_contiguous(memory_format=layout), mode
        backend.train_steps(order(1))
        assert backend.network.conv2.weight.is_contiguous(memory_format=layout), mode
        assert backend.describe()["memory_format"] == str(layout).removeprefix("torch."), mode


def a_network_without_convolutions_flattens_its_images_without_a_copy() -> None:
    import torch

    for mode in ("eager", "dataloader-samples", "dataloader-batches"):
        backend = make(mode, Architecture(hidden=(4,)))
        images, _ = next(backend._runner.data.batches(order(1)))
        assert images.is_contiguous(), mode
        assert torch.nn.Flatten()(images).data_ptr() == images.data_ptr(), mode
        assert backend.describe()["memory_format"] == "contiguous_format", mode


def a_constructor_builds_the_programs_of_its_own_mode() -> None:
    import torch

    compiled = {"compile-model": 1, "compile-step": 1, "compile-loop": 2}
    for mode, programs in (dict.fromkeys(cpu_modes(), 0) | compiled).items():
        with mock.patch.object(torch, "compile", side_effect=lambda step, **options: step) as compiles:
            make(mode)
        assert compiles.call_count == programs, mode


def a_mode_that_cannot_train_is_refused() -> None:
    from bench.errors import UnavailableError

    augmentation = Augmentation(crop=8, hue=0.1, contrast=(0.5, 1.5), brightness=0.1, saturation=(0.5, 1.5))
    for mode, augments, words in (
        ("compile-step", augmentation, "mode compile-step of PyTorch augments no images; mode eager does"),
        ("dataloader-samples", augmentation, "mode dataloader-samples of PyTorch augments no images"),
        ("dataloader-batches", augmentation, "mode dataloader-batches of PyTorch augments no images"),
        ("tutorial", augmentation, "mode tutorial of PyTorch augments no images; mode eager does"),
        ("cuda-graphs", None, "mode cuda-graphs of PyTorch needs a GPU; on a CPU take mode compile-step"),
        (
            "reduce-overhead",
            None,
            "mode reduce-overhead of PyTorch needs a GPU; on a CPU take mode compile-step",
        ),
        ("no-such", None, "PyTorch has no mode 'no-such'; it has eager, compile-model, compile-step"),
    ):
        with pytest.raises(UnavailableError) as refused:
            make(mode, augmentation=augments)
        assert str(refused.value).startswith(words), refused.value


# ---- instruments; conformance checks that they leave training as it was


def split_steps_time_all_parts() -> None:
    for mode in ("eager", *LOADERS):
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
    of_loaders = (
        ("data", "dataset", "data_s"),
        ("data", "transfer", "transfer_s"),
        (None, "step", "dispatch_s"),
    )
    for mode, owner, method, part in (
        ("eager", "data", "gather", "data_s"),
        ("eager", None, "step", "dispatch_s"),
        *((mode, *owned) for mode in LOADERS for owned in of_loaders),
    ):
        backend, now = make(mode), [0]
        owned_by = getattr(backend._runner, owner) if owner else backend._runner
        inner = getattr(owned_by, method)

        class Slow:
            def __getitem__(self, index: Any, inner: Any = inner, now: list[int] = now) -> Any:
                now[0] += np.asarray(index).size  # a sample, or a batch
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
    for mode, precision in (("eager", "fp32"), ("eager", "bf16"), *((mode, "fp32") for mode in LOADERS)):
        assert make(mode, precision=precision).count_flops() == by_hand, f"{mode} {precision}"
    for mode in ("compile-model", "compile-step", "compile-loop"):
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


def nothing_is_copied_to_the_device_in_an_augmented_step() -> None:
    """A copy from the host's pageable memory would make the host wait for the GPU in each step."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    copied = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func in (torch.ops.aten.lift_fresh.default, torch.ops.aten._local_scalar_dense.default):
                copied.append(str(func))  # torch.tensor([...]), and item()
            return func(*args, **(kwargs or {}))

    with Watch():
        torch.tensor([1.0]).item()
    assert copied == ["aten.lift_fresh.default", "aten._local_scalar_dense.default"]
    copied.clear()
    augmentation = Augmentation(crop=8, hue=0.1, contrast=(0.5, 1.5), brightness=0.1, saturation=(0.5, 1.5))
    runner = make("eager", CNN, augmentation=augmentation)._runner
    batch, drawn = torch.from_numpy(order(1)[0]), torch.full((BATCH, 7), 0.5)
    labels = torch.zeros(BATCH, dtype=torch.int64)
    with Watch():
        runner.step(runner._augment(batch, drawn), labels)
    assert not copied, copied


# ---- run, in a process of its own

CHECKS = {
    check.__name__: check
    for check in (
        every_mode_of_the_catalog_has_a_runner,
        settings_follow_the_level_of_a_mode,
        a_network_without_convolutions_flattens_its_images_without_a_copy,
        a_taught_mode_changes_nothing_of_pytorch,
        a_constructor_builds_the_programs_of_its_own_mode,
        a_mode_that_cannot_train_is_refused,
        split_steps_time_all_parts,
        each_part_of_a_step_holds_its_own,
        the_counter_agrees_with_a_count_by_hand,
        the_peak_is_work_over_the_best_time,
        the_peak_is_that_of_a_product_in_the_jobs_type,
        the_start_is_that_of_torch_nn,
        initialising_and_restoring_reset_the_optimizer,
        the_optimizers_are_torch_optims_own,
        the_order_is_that_of_a_random_sampler,
        nothing_is_copied_to_the_device_in_an_augmented_step,
        *PIPELINE_CHECKS,
        *COMPILED_CHECKS,
    )
}


SLOW_GUARDS = "Guards may run slower on Python 3.13.0"
"""What torch.compile warns of on that Python, where it computes the same."""


def run_checks(names: list[str]) -> dict[str, Any]:
    """Return for each check what it returned and what went wrong; called in a child process."""
    found = {}
    for name in names:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                warnings.filterwarnings("default", category=DeprecationWarning)
                warnings.filterwarnings("default", SLOW_GUARDS)
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
    target = "test_torch_backend:run_checks"
    return in_process(INFOS["torch"], target, names, limit_s=LIMIT_S, compiled=compiled)


@pytest.mark.timeout(2 * LIMIT_S)
@pytest.mark.parametrize("check", CHECKS)
def test_beside_the_contract(check, found):
    returned, wrong = found[check]
    assert wrong is None, wrong
    if returned is False:
        pytest.skip("torchvision cannot be imported here")
