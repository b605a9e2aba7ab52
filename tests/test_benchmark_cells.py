"""The cells as benchmarks of pytest-benchmark: run as a user would, saved, compared and drawn."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import fakes
import numpy as np
import pytest
from fakes import distribution, python_path, whole_mnist

pytestmark = pytest.mark.measures

TESTS = Path(__file__).parent
CELLS = "tests/benchmarks/cells.py"
TAUGHT = (("jax", "jit"), ("tensorflow", "graph"), ("torch", "eager"))
STEP_S = fakes.STEP_S / 2  # of fakes.Quick
STOPS = """
from fakes import Quick, info


class Stops(Quick):
    longest = 0

    def train_steps(self, order):
        if len(order) < self.longest:
            raise RuntimeError("no further")  # windows of the warm-up grow: this comes after it
        self.longest = len(order)
        return super().train_steps(order)
"""


def faked(folder: Path, **classes: str) -> Path:
    """Install backends in a folder, by name, each with its class, which may be one of tests/fakes.py."""
    lines = [f"{name} = info({name!r}, {target!r})" for name, target in classes.items()]
    distribution(folder, {name: f"entries:{name}" for name in classes} | {"absent": "fakes:ABSENT"})
    (folder / "entries.py").write_text("\n".join([STOPS, *lines, ""]))
    return folder


class Pytest:
    """Runs the cells of mnist-softmax in a process of its own, with played workers and their clock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._data = whole_mnist(folder / "data")

    def __call__(self, backends: Path, *options: str) -> "subprocess.CompletedProcess[str]":
        # Of a suite that runs in parallel, else pytest-benchmark takes it for a worker and measures nothing.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        environment = inherited | {"BENCH_DATA": str(self._data), "BENCH_GPU": "0"}
        environment["PYTHONPATH"] = python_path(backends)
        return subprocess.run(
            [
                sys.executable, "-m", "pytest", str(TESTS.parent / CELLS), "-p", "no:randomly",
                "-p", "no:cacheprovider", "-p", "play_workers", "--benchmark-max-time=0.3", *options,
            ],
            check=False, capture_output=True, text=True, timeout=500, cwd=self.folder, env=environment,
        )  # fmt: skip

    def saved(self, name: str) -> list[dict[str, Any]]:
        (path,) = (self.folder / ".benchmarks").glob(f"*/*_{name}.json")
        found: list[dict[str, Any]] = json.loads(path.read_text())["benchmarks"]
        return found


class Based(NamedTuple):
    run: Pytest
    backends: Path
    first: "subprocess.CompletedProcess[str]"


@pytest.fixture(scope="module")
def based(tmp_path_factory: pytest.TempPathFactory) -> Based:
    """Run one backend that is sound beside some that are not, and save and draw it."""
    run = Pytest(tmp_path_factory.mktemp("cells"))
    backends = faked(
        run.folder / "first",
        sound="fakes:Quick",
        raises="fakes:Raises",
        stops="entries:Stops",
        ends="fakes:EndsBadly",
    )
    chosen = "mnist-softmax and (sound or raises or stops or ends or absent)"
    picture = f"--benchmark-histogram={run.folder / 'drawn'}"
    return Based(run, backends, run(backends, "-k", chosen, "--benchmark-save=base", picture))


def test_a_cell_that_fails_is_not_saved(based: Based) -> None:
    assert based.first.returncode == 1
    for said in (
        "failed: ValueError: shapes",
        "failed: RuntimeError: no further",
        "crashed: the process ended with status 9",
        "absent: not installed: no-such-framework or no-such-twin\n",
        "2 failed, 1 passed, 1 skipped",
        "1 error in",
    ):
        assert said in based.first.stdout, based.first.stdout
    assert [saved["params"]["backend"] for saved in based.run.saved("base")] == ["sound"]


def test_a_cell_is_saved_with_what_it_was(based: Based) -> None:
    (saved,) = based.run.saved("base")
    assert saved["fullname"] == f"{CELLS}::test_step[mnist-softmax-sound-only-cpu-fp32-100]"
    assert saved["group"] == "mnist-softmax"
    assert saved["params"] == {
        "workload": "mnist-softmax", "backend": "sound", "mode": "only", "device": "cpu", "precision": "fp32",
        "batch": 100,
    }  # fmt: skip
    info = saved["extra_info"]
    assert info["batch_size"] == 100
    assert info["versions"] == {"numpy": np.__version__}
    assert info["first_step_s"] >= STEP_S
    assert info["peak_rss_bytes"] > 1e7
    assert 100 / saved["stats"]["max"] <= info["samples_per_s"] <= 100 / saved["stats"]["min"]


def test_what_is_recorded_is_a_step_by_the_workers_clock(based: Based) -> None:
    (saved,) = based.run.saved("base")
    assert saved["stats"]["rounds"] >= 5
    assert saved["extra_info"]["steps"] > 1
    # The lead before a window, which does not count, would make it a fifth longer, and all else longer still.
    assert STEP_S <= saved["stats"]["min"] < 1.1 * STEP_S


def test_a_histogram_is_drawn(based: Based) -> None:
    assert "<svg" in (based.run.folder / "drawn-mnist-softmax.svg").read_text()


@pytest.mark.parametrize(("target", "regressed"), [("fakes:Quick", False), ("fakes:Steady", True)])
def test_only_a_slower_run_fails_the_comparison(
    based: Based, target: str, regressed: bool, tmp_path: Path
) -> None:
    limit = ("--benchmark-compare=0001", "--benchmark-compare-fail=median:50%")
    done = based.run(faked(tmp_path, sound=target), "-k", "sound and mnist-softmax", *limit)
    assert "(0001_base)" in done.stdout
    assert ("Performance has regressed" in done.stderr) == regressed
    assert (done.returncode != 0) == regressed, done.stdout + done.stderr


def test_other_modes_and_backends_are_measured_on_request(based: Based) -> None:
    done = based.run(
        based.backends, "--collect-only", "-q", "-m", "not on_request", "-k", "cnn and not absent"
    )
    cells = {line for line in done.stdout.splitlines() if "::" in line}
    names = ("sound", "raises", "stops", "ends")
    assert cells == {
        f"{CELLS}::test_step[{workload}-{backend}-{mode}-cpu-fp32-100]"
        for workload in ("mnist-cnn", "cifar10-cnn")
        for backend, mode in (*TAUGHT, *((name, "only") for name in names))
    }
    assert "deselected" in done.stdout
