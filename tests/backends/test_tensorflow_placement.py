"""Every operation of a training step has a kernel for GPUs, in every mode of TensorFlow.

TensorFlow places an operation without one on the CPU and says nothing. Here a second CPU plays the GPU, and
`tensorflow_gpu_kernels.json` holds the kernels of a build with CUDA, as `scripts/tensorflow_gpu_kernels.py`
wrote them. What XLA compiles has no kernels and is not looked at.
"""

import json
import re
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import INFOS, in_process

ROOT = Path(__file__).parent.parent.parent
TABLE = json.loads((Path(__file__).parent / "tensorflow_gpu_kernels.json").read_text())
KERNELS = TABLE["kernels"]
HOST, DEVICE = "CPU:0", "CPU:1"

Asked = tuple[str, str, str]
Looks = dict[Asked, list[Any]]
MODES = [mode for mode in INFOS["tensorflow"].modes if not mode.distributed]
LOOKS: list[Asked] = [
    # Softmax regression is compiled soon, and XLA hides the operations of any network.
    *(("mnist-softmax" if mode.name.startswith("xla") else "mnist-cnn", mode.name, "fp32") for mode in MODES),
    ("mnist-cnn", "graph", "bf16"),
    ("notebook-cifar-cnn", "graph", "fp32"),  # it augments its images
    ("notebook-convnet", "graph", "fp32"),  # it trains with RMSProp
]
RUNTIME = {"NoOp", "SyncDevice", "PartitionedCall", "StatefulPartitionedCall"}
"""What starts other operations or waits for them; so does everything whose name begins with `_`."""
COUNTERS = {"BOOL", "INT32", "RESOURCE", "VARIANT"}
"""The types of what a loop counts and keeps: on the host, which starts the operations of every step."""

pytestmark = [pytest.mark.framework("tensorflow"), pytest.mark.long]


def look(asked: list[list[str]]) -> list[list[Any]]:
    """Return for each look what ran: device, operation, and the types of its tensors."""
    sys.path.insert(0, str(ROOT / "scripts"))
    import tensorflow as tf
    from tensorflow_placement import operations_of

    import backends.tensorflow_backend as module
    from bench.measuring.parity import parity_data
    from bench.worker.timed_loop import Batches
    from bench.workloads.catalog import find_workload

    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
    tf.config.optimizer.set_experimental_options({"remapping": False})  # which joins operations of a CPU
    module.find_device = lambda _: "/CPU:1"
    found = []
    for name, mode, precision in asked:
        workload = find_workload(name)
        data = parity_data(workload)
        backend = module.TensorFlowBackend(workload, data, mode=mode, device="gpu", precision=precision)
        batches, steps = Batches(workload, data, seed=0), backend.call_steps + 1
        order, draws = batches.order(0, steps), batches.draws(0, steps)
        ran = operations_of(partial(backend.train_steps, order, *draws))
        found.append([[device, node.op, types_of(node)] for device, node in ran])
    return found


def types_of(node: Any) -> dict[str, str]:
    """Return the types of an operation's tensors, by attribute."""
    from tensorflow.core.framework.types_pb2 import DataType

    types = {key: value.type for key, value in node.attr.items() if value.WhichOneof("value") == "type"}
    return {key: DataType.Name(kind).removeprefix("DT_") for key, kind in types.items()}


@pytest.fixture(scope="module")
def looks() -> Looks:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")  # it gives operations of a CPU other names
        found = in_process(INFOS["tensorflow"], "test_tensorflow_placement:look", LOOKS)
    return dict(zip(LOOKS, found, strict=True))


def lacking(ran: list[Any], mode: str) -> Counter[str]:
    """Count the operations on the device that would run on the host of a GPU, by name and types."""
    found: Counter[str] = Counter()
    for device, operation, types in ran:
        if device != DEVICE or operation in RUNTIME or operation.startswith("_"):
            continue
        if operation == "Shape" or (operation, types) == ("Const", {"dtype": "INT32"}):
            continue  # a shape is known on the host, and constants such as axes are needed there
        if set(types.values()) == {"STRING"}:
            continue  # the name of an iterator
        if mode == "graph-loop" and set(types.values()) <= COUNTERS:
            continue
        assert operation in KERNELS, f"run scripts/tensorflow_gpu_kernels.py {operation}"
        kernels = KERNELS[operation]
        if not any(all(types[key] in kinds for key, kinds in kernel.items()) for kernel in kernels):
            found[" ".join([operation, *(f"{key}={kind}" for key, kind in sorted(types.items()))])] += 1
    return found


@pytest.mark.parametrize("asked", LOOKS, ids=" ".join)
def test_every_operation_of_a_step_has_a_kernel_for_gpus(looks: Looks, asked: Asked) -> None:
    _, mode, _ = asked
    assert any(device == DEVICE for device, *_ in looks[asked]), "nothing ran on the device"
    assert lacking(looks[asked], mode) == {}


@pytest.mark.parametrize("asked", LOOKS, ids=" ".join)
def test_only_an_input_pipeline_computes_on_the_host(looks: Looks, asked: Asked) -> None:
    found = {
        operation
        for device, operation, _ in looks[asked]
        if device != DEVICE and operation not in RUNTIME and not operation.startswith("_")
    }
    pipelines = {mode.name for mode in MODES if mode.pipeline}
    assert bool(found) == (asked[1] in pipelines), found


@pytest.mark.parametrize("mode", ["tf-data-batches", "tf-data-samples"])
def test_batches_are_sent_ahead_of_their_step(looks: Looks, mode: str) -> None:
    ran = [(device, operation) for device, operation, _ in looks["mnist-cnn", mode, "fp32"]]
    assert (DEVICE, "IteratorGetNext") in ran  # an iterator is where its data set ends
    assert (DEVICE, "GatherV2") not in ran


def test_the_table_is_of_the_version_that_is_installed_for_gpus() -> None:
    pinned = re.search(r"^tensorflow==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert TABLE["made"].endswith(f" tensorflow {pinned[1]}"), "run scripts/tensorflow_gpu_kernels.py again"
