"""What only TensorFlow's backend promises. One process with TensorFlow answers the questions of all tests."""

import re
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import msgspec
import numpy as np
import pytest
from conftest import INFOS, in_process

from backends.base import TrainingData
from bench.workloads.augmentation import draw
from bench.workloads.catalog import WORKLOADS
from bench.workloads.specs import DatasetInfo, OptimizerSpec

pytestmark = [pytest.mark.framework("tensorflow"), pytest.mark.long]


class Answers(NamedTuple):
    told: dict[str, Any]
    dumped: Path
    """Where XLA has written the programs that it compiled."""

    def to(self, question: Callable[[], Any]) -> Any:
        """Return the answer to a question; fail with its traceback where it raised."""
        answer, wrong = self.told[question.__name__]
        assert wrong is None, wrong
        return answer


def answer(names: list[str]) -> dict[str, Any]:
    """Return for each question its answer and what went wrong; called in a child process."""
    told = {}
    for name in names:
        try:
            told[name] = (globals()[name](), None)
        except (Exception, pytest.fail.Exception):
            told[name] = (None, traceback.format_exc())
    return told


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    questions = (
        counted, constants, drawn, traces, traces_of_each_mode, traces_of_a_cnn_that_is_unrolled,
        loop_of_a_gpu, forms_of_the_loop, cut_into_chunks, augmented_by_number, table, peak, refused,
    )  # fmt: skip
    names, dumped = [question.__name__ for question in questions], tmp_path_factory.mktemp("xla")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", f"--xla_dump_to={dumped} --xla_dump_hlo_as_text")
        return Answers(in_process(INFOS["tensorflow"], "test_tensorflow_backend:answer", names), dumped)


def _backend(mode: str = "graph", name: str = "mnist-mlp", **changes: Any) -> Any:
    # The parent imports this file too, and must import no framework.
    from backends.tensorflow_backend import TensorFlowBackend

    rng = np.random.default_rng(0)
    data = TrainingData(
        info=DatasetInfo(name="mnist", image_shape=(28, 28, 1), classes=10),
        images=rng.integers(0, 256, (1000, 28, 28, 1), dtype=np.uint8),
        labels=rng.integers(0, 10, 1000, dtype=np.uint8),
    )
    workload = msgspec.structs.replace(WORKLOADS[name], **changes)
    return TensorFlowBackend(workload, data, mode=mode, device="cpu", precision="fp32")


def _train(backend: Any, *counts: int) -> None:
    """Train so many steps in one call each."""
    size = backend.workload.batch_size
    for steps in counts:
        backend.train_steps(np.arange(steps * size, dtype=np.int32).reshape(steps, size) % 1000)


def counted() -> dict[str, float]:
    return {
        f"{mode} {name}": _backend(mode, name).count_flops()
        for mode in ("graph", "tf-data-batches", "tutorial")
        for name in ("mnist-mlp", "mnist-cnn")
    }


def test_the_profilers_count_is_that_of_a_pocket_calculator(answers: Answers) -> None:
    """Products by hand; beside them the profiler counts scaling, biases, pooling and the update."""
    found, batch = answers.to(counted), 100
    first, *others = (2 * batch * rows * columns for rows, columns in ((784, 512), (512, 256), (256, 10)))
    mlp = 2 * first + 3 * sum(others)
    conv1, conv2 = 2 * batch * 28**2 * 25 * 32, 2 * batch * 14**2 * 25 * 32 * 64
    cnn = 2 * conv1 + 3 * conv2 + 3 * 2 * batch * (7 * 7 * 64 * 128 + 128 * 10)
    for mode in ("graph", "tf-data-batches", "tutorial"):
        assert 1 < found[f"{mode} mnist-mlp"] / mlp < 1.004, f"{mode}: {found}"
        assert 1 < found[f"{mode} mnist-cnn"] / cnn < 1.004, f"{mode}: {found}"


def constants() -> list[dict[str, Any]]:
    found = []
    for name in ("sgd", "momentum", "adam", "rmsprop"):
        # The workload's constants must not matter, except its momentum.
        spec = OptimizerSpec(
            name=name, learning_rate=7.0, momentum=0.8, beta1=0.1, beta2=0.1, epsilon=0.1, rho=0.1
        )
        optimizer = _backend(optimizer=spec, matched=False).optimizer
        config = optimizer.get_config()
        found.append({"class": f"{type(optimizer).__module__}.{type(optimizer).__name__}", **config})
    return found


def test_own_defaults_are_those_of_keras(answers: Answers) -> None:
    """As the documentation of Keras 3 gives them."""
    sgd, momentum, adam, rmsprop = answers.to(constants)
    assert all(one["class"].startswith("keras.src.optimizers.") for one in (sgd, momentum, adam, rmsprop))
    assert (sgd["learning_rate"], sgd["momentum"]) == (pytest.approx(0.01), 0.0)
    assert (momentum["learning_rate"], momentum["momentum"]) == (pytest.approx(0.01), 0.8)
    assert adam["learning_rate"] == rmsprop["learning_rate"] == pytest.approx(0.001)
    assert (adam["beta_1"], adam["beta_2"], adam["epsilon"]) == (0.9, 0.999, 1e-7)
    assert (rmsprop["rho"], rmsprop["momentum"], rmsprop["epsilon"]) == (0.9, 0.0, 1e-7)


def drawn() -> dict[str, list[float]]:
    backend = _backend(matched=False)
    backend.initialise(3)
    return {
        name: [float(value.min()), float(value.max()), float(value.std())]
        for name, value in backend.export_params().items()
    }


def test_initialise_draws_glorot_uniform_kernels_and_no_biases(answers: Answers) -> None:
    found = answers.to(drawn)
    for name, rows, columns in (("dense1", 784, 512), ("dense2", 512, 256), ("logits", 256, 10)):
        limit = (6 / (rows + columns)) ** 0.5
        low, high, deviation = found[f"{name}/kernel"]
        assert -limit <= low < -0.99 * limit, name
        assert 0.99 * limit < high <= limit, name
        assert deviation == pytest.approx(limit / 3**0.5, rel=0.03), name
        assert found[f"{name}/bias"] == [0.0, 0.0, 0.0], name


def traces() -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for mode in ("tf-data-batches", "tf-data-samples", "tutorial"):
        backend, found[mode] = _backend(mode, "mnist-softmax"), []
        for steps in (1, 5, 2, 7):
            _train(backend, steps)
            found[mode].append(sum(traced(backend._runner).values()))
    return found


def traced(runner: Any) -> dict[str, int]:
    """Return how often each program of a runner was traced, by its name there."""
    return {
        name: program.experimental_get_tracing_count()
        for name, program in vars(runner).items()
        if hasattr(program, "experimental_get_tracing_count")
    }


def test_the_pipeline_is_traced_once_however_many_steps_come(answers: Answers) -> None:
    assert answers.to(traces) == {
        "tf-data-batches": [1, 1, 1, 1],
        "tf-data-samples": [1, 1, 1, 1],
        "tutorial": [1, 1, 1, 1],
    }


def traces_of_each_mode() -> dict[str, list[int]]:
    found = {}
    images = np.zeros((2000, 28, 28, 1), np.uint8)
    for mode in ("graph", "graph-loop", "xla", "xla-loop"):
        backend = _backend(mode, "mnist-softmax")
        for steps in (1, 5, 2, 103):
            _train(backend, steps)
            backend.predict(images)
        programs = getattr(backend._runner, "_form", backend._runner)
        found[mode] = [traced(programs), backend._logits.experimental_get_tracing_count()]
    return found


def test_training_and_evaluating_are_traced_once_each_in_every_mode(answers: Answers) -> None:
    programs = {"graph": "_step", "graph-loop": "_loop", "xla": "_step", "xla-loop": "_chunk"}
    expected = {mode: [{program: 1}, 1] for mode, program in programs.items()}
    assert answers.to(traces_of_each_mode) == expected


def traces_of_a_cnn_that_is_unrolled() -> dict[str, int]:
    backend = _backend("xla-loop", "mnist-cnn", batch_size=2)
    _train(backend, 1, 5, 2, 8)
    return traced(backend._runner._form)


def test_a_cnn_is_trained_by_a_step_and_by_four_and_in_no_loop_of_xla(answers: Answers) -> None:
    assert answers.to(traces_of_a_cnn_that_is_unrolled) == {"_one": 1, "_several": 1}


def loop_of_a_gpu() -> dict[str, Any]:
    """Train in the loop that a GPU gets, here on the CPU; return what it does and what XLA makes of it."""
    from backends.tensorflow_loops import LOOPED_STEPS
    from backends.tensorflow_steps import CarriedSteps, looped

    batches = np.arange(3800, dtype=np.int32).reshape(38, 100) % 1000
    backend = _backend("xla", "mnist-softmax")
    params = backend.export_params()
    expected = backend.train_steps(batches)
    backend.load_params(params)
    backend._runner = CarriedSteps(backend, jit_compile=True, repeat=looped, call_steps=LOOPED_STEPS)
    losses = backend.train_steps(batches)
    program = backend._runner._several
    text = program.experimental_get_compiler_ir(*program.input_signature)(stage="optimized_hlo")
    return {
        "off by": float(np.abs(losses - expected).max()),
        "traces": traced(backend._runner),
        "loops": len(re.findall(r" while\(", text)),
        "lengths": re.findall(r'"known_trip_count":{"n":"(\d+)"}', text),
    }


def test_xla_knows_the_length_of_the_loop_that_a_gpu_gets(answers: Answers) -> None:
    """Otherwise it would ask the GPU in every step whether another follows."""
    found = answers.to(loop_of_a_gpu)
    assert found["off by"] < 1e-6
    assert found["traces"] == {"_one": 1, "_several": 1}, "two calls of 16 steps, and 6 steps one by one"
    assert (found["loops"], found["lengths"]) == (1, ["16"])


def forms_of_the_loop() -> dict[str, Any]:
    """Return what `xla-loop` trains with: the class, and the steps of a call."""
    from backends import tensorflow_backend as module
    from backends.tensorflow_loops import XlaLoopRunner

    found = {}
    for device in ("cpu", "gpu"):
        for name in ("mnist-softmax", "mnist-cnn"):
            with mock.patch.object(module, "find_device", return_value="/CPU:0"):
                backend = _backend("graph", name)
            backend.device = device
            runner = XlaLoopRunner(backend)
            found[f"{device} {name}"] = [type(runner._form).__name__, runner.call_steps]
    return found


def test_the_loop_of_xla_has_a_form_for_each_device_and_kind_of_network(answers: Answers) -> None:
    assert answers.to(forms_of_the_loop) == {
        "cpu mnist-softmax": ["CountedLoop", 1],
        "cpu mnist-cnn": ["CarriedSteps", 4],
        "gpu mnist-softmax": ["CarriedSteps", 16],
        "gpu mnist-cnn": ["CarriedSteps", 16],
    }


def cut_into_chunks() -> dict[str, float]:
    """Return by how much losses differ where rows stay on the device: sent at once, and in many parts."""
    from backends import tensorflow_steps as module

    order, found = np.random.default_rng(0).integers(0, 1000, (37, 100), np.int32), {}
    for mode in ("graph", "xla"):
        backend = _backend(mode, "mnist-softmax")
        params = backend.export_params()
        expected = backend.train_steps(order)
        for sent in (module.SENT_INDICES, 1):
            with mock.patch.object(module, "SENT_INDICES", sent):
                backend._runner = module.CarriedSteps(backend, jit_compile=mode == "xla")
            backend.load_params(params)
            found[f"{mode}, {sent}"] = float(np.abs(backend.train_steps(order) - expected).max())
    return found


def test_steps_go_on_where_the_next_rows_are_sent(answers: Answers) -> None:
    assert answers.to(cut_into_chunks) == pytest.approx(
        {"graph, 65536": 0.0, "graph, 1": 0.0, "xla, 65536": 0.0, "xla, 1": 0.0}, abs=1e-6
    )


@contextmanager
def made_functions() -> Iterator[list[str]]:
    """Collect the names of the functions of which a tf.function is made meanwhile."""
    from backends.tensorflow_backend import tf

    made: list[str] = []
    make = tf.function

    def recorded(function: Any, **options: Any) -> Any:
        made.append(function.__name__)
        return make(function, **options)

    with mock.patch.object(tf, "function", recorded):
        yield made


def table() -> dict[str, Any]:
    """Return by mode the steps of a call and what a constructor makes tf.functions of, or its refusal."""
    from backends.runners import load_runner
    from bench.errors import UnavailableError

    found: dict[str, Any] = {}
    for mode in (mode.name for mode in INFOS["tensorflow"].modes if not mode.distributed):
        with made_functions() as made:
            runner = _backend(mode)._runner
        assert isinstance(runner, load_runner(INFOS["tensorflow"], mode))
        assert callable(runner.train)
        found[mode] = [runner.call_steps, *made]
    with pytest.raises(UnavailableError) as refused:
        _backend("eager")
    found["eager"] = str(refused.value)
    with pytest.raises(UnavailableError) as refused:
        _backend("tf-data-batches", "notebook-cifar-cnn")
    return {**found, "augmenting in a pipeline": str(refused.value)}


def test_each_mode_of_the_catalogue_has_a_runner_and_makes_no_program_of_another(
    answers: Answers,
) -> None:
    assert answers.to(table) == {
        "graph": [1, "_evaluate", "step"],
        "graph-loop": [1, "_evaluate", "_train_loop"],
        "xla": [1, "_evaluate", "step"],
        "xla-loop": [1, "_evaluate", "_train_chunk"],
        "tf-data-batches": [1, "_evaluate", "update"],
        "tf-data-samples": [1, "_evaluate", "update"],
        "tutorial": [1, "_evaluate", "train_step"],
        "eager": "TensorFlow has no mode 'eager'; it has graph, graph-loop, xla, xla-loop, tf-data-batches, "
        "tf-data-samples, multi-worker, tutorial",
        "augmenting in a pipeline": "mode tf-data-batches of TensorFlow augments no images; graph and xla do",
    }


def augmented_by_number() -> list[float]:
    """Return by how much losses differ if draws stay on the device too, and if they are others."""
    from backends.tensorflow_steps import CarriedSteps

    backend = _backend("graph", "notebook-cifar-cnn", batch_size=4)
    order, params = np.random.default_rng(0).integers(0, 1000, (6, 4), np.int32), backend.export_params()
    changes = backend.workload.augmentation
    drawn = draw(changes, backend.data.info, batch_size=4, seed=1, start=0, steps=6)
    expected = backend.train_steps(order, drawn)
    backend._runner = CarriedSteps(backend, jit_compile=False)
    found = []
    for draws in (drawn, drawn[::-1].copy()):
        backend.load_params(params)
        found.append(float(np.abs(backend.train_steps(order, draws) - expected).max()))
    return found


def test_the_draws_of_a_step_are_read_by_its_number_too(answers: Answers) -> None:
    same, other = answers.to(augmented_by_number)
    assert same < 1e-5 < other


def peak() -> list[float]:
    """Return the peak, and the seconds of finding it, by CPU time: other programs take none of it."""
    backend = _backend()
    with mock.patch.object(time, "perf_counter", time.process_time):
        start = time.perf_counter()
        found = backend.peak()
        return [found.flops_per_s, found.bytes_per_s, time.perf_counter() - start]


def test_the_peak_is_not_that_of_one_element_at_a_time(answers: Answers) -> None:
    """Any CPU of the last decade does a gigaflop a second on one thread, and copies a gigabyte."""
    flops_per_s, bytes_per_s, seconds = answers.to(peak)
    assert flops_per_s > 1e9
    assert bytes_per_s > 1e8
    assert seconds < 60, "it is measured in every job that looks closer, and takes about a second"


def test_xla_compiles_the_loop_once_however_many_steps_come(answers: Answers) -> None:
    assert answers.to(traces_of_each_mode)["xla-loop"], "it has trained in the loop"
    compiled = sorted(path.name for path in answers.dumped.glob("*train_chunk*before_optimizations.txt"))
    assert len(compiled) == 1, compiled


def refused() -> list[str]:
    """Return why no GPU is used, by a build of TensorFlow without CUDA and by one with it."""
    from backends import tensorflow_backend
    from bench.errors import UnavailableError

    found = []
    for built in (False, True):
        with (
            mock.patch.object(tensorflow_backend.tf.test, "is_built_with_cuda", return_value=built),
            pytest.raises(UnavailableError) as error,
        ):
            tensorflow_backend.find_device("gpu")
        found.append(str(error.value))
    return found


def test_the_error_says_why_there_is_no_gpu(answers: Answers) -> None:
    without, with_cuda = answers.to(refused)
    assert without.endswith("this build has no CUDA; install tensorflow[and-cuda] in its place")
    assert "sees no GPU here; its loader " in with_cuda
