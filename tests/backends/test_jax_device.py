"""What JAX's backend counts, describes and sends, on a CPU and as on a GPU."""

import re
import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest
from conftest import INFOS, in_process
from jax_kit import (
    BATCH,
    INFO,
    MODES,
    SGD,
    as_on_a_gpu,
    compilations,
    make,
    order,
    run_all,
    traces,
    verdicts_of,
)

from backends.base import TrainingData
from bench.workloads.augmentation import draw
from bench.workloads.parameters import initial_params
from bench.workloads.specs import Architecture, Augmentation, ConvBlock, DatasetInfo, OptimizerSpec, Workload


def operations_are_those_of_the_step() -> None:
    counted = {mode: make(mode).count_flops() for mode in MODES}
    assert counted["loop"] == counted["jit"]
    features = int(np.prod(INFO.image_shape))
    products = 2 * 2 * BATCH * features * INFO.classes  # the first layer needs no gradient of its input
    everything = products + 2 * features * INFO.classes + BATCH * features  # and the update, and the scaling
    for mode in ("grain-samples", "tutorial"):  # which scale in NumPy
        assert products < counted[mode] < counted["jit"] - BATCH * features, counted
    assert everything < counted["grain-batches"] <= counted["jit"] < 1.1 * everything, counted


def operations_are_counted_for_a_plugin_too() -> None:
    """JAX analyses no unoptimised program for a plug-in, such as that for CUDA."""
    import jax
    from jax._src import xla_bridge

    expected = {mode: make(mode, network="cnn").count_flops() for mode in MODES}
    device = xla_bridge.make_cpu_client().devices()[0]
    assert device.client is not jax.devices("cpu")[0].client
    with (
        mock.patch("backends.jax_backend.find_device", return_value=device),
        mock.patch.object(xla_bridge, "using_pjrt_c_api", lambda backend: backend is device.client),
    ):
        for mode in MODES:
            backend = make(mode, network="cnn")
            assert set(backend.state[0]["logits"]["kernel"].devices()) == {device}
            lowered = jax.jit(lambda x: x + 1).lower(backend.state[0]["logits"]["bias"])
            assert lowered.cost_analysis() is None, "this check sees nothing"
            assert backend.count_flops() == expected[mode], mode


def backends_of_two_precisions_share_a_process() -> None:
    import jax

    def program(backend: Any) -> str:
        function, arguments = backend._runner.counted_step()
        return str(jax.jit(function).lower(*arguments).as_text())

    named = {"fp32": "HIGHEST", "tf32": "HIGH", "bf16": "DEFAULT"}
    for mode in ("jit", "tutorial"):
        first = make(mode, network="cnn")
        first.initialise(1)
        losses = first.train_steps(order(3))
        before = program(first)
        others = {name: make(mode, network="cnn", precision=name) for name in ("tf32", "bf16")}
        for name, other in others.items():
            other.initialise(1)
            other.train_steps(order(3))
            found = set(re.findall(r"precision (\w+)>|precision = \[(\w+),", program(other)))
            assert {one or two for one, two in found} == {named[name]}, f"{mode}, {name}: {found}"
            assert other.describe()["matmul_precision"] != first.describe()["matmul_precision"]
        assert program(first) == before
        assert "HIGHEST" in before
        assert "DEFAULT" not in before
        first.initialise(1)
        with traces() as traced:
            again = first.train_steps(order(3))
        assert not traced, f"{mode}: traced again: {traced}"
        np.testing.assert_array_equal(again, losses)
    assert jax.config.jax_default_matmul_precision is None
    assert jax.config.jax_default_device is None


def an_option_that_xla_does_not_know_is_reported() -> None:
    from backends import jax_device

    with mock.patch.object(jax_device, "THREADED_CONVOLUTIONS", {"xla_renamed": "1"}):
        backend = make("jit", network="cnn")
    assert backend.describe()["compiler_options"] is None
    assert "does not know xla_renamed=1, so convolutions" in backend.describe()["warning"]
    backend.train_steps(order(1))
    for network in ("cnn", "normalised"):
        said = make("jit", network=network).describe()
        assert "INDIVIDUAL_DOT" in str(said["compiler_options"]), said
        assert said["warning"] is None
    assert make("jit").describe()["compiler_options"] is None


def cuda_and_cudnn_are_reported_on_a_gpu_alone() -> None:
    import jax

    from backends import jax_device

    played, module = mock.Mock(platform="gpu"), mock.Mock()
    module.cuda_runtime_get_version.return_value = 12090
    module.cudnn_get_version.return_value = 91200
    with mock.patch.object(jax_device, "cuda_module", return_value=module):
        assert jax_device.cuda_versions(played) == {"cuda": "12.9", "cudnn": 91200}
        assert jax_device.cuda_versions(jax.devices("cpu")[0]) == {"cuda": None, "cudnn": None}
    installed = mock.patch("importlib.util.find_spec", lambda name: True if "cuda12" in name else None)
    with installed, mock.patch.dict(sys.modules, {"jax_cuda12_plugin._versions": module}):
        assert jax_device.cuda_module() is module
    assert jax_device.cuda_module() is None
    said = make("jit").describe()
    assert (said["cuda"], said["cudnn"]) == (None, None)


def on_a_gpu_no_step_has_a_transfer() -> None:
    import jax

    crop = Augmentation(crop=6, hue=0.1, contrast=(0.5, 1.5), brightness=0.2, saturation=(0.5, 1.5))
    rows = order(70)  # 32 are sent together
    draws = draw(crop, INFO, batch_size=BATCH, seed=1, start=0, steps=70)
    for augmentation, more in ((None, ()), (crop, (draws,))):
        plain = make("jit", augmentation=augmentation)
        backend = as_on_a_gpu("jit", SGD, "softmax", augmentation=augmentation)
        for one in (plain, backend):
            one.initialise(4)
            one.train_steps(rows[:1], *(part[:1] for part in more))
        expected = plain.train_steps(rows, *more)
        step, handed = backend._runner._carried._next, []

        def noted(*arguments: Any, step: Any = step, handed: list[Any] = handed, **others: Any) -> Any:
            handed.extend(jax.tree.leaves(arguments))
            return step(*arguments, **others)

        backend._runner._carried._next = noted
        with compilations() as seen, mock.patch("jax.device_put", wraps=jax.device_put) as put:
            losses = backend.train_steps(rows, *more)
        assert not seen, seen
        assert put.call_count == 2 * 3, f"{put.call_count} transfers"
        assert handed
        assert all(isinstance(one, jax.Array) for one in handed), "a step got an array of the host"
        np.testing.assert_allclose(losses, expected, rtol=1e-4)


def the_peak_is_that_of_a_product_in_the_jobs_type() -> None:
    import jax

    from backends import jax_instruments

    seen = []

    def matmul(a: Any, b: Any, precision: str) -> Any:
        seen.append((a.shape, str(a.dtype), precision))
        return a @ b

    sides = {"PRODUCT_SIDE": {"cpu": 64}, "COPIED_FLOATS": {"cpu": 1000}}
    with mock.patch.multiple(jax_instruments, **sides), mock.patch("jax.numpy.matmul", matmul):
        for kind, precision in (("float32", "highest"), ("bfloat16", "default")):
            peak = jax_instruments.measured_peak(kind, precision, jax.devices("cpu")[0])
            assert peak.flops_per_s > 0
            assert peak.bytes_per_s > 0
    assert seen == [((64, 64), "float32", "highest"), ((64, 64), "bfloat16", "default")]


CHECKS = {
    check.__name__: check
    for check in (
        operations_are_those_of_the_step,
        operations_are_counted_for_a_plugin_too,
        backends_of_two_precisions_share_a_process,
        an_option_that_xla_does_not_know_is_reported,
        cuda_and_cudnn_are_reported_on_a_gpu_alone,
        on_a_gpu_no_step_has_a_transfer,
        the_peak_is_that_of_a_product_in_the_jobs_type,
    )
}


def run_checks(names: list[str]) -> dict[str, str | None]:
    return run_all(CHECKS, names)


@pytest.fixture(scope="module")
def verdicts(request: pytest.FixtureRequest) -> Callable[[], dict[str, str | None]]:
    return verdicts_of(request, "test_jax_device", CHECKS)


@pytest.mark.framework("jax")
@pytest.mark.parametrize("jax_check", list(CHECKS))
def test_jax_on_its_device(jax_check, verdicts):
    wrong = verdicts()[jax_check]
    assert wrong is None, wrong


def worst_gradient_error(_: None) -> float:
    """Return by how much the gradient of a kernel before batch norm is off; called in a child process.

    The gradient is that of the step that is trained, and is compared with that of an unfused program.
    """
    import jax

    from backends.jax_backend import JaxBackend

    info = DatasetInfo(name="noise", image_shape=(24, 24, 3), classes=10)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (BATCH, *info.image_shape), dtype=np.uint8)
    data = TrainingData(info=info, images=images, labels=np.arange(BATCH, dtype=np.uint8))
    workload = Workload(
        name="noise",
        dataset="noise",
        architecture=Architecture(convs=(ConvBlock(filters=64, kernel=5, normalise=True),)),
        optimizer=OptimizerSpec(name="sgd", learning_rate=1024.0),
        batch_size=BATCH,
    )
    start = initial_params(workload.architecture, info, seed=1)
    start["conv1/offset"] = rng.choice([-1, 1], 64).astype(np.float32)
    batch = np.arange(BATCH, dtype=np.int32)[None]

    def trained() -> np.ndarray:
        backend = JaxBackend(workload, data, mode="jit", device="cpu", precision="fp32")
        backend.load_params(start)
        backend.train_steps(batch)
        return (start["conv1/kernel"] - backend.export_params()["conv1/kernel"]) / 1024

    found = trained()
    with jax.disable_jit():
        expected = trained()
    return float(abs(found - expected).max() / abs(expected).max())


@pytest.mark.framework("jax")
def test_pooling_after_batch_norm_has_its_whole_gradient_on_a_cpu_with_avx2(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_max_isa=AVX2")
    assert in_process(INFOS["jax"], "test_jax_device:worst_gradient_error", None) < 1e-3
