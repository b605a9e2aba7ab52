"""The environment variables of a worker: those that it is allowed, and those that measuring needs."""

import os
import random
from pathlib import Path

from backends.info import BackendInfo
from bench.machine.environment import tuning_variables, worker_threads
from bench.machine.visible_gpus import VISIBLE
from bench.workloads.specs import Device

PASSED_VARIABLES = (
    "PATH", "HOME", "USER", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "PYTHONUTF8", "TZ", "PYTHONPATH",
    "XDG_CACHE_HOME",
)  # fmt: skip
"""What a process needs to start. A worker also gets the tuning variables, which are in the run's environment
record, and no others: a figure must not depend on a variable that no record holds."""

KEPT_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
"""Make glibc keep the memory that a step frees, for every framework alike. By default it returns large blocks
to the kernel, and the next step gets them again, zeroed and page by page, which takes a quarter of the time
of a convolutional step in JAX (docs/trials.md)."""

THREADS_VARIABLE = "OMP_NUM_THREADS"
"""It sets the threads of OpenMP, which PyTorch uses, and of the library that computes NumPy's products."""

PADDING_VARIABLE = "SAMEWORK_PADDING"
"""No program reads it. Only its length matters, which is drawn for every process that measures."""
MOST_PADDING = 4096
"""In bytes: a page of memory. The size of the environment shifts what a process places in memory, and that
alone can change its speed by more than the difference of two programs. With one size in all processes of a
row, this would look like a property of the row. With a size of its own in each, it is scatter between blocks,
which the interval covers. Source: Mytkowicz, Diwan, Hauswirth and Sweeney, Producing wrong data without doing
anything obviously wrong! (2009)."""


def worker_environment(
    info: BackendInfo,
    device: Device,
    scratch: Path,
    *,
    hash_seed: int | None = None,
    compiled: Path | None = None,
    threads: int | None = None,
    gpu: str | None = None,
) -> dict[str, str]:
    """Return the environment variables of a worker: those that are allowed, then the backend's own.

    `hash_seed` sets the order of Python's hash tables and the length of the padding.
    `compiled` is the folder for compiled programs. Without it the worker finds none, and what the framework
    writes goes to the scratch folder with its temporary files, which is deleted when the worker has ended.
    `threads` is the size of every pool of threads, whatever the user has set; None: the user's, or what a
    quota allows. `gpu` is the UUID of the only GPU that it sees; None: those that this process sees.
    """
    environment = {name: value for name, value in os.environ.items() if name in PASSED_VARIABLES}
    environment["TMPDIR"] = str(scratch)
    environment["PYTHONSAFEPATH"] = "1"  # its own children must not import from the current folder either
    environment |= KEPT_MEMORY
    if (allowed := worker_threads()) is not None:
        environment |= dict.fromkeys((THREADS_VARIABLE, *info.thread_variables), str(allowed))
    environment |= tuning_variables()  # after the threads, so that what the user has set is kept
    if threads is not None:
        environment |= dict.fromkeys((THREADS_VARIABLE, *info.thread_variables), str(threads))
    if gpu is not None:
        environment[VISIBLE] = gpu
    environment |= info.environment
    if device == "cpu":
        environment |= info.cpu_environment
        environment[VISIBLE] = ""  # a job on the CPU must not even see a GPU
    for name, value in info.caching_environment.items() if compiled else ():
        flags = environment.get(name, "") if name.endswith("_FLAGS") else ""
        environment[name] = f"{flags} {value}".strip()
    if hash_seed is not None:
        environment["PYTHONHASHSEED"] = str(hash_seed)
        environment[PADDING_VARIABLE] = "x" * padding(hash_seed)
    folders = {"{scratch}": scratch, "{compiled}": compiled or scratch / "compiled"}
    for mark, folder in folders.items():
        environment = {name: value.replace(mark, str(folder)) for name, value in environment.items()}
    return environment


def padding(hash_seed: int) -> int:
    """Return by how many bytes a job's environment is padded, from 0 to `MOST_PADDING`.

    It follows from the job's recorded hash seed, so that a process can be repeated as it was.
    """
    return random.Random(hash_seed).randint(0, MOST_PADDING)  # noqa: S311
