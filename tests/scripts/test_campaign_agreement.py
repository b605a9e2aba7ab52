"""Whether runs agree with whole trainings alone: on synthetic figures whose truth is known."""

import ast
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
from conftest import draws
from scipy import stats

from campaign import agreement as agreeing
from campaign import power
from campaign.agreement import agreement, clopper_pearson, least_count, quantile, ratios, report
from campaign.plan import VALIDATED
from campaign.records import FRAMEWORKS
from campaign.runs import RunRatio
from campaign.validation import Process, Task

RATES = {"jax": 40_000.0, "tensorflow": 25_000.0, "torch": 32_000.0}
PROCESS_SD = 0.03
BLOCK_SD = 0.02
RUNS, BLOCKS, PROCESSES = 4, 4, 21


def process(workload: str, backend: str, rate: float, index: int = 0) -> Process:
    task = Task(index=index, workload=workload, backend=backend, seed=0, padding=0, hash_seed=1)
    return Process(
        part=1, task=task, mode="m", epochs=1, started_at="", wall_s=20.0, samples=600_000,
        seconds=600_000 / rate,
    )  # fmt: skip


def alone(chance: np.random.Generator, count: int = PROCESSES) -> list[Process]:
    return [
        process(workload, backend, rate * math.exp(chance.normal(0, PROCESS_SD)), index)
        for workload in VALIDATED
        for backend, rate in RATES.items()
        for index in range(count)
    ]


def by_runs(chance: np.random.Generator, bias: float = 0.0) -> list[RunRatio]:
    """Return what runs say: blocks of each framework scatter, and one framework may be measured wrongly."""
    found = []
    for run in range(RUNS):
        for workload in VALIDATED:
            logs = {
                backend: math.log(rate)
                + (math.log1p(bias) if backend == "jax" else 0)
                + chance.normal(0, BLOCK_SD, BLOCKS)
                for backend, rate in RATES.items()
            }
            for first, second in (("jax", "tensorflow"), ("jax", "torch"), ("tensorflow", "torch")):
                differences = logs[first] - logs[second]
                mean, error = differences.mean(), differences.std(ddof=1) / math.sqrt(BLOCKS)
                half = quantile(BLOCKS - 1) * error
                found.append(
                    RunRatio(
                        run=f"run-{run}",
                        workload=workload,
                        first=first,
                        second=second,
                        log=float(mean),
                        standard_error=float(error),
                        degrees=BLOCKS - 1,
                        low=math.exp(mean - half),
                        high=math.exp(mean + half),
                        plain_log=float(mean),
                    )
                )
    return found


def test_the_ratio_and_its_interval_are_welchs():
    chance = np.random.default_rng(1)
    logs = {"a": chance.normal(0.3, 0.05, 21), "b": chance.normal(0.0, 0.02, 20)}
    found = [process("w", name, math.exp(value)) for name, values in logs.items() for value in values]
    (one,) = ratios(found)
    test = stats.ttest_ind(logs["a"], logs["b"], equal_var=False)
    low, high = test.confidence_interval(0.95)
    assert one.log == pytest.approx(logs["a"].mean() - logs["b"].mean())
    assert one.degrees == pytest.approx(test.df)
    assert one.interval == pytest.approx((math.exp(low), math.exp(high)))
    assert one.processes == (21, 20)


def test_nothing_is_trimmed():
    rates = [100.0] * 20 + [1.0]
    found = [process("w", "a", rate) for rate in rates] + [process("w", "b", 100.0 + n) for n in range(21)]
    (one,) = ratios(found)
    assert math.exp(one.log) < 0.81


@pytest.mark.parametrize(("n", "least"), [(1, 0), (27, 22), (36, 31), (100, 89)])
def test_so_many_have_to_agree_that_chance_alone_seldom_falls_below(n, least):
    assert least_count(n) == least
    assert stats.binom.cdf(least - 1, n, 0.95) <= 0.01 < stats.binom.cdf(least, n, 0.95)


@pytest.mark.parametrize(("hits", "of"), [(0, 9), (5, 9), (9, 9)])
def test_a_rate_has_clopper_and_pearsons_interval(hits, of):
    expected = stats.binomtest(hits, of).proportion_ci(0.95, method="exact")
    assert clopper_pearson(hits, of) == pytest.approx((expected.low, expected.high))


def test_runs_that_measure_right_agree():
    """The rule's level is 1 % for independent comparisons; those here share processes."""
    chance = np.random.default_rng(2)
    trials = draws(600, 60)
    found = [agreement(alone(chance), by_runs(chance)) for _ in range(trials)]
    failed = sum(one.status == "failed" for one in found)
    # `campaign.power` simulates 2,000 campaigns: the rule fails 2 to 5 % of right ones.
    assert stats.binomtest(failed, trials, 0.05, alternative="greater").pvalue > 1e-4
    assert all(len(one.compared) == RUNS * 9 for one in found)
    share = sum(one.agreed for one in found) / (trials * RUNS * 9)
    assert 0.93 < share < 0.99
    contained, expected = (
        sum(values) for values in zip(*((one.contained, one.expected) for one in found), strict=True)
    )
    assert contained == pytest.approx(expected, rel=0.06)
    assert contained / (trials * RUNS * 9) < 0.95


def test_a_bias_of_five_percent_in_one_framework_is_seen():
    chance = np.random.default_rng(3)
    found = [agreement(alone(chance), by_runs(chance, bias=0.05)) for _ in range(draws(200, 40))]
    assert sum(one.status == "failed" for one in found) >= 0.9 * len(found)
    one = found[0]
    biased = [each.difference for each in one.compared if each.alone.first == "jax"]
    assert np.mean(biased) == pytest.approx(math.log(1.05), abs=0.03)


def test_the_simulation_of_the_rule_fails_few_right_programs_and_most_wrong_ones():
    right, wrong = (power.failing(400, process_sd=0.03, block_sd=0.02, bias=bias) for bias in (0.0, 0.05))
    assert right < 0.09
    assert wrong > 0.95


def test_too_few_processes_decide_nothing_and_are_named():
    chance = np.random.default_rng(4)
    found = agreement(alone(chance, count=19), by_runs(chance, bias=0.3))
    assert found.status == "unmeasured"
    assert "mnist-mlp jax: 19 of 20 processes" in found.too_few
    assert len(found.too_few) == 9
    assert agreement(alone(chance), []).status == "unmeasured"
    assert agreement([], by_runs(chance)).status == "unmeasured"


def test_a_process_that_failed_is_no_figure_and_is_named():
    chance = np.random.default_rng(5)
    whole = alone(chance)
    dead = msgspec.structs.replace(whole[0], seconds=None, error="it ended with status 1: no memory")
    found = agreement([*whole, dead], by_runs(chance))
    assert found.failed == (dead,)
    assert found.too_few == ()
    assert "no memory" in report(found, cpu="a CPU")


def test_the_report_has_the_answer_first_and_every_comparison():
    chance = np.random.default_rng(6)
    right = report(agreement(alone(chance), by_runs(chance)), cpu="a CPU")
    assert "They do, by the rule" in right.split("##")[0]
    assert right.count("| run-3 |") == 9
    wrong = report(agreement(alone(chance), by_runs(chance, bias=0.1)), cpu="a CPU")
    assert "They do NOT" in wrong.split("##")[0]
    assert "![" not in wrong


def imported(path: Path) -> set[str]:
    """Return the modules that a source imports, functions' own imports too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(module=str(module), names=names):
                found |= {module, *(f"{module}.{alias.name}" for alias in names)}
    return found


def shared(names: set[str]) -> set[str]:
    return {name for name in names if name.startswith(("bench.measuring", "bench.analysis", "bench.worker"))}


@pytest.mark.parametrize("name", ["train_alone", "validation", "agreement"])
def test_the_other_method_shares_neither_measuring_nor_statistics_with_the_harness(name):
    path = Path(agreeing.__file__).with_name(f"{name}.py")
    assert shared(imported(path)) == set()


def test_a_shared_import_would_be_seen(tmp_path):
    (tmp_path / "x.py").write_text("def f():\n    from bench.worker.timed_loop import Trainer\n")
    assert shared(imported(tmp_path / "x.py")) == {
        "bench.worker.timed_loop", "bench.worker.timed_loop.Trainer",
    }  # fmt: skip


def test_the_frameworks_are_those_of_the_plan():
    assert set(RATES) == set(FRAMEWORKS)
