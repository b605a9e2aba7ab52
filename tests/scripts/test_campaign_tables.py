"""Tables of pages, from runs whose figures are known."""

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from synthetic import make_cell, make_header, make_run, simple_run
from trainings import make_finals

from bench.analysis.summary import summarise
from bench.records.runs import Run
from bench.report.format import NOTHING
from campaign.tables import accuracies, modes, ranking, targets

TORCH, JAX = make_cell(), make_cell(backend="jax", mode="jit")
TENSORFLOW = make_cell(backend="tensorflow", mode="graph")


def run_of(*, torch: float, jax: float) -> Run:
    chance = np.random.default_rng(0)

    def rates(mean: float) -> Sequence[float]:
        return [float(mean * math.exp(chance.normal(0, 0.005))) for _ in range(4)]

    return simple_run({TORCH: rates(torch), JAX: rates(jax)})


def rows_of(table: str) -> list[list[str]]:
    assert table.startswith("\n\n")
    assert table.endswith("\n\n")
    lines = table.strip().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], *lines[2:])]


def test_the_ranking_has_each_framework_and_how_far_ahead_the_fastest_is():
    summary = summarise(run_of(torch=1000, jax=2000))
    heads, (workload, tensorflow, torch, jax, answer) = rows_of(ranking(summary))
    assert heads == [
        "workload", "tensorflow, samples/s", "PyTorch, samples/s", "JAX, samples/s", "the fastest",
    ]  # fmt: skip
    assert workload == "mnist-cnn"
    assert tensorflow == NOTHING
    rates = {cell.backend: cell.samples_per_s for cell in summary.cells}
    assert torch.startswith(f"{rates['torch']:,.0f} ± ")
    assert jax.startswith(f"{rates['jax']:,.0f} ± ")
    (one,) = summary.verdicts[0].made.backends
    assert answer == f"JAX: {one.low:.2f}\N{EN DASH}{one.high:.2f} times as fast as PyTorch"


def test_equal_frameworks_have_no_fastest():
    assert rows_of(ranking(summarise(run_of(torch=1000, jax=1000))))[1][-1] == "none is proven"
    assert len(rows_of(ranking(summarise(run_of(torch=1000, jax=1000)), level="taught"))) == 1


def test_a_backend_that_is_no_column_is_named_by_its_title():
    keras = make_cell(backend="keras-jax", mode="fit")
    summary = summarise(simple_run({TORCH: [10.0, 10.1, 9.9], keras: [30.0, 30.2, 29.9]}))
    summary = msgspec.structs.replace(summary, titles={**summary.titles, "keras-jax": "Keras on JAX"})
    assert rows_of(ranking(summary))[1][-1].startswith("Keras on JAX: ")


def test_every_mode_has_its_speed_on_each_workload_and_the_highest_of_a_framework_is_marked():
    slow, quick = make_cell(mode="tutorial"), make_cell(mode="compile-loop")
    cnn = summarise(simple_run({slow: [10.0, 10.1, 9.9], quick: [30.0, 30.1, 29.9], JAX: [20.0, 20.1, 19.9]}))
    mlp = summarise(simple_run({make_cell("mnist-mlp", mode="tutorial"): [5.0, 5.1, 4.9]}))
    heads, *rows = rows_of(modes([cnn, mlp]))
    assert heads == ["framework", "mode", "mnist-cnn, samples/s", "mnist-mlp, samples/s"]
    assert [row[:2] for row in rows] == [["PyTorch", "compile-loop"], ["PyTorch", "tutorial"], ["JAX", "jit"]]
    assert rows[0][2].startswith("30 ± ")
    assert rows[0][2].endswith("(highest)")
    assert not rows[1][2].endswith("(highest)")
    assert rows[1][3].endswith("(highest)")
    assert rows[0][3] == NOTHING
    assert rows[2][2].endswith("(highest)")


def test_accuracies_have_their_scatter_and_the_pairs_that_are_equivalent():
    finals = {seed: 0.97 + 1.1e-4 * seed for seed in range(10)}
    turned = {seed: finals[9 - seed] for seed in finals}
    records = [*make_finals(TORCH, finals, epochs=5), *make_finals(JAX, turned, epochs=5)]
    heads, row = rows_of(accuracies([make_run(make_header([TORCH, JAX]), records)]))
    assert heads[:6] == ["workload", "epochs", "seeds", "tensorflow, %", "PyTorch, %", "JAX, %"]
    scatter = 100 * float(np.std(list(finals.values()), ddof=1))
    middle = f"{100 * float(np.mean(list(finals.values()))):.2f} ± {scatter:.2f}"
    assert row == ["mnist-cnn", "5", "10", NOTHING, middle, middle, "1 of 1 pairs"]


def test_targets_are_those_that_bench_targets_proposes():
    finals = {seed: 0.97 + 1.1e-4 * seed for seed in range(10)}
    header = make_header([TENSORFLOW, TORCH, JAX])
    ten, two = (
        make_run(header, [one for cell in header.cells for one in make_finals(cell, seeds, epochs=5)])
        for seeds in (finals, {0: 0.9, 1: 0.91})
    )
    heads, row, of_two = rows_of(targets([ten, two]))
    values = 100 * np.array(list(finals.values()) * 3)
    mean, sd = float(np.mean(values)), float(np.std(values, ddof=1))
    target = math.floor(10 * (mean - 3 * sd)) / 10
    assert heads[-1] == "target, %"
    assert row == ["mnist-cnn", "5", "30", f"{mean:.2f}", f"{sd:.2f}", f"{target:.1f}"]
    assert of_two[-1] == NOTHING


def test_three_seeds_are_not_asked_for_equivalence():
    records = [*make_finals(TORCH, {0: 0.9, 1: 0.91, 2: 0.9}), *make_finals(JAX, {0: 0.9, 1: 0.91, 2: 0.9})]
    row = rows_of(accuracies([make_run(make_header([TORCH, JAX]), records)]))[1]
    assert row[-1] == "not asked: too few seeds"
