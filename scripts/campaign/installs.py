"""Part 8: what an installation of each framework takes, in time and on disk.

    python -m campaign.installs FOLDER FRAMEWORK...

Each gets a new environment, into which pip installs this project with that framework, as constraints.txt pins
it. The time depends on the network and on pip's cache, so it is one observation and no claim. The size is
that of the environment's files.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench import store
from bench.errors import BenchError, RecordError
from campaign.log import now

ROOT = Path(__file__).resolve().parents[2]
FILE = "installs.json"


class Install(msgspec.Struct, frozen=True, kw_only=True):
    """One installation."""

    framework: str
    started_at: str
    seconds: float
    installed_bytes: int
    packages: int


def install(framework: str, scratch: Path) -> Install:
    """Install a framework into a new environment and return what that took; raise RecordError if it fails."""
    started_at, began = now(), time.monotonic()
    environment = scratch / framework
    python = environment / "bin" / "python"
    wanted = ("-c", str(ROOT / "constraints.txt"), f"{ROOT}[{framework}]")
    for command in (
        (sys.executable, "-m", "venv", str(environment)),
        (str(python), "-m", "pip", "install", "--quiet", *wanted),
    ):
        done = subprocess.run(command, check=False)
        if done.returncode:
            raise RecordError(f"{framework} could not be installed, see above.")
    seconds = time.monotonic() - began
    return Install(
        framework=framework,
        started_at=started_at,
        seconds=seconds,
        installed_bytes=size_of(environment),
        packages=len(list(environment.glob("lib/python*/site-packages/*.dist-info"))),
    )


def size_of(folder: Path) -> int:
    """Return the bytes of the files of a folder; a link counts nothing."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def main(folder: Path, frameworks: Sequence[str]) -> None:
    found = []
    for framework in frameworks:
        with tempfile.TemporaryDirectory(prefix="samework-install-") as scratch:
            found.append(install(framework, Path(scratch)))
        print(
            f"{framework}: {found[-1].seconds:.0f} s, {found[-1].installed_bytes / 2**20:,.0f} MiB",
            flush=True,
        )
    store.write_durably(folder / FILE, msgspec.json.format(msgspec.json.encode(found)) + b"\n")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), sys.argv[2:])
    except BenchError as error:
        sys.exit(f"installs: {error}")
