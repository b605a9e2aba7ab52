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
_PTXAS_WHEELS = ("nvidia.cuda_nvcc", "nvidia.cu13")
"""The packages of the wheels nvidia-cuda-nvcc-cu12 and nvidia-cuda-nvcc (CUDA 13)."""
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
    if _sees_no_gpu():
        return
    for folder in _folders_of("nvidia.cusolver"):
        with suppress(OSError):  # TensorFlow's own loader says what is missing
            ctypes.CDLL(str(folder / "lib" / _CUSOLVER))


def prefer_ptxas() -> None:
    """Put the assembler `ptxas` of the CUDA wheels first on PATH.

    XLA runs the `ptxas` that it finds on PATH, and looks in the wheels only if there is none
    (xla/stream_executor/cuda/subprocess_compilation.cc). One that the system installed may be too old for the
    GPU or for the code that XLA writes.

    It does nothing if the job must see no GPU, or if no wheel has a `ptxas`.
    """
    if _sees_no_gpu():
        return
    folders = [folder / "bin" for name in _PTXAS_WHEELS for folder in _folders_of(name)]
    found = [str(folder) for folder in folders if (folder / "ptxas").is_file()]
    if found:
        os.environ["PATH"] = os.pathsep.join([found[0], *filter(None, [os.environ.get("PATH")])])


def _sees_no_gpu() -> bool:
    return os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")


def _folders_of(package: str) -> list[Path]:
    """Return the folders of a package of NVIDIA's wheels; none if it is not installed."""
    try:
        found = importlib.util.find_spec(package)
    except ModuleNotFoundError:  # no wheel of NVIDIA is installed
        return []
    return [Path(folder) for folder in (found.submodule_search_locations or ())] if found else []


def loaded_versions(maps: Path = Path("/proc/self/maps")) -> dict[str, str | int | None]:
    """Return the versions of CUDA's runtime, such as 12.9, and of cuDNN, such as 91002, in this process.

    They are the libraries' own answers; None for a library that is not loaded. `maps` lists the files that
    the process has mapped.
    """
    cuda, cudnn = _loaded("libcudart.so", maps), _loaded("libcudnn.so", maps)
    return {
        "cuda": _runtime_version(cuda) if cuda else None,
        "cudnn": _cudnn_version(cudnn) if cudnn else None,
    }


def _loaded(name: str, maps: Path) -> ctypes.CDLL | None:
    """Return the loaded library whose file's name begins so."""
    try:
        lines = maps.read_text().splitlines()
    except OSError:  # there is no such file, as outside Linux
        return None
    paths = (Path(line.split(maxsplit=5)[5]) for line in lines if len(line.split(maxsplit=5)) == 6)
    path = next((path for path in paths if path.name.startswith(name)), None)
    return ctypes.CDLL(str(path)) if path else None


def _runtime_version(library: ctypes.CDLL) -> str | None:
    version = ctypes.c_int()  # 12090 for 12.9
    if library.cudaRuntimeGetVersion(ctypes.byref(version)) != 0:
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def _cudnn_version(library: ctypes.CDLL) -> int:
    library.cudnnGetVersion.restype = ctypes.c_size_t
    return int(library.cudnnGetVersion())


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
