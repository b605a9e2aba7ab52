"""The page's sections on learning: what their tables and sentences say."""

import io
import json

import msgspec
import pytest
from page_blocks import rows_of, said, section, table_with, tables
from rich.console import Console
from synthetic import make_header, make_job, make_parity, make_run, make_workload
from trainings import CELLS, learning_run, make_curve, make_finals, make_proof, make_training

from bench.analysis.accuracy import converge, proposed_targets
from bench.analysis.summary import summarise
from bench.records.runs import Run
from bench.report.blocks import Block, charts_of
from bench.report.format import DASH, NOTHING
from bench.run.report import convergence, page
from bench.run.report.export import to_json

TORCH, TENSORFLOW, JAX = CELLS
TITLES = {"torch": "PyTorch", "tensorflow": "TensorFlow", "jax": "JAX"}


@pytest.fixture(scope="module")
def learned() -> Run:
    return learning_run()


def learning(run: Run) -> list[Block]:
    """Return the sections on learning and on the time to the target."""
    blocks = page.blocks(run, summarise(run))
    return [*section(blocks, "Learning"), *section(blocks, "Time to accuracy")]


def run_of(finals, *, target=0.9, epochs=2) -> Run:
    workloads = [make_workload(target=target)]
    jobs = [job for cell, by_seed in finals.items() for job in make_finals(cell, by_seed, epochs=epochs)]
    return make_run(make_header(list(finals), workloads=workloads), jobs)


def row(run: Run, head: str) -> dict[str, str]:
    """Return the first row of the first table of all workloads that has a column of that name."""
    return rows_of(table_with(learning(run), "workload", head))[0]


def sentences(run: Run) -> list[str]:
    return [
        convergence.comparison_sentence(one, TITLES)
        for workload in converge(run).workloads
        for one in workload.comparisons
    ]


# ---- tables


def test_a_row_says_accuracy_with_its_spread_and_interval():
    run = run_of({TORCH: {0: 0.92, 1: 0.94, 2: 0.96}})
    assert row(run, "test accuracy") == {
        "workload": "mnist-cnn", "framework": "PyTorch eager", "device": "cpu fp32", "seeds": "3",
        "epochs": "2",
        "test accuracy": "94.00 ± 2.00 %", "95 % interval": f"89.03{DASH}98.97 %",
    }  # fmt: skip


def test_a_row_says_the_way_to_the_target_and_the_rate_with_its_interval():
    run = run_of({TORCH: {0: 0.92, 1: 0.94, 2: 0.96}})
    assert row(run, "seconds to target") == {
        "workload": "mnist-cnn", "framework": "PyTorch eager", "target": "90.0 %",
        "epochs to target": "1.90 [1]", "seconds to target": "19.0 s", "reached by": "3 of 3",
        "95 % interval of that share": f"44{DASH}100 %",
    }  # fmt: skip


def test_a_censored_median_is_said_to_be_not_reached():
    found = row(run_of({TORCH: {0: 0.92, 1: 0.5, 2: 0.6}}), "seconds to target")
    assert found["epochs to target"] == found["seconds to target"] == "not reached"
    assert found["reached by"] == "1 of 3"


def test_without_a_target_the_page_says_how_to_set_one():
    found = learning(run_of({TORCH: {0: 0.92}}, target=None))
    assert "has a target accuracy, so there is no time to one" in said(found)
    assert not any("seconds to target" in table.heads for table in tables(found))


def test_a_training_that_diverged_is_counted_in_words():
    run = run_of({TORCH: {0: 0.92, 1: 0.94}})
    bad = make_training(TORCH, 2, make_curve([0.1], [0]), epochs=2, status="nan_loss")
    run = msgspec.structs.replace(run, records=(*run.records, bad))
    assert row(run, "test accuracy")["seeds"] == "2, 1 diverged"
    assert row(run, "seconds to target")["reached by"] == "2 of 3"


def test_a_brief_training_has_no_accuracy_in_any_table():
    run = run_of({TORCH: {0: 0.92, 1: 0.94, 2: 0.96}}, epochs=0.3)
    found = row(run, "test accuracy")
    assert (found["epochs"], found["test accuracy"], found["95 % interval"]) == ("0.3", "too brief", NOTHING)
    ranked = rows_of(table_with(page.blocks(run, summarise(run)), "of the fastest"))[0]
    assert ranked["test accuracy"] == "too brief"


@pytest.mark.parametrize(("target", "shown"), [(0.9, True), (None, False)])
def test_the_column_of_the_target_is_there_if_some_workload_has_one(target, shown):
    run = run_of({TORCH: {0: 0.92}}, target=target)
    table = table_with(page.blocks(run, summarise(run)), "of the fastest")
    assert ("time to target" in table.heads) == shown


# ---- sentences


TEN = [-1.6, -1.1, -0.7, -0.4, -0.1, 0.1, 0.4, 0.7, 1.1, 1.6]


def ten(middle: float, scale: float = 0.001) -> dict[int, float]:
    return {seed: middle + scale * place for seed, place in enumerate(TEN)}


def test_equivalent_accuracies_are_told_with_interval_and_seeds():
    assert sentences(run_of({TORCH: ten(0.971), JAX: ten(0.970, -0.001)})) == [
        "PyTorch eager and JAX jit: equivalent within 0.5 points (PyTorch eager - JAX jit: -0.02 to +0.22, "
        "90 % interval, 10 seeds)"
    ]


def test_accuracies_that_may_differ_by_more_are_not_shown_to_be_equivalent():
    assert sentences(run_of({TORCH: ten(0.965), JAX: ten(0.970, -0.001)})) == [
        "PyTorch eager and JAX jit: not shown to be equivalent within 0.5 points (PyTorch eager - JAX jit: "
        "-0.62 to -0.38, 90 % interval, 10 seeds)"
    ]


def three(value: float) -> dict[int, float]:
    return {0: value, 1: value, 2: value}


@pytest.mark.parametrize(
    ("finals", "epochs", "words"),
    [
        pytest.param(
            {TORCH: three(0.9), JAX: three(0.7)}, 2,
            "not compared: 3 seeds, and 10 are needed", id="seeds",
        ),
        pytest.param(
            {TORCH: {0: 0.9}, JAX: {0: 0.7}, TENSORFLOW: {0: 0.8}}, 3,
            "not compared: 1 seed, and 10 are needed", id="one seed",
        ),
        pytest.param(
            {TORCH: ten(0.9), JAX: ten(0.7)}, 0.3, "trained too briefly to compare: 0.3 epochs", id="brief"
        ),
        pytest.param(
            {TORCH: ten(0.9)}, 3, "only PyTorch was trained, so there is no accuracy to compare",
            id="one",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_told_in_one_sentence_without_a_difference(finals, epochs, words):
    run = run_of(finals, epochs=epochs)
    (workload,) = converge(run).workloads
    assert convergence.accuracy_sentences(workload, TITLES) == [words]
    assert row(run, "accuracies")["accuracies"] == words


def test_pairs_that_fail_for_different_reasons_are_told_one_by_one():
    jobs = [
        job
        for cell, finals, epochs in ((TORCH, ten(0.9), 2), (JAX, ten(0.9), 2), (TENSORFLOW, ten(0.9), 3))
        for job in make_finals(cell, finals, epochs=epochs)
    ]
    run = make_run(make_header([TORCH, JAX, TENSORFLOW], workloads=[make_workload()]), jobs)
    first, second, third = sentences(run)
    assert first.startswith("PyTorch eager and JAX jit: equivalent within 0.5 points (")
    assert second == (
        "PyTorch eager and TensorFlow graph: trained for 2 and 3 epochs, which cannot be compared"
    )
    assert third.startswith("JAX jit and TensorFlow graph: trained for 2 and 3 epochs")


def test_a_claim_says_what_it_covers(learned):
    shown = said(learning(learned))
    assert "A claim is about its own pair" in shown
    assert "If every pair is equivalent, all are" in shown


# ---- first steps


@pytest.mark.parametrize(
    ("errors", "rounding", "agreement"),
    [
        ((3e-7, 2e-6, 4e-5), (1e-7, 1e-6, 2e-5), ("6 digits", "4 digits (step 3)", "4 digits")),
        ((3e-7,), (1e-7,), ("6 digits", NOTHING, "7 digits")),
        ((3e-7, 0.03), (1e-7, 0.4), ("6 digits", "1 digit (step 2)", "0 digits")),
    ],
)
def test_the_first_steps_are_told_in_digits_beside_those_of_the_disturbed_reference(
    errors, rounding, agreement
):
    job = msgspec.structs.replace(make_job(TORCH), proofs=(make_proof(errors, rounding),))
    run = make_run(make_header([TORCH], workloads=[make_workload()], seeds=0), [make_parity(TORCH), job])
    found = row(run, "first loss agrees to")
    assert (found["workload"], found["accuracies"]) == ("mnist-cnn", "not trained")
    assert agreement == (
        found["first loss agrees to"],
        found["last loss compared agrees to"],
        found["rounding alone leaves"],
    )


def test_the_json_report_has_the_errors_of_every_row_that_was_compared(learned):
    rows = json.loads(to_json(summarise(learned), learned))
    compared = [row for row in rows if "first_steps" in row]
    assert {row["workload"] for row in compared} == {"mnist-cnn", "cifar10-cnn", "mnist-cnn-adam"}
    (proof,) = next(job.proofs for job in learned.jobs if job.spec.cell == TORCH and job.proofs)
    (torch,) = [row for row in compared if (row["workload"], row["backend"]) == ("mnist-cnn", "torch")]
    assert torch["first_steps"] == {
        "errors": list(proof.loss_errors), "rounding": list(proof.rounding_errors),
    }  # fmt: skip


def test_defaults_are_set_against_matched_in_a_sentence(learned):
    (pair,) = converge(learned).defaults
    assert convergence.defaults_sentence(pair) == (
        "mnist-cnn-adam: matched, the frameworks' mean accuracies differ by at most "
        f"{100 * pair.matched_spread:.2f} points; with their own defaults by at most "
        f"{100 * pair.defaults_spread:.2f} points."
    )
    assert "own defaults" not in said(learning(run_of({TORCH: {0: 0.9}})))


# ---- the whole section


def test_the_sections_hold_every_workload_test_and_chart(learned):
    found = learning(learned)
    shown = said(found)
    questions = {chart.name.partition("-mnist")[0] for chart in charts_of(found)}
    assert len(questions) >= 5, questions
    (pair,) = converge(learned).defaults
    names = (cell.workload for cell in learned.header.cells)
    for words in (convergence.defaults_sentence(pair), *names):
        assert words in shown
    assert "not compared: 5 seeds, and 10 are needed" in shown


def test_a_run_without_trainings_says_so():
    assert "No training run of this run was completed, so there is no accuracy." in said(
        learning(make_run(make_header([TORCH])))
    )


# ---- targets


def printed(targets, run: Run) -> str:
    file = io.StringIO()
    convergence.render_targets(targets, run, TITLES, Console(file=file, width=200))
    return file.getvalue()


def test_the_table_of_targets_shows_the_figures_they_are_made_of():
    run = learning_run(seeds=10)
    targets = proposed_targets(run, ("torch", "tensorflow", "jax"))
    lines = printed(targets, run).splitlines()
    one = targets[0]
    assert lines[0].split() == ["workload", "seeds", "trainings", "epochs", "mean", "sd", "target"]
    assert lines[1].split() == [
        "mnist-cnn", "10", "30", "6", f"{100 * one.mean:.2f}", "%", f"{100 * (one.sd or 0):.2f}", "%",
        f"{100 * (one.target or 0):.1f}", "%",
    ]  # fmt: skip


def test_a_target_that_is_refused_says_why_and_which_command_makes_one():
    run = run_of({TORCH: {0: 0.9, 1: 0.9}, JAX: ten(0.9)})
    said = printed(proposed_targets(run, ("torch", "jax", "tensorflow")), run)
    assert said.splitlines()[1].split()[:2] == ["mnist-cnn", "0"]
    assert said.splitlines()[1].rstrip().endswith(NOTHING)
    assert (
        "mnist-cnn: no target: 2 seeds of PyTorch and 0 seeds of TensorFlow, where 10 are needed. Train "
        "with: bench run --preset quick --workload mnist-cnn --seeds 10 --budget" in " ".join(said.split())
    )


def test_a_brief_training_gives_no_target():
    run = run_of({TORCH: ten(0.9), JAX: ten(0.9)}, epochs=0.3)
    said = printed(proposed_targets(run, ("torch", "jax")), run)
    assert "no target: trained too briefly: 0.3 epochs. Train with: bench run" in " ".join(said.split())
