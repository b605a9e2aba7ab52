"""Learning in a run: the section of the report, its short form, and the table of `bench targets`."""

from collections.abc import Mapping, Sequence

from rich.console import Console

from bench.analysis.accuracy import (
    EQUIVALENCE_ALPHA,
    EQUIVALENT,
    SEEDS_NEEDED,
    TARGET_SDS,
    AccuracyComparison,
    DefaultsAgainstMatched,
    ProposedTarget,
    WorkloadConvergence,
)
from bench.analysis.convergence import LONG_ENOUGH
from bench.records.runs import Run
from bench.report.blocks import Paragraph, bullets, number_table
from bench.report.format import cell_name, percent
from bench.report.terminal import print_blocks
from bench.run.untrained import command_to_train
from bench.text import listed

INTERVAL = f"{100 * (1 - 2 * EQUIVALENCE_ALPHA):g} %"
"""The confidence of the interval that belongs to two one-sided tests."""


def accuracy_sentences(workload: WorkloadConvergence, titles: Mapping[str, str]) -> list[str]:
    """Say what the accuracies of a workload show: one sentence for each pair, or one for all of them."""
    if not workload.comparisons:
        names = [titles.get(cell.backend, cell.backend) for cell in workload.representatives]
        return [f"only {names[0]} was trained, so there is no accuracy to compare"] if names else []
    hindrances = [_hindrance(one) for one in workload.comparisons]
    if hindrances[0] is not None and len(set(hindrances)) == 1:
        return [hindrances[0]]
    return [comparison_sentence(one, titles) for one in workload.comparisons]


def comparison_sentence(one: AccuracyComparison, titles: Mapping[str, str]) -> str:
    """Say in one sentence what is shown about the accuracies of two frameworks."""
    first, second = (cell_name(cell, titles) for cell in (one.first, one.second))
    if one.test is None:
        return f"{first} and {second}: {_hindrance(one)}"
    low, high = (f"{100 * end:+.2f}" for end in (one.test.low, one.test.high))
    found = f"{first} - {second}: {low} to {high}, {INTERVAL} interval, {one.seeds} seeds"
    bound = f"{100 * EQUIVALENT:g} points"
    if one.test.shown:
        return f"{first} and {second}: equivalent within {bound} ({found})"
    return f"{first} and {second}: not shown to be equivalent within {bound} ({found})"


def _hindrance(one: AccuracyComparison) -> str | None:
    """Say why two accuracies were not tested; None if they were."""
    match one.conclusion:
        case "too brief":
            return f"trained too briefly to compare: {_epochs(min(one.epochs))}"
        case "unequal epochs":
            return f"trained for {one.epochs[0]:g} and {_epochs(one.epochs[1])}, which cannot be compared"
        case "diverged":
            return f"{_count(one.diverged, 'training')} diverged, so nothing is claimed about accuracies"
        case "too few seeds":
            return f"not compared: {_count(one.seeds, 'seed')}, and {SEEDS_NEEDED} are needed"
        case _:
            return None


def defaults_sentence(pair: DefaultsAgainstMatched) -> str:
    """Say in one sentence how much the frameworks differ, matched and with their own defaults."""
    return (
        f"{pair.matched}: matched, the frameworks' mean accuracies differ by at most "
        f"{_points(pair.matched_spread)}; with their own defaults by at most {_points(pair.defaults_spread)}."
    )


def render_targets(
    targets: Sequence[ProposedTarget], run: Run, titles: Mapping[str, str], console: Console
) -> None:
    """Print the table of `bench targets`: each workload's target, and the figures from which it follows.

    `titles` gives a framework's title by its name.
    """
    rows = [
        (
            one.workload,
            str(min(one.seeds.values())),
            str(one.trainings),
            f"{one.epochs:g}",
            percent(one.mean, 2),
            percent(one.sd, 2),
            percent(one.target, 1),
        )
        for one in targets
    ]
    said = (
        f"The target is the mean minus {TARGET_SDS} standard deviations of the final test accuracies of all "
        "frameworks and seeds, rounded down to 0.1 points, for trainings of so many epochs. It needs "
        f"{SEEDS_NEEDED} seeds of every framework, and {_epochs(LONG_ENOUGH)} at least."
    )
    heads = ("workload", "seeds", "trainings", "epochs", "mean", "sd", "target")
    refused = [_refusal(one, run, titles) for one in targets if one.target is None]
    print_blocks(
        [
            number_table(heads, rows),
            Paragraph(text=said, faint=True),
            *([bullets(refused)] if refused else []),
        ],
        console,
    )


def _refusal(one: ProposedTarget, run: Run, titles: Mapping[str, str]) -> str:
    """Say why a workload gets no target, and how to get one."""
    if one.too_brief:
        why = f"trained too briefly: {_epochs(one.epochs)}"
    else:
        few = [
            f"{_count(count, 'seed')} of {titles.get(name, name)}"
            for name, count in one.seeds.items()
            if count < SEEDS_NEEDED
        ]
        why = f"{listed(few)}, where {SEEDS_NEEDED} are needed"
    command = command_to_train(run, [one.workload], seeds=SEEDS_NEEDED, frameworks=len(one.seeds))
    return f"{one.workload}: no target: {why}. Train with: {command}"


def _points(share: float) -> str:
    return f"{100 * share:.2f} points"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _epochs(count: float) -> str:
    return f"{count:.2g} epoch{'' if count == 1 else 's'}"
