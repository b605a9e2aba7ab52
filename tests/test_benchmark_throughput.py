"""What `nox -s benchmarks` says of sides whose speed is given: its duels are too long for the tests."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes import python_path

TESTS = Path(__file__).parent
CELL = "mnist-softmax-100-torch-eager"
PLUGIN = """
import itertools
import os

import pytest

SLOWER = [float(one) for one in os.environ["SLOWER"].split()]


class Said:
    '''A duel whose backend is so much slower than its loop by hand, process by process, and wavers.'''

    batch = 100

    def __init__(self, cell, scratch):
        slower, wavers = SLOWER.pop(0), float(os.environ["WAVERS"])
        self.slower = itertools.cycle([slower * wavers, slower / wavers])
        self.step_s, self.call_steps = {}, {}

    def make(self, mode):
        self.call_steps[mode] = 1
        self.step_s |= {(side, mode): 0.001 for side in ("backend", "by hand")}

    def train(self, side, mode, steps):
        return steps * 0.001 * (next(self.slower) if side == "backend" else 1)

    def close(self):
        pass


@pytest.hookimpl
def pytest_collection_finish(session):
    for item in session.items:
        item.module.Duel = Said
"""


def duelled(folder: Path, *slower: float, wavers: float = 1.0) -> "tuple[int, list[str], dict[str, Any]]":
    """Return the status, the lines of the table and `extra_info` of a cell whose processes are so slow.

    From turn to turn a backend is by the factor `wavers` slower than that, and as much faster.
    """
    (folder / "said.py").write_text(PLUGIN)
    # Of a suite that runs in parallel, else pytest-benchmark takes it for a worker and measures nothing.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment = inherited | {
        "SLOWER": " ".join(map(str, slower)),
        "WAVERS": str(wavers),
        "PYTHONPATH": python_path(folder),
    }
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", str(TESTS / "benchmarks" / "throughput.py"), "-k", CELL,
            "-p", "said", "-p", "no:randomly", "-p", "no:cacheprovider", "--benchmark-json=saved.json",
        ],
        check=False, capture_output=True, text=True, timeout=60, cwd=folder, env=environment,
    )  # fmt: skip
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith(CELL)]
    (saved,) = json.loads((folder / "saved.json").read_text())["benchmarks"] or [{"extra_info": {}}]
    return done.returncode, lines, saved["extra_info"]


def test_what_reaches_its_bound_meets_once(tmp_path: Path) -> None:
    status, lines, saved = duelled(tmp_path, 1.02, 9)
    assert (status, len(lines)) == (0, 1)
    assert lines[0].split()[1:4] == ["98,039", "100,000", "0.980"]
    assert saved["ratio"] == pytest.approx(1 / 1.02)
    assert "again" not in saved


def test_what_lies_below_its_bound_meets_again_elsewhere(tmp_path: Path) -> None:
    status, lines, saved = duelled(tmp_path, 1.2, 1.0)
    assert (status, len(lines)) == (0, 2)
    assert lines[0].endswith("below")
    assert lines[1].startswith(f"{CELL}, again ")
    assert not lines[1].endswith("below")
    assert saved["ratio"] == pytest.approx(1 / 1.2)
    assert saved["again"]["ratio"] == pytest.approx(1.0)


def test_what_does_not_surely_lie_below_meets_again_and_passes(tmp_path: Path) -> None:
    status, lines, saved = duelled(tmp_path, 1.04, 1.04, wavers=1.1)
    assert (status, len(lines)) == (0, 2)
    assert all(line.endswith("not surely") for line in lines)
    assert saved["ratio"] < saved["bound"] < saved["high"]


def test_what_once_lies_surely_below_and_once_perhaps_passes(tmp_path: Path) -> None:
    status, lines, _ = duelled(tmp_path, 1.2, 1.04, wavers=1.1)
    assert (status, len(lines)) == (0, 2)
    assert lines[0].endswith("  below")
    assert lines[1].endswith("not surely")


def test_what_lies_below_its_bound_in_both_fails(tmp_path: Path) -> None:
    status, lines, _ = duelled(tmp_path, 1.2, 1.1)
    assert (status, len(lines)) == (1, 2)
    assert all(line.endswith("below") for line in lines)
