"""The duels of `nox -s benchmarks`, too long for the tests: that a side by hand and a backend still meet."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import INFOS
from fakes import whole_mnist

from bench.measuring.variables import worker_environment

BENCHMARKS = Path(__file__).parent / "benchmarks"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_mnist(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(
    "name",
    [pytest.param(one, marks=pytest.mark.framework(one)) for one in ("tensorflow", "torch", "jax")],
)
def test_a_duel_makes_both_sides_sees_the_same_losses_and_lets_them_train(
    name: str, data: Path, tmp_path: Path
) -> None:
    cell = {"backend": name, "workload": "mnist-softmax", "batch": 100, "cache": str(data)}
    mode = INFOS[name].default_mode
    requests = [{"make": mode}, *({"train": [side, mode], "steps": 3} for side in ("backend", "by hand"))]
    environment = worker_environment(INFOS[name], "cpu", tmp_path)
    environment["PYTHONPATH"] = os.pathsep.join([str(BENCHMARKS), str(BENCHMARKS.parent.parent)])
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "duel.py"), json.dumps(cell)],
        input="".join(json.dumps(request) + "\n" for request in requests),
        check=False, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    step_s, *trained_s = (json.loads(line) for line in done.stdout.splitlines())
    assert step_s.pop("call_steps") == 1
    assert sorted(step_s) == ["backend", "by hand"]
    assert len(trained_s) == 2
    assert all(0 < seconds < 60 for seconds in (*step_s.values(), *trained_s))
