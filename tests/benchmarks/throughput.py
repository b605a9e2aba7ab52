"""Each backend against the loop that one would write by hand for its framework: `nox -s benchmarks`.

pytest-benchmark times the hand-written side; before or after each of its rounds, by turns, the backend trains
as long, so that whatever slows the machine slows both. What counts is the ratio of the two, whose table is
printed at the end. Two processes of one cell differ by more than the rounds of either let expect: so what
lies below its bound meets once more in a process of its own, and fails where it lies surely below in both.
The table has both. The file's name keeps it out of the tests: it takes two hours, and wants the machine for
itself.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from conftest import INFOS
from scipy.stats import bootstrap, trim_mean

from backends.info import BackendInfo
from bench.analysis.statistics import TRIMMED
from bench.datasets import cache
from bench.measuring.variables import worker_environment
from bench.workloads.schedule import whole_calls

HERE = Path(__file__).parent
FRAMEWORKS = ("tensorflow", "torch", "jax")
WORKLOADS = ("mnist-softmax", "mnist-mlp", "mnist-cnn", "cifar10-cnn")
BATCHES = (100, 512)
TURN_S = 0.05
MOST_ROUNDS, FEWEST_ROUNDS = 80, 24
MOST_HEATS, FEWEST_HEATS = 20, 3
"""Turns of every mode and side, by which the best are picked."""
DUEL_S, HEATS_S = 20.0, 60.0
"""Of rounds and of heats, at most: a step of a large network takes longer than a turn should."""
EACH_MODE, BEST_MODE = 0.97, 0.98
"""What the backend must reach of the loop by hand, in any mode, and with its best mode of the best loop."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a duel gave. Rates are samples/s, `ratio` is backend / by hand with its 95 % interval."""

    cell: str
    backend_rate: float
    hand_rate: float
    ratio: float
    low: float
    high: float
    bound: float


class Duel:
    """A process in which the sides of one framework, workload and batch size wait for their turns."""

    def __init__(self, cell: dict[str, Any], scratch: Path) -> None:
        self.batch: int = cell["batch"]
        self.step_s: dict[tuple[str, str], float] = {}
        self.call_steps: dict[str, int] = {}
        environment = worker_environment(INFOS[cell["backend"]], "cpu", scratch)
        environment["PYTHONPATH"] = os.pathsep.join([str(HERE), str(HERE.parent.parent)])
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "duel.py"), json.dumps(cell | {"cache": str(cache.cache_dir())})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def make(self, mode: str) -> None:
        made = self._answer({"make": mode})
        self.call_steps[mode] = made.pop("call_steps")
        for side, step_s in made.items():
            self.step_s[side, mode] = step_s

    def train(self, side: str, mode: str, steps: int) -> float:
        """Let a side train, and return the seconds that it took."""
        return float(self._answer({"train": [side, mode], "steps": steps}))

    def fastest(self) -> dict[str, str]:
        """Return the mode in which each side trains fastest.

        All take turns here: what each mode gave against its own loop was measured at another time, and the
        machine was faster or slower then.
        """
        steps = {one: whole_calls(TURN_S / s, self.call_steps[one[1]]) for one, s in self.step_s.items()}
        heat_s = 2 * sum(steps[one] * s for one, s in self.step_s.items())  # each turn has its lead
        taken: dict[tuple[str, str], list[float]] = {one: [] for one in steps}
        for _ in range(max(FEWEST_HEATS, min(MOST_HEATS, int(HEATS_S / heat_s)))):
            for (side, mode), count in steps.items():
                taken[side, mode].append(self.train(side, mode, count) / count)
        middle = {one: statistics.median(seconds) for one, seconds in taken.items()}
        return {
            side: min((s, mode) for (one, mode), s in middle.items() if one == side)[1]
            for side in ("backend", "by hand")
        }

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):  # of a request that it no longer read
                pipe.close()

    def _answer(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the duel ended with status {self._process.wait()}; see what it printed"
        return json.loads(line)


@pytest.fixture(scope="session")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[dict[str, Any]], Duel]]:
    """Return what gives the duel of a cell; the cells of one come together, and then its process ends."""
    going: list[tuple[dict[str, Any], Duel]] = []

    def duel_of(cell: dict[str, Any]) -> Duel:
        if not going or going[0][0] != cell:
            if going:
                going.pop()[1].close()
            going.append((cell, Duel(cell, tmp_path_factory.mktemp("duel"))))
        return going[0][1]

    yield duel_of
    if going:
        going[0][1].close()


class Match:
    """A backend and a loop by hand, in a mode each, that take turns; either begins every other round."""

    def __init__(self, duel: Duel, modes: dict[str, str]) -> None:
        step_s = min(duel.step_s[side, mode] for side, mode in modes.items())
        self.steps = whole_calls(TURN_S / step_s, max(duel.call_steps[mode] for mode in modes.values()))
        self.rounds = max(FEWEST_ROUNDS, min(MOST_ROUNDS, int(DUEL_S / (2.4 * self.steps * step_s))))
        self._duel, self._modes = duel, modes
        self._seconds: dict[str, list[float]] = {side: [] for side in modes}

    def by_hand(self) -> None:
        self._train("by hand")

    def before(self) -> None:
        if len(self._seconds["by hand"]) % 2:
            self._train("backend")

    after = before

    def result(self, cell: str, bound: float) -> Result:
        batch = self._duel.batch
        taken = {side: seconds[: self.rounds] for side, seconds in self._seconds.items()}
        ratio, low, high = ratio_of(np.log(taken["by hand"]) - np.log(taken["backend"]))
        rates = {side: float(self.steps * batch / np.median(seconds)) for side, seconds in taken.items()}
        return Result(
            cell=cell,
            backend_rate=rates["backend"],
            hand_rate=rates["by hand"],
            ratio=ratio,
            low=low,
            high=high,
            bound=bound,
        )

    def _train(self, side: str) -> None:
        self._seconds[side].append(self._duel.train(side, self._modes[side], self.steps))


class Table:
    """A plugin that prints what every duel gave, at the end."""

    def __init__(self) -> None:
        self.rows: list[Result] = []

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        write = terminalreporter.write_line
        write(f"\n{'cell':<52}{'backend':>11}{'by hand':>11}{'ratio':>8}  95 % interval    bound")
        for row in self.rows:
            rates = f"{row.backend_rate:>11,.0f}{row.hand_rate:>11,.0f}{row.ratio:>8.3f}"
            state = "" if row.ratio >= row.bound else "  below" if row.high < row.bound else "  not surely"
            write(f"{row.cell:<52}{rates}  {row.low:.3f} to {row.high:.3f}  {row.bound}{state}")


@pytest.fixture(scope="session")
def results(request: pytest.FixtureRequest) -> list[Result]:
    table = Table()
    request.config.pluginmanager.register(table)
    return table.rows


def groups() -> Iterator[tuple[str, str, int]]:
    for workload in WORKLOADS:
        for batch in BATCHES:
            for name in FRAMEWORKS:
                yield name, workload, batch


def cells() -> list[Any]:
    """Return a duel for every mode, and after them that of the best against the best."""
    return [
        pytest.param(
            {"workload": workload, "batch": batch, "backend": name},
            mode,
            id=f"{workload}-{batch}-{name}-{mode}",
            marks=pytest.mark.framework(name),
        )
        for name, workload, batch in groups()
        for mode in (*resident_modes(INFOS[name]), "best")
    ]


def resident_modes(info: BackendInfo) -> list[str]:
    """Return the modes that train on the CPU from memory, in one process: those that have a loop by hand."""
    return [
        mode.name for mode in info.modes if "cpu" in mode.devices and not (mode.pipeline or mode.distributed)
    ]


def ratio_of(differences: np.ndarray) -> tuple[float, float, float]:
    """Return the ratio, and its 95 % interval, of differences of logarithms, one a round."""

    def middle(values: np.ndarray, axis: int) -> np.ndarray:
        return np.exp(trim_mean(values, TRIMMED, axis=axis))  # a stall now and then must not move it

    found = bootstrap((differences,), middle, method="percentile", n_resamples=2000, rng=0)
    return float(middle(differences, 0)), *map(float, found.confidence_interval)


@pytest.mark.parametrize(("cell", "mode"), cells())
def test_a_backend_is_as_fast_as_a_loop_by_hand(
    *,
    arena: Callable[[dict[str, Any]], Duel],
    cell: dict[str, Any],
    mode: str,
    benchmark: Any,
    results: list[Result],
    tmp_path: Path,
) -> None:
    duel, bound = arena(cell), BEST_MODE if mode == "best" else EACH_MODE
    name = f"{cell['workload']}-{cell['batch']}-{cell['backend']}-{mode}"
    benchmark.group = name.removesuffix(f"-{mode}")
    if mode == "best":
        for each in resident_modes(INFOS[cell["backend"]]):
            if each not in duel.call_steps:  # it was not picked by -k
                duel.make(each)
        modes = duel.fastest()
        name = f"{name} ({modes['backend']}, {modes['by hand']})"
    else:
        duel.make(mode)
        modes = dict.fromkeys(("backend", "by hand"), mode)
    match = Match(duel, modes)
    benchmark.pedantic(match.by_hand, setup=match.before, teardown=match.after, rounds=match.rounds)
    result = match.result(name, bound)
    results.append(result)
    benchmark.extra_info |= msgspec.structs.asdict(result)
    surely_below = result.high < bound
    if result.ratio < bound:
        result = once_more(cell, modes, tmp_path).result(f"{name}, again", bound)
        results.append(result)
        benchmark.extra_info["again"] = msgspec.structs.asdict(result)
    found = f"{result.ratio:.3f} ({result.low:.3f} to {result.high:.3f})"
    assert not surely_below or result.high >= bound, f"{found} of the loop by hand"


def once_more(cell: dict[str, Any], modes: dict[str, str], scratch: Path) -> Match:
    """Let both sides meet in another process, where they alone are."""
    with contextlib.closing(Duel(cell, scratch)) as duel:
        for mode in sorted(set(modes.values())):
            duel.make(mode)
        match = Match(duel, modes)
        for _ in range(match.rounds):
            match.before()
            match.by_hand()
            match.after()
    return match
