"""What is JAX's own in its backend: when it compiles, its defaults, Grain. The contract has its own tests."""

import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import pytest
from conftest import INFOS, in_process

from backends.base import TrainingData
from bench.errors import UnavailableError
from bench.workloads.augmentation import draw
from bench.workloads.parameters import initial_params
from bench.workloads.specs import Architecture, Augmentation, ConvBlock, DatasetInfo, OptimizerSpec, Workload

INFO = DatasetInfo(name="noise", image_shape=(12, 8, 1), classes=7)
BATCH = 8
IMAGES = 160
MODES = ("jit", "loop", "grain-samples", "grain-batches", "tutorial")
PIPELINES = MODES[2:]
NETWORKS = {
    "softmax": Architecture(),
    "cnn": Architecture(convs=(ConvBlock(filters=4, kernel=3),), hidden=(9,)),
    "normalised": Architecture(convs=(ConvBlock(filters=4, kernel=3, normalise=True),), hidden=(9,)),
}
SGD = OptimizerSpec(name="sgd", learning_rate=0.1)
ADAM = OptimizerSpec(name="adam", learning_rate=0.01)


def make(
    mode: str, optimizer: OptimizerSpec = SGD, network: str = "softmax", *, matched: bool = True,
    device: str = "cpu", precision: str = "fp32", augmentation: Augmentation | None = None,
) -> Any:  # fmt: skip
    from backends.jax_backend import JaxBackend

    rng = np.random.default_rng(0)
    data = TrainingData(
        info=INFO,
        images=rng.integers(0, 256, (IMAGES, *INFO.image_shape), dtype=np.uint8),
        labels=rng.integers(0, INFO.classes, IMAGES, dtype=np.uint8),
    )
    workload = Workload(
        name="noise",
        dataset="noise",
        architecture=NETWORKS[network],
        optimizer=optimizer,
        batch_size=BATCH,
        matched=matched,
        augmentation=augmentation,
    )
    return JaxBackend(workload, data, mode=mode, device=device, precision=precision)


def order(steps: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, IMAGES, (steps, BATCH), dtype=np.int32)


def zeros(backend: Any) -> dict[str, np.ndarray]:
    return {name: np.zeros_like(value) for name, value in backend.export_params().items()}


@contextmanager
def heard(event: str) -> Iterator[list[str]]:
    """Collect the details of an event of JAX meanwhile."""
    import jax

    seen: list[str] = []

    def listen(name: str, seconds: float, **details: Any) -> None:
        if name == event:
            seen.append(f"{details} {seconds:.2f} s")

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


compilations = partial(heard, "/jax/core/compile/backend_compile_duration")
traces = partial(heard, "/jax/core/compile/jaxpr_trace_duration")


# ---- the checks, in a process of their own


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


def as_on_a_gpu(mode: str, optimizer: OptimizerSpec, network: str, **others: Any) -> Any:
    """Return a backend that runs on the CPU the programs that it has for a GPU."""
    from backends import jax_backend, jax_loop

    on_cpu = jax_backend.find_device("cpu")
    with (
        mock.patch.object(jax_backend, "find_device", return_value=on_cpu),
        mock.patch.object(jax_loop, "SENT_INDICES", 40 * BATCH),
    ):
        return make(mode, optimizer, network, device="gpu", **others)


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

    assert tuple(mode.name for mode in INFOS["jax"].modes) == MODES
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
        building_compiles_nothing,
        the_first_step_compiles_and_no_other,
        evaluating_compiles_once,
        every_program_trains_the_same_and_compiles_once,
        a_cnn_is_trained_in_no_loop_on_a_cpu,
        a_mode_builds_its_own_programs_alone,
        every_mode_of_the_table_has_a_runner,
        pipelines_train_as_jit_does,
        a_batch_of_bytes_is_gathered_at_once_and_scaled_on_the_device,
        the_tutorial_waits_for_the_device_once_a_call,
        the_tutorial_uses_nothing_that_is_tuned,
        grain_leaves_no_thread_behind,
        without_grain_its_modes_are_unavailable,
        parameters_are_drawn_as_flax_draws_them,
        unmatched_the_optimizer_is_optax_s_own,
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
    """Return for each check None or what went wrong; called in a child process."""
    found: dict[str, str | None] = {}
    for name in names:
        try:
            CHECKS[name]()
            found[name] = None
        except (Exception, pytest.fail.Exception):
            found[name] = traceback.format_exc()
    return found


@pytest.fixture(scope="module")
def verdicts(request: pytest.FixtureRequest) -> Callable[[], dict[str, str | None]]:
    """Return what one child process found for all checks that this session selected."""
    chosen = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    names = [name for name in CHECKS if {"jax_check": name} in chosen]
    found: dict[str, str | None] = {}

    def of_all() -> dict[str, str | None]:
        if not found:
            found.update(in_process(INFOS["jax"], "test_jax_backend:run_checks", names))
        return found

    return of_all


@pytest.mark.framework("jax")
@pytest.mark.parametrize("jax_check", list(CHECKS))
def test_the_jax_backend(jax_check, verdicts):
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
    assert in_process(INFOS["jax"], "test_jax_backend:worst_gradient_error", None) < 1e-3
