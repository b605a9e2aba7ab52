"""The files in examples/: each runs alone, and computes what the reference does from the same weights."""

import ast
import importlib
import os
import subprocess
import sys
import tokenize
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from conftest import INFOS, in_process

from backends.base import TrainingData
from backends.numpy_backend import NumpyBackend
from bench.datasets.cache import load_sample
from bench.datasets.idx import write_idx
from bench.run.report.course_code import code_lines, cut
from bench.workloads.batches import BatchOrder
from bench.workloads.catalog import WORKLOADS
from bench.workloads.parameters import initial_params
from bench.workloads.specs import OptimizerSpec

EXAMPLES = Path(__file__).parent.parent / "examples"
OF_FRAMEWORK = {"tensorflow": "mnist_tensorflow", "torch": "mnist_pytorch", "jax": "mnist_jax"}
MAY_IMPORT = {
    "tensorflow": {"tensorflow", "keras", "numpy"},
    "torch": {"torch", "numpy"},
    "jax": {"jax", "flax", "optax", "numpy"},
}
WORKLOAD = WORKLOADS["mnist-cnn"]
IMAGES = 400
"""Four batches."""
TOLERANCE = 1e-5
"""Of a loss, relative. In float32 the four losses are off by 1e-7; a rate that is 1 % off changes the last by
1e-4. Over many steps the workload's full rate would amplify rounding (docs/design.md)."""
LONGEST = 115
"""The most lines of code in a file that a lecturer hands out."""

frameworks = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.framework(name)) for name in OF_FRAMEWORK]
)


def folder_of_mnist(folder: Path) -> Path:
    write_idx(load_sample("mnist"), folder)
    return folder


def first_losses(argument: dict[str, Any]) -> dict[str, Any]:
    """Train the example on the first images of the sample; called in a process of its own."""
    sys.path.insert(0, str(EXAMPLES))
    example = importlib.import_module(argument["module"])
    folder = Path(argument["folder"])
    images = example.read_idx(folder, "train-images")[:IMAGES]
    labels = example.read_idx(folder, "train-labels")[:IMAGES]
    model = example.make_model()
    before = example.accuracy(model, images, labels)
    losses = example.train_epoch(model, images, labels, 0)
    return {"losses": losses, "before": before, "after": example.accuracy(model, images, labels)}


def reference() -> tuple[list[float], float, float]:
    """Return the losses of the float64 reference, and its accuracy before and after."""
    sample = load_sample("mnist", IMAGES)
    data = TrainingData(info=sample.info, images=sample.train_images, labels=sample.train_labels)
    backend = NumpyBackend(WORKLOAD, data, mode="float64", device="cpu", precision="fp32")
    backend.load_params(initial_params(WORKLOAD.architecture, sample.info, seed=0))
    order = BatchOrder(images=IMAGES, batch_size=WORKLOAD.batch_size, seed=0)

    def accuracy() -> float:
        return float((backend.predict(data.images).argmax(axis=1) == data.labels).mean())

    before = accuracy()
    losses = backend.train_steps(order.epoch(0)).tolist()
    return losses, before, accuracy()


@pytest.fixture(scope="module")
def expected() -> tuple[list[float], float, float]:
    return reference()


@frameworks
def test_an_example_computes_what_the_reference_computes(
    name: str, expected: tuple[list[float], float, float], tmp_path: Path
) -> None:
    argument = {"module": OF_FRAMEWORK[name], "folder": str(folder_of_mnist(tmp_path))}
    found = in_process(INFOS[name], "test_examples:first_losses", argument)
    losses, before, after = expected
    assert len(found["losses"]) == IMAGES // WORKLOAD.batch_size
    np.testing.assert_allclose(found["losses"], losses, rtol=TOLERANCE)
    assert found["before"] == before
    assert found["after"] == pytest.approx(after, abs=2 / IMAGES), "one image may fall on the other side"


def test_a_wrong_rate_would_be_seen(expected: tuple[list[float], float, float]) -> None:
    """The tolerance is narrower than what a rate that is 1 % off changes."""
    sample = load_sample("mnist", IMAGES)
    data = TrainingData(info=sample.info, images=sample.train_images, labels=sample.train_labels)
    wrong = msgspec.structs.replace(WORKLOAD, optimizer=OptimizerSpec(name="sgd", learning_rate=0.099))
    backend = NumpyBackend(wrong, data, mode="float64", device="cpu", precision="fp32")
    backend.load_params(initial_params(wrong.architecture, sample.info, seed=0))
    losses = backend.train_steps(BatchOrder(images=IMAGES, batch_size=100, seed=0).epoch(0))
    assert not np.allclose(losses, expected[0], rtol=TOLERANCE)


@frameworks
def test_an_example_runs_from_the_command_line(name: str, tmp_path: Path) -> None:
    """Start it as a reader does: as a script, in another folder, without this program on the path."""
    folder = folder_of_mnist(tmp_path / "data")
    done = in_process(
        INFOS[name], "test_examples:as_script", {"module": OF_FRAMEWORK[name], "folder": str(folder)}
    )
    assert done["status"] == 0, done["err"]
    assert done["out"].startswith("epoch 1: loss ")
    assert "test accuracy" in done["out"]


def as_script(argument: dict[str, Any]) -> dict[str, Any]:
    """Start an example with the variables of this process but without its PYTHONPATH."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    script = EXAMPLES / f"{argument['module']}.py"
    done = subprocess.run(
        [sys.executable, str(script), argument["folder"]], check=False, capture_output=True, text=True,
        cwd=argument["folder"], env=environment, timeout=280,
    )  # fmt: skip
    return {"status": done.returncode, "out": done.stdout, "err": done.stderr[-2000:]}


@pytest.mark.parametrize("name", OF_FRAMEWORK)
def test_an_example_imports_its_framework_and_numpy_alone(name: str) -> None:
    source = (EXAMPLES / f"{OF_FRAMEWORK[name]}.py").read_text()
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).partition(".")[0])
    assert imported - sys.stdlib_module_names == MAY_IMPORT[name]


@pytest.mark.parametrize("name", OF_FRAMEWORK)
def test_an_example_is_short(name: str) -> None:
    with tokenize.open(EXAMPLES / f"{OF_FRAMEWORK[name]}.py") as file:
        assert code_lines(file.read()) <= LONGEST


def test_no_example_hides_a_package() -> None:
    """A script's folder comes first on the path: examples/torch.py would be imported in place of torch."""
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert names == set(OF_FRAMEWORK.values())
    hidden = set().union(*MAY_IMPORT.values()) | set(sys.stdlib_module_names)
    assert not names & hidden


def test_the_examples_share_what_is_no_framework() -> None:
    """What reads the files and draws the weights is the same text in each."""
    sources = [(EXAMPLES / f"{module}.py").read_text() for module in OF_FRAMEWORK.values()]
    for shared in ("read_idx", "glorot"):
        texts = {cut(source, shared) for source in sources}
        assert len(texts) == 1, shared
        assert texts != {None}
