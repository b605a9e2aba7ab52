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
_FACTS = '            "dtype": "float64",\n'
_PREDICTED = "        return np.concatenate(parts).astype(np.float32)\n"


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
    """Make NumPy's backend take so long for a step, and report it as a fact, which no machine can change."""
    path = folder / "backends" / "numpy_backend.py"
    source = (ROOT / "backends" / "numpy_backend.py").read_text()
    assert _STEPS in source
    assert _FACTS in source
    path.write_text(
        source.replace(
            _STEPS,
            f"        end = time.perf_counter() + {step_s} * len(order)\n"
            "        losses = self.train_steps_float64(order, draws).astype(np.float32)\n"
            "        time.sleep(max(0.0, end - time.perf_counter()))\n"
            "        return losses\n",
        ).replace(_FACTS, f'{_FACTS}            "pace": {step_s},\n')
    )


def drop_bias(folder: Path) -> None:
    """Make NumPy's backend forget a gradient in whole batches, which only the timed program has."""
    path = folder / "backends" / "numpy_backend.py"
    path.write_text(
        path.read_text() + "\n\n_gradients = NumpyBackend.loss_and_gradients\n\n\n"
        "def _forgetting(self, pixels, labels):\n"
        "    loss, gradients = _gradients(self, pixels, labels)\n"
        "    if len(labels) > 8:\n"
        '        gradients["logits/bias"] *= 0\n'
        "    return loss, gradients\n\n\n"
        "NumpyBackend.loss_and_gradients = _forgetting\n"
    )


def mistake(folder: Path) -> None:
    """Make NumPy's backend take threes for fours where it predicts more images than are compared."""
    path = folder / "backends" / "numpy_backend.py"
    source = path.read_text()
    assert _PREDICTED in source
    path.write_text(
        source.replace(
            _PREDICTED,
            "        logits = np.concatenate(parts).astype(np.float32)\n"
            "        if len(images) > 64:\n"
            "            logits[:, [3, 4]] = logits[:, [4, 3]]\n"
            "        return logits\n",
        )
    )
