"""What `torch.compile` needs beside PyTorch: a compiler, and a folder from which code may run."""

import os
import shutil
import sysconfig
from pathlib import Path

from bench.errors import UnavailableError


def require_toolchain(mode: str, *, gpu: bool) -> None:
    """Raise UnavailableError, with the remedy, if a compiled mode of PyTorch cannot run here.

    On a CPU, Inductor calls a C++ compiler: `$CXX`, else g++. On a GPU, Triton calls a C compiler: `$CC`,
    else gcc or clang. Both need Python's headers, and load what they have compiled from
    `$TORCHINDUCTOR_CACHE_DIR`.
    """
    variable, usual = ("CC", ("gcc", "clang")) if gpu else ("CXX", ("g++",))
    named = os.environ.get(variable)
    if not any(shutil.which(name) for name in ((named,) if named else usual)):
        language = "C" if gpu else "C++"
        what = f"{variable} is {named}, which is not found" if named else f"{usual[0]} is not found"
        raise UnavailableError(
            f"mode {mode} of PyTorch needs a {language} compiler, and {what}: install {usual[0]} "
            f"(apt-get install {usual[0]}), or name another one with {variable}"
        )
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.is_file():
        raise UnavailableError(
            f"mode {mode} of PyTorch compiles an extension of Python, and {header} is not found: install "
            "Python's headers (apt-get install python3-dev)"
        )
    folder = Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR", ""))
    if is_noexec(folder):
        raise UnavailableError(
            f"mode {mode} of PyTorch runs code that it compiles into a temporary folder, and {folder} is on "
            "a file system mounted with noexec: set TMPDIR to a folder on another one"
        )


def is_noexec(folder: Path) -> bool:
    """Return whether the file system of a folder, which need not exist yet, is mounted with noexec."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return bool(os.statvfs(folder).f_flag & os.ST_NOEXEC)
