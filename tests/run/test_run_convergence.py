"""The section on learning: what its tables and sentences say, and that it is safe Markdown."""

import io
import json
import re
from html import unescape

import msgspec
import pytest
from markdown_it import MarkdownIt
from rich.console import Console
from synthetic import make_header, make_job, make_parity, make_run, make_workload
from trainings import CELLS, learning_run, make_curve, make_finals, make_proof, make_training

from bench.analysis.accuracy import converge, proposed_targets
from bench.analysis.first_steps import digits
from bench.analysis.summary import summarise
from bench.records.runs import Run
from bench.report.blocks import Table
from bench.report.format import DASH, NOTHING
from bench.report.markdown import document
from bench.run.report import convergence, curves
from bench.run.report.export import to_json
from bench.run.report.tables import speed_blocks

TORCH, TENSORFLOW, JAX = CELLS
TITLES = {"torch": "PyTorch", "tensorflow": "TensorFlow", "jax": "JAX"}


@pytest.fixture(scope="module")
def learned() -> Run:
    return learning_run()


def section(run: Run) -> str:
    return document(convergence.blocks(run, summarise(run)), frozenset(curves.NAMES))


def plain(text: str) -> str:
    html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)
    return unescape(re.sub(r"<[^>]+>", "", html))


def run_of(finals, *, target=0.9, epochs=2) -> Run:
    workloads = [make_workload(target=target)]
    jobs = [job for cell, by_seed in finals.items() for job in make_finals(cell, by_seed, epochs=epochs)]
    return make_run(make_header(list(finals), workloads=workloads), jobs)


def row(run: Run, name: str) -> list[str]:
    """Return the cells of the first table row of that name."""
    line = next(line for line in section(run).splitlines() if line.startswith(f"| {name} "))
    return [re.sub(r"\\(.)", r"\1", cell.strip()) for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def sentences(run: Run) -> list[str]:
    return [
        convergence.comparison_sentence(one, TITLES)
        for workload in converge(run).workloads
        for one in workload.comparisons
    ]


# ---- tables


def test_a_row_says_accuracy_with_spread_the_way_to_the_target_and_the_rate_with_its_interval():
    run = run_of({TORCH: {0: 0.92, 1: 0.94, 2: 0.96}})
    assert row(run, "PyTorch eager") == [
        "PyTorch eager", "3", "2", "94.00 ± 2.00 %", f"89.03{DASH}98.97 %", "1.90 [1]", "19.0 s", "3 of 3",
        f"44{DASH}100 %",
    ]  # fmt: skip


def test_a_censored_median_is_said_to_be_not_reached():
    found = row(run_of({TORCH: {0: 0.92, 1: 0.5, 2: 0.6}}), "PyTorch eager")
    assert found[5:8] == ["not reached", "not reached", "1 of 3"]


def test_without_a_target_nothing_is_said_of_one():
    found = row(run_of({TORCH: {0: 0.92}}, target=None), "PyTorch eager")
    assert found == ["PyTorch eager", "1", "2", "92.00 %", NOTHING]


def test_a_training_that_diverged_is_counted_in_words():
    run = run_of({TORCH: {0: 0.92, 1: 0.94}})
    bad = make_training(TORCH, 2, make_curve([0.1], [0]), epochs=2, status="nan_loss")
    run = msgspec.structs.replace(run, records=(*run.records, bad))
    found = row(run, "PyTorch eager")
    assert (found[1], found[7]) == ("2, 1 diverged", "2 of 3")


def test_a_brief_training_has_no_accuracy_in_any_table():
    run = run_of({TORCH: {0: 0.92, 1: 0.94, 2: 0.96}}, epochs=0.3)
    assert row(run, "PyTorch eager")[2:5] == ["0.3", "too brief", NOTHING]
    (table,) = [one for one in speed_blocks(summarise(run)) if isinstance(one, Table)]
    assert table.rows[0][table.heads.index("accuracy")] == "too brief"
    assert "trained too briefly to compare: 0.3 epochs" in section_of_speed(run)


def section_of_speed(run: Run) -> str:
    return document(speed_blocks(summarise(run)), frozenset())


@pytest.mark.parametrize(("target", "shown"), [(0.9, True), (None, False)])
def test_the_column_of_the_target_is_there_if_some_workload_has_one(target, shown):
    run = run_of({TORCH: {0: 0.92}}, target=target)
    (table,) = [one for one in speed_blocks(summarise(run)) if isinstance(one, Table)]
    assert ("to target" in table.heads) == shown
    assert table.heads[table.details] == "parity"
    assert ("target" in section(run)) == shown


# ---- sentences


TEN = [-1.6, -1.1, -0.7, -0.4, -0.1, 0.1, 0.4, 0.7, 1.1, 1.6]


def ten(middle: float, scale: float = 0.001) -> dict[int, float]:
    return {seed: middle + scale * place for seed, place in enumerate(TEN)}


def test_equivalent_accuracies_are_told_with_interval_and_seeds():
    assert sentences(run_of({TORCH: ten(0.971), JAX: ten(0.970)})) == [
        "PyTorch eager and JAX jit: equivalent within 0.5 points (PyTorch eager - JAX jit: +0.02 to +0.18, "
        "90 % interval, 10 seeds)"
    ]


def test_accuracies_that_may_differ_by_more_are_not_shown_to_be_equivalent():
    assert sentences(run_of({TORCH: ten(0.965), JAX: ten(0.970)})) == [
        "PyTorch eager and JAX jit: not shown to be equivalent within 0.5 points (PyTorch eager - JAX jit: "
        "-0.58 to -0.42, 90 % interval, 10 seeds)"
    ]


def three(value: float) -> dict[int, float]:
    return {0: value, 1: value, 2: value}


@pytest.mark.parametrize(
    ("finals", "epochs", "said"),
    [
        pytest.param(
            {TORCH: three(0.9), JAX: three(0.7)}, 2,
            "3 seeds: too few to claim that accuracies are equivalent (10 are needed)", id="seeds",
        ),
        pytest.param(
            {TORCH: {0: 0.9}, JAX: {0: 0.7}, TENSORFLOW: {0: 0.8}}, 3,
            "1 seed: too few to claim that accuracies are equivalent (10 are needed)", id="one seed",
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
def test_what_cannot_be_compared_is_told_in_one_sentence_without_a_difference(finals, epochs, said):
    run = run_of(finals, epochs=epochs)
    (workload,) = converge(run).workloads
    assert convergence.accuracy_sentences(workload, TITLES) == [said]
    assert convergence.answer(run, TITLES) == [f"mnist-cnn (cpu fp32): {said}."]
    if len(finals) > 1:
        assert f"{said}." in plain(section(run))
    assert "points" not in plain(section(run)).replace("less than 0.5 points", "").replace("these points", "")


def test_workloads_of_which_the_same_is_said_share_a_line():
    workloads = [make_workload(), make_workload("mnist-mlp"), make_workload("cifar10-cnn")]
    jobs = [
        job
        for workload, epochs in zip(workloads, (3, 3, 0.3), strict=True)
        for cell in (TORCH, JAX)
        for job in make_finals(msgspec.structs.replace(cell, workload=workload.name), {0: 0.9}, epochs=epochs)
    ]
    cells = list(dict.fromkeys(job.spec.cell for job in jobs))
    assert convergence.answer(make_run(make_header(cells, workloads=workloads), jobs), TITLES) == [
        "mnist-cnn (cpu fp32) and mnist-mlp (cpu fp32): 1 seed: too few to claim that accuracies are "
        "equivalent (10 are needed).",
        "cifar10-cnn (cpu fp32): trained too briefly to compare: 0.3 epochs.",
    ]


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
    shown = plain(section(learned))
    assert "A claim covers its own pair" in shown
    assert "if every pair is" in shown


# ---- first steps


@pytest.mark.parametrize(
    ("errors", "rounding", "said"),
    [
        (
            (3e-7, 2e-6, 4e-5), (1e-7, 1e-6, 2e-5),
            "the losses agree to 6 digits at the first step and to 4 digits at step 3; a reference disturbed "
            "by rounding alone agrees to 4 digits there",
        ),
        (
            (3e-7,), (1e-7,),
            "the losses agree to 6 digits at the first step, the only one compared; a reference disturbed by "
            "rounding alone agrees to 7 digits",
        ),
        (
            (3e-7, 0.03), (1e-7, 0.4),
            "the losses agree to 6 digits at the first step and to 1 digit at step 2; a reference disturbed "
            "by rounding alone agrees to 0 digits there",
        ),
    ],
)  # fmt: skip
def test_the_first_steps_are_told_in_digits_beside_those_of_the_disturbed_reference(errors, rounding, said):
    job = msgspec.structs.replace(make_job(TORCH), proofs=(make_proof(errors, rounding),))
    run = make_run(make_header([TORCH], workloads=[make_workload()], seeds=0), [make_parity(TORCH), job])
    assert convergence.answer(run, TITLES) == [f"mnist-cnn (cpu fp32): {said}."]
    text = section(run)
    assert "### The first steps" in text
    found = row(run, "mnist-cnn")
    assert found[0] == "mnist-cnn (cpu fp32)"
    assert found[2] == f"{errors[0]:.1e} (6 digits)"
    assert found[4] == (NOTHING if len(errors) == 1 else f"{errors[-1]:.1e} ({digits_text(errors[-1])})")
    assert found[5] == f"{rounding[-1]:.1e} ({digits_text(rounding[-1])})"


def digits_text(error: float) -> str:
    count = digits(error)
    return "1 digit" if count == 1 else f"{count} digits"


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
    assert "own defaults" not in section(run_of({TORCH: {0: 0.9}}))


# ---- the whole section


def test_the_section_holds_every_workload_row_test_and_plot(learned):
    text = section(learned)
    shown = plain(text)
    for name in curves.NAMES:
        assert f"(plots/{name}.svg)" in text
    (pair,) = converge(learned).defaults
    names = (cell.workload for cell in learned.header.cells)
    for said in (convergence.defaults_sentence(pair), *names):
        assert said in shown
    assert "5 seeds: too few to claim that accuracies are equivalent (10 are needed)." in shown
    assert text.startswith("## ")


def test_a_run_without_trainings_says_so():
    text = section(make_run(make_header([TORCH])))
    assert text.endswith("No job of this run completed its training, so there is no accuracy.\n")


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
