"""`nox -s benchmarks` on sides whose speed is given, because its own duels take too long for tests."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fakes import python_path

TESTS = Path(__file__).parent
TEST = "test_a_backend_is_as_fast_as_a_loop_by_hand"
DUELS = {
    "mnist-softmax-100": ((1.02, 9), 1.0),
    "mnist-softmax-512": ((1.2, 1.0), 1.0),
    "mnist-mlp-100": ((1.04, 1.04), 1.1),
    "mnist-mlp-512": ((1.2, 1.04), 1.1),
    "mnist-cnn-100": ((1.2, 1.1), 1.0),
}
"""Of each cell by how much its backend is slower, process by process; from turn to turn it is by the last
factor slower than that, and as much faster."""
PLUGIN = """
import itertools
import json
import os

import pytest

DUELS = json.loads(os.environ["DUELS"])


class Said:
    '''A duel whose backend is so much slower than its loop by hand, process by process, and wavers.'''

    batch = 100

    def __init__(self, cell, scratch):
        left, wavers = DUELS[f"{cell['workload']}-{cell['batch']}"]
        slower = left.pop(0)
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


class Duelled(NamedTuple):
    passed: bool
    lines: list[str]
    """Of the table."""
    saved: dict[str, Any]
    """`extra_info` of the benchmark; empty where it failed."""


@pytest.fixture(scope="module")
def duelled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Duelled]:
    """Run pytest once and return the message for each duel."""
    folder = tmp_path_factory.mktemp("duels")
    (folder / "said.py").write_text(PLUGIN)
    # Of a suite that runs in parallel, else pytest-benchmark takes it for a worker and measures nothing.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    cells = {name: f"{TESTS / 'benchmarks' / 'throughput.py'}::{TEST}[{name}-torch-eager]" for name in DUELS}
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", *cells.values(), "-v", "-p", "said", "-p", "no:randomly",
            "-p", "no:cacheprovider", "--benchmark-json=saved.json",
        ],
        check=False, capture_output=True, text=True, timeout=300, cwd=folder,
        env=inherited | {"DUELS": json.dumps(DUELS), "PYTHONPATH": python_path(folder)},
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    saved = {
        one["name"]: one["extra_info"]
        for one in json.loads((folder / "saved.json").read_text())["benchmarks"]
    }
    return {
        name: Duelled(
            passed=any(f"[{name}-torch-eager] PASSED" in line for line in lines),
            lines=[line for line in lines if line.startswith(f"{name}-torch-eager")],
            saved=saved.get(f"{TEST}[{name}-torch-eager]", {}),
        )
        for name in DUELS
    }


def test_what_reaches_its_bound_meets_once(duelled: dict[str, Duelled]) -> None:
    passed, lines, saved = duelled["mnist-softmax-100"]
    assert (passed, len(lines)) == (True, 1)
    assert lines[0].split()[1:4] == ["98,039", "100,000", "0.980"]
    assert saved["ratio"] == pytest.approx(1 / 1.02)
    assert "again" not in saved


def test_what_lies_below_its_bound_meets_again_elsewhere(duelled: dict[str, Duelled]) -> None:
    passed, lines, saved = duelled["mnist-softmax-512"]
    assert (passed, len(lines)) == (True, 2)
    assert lines[0].endswith("below")
    assert lines[1].startswith("mnist-softmax-512-torch-eager, again ")
    assert not lines[1].endswith("below")
    assert saved["ratio"] == pytest.approx(1 / 1.2)
    assert saved["again"]["ratio"] == pytest.approx(1.0)


def test_what_does_not_surely_lie_below_meets_again_and_passes(duelled: dict[str, Duelled]) -> None:
    passed, lines, saved = duelled["mnist-mlp-100"]
    assert (passed, len(lines)) == (True, 2)
    assert all(line.endswith("not surely") for line in lines)
    assert saved["ratio"] < saved["bound"] < saved["high"]


def test_what_once_lies_surely_below_and_once_perhaps_passes(duelled: dict[str, Duelled]) -> None:
    passed, lines, _ = duelled["mnist-mlp-512"]
    assert (passed, len(lines)) == (True, 2)
    assert lines[0].endswith("  below")
    assert lines[1].endswith("not surely")


def test_what_lies_below_its_bound_in_both_fails(duelled: dict[str, Duelled]) -> None:
    passed, lines, _ = duelled["mnist-cnn-100"]
    assert (passed, len(lines)) == (False, 2)
    assert all(line.endswith("below") for line in lines)
