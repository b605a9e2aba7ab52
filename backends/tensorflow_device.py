"""The device that TensorFlow computes on: its name, and what is known of it."""

import tensorflow as tf

from backends.tensorflow_cuda import loaded_versions, why_no_gpu
from bench.errors import UnavailableError
from bench.workloads.specs import Device, Precision

Facts = dict[str, str | int | float | bool | None]


def find_device(device: Device) -> str:
    """Return TensorFlow's name of the device; raise UnavailableError if TensorFlow does not see it."""
    if device == "gpu" and not tf.config.list_physical_devices("GPU"):
        if not tf.test.is_built_with_cuda():
            raise UnavailableError(
                f"TensorFlow {tf.__version__} sees no GPU here: this build has no CUDA; "
                "install tensorflow[and-cuda] in its place"
            )
        raise UnavailableError(f"TensorFlow {tf.__version__} sees no GPU here; {why_no_gpu()}")
    return f"/{device.upper()}:0"


def set_precision(precision: Precision) -> None:
    """Allow TF32 only in `tf32`; TensorFlow and XLA obey the same switch."""
    tf.config.experimental.enable_tensor_float_32_execution(precision == "tf32")


def described_device(name: str) -> Facts:
    """Return what is known of a device, by TensorFlow's name for it."""
    if "GPU" not in name.upper():
        facts: Facts = {"device": "cpu", "device_name": "cpu", "tf32": None, "cuda": None, "cudnn": None}
        return facts | {"peak_device_bytes": None}
    details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
    return {
        "device": "gpu",
        "device_name": details.get("device_name", "gpu"),
        "tf32": tf.config.experimental.tensor_float_32_execution_enabled(),
        **loaded_versions(),
        "peak_device_bytes": tf.config.experimental.get_memory_info("GPU:0")["peak"],
    }
