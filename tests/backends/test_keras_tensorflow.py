"""What Keras on TensorFlow adds to Keras on any engine: a GPU. One process answers all questions."""

import sys
from typing import Any
from unittest import mock

import numpy as np
import pytest
from conftest import INFOS, in_process

from backends.base import TrainingData
from bench.workloads.catalog import WORKLOADS
from bench.workloads.specs import DatasetInfo

pytestmark = [pytest.mark.framework("keras-tensorflow"), pytest.mark.long]

GPU_DETAILS = {"device_name": "NVIDIA H200", "compute_capability": (9, 0)}
VERSIONS = {"cuda": "12.9", "cudnn": 91002}


def answers(_: None) -> dict[str, Any]:
    from backends import tensorflow_cuda

    imported: list[bool] = []
    record = mock.Mock(side_effect=lambda: imported.append("tensorflow" in sys.modules))
    with mock.patch.multiple(tensorflow_cuda, load_cusolver=record, prefer_ptxas=record):
        from backends import keras_tensorflow

    from backends.tensorflow_device import described_device, tf

    data = TrainingData(
        info=DatasetInfo(name="mnist", image_shape=(28, 28, 1), classes=10),
        images=np.zeros((200, 28, 28, 1), np.uint8),
        labels=np.zeros(200, np.uint8),
    )
    tf32, described = {}, {}
    for precision in ("fp32", "tf32", "bf16"):
        with mock.patch.object(keras_tensorflow, "find_device") as found:
            backend = keras_tensorflow.KerasTensorFlowBackend(
                WORKLOADS["mnist-softmax"], data, mode="fit", device="gpu", precision=precision
            )
        found.assert_called_once_with("gpu")
        tf32[precision] = tf.config.experimental.tensor_float_32_execution_enabled()
    described["cpu"] = backend.describe()
    with (
        mock.patch.object(tf.config, "list_physical_devices", return_value=["a GPU"]),
        mock.patch.object(tf.config.experimental, "get_device_details", return_value=GPU_DETAILS),
        mock.patch.object(tf.config.experimental, "get_memory_info", return_value={"peak": 7, "current": 1}),
        mock.patch("backends.tensorflow_device.loaded_versions", return_value=VERSIONS),
    ):
        described["gpu"] = described_device("/job:localhost/replica:0/task:0/device:GPU:0")
    return {"imported": imported, "tf32": tf32, "described": described}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    told: dict[str, Any] = in_process(INFOS["keras-tensorflow"], "test_keras_tensorflow:answers", None)
    return told


def test_the_cuda_libraries_are_found_before_keras_imports_tensorflow(found: dict[str, Any]) -> None:
    assert found["imported"] == [False, False]


def test_tf32_is_used_if_it_is_asked_for_and_not_by_default(found: dict[str, Any]) -> None:
    assert found["tf32"] == {"fp32": False, "tf32": True, "bf16": False}


def test_a_gpu_is_described_as_tensorflows_own_backend_describes_it(found: dict[str, Any]) -> None:
    cpu, gpu = found["described"]["cpu"], found["described"]["gpu"]
    expected = {"device": "gpu", "device_name": "NVIDIA H200", "tf32": False, "peak_device_bytes": 7}
    assert gpu == expected | VERSIONS
    nothing = dict.fromkeys(gpu, None)
    assert {name: cpu[name] for name in gpu} == nothing | {"device": "cpu", "device_name": "cpu"}
    assert {"keras", "tensorflow", "engine", "jit_compile", "dtype"} <= set(cpu)
    assert cpu["jit_compile"] is False, "Keras's default uses XLA on GPUs alone"


def test_a_gpu_is_offered_on_tensorflow_and_on_no_other_engine() -> None:
    offered = {name: info.gpu_precisions for name, info in INFOS.items() if name.startswith("keras-")}
    assert offered == {"keras-tensorflow": ("fp32", "tf32", "bf16"), "keras-torch": (), "keras-jax": ()}
