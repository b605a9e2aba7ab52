# /// script
# dependencies = ["tensorflow[and-cuda]==2.21.0", "msgspec", "packaging"]
# ///
"""Show that TensorFlow 2.21.0 from pip finds no GPU unless cuSOLVER is loaded first.

Needs a C compiler, and no GPU.

Two small libraries stand in for the NVIDIA driver and claim one GPU. TensorFlow then opens its CUDA
libraries as it does on a machine with a GPU. The exit status is 1 if it finds the GPU only after
`load_cusolver`, and else 0.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

DRIVER = """
#include <string.h>
int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int index) { *device = 0; return 0; }
int cuDeviceGetName(char *name, int length, int device) { strcpy(name, "no GPU"); return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = 9; return 0; }
int cuDeviceTotalMem_v2(unsigned long *bytes, int device) { *bytes = 1ul << 34; return 0; }
int cuDeviceGetPCIBusId(char *id, int length, int device) { strcpy(id, "0"); return 0; }
"""
NVML = """
#include <string.h>
int nvmlInit(void) { return 0; }
int nvmlInit_v2(void) { return 0; }
int nvmlSystemGetDriverVersion(char *version, unsigned length) { strcpy(version, "580.65.06"); return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 1; return 0; }
"""
COUNT = "import tensorflow as tf; print('GPUs:', len(tf.config.list_physical_devices('GPU')))"
PRELOAD = "from backends.tensorflow_cuda import load_cusolver; load_cusolver(); "


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        for name, source in (("libcuda.so.1", DRIVER), ("libnvidia-ml.so.1", NVML)):
            command = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(Path(folder) / name)]
            subprocess.run(command, input=source, text=True, check=True)
        root = Path(__file__).parent.parent.parent
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": folder,
            "PYTHONPATH": str(root),
            "TF_CPP_VMODULE": "dso_loader=1",
        }
        found = []
        for what, code in (("as it comes", COUNT), ("cuSOLVER loaded first", PRELOAD + COUNT)):
            done = subprocess.run(
                [sys.executable, "-P", "-c", code],
                env=environment,
                text=True,
                capture_output=True,
                check=True,
            )
            found.append(done.stdout.strip())
            missing = [line for line in done.stderr.splitlines() if "Could not load dynamic library" in line]
            print(f"{what}: {found[-1]}", *missing, sep="\n  ")
    return int(found == ["GPUs: 0", "GPUs: 1"])


if __name__ == "__main__":
    sys.exit(main())
