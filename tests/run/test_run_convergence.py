"""The section on learning: what its tables and sentences say, and that it is safe Markdown."""

import io
import re
from html import unescape

import msgspec
import pytest
from markdown_it import MarkdownIt
from rich.console import Console
from synthetic import make_header, make_run, make_workload
from trainings import CELLS, learning_run, make_curve, make_finals, make_training

from bench.analysis.accuracy import ProposedTarget, converge, proposed_targets
from bench.analysis.summary import summarise
from bench.records.runs import Run
from bench.report.format import DASH, NOTHING
from bench.report.markdown import document
from bench.run.report import convergence, curves

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


def run_of(finals, *, target=0.9) -> Run:
    workloads = [make_workload(target=target)]
    jobs = [job for cell, by_seed in finals.items() for job in make_finals(cell, by_seed)]
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
    assert found == ["PyTorch eager", "1", "2", "92.00 %", *[NOTHING] * 5]


def test_a_training_that_diverged_is_counted_in_words():
    run = run_of({TORCH: {0: 0.92, 1: 0.94}})
    bad = make_training(TORCH, 2, make_curve([0.1], [0]), epochs=2, status="nan_loss")
    run = msgspec.structs.replace(run, records=(*run.records, bad))
    found = row(run, "PyTorch eager")
    assert (found[1], found[7]) == ("2, 1 diverged", "2 of 3")


# ---- sentences


def test_a_difference_that_was_found_names_the_more_accurate_framework_first():
    (said,) = sentences(run_of({TORCH: {0: 0.90, 1: 0.921, 2: 0.94}, JAX: {0: 0.92, 1: 0.94, 2: 0.961}}))
    assert said.startswith("JAX jit is more accurate than PyTorch eager by 2.00 points (95.0 % interval +")


def test_a_difference_that_was_not_found_comes_with_what_would_have_been():
    (said,) = sentences(run_of({TORCH: {0: 0.90, 1: 0.92, 2: 0.95}, JAX: {0: 0.93, 1: 0.91, 2: 0.94}}))
    assert "no detectable difference; JAX jit is ahead by 0.33 points" in said
    assert "four times in five" not in said, "three seeds do not know their scatter"
    assert said.endswith("equivalence within 0.50 points is not shown.")
    six = [{seed: 0.9 + 0.01 * (seed * place % 5) for seed in range(6)} for place in (1, 2)]
    (said,) = sentences(run_of(dict(zip((TORCH, JAX), six, strict=True))))
    assert re.search(r"found four times in five is between \d+\.\d\d points and \d+\.\d\d points", said)


def test_equal_accuracies_are_said_to_be_equivalent():
    (said,) = sentences(run_of({TORCH: {0: 0.90, 1: 0.92, 2: 0.94}, JAX: {0: 0.90, 1: 0.92, 2: 0.94}}))
    assert "is ahead" not in said
    assert said.endswith("equivalence within 0.50 points is shown.")


@pytest.mark.parametrize(
    ("seeds", "words"), [(0, "0 shared seeds"), (1, "1 shared seed"), (2, "2 shared seeds")]
)
def test_too_few_seeds_are_said_to_be_so(seeds, words):
    sides = {TORCH: {0: 0.9, 1: 0.9, 2: 0.9}, JAX: {seed + 3 - seeds: 0.9 for seed in range(3)}}
    assert sentences(run_of(sides)) == [f"PyTorch eager and JAX jit: not tested: {words}."]


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
    found = sentences(learned)
    assert len(found) == 12
    (pair,) = converge(learned).defaults
    names = (cell.workload for cell in learned.header.cells)
    for said in (*found, convergence.defaults_sentence(pair), *names):
        assert said in shown
    assert text.startswith("## ")


def test_a_run_without_trainings_says_so():
    text = section(make_run(make_header([TORCH])))
    assert text.endswith("No job of this run completed its training, so there is no accuracy.\n")


# ---- targets


def printed(targets) -> str:
    file = io.StringIO()
    convergence.render_targets(targets, Console(file=file, width=100))
    return file.getvalue()


def test_the_table_of_targets_shows_the_figures_they_are_made_of(learned):
    targets = proposed_targets(learned)
    lines = printed(targets).splitlines()
    one = targets[0]
    assert lines[0].split() == ["workload", "seeds", "trainings", "epochs", "mean", "sd", "target"]
    assert lines[1].split() == [
        "mnist-cnn", "5", "15", "6", f"{100 * one.mean:.2f}", "%", f"{100 * (one.sd or 0):.2f}", "%",
        f"{100 * (one.target or 0):.1f}", "%",
    ]  # fmt: skip


def test_a_target_that_too_few_seeds_set_is_left_open():
    one = ProposedTarget(
        workload="mnist-mlp", seeds=1, trainings=3, epochs=2, mean=0.9, sd=0.001, target=None
    )
    assert printed([one]).splitlines()[1].rstrip().endswith(NOTHING)
