"""Keras's `fit` on TensorFlow, on the CPU or on a GPU."""

from backends.tensorflow_cuda import load_cusolver, prefer_ptxas

load_cusolver()  # both before Keras imports TensorFlow
prefer_ptxas()

from backends.keras_backend import KerasBackend
from backends.tensorflow_device import described_device, find_device, set_precision
from bench.workloads.specs import Device, Precision


class KerasTensorFlowBackend(KerasBackend):
    """As `KerasBackend`. TensorFlow places every operation on the GPU if the job sees one."""

    def use(self, device: Device, precision: Precision) -> None:
        find_device(device)
        set_precision(precision)

    def describe(self) -> dict[str, str | int | float | bool | None]:
        return super().describe() | described_device(self.device_of_parameters())
