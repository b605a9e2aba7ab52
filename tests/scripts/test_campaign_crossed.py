"""The self-test across frameworks: its laws, its counts, and runs that it has to fail."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from conftest import draws
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from synthetic import MODES, disturbed_run, make_cell, simple_run

from bench.analysis.statistics import MARGIN, Difference, holm
from bench.analysis.summary import Summary, summarise
from bench.records.runs import Run
from campaign import crossed
from campaign.crossed import (
    CUTS,
    FALSE_ALARMS,
    FEWEST_OTHERS,
    HELD,
    PAIRS,
    Centred,
    Family,
    between_runs,
    claims,
    claims_of,
    counted,
    excess_scatter,
    failing,
    found_within,
    limits,
    scatter_of,
    simulate_cuts,
    simulate_runs,
    totals,
    variants,
    within_run,
    wrong_beside,
)
from campaign.crossed_report import lacking, report
from campaign.runs import RatioBlocks, RunRatio, default_ratios

LOGS = {"jax": 0.4, "tensorflow": 0.0, "torch": 0.1}
WORKLOADS = ("mnist-mlp", "mnist-cnn")
REPEATED = ("a", "b", "c")


def ratio(values: Sequence[float], pair: tuple[str, str] = PAIRS[0], workload: str = "w") -> RunRatio:
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return RunRatio(
        run="r", workload=workload, first=pair[0], second=pair[1], log=mean, standard_error=error,
        degrees=len(values) - 1, low=math.exp(mean - error), high=math.exp(mean + error), plain_log=mean,
    )  # fmt: skip


def blocks_of(values: Sequence[float], pair: tuple[str, str] = PAIRS[0], workload: str = "w") -> RatioBlocks:
    return RatioBlocks(
        ratio=ratio(values, pair, workload), differences=dict(enumerate(values)), effects=({}, {})
    )


def three(logs: Mapping[str, Sequence[float]], workload: str = "w") -> list[RatioBlocks]:
    """Return the pairs of three frameworks whose blocks have these logarithms."""
    return [
        blocks_of([one - other for one, other in zip(logs[first], logs[second], strict=True)],
                  (first, second), workload)
        for first, second in PAIRS
    ]  # fmt: skip


def scattered(chance: np.random.Generator, blocks: int, sd: float = 0.02) -> dict[str, list[float]]:
    return {name: list(log + chance.normal(0, sd, blocks)) for name, log in LOGS.items()}


def unit(count: int, place: int) -> list[float]:
    return [float(place == at) for at in range(count)]


@pytest.mark.parametrize(("size", "count"), [(3, 9), (3, 12), (4, 10), (6, 13), (10, 16)])
def test_a_centred_cut_is_a_mean_of_its_blocks_whose_truth_is_zero(size, count):
    """D* is linear in the blocks: its weights give its variance, and its covariance with the scatter."""
    weights = np.array(
        [[cut.pairs[0].difference.mean for cut in within_run("r", [blocks_of(unit(count, at))], size)]
         for at in range(count)]
    )  # fmt: skip
    assert weights.shape[1] == count // size
    for number, of in enumerate(weights.T):
        cut = range(number * size, (number + 1) * size)
        assert sum(of) == pytest.approx(0, abs=1e-12)  # the true ratio is gone
        assert sum(of**2) == pytest.approx(1 / size)
        assert np.ptp(of[list(cut)]) == pytest.approx(0, abs=1e-12)  # so it is independent of deviations
        others = [at for at in range(count) if at not in cut]
        assert np.ptp(of[others]) == pytest.approx(0, abs=1e-12)
    for one, other in pairwise(weights.T):
        correlation = (one @ other) * size
        assert correlation == pytest.approx(-size / (count - size))


@pytest.mark.parametrize(("k", "n"), [(3, 12), (4, 9), (3, 3)])
def test_between_runs_the_centred_mean_has_the_variance_of_a_mean_of_k(k, n):
    """The weights of all blocks of both runs, from one block that is moved at a time."""

    def centred(own: Sequence[float], long: Sequence[float]) -> float:
        (family,) = between_runs({"r": [ratio(own)]}, [blocks_of(long)])
        return family.pairs[0].difference.mean

    weights = [centred(unit(k, at), [0.0] * n) for at in range(k)]
    weights += [centred([0.0] * k, unit(n, at)) for at in range(n)]
    assert sum(weights) == pytest.approx(0, abs=1e-12)
    assert sum(np.square(weights)) == pytest.approx(1 / k)
    assert min(weights[:k]) > 0 > max(weights[k:])


def test_the_centred_statistic_has_students_distribution():
    """Of 95 % intervals 95 % hold 0, whatever the true ratio is."""
    chance = np.random.default_rng(3)
    count = draws(20_000, 2_000)
    for cuts in (False, True):
        held = tried = 0
        for _ in range(count):
            long = list(chance.normal(0.3, 0.02, 9))
            families = (
                within_run("r", [blocks_of(long)], 3)[:1] if cuts
                else between_runs({"r": [ratio(list(chance.normal(0.3, 0.02, 3)))]}, [blocks_of(long)])
            )  # fmt: skip
            held += families[0].pairs[0].holds
            tried += 1
        assert stats.binomtest(held, tried, 0.95).pvalue > 1e-4


def test_cuts_are_consecutive_and_leave_six_others():
    pairs = three(scattered(np.random.default_rng(0), 12))
    found = within_run("r", pairs, 4)
    assert [cut.places for cut in found] == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11)]
    assert within_run("r", pairs, 6)
    assert within_run("r", pairs, 10) == ()
    eight = [
        msgspec.structs.replace(one, differences=dict(list(one.differences.items())[:8])) for one in pairs
    ]
    assert within_run("r", eight, 3) == ()


def test_a_cut_has_only_blocks_that_all_pairs_have():
    first, *others = three(scattered(np.random.default_rng(0), 13))
    lacking_one = {block: value for block, value in first.differences.items() if block != 5}
    pairs = [msgspec.structs.replace(first, differences=lacking_one), *others]
    cuts = within_run("r", pairs, 6)
    assert [one.centre_blocks for one in cuts[0].pairs] == [12, 12, 12]
    values = [others[0].differences[block] for block in (0, 1, 2, 3, 4, 6)]
    assert cuts[0].pairs[1].difference.standard_error == pytest.approx(np.std(values, ddof=1) / math.sqrt(6))


def family(means: Sequence[float], errors: Sequence[float] | None = None, degrees: int = 2) -> Family:
    errors = errors or [1e-4] * len(means)
    return Family(
        run="r", workload="w",
        pairs=tuple(
            Centred(
                pair=pair, margin=MARGIN, centre_blocks=12, centre_error=0.001,
                difference=Difference(mean=mean, standard_error=error, degrees=degrees, blocks=degrees + 1),
            )
            for pair, mean, error in zip(PAIRS, means, errors, strict=False)  # of three or fewer
        ),
    )  # fmt: skip


def test_a_moved_framework_moves_its_two_pairs_and_no_other():
    moved = variants(PAIRS, (0.1,))
    assert [by for by, _ in moved] == [0.0] + [0.1] * 6
    assert [list(signs) for _, signs in moved[1:]] == [
        [1, 1, 0], [-1, -1, 0],  # JAX, of jax/tensorflow, jax/torch and tensorflow/torch
        [-1, 0, 1], [1, 0, -1],
        [0, -1, -1], [0, 1, 1],
    ]  # fmt: skip


def test_with_precise_pairs_all_that_is_moved_is_found_and_nothing_else_claimed():
    one = family([0.0, 0.0, 0.0])
    found, of = counted([one]), totals([one])
    assert of == {HELD: 3, FALSE_ALARMS: 3} | {
        name: count for by in (0.05, 0.1) for name, count in ((found_within(by), 12), (wrong_beside(by), 18))
    }
    assert {name: int(values[0]) for name, values in found.items()} == {
        HELD: 3, FALSE_ALARMS: 0, found_within(0.05): 12, found_within(0.1): 12,
        wrong_beside(0.05): 0, wrong_beside(0.1): 0,
    }  # fmt: skip


def test_false_alarms_and_wrong_claims_are_counted():
    one = family([0.2, 0.0, 0.0])
    found = {name: int(values[0]) for name, values in counted([one]).items()}
    assert (found[HELD], found[FALSE_ALARMS]) == (2, 1)
    # The first pair stays claimed whatever moves: rightly twice of the four times that it moves.
    assert found[found_within(0.1)] == 2 + 8
    assert found[wrong_beside(0.1)] == 4


def test_holms_procedure_decides_over_the_pairs_of_a_workload():
    """A p value of 0.015 is claimed alone, and not beside two others that are not."""
    t = float(stats.t.ppf(1 - 0.015 / 2, 2))
    error = 0.01
    alone = math.log1p(MARGIN) + t * error
    assert claims(family([alone], [error]), [0.0]) == [1]
    assert claims(family([alone, 0.0, 0.0], [error] * 3), [0.0] * 3) == [0, 0, 0]


@given(
    st.lists(
        st.tuples(st.floats(-0.3, 0.3), st.floats(1e-4, 0.05), st.floats(0.01, 0.06)),
        min_size=1, max_size=3,
    ),
    st.integers(1, 9),
)  # fmt: skip
def test_the_simulated_rule_is_that_of_a_run(pairs, degrees):
    means, errors, margins = (list(values) for values in zip(*pairs, strict=True))
    one = family(means, errors, degrees)
    one = msgspec.structs.replace(
        one,
        pairs=tuple(
            msgspec.structs.replace(pair, margin=by) for pair, by in zip(one.pairs, margins, strict=False)
        ),
    )
    of_many = claims_of(*map(np.array, (means, errors, [float(degrees)] * len(means), margins)))
    assert claims(one, [0.0] * len(means)) == list(of_many)
    held = crossed._decided(one, np.array([means]), np.array([errors]), ())[HELD]
    assert held[0] == sum(pair.holds for pair in one.pairs)


def test_the_simulated_rule_knows_a_pair_without_scatter():
    values = (np.array([0.2, 0.0]), np.zeros(2), np.full(2, 2.0), np.full(2, MARGIN))
    assert list(claims_of(*values)) == [1, 0]
    assert holm([0.0, 1.0])[0].rejected


# ---- the simulation


def test_the_drawn_blocks_have_the_covariance_of_the_long_run():
    chance = np.random.default_rng(4)
    pairs = three(scattered(chance, 9))
    scatter = scatter_of(pairs)
    values = np.array([list(one.differences.values()) for one in pairs])
    assert scatter.root.T @ scatter.root == pytest.approx(np.cov(values))
    drawn = crossed._drawn(chance, scatter.root, 4000, 2).reshape(-1, 3)
    assert np.cov(drawn.T) == pytest.approx(np.cov(values), abs=0.1 * np.cov(values).max())


def made(seed: int, k: int = 3, n: int = 12, sd: float = 0.02):
    chance = np.random.default_rng(seed)
    centre = [one for name in WORKLOADS for one in three(scattered(chance, n, sd), name)]
    by_run = {
        run: [one.ratio for name in WORKLOADS for one in three(scattered(chance, k, sd), name)]
        for run in REPEATED
    }
    scatters = {name: scatter_of([one for one in centre if one.ratio.workload == name]) for name in WORKLOADS}
    return between_runs(by_run, centre), centre, scatters


def test_the_simulation_of_runs_holds_95_percent_and_knows_no_excess():
    families, _, scatters = made(5)
    counts, excess = simulate_runs(families, scatters, draws=2000)
    of = totals(families)
    assert counts.keys() == of.keys() == counted(families).keys()
    assert of[HELD] == 18
    assert counts[HELD].mean() / 18 == pytest.approx(0.95, abs=0.006)
    assert counts[FALSE_ALARMS].mean() / 18 < 0.01
    assert excess.mean() == pytest.approx(0, abs=4 * excess.std() / math.sqrt(2000))


def test_an_effect_between_runs_is_what_the_excess_estimates():
    families, _, scatters = made(5)
    counts, excess = simulate_runs(families, scatters, effect=0.05, effects=(), draws=2000)
    assert excess.mean() == pytest.approx(0.05**2, rel=0.08)
    assert counts[HELD].mean() / 18 < 0.9
    assert set(counts) == {HELD, FALSE_ALARMS}


def test_the_excess_of_runs_that_differ_is_seen_and_without_is_zero():
    one = msgspec.structs.replace(family([0.0, 0.0, 0.0]).pairs[0], centre_error=0.0)
    apart = msgspec.structs.replace(one.difference, mean=0.04 / math.sqrt(1 + 3 / 12), standard_error=0.0)
    families = [Family(run="r", workload="w", pairs=(msgspec.structs.replace(one, difference=apart),))]
    assert excess_scatter(families) == pytest.approx(0.04)
    assert excess_scatter([family([0.0, 0.0, 0.0])]) == 0.0


def test_the_excess_is_less_the_errors_of_both_runs():
    (one,) = family([0.04 / math.sqrt(1 + 3 / 12)], [0.02]).pairs
    one = msgspec.structs.replace(one, centre_error=0.01)
    assert one.apart == pytest.approx(0.04)
    assert one.excess == pytest.approx(0.04**2 - 0.02**2 - 0.01**2)


def test_each_comparison_keeps_the_margin_of_its_own_run_and_each_cut_that_of_its_blocks():
    pairs = [one for one in three(scattered(np.random.default_rng(0), 12)) if one.ratio.first == "jax"]
    wide = msgspec.structs.replace(pairs[0].ratio, margin=0.04)
    (one,) = between_runs({"r": [wide]}, pairs)
    assert one.pairs[0].margin == 0.04
    moving = {block: {None: 0.03, make_cell(): -0.03} for block in range(6)}
    still = {block: {None: 0.0, make_cell(): 0.0} for block in range(12)}
    turned = msgspec.structs.replace(pairs[0], effects=(still | moving, still))
    cuts = within_run("r", [turned], 6)
    assert [cut.pairs[0].margin for cut in cuts] == pytest.approx([math.expm1(0.03), MARGIN])


@pytest.mark.parametrize("size", CUTS)
def test_the_simulation_of_cuts_holds_95_percent(size):
    _, centre, scatters = made(6, n=10 + FEWEST_OTHERS)
    cuts = [
        cut for name in WORKLOADS
        for cut in within_run("r", [one for one in centre if one.ratio.workload == name], size)
    ]  # fmt: skip
    counts = simulate_cuts({"x": cuts, "none": []}, scatters, draws=2000)
    of = totals(cuts)
    assert counts["x"].keys() == of.keys()
    assert counts["none"] == {}
    assert counts["x"][HELD].mean() / of[HELD] == pytest.approx(0.95, abs=0.008)


def test_the_limits_are_passed_by_99_percent_of_right_programs_each():
    families, _, scatters = made(5)
    chance, _ = simulate_runs(families, scatters, effects=(), draws=2000)
    bounds = limits(chance)
    assert (chance[HELD] < bounds.held).mean() <= 0.01 < (chance[HELD] <= bounds.held).mean()
    assert (chance[FALSE_ALARMS] > bounds.false_alarms).mean() <= 0.01
    assert bounds.hold(chance).mean() >= 0.98


def test_the_verdict_fails_few_right_programs_and_most_whose_runs_differ():
    assert failing(0.02, 0.0, draws=1000) <= 0.04
    assert failing(0.02, 0.05, draws=1000) > 0.9


# ---- the report


def make(seed: int, blocks: int = 3, apart: float = 0.0) -> tuple[Run, Summary]:
    chance = np.random.default_rng(seed)
    run = simple_run(
        {
            make_cell(workload, name, MODES[name][0]): [
                1000 * math.exp(value + apart * (name == "jax")) for value in values
            ]
            for workload in WORKLOADS
            for name, values in scattered(chance, blocks).items()
        }
    )
    return run, summarise(run)


def said(runs: Mapping[str, tuple[Run, Summary]]) -> str:
    return report(runs, repeated=REPEATED, long="long", cpu="a CPU", draws=500)


RIGHT = {name: make(seed) for seed, name in enumerate(REPEATED)} | {"long": make(20, blocks=12)}


def test_the_report_of_right_runs_says_first_that_it_holds():
    text = said(RIGHT)
    assert text.split("##")[0].count("It holds, by the rule") == 1
    assert "of 18 intervals hold 0" in text
    assert "cannot see a bias that all blocks of the run share" in text
    rows = [line.split(" | ")[:2] for line in text.split("##")[2].splitlines() if line.startswith("|")]
    assert rows[2:] == [
        ["| 3", "8"], ["| 3: first of each workload", "2"], ["| 3: later", "6"], ["| 4", "6"], ["| 6", "4"],
        ["| 10", "0"],
    ]  # fmt: skip
    assert "mnist-mlp: 12 blocks, so no cut of 10." in text
    assert "missing" not in text
    assert said(RIGHT) == text


def test_the_first_cut_of_each_workload_stands_apart():
    """Whose blocks are all slower in one framework, as if what compiles anew were."""
    rates = {
        make_cell(name, backend, MODES[backend][0]): [
            1000 * math.exp(value - (0.3 if place < 3 and backend == "jax" else 0))
            for place, value in enumerate(values)
        ]
        for name in WORKLOADS
        for backend, values in scattered(np.random.default_rng(2), 12, 0.001).items()
    }
    run = simple_run(rates)
    text = said(RIGHT | {"long": (run, summarise(run))})
    (first,) = [line for line in text.splitlines() if line.startswith("| 3: first")]
    assert "| 2 | 2 of 6 (" in first  # only the pairs without JAX hold 0
    assert "| 4 of 6 (" in first


def test_runs_that_differ_fail():
    runs = {name: make(seed, apart=0.2) for seed, name in enumerate(REPEATED)} | {"long": RIGHT["long"]}
    text = said(runs)
    assert "It does NOT hold, by the rule" in text.split("##")[0]
    assert "FALSE ALARM" in text


def test_what_is_missing_or_disturbed_is_named():
    cells = {make_cell("mnist-mlp", name, MODES[name][0]): [1000.0, 1010.0, 990.0] for name in LOGS}
    run = disturbed_run(cells, {0, 1, 2})
    without = simple_run({cell: rates for cell, rates in cells.items() if cell.backend != "jax"})
    runs = RIGHT | {"b": (run, summarise(run)), "c": (without, summarise(without))}
    text = said(runs)
    assert "- missing: b, mnist-mlp: jax / tensorflow, jax / torch, tensorflow / torch: disturbed" in text
    assert "- missing: c, mnist-mlp: jax / tensorflow, jax / torch: not compared" in text
    assert "of 7 intervals hold 0" in text


def test_a_pair_of_two_blocks_is_named_and_not_judged():
    run, summary = RIGHT["a"]
    found = [msgspec.structs.replace(one, degrees=1) for one in default_ratios("a", run, summary)]
    assert "a, mnist-mlp: jax / tensorflow, jax / torch, tensorflow / torch: fewer than 3 blocks" in lacking(
        "a", run, summary, found
    )
    assert between_runs({"a": found}, three(scattered(np.random.default_rng(0), 12), "mnist-mlp")) == ()


def test_without_a_long_run_nothing_is_said():
    run = simple_run({make_cell("mnist-cnn"): [1000.0] * 3})
    text = said(RIGHT | {"long": (run, summarise(run))})
    assert "Too little was measured to say." in text.split("##")[0]
    assert (
        "- missing: long, mnist-cnn: jax / tensorflow, jax / torch, tensorflow / torch: not compared" in text
    )
