"""Whether runs agree with whole trainings alone: on synthetic figures whose truth is known."""

import ast
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
from conftest import draws
from hypothesis import given
from hypothesis import strategies as some
from scipy import stats

from campaign import agreement as agreeing
from campaign import power
from campaign.agreement import agreement, least_count, quantile, ratios, report
from campaign.plan import ROUNDS_A_PART, VALIDATED, VALIDATION_PARTS
from campaign.records import FRAMEWORKS
from campaign.runs import RunRatio
from campaign.validation import Process, Task

RATES = {"jax": 40_000.0, "tensorflow": 25_000.0, "torch": 32_000.0}
PROCESS_SD = 0.03
BLOCK_SD = 0.02
RUNS, BLOCKS = 4, 4
REPLICATES = VALIDATION_PARTS * ROUNDS_A_PART
TENTH, STEPS = 60, 3000
SLOWER = 0.25
"""By how much longer a made-up training's steps take in the first tenth of its first epoch."""


def process(workload: str, backend: str, rate: float, replicate: int = 0) -> Process:
    """Return the process of a replicate, counted over all parts."""
    part, own = divmod(replicate, ROUNDS_A_PART)
    task = Task(
        index=own, replicate=own, workload=workload, backend=backend, seed=own, padding=0, hash_seed=1
    )
    seconds = 600_000 / rate
    rest = seconds / (STEPS - TENTH + (1 + SLOWER) * TENTH)
    return Process(
        part=1 + part, task=task, mode="m", epochs=5, started_at="", wall_s=20.0, samples=600_000,
        steps=STEPS, seconds=seconds, first_tenth_steps=TENTH, first_tenth_s=(1 + SLOWER) * TENTH * rest,
    )  # fmt: skip


def alone(chance: np.random.Generator, count: int = REPLICATES) -> list[Process]:
    return [
        process(workload, backend, rate * math.exp(chance.normal(0, PROCESS_SD)), replicate)
        for workload in VALIDATED
        for backend, rate in RATES.items()
        for replicate in range(count)
    ]


def slowed(one: Process, factor: float) -> Process:
    """Return the process as it would be if the machine were slower by a factor all the time."""
    return msgspec.structs.replace(
        one, seconds=one.seconds * factor, first_tenth_s=one.first_tenth_s * factor
    )


def died(one: Process) -> Process:
    return msgspec.structs.replace(one, seconds=None, error="it ended with status 1: no memory")


def by_runs(chance: np.random.Generator, bias: float = 0.0, trimmed: float = 0.0) -> list[RunRatio]:
    """Return what runs say: blocks of each framework scatter, and one framework may be measured wrongly.

    `trimmed` is what trimming adds to each ln(ratio).
    """
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
                mean, error = differences.mean() + trimmed, differences.std(ddof=1) / math.sqrt(BLOCKS)
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
                        plain_log=float(mean) - trimmed,
                    )
                )
    return found


def test_the_ratio_and_its_interval_are_students_of_the_pairs():
    chance = np.random.default_rng(1)
    logs = {"a": chance.normal(0.3, 0.05, REPLICATES), "b": chance.normal(0.0, 0.02, REPLICATES)}
    found = [
        process("w", name, math.exp(value), replicate)
        for name, values in logs.items()
        for replicate, value in enumerate(values)
    ]
    chance.shuffle(found)  # the order of the processes is no pairing
    (one,) = ratios(found)
    test = stats.ttest_rel(logs["a"], logs["b"])
    low, high = test.confidence_interval(0.95)
    assert one.log == pytest.approx(logs["a"].mean() - logs["b"].mean())
    assert math.exp(one.log) == pytest.approx(stats.gmean(np.exp(logs["a"])) / stats.gmean(np.exp(logs["b"])))
    assert one.degrees == test.df == 20
    assert one.interval == pytest.approx((math.exp(low), math.exp(high)))
    assert one.pairs == REPLICATES


def test_nothing_is_trimmed():
    found = [process("w", "a", 100.0 if n else 1.0, n) for n in range(REPLICATES)]
    found += [process("w", "b", 100.0 + n, n) for n in range(REPLICATES)]
    (one,) = ratios(found)
    assert math.exp(one.log) < 0.81


@given(factors=some.lists(some.floats(0.2, 5.0), min_size=REPLICATES, max_size=REPLICATES))
def test_what_slows_all_frameworks_of_a_replicate_changes_nothing(factors):
    chance = np.random.default_rng(7)
    whole, runs = alone(chance), by_runs(chance, bias=0.03)
    places = [(one.part - 1) * ROUNDS_A_PART + one.task.replicate for one in whole]
    other = [slowed(one, factors[place]) for one, place in zip(whole, places, strict=True)]
    before, after = agreement(whole, runs), agreement(other, runs)
    assert after.agreed == before.agreed
    for one, again in zip(before.ratios, after.ratios, strict=True):
        assert again.log == pytest.approx(one.log)
        assert again.standard_error == pytest.approx(one.standard_error)
    assert [one.longer for one in after.beginnings] == pytest.approx(
        [one.longer for one in before.beginnings]
    )


@given(some.integers(0, REPLICATES - 1), some.floats(0.01, 100.0), some.booleans())
def test_a_process_without_its_pair_does_not_count(replicate, factor, recorded):
    """Whether its partner failed or has no line at all, its own speed is of no effect."""
    chance = np.random.default_rng(8)
    jax = [process("mnist-mlp", "jax", math.exp(chance.normal()), n) for n in range(REPLICATES)]
    torch = [process("mnist-mlp", "torch", math.exp(chance.normal()), n) for n in range(REPLICATES)]
    lost = [died(torch.pop(replicate))]
    odd = [*jax[:replicate], slowed(jax[replicate], factor), *jax[replicate + 1 :]]
    expected = ratios([*jax[:replicate], *jax[replicate + 1 :], *torch])
    assert ratios([*odd, *torch, *(lost if recorded else [])]) == expected
    assert expected[0].pairs == REPLICATES - 1


@pytest.mark.parametrize(("n", "least"), [(1, 0), (27, 22), (36, 31), (100, 89)])
def test_so_many_have_to_agree_that_chance_alone_seldom_falls_below(n, least):
    assert least_count(n) == least
    assert stats.binom.cdf(least - 1, n, 0.95) <= 0.01 < stats.binom.cdf(least, n, 0.95)


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


def test_what_is_common_to_a_round_does_not_matter_in_the_simulation():
    sds = {"process_sd": 0.02, "block_sd": 0.02, "bias": 0.03}
    alike, unlike = (power.agreed(200, common_sd=sd, **sds) for sd in (0.0, 0.2))
    np.testing.assert_array_equal(alike, unlike)


def test_too_few_pairs_decide_nothing_and_are_named():
    chance = np.random.default_rng(4)
    found = agreement(alone(chance, count=19), by_runs(chance, bias=0.3))
    assert found.status == "unmeasured"
    assert "mnist-mlp jax / tensorflow: 19 of 20 pairs" in found.too_few
    assert len(found.too_few) == 9
    assert agreement(alone(chance, count=20), by_runs(chance)).too_few == ()
    assert agreement(alone(chance), []).status == "unmeasured"
    assert agreement([], by_runs(chance)).status == "unmeasured"


def test_two_replicates_that_failed_at_different_times_leave_too_few_pairs():
    """Each framework has 20 processes of its own, and the two have 19 together."""
    chance = np.random.default_rng(9)
    whole = alone(chance)
    lost = {("jax", 0), ("torch", 1)}
    kept = [
        died(one)
        if (one.task.backend, one.task.replicate) in lost
        and (one.part, one.task.workload) == (1, "mnist-cnn")
        else one
        for one in whole
    ]
    found = agreement(kept, by_runs(chance))
    assert found.too_few == ("mnist-cnn jax / torch: 19 of 20 pairs",)
    assert found.status == "unmeasured"


def test_a_workload_that_was_never_trained_leaves_the_question_open():
    chance = np.random.default_rng(10)
    kept = [one for one in alone(chance) if one.task.workload != "mnist-cnn"]
    found = agreement(kept, by_runs(chance))
    assert found.status == "unmeasured"
    assert "mnist-cnn jax / torch: 0 of 20 pairs" in found.too_few


def test_a_process_that_failed_is_no_figure_and_is_named():
    chance = np.random.default_rng(5)
    dead, *whole = alone(chance)
    dead = died(dead)
    found = agreement([*whole, dead], by_runs(chance))
    assert found.failed == (dead,)
    assert found.too_few == ()
    assert found.status == "held"
    assert "no memory" in report(found, cpu="a CPU")


def test_the_plain_ratio_is_counted_beside_the_rule_and_decides_nothing():
    chance = np.random.default_rng(11)
    whole = alone(chance)
    trimmed = agreement(whole, by_runs(chance, trimmed=0.2))
    assert trimmed.status == "failed"
    assert trimmed.agreed == 0
    assert trimmed.plain_agreed >= trimmed.least
    plain = [msgspec.structs.replace(one, plain_log=one.log + 0.2) for one in by_runs(chance)]
    other = agreement(whole, plain)
    assert other.status == "held"
    assert other.plain_agreed == 0
    one = other.compared[0]
    assert one.plain_difference == pytest.approx(one.difference + 0.2)
    text = report(other, cpu="a CPU")
    assert "0 of 36 agree by the run's plain ratio" in text
    assert f"{100 * math.expm1(one.difference):+.1f} %" in text
    assert f"{100 * math.expm1(one.plain_difference):+.1f} %" in text


def test_the_report_shows_how_slowly_each_framework_begins():
    chance = np.random.default_rng(12)
    whole = alone(chance)
    first = whole[0]
    whole[0] = msgspec.structs.replace(first, first_tenth_s=3 * first.first_tenth_s)  # a median takes no note
    found = agreement(whole, by_runs(chance))
    assert len(found.beginnings) == 9
    assert all(one.longer == pytest.approx(SLOWER) for one in found.beginnings)
    assert "| mnist-cnn | torch | 21 | +25.0 % |" in report(found, cpu="a CPU")
    assert died(first).slow_beginning is None
    assert msgspec.structs.replace(first, steps=TENTH).slow_beginning is None


def test_the_report_has_the_answer_first_and_every_comparison():
    chance = np.random.default_rng(6)
    right = report(agreement(alone(chance), by_runs(chance)), cpu="a CPU")
    assert "The two methods agree, by the rule" in right.split("##")[0]
    assert right.count("| run-3 |") == 9
    wrong = report(agreement(alone(chance), by_runs(chance, bias=0.1)), cpu="a CPU")
    assert "The two methods do NOT agree" in wrong.split("##")[0]
    lacking = report(agreement(alone(chance), by_runs(chance), missing=["run-1, mnist-mlp"]), cpu="a CPU")
    assert "- missing: run-1, mnist-mlp" in lacking
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
