"""Repositories of this program for tests, in which NumPy's backend trains at a pace that is chosen."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
COPIED = (
    "bench",
    "backends",
    "docs/ci",
    ".github",
    ".gitignore",
    "pyproject.toml",
    "constraints.txt",
    "README.md",
    "LICENSE",
)
_STEPS = "        return self.train_steps_float64(order, draws).astype(np.float32)\n"
_LABELS = "            losses[row] = self._train_on(pixels, self._data.labels[batch])\n"


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def commit(folder: Path, name: str) -> None:
    """Commit all there is, and give the commit a branch of that name."""
    git(folder, "add", ".")
    git(folder, "commit", "-q", "--allow-empty", "-m", name)
    git(folder, "branch", "-f", name)


def make_repository(folder: Path) -> Path:
    """Return a folder with this program in a new repository, without a commit yet."""
    for name in COPIED:
        source, target = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    git(folder, "init", "-q", "-b", "main")
    return folder


def set_pace(folder: Path, step_s: float) -> None:
    """Make NumPy's backend take so long for a step, which a busy machine does not disturb."""
    path = folder / "backends" / "numpy_backend.py"
    source = (ROOT / "backends" / "numpy_backend.py").read_text()
    assert _STEPS in source
    path.write_text(
        source.replace(
            _STEPS,
            f"        end = time.perf_counter() + {step_s} * len(order)\n"
            "        losses = self.train_steps_float64(order, draws).astype(np.float32)\n"
            "        time.sleep(max(0.0, end - time.perf_counter()))\n"
            "        return losses\n",
        )
    )


def mislabel(folder: Path) -> None:
    """Make NumPy's backend take threes for fours where it trains whole batches, which parity does not do."""
    path = folder / "backends" / "numpy_backend.py"
    source = path.read_text()
    assert _LABELS in source
    path.write_text(
        source.replace(
            _LABELS,
            "            labels = self._data.labels[batch]\n"
            "            if len(batch) > 8:\n"
            "                labels = np.where(labels == 3, 4, labels).astype(np.uint8)\n"
            "            losses[row] = self._train_on(pixels, labels)\n",
        )
    )
