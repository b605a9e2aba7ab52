"""Help TensorFlow find its CUDA libraries, and find out why it sees no GPU."""

import ctypes
import importlib.util
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

_CUSOLVER = "libcusolver.so.11"
_REASONS = re.compile(
    r"^[IWEF]\d{4} .*?\] "
    r"(.*(?:Could not load dynamic library|failed call to|CUDA error|Ignoring visible gpu).*)"
)
"""The lines of TensorFlow's log that give a reason, which follows their mark, time and place."""
_GENERAL = "Cannot dlopen some GPU libraries"
_LIST_GPUS = """
import sys
sys.path[:] = {path!r}
from backends.tensorflow_backend import tf
tf.config.list_physical_devices("GPU")
"""
_SHOW_LOG = {"TF_CPP_MIN_LOG_LEVEL": "0", "TF_CPP_VMODULE": "dso_loader=1"}
"""What makes TensorFlow name each library that it could not load, which it does not do by default."""
_LIMIT_S = 120.0


def load_cusolver() -> None:
    """Load cuSOLVER from its own wheel, so that TensorFlow, which is imported next, finds it.

    TensorFlow 2.21.0 opens the CUDA libraries from `libtensorflow_framework.so.2`. The RUNPATH of that file
    names the wheels of cuBLAS, cuDNN, cuFFT and cuSPARSE but not the one of cuSOLVER (`readelf -d` shows it),
    and without cuSOLVER TensorFlow uses no GPU. The dynamic linker takes a library that is loaded already.
    LD_LIBRARY_PATH does not help: it would mix the libraries of CUDA 12 and CUDA 13.

    It does nothing if the job must see no GPU, or if the wheel is not installed.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return
    with suppress(ModuleNotFoundError, OSError):  # TensorFlow's own loader says what is missing
        wheel = importlib.util.find_spec("nvidia.cusolver")
        for folder in (wheel.submodule_search_locations or ()) if wheel else ():
            ctypes.CDLL(str(Path(folder) / "lib" / _CUSOLVER))


def why_no_gpu() -> str:
    """Return the reasons that TensorFlow's log gives, in one line.

    Workers hide TensorFlow's log, so a child process that shows it looks for GPUs once more.
    """
    try:
        child = subprocess.run(
            [sys.executable, "-P", "-c", _LIST_GPUS.format(path=sys.path)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_LIMIT_S,
            env={**os.environ, **_SHOW_LOG},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"its loader could not be asked: {error}"
    return quoted_reasons(child.stderr)


def quoted_reasons(log: str) -> str:
    """Return the lines of a log that say why no GPU is used, joined, without their mark, time and place."""
    found = [match[1] for line in log.splitlines() if (match := _REASONS.match(line))]
    said = dict.fromkeys(line.partition("; LD_LIBRARY_PATH:")[0].strip() for line in found)
    if said:
        return f"its loader says: {'; '.join(said)}"
    if _GENERAL in log:
        return f"its loader says: {_GENERAL}"
    return "its loader gives no reason"
